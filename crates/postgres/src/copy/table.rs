//! One table or one part of it, from source to target.

use std::sync::Arc;

use bytes::Bytes;
use cutover_core::plan::DatabaseUrl;
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::{Client, CopyInSink, CopyOutStream, Transaction};

use super::{
    patient,
    progress::Progress,
    queue::{Part, Split, Task, size},
};
use crate::{
    PgError, PgResult,
    catalogue::{Column, Table},
    connect::{Purpose, connect},
    gate,
    names::{ident, literal},
};

/// What all workers of a copy have in common.
pub(super) struct Shared {
    pub(super) source: DatabaseUrl,
    pub(super) target: DatabaseUrl,
    pub(super) application: String,
    pub(super) snapshot: String,
    pub(super) epoch: u64,
    pub(super) progress: Arc<Progress>,
}

/// A session at each side.
pub(super) struct Worker {
    source: Client,
    target: Client,
}

/// Opens a worker's sessions.
pub(super) async fn open(shared: Arc<Shared>) -> PgResult<Worker> {
    let source = connect(&shared.source, &patient(&shared.application)).await?;
    Ok(Worker { source, target: open_target(&shared).await? })
}

/// Opens a session that the target's gate lets pass.
pub(super) async fn open_target(shared: &Shared) -> PgResult<Client> {
    let target = connect(&shared.target, &Purpose::unbounded(&shared.application)).await?;
    gate::let_pass(&target, "copy").await?;
    Ok(target)
}

/// Empties a table in a transaction of its own. The commit is sent only when the server has answered: a session that is
/// given up while it waits for its lock must not empty what a later copy has filled.
pub(super) async fn empty(shared: &Shared, target: &mut Client, table: &Table) -> PgResult<()> {
    let doing = copying(table);
    let transaction = gate::guarded(target, shared.epoch).await?;
    truncate(&transaction, table).await.map_err(|error| PgError::sql(&doing, error))?;
    gate::commit(transaction, &doing).await
}

/// Copies what a task says.
pub(super) async fn copy(shared: Arc<Shared>, mut worker: Worker, task: Task) -> PgResult<Worker> {
    match task {
        Task::Whole(table) => copy_whole(&shared, &mut worker, &table).await?,
        Task::Part(part) => copy_part(&shared, &mut worker, &part).await?,
    }
    Ok(worker)
}

/// One table, in one transaction at the target: it holds all of the snapshot's rows, or what it held before.
async fn copy_whole(shared: &Shared, worker: &mut Worker, table: &Table) -> PgResult<()> {
    let doing = copying(table);
    let seen = begin_reading(shared, &worker.source, table).await?;
    let transaction = gate::guarded(&mut worker.target, shared.epoch).await?;
    // Nobody reads the table yet, and it is emptied in this transaction: FREEZE spares it a later rewrite.
    truncate(&transaction, table).await.map_err(|error| PgError::sql(&doing, error))?;
    let freeze = !table.partition;
    let (rows, bytes) = transfer(shared, &worker.source, &transaction, table, &Rows { condition: None, freeze }).await?;
    end_reading(&worker.source, table, seen.as_ref()).await?;
    gate::commit(transaction, &doing).await?;
    shared.progress.finish_part(size(table), rows, bytes);
    shared.progress.finish_table();
    Ok(())
}

/// One part, in one transaction at the target. Parts fit together only if all are read from the same pages: if the rows
/// were moved to others meanwhile, or TRUNCATE came between, whoever ends the last part copies the table as a whole.
async fn copy_part(shared: &Shared, worker: &mut Worker, part: &Part) -> PgResult<()> {
    let split = &part.of;
    if split.is_moved() {
        shared.progress.finish_part(part.bytes, 0, 0);
    } else {
        read_part(shared, worker, part).await?;
    }
    if !split.end_part() {
        return Ok(());
    }
    if split.is_moved() {
        tracing::info!(table = %split.table.name, "was written anew while its parts were copied; it is copied as a whole");
        shared.progress.begin_again(&split.table, split.rows());
        return copy_whole(shared, worker, &split.table).await;
    }
    shared.progress.finish_table();
    Ok(())
}

async fn read_part(shared: &Shared, worker: &mut Worker, part: &Part) -> PgResult<()> {
    let split: &Split = &part.of;
    let table = &split.table;
    let seen = begin_reading(shared, &worker.source, table).await?;
    let transaction = gate::guarded(&mut worker.target, shared.epoch).await?;
    let rows = Rows { condition: Some(part.condition()), freeze: false };
    let (rows, bytes) = transfer(shared, &worker.source, &transaction, table, &rows).await?;
    if end_reading(&worker.source, table, seen.as_ref()).await? == Pages::Same {
        gate::commit(transaction, &copying(table)).await?;
        split.add_rows(rows);
        shared.progress.finish_part(part.bytes, rows, bytes);
    } else {
        transaction.rollback().await.map_err(|error| PgError::sql(copying(table), error))?;
        split.set_moved();
        shared.progress.finish_part(part.bytes, 0, bytes);
    }
    Ok(())
}

/// Which rows are copied, and how they are stored.
struct Rows {
    condition: Option<String>,
    freeze: bool,
}

/// Pipes rows from one side to the other, and says how many there were, in how many bytes.
async fn transfer(shared: &Shared, source: &Client, target: &Transaction<'_>, table: &Table, rows: &Rows) -> PgResult<(u64, u64)> {
    let doing = copying(table);
    let failed = |error| PgError::sql(&doing, error);
    let columns = column_list(table);
    let format = if fits_binary(table) { "BINARY" } else { "TEXT" };
    let freeze = if rows.freeze { ", FREEZE" } else { "" };
    let condition = rows.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let out = format!("COPY (SELECT {columns} FROM ONLY {}{condition}) TO STDOUT (FORMAT {format})", table.name.quoted());
    let into = format!("COPY {}{} FROM STDIN (FORMAT {format}{freeze})", table.name.quoted(), parenthesised(&columns));
    let rows_out = source.copy_out(&out).await.map_err(failed)?;
    let sink = target.copy_in::<_, Bytes>(&into).await.map_err(failed)?;
    pump(rows_out, sink, &shared.progress).await.map_err(failed)
}

/// Rows and bytes that went from one side to the other.
pub(crate) async fn pump(
    rows_out: CopyOutStream,
    sink: CopyInSink<Bytes>,
    progress: &Progress,
) -> Result<(u64, u64), tokio_postgres::Error> {
    let mut rows_out = std::pin::pin!(rows_out);
    let mut sink = std::pin::pin!(sink);
    let mut bytes = 0;
    while let Some(chunk) = rows_out.try_next().await? {
        bytes += chunk.len() as u64;
        progress.add_bytes(chunk.len() as u64);
        sink.feed(chunk).await?;
    }
    Ok((sink.finish().await?, bytes))
}

async fn truncate(target: &Transaction<'_>, table: &Table) -> Result<(), tokio_postgres::Error> {
    target.batch_execute(&format!("SET LOCAL lock_timeout = 0; TRUNCATE ONLY {}", table.name.quoted())).await
}

/// Begins to read what the snapshot sees. Row-level security that would hide rows from us is an error.
pub(super) async fn begin_in(source: &Client, snapshot: &str, doing: &str) -> PgResult<()> {
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; SET LOCAL row_security = off",
        literal(snapshot)
    );
    source.batch_execute(&sql).await.map_err(|error| PgError::sql(format!("{doing}: taking up the snapshot"), error))
}

/// Ends what [`begin_in`] began.
pub(super) async fn leave(source: &Client, doing: &str) -> PgResult<()> {
    source.batch_execute("COMMIT").await.map_err(|error| PgError::sql(format!("{doing}: leaving the snapshot"), error))
}

/// Takes up the snapshot, and says how it sees the table.
async fn begin_reading(shared: &Shared, source: &Client, table: &Table) -> PgResult<Option<Definition>> {
    begin_in(source, &shared.snapshot, &copying(table)).await?;
    Definition::read(source, table).await
}

/// Whether a table's rows lie where they lay when the snapshot was taken.
#[derive(PartialEq, Eq)]
enum Pages {
    Same,
    Others,
}

/// Leaves the snapshot. A table that was altered since it was taken is an error.
async fn end_reading(source: &Client, table: &Table, seen: Option<&Definition>) -> PgResult<Pages> {
    let doing = copying(table);
    leave(source, &doing).await?;
    match (seen, Definition::read(source, table).await?) {
        // No file number comes twice, so what is the same now was the same all along.
        (Some(seen), Some(now)) if seen.file == now.file => Ok(Pages::Same),
        (Some(seen), Some(now)) if seen.columns == now.columns => Ok(Pages::Others),
        _ => Err(PgError::Mismatch(format!("{doing}: it was altered meanwhile, which hides its rows from the snapshot; copy anew"))),
    }
}

fn copying(table: &Table) -> String {
    format!("copying {}", table.name)
}

/// What tells that a table was rewritten by ALTER TABLE: that makes a table look empty to an older snapshot. TRUNCATE
/// does so too, but it comes through the stream; VACUUM FULL and CLUSTER keep rows visible.
struct Definition {
    file: u32,
    /// The access method, and the version of each column's definition.
    columns: String,
}

impl Definition {
    async fn read(source: &Client, table: &Table) -> PgResult<Option<Self>> {
        let sql = "SELECT c.relfilenode, c.relam || ' ' || COALESCE((SELECT pg_catalog.string_agg(a.attnum || '/' || a.xmin::text, ' ' ORDER BY a.attnum) \
             FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), '') FROM pg_catalog.pg_class c WHERE c.oid = $1";
        let row = source.query_opt(sql, &[&table.oid]).await;
        let row = row.map_err(|error| PgError::sql(format!("{}: reading its definition", copying(table)), error))?;
        Ok(row.map(|row| Self { file: row.get(0), columns: row.get(1) }))
    }
}

pub(crate) fn column_list(table: &Table) -> String {
    table.stored_columns().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ")
}

/// A table without columns has no list.
pub(crate) fn parenthesised(columns: &str) -> String {
    if columns.is_empty() { String::new() } else { format!(" ({columns})") }
}

/// The binary form of a composite or array holds the OIDs of its types, and a `reg…` value is an OID itself: both differ
/// between two databases. An empty `oidvector` or `int2vector` is refused in its own binary form. Everything else of the
/// server's own, and enums, which travel by name, are the same everywhere.
fn fits_binary(table: &Table) -> bool {
    const AS_TEXT: [&str; 16] = [
        "regclass",
        "regproc",
        "regprocedure",
        "regoper",
        "regoperator",
        "regtype",
        "regrole",
        "regnamespace",
        "regconfig",
        "regdictionary",
        "regcollation",
        "regdatabase",
        "aclitem",
        "oid",
        "oidvector",
        "int2vector",
    ];
    table.stored_columns().all(|column: &Column| {
        let enumeration = column.type_kind == "e" && !column.type_name.ends_with("[]");
        let own = column.builtin && matches!(column.type_kind.as_str(), "b" | "r" | "m");
        (own || enumeration) && !AS_TEXT.contains(&column.type_name.trim_end_matches("[]"))
    })
}
