//! The board: what must hold, in order, and what became of each.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use crate::{EngineError, EngineResult};

/// How long it may take to remove the clones.
const LAST_LIMIT: Duration = Duration::from_secs(120);

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// It could not be established.
    Inconclusive,
    /// It was not reached.
    Skipped,
}

/// One thing that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Its name, unique within the rehearsal.
    pub name: String,
    /// What it establishes.
    pub establishes: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What was seen, or why it does not hold.
    pub message: String,
}

impl Case {
    /// One that is not reached yet.
    pub(super) fn new(name: impl Into<String>, establishes: impl Into<String>) -> Self {
        Self { name: name.into(), establishes: establishes.into(), outcome: Outcome::Skipped, ms: 0, message: "not reached".to_owned() }
    }
}

/// All cases of a rehearsal.
pub(super) struct Board {
    cases: Vec<Case>,
    stop: watch::Receiver<bool>,
}

impl Board {
    pub(super) fn new(cases: Vec<Case>, stop: watch::Receiver<bool>) -> Self {
        Self { cases, stop }
    }

    /// Does what a case is about, until somebody wants us to stop. None where it does not hold.
    pub(super) async fn case(&mut self, name: &str, work: impl Future<Output = EngineResult<String>>) -> Option<()> {
        let began = Instant::now();
        let done = self.unless_stopped(work).await;
        self.record(name, began.elapsed(), done)
    }

    /// What a case begins with. Only a failure is noted: the case itself comes next.
    pub(super) async fn case_begins(&mut self, name: &str, work: impl Future<Output = EngineResult<()>>) -> Option<()> {
        let began = Instant::now();
        match self.unless_stopped(work).await {
            Ok(()) => Some(()),
            Err(error) => self.record(name, began.elapsed(), Err(error)),
        }
    }

    /// The same for what is done even when somebody wants us to stop.
    pub(super) async fn last(&mut self, name: &str, work: impl Future<Output = EngineResult<String>>) {
        let began = Instant::now();
        let done = tokio::time::timeout(LAST_LIMIT, Box::pin(work)).await;
        let late = || EngineError::Inconclusive(format!("it took longer than {} s", LAST_LIMIT.as_secs()));
        self.record(name, began.elapsed(), done.unwrap_or_else(|_| Err(late())));
    }

    /// Notes what became of a case.
    pub(super) fn record(&mut self, name: &str, took: Duration, done: EngineResult<String>) -> Option<()> {
        let case = self.cases.iter_mut().find(|case| case.name == name)?;
        case.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (case.outcome, case.message) = match done {
            Ok(seen) => (Outcome::Passed, seen),
            Err(error) => (outcome(&error), explain(&error)),
        };
        (case.outcome == Outcome::Passed).then_some(())
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = EngineResult<T>>) -> EngineResult<T> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(stopped()),
            done = Box::pin(work) => done,
        }
    }

    pub(super) fn into_cases(self) -> Vec<Case> {
        self.cases
    }
}

pub(super) fn stopped() -> EngineError {
    EngineError::Interrupted("it was not brought to its end".to_owned())
}

fn outcome(error: &EngineError) -> Outcome {
    match error.exit_code() {
        4 => Outcome::Inconclusive,
        _ => Outcome::Failed,
    }
}

/// All that a person needs to mend it: there is no other place to look, the clones are gone.
fn explain(error: &EngineError) -> String {
    let mut lines = vec![match error {
        EngineError::Traffic(traffic) | EngineError::Plan(traffic) => traffic.report(),
        other => other.to_string(),
    }];
    match error {
        EngineError::Findings { findings } => {
            for finding in findings.iter().filter(|finding| finding.blocks()) {
                lines.push(format!("{}: {}", finding.check, finding.message));
                lines.extend(finding.evidence.iter().map(|line| format!("  {line}")));
            }
        }
        EngineError::Differences { examples, .. } => lines.extend(examples.iter().map(|line| format!("  {line}"))),
        EngineError::Interrupted(_) => lines.push("somebody stopped the rehearsal, or it took longer than rehearse.timeout".to_owned()),
        EngineError::Database { source, .. } => lines.extend(source.hint().map(|hint| format!("hint: {hint}"))),
        _ => {}
    }
    lines.join("\n")
}
