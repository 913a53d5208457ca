//! `cutover verify`, wherever it is asked for: both sides compared while they move, what differs mended where that was asked
//! for, and the plan's own checks. It drives nothing unless it mends.

use cutover_core::{State, plan::Check};
use cutover_postgres::{
    PgError,
    catalogue::QualifiedName,
    verify::{
        self,
        user_check::{self, Verdict},
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    Cutover, Drive, EngineError, EngineResult, Notice,
    driver::asked_to_stop,
    perform::{PROGRESS_INTERVAL, verify_progress},
};

/// Differences, rows that could not be compared, and remarks that an answer names at most; the others are counted.
pub const MOST_NAMED: usize = 1_000;

/// What is kept of a value that one of the plan's checks was answered with. Unit: characters.
const LONG_VALUE: usize = 1_000;

/// What is to be verified.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these tables, and none of the plan's checks; all of both where there is none.
    pub tables: Vec<QualifiedName>,
    /// Only the plan's checks.
    pub only_checks: bool,
    /// Whether both sides' values are shown.
    pub values: bool,
    /// Make rows that differ equal at the side that follows, where there are at most so many.
    pub repair: Option<u32>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// Absent where only the checks were asked for.
    #[serde(flatten)]
    pub tables: Option<verify::Report>,
    /// Absent where none was asked for, or nothing differed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<verify::Repair>,
    /// The plan's own checks.
    #[serde(default)]
    pub checks: Vec<user_check::Report>,
}

/// Why what was found is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The exit code: 3 where something differs or a check failed, 4 where it could not be established.
    pub code: u8,
    /// What, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A table's name as a person writes it: `schema.table` without quotes, or a table of `public`.
///
/// # Errors
/// What names no table.
pub fn table(name: &str) -> Result<QualifiedName, String> {
    let (schema, name) = name.split_once('.').unwrap_or(("public", name));
    if schema.is_empty() || name.is_empty() {
        return Err(format!("`{schema}.{name}` names no table"));
    }
    Ok(QualifiedName { schema: schema.to_owned(), name: name.to_owned() })
}

impl Cutover {
    /// The plan's checks that are among what is wanted.
    #[must_use]
    pub fn checks_of(&self, wanted: &Wanted) -> &[Check] {
        if wanted.tables.is_empty() { &self.plan.checks } else { &[] }
    }

    /// Compares both sides, until somebody asks to stop. What one of all tables found is kept in the journal, unless somebody drives.
    ///
    /// # Errors
    /// If a database can't be reached or a table is none; and [`EngineError::Inconclusive`] where a driver came between, because the
    /// side that follows may then be the other one. Differences are in the report.
    pub async fn compare(&self, drive: &Drive<'_>, wanted: &Wanted) -> EngineResult<verify::Report> {
        let before = self.state().await?;
        let report = match self.compare_as(before.as_ref(), drive, wanted).await {
            Err(EngineError::Database { source: source @ PgError::Sql { .. }, side }) if source.is_disconnect() => {
                tracing::info!(%source, side, "what compared was cut off");
                let why = "what compared was cut off, as by a driver that takes the cutover over: verify again when it rests";
                return Err(EngineError::Inconclusive(why.to_owned()));
            }
            done => done?,
        };
        let pauses = |state: &Option<State>| state.as_ref().map_or(0, |state| state.pauses.len());
        if pauses(&self.state().await?) != pauses(&before) {
            let why = "the sides changed places, or were about to, while they were compared: verify again when the cutover rests";
            return Err(EngineError::Inconclusive(why.to_owned()));
        }
        if let Some(before) = before.filter(|_| wanted.tables.is_empty() && report.verdict() != verify::Verdict::Inconclusive) {
            self.keep(drive, &before, &report).await;
        }
        Ok(report)
    }

    /// Makes what was found equal, where anything differs.
    ///
    /// # Errors
    /// [`EngineError::TooManyDiffer`] where more rows differ than may be mended; and as [`Cutover::repair`].
    pub async fn mend(&self, drive: Drive<'_>, wanted: &Wanted, found: &verify::Report) -> EngineResult<verify::Repair> {
        self.refuse_too_many(wanted, found)?;
        self.repair(drive, &self.options(wanted), &found.differences).await
    }

    /// Whether so many rows differ that none is to be mended.
    ///
    /// # Errors
    /// Then: [`EngineError::TooManyDiffer`].
    pub fn refuse_too_many(&self, wanted: &Wanted, found: &verify::Report) -> EngineResult<()> {
        let (rows, most) = (found.differences_total, u64::from(wanted.repair.unwrap_or_default()));
        if rows > most {
            return Err(EngineError::TooManyDiffer { rows, most, plan: self.plan.name.clone() });
        }
        Ok(())
    }

    /// Asks both sides one of the plan's own checks, until somebody asks to stop.
    ///
    /// # Errors
    /// If the journal can't be read. Whatever else goes wrong is in the report.
    pub async fn ask(&self, drive: &Drive<'_>, check: &Check) -> EngineResult<user_check::Report> {
        drive.report.notice(&Notice::Note(format!("asking both sides: {}", check.name)));
        let mut interrupt = drive.interrupt.clone();
        tokio::select! {
            () = asked_to_stop(&mut interrupt) => Err(stopped()),
            report = self.user_check(check) => report,
        }
    }

    async fn compare_as(&self, state: Option<&State>, drive: &Drive<'_>, wanted: &Wanted) -> EngineResult<verify::Report> {
        let (options, progress, began) = (self.options(wanted), verify::Progress::default(), Instant::now());
        let mut work = Box::pin(crate::perform::verify(self, state, &options, &progress));
        let (mut interrupt, mut tick) = (drive.interrupt.clone(), tokio::time::interval(PROGRESS_INTERVAL));
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = asked_to_stop(&mut interrupt) => return Err(stopped()),
                _ = tick.tick() => tell(drive, &progress, began),
            }
        }
    }

    fn options(&self, wanted: &Wanted) -> verify::Options {
        let options = self.verify_options();
        let most = wanted.repair.map_or(0, |most| most as usize);
        verify::Options {
            tables: (!wanted.tables.is_empty()).then(|| wanted.tables.clone()),
            values: wanted.values,
            max_differences: options.max_differences.max(most),
            ..options
        }
    }

    /// For `status` and for the next switch. Where it can't be kept, nothing is wrong with it.
    async fn keep(&self, drive: &Drive<'_>, before: &State, report: &verify::Report) {
        match self.keep_verification(&drive.actor, &drive.reason, before, report).await {
            Ok(()) | Err(EngineError::Refused(_)) => {}
            Err(error) => drive.report.notice(&Notice::Note(format!("this verification is not kept in the journal: {error}"))),
        }
    }
}

/// Says how far it is, once that is known.
fn tell(drive: &Drive<'_>, progress: &verify::Progress, began: Instant) {
    if progress.numbers().tables > 0 {
        drive.report.notice(&Notice::Progress(verify_progress(progress, began)));
    }
}

fn stopped() -> EngineError {
    EngineError::Interrupted("what was compared so far is not kept".to_owned())
}

impl Found {
    /// Takes what an answer has room for: lists have at most [`MOST_NAMED`] items, and values that a check was answered with are cut.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some(tables) = &mut self.tables {
            tables.differences.truncate(MOST_NAMED);
            tables.unsettled.truncate(MOST_NAMED);
            tables.skipped.truncate(MOST_NAMED);
            tables.notes.truncate(MOST_NAMED);
        }
        for value in self.checks.iter_mut().flat_map(user_check::Report::values_mut) {
            if let Some((end, _)) = value.char_indices().nth(LONG_VALUE) {
                value.truncate(end);
            }
        }
        self
    }

    /// Why it is not good, if it isn't. A no counts more than what could not be established.
    #[must_use]
    pub fn shortfall(&self) -> Option<Shortfall> {
        let (tables, checks) = (self.tables.as_ref(), &self.checks);
        let count = |verdict: Verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        let failed = count(Verdict::Fail);
        let no = |message: String| Some(Shortfall { code: 3, message, hint: None });
        let unknown = |message: String, hint: Option<String>| Some(Shortfall { code: 4, message, hint });
        let still = self.repair.as_ref().map(|repair| repair.still_different.len() as u64);
        match (still.or(tables.map(|tables| tables.differences_total)).unwrap_or(0), failed) {
            (0, 0) => {}
            (0, _) => return no(format!("{failed} of {} checks failed", checks.len())),
            (rows, 0) => return no(format!("the two sides differ in {rows} rows")),
            (rows, _) => return no(format!("the two sides differ in {rows} rows, and {failed} of {} checks failed", checks.len())),
        }
        if let Some(tables) = tables.filter(|tables| tables.unsettled_total > 0 || tables.verdict() == verify::Verdict::Inconclusive) {
            let hint = "`cutover status` shows whether the stream flows; then verify again".to_owned();
            return unknown(format!("{} rows could not be compared", tables.unsettled_total), Some(hint));
        }
        match count(Verdict::Inconclusive) {
            0 => None,
            open => unknown(format!("{open} of {} checks could not be established", checks.len()), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use cutover_core::Side;

    use super::*;

    fn check(verdict: Verdict, value: &str) -> user_check::Report {
        let rows = Some(vec![vec![Some(value.to_owned()), None]]);
        let answers = vec![user_check::Answer { side: Side::Source, rows, rows_total: 1, error: None }];
        user_check::Report { name: "a".to_owned(), verdict, why: String::new(), hint: None, answers, tries: 1, ms: 1 }
    }

    fn code(checks: &[Verdict]) -> Option<u8> {
        let checks = checks.iter().map(|verdict| check(*verdict, "")).collect();
        Found { checks, ..Found::default() }.shortfall().map(|short| short.code)
    }

    #[test]
    fn a_no_counts_more_than_what_could_not_be_established() {
        assert_eq!(code(&[Verdict::Pass]), None);
        assert_eq!(code(&[Verdict::Inconclusive, Verdict::Fail]), Some(3));
        assert_eq!(code(&[Verdict::Pass, Verdict::Inconclusive]), Some(4));
    }

    #[test]
    fn a_long_value_is_cut_between_characters_and_the_answer_can_be_read_again() {
        let found = Found { checks: vec![check(Verdict::Fail, &"ü".repeat(5_000))], ..Found::default() }.bounded();
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.len() < 2_500, "{}", text.len());
        let again: Found = serde_json::from_str(&text).unwrap();
        assert!(again.tables.is_none() && again.shortfall() == found.shortfall());
    }

    #[test]
    fn a_table_is_named_without_quotes() {
        assert_eq!(table("a").unwrap().to_string(), table("public.a").unwrap().to_string());
        assert!(table(".a").is_err() && table("a.").is_err() && table("").is_err());
    }
}
