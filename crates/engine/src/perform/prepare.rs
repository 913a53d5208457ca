//! The long work before a switch: schema, indexes, catching up, comparing; each tells how far it has come.

use std::{sync::Arc, time::Duration};

use cutover_core::{Command, Side, State, Stream, plan::Check};
use cutover_postgres::{
    follow, gate,
    index::{self, Definitions},
    schema::{self, Dump},
    verify::{
        self,
        user_check::{self, Verdict},
    },
};
use tokio::time::Instant;

use crate::{
    Cutover, EngineError, EngineResult, Notice, Progress,
    driver::{Driver, asked_to_stop},
    status, verified,
};

/// How often long work tells how far it has come.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How often a verification notes which tables are done with.
const KEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Tables that one entry of the journal names.
const TABLES_AT_ONCE: usize = 1000;

impl Driver<'_> {
    pub(super) async fn isolate(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let database = self.cutover.plan.database(side);
        let keep = [database.url.user.as_str(), database.peer_url.user.as_str()];
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        if !gate::isolate(client, epoch, &keep).await.map_err(EngineError::database(side))? {
            self.note(Notice::Warning(format!(
                "the {side}'s database belongs to another role, so clients can still connect to it; its gate refuses their writes"
            )));
        }
        Ok(())
    }

    pub(super) async fn copy_schema(&mut self, epoch: u64) -> EngineResult<()> {
        let dump = self.dump().await?;
        let target = self.sides.client(Side::Target).await.map_err(EngineError::database(Side::Target))?;
        schema::copy(&dump, target, epoch).await.map_err(EngineError::database("schema"))?;
        let source = self.sides.client(Side::Source).await.map_err(EngineError::database(Side::Source))?;
        self.definitions = Some(Definitions::of(&dump, source).await.map_err(EngineError::database("schema"))?);
        Ok(())
    }

    /// What can be built while rows are copied: known since the schema was, or read once more.
    pub(super) async fn definitions(&mut self) -> EngineResult<Definitions> {
        if let Some(definitions) = &self.definitions {
            return Ok(definitions.clone());
        }
        let dump = self.dump().await?;
        let source = self.sides.client(Side::Source).await.map_err(EngineError::database(Side::Source))?;
        let definitions = Definitions::of(&dump, source).await.map_err(EngineError::database("schema"))?;
        Ok(self.definitions.insert(definitions).clone())
    }

    async fn dump(&mut self) -> EngineResult<Dump> {
        let target = self.sides.client(Side::Target).await.map_err(EngineError::database(Side::Target))?;
        let writes = schema::major(target).await.map_err(EngineError::database(Side::Target))?;
        let cutover = self.cutover;
        Dump::read(&cutover.plan.source.url, &cutover.names, writes, &cutover.tools).await.map_err(EngineError::database("schema"))
    }

    pub(super) async fn build_indexes(&mut self, epoch: u64) -> EngineResult<()> {
        let cutover = self.cutover;
        let known = self.definitions.take().unwrap_or_default();
        let job = index::Job {
            source: &cutover.plan.source.url,
            target: &cutover.plan.target.url,
            names: &cutover.names,
            epoch,
            jobs: cutover.plan.copy.jobs as usize,
            tools: &cutover.tools,
            known: &known,
        };
        let progress = Arc::new(index::Progress::default());
        let mut work = std::pin::pin!(index::build(job, Arc::clone(&progress)));
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let report = loop {
            tokio::select! {
                done = &mut work => break done.map_err(EngineError::database("indexes"))?,
                _ = tick.tick() => {
                    if let Some(now) = progress.snapshot() {
                        self.note(Notice::Progress(index_progress(&now)));
                    }
                }
            }
        };
        for note in progress.take_notes() {
            self.note(Notice::Warning(note));
        }
        self.observed.facts = facts(&report);
        Ok(())
    }

    pub(super) async fn catch_up(&mut self, stream: Stream, deadline: Instant) -> EngineResult<()> {
        let limit = self.cutover.plan.pause.lag_bytes;
        let report = self.report;
        let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
        let names = &self.cutover.names;
        follow::catch_up(origin, destination, names, stream, limit, deadline, |lag| {
            report.notice(&Notice::Progress(Progress {
                what: "catching up",
                done: lag.done_bytes,
                total: lag.total_bytes,
                unit: "bytes",
                per_second: lag.bytes_per_second,
                eta_seconds: lag.eta_seconds,
                detail: format!("{} bytes behind", lag.lag_bytes),
            }));
        })
        .await
        .map_err(EngineError::database(stream))
    }

    pub(super) async fn verify(&mut self) -> EngineResult<()> {
        let report = self.compare_all().await?;
        judge(&report)?;
        self.observed.facts = [
            ("tables".to_owned(), report.tables.into()),
            ("rows".to_owned(), report.rows.into()),
            ("seconds".to_owned(), report.seconds.into()),
            ("rows_per_s".to_owned(), report.rows_per_s.into()),
            ("lsn".to_owned(), report.lsn.to_string().into()),
        ]
        .into();
        Ok(())
    }

    /// Verifies once more before a switch, where the last time is longer ago than the plan allows or rows are known to
    /// differ. Says whether it was.
    pub(crate) async fn verify_if_due(&mut self) -> EngineResult<bool> {
        let known = self.cutover.known().await?;
        if !self.cutover.is_verification_due(&known) {
            return Ok(false);
        }
        let why = if known.different { "rows were found to differ" } else { "the last verification is too old, or there is none" };
        self.note(Notice::Note(format!("{why}, so both sides are compared again")));
        let mut interrupt = self.interrupt.clone();
        let report = tokio::select! {
            biased;
            () = asked_to_stop(&mut interrupt) => return Err(EngineError::Interrupted("nothing was held".to_owned())),
            report = self.compare_all() => report?,
        };
        if report.verdict() != verify::Verdict::Inconclusive {
            self.say(Command::Verified(verified::verification(&report))).await?;
        }
        judge(&report)?;
        Ok(true)
    }

    /// Compares all tables, but for those that an earlier verification had finished when it was broken off. The report
    /// is about all of them, from where the first was begun.
    async fn compare_all(&mut self) -> EngineResult<verify::Report> {
        let cutover = self.cutover;
        let earlier = verified::unfinished(&cutover.history().await?, cutover.plan.verify.max_age);
        if let Some(from) = earlier.iter().map(|table| table.lsn).min() {
            let count = earlier.len();
            self.note(Notice::Note(format!(
                "{count} tables were verified before it was broken off, from {from} on; the others, and what was altered since, are now"
            )));
        }
        let options = verify::Options { done: earlier, ..cutover.verify_options() };
        let progress = verify::Progress::default();
        let state = self.state()?.clone();
        let began = Instant::now();
        let report = {
            let work = verify(cutover, Some(&state), &options, &progress);
            let mut work = std::pin::pin!(work);
            let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
            let mut kept = Instant::now();
            loop {
                tokio::select! {
                    done = &mut work => break done?,
                    _ = tick.tick() => {
                        self.note(Notice::Progress(verify_progress(&progress, began)));
                        if kept.elapsed() >= KEEP_INTERVAL {
                            kept = Instant::now();
                            self.keep_equal(&progress).await?;
                        }
                    }
                }
            }
        };
        if report.verdict() != verify::Verdict::Equal {
            self.keep_equal(&progress).await?;
        }
        Ok(report)
    }

    /// Notes which tables are done with, so that a verification that is broken off need not begin anew.
    async fn keep_equal(&mut self, progress: &verify::Progress) -> EngineResult<()> {
        for tables in progress.take_equal().chunks(TABLES_AT_ONCE) {
            self.say(Command::TablesVerified { tables: tables.to_vec() }).await?;
        }
        Ok(())
    }

    /// Asks the user's own questions before a switch: every one must be answered as expected.
    pub(crate) async fn user_checks(&mut self) -> EngineResult<()> {
        let state = self.state()?.clone();
        let mut others = Vec::new();
        for check in &self.cutover.plan.checks {
            self.note(Notice::Note(format!("asking both sides: {}", check.name)));
            let report = self.unless_stopped(user_check(self.cutover, Some(&state), check)).await?;
            if report.verdict == Verdict::Pass {
                self.note(Notice::Note(report.to_string()));
            } else {
                others.push(report);
            }
        }
        if others.is_empty() { Ok(()) } else { Err(EngineError::Checks { reports: others }) }
    }
}

/// Asks one of the user's own questions, as the stream flows now.
pub(crate) async fn user_check(cutover: &Cutover, state: Option<&State>, check: &Check) -> user_check::Report {
    user_check::run(check, &sides(cutover, state), &cutover.names, &cutover.verify_options()).await
}

/// Compares both sides as the stream flows now.
pub(crate) async fn verify(
    cutover: &Cutover,
    state: Option<&State>,
    options: &verify::Options,
    progress: &verify::Progress,
) -> EngineResult<verify::Report> {
    let sides = sides(cutover, state);
    let mut report = verify::verify(&sides, &cutover.names, options, progress).await.map_err(EngineError::database("verify"))?;
    for accept in &cutover.plan.accept {
        report.set_columns_aside(|column| column == accept.name, &format!("accepted, {}", accept.reason));
    }
    if cutover.plan.hooks.migrate.is_some() {
        let made_by_migration = match sides.authority_side {
            Side::Source => verify::DifferenceKind::ExtraTable,
            Side::Target => verify::DifferenceKind::MissingTable,
        };
        report.set_aside(&made_by_migration, "made by the migration; only the target has it");
        if sides.authority_side == Side::Target {
            report.set_columns_aside(|_| true, "made by the migration; only the target has it");
        }
    }
    Ok(report)
}

/// Whom to measure, and by whom.
pub(crate) fn sides<'a>(cutover: &'a Cutover, state: Option<&State>) -> verify::Sides<'a> {
    let authority = state.map_or(Side::Source, |state| state.authority);
    verify::Sides {
        authority: &cutover.plan.database(authority).url,
        follower: &cutover.plan.database(authority.other()).url,
        authority_side: authority,
        following: state.and_then(status::flowing).map(|stream| verify::Following::stream(&cutover.names, stream)),
    }
}

/// Differences are a no, what could not be established is no yes.
pub(crate) fn judge(report: &verify::Report) -> EngineResult<()> {
    if report.differences_total > 0 {
        let examples = report.differences.iter().take(10).map(ToString::to_string).collect();
        return Err(EngineError::Differences { count: report.differences_total, examples });
    }
    if report.tables == 0 {
        return Err(EngineError::Inconclusive("there is no table to compare".to_owned()));
    }
    if report.verdict() == verify::Verdict::Inconclusive {
        let first = report.unsettled.first().map(|first| format!(", first {first}")).unwrap_or_default();
        return Err(EngineError::Inconclusive(format!("{} rows could not be compared{first}", report.unsettled_total)));
    }
    Ok(())
}

fn index_progress(now: &index::ProgressSnapshot) -> Progress {
    let ((definitions_done, definitions), (there, indexes)) = (now.definitions, now.indexes);
    let while_copying = if there > 0 { format!(", {there} of {indexes} indexes were there") } else { String::new() };
    Progress {
        what: "building",
        done: now.done,
        total: now.total,
        unit: "bytes",
        per_second: now.per_second,
        eta_seconds: now.eta_seconds,
        detail: format!("{}, {definitions_done} of {definitions} definitions{while_copying}", now.stage),
    }
}

pub(crate) fn verify_progress(progress: &verify::Progress, began: Instant) -> Progress {
    let now = progress.numbers();
    let per_second = now.rows_done as f64 / began.elapsed().as_secs_f64().max(0.001);
    let left = now.estimated_rows.saturating_sub(now.rows_done);
    Progress {
        what: "verifying",
        done: now.rows_done,
        total: now.estimated_rows.max(now.rows_done),
        unit: "rows",
        per_second,
        eta_seconds: (per_second > 0.0).then(|| left as f64 / per_second),
        detail: format!("{} of {} tables{}", now.tables_done, now.tables, held(progress.held())),
    }
}

/// What holds work up, behind its progress.
pub(super) fn held(held: Option<String>) -> String {
    held.map(|held| format!(", {held}")).unwrap_or_default()
}

/// A report's fields, for the journal.
pub(super) fn facts(report: &impl serde::Serialize) -> std::collections::BTreeMap<String, serde_json::Value> {
    match serde_json::to_value(report) {
        Ok(serde_json::Value::Object(fields)) => fields.into_iter().collect(),
        _ => std::collections::BTreeMap::new(),
    }
}
