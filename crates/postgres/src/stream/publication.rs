//! The publication: which tables a stream carries.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cutover_core::Stream;
use tokio_postgres::Client;

use super::sql_publish;
use crate::{
    PgError, PgResult,
    catalogue::{self, Table},
    gate,
    names::{Names, ident},
    schema::major,
};

/// Tables that one statement adds to a publication.
const TABLES_AT_ONCE: usize = 500;

/// The version that a publication can list columns from.
pub(crate) const COLUMN_LISTS_SINCE: u32 = 15;

/// Makes the publication equal the catalogue: every table that holds rows, and those of ours that the
/// stream carries. Returns what was changed.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn publish(origin: &mut Client, destination: &Client, names: &Names, stream: Stream, epoch: u64) -> PgResult<Vec<String>> {
    let doing = "publishing the tables";
    let publication = names.publication(stream);
    let wanted = wanted_tables(origin, destination, stream).await?;
    let mut again: Vec<String> = Vec::new();
    let lists = shared_columns(origin, destination, stream).await?;
    let mut present = published(origin, &publication).await?;
    if let Some(present) = present.as_mut().filter(|_| !lists.is_empty()) {
        // Published whole before its migration: as if it were not published.
        let whole = published_whole(origin, &publication).await?;
        again = present.iter().filter(|table| lists.contains_key(*table) && whole.contains(table)).cloned().collect();
        present.retain(|table| !again.contains(table));
    }
    let transaction = gate::guarded(origin, epoch).await?;
    let failed = |error| PgError::sql(doing, error);
    let missing: Vec<String> =
        wanted.iter().filter(|table| present.as_ref().is_none_or(|present| !present.contains(*table))).cloned().collect();
    let extra: Vec<String> = unwanted(present.iter().flatten(), &wanted);
    if present.is_none() {
        transaction.batch_execute(&sql_publish(names, stream)).await.map_err(failed)?;
    }
    for part in [&extra[..], &again].concat().chunks(TABLES_AT_ONCE) {
        let sql = format!("ALTER PUBLICATION {} DROP TABLE {}", ident(&publication), only(part, &BTreeMap::new()));
        transaction.batch_execute(&sql).await.map_err(failed)?;
    }
    for part in missing.chunks(TABLES_AT_ONCE) {
        let sql = format!("ALTER PUBLICATION {} ADD TABLE {}", ident(&publication), only(part, &lists));
        transaction.batch_execute(&sql).await.map_err(failed)?;
    }
    gate::commit(transaction, doing).await?;
    let changes = missing.iter().map(|table| format!("added {table}")).chain(extra.iter().map(|table| format!("dropped {table}")));
    Ok(changes.collect())
}

/// Of the tables that are published, those that should not be.
pub(super) fn unwanted<'a>(published: impl Iterator<Item = &'a String>, wanted: &[String]) -> Vec<String> {
    let wanted: HashSet<&String> = wanted.iter().collect();
    published.filter(|table| !wanted.contains(table)).cloned().collect()
}

/// Each by itself, without the tables that inherit from it, and with its list of columns where it has one.
fn only(tables: &[String], lists: &BTreeMap<String, String>) -> String {
    let one = |table: &String| format!("ONLY {table}{}", lists.get(table).map(|list| format!(" ({list})")).unwrap_or_default());
    tables.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether the way back can leave out the columns of a table that have no place in `other`, the same table at its
/// destination. PostgreSQL refuses an UPDATE where a list leaves out what identifies the row.
pub(crate) fn can_leave_out(major: u32, table: &Table, other: &Table) -> bool {
    let identifies = |name: &str| table.key.iter().any(|column| column == name);
    major >= COLUMN_LISTS_SINCE && table.replica_identity != "f" && !table.without_place_at(other).any(|column| identifies(&column.name))
}

/// For the way back, the columns that have a place at the other side, of each table that has more: what a migration added
/// has nowhere to go, and the stream would stop at it. A table where they can't be left out is published whole; preflight
/// has told so.
async fn shared_columns(origin: &Client, destination: &Client, stream: Stream) -> PgResult<BTreeMap<String, String>> {
    if stream == Stream::Forward {
        return Ok(BTreeMap::new());
    }
    let major = major(origin).await?;
    let there = catalogue::tables(destination).await?;
    let there: HashMap<_, _> = there.iter().map(|table| (&table.name, table)).collect();
    let mut lists = BTreeMap::new();
    for table in catalogue::tables(origin).await?.iter().filter(|table| table.holds_rows()) {
        let Some(other) = there.get(&table.name) else { continue };
        let without: HashSet<&str> = table.without_place_at(other).map(|column| column.name.as_str()).collect();
        if !without.is_empty() && can_leave_out(major, table, other) {
            let shared = table.stored_columns().filter(|column| !without.contains(column.name.as_str()));
            lists.insert(table.name.quoted(), shared.map(|column| ident(&column.name)).collect::<Vec<_>>().join(", "));
        }
    }
    Ok(lists)
}

/// The tables of a publication, quoted, that are published with all columns.
async fn published_whole(client: &Client, publication: &str) -> PgResult<Vec<String>> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_publication p \
         JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1 AND r.prattrs IS NULL";
    let rows = client.query(sql, &[&publication]).await.map_err(|error| PgError::sql("reading the publication's columns", error))?;
    Ok(rows.iter().map(|row| format!("{}.{}", ident(row.get(0)), ident(row.get(1)))).collect())
}

/// The tables that must be published, quoted: partitions by themselves, so that both sides are told alike. A table that
/// a migration made at the target only has nowhere to go on the way back.
pub(super) async fn wanted_tables(origin: &Client, destination: &Client, stream: Stream) -> PgResult<Vec<String>> {
    let mut tables = row_tables(origin).await?;
    if stream == Stream::Reverse {
        let there: HashSet<String> = row_tables(destination).await?.into_iter().collect();
        tables.retain(|table| there.contains(table));
    }
    tables.push("\"cutover\".\"marker\"".to_owned());
    // A gate that was installed by an earlier version has none.
    if has_look(origin).await? && has_look(destination).await? {
        tables.push("\"cutover\".\"look\"".to_owned());
    }
    Ok(tables)
}

async fn has_look(client: &Client) -> PgResult<bool> {
    let sql = "SELECT pg_catalog.to_regclass('cutover.look') IS NOT NULL";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("looking for what the stream carries of ours", error))?;
    Ok(row.get(0))
}

/// Tables of the origin, quoted, that the destination lacks.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn missing(origin: &Client, destination: &Client) -> PgResult<Vec<String>> {
    let there: HashSet<String> = row_tables(destination).await?.into_iter().collect();
    Ok(row_tables(origin).await?.into_iter().filter(|table| !there.contains(table)).collect())
}

async fn row_tables(client: &Client) -> PgResult<Vec<String>> {
    let tables = catalogue::tables(client).await?;
    Ok(tables.iter().filter(|table| table.holds_rows() && table.persistence == "p").map(|table| table.name.quoted()).collect())
}

/// The tables of a publication, quoted; none where it does not exist.
pub(crate) async fn published(client: &Client, publication: &str) -> PgResult<Option<BTreeSet<String>>> {
    let failed = |error| PgError::sql("reading the publication", error);
    if client.query_opt("SELECT FROM pg_catalog.pg_publication WHERE pubname = $1", &[&publication]).await.map_err(failed)?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_publication p \
         JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1";
    let rows = client.query(sql, &[&publication]).await.map_err(failed)?;
    Ok(Some(rows.iter().map(|row| format!("{}.{}", ident(row.get(0)), ident(row.get(1)))).collect()))
}
