//! What a copy has done, written down at the target: a part is marked done in the transaction that brings its rows.

use std::collections::HashMap;

use tokio_postgres::{Client, SimpleQueryMessage, Transaction};

use super::queue::{Numbered, Part, Task, size};
use crate::{PgError, PgResult, gate};

/// What is written down of a copy that was begun.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The slot, and the position where it begins.
    pub(super) slot: String,
    pub(super) lsn: String,
    /// What the snapshot sees.
    pub(super) visible: String,
    /// The names under which the source keeps it.
    pub(super) snapshots: Vec<String>,
    /// What the publication was made of.
    pub(super) publication: String,
    /// What there is to do, in its order.
    pub(super) entries: Vec<Entry>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in the order.
    pub(super) id: i32,
    /// The table, quoted, and its OID at the source.
    pub(super) relation: String,
    pub(super) source_oid: u32,
    /// Which rows are in it. None for a table that is copied whole.
    pub(super) condition: Option<String>,
    /// What was expected to be sent.
    pub(super) expected: u64,
    /// Whether the table was emptied for its parts; said of the first.
    pub(super) emptied: bool,
    /// Whether its rows are at the target, how many there are, and what was sent for them.
    pub(super) done: bool,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Entry {
    /// A task of which nothing is done.
    pub(super) fn of(numbered: &Numbered) -> Self {
        let (table, condition, expected) = match &numbered.task {
            Task::Whole(table) => (table, None, size(table)),
            Task::Part(Part { of, condition, bytes, .. }) => (&of.table, Some(condition.clone()), *bytes),
        };
        let (relation, source_oid) = (table.name.quoted(), table.oid);
        Self { id: numbered.id, relation, source_oid, condition, expected, emptied: false, done: false, rows: 0, bytes: 0 }
    }
}

/// Tables that one statement writes tasks for.
const AT_ONCE: usize = 1000;

/// Forgets an earlier copy.
pub(super) async fn clear(target: &mut Client, epoch: u64) -> PgResult<()> {
    let doing = "forgetting an earlier copy";
    let transaction = gate::guarded(target, epoch).await?;
    let sql = concat!(
        "SET LOCAL client_min_messages = warning;",
        include_str!("../sql/copy.sql"),
        "DELETE FROM cutover.copy; DELETE FROM cutover.copy_task"
    );
    transaction.batch_execute(sql).await.map_err(|error| PgError::sql(doing, error))?;
    gate::commit(transaction, doing).await
}

/// Writes a copy down, before its first row.
pub(super) async fn write(target: &mut Client, epoch: u64, record: &Record) -> PgResult<()> {
    let doing = "writing down what there is to copy";
    let failed = |error| PgError::sql(doing, error);
    let transaction = gate::guarded(target, epoch).await?;
    let sql = "INSERT INTO cutover.copy (slot, lsn, visible, snapshots, publication) VALUES ($1, $2::text::pg_catalog.pg_lsn, $3, $4, $5)";
    let Record { slot, lsn, visible, snapshots, publication, .. } = record;
    transaction.execute(sql, &[slot, lsn, visible, snapshots, publication]).await.map_err(failed)?;
    for entries in record.entries.chunks(AT_ONCE) {
        write_entries(&transaction, entries).await.map_err(failed)?;
    }
    gate::commit(transaction, doing).await
}

async fn write_entries(transaction: &Transaction<'_>, entries: &[Entry]) -> Result<(), tokio_postgres::Error> {
    let sql = "INSERT INTO cutover.copy_task (id, relation, source_oid, target_oid, condition, expected_bytes) \
         SELECT t.id, t.relation, t.source_oid, COALESCE(pg_catalog.to_regclass(t.relation)::oid, 0), t.condition, t.expected \
         FROM ROWS FROM (pg_catalog.unnest($1::int4[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::oid[]), \
             pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::int8[])) AS t(id, relation, source_oid, condition, expected)";
    let ids: Vec<i32> = entries.iter().map(|entry| entry.id).collect();
    let relations: Vec<&str> = entries.iter().map(|entry| entry.relation.as_str()).collect();
    let oids: Vec<u32> = entries.iter().map(|entry| entry.source_oid).collect();
    let conditions: Vec<Option<&str>> = entries.iter().map(|entry| entry.condition.as_deref()).collect();
    let expected: Vec<i64> = entries.iter().map(|entry| entry.expected.cast_signed()).collect();
    transaction.execute(sql, &[&ids, &relations, &oids, &conditions, &expected]).await.map(drop)
}

/// What an earlier driver has written down, if it had come so far.
pub(super) async fn read(target: &Client) -> PgResult<Option<Record>> {
    let failed = |error| PgError::sql("reading what was copied", error);
    let there = target.query_one("SELECT pg_catalog.to_regclass('cutover.copy') IS NOT NULL", &[]).await.map_err(failed)?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = "SELECT slot, lsn::text, visible, snapshots, publication FROM cutover.copy";
    let Some(row) = target.query_opt(sql, &[]).await.map_err(failed)? else { return Ok(None) };
    let sql = "SELECT id, relation, source_oid, condition, expected_bytes, emptied, done, rows, bytes \
         FROM cutover.copy_task ORDER BY id";
    let entries = target.query(sql, &[]).await.map_err(failed)?.iter().map(entry).collect();
    Ok(Some(Record { slot: row.get(0), lsn: row.get(1), visible: row.get(2), snapshots: row.get(3), publication: row.get(4), entries }))
}

fn entry(row: &tokio_postgres::Row) -> Entry {
    let number = |at: usize| row.get::<_, Option<i64>>(at).and_then(|number| u64::try_from(number).ok());
    Entry {
        id: row.get(0),
        relation: row.get(1),
        source_oid: row.get(2),
        condition: row.get(3),
        expected: number(4).unwrap_or(0),
        emptied: row.get(5),
        done: row.get(6),
        rows: number(7).unwrap_or(0),
        bytes: number(8).unwrap_or(0),
    }
}

/// A table that is not the one that was copied into, if there is any.
pub(super) async fn replaced_table(target: &Client) -> PgResult<Option<String>> {
    let sql =
        "SELECT relation FROM cutover.copy_task WHERE target_oid <> COALESCE(pg_catalog.to_regclass(relation)::oid, 0) ORDER BY id LIMIT 1";
    let row = target.query_opt(sql, &[]).await.map_err(|error| PgError::sql("looking for the tables that were copied into", error))?;
    Ok(row.map(|row| row.get(0)))
}

/// Notes under which names the source keeps the snapshot now.
pub(super) async fn set_snapshots(target: &mut Client, epoch: u64, snapshots: &[String]) -> PgResult<()> {
    let doing = "writing down the snapshot's names";
    let transaction = gate::guarded(target, epoch).await?;
    let sql = "UPDATE cutover.copy SET snapshots = $1";
    transaction.execute(sql, &[&snapshots]).await.map_err(|error| PgError::sql(doing, error))?;
    gate::commit(transaction, doing).await
}

/// Notes that all is done.
pub(super) async fn finish(target: &mut Client, epoch: u64) -> PgResult<()> {
    let doing = "writing down that all is copied";
    let transaction = gate::guarded(target, epoch).await?;
    let sql = "UPDATE cutover.copy SET finished_at = pg_catalog.clock_timestamp() WHERE finished_at IS NULL";
    transaction.batch_execute(sql).await.map_err(|error| PgError::sql(doing, error))?;
    gate::commit(transaction, doing).await
}

/// What a task turned out to be.
#[derive(Clone, Copy)]
pub(super) enum Claim {
    /// Ours to do. A table without a page holds nothing, and held nothing.
    Mine { pageless: bool },
    /// Done after all.
    Done { rows: u64, bytes: u64 },
}

/// Asks for a task.
pub(super) async fn claim(transaction: &Transaction<'_>, id: i32) -> Result<Claim, tokio_postgres::Error> {
    let claims = claim_all(transaction, &[id]).await?;
    Ok(claims.get(&id).copied().unwrap_or(Claim::Mine { pageless: false }))
}

/// Asks for tasks. Their rows are locked from here on: a session that was given up while it committed the same task is
/// waited for, and then the task is done. In the simple protocol, because COPY with FREEZE wants no portal behind it.
pub(super) async fn claim_all(transaction: &Transaction<'_>, ids: &[i32]) -> Result<HashMap<i32, Claim>, tokio_postgres::Error> {
    let ids = list(ids);
    // The lock first: what the other has committed is seen by the statement after it.
    let sql = format!(
        "SELECT FROM cutover.copy_task WHERE id IN ({ids}) ORDER BY id FOR UPDATE; \
         SELECT id, done::integer, rows, bytes, pg_catalog.pg_relation_size(target_oid) FROM cutover.copy_task WHERE id IN ({ids})"
    );
    let answer = transaction.simple_query(&sql).await?;
    let claims = answer.iter().filter_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        let number = |at: usize| row.try_get(at).ok().flatten().and_then(|number| number.parse::<u64>().ok());
        let claim = match number(1) {
            Some(1) => Claim::Done { rows: number(2).unwrap_or(0), bytes: number(3).unwrap_or(0) },
            _ => Claim::Mine { pageless: number(4) == Some(0) },
        };
        Some((i32::try_from(number(0)?).ok()?, claim))
    });
    Ok(claims.collect())
}

fn list(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Asks for what is left of a table, after its parts were found not to fit together.
pub(super) async fn claim_table(transaction: &Transaction<'_>, source_oid: u32) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(&format!("SELECT FROM cutover.copy_task WHERE source_oid = {source_oid} FOR UPDATE")).await
}

/// Marks a claimed task done.
pub(super) async fn mark(transaction: &Transaction<'_>, id: i32, rows: u64, bytes: u64) -> Result<(), tokio_postgres::Error> {
    mark_many(transaction, &[(id, rows, bytes)]).await
}

/// Marks claimed tasks done, each with its rows and bytes.
pub(super) async fn mark_many(transaction: &Transaction<'_>, done: &[(i32, u64, u64)]) -> Result<(), tokio_postgres::Error> {
    let values: Vec<String> = done.iter().map(|(id, rows, bytes)| format!("({id}, {rows}, {bytes})")).collect();
    let sql = format!(
        "UPDATE cutover.copy_task t SET done = true, rows = v.rows, bytes = v.bytes FROM (VALUES {}) v(id, rows, bytes) WHERE t.id = v.id",
        values.join(", ")
    );
    transaction.batch_execute(&sql).await
}

/// Marks all parts of a table done that was copied as a whole after all. What was sent for those before was sent.
pub(super) async fn mark_all(
    transaction: &Transaction<'_>,
    source_oid: u32,
    id: i32,
    rows: u64,
    bytes: u64,
) -> Result<(), tokio_postgres::Error> {
    let sql = format!(
        "UPDATE cutover.copy_task SET done = true, rows = CASE WHEN id = {id} THEN {rows} ELSE 0 END, \
         bytes = bytes + CASE WHEN id = {id} THEN {bytes} ELSE 0 END WHERE source_oid = {source_oid}"
    );
    transaction.batch_execute(&sql).await
}

/// Notes that the table of a claimed first part was emptied for all its parts.
pub(super) async fn mark_emptied(transaction: &Transaction<'_>, id: i32) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(&format!("UPDATE cutover.copy_task SET emptied = true WHERE id = {id}")).await
}

/// The first part of each table that is copied in parts, by its OID at the source.
pub(super) fn first_parts(entries: &[Entry]) -> HashMap<u32, &Entry> {
    let mut firsts = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.condition.is_some()) {
        firsts.entry(entry.source_oid).or_insert(entry);
    }
    firsts
}

/// Of each table, by its OID at the source, how many tasks there are and how many are done.
pub(super) fn by_table(entries: &[Entry]) -> HashMap<u32, (usize, usize)> {
    let mut tables: HashMap<u32, (usize, usize)> = HashMap::new();
    for entry in entries {
        let (all, done) = tables.entry(entry.source_oid).or_default();
        *all += 1;
        *done += usize::from(entry.done);
    }
    tables
}
