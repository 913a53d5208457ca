//! Deciding about single rows while both sides move.
//!
//! Rows are looked at where the stream passes ([`in_stream`](mod@super::in_stream)). What is locked at the authority and
//! seen at the follower at the same point of the stream is **equal**, **missing** or **differs**, once and for all. Where
//! the authority has no row, and the follower shows one, it may have been inserted since the look at the authority. So
//! all transactions are waited for that may have committed by then ([`writers_done`]), and it is looked at once more: if
//! the authority has no row still, and the follower the same version, then no insert brought that version, for whatever
//! had taken it away at the authority would have taken it away at the follower: it is **extra**.
//!
//! Where the stream does not carry looks, and for rows that a long transaction holds, there are rounds. One looks at a
//! row four times: at the follower (f1), at the authority (a1), and, after the follower has applied the authority's
//! position behind a1, at the follower (f2) and the authority (a2) again. Then
//! - a1 and f2, or a2 and f2, are the same: **equal**.
//! - a1 and a2 are the same *version* of the row and no transaction claims it (`xmax` is 0, or we got a lock): the row
//!   did not change from before a1 until after f2, so f2 had to show it. If it did not: **missing**, or **differs**. The
//!   claim matters: the follower may show a commit that the authority does not show yet, but such a commit has set
//!   `xmax`, and keeps its lock until the authority shows it.
//! - a1 and a2 have no row, f1 and f2 have one in the same version, and every transaction that the authority may have
//!   committed before f1 was visible to a1: at a1's position the follower had a row that the authority had not: **extra**.
//!
//! Everything else is undecided, and another round follows; in the end it is *unsettled*.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Comparison, Key, Role, Shared,
    following::{Wait, Watch, insert_position},
    in_stream::{Carrier, Errand, Sight, Stop},
    judge::{Looks, RowState, Ruling, States, compare_still, in_order},
    report::{Difference, DifferenceKind, Findings, RowKey, Unsettled},
    session::{Pair, Param, Query, Session},
    values::values,
};
use crate::PgResult;

/// Rows looked at by one statement, or sent through the stream before it is waited for.
const BATCH: usize = 500;

/// Rows in succession that another transaction did not let go, before no more of them are waited for: who holds one
/// row for long often holds many.
const MOST_REFUSED: usize = 10;

/// How often rows that come and go are looked at in the stream.
const SURPLUS_LOOKS: usize = 10;

/// How long transactions under way get to end before they count as not yet committed.
const WRITERS_LIMIT: Duration = Duration::from_secs(1);

/// A row that differs.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) key: Key,
    /// The follower's version of a row that the authority has not.
    pub(super) extra_version: Option<String>,
}

/// Decides about the rows with these keys; those that differ.
pub(super) async fn settle(
    pair: &mut Pair,
    shared: &Shared<'_>,
    table: &Comparison,
    keys: &[Key],
    findings: &mut Findings,
) -> PgResult<Vec<Found>> {
    findings.rechecked_rows += keys.len() as u64;
    let mut settling = Settling { pair, shared, table, findings, seen: HashSet::new(), found: Vec::new() };
    for batch in keys.chunks(BATCH) {
        match &shared.watch {
            Some(watch) => settling.moving(watch, batch).await?,
            None => settling.still(batch).await?,
        }
    }
    Ok(settling.found)
}

struct Settling<'a> {
    pair: &'a mut Pair,
    shared: &'a Shared<'a>,
    table: &'a Comparison,
    findings: &'a mut Findings,
    /// Differing rows, by the authority's key: equal keys may be written differently on both sides.
    seen: HashSet<Key>,
    found: Vec<Found>,
}

/// What a look in the stream has left undecided.
#[derive(Default)]
struct Left {
    /// Rows that another transaction holds.
    held: Vec<Key>,
    /// Rows that only the follower has, with their version.
    surplus: HashMap<Key, String>,
    /// Rows that the stream did not carry a look for.
    uncarried: Vec<Key>,
}

impl Settling<'_> {
    async fn still(&mut self, keys: &[Key]) -> PgResult<()> {
        let authority = self.look(Role::Authority, keys).await?;
        let follower = self.look(Role::Follower, keys).await?;
        for ((key, authority), follower) in keys.iter().zip(authority).zip(follower) {
            self.record(key, authority.as_ref(), follower.as_ref(), compare_still(authority.as_ref(), follower.as_ref()));
        }
        Ok(())
    }

    async fn moving(&mut self, watch: &Watch, keys: &[Key]) -> PgResult<()> {
        let mut open = self.in_stream(watch, keys).await?;
        let rounds = self.shared.options.rechecks.max(1);
        for round in 1..=rounds {
            if open.is_empty() {
                return Ok(());
            }
            // Nearly all rows are decided in the first round, so only the others wait for writers under way.
            let exact = round >= rounds.min(2);
            match self.round(watch, &open, exact).await? {
                Ok(undecided) => open = undecided,
                Err(why) => {
                    self.give_up(&open, &why);
                    return Ok(());
                }
            }
        }
        self.give_up(&open, "other transactions hold it or change it all the time");
        Ok(())
    }

    /// Looks where the stream passes; the keys that are still undecided.
    async fn in_stream(&mut self, watch: &Watch, keys: &[Key]) -> PgResult<Vec<Key>> {
        let Left { held, mut surplus, uncarried: mut open } = self.look_in_stream(watch, keys, Errand::Skip, &HashMap::new()).await?;
        let mut refused = 0;
        for key in held {
            if refused == MOST_REFUSED {
                open.push(key);
                continue;
            }
            let left = self.look_in_stream(watch, &[key], Errand::Await, &HashMap::new()).await?;
            refused = if left.held.is_empty() { 0 } else { refused + 1 };
            surplus.extend(left.surplus);
            open.extend(left.held.into_iter().chain(left.uncarried));
        }
        for _ in 0..SURPLUS_LOOKS {
            if surplus.is_empty() || !writers_done(&mut self.pair.authority).await? {
                break;
            }
            let keys: Vec<Key> = surplus.keys().cloned().collect();
            let left = self.look_in_stream(watch, &keys, Errand::Await, &surplus).await?;
            surplus = left.surplus;
            open.extend(left.held.into_iter().chain(left.uncarried));
        }
        open.extend(surplus.into_keys());
        Ok(open)
    }

    /// Looks once where the stream passes. Before this look the follower had `surplus` rows that the authority had not,
    /// and every commit of that time is visible there now.
    async fn look_in_stream(&mut self, watch: &Watch, keys: &[Key], errand: Errand<'_>, surplus: &HashMap<Key, String>) -> PgResult<Left> {
        let groups: Vec<&[Key]> = keys.chunks(Carrier::rows_at_once(self.table)).collect();
        let limit = self.shared.options.patience * 10;
        let mut left = Left::default();
        match self.shared.carrier.look(self.pair, watch, self.table, &groups, errand, limit).await? {
            Ok(looks) => {
                for (keys, look) in groups.iter().zip(looks) {
                    match look {
                        Ok(sight) => self.rule(keys, sight, surplus, &mut left),
                        Err(why) => {
                            tracing::debug!(why, "a look in the stream saw nothing");
                            left.held.extend_from_slice(keys);
                        }
                    }
                }
            }
            Err(Stop::NotCarried) => left.uncarried = keys.to_vec(),
            Err(Stop::Stalled(why)) => self.give_up(keys, &why),
        }
        Ok(left)
    }

    fn rule(&mut self, keys: &[Key], sight: Sight, surplus: &HashMap<Key, String>, left: &mut Left) {
        let rows = sight.authority.into_iter().zip(sight.held).zip(sight.follower);
        for (key, ((authority, held), follower)) in keys.iter().zip(rows) {
            match (&authority, &follower) {
                _ if held => left.held.push(key.clone()),
                (None, Some(row)) if surplus.get(key) != Some(&row.version) => {
                    left.surplus.insert(key.clone(), row.version.clone());
                }
                _ => self.record(key, authority.as_ref(), follower.as_ref(), compare_still(authority.as_ref(), follower.as_ref())),
            }
        }
    }

    /// One round; the keys that are still undecided, or why the follower is not waited for.
    async fn round(&mut self, watch: &Watch, keys: &[Key], exact: bool) -> PgResult<Result<Vec<Key>, String>> {
        let mut looks = vec![Looks::default(); keys.len()];
        let before = self.look(Role::Follower, keys).await?;
        let writers_done = exact && before.iter().any(Option::is_some) && writers_done(&mut self.pair.authority).await?;
        let authority = self.look(Role::Authority, keys).await?;
        let position = insert_position(&mut self.pair.authority).await?;
        if let Wait::Stalled(why) = watch.wait_past(position, self.shared.options.patience * 10).await? {
            return Ok(Err(why));
        }
        let follower = self.look(Role::Follower, keys).await?;
        let after = self.look_after(keys, exact).await?;
        for (look, (((before, authority), follower), after)) in
            looks.iter_mut().zip(before.into_iter().zip(authority).zip(follower).zip(after))
        {
            *look = Looks { follower_before: before, authority, follower, authority_after: after, writers_done };
        }
        let mut undecided = Vec::new();
        for (key, look) in keys.iter().zip(&looks) {
            match look.judge() {
                Ruling::Undecided => undecided.push(key.clone()),
                ruling => self.record(key, look.authority.as_ref(), look.follower.as_ref(), ruling),
            }
        }
        Ok(Ok(undecided))
    }

    async fn look(&mut self, role: Role, keys: &[Key]) -> PgResult<States> {
        let rows = self.pair.at(role).query(&self.table.doing(), &self.table.at(role).states(keys, "")).await?;
        Ok(in_order(keys.len(), &rows))
    }

    /// The last look of a round. A lock that is long gone leaves its mark on a row, so an `exact` look takes one itself
    /// for a moment: nobody claims a row that we have locked.
    async fn look_after(&mut self, keys: &[Key], exact: bool) -> PgResult<States> {
        if !exact {
            return self.look(Role::Authority, keys).await;
        }
        let locking = self.table.at(Role::Authority).states(keys, " FOR SHARE OF t SKIP LOCKED");
        match self.pair.authority.query(&self.table.doing(), &locking).await {
            Ok(rows) => {
                let locked = in_order(keys.len(), &rows);
                if locked.iter().all(Option::is_some) {
                    return Ok(locked.into_iter().map(|state| state.map(|state| RowState { unclaimed: true, ..state })).collect());
                }
                // What others hold was left out, and is there all the same.
                let there = self.look(Role::Authority, keys).await?;
                let claim = |state: Option<RowState>, unclaimed| state.map(|state| RowState { unclaimed, ..state });
                Ok(locked.into_iter().zip(there).map(|(locked, there)| claim(locked, true).or(claim(there, false))).collect())
            }
            // We may not lock, or it is a standby.
            Err(error) if !error.is_disconnect() => self.look(Role::Authority, keys).await,
            Err(error) => Err(error),
        }
    }

    fn record(&mut self, key: &Key, authority: Option<&RowState>, follower: Option<&RowState>, ruling: Ruling) {
        let sql = self.table.at(Role::Authority);
        let values = values(&sql.columns, sql.shown.as_deref(), authority, follower, &ruling);
        let kind = match ruling {
            Ruling::Equal | Ruling::Undecided => return,
            Ruling::Missing => DifferenceKind::Missing,
            Ruling::Extra => DifferenceKind::Extra,
            Ruling::Differs(columns) => {
                DifferenceKind::Differs { columns: columns.iter().filter_map(|at| sql.columns.get(*at).cloned()).collect() }
            }
        };
        let key = authority.map_or(key, |row| &row.key);
        if self.seen.insert(key.clone()) {
            let extra_version = follower.filter(|_| kind == DifferenceKind::Extra).map(|row| row.version.clone());
            self.found.push(Found { key: key.clone(), extra_version });
            let row = RowKey(key.clone());
            self.findings.difference(Difference { table: self.table.name.clone(), key: self.table.named(key), row, kind, values });
        }
    }

    fn give_up(&mut self, keys: &[Key], why: &str) {
        for key in keys {
            self.findings.unsettled(Unsettled { table: self.table.name.clone(), key: self.table.named(key), why: why.to_owned() });
        }
    }
}

/// Waits until every transaction that the authority may have committed by now is visible there: a commit is in the log,
/// and may be at the follower, a moment before it is visible. Transactions that are still running after
/// [`WRITERS_LIMIT`] had not committed, unless one waits for a synchronous standby: then it can't be told.
pub(super) async fn writers_done(authority: &mut Session) -> PgResult<bool> {
    let began = Instant::now();
    let query = |sql: &str, params: Vec<Param>| Query { sql: sql.to_owned(), params };
    let mark = authority.query("marking transactions", &query("SELECT pg_catalog.pg_current_xact_id()::text", Vec::new())).await?;
    let mark: String = mark.first().map(|row| row.get(0)).unwrap_or_default();
    let running = query(
        "SELECT count(*) FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS x WHERE x < $1::text::xid8",
        vec![Param::Text(mark)],
    );
    while began.elapsed() < WRITERS_LIMIT {
        let rows = authority.query("watching transactions", &running).await?;
        if rows.first().is_some_and(|row| row.get::<_, i64>(0) == 0) {
            return Ok(true);
        }
        sleep(Duration::from_millis(5)).await;
    }
    let stuck = query("SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep')", Vec::new());
    let rows = authority.query("watching transactions", &stuck).await?;
    Ok(rows.first().is_some_and(|row| !row.get::<_, bool>(0)))
}
