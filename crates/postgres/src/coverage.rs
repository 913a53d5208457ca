//! Which of the user's relations a cutover covers: the plan's filter as a condition in SQL.
//!
//! There is one condition. Before the gate is installed it stands in our queries, so that preflight can ask. From then
//! on it is the body of the function `cutover.covers` in both databases, which our queries and what is installed there
//! call alike: publication, copy, gate, event triggers and verification can't differ in what they mean by "the tables".

use cutover_core::plan::{Filter, Pattern, Piece};
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;

use crate::{
    PgError, PgResult,
    catalogue::{QualifiedName, USER_RELATION},
    names::literal,
};

/// What is covered, and how to ask for it.
#[derive(Clone, Debug)]
pub struct Coverage(How);

#[derive(Clone, Debug)]
enum How {
    /// Everything.
    All,
    /// What this filter says.
    Filter(Filter),
    /// What the function in this database says.
    Function(&'static str),
}

/// A relation of the user's that a cutover leaves where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Name.
    #[serde(flatten)]
    pub name: QualifiedName,
    /// `table`, `partitioned table`, `view`, `materialised view`, `foreign table` or `sequence`.
    pub kind: String,
    /// Size with TOAST and indexes. Unit: bytes.
    pub bytes: i64,
}

impl Coverage {
    /// Everything of the user's, whatever a plan says.
    #[must_use]
    pub fn all() -> Self {
        Self(How::All)
    }

    /// What a plan covers, asked of a database that need not know it.
    #[must_use]
    pub fn of(filter: &Filter) -> Self {
        Self(if filter.is_all() { How::All } else { How::Filter(filter.clone()) })
    }

    /// What the cutover covers that is installed in this database; everything where none is, or one without a filter.
    ///
    /// # Errors
    /// [`PgError::Sql`].
    pub async fn installed<C: GenericClient>(client: &C) -> PgResult<Self> {
        Self::asking(client, "covers").await
    }

    /// What that cutover defines at its target: what it covers, and more where the plan wants it.
    pub(crate) async fn defined<C: GenericClient>(client: &C) -> PgResult<Self> {
        Self::asking(client, "defines").await
    }

    async fn asking<C: GenericClient>(client: &C, function: &'static str) -> PgResult<Self> {
        let sql = "SELECT pg_catalog.to_regprocedure($1::text) IS NOT NULL";
        let signature = format!("cutover.{function}(name, name)");
        let row = client.query_one(sql, &[&signature]).await;
        let found: bool = row.map_err(|error| PgError::sql("asking what the cutover covers", error))?.get(0);
        Ok(Self(if found { How::Function(function) } else { How::All }))
    }

    /// Whether a relation is covered by its name, as SQL. The arguments are expressions of type `name`.
    pub(crate) fn covers(&self, schema: &str, relation: &str) -> String {
        match &self.0 {
            How::All => "true".to_owned(),
            How::Filter(filter) => condition(filter, schema, relation),
            How::Function(function) => format!("cutover.{function}({schema}, {relation})"),
        }
    }

    /// A condition on `pg_class c` joined with `pg_namespace n`: a relation of the user's that is covered.
    #[must_use]
    pub fn inside(&self) -> String {
        match &self.0 {
            How::All => USER_RELATION.to_owned(),
            _ => format!("({USER_RELATION} AND {})", self.by_kind()),
        }
    }

    /// The same for one that is left out.
    #[must_use]
    pub fn outside(&self) -> String {
        match &self.0 {
            How::All => "false".to_owned(),
            _ => format!("({USER_RELATION} AND NOT {})", self.by_kind()),
        }
    }

    /// An index goes with its table. A sequence goes with the table that owns it, else with those whose columns take
    /// their default from it, else by its own name. What is no relation for users, such as a composite type, stays in.
    fn by_kind(&self) -> String {
        let owner = "FROM pg_catalog.pg_depend o JOIN pg_catalog.pg_class oc ON oc.oid = o.refobjid \
             JOIN pg_catalog.pg_namespace ns ON ns.oid = oc.relnamespace WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.objid = c.oid \
             AND o.refclassid = 'pg_catalog.pg_class'::regclass AND o.deptype IN ('a', 'i')";
        let user = "FROM pg_catalog.pg_depend o JOIN pg_catalog.pg_attrdef d ON d.oid = o.objid JOIN pg_catalog.pg_class oc ON oc.oid = d.adrelid \
             JOIN pg_catalog.pg_namespace ns ON ns.oid = oc.relnamespace WHERE o.classid = 'pg_catalog.pg_attrdef'::regclass \
             AND o.refclassid = 'pg_catalog.pg_class'::regclass AND o.refobjid = c.oid";
        let (own, other) = (self.covers("n.nspname", "c.relname"), self.covers("ns.nspname", "oc.relname"));
        format!(
            "CASE WHEN c.relkind IN ('r', 'p', 'v', 'm', 'f') THEN {own} \
                 WHEN c.relkind = 'S' THEN COALESCE((SELECT pg_catalog.bool_or({other}) {owner}), (SELECT pg_catalog.bool_or({other}) {user}), {own}) \
                 WHEN c.relkind IN ('i', 'I') THEN COALESCE((SELECT {other} FROM pg_catalog.pg_index o JOIN pg_catalog.pg_class oc ON oc.oid = o.indrelid \
                     JOIN pg_catalog.pg_namespace ns ON ns.oid = oc.relnamespace WHERE o.indexrelid = c.oid), true) \
                 ELSE true END"
        )
    }
}

/// What is left out, the largest first.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn left_out<C: GenericClient>(client: &C, coverage: &Coverage) -> PgResult<Vec<LeftOut>> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' \
             WHEN 'm' THEN 'materialised view' WHEN 'f' THEN 'foreign table' ELSE 'sequence' END, \
             CASE WHEN c.relkind IN ('r', 'm') THEN COALESCE(pg_catalog.pg_total_relation_size(c.oid), 0) ELSE 0 END AS bytes \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {} ORDER BY bytes DESC, 1, 2",
        coverage.outside()
    );
    let rows = client.query(&sql, &[]).await.map_err(|error| PgError::sql("listing what is left out", error))?;
    let left_out = |row: &tokio_postgres::Row| LeftOut {
        name: QualifiedName { schema: row.get(0), name: row.get(1) },
        kind: row.get(2),
        bytes: row.get(3),
    };
    Ok(rows.iter().map(left_out).collect())
}

/// Definitions that belong to what is covered and can't be made at a target that lacks the rest: catalogue and OID, as the
/// lists of `pg_restore` have them.
pub(crate) async fn dangling_definitions<C: GenericClient>(client: &C) -> PgResult<Vec<String>> {
    let (covered, defined) = (Coverage::installed(client).await?, Coverage::defined(client).await?);
    // A foreign key to a table without rows can't be built either, so it counts what is covered, not what is defined.
    let sql = format!(
        "SELECT pg_catalog.concat_ws(' ', k.tableoid::oid, k.oid) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND {} AND k.confrelid IN (SELECT c.oid FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {}) \
         UNION ALL SELECT pg_catalog.concat_ws(' ', s.tableoid::oid, s.oid) FROM pg_catalog.pg_statistic_ext s \
         JOIN pg_catalog.pg_class c ON c.oid = s.stxrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {}",
        covered.inside(),
        covered.outside(),
        defined.outside()
    );
    let rows = client.query(&sql, &[]).await.map_err(|error| PgError::sql("looking for what reaches outside", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The statements that tell a database what its cutover covers, and what is defined at the target.
pub(crate) fn install_sql(filter: &Filter) -> String {
    let covers = condition(filter, "p_schema", "p_relation");
    let defines = if filter.definitions { "true" } else { covers.as_str() };
    let function = |name: &str, condition: &str| {
        let body = literal(&format!("SELECT {condition}"));
        format!(
            "CREATE OR REPLACE FUNCTION cutover.{name}(p_schema name, p_relation name) RETURNS boolean LANGUAGE sql IMMUTABLE AS {body}"
        )
    };
    format!("{}; {}", function("covers", &covers), function("defines", defines))
}

/// The filter as an expression; every name in it is qualified, because a function's body is read with its caller's path.
fn condition(filter: &Filter, schema: &str, relation: &str) -> String {
    let like = |expression: &str, pieces: &[Piece]| match pieces {
        [Piece::Any] => "true".to_owned(),
        pieces => format!("{expression} OPERATOR(pg_catalog.~~) {}", literal(&like(pieces))),
    };
    let matches = |pattern: &Pattern| format!("({} AND {})", like(schema, &pattern.schema), like(relation, &pattern.name));
    let any = |patterns: &[Pattern]| patterns.iter().map(matches).collect::<Vec<_>>().join(" OR ");
    let mut parts: Vec<String> = filter.include.iter().map(|include| format!("({})", any(include))).collect();
    if !filter.exclude.is_empty() {
        parts.push(format!("NOT ({})", any(&filter.exclude)));
    }
    if parts.is_empty() { "true".to_owned() } else { format!("({})", parts.join(" AND ")) }
}

/// The names that one pattern matches, as a condition on `n.nspname` and `c.relname`.
pub(crate) fn matches(pattern: &Pattern) -> String {
    condition(&Filter { include: Some(vec![pattern.clone()]), ..Filter::default() }, "n.nspname", "c.relname")
}

/// For LIKE, with its usual escape.
fn like(pieces: &[Piece]) -> String {
    let escaped = |text: &str| {
        text.chars().fold(String::new(), |escaped, c| if matches!(c, '\\' | '%' | '_') { escaped + "\\" } else { escaped } + &c.to_string())
    };
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => escaped(text),
            Piece::Any => "%".to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let parse = |patterns: &[&str]| patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect::<Vec<_>>();
        Filter { include: (!include.is_empty()).then(|| parse(include)), exclude: parse(exclude), definitions: false }
    }

    #[test]
    fn a_filter_becomes_one_condition() {
        let of = |include: &[&str], exclude: &[&str]| condition(&filter(include, exclude), "s", "r");
        assert_eq!(of(&[], &[]), "true");
        assert_eq!(of(&["a.*"], &[]), "(((s OPERATOR(pg_catalog.~~) 'a' AND true)))");
        assert_eq!(
            of(&["*.*"], &["a.t_*", "\"it's\".x"]),
            "(((true AND true)) AND NOT ((s OPERATOR(pg_catalog.~~) 'a' AND r OPERATOR(pg_catalog.~~)  E't\\\\_%') OR \
             (s OPERATOR(pg_catalog.~~) 'it''s' AND r OPERATOR(pg_catalog.~~) 'x')))"
        );
    }

    #[test]
    fn what_like_takes_for_more_than_itself_is_escaped() {
        assert_eq!(like(&Pattern::parse("a.\"50%_\\\"*").unwrap().name), "50\\%\\_\\\\%");
    }
}
