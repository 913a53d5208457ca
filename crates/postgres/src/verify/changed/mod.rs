//! The rows that change while a switch is prepared, compared until the last of them, inside the pause.
//!
//! Keys are gathered from a temporary slot of our own, by the stream's publication (`gathering.rs`, `keys.rs`): a
//! replication connection that decodes as it goes, so that the pause waits for its last milliseconds only. The slot is
//! a copy of the stream's: everything that the follower may not have applied when we began is in it.
//!
//! Before the pause, in rounds ([`Changes::settle`]): all keys gathered so far are looked up at both sides, after the
//! follower has passed them. What is the same is done with, for now: should it change again, it is gathered again. What
//! is not the same is either moving, and then gathered again, or different: a row that differs, whose writers
//! are all visible at the authority and which nobody has touched until after the look, stays different.
//!
//! In the pause ([`Changes::compare`]): what is left, and what the stream carried up to the marker, is looked up once.
//! Both sides stand still, so that one look decides.

mod gathering;
mod keys;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cutover_core::{Lsn, Side, Stream, plan::DatabaseUrl};
use tokio::time::{Instant, sleep};

use self::{
    gathering::Gathering,
    keys::{Changed, ChangedTables, Whole, amount, merge},
};
use super::{
    Comparison, Difference, Following, Key, Method, Options, Progress, Remark, Role, Shared, Sides, Unsettled,
    following::{Wait, Watch, insert_position},
    in_stream::Carrier,
    report::Findings,
    scope::Scope,
    session::{Pair, Param, Query, Session},
    settle::settle,
    verify,
};
use crate::{
    PgError, PgResult,
    catalogue::QualifiedName,
    limit::{Limiter, Limits},
    names::Names,
    replication::{Source, sql_copy},
};

/// How much may be left for the pause. More keys than this, and it does not begin, or is undone.
pub const MOST_IN_PAUSE: usize = 5_000;

/// A round that leaves no more than this is the last: the next would not leave less.
const FEW: usize = 200;

/// Rounds before the pause, at most.
const MOST_ROUNDS: u32 = 8;

/// Keys looked up by one statement.
const LOOKUP_KEYS: usize = 1000;

/// The largest table that is compared as a whole inside the pause. Unit: bytes.
const WHOLE_IN_PAUSE_BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// Between two questions for transactions that are not visible yet.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Makes the temporary slot from which it is read which rows a stream's origin changes.
#[must_use]
pub fn sql_watch(names: &Names, stream: Stream) -> String {
    sql_copy(&names.slot(stream), &names.changed_slot())
}

/// What was compared, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows that had changed and were looked up by their keys. Unit: keys.
    pub keys: u64,
    /// Tables that were compared as a whole, because they were emptied or have no key.
    pub tables: u64,
    /// The differences, at most [`Options::max_differences`].
    pub differences: Vec<Difference>,
    /// How many there are in all.
    pub differences_total: u64,
    /// What could not be established.
    pub unsettled: Vec<Unsettled>,
    /// Tables that changed and can't be compared inside a pause, and why.
    pub unchecked: Vec<Remark>,
}

/// The rows that change from now on.
pub struct Changes {
    stream: Stream,
    names: Names,
    authority: DatabaseUrl,
    follower: DatabaseUrl,
    side: Side,
    following: Following,
    options: Options,
    progress: Progress,
    pair: Pair,
    watch: Watch,
    tables: HashMap<QualifiedName, Arc<Comparison>>,
    gathering: Gathering,
    /// What was gathered and is not known to be the same.
    open: ChangedTables,
    /// Of that, what was not the same at the last look.
    suspects: KeysByTable,
    /// The transactions that it is from, as far as they were not seen to be visible.
    unseen: Vec<i64>,
}

/// Keys, by the table that the stream names.
type KeysByTable = BTreeMap<QualifiedName, Vec<Key>>;

impl Changes {
    /// Begins to gather the keys of rows that change, with those that the follower may not have applied yet. It takes a
    /// replication slot and a WAL sender at the authority, which are free again when this is dropped.
    ///
    /// # Errors
    /// [`PgError::Connect`], and the server's answer: also that no slot or no WAL sender is free.
    pub async fn begin(sides: &Sides<'_>, names: &Names, stream: Stream, options: &Options) -> PgResult<Self> {
        let application = names.application("changed");
        let following = Following::stream(names, stream);
        let mut pair = Pair::new(sides.authority, sides.follower, &application);
        let sides = Sides { following: Some(following.clone()), ..sides.clone() };
        let scope = Scope::read(&mut pair, &sides, options).await?;
        let mut tables: HashMap<_, _> = scope.comparisons.into_iter().map(|table| (table.name.clone(), Arc::new(table))).collect();
        for (part, whole) in scope.parts {
            if let Some(table) = tables.get(&whole).cloned() {
                tables.entry(part).or_insert(table);
            }
        }
        let source = Source {
            url: sides.authority,
            application: &application,
            like: &following.slot,
            slot: &names.changed_slot(),
            publication: &names.publication(stream),
        };
        let keys = tables.iter().map(|(name, table)| (name.clone(), table.key.clone())).collect();
        let gathering = Gathering::start(&source, keys).await?;
        let watch = Watch::new(&following, Session::new(Role::Authority, sides.authority, &application), options.patience);
        Ok(Self {
            stream,
            names: names.clone(),
            authority: sides.authority.clone(),
            follower: sides.follower.clone(),
            side: sides.authority_side,
            following,
            options: options.clone(),
            progress: Progress::default(),
            pair,
            watch,
            tables,
            gathering,
            open: ChangedTables::new(),
            suspects: KeysByTable::new(),
            unseen: Vec::new(),
        })
    }

    /// Whether this is about that stream and still gathers.
    #[must_use]
    pub fn follows(&self, stream: Stream) -> bool {
        self.stream == stream && self.gathering.ended().is_none()
    }

    /// Compares what has changed so far, while both sides move, until little is left for the pause.
    ///
    /// # Errors
    /// [`PgError::TimedOut`] where too much changes to leave little, or the follower does not keep up; what
    /// [`verify`](super::verify()) returns.
    pub async fn settle(&mut self, deadline: Instant) -> PgResult<Compared> {
        let began = Instant::now();
        let mut compared = Compared::default();
        for round in 1..=MOST_ROUNDS {
            let suspects = std::mem::take(&mut self.suspects);
            self.gather(deadline).await?;
            self.convict(suspects, &mut compared).await?;
            if compared.differences_total > 0 || !compared.unsettled.is_empty() {
                return Ok(compared);
            }
            self.round(&mut compared, deadline).await?;
            let (keys, whole) = self.gathering.gathered().amount();
            // What differs is looked at again at least once, so that a difference is found before anything is held.
            let looked_twice = round > 1 || self.open.is_empty();
            if looked_twice && !whole && keys + amount(&self.open) <= FEW {
                break;
            }
        }
        let left = amount(&self.open) + self.gathering.gathered().amount().0;
        if left > MOST_IN_PAUSE {
            return Err(too_many(left, began));
        }
        Ok(compared)
    }

    /// Compares what is left, up to a marker that both sides hold, while both stand still.
    ///
    /// # Errors
    /// [`PgError::TimedOut`] where more is left than fits into a pause; the server's answer.
    pub async fn compare(&mut self, marker: &str, deadline: Instant) -> PgResult<Compared> {
        let began = Instant::now();
        self.gathering.await_marker(marker, deadline).await?;
        let (gathered, _) = self.gathering.gathered().take();
        merge(&mut self.open, gathered);
        let left = amount(&self.open);
        if left > MOST_IN_PAUSE || self.open.values().any(|changed| changed.whole == Some(Whole::TooMany)) {
            return Err(too_many(left, began));
        }
        let mut compared = Compared::default();
        let mut whole = Vec::new();
        for (name, changed) in &self.open {
            if changed.whole.is_none() {
                continue;
            }
            match self.tables.get(name) {
                Some(table) if table.bytes <= WHOLE_IN_PAUSE_BYTES => whole.push(table.name.clone()),
                _ => compared.unchecked.push(self.unchecked(name, changed)),
            }
        }
        let differing = self.look(&self.keys(), &mut compared).await?;
        self.name_differences(differing, None, &mut compared).await?;
        self.compare_whole(whole, false, &mut compared).await?;
        if compared.differences_total == 0 && compared.unsettled.is_empty() {
            self.open.clear();
            self.suspects.clear();
        }
        Ok(compared)
    }

    /// Waits until everything is gathered that is committed by now.
    async fn gather(&mut self, deadline: Instant) -> PgResult<()> {
        // Its commit moves the log past everything, and is flushed.
        let sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'cutover', 'changed')::text".to_owned();
        let rows = self.pair.authority.query("marking the log", &Query { sql, params: Vec::new() }).await?;
        let text: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
        let position: Lsn = text.parse().map_err(|error| PgError::Mismatch(format!("the log position: {error}")))?;
        self.gathering.await_position(position, deadline).await
    }

    /// Of rows that differed, those that nobody has touched since are different.
    async fn convict(&mut self, suspects: KeysByTable, compared: &mut Compared) -> PgResult<()> {
        let mut still = suspects;
        {
            let gathered = self.gathering.gathered();
            for (name, keys) in &mut still {
                keys.retain(|key| !gathered.has(name, key));
            }
        }
        still.retain(|_, keys| !keys.is_empty());
        let following = self.following.clone();
        self.name_differences(still, Some(&following), compared).await
    }

    /// Looks up everything that was gathered; what is the same on both sides is no longer open.
    async fn round(&mut self, compared: &mut Compared, deadline: Instant) -> PgResult<()> {
        let (gathered, transactions) = self.gathering.gathered().take();
        merge(&mut self.open, gathered);
        self.unseen.extend(transactions);
        if self.open.is_empty() {
            return Ok(());
        }
        let position = insert_position(&mut self.pair.authority).await?;
        let limit = deadline.saturating_duration_since(Instant::now());
        if let Wait::Stalled(why) = self.watch.wait_past(position, limit).await? {
            return Err(PgError::TimedOut { doing: format!("verifying what changes before the pause ({why})"), limit });
        }
        if !self.visible(deadline).await? {
            return Ok(());
        }
        let open = self.keys();
        let whole = self.open.iter().filter(|(_, changed)| changed.whole.is_some());
        let whole: Vec<QualifiedName> = whole
            .filter_map(|(name, _)| self.tables.get(name))
            .filter(|table| table.method != Method::Multiset)
            .map(|table| table.name.clone())
            .collect();
        let differing = self.look(&open, compared).await?;
        self.compare_whole(whole, true, compared).await?;
        let tables = &self.tables;
        self.open.retain(|name, changed| {
            let table = tables.get(name);
            let left = differing.get(name);
            changed.keys.retain(|key| left.is_some_and(|left| left.contains(key)));
            // A table without a key is left to the pause.
            changed.whole = changed.whole.filter(|_| table.is_none_or(|table| table.method == Method::Multiset));
            !changed.keys.is_empty() || changed.whole.is_some()
        });
        self.suspects = differing;
        Ok(())
    }

    /// Waits until the transactions that changed what is open are visible at the authority: each was in the log a moment
    /// before.
    async fn visible(&mut self, deadline: Instant) -> PgResult<bool> {
        let sql = "SELECT count(*) FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS x \
             WHERE (x::text::numeric % 4294967296)::bigint = ANY ($1::bigint[])";
        let query = Query { sql: sql.to_owned(), params: vec![Param::Numbers(self.unseen.clone())] };
        let until = deadline.min(Instant::now() + Duration::from_secs(1));
        while Instant::now() < until {
            let rows = self.pair.authority.query("watching transactions", &query).await?;
            if rows.first().is_some_and(|row| row.get::<_, i64>(0) == 0) {
                self.unseen.clear();
                return Ok(true);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// The keys that are open, of each compared table.
    fn keys(&self) -> Vec<(QualifiedName, Arc<Comparison>, Vec<Key>)> {
        let open = self.open.iter().filter(|(_, changed)| !changed.keys.is_empty());
        let known = open.filter_map(|(name, changed)| Some((name, self.tables.get(name)?, changed)));
        known.map(|(name, table, changed)| (name.clone(), Arc::clone(table), changed.keys.iter().cloned().collect())).collect()
    }

    /// Looks keys up at both sides; answers with those whose rows are not the same.
    async fn look(&mut self, tables: &[(QualifiedName, Arc<Comparison>, Vec<Key>)], compared: &mut Compared) -> PgResult<KeysByTable> {
        let mut differing = KeysByTable::new();
        for (name, table, keys) in tables {
            for keys in keys.chunks(LOOKUP_KEYS) {
                let [authority, follower] = &table.sides;
                let queries = (authority.lookup(keys), follower.lookup(keys));
                let (here, there) = self.pair.ask(&table.doing(), &queries.0, &queries.1).await?;
                let row = |row: &tokio_postgres::Row| (row.get::<_, i64>(0), [row.get::<_, i64>(1), row.get(2)]);
                let (here, there): (HashMap<_, _>, HashMap<_, _>) = (here.iter().map(row).collect(), there.iter().map(row).collect());
                let differ = (1..).zip(keys).filter(|(number, _)| here.get(number) != there.get(number)).map(|(_, key)| key.clone());
                differing.entry(name.clone()).or_default().extend(differ);
                compared.keys += keys.len() as u64;
            }
        }
        differing.retain(|_, keys| !keys.is_empty());
        Ok(differing)
    }

    /// Says of rows that differ how they do, by the verification's own way.
    async fn name_differences(&mut self, differing: KeysByTable, following: Option<&Following>, compared: &mut Compared) -> PgResult<()> {
        if differing.is_empty() {
            return Ok(());
        }
        let session = || Session::new(Role::Authority, &self.authority, &self.names.application("changed"));
        let watch = following.map(|following| Watch::new(following, session(), self.options.patience));
        let findings = Mutex::new(Findings::keeping(self.options.max_differences));
        let limiter = Arc::new(Limiter::of_verification(Limits::default()));
        let shared = Shared { watch, carrier: Carrier::new(), options: &self.options, progress: &self.progress, findings, limiter };
        let mut findings = shared.findings();
        for (name, keys) in differing {
            if let Some(table) = self.tables.get(&name) {
                settle(&mut self.pair, &shared, table, &keys, &mut findings).await?;
            }
        }
        if following.is_some() {
            shared.carrier.tidy(&mut self.pair.follower).await;
        }
        shared.merge(findings);
        let findings = shared.findings.into_inner().unwrap_or_else(PoisonError::into_inner);
        compared.differences_total += findings.differences_total;
        compared.differences.extend(findings.differences);
        compared.unsettled.extend(findings.unsettled);
        Ok(())
    }

    /// Compares whole tables, as a verification does.
    async fn compare_whole(&self, tables: Vec<QualifiedName>, moving: bool, compared: &mut Compared) -> PgResult<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let sides = Sides {
            authority: &self.authority,
            follower: &self.follower,
            authority_side: self.side,
            following: moving.then(|| self.following.clone()),
        };
        compared.tables += tables.len() as u64;
        let options = Options { tables: Some(tables), limits: Limits::default(), ..self.options.clone() };
        let report = verify(&sides, &self.names, &options, &self.progress).await?;
        compared.differences_total += report.differences_total;
        compared.differences.extend(report.differences);
        compared.unsettled.extend(report.unsettled);
        Ok(())
    }

    fn unchecked(&self, name: &QualifiedName, changed: &Changed) -> Remark {
        let why = match (self.tables.contains_key(name), changed.whole) {
            (false, _) => "it is not compared at all",
            (true, Some(Whole::Truncated)) => "it was emptied, and is too large to be compared as a whole in the pause",
            _ => {
                "its changed rows have no key by which they could be looked up, and it is too large to be compared as a whole in the pause"
            }
        };
        Remark { table: name.clone(), why: why.to_owned() }
    }
}

fn too_many(left: usize, began: Instant) -> PgError {
    let doing = format!("verifying the rows that change (more than {left} are left, and {MOST_IN_PAUSE} fit into a pause)");
    PgError::TimedOut { doing, limit: began.elapsed() }
}
