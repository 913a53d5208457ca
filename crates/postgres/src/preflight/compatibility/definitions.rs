//! What a side defines, as its clients see it.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::{
    super::{context::Examined, finding::Inconclusive},
    object::Object,
};

/// An object's schema is the user's: a condition on `pg_namespace n`.
const USER_SCHEMA: &str = "n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema', 'pg_toast', 'cutover']::name[]) \
     AND n.nspname !~ '^pg_(toast_)?temp_'";

/// Everything that the user defined.
#[derive(Debug)]
pub(super) struct Definitions {
    pub(super) relations: BTreeMap<Object, Relation>,
    /// By name with the types of the arguments.
    pub(super) functions: BTreeMap<String, Function>,
    pub(super) types: BTreeMap<Object, Type>,
    /// Operators and collations, by kind and name.
    pub(super) others: BTreeMap<String, Option<Object>>,
}

/// A table, view, materialised view, foreign table or sequence.
#[derive(Debug, Default)]
pub(super) struct Relation {
    /// `relkind`.
    pub(super) kind: String,
    pub(super) row_security: bool,
    /// In their order. Those of partitions are their parent's, and left out.
    pub(super) columns: Vec<Column>,
    pub(super) constraints: Vec<Constraint>,
}

impl Relation {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether its rows are replicated, or its partitions' are.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "p")
    }

    pub(super) fn noun(&self) -> &'static str {
        match self.kind.as_str() {
            "v" => "view",
            "m" => "materialised view",
            "f" => "foreign table",
            "S" => "sequence",
            _ => "table",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// From 1, dropped columns not counted.
    pub(super) position: i64,
    /// With its modifiers.
    pub(super) type_name: String,
    pub(super) not_null: bool,
    /// The expression of a default.
    pub(super) default: Option<String>,
    /// Empty, `s` or `v`.
    pub(super) generated: String,
    /// Empty, `a` or `d`.
    pub(super) identity: String,
    pub(super) collation: Option<String>,
}

impl Column {
    /// Whether an INSERT that does not name it leaves it without a value where it needs one.
    pub(super) fn must_be_named(&self) -> bool {
        self.not_null && self.default.is_none() && self.identity.is_empty()
    }

    /// Whether a statement may give it a value.
    pub(super) fn takes_values(&self) -> bool {
        self.generated.is_empty() && self.identity != "a"
    }
}

/// A rule that rows must keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Constraint {
    pub(super) name: String,
    /// `contype`, or `i` for a unique index that is no constraint.
    pub(super) kind: String,
    pub(super) definition: String,
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) object: Object,
    pub(super) result: String,
    pub(super) procedure: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Type {
    /// What it is made of: base type, attributes, subtype.
    pub(super) made_of: String,
    /// The labels of an enum, in their order.
    pub(super) labels: Vec<String>,
}

impl Definitions {
    pub(super) async fn read(side: &Examined<'_>) -> Result<Self, Inconclusive> {
        let mut relations = relations(side).await?;
        columns(side, &mut relations).await?;
        constraints(side, &mut relations).await?;
        Ok(Self { relations, functions: functions(side).await?, types: types(side).await?, others: others(side).await? })
    }
}

fn object(row: &Row) -> Object {
    Object::new(row.get::<_, String>(0), row.get::<_, String>(1))
}

async fn relations(side: &Examined<'_>) -> Result<BTreeMap<Object, Relation>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relrowsecurity \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {covered}"
    );
    let rows = side.query("listing relations", &sql, &[]).await?;
    Ok(rows.iter().map(|row| (object(row), Relation { kind: row.get(2), row_security: row.get(3), ..Relation::default() })).collect())
}

async fn columns(side: &Examined<'_>, relations: &mut BTreeMap<Object, Relation>) -> Result<(), Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, a.attname::text, \
             pg_catalog.row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), pg_catalog.format_type(a.atttypid, a.atttypmod), \
             a.attnotnull OR t.typnotnull, COALESCE(pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.typdefault), a.attgenerated::text, \
             a.attidentity::text, (SELECT l.collname::text FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' \
           AND NOT c.relispartition AND {covered} ORDER BY 1, 2, 4"
    );
    for row in side.query("listing columns", &sql, &[]).await? {
        let Some(relation) = relations.get_mut(&object(&row)) else { continue };
        relation.columns.push(Column {
            name: row.get(2),
            position: row.get(3),
            type_name: row.get(4),
            not_null: row.get(5),
            default: row.get(6),
            generated: row.get(7),
            identity: row.get(8),
            collation: row.get(9),
        });
    }
    Ok(())
}

async fn constraints(side: &Examined<'_>, relations: &mut BTreeMap<Object, Relation>) -> Result<(), Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, k.conname::text, k.contype::text, pg_catalog.pg_get_constraintdef(k.oid) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND NOT c.relispartition AND {covered} \
         UNION ALL SELECT n.nspname::text, c.relname::text, r.relname::text, 'i', pg_catalog.pg_get_indexdef(i.indexrelid) \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_class r ON r.oid = i.indexrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE i.indisunique AND NOT c.relispartition AND {covered} \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))"
    );
    for row in side.query("listing constraints", &sql, &[]).await? {
        if let Some(relation) = relations.get_mut(&object(&row)) {
            relation.constraints.push(Constraint { name: row.get(2), kind: row.get(3), definition: row.get(4) });
        }
    }
    Ok(())
}

/// Trigger functions are called by their triggers only.
async fn functions(side: &Examined<'_>) -> Result<BTreeMap<String, Function>, Inconclusive> {
    let sql = format!(
        "SELECT n.nspname::text, p.proname::text, pg_catalog.oidvectortypes(p.proargtypes), \
             COALESCE(pg_catalog.pg_get_function_result(p.oid), ''), p.prokind = 'p' \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE p.prorettype NOT IN ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype) AND {USER_SCHEMA} \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_proc'::regclass \
               AND x.objid = p.oid AND x.deptype IN ('e', 'i'))"
    );
    let rows = side.query("listing functions", &sql, &[]).await?;
    let function = |row: &Row| {
        let object = object(row);
        (format!("{object}({})", row.get::<_, String>(2)), Function { object, result: row.get(3), procedure: row.get(4) })
    };
    Ok(rows.iter().map(function).collect())
}

async fn types(side: &Examined<'_>) -> Result<BTreeMap<Object, Type>, Inconclusive> {
    let sql = format!(
        "SELECT n.nspname::text, t.typname::text, CASE t.typtype \
                 WHEN 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) \
                 WHEN 'r' THEN (SELECT pg_catalog.format_type(r.rngsubtype, NULL) FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid) \
                 WHEN 'c' THEN (SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', a.attname, \
                     pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
                     WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END, \
             ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid \
         WHERE (t.typtype IN ('d', 'e', 'r') OR t.typtype = 'c' AND c.relkind = 'c') AND {USER_SCHEMA} \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_type'::regclass \
               AND x.objid = t.oid AND x.deptype = 'e')"
    );
    let rows = side.query("listing types", &sql, &[]).await?;
    let made_of = |row: &Row| row.get::<_, Option<String>>(2).unwrap_or_default();
    Ok(rows.iter().map(|row| (object(row), Type { made_of: made_of(row), labels: row.get(3) })).collect())
}

async fn others(side: &Examined<'_>) -> Result<BTreeMap<String, Option<Object>>, Inconclusive> {
    let not_of_an_extension = |catalogue: &str, oid: &str| {
        format!(
            "NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.{catalogue}'::regclass \
                 AND x.objid = {oid} AND x.deptype = 'e')"
        )
    };
    let sql = format!(
        "SELECT n.nspname::text, l.collname::text, 'collation ' || n.nspname || '.' || l.collname, true \
         FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace WHERE {USER_SCHEMA} AND {} \
         UNION ALL SELECT n.nspname::text, o.oprname::text, 'operator ' || o.oid::regoperator::text, false \
         FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE {USER_SCHEMA} AND {}",
        not_of_an_extension("pg_collation", "l.oid"),
        not_of_an_extension("pg_operator", "o.oid"),
    );
    let rows = side.query("listing operators and collations", &sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(2), row.get::<_, bool>(3).then(|| object(row)))).collect())
}
