//! Some rows of each table, or all; and every row that these refer to, so that all foreign keys hold.

use bytes::Bytes;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    PgError, PgResult,
    catalogue::{QualifiedName, Table},
    copy::{Progress, column_list, parenthesised, pump},
    limit::{Limiter, Limits},
    names::{ident, literal},
};

/// How often the rows that were brought may ask for further ones: a chain of references can be as long as a table.
const ROUNDS: usize = 30;

/// Keys asked for at once.
const KEYS: usize = 500;

/// The most keys that one foreign key asks for in one round.
const KEYS_A_ROUND: usize = 100_000;

/// Copies at most `limit` rows of each table, the first that the server comes upon; all rows without a limit.
pub(super) async fn bring(source: &Client, clone: &mut Client, tables: &[Table], limit: Option<u32>) -> PgResult<u64> {
    let mut rows = 0;
    for table in tables.iter().filter(|table| table.holds_rows()) {
        let some = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let select = format!("SELECT {} FROM ONLY {}{some}", column_list(table), table.name.quoted());
        rows += transfer(source, clone, table, &select).await?;
    }
    if limit.is_some() {
        rows += follow_references(source, clone, tables).await?;
    }
    Ok(rows)
}

async fn transfer(source: &Client, clone: &Client, table: &Table, select: &str) -> PgResult<u64> {
    let failed = |error| PgError::sql(format!("bringing rows of {}", table.name), error);
    let into = format!("COPY {}{} FROM STDIN", table.name.quoted(), parenthesised(&column_list(table)));
    let rows_out = source.copy_out(&format!("COPY ({select}) TO STDOUT")).await.map_err(failed)?;
    let sink = clone.copy_in::<_, Bytes>(&into).await.map_err(failed)?;
    pump(rows_out, sink, &Progress::default(), &Limiter::new(Limits::default())).await.map(|(rows, _)| rows).map_err(failed)
}

/// A foreign key. Both lists are in the key's order.
struct Reference {
    child: QualifiedName,
    parent: QualifiedName,
    columns: Vec<String>,
    referred: Vec<String>,
    /// Types of the referred columns.
    types: Vec<String>,
    /// `OPERATOR(schema.=)` between parent and child.
    equal: Vec<String>,
    /// The same between two parents.
    same: Vec<String>,
}

/// Brings what is referred to and not there, until nothing is missing. What is then still missing is at the source
/// missing too, or too far away: rows that need it are left out.
async fn follow_references(source: &Client, clone: &Client, tables: &[Table]) -> PgResult<u64> {
    let references = references(source).await?;
    let mut rows = 0;
    for _ in 0..ROUNDS {
        let mut brought = 0;
        for reference in &references {
            let Some(parent) = tables.iter().find(|table| table.name == reference.parent) else { continue };
            let keys = missing(clone, reference).await?;
            for keys in keys.chunks(KEYS) {
                brought += transfer(source, clone, parent, &reference.select(parent, keys)).await?;
            }
        }
        rows += brought;
        if brought == 0 {
            break;
        }
    }
    loop {
        let mut removed = 0;
        for reference in &references {
            let sql = format!("DELETE FROM {} c WHERE {}", reference.child.quoted(), reference.dangles());
            removed += clone.execute(&sql, &[]).await.map_err(|error| PgError::sql("leaving rows out", error))?;
        }
        rows = rows.saturating_sub(removed);
        if removed == 0 {
            return Ok(rows);
        }
    }
}

async fn references(source: &Client) -> PgResult<Vec<Reference>> {
    let sql = "SELECT cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text, \
             pg_catalog.array_agg(ca.attname::text ORDER BY k.at), pg_catalog.array_agg(pa.attname::text ORDER BY k.at), \
             pg_catalog.array_agg(pg_catalog.format_type(pa.atttypid, pa.atttypmod) ORDER BY k.at), \
             pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', en.nspname, e.oprname) ORDER BY k.at), \
             pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', sn.nspname, s.oprname) ORDER BY k.at) \
         FROM pg_catalog.pg_constraint f \
         JOIN pg_catalog.pg_class c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace \
         JOIN pg_catalog.pg_class p ON p.oid = f.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
         CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey), \
             pg_catalog.unnest(f.conpfeqop), pg_catalog.unnest(f.conppeqop)) WITH ORDINALITY k (c, p, e, s, at) \
         JOIN pg_catalog.pg_attribute ca ON ca.attrelid = c.oid AND ca.attnum = k.c \
         JOIN pg_catalog.pg_attribute pa ON pa.attrelid = p.oid AND pa.attnum = k.p \
         JOIN pg_catalog.pg_operator e ON e.oid = k.e JOIN pg_catalog.pg_namespace en ON en.oid = e.oprnamespace \
         JOIN pg_catalog.pg_operator s ON s.oid = k.s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.oprnamespace \
         WHERE f.contype = 'f' AND f.conparentid = 0 AND f.convalidated \
         GROUP BY f.oid, cn.nspname, c.relname, pn.nspname, p.relname ORDER BY 1, 2, 3, 4";
    let rows = source.query(sql, &[]).await.map_err(|error| PgError::sql("listing the foreign keys", error))?;
    let name = |row: &tokio_postgres::Row, at: usize| QualifiedName { schema: row.get(at), name: row.get(at + 1) };
    let reference = |row: &tokio_postgres::Row| Reference {
        child: name(row, 0),
        parent: name(row, 2),
        columns: row.get(4),
        referred: row.get(5),
        types: row.get(6),
        equal: row.get(7),
        same: row.get(8),
    };
    Ok(rows.iter().map(reference).collect())
}

/// The keys that the clone's rows refer to and that it does not hold, as text.
async fn missing(clone: &Client, reference: &Reference) -> PgResult<Vec<Vec<String>>> {
    let columns: Vec<String> = reference.columns.iter().map(|column| format!("c.{}::text", ident(column))).collect();
    let sql = format!(
        "SELECT DISTINCT {} FROM {} c WHERE {} LIMIT {KEYS_A_ROUND}",
        columns.join(", "),
        reference.child.quoted(),
        reference.dangles()
    );
    let answer = clone.simple_query(&sql).await.map_err(|error| PgError::sql("looking for rows that are referred to", error))?;
    let keys = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect()),
        _ => None,
    };
    Ok(answer.into_iter().filter_map(keys).collect())
}

impl Reference {
    /// A condition on the child's row `c`: it refers to a row that is not there.
    fn dangles(&self) -> String {
        let named = self.columns.iter().map(|column| format!("c.{} IS NOT NULL", ident(column))).collect::<Vec<_>>().join(" AND ");
        let pairs = self.columns.iter().zip(&self.referred).zip(&self.equal);
        let equal: Vec<String> =
            pairs.map(|((column, referred), equal)| format!("p.{} {equal} c.{}", ident(referred), ident(column))).collect();
        format!("{named} AND NOT EXISTS (SELECT FROM {} p WHERE {})", self.parent.quoted(), equal.join(" AND "))
    }

    /// The parent's rows with these keys, found by the index that every referred key has.
    fn select(&self, parent: &Table, keys: &[Vec<String>]) -> String {
        let columns: Vec<String> = parent.stored_columns().map(|column| format!("p.{}", ident(&column.name))).collect();
        let keys: Vec<String> =
            keys.iter().map(|key| format!("({})", key.iter().map(|value| literal(value)).collect::<Vec<_>>().join(", "))).collect();
        let referred = self.referred.iter().zip(&self.types).zip(&self.same).enumerate();
        let equal: Vec<String> =
            referred.map(|(at, ((column, kind), same))| format!("p.{} {same} v.k{at}::{kind}", ident(column))).collect();
        let names: Vec<String> = (0..self.referred.len()).map(|at| format!("k{at}")).collect();
        format!(
            "SELECT {} FROM (VALUES {}) v ({}) JOIN {} p ON {}",
            columns.join(", "),
            keys.join(", "),
            names.join(", "),
            self.parent.quoted(),
            equal.join(" AND ")
        )
    }
}
