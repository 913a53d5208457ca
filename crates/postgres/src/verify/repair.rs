//! Mending rows that differ, through the stream, under the rows' locks.
//!
//! A difference that was reported is first proven again: since then a person may have thought for an hour. Then the row is
//! locked at the authority and sent whole, and the follower makes its own row equal at that point of the stream, and
//! looks at it (`mend.rs`). What is still different there is said so. The authority's rows are never touched, and a row
//! of the follower's that the authority has not is deleted only in the version that was proven to be extra.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Comparison, Key, Options, Progress, Shared, Sides,
    following::Watch,
    in_stream::{Carrier, Errand, Mending, Stop},
    judge::{Ruling, compare_still},
    mend,
    report::{Difference, DifferenceKind, Findings, Unsettled},
    scope::Scope,
    session::Pair,
    settle::{Found, settle},
};
use crate::{
    PgError, PgResult,
    catalogue::QualifiedName,
    limit::{Limiter, Limits},
    names::Names,
};

/// Rows that are mended before the next ones are looked at again.
const BATCH: usize = 500;

/// Rows that could not be mended by themselves are mended together at last, as where values were swapped between them:
/// no more than this.
const MOST_TOGETHER: usize = 100;

/// How rows are mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairOptions {
    /// The driver's epoch: who lost the cutover mends nothing.
    pub epoch: u64,
    /// Rows a second, at most.
    pub rows_per_s: u32,
}

/// What became of differences that were to be mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Rows that are equal now, because they were mended.
    pub repaired: u64,
    /// Rows that were equal when they were looked at again.
    pub equal_meanwhile: u64,
    /// What is still different, or is not known to be equal, and why.
    pub still_different: Vec<Unsettled>,
    /// Rows that were mended, by table.
    pub tables: BTreeMap<String, u64>,
}

/// Mends the rows of these differences at the follower.
///
/// # Errors
/// [`PgError::Refused`] where no stream flows, or it does not carry what mends; [`PgError::Superseded`]; and as
/// [`verify`](super::verify()). What can't be mended is no error, but said in the answer.
pub async fn repair(
    sides: &Sides<'_>,
    names: &Names,
    options: &Options,
    how: &RepairOptions,
    differences: &[Difference],
) -> PgResult<Repair> {
    let application = names.application("repair");
    let shared = Shared {
        watch: sides.watch(&application, options),
        carrier: Carrier::mending(),
        options,
        progress: &Progress::default(),
        findings: Findings::default().into(),
        limiter: Arc::new(Limiter::of_verification(Limits::default())),
    };
    let watch = shared.watch.as_ref().ok_or_else(no_stream)?;
    let mut repair = Repair::default();
    let rows = by_table(differences, &mut repair);
    if rows.is_empty() {
        return Ok(repair);
    }
    let mut pair = Pair::new(sides.authority, sides.follower, &application);
    let only = Options { tables: Some(rows.keys().cloned().collect()), ..options.clone() };
    let scope = Scope::read(&mut pair, sides, &only).await?;
    let mut mending = Mend { pair: &mut pair, watch, shared: &shared, how, repair: &mut repair, began: Instant::now(), sent: 0 };
    let mut done = Ok(());
    for table in &scope.comparisons {
        if let Some(keys) = rows.get(&table.name) {
            done = mending.table(table, keys).await;
        }
        if done.is_err() {
            break;
        }
    }
    shared.carrier.tidy(&mut pair.follower).await;
    done?;
    for (name, keys) in rows.iter().filter(|(name, _)| !scope.comparisons.iter().any(|table| table.name == **name)) {
        keys.iter().for_each(|(key, _)| repair.left(name, key.clone(), "the table can't be compared at present"));
    }
    Ok(repair)
}

/// A key with the names of its columns.
type NamedKey = Vec<(String, String)>;

/// The rows to mend; what is not a row is refused by name.
fn by_table(differences: &[Difference], repair: &mut Repair) -> BTreeMap<QualifiedName, Vec<(NamedKey, Key)>> {
    let mut rows = BTreeMap::<QualifiedName, Vec<(NamedKey, Key)>>::new();
    for Difference { table, key, row, kind, .. } in differences {
        let why = match kind {
            DifferenceKind::Missing | DifferenceKind::Extra | DifferenceKind::Differs { .. } => {
                rows.entry(table.clone()).or_default().push((key.clone(), row.0.clone()));
                continue;
            }
            DifferenceKind::Multiset { .. } => "the table has no key to mend a row by",
            DifferenceKind::MissingTable => "the follower has no such table, and tables are not made here",
            DifferenceKind::ExtraTable => "only the follower has this table, and tables are not dropped here",
            DifferenceKind::MissingColumns { .. } => "the follower's table lacks columns, and they are not made here",
        };
        repair.left(table, key.clone(), why);
    }
    rows
}

impl Repair {
    fn left(&mut self, table: &QualifiedName, key: NamedKey, why: &str) {
        self.still_different.push(Unsettled { table: table.clone(), key, why: why.to_owned() });
    }
}

struct Mend<'a> {
    pair: &'a mut Pair,
    watch: &'a Watch,
    shared: &'a Shared<'a>,
    how: &'a RepairOptions,
    repair: &'a mut Repair,
    began: Instant,
    sent: u64,
}

impl Mend<'_> {
    async fn table(&mut self, table: &Comparison, rows: &[(NamedKey, Key)]) -> PgResult<()> {
        if let Some(why) = mend::obstacle(table) {
            rows.iter().for_each(|(key, _)| self.repair.left(&table.name, key.clone(), why));
            return Ok(());
        }
        let keys: Vec<Key> = rows.iter().map(|(_, key)| key.clone()).collect();
        let mut failed = Vec::new();
        for batch in keys.chunks(BATCH) {
            failed.extend(self.batch(table, batch).await?);
        }
        self.together(table, failed).await
    }

    /// Proves the differences once more and mends them; those that could not be.
    async fn batch(&mut self, table: &Comparison, keys: &[Key]) -> PgResult<Vec<(Found, String)>> {
        let mut findings = self.shared.findings();
        let found = settle(self.pair, self.shared, table, keys, &mut findings).await?;
        let open = findings.unsettled_total;
        self.repair.equal_meanwhile += (keys.len() as u64).saturating_sub(found.len() as u64 + open);
        self.repair.still_different.append(&mut findings.unsettled);
        let mut failed = Vec::new();
        for group in found.chunks(Carrier::rows_at_once(table)) {
            let left = self.group(table, group).await?;
            match group {
                [_] => failed.extend(left),
                // One that fails undoes them all.
                _ => {
                    for (row, _) in left {
                        failed.extend(self.group(table, std::slice::from_ref(&row)).await?);
                    }
                }
            }
            self.pace().await;
        }
        Ok(failed)
    }

    /// What failed by itself may succeed together.
    async fn together(&mut self, table: &Comparison, failed: Vec<(Found, String)>) -> PgResult<()> {
        let mut failed = failed;
        if (2..=MOST_TOGETHER).contains(&failed.len()) {
            let rows: Vec<Found> = failed.iter().map(|(row, _)| row.clone()).collect();
            failed = self.group(table, &rows).await?;
        }
        for (row, why) in failed {
            self.repair.left(&table.name, table.named(&row.key), &why);
        }
        Ok(())
    }

    /// Mends some rows at one point of the stream, and looks at them there; those that are still different, and why.
    async fn group(&mut self, table: &Comparison, rows: &[Found]) -> PgResult<Vec<(Found, String)>> {
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        let versions = rows.iter().map(|row| row.extra_version.clone().unwrap_or_default()).collect();
        let mending = Mending { epoch: self.how.epoch, versions };
        let limit = self.shared.options.patience * 10;
        let sent = self.shared.carrier.look(self.pair, self.watch, table, &[&keys[..]], Errand::Mend(&mending), limit).await?;
        self.sent += rows.len() as u64;
        let mut looks = match sent {
            Ok(looks) => looks,
            Err(Stop::Stalled(why)) => {
                return Err(PgError::Mismatch(format!("rows were sent that the stream mends when it has come that far: {why}")));
            }
            Err(Stop::NotCarried) => return Err(not_carried()),
        };
        let sight = match looks.pop() {
            Some(Ok(sight)) => sight,
            Some(Err(why)) => return Ok(rows.iter().map(|row| (row.clone(), why.clone())).collect()),
            None => return Err(not_carried()),
        };
        let mut failed = Vec::new();
        for (row, (authority, follower)) in rows.iter().zip(sight.authority.iter().zip(&sight.follower)) {
            if compare_still(authority.as_ref(), follower.as_ref()) == Ruling::Equal {
                self.repair.repaired += 1;
                *self.repair.tables.entry(table.name.to_string()).or_default() += 1;
            } else {
                failed
                    .push((row.clone(), "it was mended, and is different still: a trigger at the follower may have changed it".to_owned()));
            }
        }
        Ok(failed)
    }

    /// No faster than was said.
    async fn pace(&self) {
        let due = Duration::from_secs_f64(self.sent as f64 / f64::from(self.how.rows_per_s.max(1)));
        tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
    }
}

fn no_stream() -> PgError {
    PgError::Refused {
        what: "no stream flows, and rows are mended through the stream".to_owned(),
        hint: Some("`cutover status` shows where the cutover stands, and what is in the way of the stream".to_owned()),
    }
}

fn not_carried() -> PgError {
    PgError::Refused {
        what: "the stream does not carry what mends rows".to_owned(),
        hint: Some(
            "the role of the plan's URLs must be able to write to the table cutover.look at the authority, and the table must be in the \
             publication; installations of earlier versions do not have it"
                .to_owned(),
        ),
    }
}
