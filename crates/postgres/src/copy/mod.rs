//! The rows: one snapshot that fits the slot exactly, copied by several workers straight from source to target.

mod progress;
mod queue;
mod table;

use std::{collections::HashMap, sync::Arc, time::Duration};

use cutover_core::{Snapshot, Stream, plan::DatabaseUrl};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};

pub use self::progress::{Progress, ProgressSnapshot};
pub(crate) use self::table::{column_list, parenthesised, pump};
use self::{
    queue::{Heap, Rule, Task},
    table::{Shared, begin_in, leave},
};
use crate::{
    PgError, PgResult,
    catalogue::{self, Table},
    connect::{Purpose, connect},
    gate,
    names::{Names, ident},
    pool::share_out,
    schema::major,
    stream,
};

/// The usual size of a part: about a second's work, so that the end is even and what a part costs by itself is nothing.
pub const PART_BYTES: u64 = 64 << 20;

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
    /// Tables, or parts of tables, copied at once.
    pub jobs: usize,
    /// A table larger than this is copied in parts, by several workers at once. Unit: bytes; see [`PART_BYTES`].
    pub part_bytes: u64,
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
    progress.begin(tables.iter().map(|(table, _)| table));
    told(snapshot.clone()).await;

    let begun = Instant::now();
    let count = tables.len() as u64;
    let rule = Rule { major: major(&origin).await?, jobs: job.jobs, part_bytes: job.part_bytes };
    let tasks = queue::plan(tables, &rule);
    let shared = Arc::new(Shared {
        source: job.source.clone(),
        target: job.target.clone(),
        application,
        snapshot: snapshot.snapshot,
        epoch: job.epoch,
        progress: Arc::clone(&progress),
    });
    empty_split_tables(&shared, &tasks).await?;
    let open = {
        let shared = Arc::clone(&shared);
        move || table::open(Arc::clone(&shared))
    };
    share_out(job.jobs, tasks, open, move |worker, task| table::copy(Arc::clone(&shared), worker, task)).await?;
    drop(exporter);
    let seconds = begun.elapsed().as_secs_f64().max(1e-3);
    let done = progress.snapshot();
    Ok(Copied { tables: count, rows: done.rows, bytes: done.bytes, seconds, rows_per_s: (done.rows as f64 / seconds).round() })
}

/// Empties each table that is copied in parts, before the first part of any is handed out: no part may undo another.
async fn empty_split_tables(shared: &Shared, tasks: &[Task]) -> PgResult<()> {
    let first_parts = tasks.iter().filter_map(|task| match task {
        Task::Part(part) if part.from == 0 => Some(&part.of.table),
        _ => None,
    });
    let mut target = None;
    for table in first_parts {
        let target = match &mut target {
            Some(target) => target,
            none => none.insert(table::open_target(shared).await?),
        };
        table::empty(shared, target, table).await?;
    }
    Ok(())
}

/// A session that waits for locks as long as it takes: a slot for transactions under way, a copy for a migration. What
/// waits for so weak a lock holds up no client.
fn patient(application: &str) -> Purpose<'_> {
    Purpose { lock_timeout: Duration::ZERO, ..Purpose::unbounded(application) }
}

/// The tables that hold rows as the snapshot sees them. The slot may have waited long for its
/// snapshot; what was made meanwhile and is not published would be copied, and then not followed.
async fn tables_to_copy(origin: &Client, names: &Names, snapshot: &Snapshot) -> PgResult<Vec<(Table, Heap)>> {
    let doing = "listing the tables to copy";
    begin_in(origin, &snapshot.snapshot, doing).await?;
    let tables: Vec<Table> =
        catalogue::tables(origin).await?.into_iter().filter(|table| table.holds_rows() && table.persistence == "p").collect();
    let published = stream::published(origin, &names.publication(Stream::Forward)).await?.unwrap_or_default();
    let mut heaps = heaps(origin).await?;
    leave(origin, doing).await?;
    let unpublished: Vec<String> = tables.iter().map(|table| table.name.quoted()).filter(|table| !published.contains(table)).collect();
    if !unpublished.is_empty() {
        return Err(PgError::Mismatch(format!("made since the tables were published, so copy anew: {}", unpublished.join(", "))));
    }
    let with_heap = |table: Table| {
        let heap = heaps.remove(&table.oid).unwrap_or_default();
        (table, heap)
    };
    Ok(tables.into_iter().map(with_heap).collect())
}

/// How the rows of each table lie. The size is that of now, which the planner's number of pages lags behind.
async fn heaps(origin: &Client) -> PgResult<HashMap<u32, Heap>> {
    let sql = "SELECT c.oid, COALESCE(pg_catalog.pg_relation_size(c.oid), 0) / pg_catalog.current_setting('block_size')::bigint, \
             COALESCE(a.amname = 'heap', false) \
         FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.relkind = 'r'";
    let rows = origin.query(sql, &[]).await.map_err(|error| PgError::sql("reading the tables' sizes", error))?;
    let heap = |row: &tokio_postgres::Row| Heap { pages: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0), paged: row.get(2) };
    Ok(rows.iter().map(|row| (row.get(0), heap(row))).collect())
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
