//! Tables without a key: how often each different row is there.
//!
//! One scan of each side sums the rows up in buckets by their hash; only the buckets that differ are counted row by row.
//! A scan of a whole table is one statement and holds back VACUUM for as long as it takes; without a key there is no
//! other way to read a table in parts that stay put.
//!
//! While both sides move, a row's counts are decided as in [`settle`](mod@super::settle), with the set of the versions in
//! which it exists in the place of one version. Nothing is locked here: a row that comes and goes all the time stays
//! unsettled.

use std::{collections::HashMap, time::Duration};

use tokio_postgres::Row;

use super::{
    Comparison, Role, Shared,
    following::{Wait, Watch, insert_position},
    report::{Difference, DifferenceKind, Findings, RowKey, Unsettled},
    session::{Pair, STATEMENT_LIMIT},
    settle::writers_done,
};
use crate::PgResult;

/// The most buckets that a scan sums up.
const MOST_BUCKETS: f64 = 65_536.0;

/// The slowest that a server may read. Unit: bytes per second.
const SLOWEST_SCAN: f64 = 1024.0 * 1024.0;

/// The smallest that a row is on disk. Unit: bytes.
const SMALLEST_ROW: f64 = 28.0;

/// The two hashes of a row.
type RowHash = (i64, i64);

/// Compares a whole table.
pub(super) async fn compare(pair: &mut Pair, shared: &Shared<'_>, table: &Comparison) -> PgResult<Findings> {
    let scan = Duration::from_secs_f64(table.bytes / SLOWEST_SCAN) + 2 * STATEMENT_LIMIT;
    pair.authority.allow(scan).await?;
    pair.follower.allow(scan).await?;
    let findings = scan_and_settle(pair, shared, table).await;
    // Also after an error: what comes next on this connection is a chunk.
    pair.authority.allow(STATEMENT_LIMIT).await?;
    pair.follower.allow(STATEMENT_LIMIT).await?;
    findings
}

async fn scan_and_settle(pair: &mut Pair, shared: &Shared<'_>, table: &Comparison) -> PgResult<Findings> {
    let mut findings = shared.findings();
    let mask = bucket_mask(table);
    let [authority, follower] = &table.sides;
    let (authority, follower) = pair.ask(&table.doing(), &authority.buckets(mask), &follower.buckets(mask)).await?;
    findings.rows = authority.iter().map(|row| u64::try_from(row.get::<_, i64>(1)).unwrap_or(0)).sum();
    findings.chunks = authority.len() as u64;
    let mut batches = differing_buckets(&authority, &follower, i64::from(table.chunk_rows) * 2).into_iter();
    for buckets in batches.by_ref() {
        let candidates = candidates(pair, table, mask, buckets).await?;
        Counting { pair, shared, table, findings: &mut findings }.settle(candidates).await?;
        if findings.is_full() {
            break;
        }
    }
    // Each batch takes a scan: once there is enough to report, the rest is only said to be there.
    let rest: usize = batches.map(|buckets| buckets.len()).sum();
    if rest > 0 {
        findings.unsettled(table.unsettled(format!("{rest} more groups of rows differ and were not looked into")));
    }
    Ok(findings)
}

/// As many buckets as make a few hundred rows each.
fn bucket_mask(table: &Comparison) -> i64 {
    let rows = table.estimated_rows.max(table.bytes / SMALLEST_ROW);
    let buckets = (rows / (f64::from(table.chunk_rows) / 16.0).max(1.0)).clamp(1.0, MOST_BUCKETS);
    (buckets as u64).next_power_of_two().saturating_sub(1).cast_signed()
}

/// The buckets whose sums differ, in batches of no more than `most` rows, unless one bucket alone has more.
fn differing_buckets(authority: &[Row], follower: &[Row], most: i64) -> Vec<Vec<i64>> {
    let sums = |row: &Row| (row.get::<_, i64>(1), row.get::<_, String>(2), row.get::<_, String>(3));
    let mut at_authority: HashMap<i64, _> = authority.iter().map(|row| (row.get::<_, i64>(0), sums(row))).collect();
    let mut differing = Vec::new();
    for row in follower {
        let (bucket, sums) = (row.get::<_, i64>(0), sums(row));
        let there = at_authority.remove(&bucket);
        if there.as_ref() != Some(&sums) {
            differing.push((bucket, there.map_or(0, |there| there.0).max(sums.0)));
        }
    }
    differing.extend(at_authority.into_iter().map(|(bucket, sums)| (bucket, sums.0)));
    in_batches(differing, most)
}

fn in_batches(mut buckets: Vec<(i64, i64)>, most: i64) -> Vec<Vec<i64>> {
    buckets.sort_unstable();
    let mut batches: Vec<Vec<i64>> = Vec::new();
    let mut room = 0;
    for (bucket, rows) in buckets {
        match batches.last_mut() {
            Some(batch) if rows <= room => batch.push(bucket),
            _ => {
                batches.push(vec![bucket]);
                room = most;
            }
        }
        room -= rows;
    }
    batches
}

/// The rows of these buckets that are not there equally often.
async fn candidates(pair: &mut Pair, table: &Comparison, mask: i64, buckets: Vec<i64>) -> PgResult<Vec<RowHash>> {
    let [authority, follower] = &table.sides;
    let queries = (authority.groups(mask, buckets.clone()), follower.groups(mask, buckets));
    let (authority, follower) = pair.ask(&table.doing(), &queries.0, &queries.1).await?;
    let counted = |row: &Row| ((row.get::<_, i64>(0), row.get::<_, i64>(1)), row.get::<_, i64>(2));
    let mut at_authority: HashMap<RowHash, i64> = authority.iter().map(counted).collect();
    let mut differing = Vec::new();
    for (hash, count) in follower.iter().map(counted) {
        if at_authority.remove(&hash) != Some(count) {
            differing.push(hash);
        }
    }
    differing.extend(at_authority.into_keys());
    Ok(differing)
}

/// How often a row is there, and in which versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Count {
    rows: i64,
    versions: String,
    unclaimed: bool,
}

type Counts = HashMap<RowHash, Count>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ruling {
    Equal,
    Different { authority: i64, follower: i64 },
    Undecided,
}

/// A row's counts as they were seen four times; see [`settle`](mod@super::settle).
fn judge(follower_before: &Count, authority: &Count, follower: &Count, authority_after: &Count, writers_done: bool) -> Ruling {
    if authority.rows == follower.rows || authority_after.rows == follower.rows {
        return Ruling::Equal;
    }
    let stood_still = authority.versions == authority_after.versions;
    let too_few = follower.rows < authority.rows && authority_after.unclaimed;
    let too_many = follower.rows > authority.rows && writers_done && follower_before.versions == follower.versions;
    if stood_still && (too_few || too_many) {
        Ruling::Different { authority: authority.rows, follower: follower.rows }
    } else {
        Ruling::Undecided
    }
}

struct Counting<'a> {
    pair: &'a mut Pair,
    shared: &'a Shared<'a>,
    table: &'a Comparison,
    findings: &'a mut Findings,
}

impl Counting<'_> {
    async fn settle(&mut self, mut open: Vec<RowHash>) -> PgResult<()> {
        self.findings.rechecked_rows += open.len() as u64;
        open.sort_unstable();
        let Some(watch) = &self.shared.watch else { return self.still(&open).await };
        let rounds = self.shared.options.rechecks.max(1);
        for round in 1..=rounds {
            if open.is_empty() {
                return Ok(());
            }
            match self.round(watch, &open, round >= rounds.min(2)).await? {
                Ok(undecided) => open = undecided,
                Err(why) => {
                    open.iter().for_each(|hash| self.unsettled(*hash, why.clone()));
                    return Ok(());
                }
            }
        }
        open.iter().for_each(|hash| self.unsettled(*hash, "it comes and goes, and the table has no key to lock it by".to_owned()));
        Ok(())
    }

    async fn still(&mut self, hashes: &[RowHash]) -> PgResult<()> {
        let authority = self.count(Role::Authority, hashes).await?;
        let follower = self.count(Role::Follower, hashes).await?;
        for hash in hashes {
            let rows = |counts: &Counts| counts.get(hash).map_or(0, |count| count.rows);
            let (authority, follower) = (rows(&authority), rows(&follower));
            if authority != follower {
                self.record(*hash, authority, follower);
            }
        }
        Ok(())
    }

    /// One round; the rows that are still undecided, or why the follower is not waited for.
    async fn round(&mut self, watch: &Watch, hashes: &[RowHash], exact: bool) -> PgResult<Result<Vec<RowHash>, String>> {
        let before = self.count(Role::Follower, hashes).await?;
        let writers_done = exact && writers_done(&mut self.pair.authority).await?;
        let authority = self.count(Role::Authority, hashes).await?;
        let position = insert_position(&mut self.pair.authority).await?;
        if let Wait::Stalled(why) = watch.wait_past(position, self.shared.options.patience * 10).await? {
            return Ok(Err(why));
        }
        let follower = self.count(Role::Follower, hashes).await?;
        let after = self.count(Role::Authority, hashes).await?;
        let none = Count::default();
        let mut undecided = Vec::new();
        for hash in hashes {
            let at = |counts: &'_ Counts| counts.get(hash).unwrap_or(&none).clone();
            match judge(&at(&before), &at(&authority), &at(&follower), &at(&after), writers_done) {
                Ruling::Equal => {}
                Ruling::Different { authority, follower } => self.record(*hash, authority, follower),
                Ruling::Undecided => undecided.push(*hash),
            }
        }
        Ok(Ok(undecided))
    }

    async fn count(&mut self, role: Role, hashes: &[RowHash]) -> PgResult<Counts> {
        let query = self.table.at(role).versions(hashes.iter().map(|hash| hash.0).collect());
        let rows = self.pair.at(role).query(&self.table.doing(), &query).await?;
        let counted = |row: &Row| {
            let versions: Option<String> = row.get(3);
            let count = Count { rows: row.get(2), versions: versions.unwrap_or_default(), unclaimed: row.get(4) };
            ((row.get(0), row.get(1)), count)
        };
        Ok(rows.iter().map(counted).collect())
    }

    fn record(&mut self, hash: RowHash, authority: i64, follower: i64) {
        let kind = DifferenceKind::Multiset { authority, follower };
        self.findings.difference(Difference {
            table: self.table.name.clone(),
            key: named(hash),
            row: RowKey::default(),
            kind,
            values: Vec::new(),
        });
    }

    fn unsettled(&mut self, hash: RowHash, why: String) {
        self.findings.unsettled(Unsettled { table: self.table.name.clone(), key: named(hash), why });
    }
}

fn named(hash: RowHash) -> Vec<(String, String)> {
    vec![("row hash".to_owned(), format!("{:016x}{:016x}", hash.0, hash.1))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rows: i64, versions: &str) -> Count {
        Count { rows, versions: versions.to_owned(), unclaimed: true }
    }

    #[test]
    fn counts_that_stood_still_are_decided() {
        let none = Count::default();
        assert_eq!(judge(&none, &count(2, "a"), &count(2, "x"), &count(2, "a"), false), Ruling::Equal);
        let fewer = Ruling::Different { authority: 2, follower: 1 };
        assert_eq!(judge(&none, &count(2, "a"), &count(1, "x"), &count(2, "a"), false), fewer);
        let extra = Ruling::Different { authority: 0, follower: 1 };
        assert_eq!(judge(&count(1, "x"), &none, &count(1, "x"), &none, true), extra);
    }

    #[test]
    fn counts_that_moved_are_not() {
        let none = Count::default();
        assert_eq!(judge(&none, &count(2, "a"), &count(1, "x"), &count(3, "b"), true), Ruling::Undecided);
        assert_eq!(judge(&count(1, "x"), &none, &count(1, "x"), &none, false), Ruling::Undecided);
        assert_eq!(judge(&count(1, "w"), &none, &count(1, "x"), &none, true), Ruling::Undecided);
    }

    #[test]
    fn batches_have_bounded_rows() {
        let batches = in_batches(vec![(1, 3), (2, 3), (3, 5), (4, 100), (5, 1)], 10);
        assert_eq!(batches, [vec![1, 2], vec![3], vec![4], vec![5]]);
    }
}
