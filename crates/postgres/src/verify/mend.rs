//! The statements that mend rows: the authority sends each row whole, and the follower makes its own equal.
//!
//! A row travels as the text of a row of the follower's table: written and read by the types' own output and input, which
//! under the settings of both ends lose nothing. Rows are deleted and inserted, all deletions of a look first, so that
//! values of unique columns may have been swapped between them. Only where the follower has columns of its own, which a
//! deletion would lose, are they updated.

use super::{
    Comparison, Key, Role,
    session::{Param, Query},
    sql::{TableSql, VERSION, line},
};
use crate::names::{ident, literal};

/// A column of the follower's table, in the order of that table.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    /// Whether the authority's table has it too.
    pub(super) shared: bool,
    /// Computed by the server, so that it takes no value.
    pub(super) generated: bool,
    /// An identity that an UPDATE may not set.
    pub(super) identity_always: bool,
}

impl Slot {
    fn is_sent(&self) -> bool {
        self.shared && !self.generated
    }
}

/// Lets the stream carry the rows with these keys as they are, locked, and for each the version of the follower's row
/// that may be deleted if there is none.
pub(super) fn carry(table: &Comparison, id: &str, statement: &str, keys: &[Key], versions: &[String]) -> Query {
    let (join, mut params) = table.at(Role::Authority).join(keys);
    let lines: Vec<String> = (1..=params.len()).map(|at| format!("${at}::text[]")).collect();
    params.push(Param::Texts(versions.to_vec()));
    let values: Vec<String> =
        table.slots.iter().map(|slot| if slot.is_sent() { format!("t.{}", ident(&slot.name)) } else { "NULL".to_owned() }).collect();
    let versions = format!("${}::text[]", params.len());
    let sql = format!(
        "INSERT INTO cutover.look (id, statement, keys, images, versions) \
         WITH l AS MATERIALIZED (SELECT u.n, ROW({})::text AS image FROM {join} FOR SHARE OF t) \
         SELECT {}, {}, ARRAY[{}], (SELECT pg_catalog.array_agg(l.image ORDER BY u.n) FROM unnest({versions}) WITH ORDINALITY AS u(v, n) \
             LEFT JOIN l ON l.n = u.n), {versions}",
        values.join(", "),
        literal(id),
        literal(statement),
        lines.join(", ")
    );
    Query { sql, params }
}

/// What the follower does with keys in `$1`, rows in `$2` and versions in `$3`, in this order.
pub(super) fn statements(table: &Comparison) -> Vec<String> {
    let sql = table.at(Role::Follower);
    let name = table.name.quoted();
    let keys = sql.unnested(&line, ", $2::text[], $3::text[]", ", image, version");
    let matches = sql.matches("u");
    let of_its_own = table.slots.iter().any(|slot| !slot.shared && !slot.generated);
    let sent: Vec<&Slot> = table.slots.iter().filter(|slot| slot.is_sent()).collect();
    let delete = |which: &str| format!("DELETE FROM {} USING {keys} WHERE {matches} AND ({which})", sql.from);
    let gone = format!("u.image IS NULL AND {VERSION} = u.version");
    let rows = format!("(SELECT u.*, u.image::{name} AS r FROM {keys} WHERE u.image IS NOT NULL OFFSET 0) x");
    let insert = |which: &str| {
        let columns: Vec<String> = sent.iter().map(|slot| ident(&slot.name)).collect();
        let values: Vec<String> = columns.iter().map(|column| format!("(x.r).{column}")).collect();
        format!("INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {rows}{which}", columns.join(", "), values.join(", "))
    };
    if !of_its_own {
        return vec![delete(&format!("u.image IS NOT NULL OR {gone}")), insert("")];
    }
    let set: Vec<String> =
        sent.iter().filter(|slot| !slot.identity_always).map(|slot| format!("{0} = (x.r).{0}", ident(&slot.name))).collect();
    let update = format!("UPDATE {} SET {} FROM {rows} WHERE {}", sql.from, set.join(", "), sql.matches("x"));
    let absent = format!(" WHERE NOT EXISTS (SELECT FROM {} WHERE {})", sql.from, sql.matches("x"));
    vec![delete(&gone), update, insert(&absent)]
}

/// The statements as an array literal.
pub(super) fn statements_literal(table: &Comparison) -> String {
    let statements: Vec<String> = statements(table).iter().map(|statement| literal(statement)).collect();
    format!("ARRAY[{}]::text[]", statements.join(", "))
}

/// What a table's rows can't be mended for, where they can't.
pub(super) fn obstacle(table: &Comparison) -> Option<&'static str> {
    let sql: &TableSql = table.at(Role::Follower);
    sql.key.is_empty().then_some("it has no key that both sides share, so its rows can't be told apart")
}
