//! The rows: one snapshot that fits the slot exactly, copied by several workers straight from source to target.

mod progress;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cutover_core::{Snapshot, Stream, plan::DatabaseUrl};
use futures_util::{SinkExt, TryStreamExt};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, CopyInSink, CopyOutStream, SimpleQueryMessage};

pub use self::progress::{Progress, ProgressSnapshot};
use crate::{
    PgError, PgResult,
    catalogue::{self, Column, Table},
    connect::{Purpose, connect},
    gate,
    names::{Names, ident, literal},
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
    gate::guard(&mut connect(job.target, &Purpose::new(&application)).await?, job.epoch).await?;
    let mut origin = connect(job.source, &Purpose::new(&application)).await?;
    stream::drop_slot(&mut origin, job.names, Stream::Forward, job.epoch).await?;
    let exporter = connect(job.source, &Purpose { replication: true, ..patient(&application) }).await?;
    let snapshot = export_snapshot(&exporter, job.names).await?;
    let tables = tables_to_copy(&origin, job.names, &snapshot).await?;
    progress.begin(&tables);
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

/// A session that waits for locks as long as it takes: a slot for transactions under way, a copy for a migration. What
/// waits for so weak a lock holds up no client.
fn patient(application: &str) -> Purpose<'_> {
    Purpose { lock_timeout: Duration::ZERO, ..Purpose::unbounded(application) }
}

/// The tables that hold rows as the snapshot sees them, the largest first. The slot may have waited long for its
/// snapshot; what was made meanwhile and is not published would be copied, and then not followed.
async fn tables_to_copy(origin: &Client, names: &Names, snapshot: &Snapshot) -> PgResult<Vec<Table>> {
    begin_in(origin, &snapshot.snapshot).await?;
    let mut tables: Vec<Table> =
        catalogue::tables(origin).await?.into_iter().filter(|table| table.holds_rows() && table.persistence == "p").collect();
    let published = stream::published(origin, &names.publication(Stream::Forward)).await?.unwrap_or_default();
    commit(origin).await?;
    let unpublished: Vec<String> = tables.iter().map(|table| table.name.quoted()).filter(|table| !published.contains(table)).collect();
    if !unpublished.is_empty() {
        return Err(PgError::Mismatch(format!("made since the tables were published, so copy anew: {}", unpublished.join(", "))));
    }
    tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    Ok(tables)
}

/// Begins to read what the snapshot sees. Row-level security that would hide rows from us is an error.
async fn begin_in(source: &Client, snapshot: &str) -> PgResult<()> {
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; SET LOCAL row_security = off",
        literal(snapshot)
    );
    source.batch_execute(&sql).await.map_err(|error| PgError::sql("taking up the snapshot", error))
}

async fn commit(source: &Client) -> PgResult<()> {
    source.batch_execute("COMMIT").await.map_err(|error| PgError::sql("leaving the snapshot", error))
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
    let source = connect(&shared.source, &patient(&shared.application)).await?;
    begin_in(&source, &shared.snapshot).await?;
    let seen = Definition::read(&source, &table).await?;

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
    let (rows, bytes) = pump(rows_out, sink, &shared.progress).await.map_err(failed)?;
    commit(&source).await?;
    let now = Definition::read(&source, &table).await?;
    if rewritten(seen.as_ref(), now.as_ref()) {
        return Err(PgError::Mismatch(format!("{doing}: it was altered meanwhile, which hides its rows from the snapshot; copy anew")));
    }
    gate::commit(transaction, &doing).await?;
    shared.progress.finish_table(&table, rows, bytes);
    Ok(target)
}

/// Rows and bytes that went from one side to the other.
async fn pump(rows_out: CopyOutStream, sink: CopyInSink<Bytes>, progress: &Progress) -> Result<(u64, u64), tokio_postgres::Error> {
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
        let row = row.map_err(|error| PgError::sql(format!("reading the definition of {}", table.name), error))?;
        Ok(row.map(|row| Self { file: row.get(0), columns: row.get(1) }))
    }
}

/// Whether what is there now holds other rows than what the snapshot saw, or is gone.
fn rewritten(seen: Option<&Definition>, now: Option<&Definition>) -> bool {
    match (seen, now) {
        (Some(seen), Some(now)) => seen.file != now.file && seen.columns != now.columns,
        _ => true,
    }
}

fn column_list(table: &Table) -> String {
    table.stored_columns().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ")
}

/// A table without columns has no list.
fn parenthesised(columns: &str) -> String {
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
