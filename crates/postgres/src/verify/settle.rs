//! Deciding about single rows while both sides move.
//!
//! One round looks at a row four times: at the follower (f1), at the authority (a1), and, after the follower has applied
//! the authority's position behind a1, at the follower (f2) and the authority (a2) again. Then
//! - a1 and f2, or a2 and f2, are the same: **equal**.
//! - a1 and a2 are the same *version* of the row and no transaction claims it (`xmax` is 0): the row did not change
//!   from before a1 until after f2, so f2 had to show it. If it did not: **missing**, or **differs**. The claim matters:
//!   the follower may show a commit that the authority does not show yet, but such a commit has set `xmax`.
//! - a1 and a2 have no row, f1 and f2 have one in the same version, and every transaction that the authority may have
//!   committed before f1 was visible to a1 ([`writers_done`]): at a1's position the follower had a row that the authority
//!   had not: **extra**.
//!
//! Everything else is undecided, and another round follows. A row that changes all the time is at last locked at the
//! authority (FOR SHARE), in a transaction of a second at the most, and looked at once more while it stands still.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::{
    Comparison, Key, Role, Shared,
    following::{Wait, Watch, insert_position},
    report::{Difference, DifferenceKind, Findings, Unsettled},
    session::{Pair, Param, Query, Session},
};
use crate::PgResult;

/// Rows looked at by one statement.
const BATCH: usize = 500;

/// Rows locked at once.
const HELD: usize = 50;

/// The longest that rows of the application's stay locked. Unit: time for the follower to apply what is under way.
const HOLD_LIMIT: Duration = Duration::from_secs(1);

/// How long transactions under way get to end before they count as not yet committed.
const WRITERS_LIMIT: Duration = Duration::from_secs(1);

/// One row at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RowState {
    key: Key,
    version: String,
    /// No transaction has deleted, replaced or locked this version.
    unclaimed: bool,
    /// A hash per column.
    columns: Vec<i64>,
}

/// The row as it was seen four times.
#[derive(Clone, Debug, Default)]
struct Looks {
    follower_before: Option<RowState>,
    authority: Option<RowState>,
    follower: Option<RowState>,
    authority_after: Option<RowState>,
    /// Whether the authority's looks show everything that it committed before `follower_before`.
    writers_done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ruling {
    Equal,
    Missing,
    Extra,
    /// The numbers of the columns.
    Differs(Vec<usize>),
    Undecided,
}

impl Looks {
    fn judge(&self) -> Ruling {
        if same(&self.authority, &self.follower) || same(&self.authority_after, &self.follower) {
            return Ruling::Equal;
        }
        match (&self.authority, &self.authority_after) {
            (Some(before), Some(after)) if before.version == after.version && after.unclaimed => compare(before, self.follower.as_ref()),
            (None, None) if self.writers_done && same_version(&self.follower_before, &self.follower) => Ruling::Extra,
            _ => Ruling::Undecided,
        }
    }
}

/// What two rows that stand still say.
fn compare_still(authority: Option<&RowState>, follower: Option<&RowState>) -> Ruling {
    match (authority, follower) {
        (Some(authority), follower) => compare(authority, follower),
        (None, Some(_)) => Ruling::Extra,
        (None, None) => Ruling::Equal,
    }
}

fn compare(authority: &RowState, follower: Option<&RowState>) -> Ruling {
    let Some(follower) = follower else { return Ruling::Missing };
    let differing = authority.columns.iter().zip(&follower.columns).enumerate().filter(|(_, (one, other))| one != other);
    let differing: Vec<usize> = differing.map(|(at, _)| at).collect();
    if differing.is_empty() { Ruling::Equal } else { Ruling::Differs(differing) }
}

fn same(one: &Option<RowState>, other: &Option<RowState>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.columns == other.columns,
        (None, None) => true,
        _ => false,
    }
}

fn same_version(one: &Option<RowState>, other: &Option<RowState>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.version == other.version)
}

/// Decides about the rows with these keys.
pub(super) async fn settle(
    pair: &mut Pair,
    shared: &Shared<'_>,
    table: &Comparison,
    keys: &[Key],
    findings: &mut Findings,
) -> PgResult<()> {
    findings.rechecked_rows += keys.len() as u64;
    let mut settling = Settling { pair, shared, table, findings, seen: HashSet::new() };
    for batch in keys.chunks(BATCH) {
        match &shared.watch {
            Some(watch) => settling.moving(watch, batch).await?,
            None => settling.still(batch).await?,
        }
    }
    Ok(())
}

struct Settling<'a> {
    pair: &'a mut Pair,
    shared: &'a Shared<'a>,
    table: &'a Comparison,
    findings: &'a mut Findings,
    /// Differing rows, by the authority's key: equal keys may be written differently on both sides.
    seen: HashSet<Key>,
}

impl Settling<'_> {
    async fn still(&mut self, keys: &[Key]) -> PgResult<()> {
        let authority = self.look(Role::Authority, keys, false).await?;
        let follower = self.look(Role::Follower, keys, false).await?;
        for ((key, authority), follower) in keys.iter().zip(authority).zip(follower) {
            let ruling = compare_still(authority.as_ref(), follower.as_ref());
            self.record(key, authority.as_ref(), ruling);
        }
        Ok(())
    }

    async fn moving(&mut self, watch: &Watch, keys: &[Key]) -> PgResult<()> {
        let rounds = self.shared.options.rechecks.max(1);
        let mut open = keys.to_vec();
        for round in 1..=rounds {
            if open.is_empty() {
                return Ok(());
            }
            // Nearly all rows are decided in the first round, so only the others wait for writers under way.
            let exact = round >= rounds.min(2);
            match self.round(watch, &open, exact).await? {
                Ok(undecided) => open = undecided,
                Err(why) => return self.give_up(&open, &why),
            }
        }
        for group in open.chunks(HELD) {
            self.held(watch, group).await?;
        }
        Ok(())
    }

    /// One round; the keys that are still undecided, or why the follower is not waited for.
    async fn round(&mut self, watch: &Watch, keys: &[Key], exact: bool) -> PgResult<Result<Vec<Key>, String>> {
        let mut looks = vec![Looks::default(); keys.len()];
        let before = self.look(Role::Follower, keys, false).await?;
        let writers_done = exact && before.iter().any(Option::is_some) && writers_done(&mut self.pair.authority).await?;
        let authority = self.look(Role::Authority, keys, false).await?;
        let position = insert_position(&mut self.pair.authority).await?;
        if let Wait::Stalled(why) = watch.wait_past(position, self.shared.options.patience * 10).await? {
            return Ok(Err(why));
        }
        let follower = self.look(Role::Follower, keys, false).await?;
        let after = self.look(Role::Authority, keys, false).await?;
        for (look, (((before, authority), follower), after)) in
            looks.iter_mut().zip(before.into_iter().zip(authority).zip(follower).zip(after))
        {
            *look = Looks { follower_before: before, authority, follower, authority_after: after, writers_done };
        }
        let mut undecided = Vec::new();
        for (key, look) in keys.iter().zip(&looks) {
            match look.judge() {
                Ruling::Undecided => undecided.push(key.clone()),
                ruling => self.record(key, look.authority.as_ref(), ruling),
            }
        }
        Ok(Ok(undecided))
    }

    /// The last look: rows locked together, or one by one where another transaction holds one of them.
    async fn held(&mut self, watch: &Watch, keys: &[Key]) -> PgResult<()> {
        let Err(why) = self.hold(watch, keys).await? else { return Ok(()) };
        if let [_] = keys {
            return self.give_up(keys, &why);
        }
        for key in keys {
            let key = std::slice::from_ref(key);
            if let Err(why) = self.hold(watch, key).await? {
                self.give_up(key, &why)?;
            }
        }
        Ok(())
    }

    /// Compares rows while they are locked at the authority; says why it could not.
    async fn hold(&mut self, watch: &Watch, keys: &[Key]) -> PgResult<Result<(), String>> {
        // Not behind when the rows are locked, so that they need not be locked for long.
        let position = insert_position(&mut self.pair.authority).await?;
        if let Wait::Stalled(why) = watch.wait_past(position, self.shared.options.patience * 10).await? {
            return Ok(Err(why));
        }
        let looked = self.look_held(watch, keys).await;
        // Also on an error: whatever happened, nothing stays locked.
        if looked.is_err() || self.pair.authority.execute("unlocking rows", "ROLLBACK").await.is_err() {
            self.pair.authority.close();
        }
        match looked {
            Ok(Ok((authority, follower))) => {
                for ((key, authority), follower) in keys.iter().zip(authority).zip(follower) {
                    match compare_still(authority.as_ref(), follower.as_ref()) {
                        // There was no row to lock, so one may have come and gone.
                        Ruling::Extra => self.unsettled(key, "it is at the follower, and comes and goes at the authority"),
                        ruling => self.record(key, authority.as_ref(), ruling),
                    }
                }
                Ok(Ok(()))
            }
            Ok(Err(why)) => Ok(Err(why)),
            Err(error) => Ok(Err(self.table.refusal(&error).ok_or(error)?)),
        }
    }

    async fn look_held(&mut self, watch: &Watch, keys: &[Key]) -> PgResult<Result<(States, States), String>> {
        // Should this process stop in the middle, the server ends the transaction by itself.
        let begin = "BEGIN; SET LOCAL lock_timeout = '200ms'; SET LOCAL idle_in_transaction_session_timeout = '5s'";
        self.pair.authority.execute("locking rows", begin).await?;
        let authority = self.look(Role::Authority, keys, true).await?;
        let position = insert_position(&mut self.pair.authority).await?;
        if let Wait::Stalled(why) = watch.wait_past(position, HOLD_LIMIT).await? {
            return Ok(Err(why));
        }
        let follower = self.look(Role::Follower, keys, false).await?;
        Ok(Ok((authority, follower)))
    }

    async fn look(&mut self, role: Role, keys: &[Key], lock: bool) -> PgResult<States> {
        let rows = self.pair.at(role).query(&self.table.doing(), &self.table.at(role).states(keys, lock)).await?;
        let mut states = vec![None; keys.len()];
        for row in &rows {
            if let Some(state) = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|at| states.get_mut(at)) {
                *state = Some(row_state(row));
            }
        }
        Ok(states)
    }

    fn record(&mut self, key: &Key, authority: Option<&RowState>, ruling: Ruling) {
        let kind = match ruling {
            Ruling::Equal | Ruling::Undecided => return,
            Ruling::Missing => DifferenceKind::Missing,
            Ruling::Extra => DifferenceKind::Extra,
            Ruling::Differs(columns) => {
                let names = &self.table.at(Role::Authority).columns;
                DifferenceKind::Differs { columns: columns.iter().filter_map(|at| names.get(*at).cloned()).collect() }
            }
        };
        let key = authority.map_or(key, |row| &row.key);
        if self.seen.insert(key.clone()) {
            self.findings.difference(Difference { table: self.table.name.clone(), key: self.table.named(key), kind });
        }
    }

    fn give_up(&mut self, keys: &[Key], why: &str) -> PgResult<()> {
        keys.iter().for_each(|key| self.unsettled(key, why));
        Ok(())
    }

    fn unsettled(&mut self, key: &Key, why: &str) {
        self.findings.unsettled(Unsettled { table: self.table.name.clone(), key: self.table.named(key), why: why.to_owned() });
    }
}

/// Rows in the order of the keys that were asked for.
type States = Vec<Option<RowState>>;

fn row_state(row: &Row) -> RowState {
    RowState { key: row.get(1), version: row.get(2), unclaimed: row.get(3), columns: row.get(4) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: &str, value: i64) -> Option<RowState> {
        Some(RowState { key: vec!["1".to_owned()], version: version.to_owned(), unclaimed: true, columns: vec![1, value] })
    }

    fn claimed(version: &str, value: i64) -> Option<RowState> {
        row(version, value).map(|state| RowState { unclaimed: false, ..state })
    }

    fn judge(f1: Option<RowState>, a1: Option<RowState>, f2: Option<RowState>, a2: Option<RowState>) -> Ruling {
        Looks { follower_before: f1, authority: a1, follower: f2, authority_after: a2, writers_done: true }.judge()
    }

    #[test]
    fn a_row_that_stood_still_at_the_authority_is_decided() {
        assert_eq!(judge(None, row("a", 5), row("x", 5), row("a", 5)), Ruling::Equal);
        assert_eq!(judge(row("x", 4), row("a", 5), row("x", 4), row("a", 5)), Ruling::Differs(vec![1]));
        assert_eq!(judge(None, row("a", 5), None, row("a", 5)), Ruling::Missing);
    }

    #[test]
    fn a_row_that_moved_is_not() {
        // Replaced between the looks, and the follower is ahead of the first and behind the second.
        assert_eq!(judge(row("x", 4), row("a", 5), row("y", 6), row("b", 7)), Ruling::Undecided);
        // The follower shows a commit that the authority does not show yet, but has claimed the row for.
        assert_eq!(judge(row("x", 5), row("a", 5), row("y", 6), claimed("a", 5)), Ruling::Undecided);
        assert_eq!(judge(row("x", 5), row("a", 5), None, claimed("a", 5)), Ruling::Undecided);
        // Inserted at the authority after the first look.
        assert_eq!(judge(None, None, row("x", 5), None), Ruling::Undecided);
        assert_eq!(judge(row("w", 5), None, row("x", 5), None), Ruling::Undecided);
    }

    #[test]
    fn a_row_is_extra_only_once_all_writers_are_visible() {
        assert_eq!(judge(row("x", 5), None, row("x", 5), None), Ruling::Extra);
        let looks = Looks { follower_before: row("x", 5), follower: row("x", 5), ..Looks::default() };
        assert_eq!(looks.judge(), Ruling::Undecided);
    }
}
