//! The rows: one snapshot that fits the slot exactly, copied by several workers straight from source to target.
//!
//! The snapshot outlives us (`keeper`), and what is done is written down in the transaction that does it (`ledger`): a
//! copy that was broken off goes on where it stood, if nothing has changed that it depends on (`resume`).

mod cut;
mod eta;
mod full;
mod keeper;
mod ledger;
mod progress;
mod queue;
mod resume;
mod table;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use cutover_core::{Snapshot, Stream, plan::DatabaseUrl};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};

pub use self::progress::{Progress, ProgressSnapshot};
pub(crate) use self::table::{column_list, parenthesised, pump};
use self::{
    cut::{Heap, Keys, Rule},
    full::Full,
    keeper::{Kept, take_up},
    ledger::{Entry, Record},
    queue::{Numbered, Task, size},
    resume::Earlier,
    table::{Shared, State, Worker, leave},
};
use crate::{
    PgError, PgResult,
    catalogue::{self, Table},
    connect::{Purpose, connect},
    gate,
    index::{Definitions, Hands, Index, define_index, indexes_there},
    limit::Limiter,
    names::{Names, ident},
    pool::{Queue, share_out},
    schema::major,
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
    /// Tables, or parts of tables, copied at once, indexes that are built meanwhile among them.
    pub jobs: usize,
    /// A table larger than this is copied in parts, by several workers at once. Unit: bytes. The usual size is about
    /// a second's work: then the end is even, and what a part costs by itself is nothing.
    pub part_bytes: u64,
    /// How long the source keeps the snapshot after the last driver that copied; it holds back vacuum for so long.
    pub resume_within: Duration,
    /// How fast rows may be read.
    pub limiter: &'a Arc<Limiter>,
    /// What can be built on tables as soon as they are full.
    pub definitions: &'a Definitions,
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
    /// Indexes that were built on full tables while others were copied.
    pub indexes: u64,
    /// How long it took, since it was begun or last gone on with.
    pub seconds: f64,
    /// Rows a second of that time.
    pub rows_per_s: f64,
}

/// Copies every row. Goes on with an earlier copy where everything fits, else makes the slot anew; tells the snapshot and
/// waits for `told` before rows flow. What a person should know is in `progress`.
///
/// # Errors
/// The first failure of any worker; the others are ended. What was done by then stays done, and the next call goes on.
pub async fn copy_rows(job: Job<'_>, progress: Arc<Progress>, told: impl AsyncFnOnce(Snapshot)) -> PgResult<Copied> {
    let application = job.names.application("copy");
    let mut target = connect(job.target, &Purpose::new(&application)).await?;
    gate::guard(&mut target, job.epoch).await?;
    gate::let_pass(&target, "copy").await?;
    let mut origin = connect(job.source, &Purpose::new(&application)).await?;
    for side in [&target, &origin] {
        // An earlier attempt's, that don't know yet that they were given up.
        gate::end_other_drivers(side, &application, &[]).await?;
    }
    keeper::say_copying(&origin).await?;
    let work = match resume::look(&job, &origin, &target).await? {
        Earlier::Fits(record, tables) => Some(take_over(&job, &origin, &mut target, record, tables).await?),
        Earlier::Unfit(why) => {
            progress.note(format!("the earlier copy can't be gone on with: {why}. It begins anew"));
            None
        }
        Earlier::None => None,
    };
    let work = match work {
        Some(work) => work,
        None => begin_anew(&job, &mut origin, &mut target).await?,
    };
    progress.begin(&work.entries);
    let before = progress.snapshot();
    if before.bytes > 0 {
        progress.note(format!(
            "goes on with the earlier copy: {} rows in {} parts are there",
            before.rows,
            progress.parts_done().unwrap_or(0)
        ));
    }
    told(work.snapshot).await;
    let begun = Instant::now();
    if let Some(kept) = work.kept {
        let shared = Shared {
            source: job.source.clone(),
            target: job.target.clone(),
            application,
            kept,
            hands: Hands { epoch: job.epoch, jobs: job.jobs },
            progress: Arc::clone(&progress),
            limiter: Arc::clone(job.limiter),
        };
        let there = indexes_there(&target).await?;
        let full = Full::new(job.definitions.plain_indexes(&there), &work.entries, &work.left);
        empty_split_tables(&shared, &work.entries, &work.left).await?;
        hand_out(&job, &mut origin, Arc::new(shared), full, work.left).await?;
    }
    ledger::finish(&mut target, job.epoch).await?;
    end_keepers(&origin, job.names).await?;
    let seconds = begun.elapsed().as_secs_f64().max(1e-3);
    let done = progress.snapshot();
    let rows_per_s = (done.rows.saturating_sub(before.rows) as f64 / seconds).round();
    Ok(Copied { tables: done.tables, rows: done.rows, bytes: done.bytes, indexes: done.indexes, seconds, rows_per_s })
}

/// Ends the sessions that keep the snapshot of a copy.
///
/// # Errors
/// [`PgError::Sql`].
pub(crate) async fn end_keepers(origin: &Client, names: &Names) -> PgResult<()> {
    gate::end_other_drivers(origin, &names.keeper(), &[]).await.map(drop)
}

/// What there is to do.
struct Work {
    snapshot: Snapshot,
    /// The snapshot and who keeps it; none where no row is left to read.
    kept: Option<Kept>,
    /// All tasks as they are written down, and those that are left.
    entries: Vec<Entry>,
    left: Vec<Numbered>,
}

/// Goes on with an earlier copy. Its snapshot is kept by sessions of our own from here on, which stay as long as our
/// plan says; the earlier ones end when that is written down.
async fn take_over(job: &Job<'_>, origin: &Client, target: &mut Client, record: Record, tables: HashMap<u32, Table>) -> PgResult<Work> {
    let left = queue::left(&record.entries, tables);
    let lsn = record.lsn.parse().map_err(|error| PgError::Mismatch(format!("the copy's position: {error}")))?;
    let mut snapshot = Snapshot { slot: record.slot, snapshot: record.snapshots.first().cloned().unwrap_or_default(), lsn };
    let mut kept = None;
    if !left.is_empty() {
        let ours = Kept::new(job, &record.snapshots, Some(&record.visible)).await?;
        let names = ours.names();
        ledger::set_snapshots(target, job.epoch, &names).await?;
        ours.end_others(origin, job).await?;
        snapshot.snapshot = names.into_iter().next().unwrap_or_default();
        kept = Some(ours);
    }
    Ok(Work { snapshot, kept, entries: record.entries, left })
}

/// A new slot, its snapshot, and the list of what there is to do.
async fn begin_anew(job: &Job<'_>, origin: &mut Client, target: &mut Client) -> PgResult<Work> {
    ledger::clear(target, job.epoch).await?;
    stream::drop_slot(origin, job.names, Stream::Forward, job.epoch).await?;
    let application = job.names.application("copy");
    let exporter = connect(job.source, &Purpose { replication: true, ..patient(&application) }).await?;
    let mut snapshot = export_snapshot(&exporter, job.names).await?;
    let kept = Kept::new(job, std::slice::from_ref(&snapshot.snapshot), None).await?;
    drop(exporter);
    let names = kept.names();
    snapshot.snapshot = names.first().cloned().unwrap_or_default();
    let rule = Rule { major: major(origin).await?, jobs: job.jobs, part_bytes: job.part_bytes };
    let (tables, publication) = tables_to_copy(origin, job.names, &kept, &rule).await?;
    let left = queue::number(queue::plan(tables, &rule));
    let record = Record {
        slot: snapshot.slot.clone(),
        lsn: snapshot.lsn.to_string(),
        visible: kept.visible.clone(),
        snapshots: names,
        publication,
        entries: left.iter().map(Entry::of).collect(),
    };
    ledger::write(target, job.epoch, &record).await?;
    Ok(Work { snapshot, kept: Some(kept), entries: record.entries, left })
}

/// A table that is no larger gets its indexes in the transaction that brings its rows, and shares that with others as
/// long as they are no larger together. Unit: bytes.
const SMALL: u64 = 1 << 20;

/// Small tables that are copied together at most.
const TOGETHER: usize = 25;

/// What a worker is sent for.
enum Errand {
    Rows(Numbered),
    /// Small tables, which are copied together.
    Small(Vec<(i32, Table)>),
    Index(Index),
}

impl Errand {
    fn tables(&self) -> usize {
        match self {
            Self::Small(batch) => batch.len(),
            Self::Rows(_) | Self::Index(_) => 1,
        }
    }
}

/// Has the workers do what is left, and looks after the snapshot meanwhile. What is built on a table comes before the
/// rows of others: it may be one long piece of work, and the rows are many short ones, which fill the end.
async fn hand_out(job: &Job<'_>, origin: &mut Client, shared: Arc<Shared>, full: Full, left: Vec<Numbered>) -> PgResult<()> {
    let queue = Queue::weighed(errands(left, job.jobs), Errand::tables);
    queue.add(full.indexes_at_first().into_iter().map(errand));
    let (opened, worked, grown, full) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&queue), Arc::new(full));
    let work = share_out(
        job.jobs,
        queue,
        move || table::open(Arc::clone(&opened)),
        move |worker, task| run(Arc::clone(&worked), Arc::clone(&grown), Arc::clone(&full), worker, task),
    );
    tokio::select! {
        done = work => done,
        error = shared.kept.look_after(job, origin, &shared) => Err(error),
        error = job.limiter.watch(job.source, &shared.application) => Err(error),
    }
}

async fn run(shared: Arc<Shared>, queue: Arc<Queue<Errand>>, full: Arc<Full>, mut worker: Worker, errand: Errand) -> PgResult<Worker> {
    match errand {
        Errand::Small(batch) => {
            let indexes: Vec<Index> = batch.iter().flat_map(|(_, table)| full.indexes_on(table.oid)).collect();
            table::copy_small(&shared, &mut worker, &batch, &indexes).await?;
        }
        Errand::Rows(numbered) => {
            if table::copy(&shared, &mut worker, &numbered).await? == State::Full {
                queue.add(full.indexes_on(numbered.task.table().oid).into_iter().map(self::errand));
            }
        }
        Errand::Index(index) => {
            define_index(&mut worker.target, &index, shared.hands).await?;
            shared.progress.finish_indexes(1);
        }
    }
    Ok(worker)
}

/// Puts small tables together, in their order: a few for each worker at least, and few enough that their locks are held
/// for a moment.
fn errands(left: Vec<Numbered>, jobs: usize) -> Vec<Errand> {
    let is_small = |numbered: &Numbered| matches!(&numbered.task, Task::Whole(table) if size(table) <= SMALL);
    let together = (left.iter().filter(|numbered| is_small(numbered)).count() / (4 * jobs.max(1))).clamp(1, TOGETHER);
    let mut errands: Vec<Errand> = Vec::new();
    let mut bytes = 0;
    for numbered in left {
        match numbered {
            Numbered { id, task: Task::Whole(table) } if size(&table) <= SMALL => {
                bytes += size(&table);
                match errands.last_mut() {
                    Some(Errand::Small(batch)) if batch.len() < together && bytes <= SMALL => batch.push((id, table)),
                    _ => {
                        bytes = size(&table);
                        errands.push(Errand::Small(vec![(id, table)]));
                    }
                }
            }
            other => errands.push(Errand::Rows(other)),
        }
    }
    errands
}

fn errand(index: Index) -> (u64, Errand) {
    (index.bytes, Errand::Index(index))
}

/// Empties each table that is copied in parts, before the first part of any is handed out: no part may undo another.
async fn empty_split_tables(shared: &Shared, entries: &[Entry], left: &[Numbered]) -> PgResult<()> {
    let firsts = ledger::first_parts(entries);
    let mut seen = HashSet::new();
    let mut target = None;
    for numbered in left {
        let Task::Part(part) = &numbered.task else { continue };
        let table = &part.of.table;
        let Some(first) = firsts.get(&table.oid).filter(|first| !first.emptied && seen.insert(table.oid)) else { continue };
        let target = match &mut target {
            Some(target) => target,
            none => none.insert(table::open_target(shared).await?),
        };
        table::empty(shared, target, table, first.id).await?;
    }
    Ok(())
}

/// A session that waits for locks as long as it takes: a slot for transactions under way, a copy for a migration. What
/// waits for so weak a lock holds up no client.
fn patient(application: &str) -> Purpose<'_> {
    Purpose { lock_timeout: Duration::ZERO, ..Purpose::unbounded(application) }
}

/// The tables that hold rows, and the publication, as the snapshot sees them. The slot may have waited long for its
/// snapshot; what was made meanwhile and is not published would be copied, and then not followed.
async fn tables_to_copy(origin: &Client, names: &Names, kept: &Kept, rule: &Rule) -> PgResult<(Vec<(Table, Heap)>, String)> {
    let doing = "listing the tables to copy";
    take_up(origin, &kept.names(), Some(&kept.visible), doing).await?;
    let tables: Vec<Table> =
        catalogue::tables(origin).await?.into_iter().filter(|table| table.holds_rows() && table.persistence == "p").collect();
    let published = stream::published(origin, &names.publication(Stream::Forward)).await?.unwrap_or_default();
    let publication = resume::publication(origin, names).await?;
    let mut heaps = heaps(origin).await?;
    let by_key = tables.iter().filter(|table| heaps.get(&table.oid).is_some_and(|heap| rule.wants_keys(size(table), heap)));
    for (oid, keys) in keys(origin, &by_key.map(|table| table.oid).collect::<Vec<_>>()).await? {
        heaps.entry(oid).or_default().keys = Some(keys);
    }
    leave(origin, doing).await?;
    let unpublished: Vec<String> = tables.iter().map(|table| table.name.quoted()).filter(|table| !published.contains(table)).collect();
    if !unpublished.is_empty() {
        return Err(PgError::Mismatch(format!("made since the tables were published, so copy anew: {}", unpublished.join(", "))));
    }
    let with_heap = |table: Table| {
        let heap = heaps.remove(&table.oid).unwrap_or_default();
        (table, heap)
    };
    Ok((tables.into_iter().map(with_heap).collect(), publication))
}

/// How the rows of each table lie. The size is that of now, which the planner's number of pages lags behind.
async fn heaps(origin: &Client) -> PgResult<HashMap<u32, Heap>> {
    let sql = "SELECT c.oid, COALESCE(pg_catalog.pg_relation_size(c.oid), 0) / pg_catalog.current_setting('block_size')::bigint, \
             COALESCE(a.amname = 'heap', false) \
         FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.relkind = 'r'";
    let rows = origin.query(sql, &[]).await.map_err(|error| PgError::sql("reading the tables' sizes", error))?;
    let heap = |row: &tokio_postgres::Row| Heap { pages: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0), paged: row.get(2), keys: None };
    Ok(rows.iter().map(|row| (row.get(0), heap(row))).collect())
}

/// Where tables can be cut by key, as far as the planner's statistics know. Only types whose text is read alike in every
/// session: all parts of a table must mean the same by it.
async fn keys(origin: &Client, oids: &[u32]) -> PgResult<Vec<(u32, Keys)>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT c.oid, a.attname::text, pg_catalog.format_type(a.atttypid, NULL), s.histogram_bounds::text::text[] \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
         JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited \
         WHERE i.indisprimary AND c.oid = ANY ($1) AND s.histogram_bounds IS NOT NULL \
           AND a.atttypid::pg_catalog.regtype::text = ANY (ARRAY['smallint', 'integer', 'bigint', 'numeric', 'uuid', 'text', 'character varying'])";
    let rows = origin.query(sql, &[&oids]).await.map_err(|error| PgError::sql("reading where tables can be cut", error))?;
    let keys = |row: &tokio_postgres::Row| Keys { column: ident(row.get(1)), type_name: row.get(2), bounds: row.get(3) };
    Ok(rows.iter().map(|row| (row.get(0), keys(row))).collect())
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
