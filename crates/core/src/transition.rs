//! The one transition function: what may be decided, what each entry makes of the state, and what is next.

use crate::{
    Command, Event, Identity, Illegal, Pause, Phase, PlanRef, Preparation, Refusal, Shape, Side, State, Step, Switch, Trial, plan::Filter,
};

/// Decides whether a command may be obeyed, and if so which entries say it.
///
/// # Errors
/// A [`Refusal`]; then nothing may be done.
pub fn decide(state: Option<&State>, command: Command) -> Result<Vec<Event>, Refusal> {
    let Some(state) = state else {
        return match command {
            Command::Create { plan, shape, source, target, filter } => create(plan, shape, source, target, filter),
            _ => Err(Refusal::NotBegun),
        };
    };
    match &state.phase {
        Phase::Retired => return Err(Refusal::Over { how: "retired" }),
        Phase::TornDown => return Err(Refusal::Over { how: "torn down" }),
        _ => {}
    }
    let not_now = |what| Err(Refusal::NotNow { what, phase: state.phase.describe() });
    match (command, &state.phase) {
        (Command::Create { .. }, _) => Err(Refusal::Begun),
        (Command::TakeOver { driver }, _) => Ok(take_over(state, driver)),
        (Command::RevisePlan { filter, .. }, _) if filter != state.filter => {
            Err(Refusal::TablesChanged { began: state.filter.clone(), now: filter })
        }
        (Command::RevisePlan { digest, shape, .. }, Phase::Preparing { .. } | Phase::Following | Phase::Completed) => {
            let plan = PlanRef { digest, revision: state.plan.revision + 1, ..state.plan.clone() };
            Ok(vec![Event::PlanRevised { plan, shape }])
        }
        (Command::RevisePlan { .. }, _) => not_now("changing the plan"),
        (Command::SnapshotTaken(snapshot), Phase::Preparing { step: Preparation::CopyRows }) => Ok(vec![Event::SnapshotTaken(snapshot)]),
        (Command::Prepared { facts }, Phase::Preparing { step }) => Ok(vec![Event::Prepared { step: *step, facts }]),
        (Command::TablesVerified { tables }, Phase::Preparing { step: Preparation::Verify } | Phase::Following) => {
            Ok(vec![Event::TablesVerified { tables }])
        }
        (Command::Verified(verification), Phase::Following | Phase::Completed) => Ok(vec![Event::Verified(verification)]),
        (Command::Repair { rows }, Phase::Preparing { step: Preparation::Verify } | Phase::Following | Phase::Completed) => {
            Ok(vec![Event::RepairStarted { rows }])
        }
        (Command::Repair { .. }, _) => not_now("a repair"),
        (
            Command::Repaired { repaired, equal_meanwhile, still_different, tables },
            Phase::Preparing { step: Preparation::Verify } | Phase::Following | Phase::Completed,
        ) => Ok(vec![Event::Repaired { repaired, equal_meanwhile, still_different, tables }]),
        (Command::Switch { to }, _) => start_switch(state, to),
        (Command::Armed { tables }, Phase::Arming(_)) => Ok(vec![Event::Armed { tables }]),
        (Command::BeginPause, Phase::Armed(_)) => Ok(vec![Event::FencingStarted]),
        (Command::Fenced { fence, closed_after_ms, acknowledged }, Phase::Fencing(_)) => {
            Ok(vec![Event::Fenced { fence, closed_after_ms, acknowledged }])
        }
        (Command::Drained { sequences, after_ms, changes }, Phase::Fenced(..)) => Ok(vec![Event::Drained { sequences, after_ms, changes }]),
        (Command::Commit, Phase::Drained(..)) => Ok(vec![Event::Committed]),
        (Command::OfferTrial { digest }, Phase::Opening(switch)) if switch.to == Side::Target => Ok(vec![Event::TrialOffered { digest }]),
        (Command::OfferTrial { .. }, _) => not_now("a trial"),
        (Command::GrantTrial { claim, instance }, _) => match &state.trial {
            Some(Trial { granted: None, .. }) => Ok(vec![Event::TrialGranted { claim, instance }]),
            _ => not_now("a second write on trial"),
        },
        (Command::EndTrial { passed }, _) => Ok(state.trial.iter().map(|_| Event::TrialEnded { passed }).collect()),
        (Command::Opened { pause_ms, acknowledged }, Phase::Opening(_)) => Ok(vec![Event::Opened { pause_ms, acknowledged }]),
        (Command::Smoked, Phase::Smoking(_)) => Ok(vec![Event::Smoked]),
        (Command::Abandon { why, differences }, _) => abandon(state, why, differences),
        (Command::Undone { pause_ms }, Phase::Undoing(_)) => Ok(vec![Event::Undone { pause_ms }]),
        (Command::Restored, Phase::Restoring(_)) => Ok(vec![Event::Restored]),
        (Command::Complete, Phase::Following | Phase::Restoring(_)) if state.authority == Side::Target => Ok(vec![Event::Completed]),
        (Command::Complete, _) => not_now("completing"),
        (Command::Archived { file, sha256, bytes }, Phase::Completed) => Ok(vec![Event::Archived { file, sha256, bytes }]),
        (Command::Archived { .. }, _) => not_now("retiring"),
        (Command::Retired, Phase::Archived) => Ok(vec![Event::Retired]),
        (Command::GiveUp, Phase::Preparing { .. } | Phase::Following | Phase::Smoking(_) | Phase::Restoring(_) | Phase::TearingDown)
            if state.authority == Side::Source =>
        {
            Ok(if matches!(state.phase, Phase::TearingDown) { vec![] } else { vec![Event::GivenUp] })
        }
        (Command::GiveUp, _) => not_now("giving up"),
        (Command::TornDown, Phase::TearingDown) => Ok(vec![Event::TornDown]),
        (
            Command::SnapshotTaken(_)
            | Command::Prepared { .. }
            | Command::TablesVerified { .. }
            | Command::Verified(_)
            | Command::Repaired { .. }
            | Command::Armed { .. }
            | Command::BeginPause
            | Command::Fenced { .. }
            | Command::Drained { .. }
            | Command::Commit
            | Command::Opened { .. }
            | Command::Smoked
            | Command::Undone { .. }
            | Command::Restored
            | Command::Retired
            | Command::TornDown,
            _,
        ) => not_now("this report"),
    }
}

fn create(plan: PlanRef, shape: Shape, source: Identity, target: Identity, filter: Filter) -> Result<Vec<Event>, Refusal> {
    if source.system_identifier == target.system_identifier {
        let what = format!(
            "source ({}) and target ({}) are the same server: system identifier {}",
            source.address, target.address, source.system_identifier
        );
        return Err(Refusal::WrongDatabase { what });
    }
    Ok(vec![Event::Created { plan, shape, source, target, filter: Box::new(filter) }])
}

/// A new driver undoes a switch that it finds before its commit point: the budget is gone with the old driver, and so
/// is whoever decided.
fn take_over(state: &State, driver: String) -> Vec<Event> {
    let mut events = vec![Event::DriverTookOver { driver }];
    if state.before_commit_point() {
        events.push(Event::Abandoned { why: "the driver that had begun the switch is gone".to_owned(), differences: 0 });
    }
    events
}

fn start_switch(state: &State, to: Side) -> Result<Vec<Event>, Refusal> {
    let attempt = match (&state.phase, state.pauses.last()) {
        (Phase::Following | Phase::Completed, Some(pause)) if pause.undone => {
            1 + state.pauses.iter().rev().take_while(|pause| pause.undone).count()
        }
        _ => 1,
    };
    match &state.phase {
        Phase::Following | Phase::Smoking(_) | Phase::Completed if state.authority == to => Err(Refusal::InCharge { side: to }),
        Phase::Following | Phase::Smoking(_) | Phase::Completed if !state.shape.reverse && state.switches(Side::Target) > 0 => {
            Err(Refusal::NoWayBack)
        }
        Phase::Following | Phase::Smoking(_) | Phase::Completed => {
            Ok(vec![Event::SwitchStarted { to, attempt: u32::try_from(attempt).unwrap_or(u32::MAX) }])
        }
        Phase::Archived => Err(Refusal::NotNow { what: "a switch", phase: state.phase.describe() }),
        phase => Err(Refusal::NotNow { what: "a switch", phase: phase.describe() }),
    }
}

fn abandon(state: &State, why: String, differences: u64) -> Result<Vec<Event>, Refusal> {
    match &state.phase {
        Phase::Arming(_) | Phase::Armed(_) | Phase::Fencing(_) | Phase::Fenced(..) | Phase::Drained(..) => {
            Ok(vec![Event::Abandoned { why, differences }])
        }
        Phase::Undoing(_) => Ok(vec![]),
        Phase::Opening(_) | Phase::Smoking(_) => Err(Refusal::PastCommitPoint),
        phase => Err(Refusal::NotNow { what: "abandoning a switch", phase: phase.describe() }),
    }
}

/// What an entry makes of the state. The same in the live run and in recovery.
///
/// # Errors
/// [`Illegal`] if the entry can't follow: the journal was damaged, or written by something else.
pub fn apply(state: Option<State>, event: &Event) -> Result<State, Illegal> {
    let Some(state) = state else {
        return match event {
            Event::Created { plan, shape, source, target, filter } => Ok(State {
                plan: plan.clone(),
                shape: *shape,
                source: source.clone(),
                target: target.clone(),
                filter: Filter::clone(filter),
                epoch: 1,
                authority: Side::Source,
                phase: Phase::Preparing { step: Preparation::Install },
                trial: None,
                snapshot: None,
                pauses: Vec::new(),
            }),
            other => Err(Illegal { event: other.kind(), phase: "nothing".to_owned() }),
        };
    };
    let mut state = state;
    let illegal = Illegal { event: event.kind(), phase: state.phase.describe() };
    if event.raises_epoch() {
        state.epoch += 1;
        state.trial = None;
    }
    state.phase = match (event, state.phase) {
        (Event::DriverTookOver { .. }, phase) => phase,
        (
            Event::RepairStarted { .. } | Event::Repaired { .. },
            phase @ (Phase::Preparing { step: Preparation::Verify } | Phase::Following | Phase::Completed),
        ) => phase,
        (Event::PlanRevised { plan, shape }, phase) => {
            state.plan = plan.clone();
            state.shape = *shape;
            phase
        }
        (Event::SnapshotTaken(snapshot), Phase::Preparing { step: Preparation::CopyRows }) => {
            state.snapshot = Some(snapshot.clone());
            Phase::Preparing { step: Preparation::CopyRows }
        }
        (Event::Prepared { step: done, .. }, Phase::Preparing { step }) if *done == step => {
            step.following(state.shape.migrate).map_or(Phase::Following, |step| Phase::Preparing { step })
        }
        (Event::TablesVerified { .. }, phase @ (Phase::Preparing { step: Preparation::Verify } | Phase::Following))
        | (Event::Verified(_), phase @ (Phase::Following | Phase::Completed)) => phase,
        (Event::SwitchStarted { to, attempt }, Phase::Following | Phase::Smoking(_) | Phase::Completed) if *to != state.authority => {
            Phase::Arming(Switch { to: *to, attempt: *attempt })
        }
        (Event::Armed { .. }, Phase::Arming(switch)) => Phase::Armed(switch),
        (Event::FencingStarted, Phase::Armed(switch)) => Phase::Fencing(switch),
        (Event::Fenced { fence, .. }, Phase::Fencing(switch)) => Phase::Fenced(switch, fence.clone()),
        (Event::Drained { .. }, Phase::Fenced(switch, fence)) => Phase::Drained(switch, fence),
        (Event::Committed, Phase::Drained(switch, _)) => {
            state.authority = switch.to;
            Phase::Opening(switch)
        }
        (Event::TrialOffered { digest }, Phase::Opening(switch)) if switch.to == Side::Target => {
            state.trial = Some(Trial { digest: digest.clone(), granted: None });
            Phase::Opening(switch)
        }
        (Event::TrialGranted { claim, .. }, Phase::Opening(switch)) => {
            let trial = state.trial.as_mut().filter(|trial| trial.granted.is_none()).ok_or(illegal)?;
            trial.granted = Some(claim.clone());
            Phase::Opening(switch)
        }
        (Event::TrialEnded { .. }, Phase::Opening(switch)) if state.trial.is_some() => {
            state.trial = None;
            Phase::Opening(switch)
        }
        (Event::Opened { pause_ms, .. }, Phase::Opening(switch)) => {
            state.trial = None;
            state.pauses.push(Pause { opened: switch.to, pause_ms: *pause_ms, undone: false });
            if state.shape.smoke { Phase::Smoking(switch) } else { Phase::Following }
        }
        (Event::Smoked, Phase::Smoking(_)) => Phase::Following,
        (
            Event::Abandoned { .. },
            Phase::Arming(switch) | Phase::Armed(switch) | Phase::Fencing(switch) | Phase::Fenced(switch, _) | Phase::Drained(switch, _),
        ) => Phase::Undoing(switch),
        (Event::Undone { pause_ms }, Phase::Undoing(switch)) => {
            state.pauses.push(Pause { opened: switch.from(), pause_ms: *pause_ms, undone: true });
            Phase::Restoring(switch)
        }
        (Event::Restored, Phase::Restoring(_)) => Phase::Following,
        (Event::Completed, Phase::Following | Phase::Restoring(_)) if state.authority == Side::Target => Phase::Completed,
        (Event::Archived { .. }, Phase::Completed) => Phase::Archived,
        (Event::Retired, Phase::Archived) => Phase::Retired,
        (Event::GivenUp, Phase::Preparing { .. } | Phase::Following | Phase::Smoking(_) | Phase::Restoring(_))
            if state.authority == Side::Source =>
        {
            Phase::TearingDown
        }
        (Event::TornDown, Phase::TearingDown) => Phase::TornDown,
        _ => return Err(illegal),
    };
    Ok(state)
}

/// Folds a whole journal.
///
/// # Errors
/// [`Illegal`] at the first entry that can't follow.
pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Option<State>, Illegal> {
    events.into_iter().try_fold(None, |state, event| apply(state, event).map(Some))
}

/// The step that is to be done from here, or none where the cutover waits for a decision.
#[must_use]
pub fn next(state: &State) -> Option<Step> {
    match &state.phase {
        Phase::Preparing { step } => Some(Step::Prepare(*step)),
        Phase::Arming(switch) => Some(Step::Arm(*switch)),
        Phase::Armed(switch) => Some(Step::BeginPause(*switch)),
        Phase::Fencing(switch) => Some(Step::Fence(*switch)),
        Phase::Fenced(switch, _) => Some(Step::Drain(*switch)),
        Phase::Drained(switch, _) => Some(Step::Commit(*switch)),
        Phase::Opening(switch) => Some(Step::Open(*switch)),
        Phase::Smoking(switch) => Some(Step::Smoke(*switch)),
        Phase::Undoing(switch) => Some(Step::Undo(*switch)),
        Phase::Restoring(switch) => Some(Step::Restore(*switch)),
        Phase::Archived => Some(Step::Retire),
        Phase::TearingDown => Some(Step::TearDown),
        Phase::Following | Phase::Completed | Phase::Retired | Phase::TornDown => None,
    }
}

impl Phase {
    /// A few words for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Preparing { step } => format!("preparing ({})", step.name()),
            Self::Following => "following".to_owned(),
            Self::Arming(switch) => format!("arming for the switch to the {}", switch.to),
            Self::Armed(switch) => format!("armed for the switch to the {}", switch.to),
            Self::Fencing(switch) => format!("fencing the {}", switch.from()),
            Self::Fenced(switch, _) => format!("draining the {}", switch.from()),
            Self::Drained(switch, _) => format!("about to commit to the {}", switch.to),
            Self::Opening(switch) => format!("opening the {}", switch.to),
            Self::Smoking(switch) => format!("trying the {}", switch.to),
            Self::Undoing(switch) => format!("undoing the switch to the {}", switch.to),
            Self::Restoring(switch) => format!("restoring the {} stream after an undone switch", switch.stream()),
            Self::Completed => "completed".to_owned(),
            Self::Archived => "retiring".to_owned(),
            Self::Retired => "retired".to_owned(),
            Self::TearingDown => "being torn down".to_owned(),
            Self::TornDown => "torn down".to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
