//! Compares both sides row by row, and tells the truth while they move.
//!
//! One side is the *authority*, the other, the *follower*, is kept like it by logical replication. Every table is cut
//! into ranges of its key, walked along the index at the authority; both sides sum up the hashes of a range's rows
//! (`sql.rs`), each in a statement of its own, so that no snapshot is held and VACUUM goes on. Sums of a moving table
//! differ all the time. So the rows of a differing range are compared one by one, and those that differ are looked at
//! again where the stream passes (`in_stream.rs`), or, where it carries no looks, after the follower has applied the
//! position of the look at the authority, until each is proven equal or proven different (`settle.rs`). What can be
//! neither in a bounded number of looks is *unsettled*, which is never counted as equal.
//!
//! Tables whose key both sides may sort differently (`ordering.rs`) are walked on both sides, and rows are looked up
//! by key; in tables without a key every different row is counted (`multiset.rs`). Memory stays flat: at most a few
//! chunks per job, whatever the size of the data.

mod changed;
mod chunks;
mod following;
mod in_stream;
mod judge;
mod mend;
mod multiset;
mod ordering;
mod progress;
mod repair;
mod report;
mod scope;
mod session;
mod settle;
mod sql;
pub mod user_check;
mod values;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cutover_core::{Lsn, Side, VerifiedTable, plan::DatabaseUrl};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;

pub use self::{
    changed::{Changes, Compared, MOST_IN_PAUSE, sql_watch},
    following::Following,
    progress::{Progress, ProgressNumbers},
    repair::{Repair, RepairOptions, repair},
    report::{Difference, DifferenceKind, Remark, Report, RowKey, Unsettled, Verdict},
    values::{ColumnValues, Value},
};
use self::{
    chunks::{Worker, walk},
    following::{Watch, insert_position},
    in_stream::Carrier,
    mend::Slot,
    report::Findings,
    scope::Scope,
    session::{Pair, Session},
    sql::TableSql,
};
use crate::{
    PgError, PgResult,
    catalogue::QualifiedName,
    limit::{Limiter, Limits},
    names::Names,
};

/// Stands for a value that is never shown.
const REDACTED: &str = "(redacted)";

/// The values of a key's columns, as text.
type Key = Vec<String>;

/// How a comparison is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Chunks compared at once; each takes a connection to both sides.
    pub jobs: usize,
    /// Rows in a chunk, at most; fewer where rows are wide.
    pub chunk_rows: u32,
    /// The same for single tables; a partitioned table's counts for its partitions.
    pub chunk_rows_of: BTreeMap<QualifiedName, u32>,
    /// How often a row that differs is looked at again while both sides move, where the stream can't decide about it.
    pub rechecks: u32,
    /// Tables that were found equal before the verification was broken off. They count, and are not compared again
    /// unless they were altered meanwhile.
    pub done: Vec<VerifiedTable>,
    /// Rows compared in a second, at most, and how long the authority may take to answer a small query meanwhile.
    pub limits: Limits,
    /// The tables to compare, a partitioned one with its partitions; all where absent.
    pub tables: Option<Vec<QualifiedName>>,
    /// Whether both sides' values of the columns that differ are reported, as far as they may be shown.
    pub values: bool,
    /// Columns whose values are never shown: `schema.table.column`, with `*` for any text.
    pub redact: Vec<String>,
    /// How many differences are reported with their details; the others are counted.
    pub max_differences: usize,
    /// How long a follower that does not move at all is waited for.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            jobs: 2,
            chunk_rows: 10_000,
            chunk_rows_of: BTreeMap::new(),
            rechecks: 5,
            done: Vec::new(),
            limits: Limits::default(),
            tables: None,
            values: false,
            redact: Vec::new(),
            max_differences: 1000,
            patience: Duration::from_secs(30),
        }
    }
}

/// The two databases to compare.
#[derive(Clone, Debug)]
pub struct Sides<'a> {
    /// The database that the other one is measured by.
    pub authority: &'a DatabaseUrl,
    /// The other one.
    pub follower: &'a DatabaseUrl,
    /// Which side the authority is, for the report.
    pub authority_side: Side,
    /// How the follower follows; absent where both stand still, and the first look is the last.
    pub following: Option<Following>,
}

impl Sides<'_> {
    /// Over the follower's position, where it follows.
    fn watch(&self, application: &str, options: &Options) -> Option<Watch> {
        let session = || Session::new(Role::Authority, self.authority, application);
        self.following.as_ref().map(|following| Watch::new(following, session(), options.patience))
    }
}

/// Compares both sides. `progress` is kept up to date meanwhile.
///
/// # Errors
/// [`PgError::Refused`] where a table that was asked for is on neither side, [`PgError::Connect`], and [`PgError::Sql`]
/// or [`PgError::TimedOut`] where a side stopped answering and did not come back. A table that can't be read is no
/// error but unsettled.
pub async fn verify(sides: &Sides<'_>, names: &Names, options: &Options, progress: &Progress) -> PgResult<Report> {
    let began = Instant::now();
    let application = names.application("verify");
    let mut pair = Pair::new(sides.authority, sides.follower, &application);
    let lsn = insert_position(&mut pair.authority).await?;
    let scope = Scope::read(&mut pair, sides, options).await?;
    let (earlier, comparisons) = part(scope.comparisons, &options.done);
    let mut tables: Vec<_> = comparisons.into_iter().map(Arc::new).collect();
    // The largest first, so that no single one is left to the end.
    tables.sort_by(|one, other| other.bytes.total_cmp(&one.bytes));
    progress.begin(tables.len() as u64, tables.iter().map(|table| table.estimated_rows as u64).sum());
    progress.from(lsn);
    let (watch, limiter) = (sides.watch(&application, options), Arc::new(Limiter::of_verification(options.limits)));
    progress.held_by(&limiter);
    let shared = Shared { watch, carrier: Carrier::new(), options, progress, findings: Mutex::new(scope.findings), limiter };
    let compared = tokio::select! {
        compared = Box::pin(compare(&shared, &tables, pair, sides, &application)) => compared,
        silent = Box::pin(shared.limiter.watch(sides.authority, &application)) => Err(silent),
    };
    shared.carrier.tidy(&mut Session::new(Role::Follower, sides.follower, &application)).await;
    compared?;
    let mut findings = shared.findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.sort();
    let seconds = began.elapsed().as_secs_f64();
    Ok(Report {
        authority: sides.authority_side,
        lsn: earlier.iter().map(|table| table.lsn).fold(lsn, Lsn::min),
        tables: (tables.len() + earlier.len()) as u64,
        chunks: findings.chunks,
        rows: findings.rows + earlier.iter().map(|table| table.rows).sum::<u64>(),
        seconds,
        rows_per_s: findings.rows as f64 / seconds.max(0.001),
        rechecked_rows: findings.rechecked_rows,
        differences: findings.differences,
        differences_total: findings.differences_total,
        unsettled: findings.unsettled,
        unsettled_total: findings.unsettled_total,
        skipped: scope.skipped,
        notes: scope.notes,
    })
}

/// Those that were found equal before and are defined as they were then, and the others.
fn part(comparisons: Vec<Comparison>, done: &[VerifiedTable]) -> (Vec<&VerifiedTable>, Vec<Comparison>) {
    let done: BTreeMap<_, _> = done.iter().map(|table| ((&table.schema, &table.name), table)).collect();
    let (mut earlier, mut others) = (Vec::new(), Vec::new());
    for table in comparisons {
        match done.get(&(&table.name.schema, &table.name.name)) {
            Some(before) if before.definition == table.definition => earlier.push(*before),
            _ => others.push(table),
        }
    }
    (earlier, others)
}

/// One walker cuts the tables into chunks, and the workers compare them as they come.
async fn compare(shared: &Shared<'_>, tables: &[Arc<Comparison>], pair: Pair, sides: &Sides<'_>, application: &str) -> PgResult<()> {
    let jobs = shared.options.jobs.max(1);
    let (sender, receiver) = mpsc::channel(2 * jobs);
    let receiver = tokio::sync::Mutex::new(receiver);
    let workers = (0..jobs).map(|_| {
        let worker = Worker::new(Pair::new(sides.authority, sides.follower, application), shared);
        Box::pin(worker.run(&receiver))
    });
    let workers = futures_util::future::try_join_all(workers);
    tokio::try_join!(Box::pin(walk(tables, pair, sender, shared)), workers)?;
    Ok(())
}

/// Which of the two a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Authority,
    Follower,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Authority => Self::Follower,
            Self::Follower => Self::Authority,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Authority => "authority",
            Self::Follower => "follower",
        })
    }
}

/// How a table is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// By ranges of its key.
    Range,
    /// Row by row, looked up by key, from both sides.
    Lookup,
    /// By counting equal rows.
    Multiset,
}

/// One table to compare.
struct Comparison {
    name: QualifiedName,
    /// A digest of its definition on both sides.
    definition: String,
    method: Method,
    /// The names of the key's columns.
    key: Vec<String>,
    /// Columns whose values are never shown.
    redacted: Vec<String>,
    /// At the authority, and at the follower.
    sides: [TableSql; 2],
    /// The follower's columns.
    slots: Vec<Slot>,
    chunk_rows: u32,
    bytes: f64,
    estimated_rows: f64,
    /// Parts of the work not done yet: its chunks under way, and the walk.
    open: AtomicUsize,
    /// Rows compared so far.
    rows: AtomicU64,
    /// Something of it differs, or could not be established.
    faulty: AtomicBool,
}

impl Comparison {
    fn new(
        name: QualifiedName,
        method: Method,
        key: Vec<String>,
        sides: [TableSql; 2],
        chunk_rows: u32,
        bytes: f64,
        estimated_rows: f64,
    ) -> Self {
        Self {
            name,
            definition: String::new(),
            method,
            key,
            redacted: Vec::new(),
            sides,
            slots: Vec::new(),
            chunk_rows,
            bytes,
            estimated_rows,
            open: AtomicUsize::new(1),
            rows: AtomicU64::new(0),
            faulty: AtomicBool::new(false),
        }
    }

    fn at(&self, role: Role) -> &TableSql {
        match role {
            Role::Authority => &self.sides[0],
            Role::Follower => &self.sides[1],
        }
    }

    fn doing(&self) -> String {
        format!("verifying {}", self.name)
    }

    fn named(&self, key: &Key) -> Vec<(String, String)> {
        let shown = |(column, value): (&String, &String)| {
            let value = if self.redacted.contains(column) { REDACTED } else { value };
            (column.clone(), value.to_owned())
        };
        self.key.iter().zip(key).map(shown).collect()
    }

    /// Why this table can't be compared, where that is a matter of it and not of the whole. A server's words may hold
    /// values.
    fn refusal(&self, error: &PgError) -> Option<String> {
        let why = refusal(error)?;
        let code = error.sql_state().filter(|_| !self.redacted.is_empty());
        Some(code.map_or(why, |code| format!("{}: the server answers {}; its words are {REDACTED}", self.doing(), code.code())))
    }

    fn unsettled(&self, why: String) -> Unsettled {
        Unsettled { table: self.name.clone(), key: Vec::new(), why }
    }
}

/// What the workers share.
struct Shared<'a> {
    /// Absent where both sides stand still.
    watch: Option<Watch>,
    carrier: Carrier,
    options: &'a Options,
    progress: &'a Progress,
    findings: Mutex<Findings>,
    limiter: Arc<Limiter>,
}

impl Shared<'_> {
    fn findings(&self) -> Findings {
        Findings::keeping(self.options.max_differences)
    }

    /// Takes over what a part of the work on a table has found.
    fn found(&self, table: &Comparison, findings: Findings) {
        table.rows.fetch_add(findings.rows, Ordering::Relaxed);
        if findings.differences_total + findings.unsettled_total > 0 {
            table.faulty.store(true, Ordering::Relaxed);
        }
        self.merge(findings);
    }

    fn merge(&self, findings: Findings) {
        self.progress.chunks_done(findings.chunks, findings.rows, findings.differences_total + findings.unsettled_total);
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).merge(findings);
    }

    /// One part of the work on a table is done.
    fn part_done(&self, table: &Comparison) {
        if table.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.progress.table_done(table);
        }
    }
}

/// Why a table can't be compared, where that is a matter of this table and not of the whole.
fn refusal(error: &PgError) -> Option<String> {
    let code = error.sql_state()?;
    let known = [
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_OBJECT,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::QUERY_CANCELED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ];
    // 22: a value of one side is none of the other's type. XX001, XX002: a page or an index is corrupted.
    let of_the_table = known.contains(code) || ["22", "XX00"].iter().any(|class| code.code().starts_with(class));
    of_the_table.then(|| error.to_string())
}
