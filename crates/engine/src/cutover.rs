//! One cutover: its plan, its journal, its traffic; and the verbs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use cutover_core::{
    Command, Phase, Plan, PlanRef, Preparation, Refusal, Shape, Side, State, decide,
    plan::{Check, TableSettings},
};
use cutover_journal::{Entry, Journal, Tampered, Verified};
use cutover_postgres::{
    catalogue::QualifiedName,
    connect::{Purpose, connect},
    coverage::{Coverage, LeftOut, left_out},
    limit::Limits,
    names::Names,
    preflight::{self, Finding, Standing},
    verify::{self, user_check},
};
use cutover_traffic::{Endpoint, Fleet, build, services};
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::{
    Drive, EngineError, EngineResult, Notice, Status, archive, audience, describe, driver::Driver, journal, log::fold, rehearse, status,
    traces,
};

/// A cutover, opened. Nothing is touched by opening it.
pub struct Cutover {
    pub(crate) plan: Plan,
    pub(crate) digest: String,
    pub(crate) names: Names,
    pub(crate) folder: PathBuf,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) fleet: Fleet,
    pub(crate) tools: Vec<PathBuf>,
}

/// The folder of our own files, beside the plan.
pub const STATE: &str = ".cutover";

/// How far to drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Copied, following, verified.
    Ready,
    /// The target in charge.
    Switched,
}

impl Cutover {
    /// Opens a cutover: its journal is made if there is none. `tools` are folders with PostgreSQL's client programs,
    /// looked at besides the usual ones.
    ///
    /// # Errors
    /// If the journal can't be opened, or the traffic that the plan describes can't be.
    pub async fn open(plan: Plan, plan_text: &str, folder: &Path, tools: Vec<PathBuf>) -> EngineResult<Self> {
        Self::open_with(plan, plan_text, folder, &folder.join(STATE), tools).await
    }

    /// Opens one whose journal, where it is not in PostgreSQL, is in the folder `state`.
    pub(crate) async fn open_with(plan: Plan, plan_text: &str, folder: &Path, state: &Path, tools: Vec<PathBuf>) -> EngineResult<Self> {
        let journal = journal::open(&plan, state).await?;
        let mut adapters = build(&plan.traffic, folder).map_err(EngineError::Plan)?;
        adapters.extend(services(&plan, folder, &audience::routes(&journal)).map_err(EngineError::Plan)?);
        adapters.extend(audience::flags(&plan, &journal));
        let fleet = Fleet::new(adapters);
        let digest = hex::encode(Sha256::digest(plan_text.as_bytes()));
        Ok(Self { names: Names::new(&plan.name), digest, folder: folder.to_owned(), journal, fleet, tools, plan })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn plan_ref(&self) -> PlanRef {
        PlanRef { name: self.plan.name.clone(), digest: self.digest.clone(), revision: 1 }
    }

    /// What of the plan decides the steps.
    pub(crate) fn shape(&self) -> Shape {
        Shape { reverse: self.plan.switch.reverse, migrate: self.plan.hooks.migrate.is_some(), smoke: self.plan.hooks.smoke.is_some() }
    }

    /// What asks for the plan as it is now to count.
    pub(crate) fn revision(&self) -> Command {
        Command::RevisePlan { digest: self.digest.clone(), shape: self.shape(), filter: self.plan.tables.filter.clone() }
    }

    /// A plan that covers other tables than the cutover is no plan of it, wherever it stands.
    pub(crate) fn refuse_other_tables(&self, state: &State) -> EngineResult<()> {
        match decide(Some(state), self.revision()) {
            Err(refusal @ Refusal::TablesChanged { .. }) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// How the plan wants both sides compared.
    #[must_use]
    pub fn verify_options(&self) -> verify::Options {
        let plan = &self.plan.verify;
        let settings = || self.plan.tables.settings.iter();
        let name = |of: &TableSettings| QualifiedName { schema: of.schema.clone(), name: of.name.clone() };
        let redacted = |of: &TableSettings| {
            let table = name(of);
            of.redact.iter().map(|column| format!("{table}.{column}")).collect::<Vec<_>>()
        };
        verify::Options {
            jobs: plan.jobs as usize,
            chunk_rows: plan.chunk_rows,
            chunk_rows_of: settings().filter_map(|of| Some((name(of), of.chunk_rows?))).collect(),
            redact: plan.redact.iter().cloned().chain(settings().flat_map(redacted)).collect(),
            rechecks: plan.rechecks,
            limits: Limits { max_rate: plan.max_rate, max_latency: plan.max_latency },
            ..verify::Options::default()
        }
    }

    /// What stays at the source and is neither moved nor fenced, the largest first; read there now.
    ///
    /// # Errors
    /// If the journal can't be read or the source can't be reached.
    pub async fn left_out(&self) -> EngineResult<Vec<LeftOut>> {
        let filter = self.state().await?.map_or_else(|| self.plan.tables.filter.clone(), |state| state.filter);
        if filter.is_all() {
            return Ok(Vec::new());
        }
        let application = self.names.application("check");
        let source = connect(&self.plan.source.url, &Purpose::new(&application)).await.map_err(EngineError::database(Side::Source))?;
        left_out(&source, &Coverage::of(&filter)).await.map_err(EngineError::database(Side::Source))
    }

    pub(crate) fn endpoint(&self, side: Side) -> Endpoint {
        Endpoint { side, url: self.plan.database(side).url.clone() }
    }

    /// Where the cutover stands, by the journal alone; none before it has begun.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub async fn state(&self) -> EngineResult<Option<State>> {
        fold(&self.journal.load().await?)
    }

    /// The journal's entries, oldest first.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub async fn entries(&self) -> EngineResult<Vec<Entry>> {
        Ok(self.journal.load().await?)
    }

    /// Recomputes the journal's chain, and replays it.
    ///
    /// # Errors
    /// If the journal can't be read. What was tampered with is in the answer.
    pub async fn audit(&self) -> EngineResult<Result<Verified, Tampered>> {
        let snapshot = self.journal.snapshot().await?;
        let verified = snapshot.verify();
        if verified.is_ok() {
            fold(&snapshot.entries)?;
        }
        Ok(verified)
    }

    /// Where the journal is, for messages.
    #[must_use]
    pub fn journal_location(&self) -> String {
        self.journal.location()
    }

    /// Preflight: everything that would be in the way. Changes nothing.
    ///
    /// # Errors
    /// If a database can't be reached.
    pub async fn check(&self) -> EngineResult<Vec<Finding>> {
        let state = self.state().await?;
        if let Some(state) = state.as_ref().filter(|state| state.ended()) {
            return Err(EngineError::Mismatch {
                what: format!("the cutover `{}` is {}: there is nothing to check any more", self.plan.name, state.phase.describe()),
                hint: "a new one needs another name".to_owned(),
            });
        }
        if let Some(state) = &state {
            self.refuse_other_tables(state)?;
        }
        self.preflight(state.as_ref().map_or(Standing::New, standing)).await
    }

    pub(crate) async fn preflight(&self, standing: Standing) -> EngineResult<Vec<Finding>> {
        let (source, target) = self.examiners().await?;
        let mut findings = preflight::run(&self.plan, &source, &target, standing).await.map_err(EngineError::database("preflight"))?;
        let endpoints = [self.endpoint(Side::Source), self.endpoint(Side::Target)];
        for (adapter, problems) in self.fleet.check(&endpoints).await {
            findings.extend(problems.into_iter().map(|problem| describe::traffic_finding(&adapter, problem)));
        }
        Ok(findings)
    }

    /// Sessions for questions to both sides.
    pub(crate) async fn examiners(&self) -> EngineResult<(Client, Client)> {
        let application = self.names.application("check");
        let source = connect(&self.plan.source.url, &Purpose::new(&application)).await.map_err(EngineError::database(Side::Source))?;
        let target = connect(&self.plan.target.url, &Purpose::new(&application)).await.map_err(EngineError::database(Side::Target))?;
        Ok((source, target))
    }

    /// Where everything stands: journal, both databases, streams, traffic.
    ///
    /// # Errors
    /// If the journal can't be read. A database that can't be reached is part of the answer.
    pub async fn status(&self) -> EngineResult<Status> {
        status::status(self).await
    }

    /// Compares both sides, row by row.
    ///
    /// # Errors
    /// If a database can't be reached. Differences are in the report.
    pub async fn verify(&self, options: &verify::Options, progress: &verify::Progress) -> EngineResult<verify::Report> {
        let state = self.state().await?;
        crate::perform::verify(self, state.as_ref(), options, progress).await
    }

    /// Asks both sides one question of the user's, read-only. Whatever goes wrong is in the report.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub async fn user_check(&self, check: &Check) -> EngineResult<user_check::Report> {
        let state = self.state().await?;
        Ok(crate::perform::user_check(self, state.as_ref(), check).await)
    }

    /// Drives the cutover to a goal, from wherever it stands: finishes what was begun, undoes what can't be finished.
    ///
    /// # Errors
    /// See [`EngineError`]; its exit code says what it means.
    pub async fn run(&self, drive: Drive<'_>, goal: Goal) -> EngineResult<State> {
        let work = Box::pin(async {
            // Who finishes a way back does not want to leave again at once.
            let going_back = self.state().await?.is_some_and(|state| state.switch().is_some_and(|switch| switch.to == Side::Source));
            let mut driver = Driver::take_over(self, drive).await?;
            if driver.log.state().is_none() {
                self.begin(&mut driver).await?;
            }
            if driver.state()?.ended() {
                driver.log.decide(Command::Switch { to: Side::Target })?;
            }
            driver.run().await?;
            let state = driver.state()?.clone();
            let waits = matches!(state.phase, Phase::Following) && state.authority == Side::Source && !going_back;
            if goal == Goal::Switched && waits {
                self.may_switch().await?;
                if Box::pin(driver.verify_if_due()).await? {
                    // Hours may have passed.
                    self.may_switch().await?;
                }
                driver.user_checks().await?;
                driver.switch(Side::Target).await?;
            }
            Ok(driver.state()?.clone())
        });
        traces::traced(traces::span("run", &self.plan.name), work).await
    }

    /// Nothing that can be known beforehand is in the way of a switch to the target.
    async fn may_switch(&self) -> EngineResult<()> {
        rehearse::require(&self.plan, &self.digest, &self.folder)?;
        refuse_blocking(self.preflight(Standing::Complete { authority: Side::Source }).await?)
    }

    async fn begin(&self, driver: &mut Driver<'_>) -> EngineResult<()> {
        let findings = self.preflight(Standing::New).await?;
        for finding in findings.iter().filter(|finding| !finding.blocks()) {
            driver.note(Notice::Note(format!("{}: {}", finding.check, finding.message)));
        }
        refuse_blocking(findings)?;
        driver.create().await
    }

    /// Goes back: after a switch the same protocol with the sides swapped, which keeps what the target took. One that
    /// is under way is finished or undone, and no more. Where the source is in charge there is nothing to go back
    /// from; with `give_up` what was made in both databases is removed.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn rollback(&self, drive: Drive<'_>, give_up: bool) -> EngineResult<State> {
        let work = Box::pin(async {
            let before = self.state().await?;
            if before.as_ref().is_some_and(|state| matches!(state.phase, Phase::Archived)) {
                return Err(EngineError::Mismatch {
                    what: "retiring has begun, and with it the way back is being dropped".to_owned(),
                    hint: "`cutover run --until ready` finishes it".to_owned(),
                });
            }
            let under_way = before.is_some_and(|state| state.switch().is_some());
            let mut driver = Driver::take_over(self, drive).await?;
            let resumed = driver.run_unless_preparing().await;
            let (authority, phase) = (driver.state()?.authority, driver.state()?.phase.clone());
            let tolerated = matches!(phase, Phase::Smoking(_) | Phase::Restoring(_));
            match authority {
                Side::Target => {
                    if !tolerated {
                        resumed?;
                    }
                    driver.tell_what_clients_miss(Side::Target).await;
                    driver.switch(Side::Source).await?;
                }
                Side::Source if give_up => {
                    if !tolerated {
                        resumed?;
                    }
                    driver.say(Command::GiveUp).await?;
                    driver.run().await?;
                }
                Side::Source if under_way => resumed?,
                Side::Source => return Err(nothing_to_go_back_from(&self.plan.name)),
            }
            Ok(driver.state()?.clone())
        });
        traces::traced(traces::span("rollback", &self.plan.name), work).await
    }

    /// Makes the target the new source, in the journal.
    ///
    /// # Errors
    /// If it is not possible from where the cutover stands.
    pub async fn complete(&self, drive: Drive<'_>) -> EngineResult<State> {
        let work = Box::pin(async {
            let mut driver = Driver::take_over(self, drive).await?;
            let resumed = driver.run().await;
            if !matches!(driver.state()?.phase, Phase::Restoring(_)) {
                resumed?;
            }
            driver.say(Command::Complete).await?;
            Ok(driver.state()?.clone())
        });
        traces::traced(traces::span("complete", &self.plan.name), work).await
    }

    /// Archives the old side into `file`, reads the archive back, then drops the way back. One that was interrupted behind the archive
    /// is finished.
    ///
    /// # Errors
    /// If the archive can't be written or read back; then nothing is dropped.
    pub async fn retire(&self, drive: Drive<'_>, file: &Path) -> EngineResult<State> {
        let work = Box::pin(async {
            let archived = self.state().await?.is_some_and(|state| matches!(state.phase, Phase::Archived));
            let mut driver = Driver::take_over(self, drive).await?;
            driver.run().await?;
            if archived {
                return Ok(driver.state()?.clone());
            }
            if matches!(driver.state()?.phase, Phase::Completed) {
                let archive = driver.unless_stopped(archive::write(self, file, driver.report)).await??;
                driver.say(Command::Archived { file: archive.file, sha256: archive.sha256, bytes: archive.bytes }).await?;
            } else {
                driver.log.decide(Command::Archived { file: String::new(), sha256: String::new(), bytes: 0 })?;
            }
            driver.run().await?;
            Ok(driver.state()?.clone())
        });
        traces::traced(traces::span("retire", &self.plan.name), work).await
    }
}

/// How far the target has come, for the checks.
fn standing(state: &State) -> Standing {
    match state.phase {
        Phase::Preparing { step: Preparation::Install } => Standing::New,
        Phase::Preparing { step } if step <= Preparation::Migrate => Standing::Begun,
        Phase::TearingDown => Standing::Begun,
        _ => Standing::Complete { authority: state.authority },
    }
}

fn nothing_to_go_back_from(name: &str) -> EngineError {
    EngineError::Mismatch {
        what: "the source is in charge: there is no switch to go back from, and nothing was done".to_owned(),
        hint: format!("to give the cutover up and remove what it has made in both databases, add --confirm {name}"),
    }
}

fn refuse_blocking(findings: Vec<Finding>) -> EngineResult<()> {
    if findings.iter().any(Finding::blocks) { Err(EngineError::Findings { findings }) } else { Ok(()) }
}
