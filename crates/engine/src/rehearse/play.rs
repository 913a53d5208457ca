//! The play: fill the clones, cut over, look, go back, look again, give up, look once more.

use std::time::{Duration, Instant};

use cutover_core::{Phase, Plan, Preparation, Side, State};
use cutover_postgres::{
    catalogue,
    clone::{self, Made, probe},
    verify::{self, user_check::Verdict},
};
use cutover_traffic::{Endpoint, run_hook};
use tokio::sync::watch as channel;

use super::{
    Rehearsal,
    board::{Board, Case, stopped},
    load::{Command, Load},
    watch::{Seen, Watch},
};
use crate::{Cutover, Drive, EngineError, EngineResult, Failpoint, Goal, perform};

/// Writes that must come through before the next thing is tried.
const WRITES: usize = 5;

/// What is measured besides the cases.
#[derive(Debug, Default)]
pub(super) struct Play {
    /// Of the switch and of the way back, in milliseconds.
    pub(super) pauses: [Option<u64>; 2],
    pub(super) acknowledged: u64,
    pub(super) lost: u64,
}

/// Everything that must hold when this plan is rehearsed, in order.
pub(super) fn cases(plan: &Plan, seeded: bool, keep: bool) -> Vec<Case> {
    let (migrate, smoke) = (plan.rehearsed_migrate().is_some(), plan.rehearsed_smoke().is_some());
    let back = plan.switch.reverse;
    let mut cases = vec![
        Case::new("clones", "two marked databases were made for this rehearsal"),
        Case::new("restore", "the source's clone has the definitions, and rows where wanted"),
    ];
    cases.extend(seeded.then(|| Case::new("seed", "the seed data is loaded")));
    cases.push(Case::new("preflight", "nothing that blocks is found"));
    for step in Preparation::ALL.into_iter().filter(|step| migrate || *step != Preparation::Migrate) {
        cases.push(Case::new(step.name(), cutover_core::Step::Prepare(step).spec(back).establishes));
    }
    let check = |name: &str| Case::new(name, "both sides answer as the plan expects");
    cases.extend(plan.checks.iter().map(|asked| check(&check_name(&asked.name, false))));
    cases.push(Case::new("switch", "the target is in charge, after a pause within its budget"));
    cases.push(Case::new("sequences", "no sequence will hand out a value again"));
    cases.push(Case::new("writes", "clients' writes come through at the target"));
    cases.extend(smoke.then(|| Case::new("smoke", "the target does what the application needs")));
    if back {
        cases.push(Case::new("rollback", "the source is in charge again, after a pause within its budget"));
        cases.extend(smoke.then(|| Case::new("smoke_back", "the source still does what the application needs")));
        cases.push(Case::new("kept", "every acknowledged write is there, also those that the target took"));
        cases.push(Case::new("verify_back", "both sides hold the same rows after the way back"));
        cases.extend(plan.checks.iter().map(|asked| check(&check_name(&asked.name, true))));
    }
    cases.extend(plan.rehearse.load.as_ref().map(|_| Case::new("load", "the load of the plan did not fail")));
    cases.extend(back.then(|| Case::new("tear_down", "given up, the cutover leaves nothing behind in either clone")));
    cases.extend((!keep).then(|| Case::new("removed", "the clones are gone")));
    cases
}

fn check_name(name: &str, back: bool) -> String {
    if back { format!("check_back: {name}") } else { format!("check: {name}") }
}

impl Rehearsal<'_> {
    /// Goes on for as long as what the rest needs holds.
    pub(super) async fn play(&self, board: &mut Board, play: &mut Play, clones: [&Made; 2], stop: &channel::Receiver<bool>) -> Option<()> {
        let [source, target] = clones;
        board.case("restore", self.restore(clones)).await?;
        if let Some(seed) = &self.seed {
            board.case("seed", self.load_seed(seed, source)).await?;
        }
        let mut opened = None;
        board.case("preflight", Box::pin(self.preflight(clones, &mut opened))).await?;
        let cutover = opened?;
        self.prepare(board, &cutover, stop).await?;
        self.ask(board, &cutover, false).await?;

        let load = Load::start(self.ways(clones), &self.marker.id, self.plan.pause.budget);
        let command = self.plan.rehearse.load.as_ref().map(|command| self.start_load(command, source));
        let played = self.there_and_back(board, play, &cutover, &load, clones, stop).await;
        let acknowledged = load.acknowledged();
        play.acknowledged = acknowledged.len() as u64;
        drop(load);
        if let Some(command) = command {
            board.case("load", command.end()).await;
        }
        played?;
        if !self.plan.switch.reverse {
            return Some(());
        }
        let kept = board.case("kept", self.kept(source, &acknowledged, &mut play.lost)).await;
        let same = board.case("verify_back", self.verify(&cutover)).await;
        let asked = self.ask(board, &cutover, true).await;
        self.tear_down(board, &cutover, [source, target], stop).await;
        kept.and(same).and(asked)
    }

    async fn restore(&self, clones: [&Made; 2]) -> EngineResult<String> {
        let (roles, limit) = (&self.plan.application_roles, self.plan.rehearse.timeout);
        let brought = clone::restore(&self.origin, clones, roles, &self.tools, limit).await.map_err(EngineError::database("restore"))?;
        probe::install(clones[0]).await.map_err(EngineError::database("clone"))?;
        let origin = match &self.origin {
            clone::Origin::Database { url, .. } => url.to_string(),
            clone::Origin::File(file) => file.display().to_string(),
        };
        Ok(format!("{} tables, {} rows, {} roles from {origin}", brought.tables, brought.rows, brought.roles))
    }

    async fn load_seed(&self, seed: &str, source: &Made) -> EngineResult<String> {
        let limit = self.plan.rehearse.timeout;
        if seed.trim_end().ends_with(".sql") {
            clone::run_sql_file(source, &self.folder.join(seed.trim()), &self.tools, limit).await.map_err(EngineError::database("seed"))?;
            return Ok(format!("loaded {seed}"));
        }
        drop(source.session(Some(limit)).await?);
        let to = Endpoint { side: Side::Source, url: source.url.clone() };
        let environment =
            [("CUTOVER_ACTION", "seed"), ("CUTOVER_PROFILE", &self.profile)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let ran = run_hook(seed, &to, &environment, limit, self.folder).await;
        ran.map(|_| format!("ran {seed}")).map_err(|error| EngineError::Hook(format!("the seed failed: {}", error.report())))
    }

    /// Opens the derived cutover, and has it look before it begins.
    async fn preflight(&self, [source, target]: [&Made; 2], opened: &mut Option<Cutover>) -> EngineResult<String> {
        let name = format!("rehearsal_{}", self.marker.id);
        let plan = self.plan.rehearsed(&name, self.database(0, source), self.database(1, target), self.stage.traffic.clone());
        let cutover = Cutover::open_with(plan, self.plan_text, self.folder, self.state, self.tools.clone()).await?;
        let findings = opened.insert(cutover).check().await?;
        let count = findings.len();
        if findings.iter().any(cutover_postgres::preflight::Finding::blocks) {
            return Err(EngineError::Findings { findings });
        }
        Ok(format!("{count} findings, none blocks"))
    }

    /// Each step of the preparation is a case.
    async fn prepare(&self, board: &mut Board, cutover: &Cutover, stop: &channel::Receiver<bool>) -> Option<()> {
        let watch = Watch::new(self.report);
        let mut failed = Box::pin(cutover.run(drive(&watch, stop), Goal::Ready)).await.err();
        for step in Preparation::ALL {
            let Some(seen) = watch.step(step.name()) else { continue };
            let done = if seen.is_done() { Ok(seen.facts.clone()) } else { Err(failed.take().unwrap_or_else(stopped)) };
            board.record(step.name(), seen.took(), done)?;
        }
        match failed {
            None => Some(()),
            Some(error) => board.record(Preparation::Install.name(), Duration::ZERO, Err(error)),
        }
    }

    /// Asks every check of the plan, whatever the others said.
    async fn ask(&self, board: &mut Board, cutover: &Cutover, back: bool) -> Option<()> {
        let mut all = Some(());
        for check in &cutover.plan.checks {
            let ask = async {
                let report = cutover.user_check(check).await?;
                if report.verdict == Verdict::Pass { Ok(report.to_string()) } else { Err(EngineError::Checks { reports: vec![report] }) }
            };
            all = all.and(board.case(&check_name(&check.name, back), ask).await);
        }
        all
    }

    async fn there_and_back(
        &self,
        board: &mut Board,
        play: &mut Play,
        cutover: &Cutover,
        load: &Load,
        [source, target]: [&Made; 2],
        stop: &channel::Receiver<bool>,
    ) -> Option<()> {
        board.case_begins("switch", load.comes_through(WRITES)).await?;
        play.pauses[0] = self.change_hands(board, cutover, Side::Target, stop).await;
        play.pauses[0]?;
        // Whatever these say, the way back is tried as well.
        board.case("sequences", ahead(source, target)).await;
        board.case("writes", async { load.comes_through(WRITES).await.map(|()| "they do".to_owned()) }).await;
        if self.plan.switch.reverse {
            play.pauses[1] = self.change_hands(board, cutover, Side::Source, stop).await;
            play.pauses[1]?;
            board.case_begins("kept", load.comes_through(WRITES)).await?;
        }
        Some(())
    }

    /// A switch to a side: two cases where there is a smoke test. Gives the pause where the side is in charge.
    async fn change_hands(&self, board: &mut Board, cutover: &Cutover, to: Side, stop: &channel::Receiver<bool>) -> Option<u64> {
        let (name, smoke) = if to == Side::Target { ("switch", "smoke") } else { ("rollback", "smoke_back") };
        let (watch, began) = (Watch::new(self.report), Instant::now());
        let done = match to {
            Side::Target => Box::pin(cutover.run(drive(&watch, stop), Goal::Switched)).await,
            Side::Source => Box::pin(cutover.rollback(drive(&watch, stop), false)).await,
        };
        let state = cutover.state().await.ok().flatten();
        let tried = watch.step("smoke").filter(|_| state.as_ref().is_some_and(|state| in_charge(state, to)));
        let took = began.elapsed().saturating_sub(tried.as_ref().map_or(Duration::ZERO, Seen::took));
        let (switched, smoked) = match (done, &tried) {
            (Err(error), Some(_)) => (Ok(()), Err(error)),
            (done, _) => (done.map(drop), Ok("it does".to_owned())),
        };
        let pause_ms = state.as_ref().and_then(|state| state.pauses.last()).map_or(0, |pause| pause.pause_ms);
        board.record(name, took, switched.and_then(|()| self.within_budget(pause_ms)))?;
        if let Some(tried) = tried {
            board.record(smoke, tried.took(), smoked);
        }
        Some(pause_ms)
    }

    fn within_budget(&self, pause_ms: u64) -> EngineResult<String> {
        let budget_ms = self.plan.pause.budget.as_millis();
        if u128::from(pause_ms) <= budget_ms {
            return Ok(format!("a pause of {pause_ms} ms, of {budget_ms} ms"));
        }
        let what = format!("the pause took {pause_ms} ms, of {budget_ms} ms: opening came late");
        Err(EngineError::Mismatch { what, hint: "allow more with pause.budget".to_owned() })
    }

    async fn kept(&self, source: &Made, acknowledged: &[String], lost: &mut u64) -> EngineResult<String> {
        let missing = probe::missing(source, acknowledged).await.map_err(EngineError::database("clone"))?;
        *lost = missing.len() as u64;
        match missing.first() {
            None => Ok(format!("{} acknowledged, none lost", acknowledged.len())),
            Some(first) => {
                let what = format!("of {} acknowledged writes {} are gone, first {first}", acknowledged.len(), missing.len());
                Err(EngineError::Mismatch { what, hint: "report this as a bug".to_owned() })
            }
        }
    }

    async fn verify(&self, cutover: &Cutover) -> EngineResult<String> {
        let report = cutover.verify(&cutover.verify_options(), &verify::Progress::default()).await?;
        perform::judge(&report)?;
        Ok(format!("{} tables, {} rows, no difference", report.tables, report.rows))
    }

    /// Gives the cutover up, which every user may want to do, and looks for what that left.
    async fn tear_down(&self, board: &mut Board, cutover: &Cutover, clones: [&Made; 2], stop: &channel::Receiver<bool>) {
        let following = |state: &State| matches!(state.phase, Phase::Following);
        if !cutover.state().await.ok().flatten().is_some_and(|state| following(&state)) {
            return;
        }
        let watch = Watch::new(self.report);
        let work = async {
            Box::pin(cutover.rollback(drive(&watch, stop), true)).await?;
            let mut left = Vec::new();
            for (side, clone) in Side::BOTH.into_iter().zip(clones) {
                let found = clone::left_behind(clone, &cutover.names).await.map_err(EngineError::database(side))?;
                left.extend(found.into_iter().map(|what| format!("{what} at the {side}")));
            }
            if left.is_empty() {
                return Ok("no stream, no gate, no schema of ours".to_owned());
            }
            Err(EngineError::Mismatch { what: format!("left behind: {}", left.join(", ")), hint: "report this as a bug".to_owned() })
        };
        board.case("tear_down", work).await;
    }

    /// Where clients go in.
    fn ways(&self, clones: [&Made; 2]) -> Vec<cutover_core::plan::DatabaseUrl> {
        match &self.stage.entrance {
            Some(entrance) => vec![entrance.clone()],
            None => clones.map(|clone| clone.url.clone()).to_vec(),
        }
    }

    fn start_load(&self, command: &str, source: &Made) -> Command {
        let way = self.stage.entrance.clone().unwrap_or_else(|| source.url.clone());
        let name = format!("rehearsal_{}", self.marker.id);
        Command::start(command, way, &name, self.plan.rehearse.timeout, self.folder.to_owned())
    }
}

fn drive<'a>(watch: &'a Watch<'_>, stop: &channel::Receiver<bool>) -> Drive<'a> {
    Drive {
        actor: "rehearsal".to_owned(),
        reason: "rehearsed".to_owned(),
        report: watch,
        interrupt: stop.clone(),
        failpoint: Failpoint::default(),
    }
}

/// Whether a switch to this side is past its pause.
fn in_charge(state: &State, side: Side) -> bool {
    state.authority == side && matches!(state.phase, Phase::Following | Phase::Smoking(_))
}

/// Every sequence at the side that was opened is at least as far as at the other.
async fn ahead(from: &Made, to: &Made) -> EngineResult<String> {
    let limit = Some(Duration::from_secs(30));
    let (from, to) = (from.session(limit).await?, to.session(limit).await?);
    let (here, there) = (catalogue::sequences(&from).await?, catalogue::sequences(&to).await?);
    let behind = |old: &&catalogue::Sequence| {
        let new = there.iter().find(|new| new.name == old.name);
        !new.is_some_and(|new| if old.increment > 0 { new.last_value >= old.last_value } else { new.last_value <= old.last_value })
    };
    let behind: Vec<String> = here.iter().filter(behind).map(|old| old.name.to_string()).collect();
    if behind.is_empty() {
        return Ok(format!("{} sequences", here.len()));
    }
    Err(EngineError::Mismatch {
        what: format!("behind the source's or missing at the target: {}", behind.join(", ")),
        hint: "a migration that makes a sequence anew must set it too".to_owned(),
    })
}
