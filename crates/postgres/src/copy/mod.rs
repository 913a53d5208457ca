//! The rows: one snapshot that fits the slot exactly, copied by several workers straight from source to target.

mod progress;

use std::sync::Arc;

use bytes::Bytes;
use cutover_core::{Snapshot, Stream, plan::DatabaseUrl};
use futures_util::{SinkExt, TryStreamExt};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};

pub use self::progress::{Progress, ProgressSnapshot};
use crate::{
    PgError, PgResult,
    catalogue::{self, Column, Table},
    connect::{Purpose, connect},
    gate,
    names::{Names, ident},
    pool::work_through,
    stream,
};

/// What is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Where the rows are.
    pub source: &'a DatabaseUrl,
    /// Where they go.
    pub target: &'a DatabaseUrl,
    /// What the slot is called.
    pub names: &'a Names,
    /// The driver's epoch.
    pub epoch: u64,
    /// Tables copied at once.
    pub jobs: usize,
}

/// What was copied.
#[derive(Clone, Debug, Serialize)]
pub struct Copied {
    /// Tables that hold rows.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes as they were sent.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Rows a second.
    pub rows_per_s: f64,
}

/// Copies every row. Makes the slot anew, so an earlier copy that was broken off leaves nothing; tells the snapshot and
/// waits for `told` before rows flow.
///
/// # Errors
/// The first failure of any worker; the others are ended.
pub async fn copy_rows(job: Job<'_>, progress: Arc<Progress>, told: impl AsyncFnOnce(Snapshot)) -> PgResult<Copied> {
    let application = job.names.application("copy");
    let mut origin = connect(job.source, &Purpose::new(&application)).await?;
    let mut tables: Vec<Table> =
        catalogue::tables(&origin).await?.into_iter().filter(|table| table.holds_rows() && table.persistence == "p").collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    progress.begin(&tables);
    stream::drop_slot(&mut origin, job.names, Stream::Forward, job.epoch).await?;
    let purpose = Purpose { replication: true, ..Purpose::unbounded(&application) };
    let exporter = connect(job.source, &purpose).await?;
    let snapshot = export_snapshot(&exporter, job.names).await?;
    told(snapshot.clone()).await;

    let begun = Instant::now();
    let shared = Arc::new(Shared {
        source: job.source.clone(),
        application: application.clone(),
        snapshot: snapshot.snapshot,
        epoch: job.epoch,
        progress: Arc::clone(&progress),
    });
    let count = tables.len() as u64;
    work_through(job.target, &application, job.jobs, tables, move |client, table| copy_table(Arc::clone(&shared), client, table)).await?;
    drop(exporter);
    let seconds = begun.elapsed().as_secs_f64().max(1e-3);
    let done = progress.snapshot();
    Ok(Copied { tables: count, rows: done.rows, bytes: done.bytes, seconds, rows_per_s: (done.rows as f64 / seconds).round() })
}

struct Shared {
    source: DatabaseUrl,
    application: String,
    snapshot: String,
    epoch: u64,
    progress: Arc<Progress>,
}

/// The slot first, and with it the snapshot of exactly its position. The snapshot lives as long as the session.
async fn export_snapshot(exporter: &Client, names: &Names) -> PgResult<Snapshot> {
    let doing = "making the slot and its snapshot";
    let slot = names.slot(Stream::Forward);
    // The form without parentheses is understood by every version.
    let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", ident(&slot));
    let answer = exporter.simple_query(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let value = |name: &str| row.and_then(|row| row.try_get(name).ok().flatten()).unwrap_or_default().to_owned();
    let lsn = value("consistent_point").parse().map_err(|error| PgError::Mismatch(format!("{doing}: {error}")))?;
    Ok(Snapshot { slot, snapshot: value("snapshot_name"), lsn })
}

/// One table, in one transaction at the target: it holds all of the snapshot's rows, or what it held before.
async fn copy_table(shared: Arc<Shared>, mut target: Client, table: Table) -> PgResult<Client> {
    let doing = format!("copying {}", table.name);
    let failed = |error| PgError::sql(&doing, error);
    let source = connect(&shared.source, &Purpose::unbounded(&shared.application)).await?;
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'", shared.snapshot.replace('\'', "''"));
    source.batch_execute(&begin).await.map_err(failed)?;

    gate::let_pass(&target, "copy").await?;
    let transaction = gate::guarded(&mut target, shared.epoch).await?;
    let columns = column_list(&table);
    let format = if fits_binary(&table) { "BINARY" } else { "TEXT" };
    // Nobody reads the table yet, and it is emptied in this transaction: FREEZE spares it a later rewrite.
    let truncate = format!("SET LOCAL lock_timeout = 0; TRUNCATE ONLY {}", table.name.quoted());
    transaction.batch_execute(&truncate).await.map_err(failed)?;
    let freeze = if table.partition { "" } else { ", FREEZE" };
    let out = format!("COPY (SELECT {columns} FROM ONLY {}) TO STDOUT (FORMAT {format})", table.name.quoted());
    let into = format!("COPY {}{} FROM STDIN (FORMAT {format}{freeze})", table.name.quoted(), parenthesised(&columns));
    let rows_out = source.copy_out(&out).await.map_err(failed)?;
    let sink = transaction.copy_in::<_, Bytes>(&into).await.map_err(failed)?;
    let mut rows_out = std::pin::pin!(rows_out);
    let mut sink = std::pin::pin!(sink);
    while let Some(chunk) = rows_out.try_next().await.map_err(failed)? {
        shared.progress.add_bytes(chunk.len() as u64);
        sink.feed(chunk).await.map_err(failed)?;
    }
    let rows = sink.finish().await.map_err(failed)?;
    gate::commit(transaction, &doing).await?;
    shared.progress.finish_table(rows);
    Ok(target)
}

fn column_list(table: &Table) -> String {
    table.stored_columns().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ")
}

/// A table without columns has no list.
fn parenthesised(columns: &str) -> String {
    if columns.is_empty() { String::new() } else { format!(" ({columns})") }
}

/// The binary form of a composite or array holds the OIDs of its types, and a `reg…` value is an OID itself: both differ
/// between two databases. Everything of the server's own, and enums, which travel by name, are the same everywhere.
fn fits_binary(table: &Table) -> bool {
    const BY_OID: [&str; 13] = [
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
        "aclitem",
        "oid",
    ];
    table.stored_columns().all(|column: &Column| {
        let enumeration = column.type_kind == "e" && !column.type_name.ends_with("[]");
        let own = column.builtin && matches!(column.type_kind.as_str(), "b" | "r" | "m");
        (own || enumeration) && !BY_OID.contains(&column.type_name.trim_end_matches("[]"))
    })
}
