//! Looking at rows where the stream passes; `sql/look.sql` says how.
//!
//! At the authority the rows are locked for the few milliseconds of one transaction, and read in it. What the follower
//! saw when it applied that transaction is what it had made of everything that was committed before, and of nothing
//! else: so a row that changes all the time is decided like any other, at the first look.
//!
//! A key that the authority has no row for can't be locked. There an insert may commit between the transaction's look
//! and its end, and be at the follower. [`settle`](mod@super::settle) tells it from an extra row by a second look.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cutover_core::Lsn;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::{
    Comparison, Key, Role,
    following::{LOOK_EVERY, Wait, Watch, insert_position},
    judge::{States, in_order},
    mend,
    session::{Pair, Param, Query, Session},
};
use crate::{PgError, PgResult, gate, names::literal};

/// Rows that one look locks at the authority and takes at the follower, where the stream waits for it meanwhile.
const ROWS_AT_ONCE: f64 = 50.0;

/// And no more than this, going by the table's average, so that wide rows don't hold up the stream. Unit: bytes.
const BYTES_AT_ONCE: f64 = 1024.0 * 1024.0;

/// How long a row that another transaction holds is waited for, with all other rows of the look locked meanwhile.
const LOCK_LIMIT: &str = "200ms";

/// The carrier of looks, shared by all workers of one verification.
pub(super) struct Carrier {
    /// What everything is called by that this verification leaves at the follower, until it takes it away again.
    run: String,
    looks: AtomicU64,
    /// Tables whose statements are known at the follower.
    known: Mutex<HashSet<String>>,
    /// Whether looks may mend.
    mends: bool,
    /// Set when the stream was seen not to carry looks, or we may not write them.
    useless: AtomicBool,
}

/// What both sides hold under some keys at one point of the stream.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) authority: States,
    /// Whether another transaction held the row at the authority, so that it was not read.
    pub(super) held: Vec<bool>,
    pub(super) follower: States,
}

/// What a look does with the rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errand<'a> {
    /// Rows that another transaction holds are left out.
    Skip,
    /// They are waited for, for [`LOCK_LIMIT`].
    Await,
    /// So they are, and the follower's are mended before it looks.
    Mend(&'a Mending),
}

/// A look at some rows: what was seen, or why nothing was.
pub(super) type Look = Result<Sight, String>;

/// Why no more looks are sent.
#[derive(Debug)]
pub(super) enum Stop {
    /// The stream does not carry them.
    NotCarried,
    /// The follower is not waited for any longer, and why.
    Stalled(String),
}

/// What makes a look mend the rows that it looks at.
#[derive(Clone, Debug)]
pub(super) struct Mending {
    /// The driver's epoch.
    pub(super) epoch: u64,
    /// For each row the follower's version that may be deleted, if the authority has none; empty for none.
    pub(super) versions: Vec<String>,
}

/// A look that is under way.
struct Sent {
    id: String,
    authority: States,
    held: Vec<bool>,
}

/// What one look saw of a group of rows, or why it saw nothing.
type Outcomes = HashMap<String, Option<String>>;

impl Carrier {
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            run: format!("{}-{}", std::process::id(), since.as_nanos()),
            looks: AtomicU64::new(0),
            known: Mutex::default(),
            mends: false,
            useless: AtomicBool::new(false),
        }
    }

    /// One whose looks can mend.
    pub(super) fn mending() -> Self {
        Self { mends: true, ..Self::new() }
    }

    /// Whether looks may be sent, as far as is known.
    pub(super) fn is_useful(&self) -> bool {
        !self.useless.load(Ordering::Relaxed)
    }

    /// How many rows of a table one look takes.
    pub(super) fn rows_at_once(table: &Comparison) -> usize {
        let row_bytes = (table.bytes / table.estimated_rows.max(1.0)).max(1.0);
        (BYTES_AT_ONCE / row_bytes).clamp(1.0, ROWS_AT_ONCE) as usize
    }

    /// Looks at rows, group by group, and waits for what the follower saw. One group alone can be mended.
    pub(super) async fn look(
        &self,
        pair: &mut Pair,
        watch: &Watch,
        table: &Comparison,
        groups: &[&[Key]],
        errand: Errand<'_>,
        limit: Duration,
    ) -> PgResult<Result<Vec<Look>, Stop>> {
        let Some(statement) = self.statement(&mut pair.follower, table).await? else { return Ok(Err(Stop::NotCarried)) };
        let mut sent = Vec::with_capacity(groups.len());
        for keys in groups {
            sent.push(self.send(&mut pair.authority, table, &statement, keys, errand).await?);
            if !self.is_useful() {
                return Ok(Err(Stop::NotCarried));
            }
        }
        let position = insert_position(&mut pair.authority).await?;
        let ids = sent.iter().flatten().map(|sent| sent.id.clone()).collect();
        let outcomes = match self.await_outcomes(&mut pair.follower, watch, ids, position, limit).await? {
            Ok(outcomes) => outcomes,
            Err(stop) => return Ok(Err(stop)),
        };
        let mut rows = rows(&mut pair.follower, table, &outcomes).await?;
        let looks = sent.into_iter().zip(groups).map(|(sent, keys)| {
            let Sent { id, authority, held } = sent?;
            match outcomes.get(&id) {
                Some(None) => Ok(Sight { authority, held, follower: in_order(keys.len(), &rows.remove(&id).unwrap_or_default()) }),
                Some(Some(why)) => Err(format!("the follower could not look at it: {why}")),
                None => Err("the follower did not say what it saw".to_owned()),
            }
        });
        Ok(Ok(looks.collect()))
    }

    /// Takes away what this verification has left at the follower, and what others did that ended before they could.
    pub(super) async fn tidy(&self, follower: &mut Session) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).len();
        if known == 0 {
            return;
        }
        let ours = format!("pg_catalog.starts_with(id, {})", literal(&format!("{}/", self.run)));
        let old = "made_at < pg_catalog.clock_timestamp() - interval '1 day'";
        let sql = format!(
            "DELETE FROM cutover.look_statement WHERE {ours} OR {old}; \
             DELETE FROM cutover.look_row WHERE {ours} OR id IN (SELECT id FROM cutover.look_outcome WHERE {old}); \
             DELETE FROM cutover.look_outcome WHERE {ours} OR {old}"
        );
        if let Err(error) = write(follower, "tidying up after looks", &sql).await {
            tracing::debug!(%error, "looks were not tidied up; the next verification does it");
        }
    }

    /// Makes the table's statement known at the follower, under this name; none where that is not possible.
    async fn statement(&self, follower: &mut Session, table: &Comparison) -> PgResult<Option<String>> {
        let id = format!("{}/{}", self.run, table.name);
        if !self.is_useful() {
            return Ok(None);
        }
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return Ok(Some(id));
        }
        let mend = if self.mends { mend::statements_literal(table) } else { "'{}'".to_owned() };
        let sql = format!(
            "INSERT INTO cutover.look_statement (id, look, mend) VALUES ({}, {}, {mend}) ON CONFLICT DO NOTHING",
            literal(&id),
            literal(&table.at(Role::Follower).states_of_lines())
        );
        match write(follower, "preparing a look", &sql).await {
            Ok(()) => {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                Ok(Some(id))
            }
            Err(error) => self.give_up(follower, error).await.map(|()| None),
        }
    }

    /// Locks and reads rows, and gives the look to the stream: one transaction.
    async fn send(
        &self,
        authority: &mut Session,
        table: &Comparison,
        statement: &str,
        keys: &[Key],
        errand: Errand<'_>,
    ) -> PgResult<Result<Sent, String>> {
        let id = format!("{}/{}", self.run, self.looks.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = begin(authority, table, &id, statement, keys, errand).await {
            if matches!(errand, Errand::Mend(_)) {
                roll_back(authority).await;
                return Ok(Err(table.refusal(&error).ok_or(error)?));
            }
            self.give_up(authority, error).await?;
            return Ok(Err("the stream does not carry looks".to_owned()));
        }
        match read_and_commit(authority, table, &id, keys, errand).await {
            Ok((authority, held)) => Ok(Ok(Sent { id, authority, held })),
            Err(error) => {
                roll_back(authority).await;
                Ok(Err(table.refusal(&error).ok_or(error)?))
            }
        }
    }

    /// Takes an error for the answer that looks can't be used, unless it is about the connection.
    async fn give_up(&self, session: &mut Session, error: PgError) -> PgResult<()> {
        roll_back(session).await;
        if error.is_disconnect() {
            return Err(error);
        }
        tracing::debug!(%error, "the stream carries no looks");
        self.useless.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for looks that end behind `position` to pass.
    async fn await_outcomes(
        &self,
        follower: &mut Session,
        watch: &Watch,
        ids: Vec<String>,
        position: Lsn,
        limit: Duration,
    ) -> PgResult<Result<Outcomes, Stop>> {
        let sql = "SELECT id, why FROM cutover.look_outcome WHERE id = ANY ($1::text[])".to_owned();
        let query = Query { sql, params: vec![Param::Texts(ids.clone())] };
        let deadline = Instant::now() + limit;
        loop {
            // First: what is applied by then has left its outcome.
            let wait = watch.look(position, deadline).await?;
            let rows = follower.query("looking for what the stream showed", &query).await?;
            if rows.len() == ids.len() {
                return Ok(Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()));
            }
            match wait {
                Some(Wait::Passed) => {
                    self.useless.store(true, Ordering::Relaxed);
                    return Ok(Err(Stop::NotCarried));
                }
                Some(Wait::Stalled(why)) => return Ok(Err(Stop::Stalled(why))),
                None => sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// Begins a look at the authority. The row that carries it goes with the transaction that brings it.
async fn begin(authority: &mut Session, table: &Comparison, id: &str, statement: &str, keys: &[Key], errand: Errand<'_>) -> PgResult<()> {
    // Should this process stop in the middle, the server ends the transaction by itself.
    let begin = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_LIMIT}'; SET LOCAL idle_in_transaction_session_timeout = '5s'");
    let (sql, look) = match errand {
        Errand::Skip | Errand::Await => (begin, table.at(Role::Authority).look(id, statement, keys)),
        Errand::Mend(mending) => {
            let carried = mend::carry(table, id, statement, keys, &mending.versions);
            (format!("{begin}; {}", gate::guard_sql(mending.epoch)), carried)
        }
    };
    authority.execute("beginning a look", &sql).await?;
    authority.query("beginning a look", &look).await.map(drop)
}

/// The rows that were locked, and which were held by others.
async fn read_and_commit(
    authority: &mut Session,
    table: &Comparison,
    id: &str,
    keys: &[Key],
    errand: Errand<'_>,
) -> PgResult<(States, Vec<bool>)> {
    let sql = table.at(Role::Authority);
    let lock = if matches!(errand, Errand::Skip) { " FOR SHARE OF t SKIP LOCKED" } else { " FOR SHARE OF t" };
    let rows = authority.query(&table.doing(), &sql.states(keys, lock)).await?;
    let locked = in_order(keys.len(), &rows);
    let mut held = vec![false; keys.len()];
    if locked.iter().any(Option::is_none) {
        // Not locked, and there: held by others, or inserted since.
        let rows = authority.query(&table.doing(), &sql.states(keys, "")).await?;
        let there = in_order(keys.len(), &rows);
        held = locked.iter().zip(&there).map(|(locked, there)| locked.is_none() && there.is_some()).collect();
    }
    authority.execute(&table.doing(), &format!("DELETE FROM cutover.look WHERE id = {}; COMMIT", literal(id))).await?;
    Ok((locked, held))
}

/// Takes the rows that looks have found, by look.
async fn rows(follower: &mut Session, table: &Comparison, outcomes: &Outcomes) -> PgResult<HashMap<String, Vec<Row>>> {
    let ids: Vec<String> = outcomes.keys().cloned().collect();
    let sql = "SELECT n, key, version, unclaimed, columns, shown, lengths, id FROM cutover.look_row WHERE id = ANY ($1::text[])".to_owned();
    let query = Query { sql, params: vec![Param::Texts(ids.clone())] };
    let mut found = HashMap::<String, Vec<Row>>::new();
    for row in follower.query(&table.doing(), &query).await? {
        found.entry(row.get(7)).or_default().push(row);
    }
    let ids = ids.iter().map(|id| literal(id)).collect::<Vec<_>>().join(", ");
    if !ids.is_empty() {
        let sql = format!("DELETE FROM cutover.look_row WHERE id IN ({ids}); DELETE FROM cutover.look_outcome WHERE id IN ({ids})");
        write(follower, "taking what the stream showed", &sql).await?;
    }
    Ok(found)
}

/// Nothing stays locked, whatever happened.
async fn roll_back(session: &mut Session) {
    if session.execute("unlocking rows", "ROLLBACK").await.is_err() {
        session.close();
    }
}

/// The follower's session only reads, unless it is told otherwise.
async fn write(follower: &mut Session, doing: &str, sql: &str) -> PgResult<()> {
    let written = follower.execute(doing, &format!("BEGIN READ WRITE; SET LOCAL synchronous_commit = off; {sql}; COMMIT")).await;
    if written.is_err() {
        roll_back(follower).await;
    }
    written
}
