//! What each step does, how that is undone, how long it may take: the protocol, written down once.

use std::time::Duration;

use super::{Action, Hook, Preparation, Step, StepSpec};
use crate::{Side, State, Stream, Switch};

const MINUTE: Duration = Duration::from_secs(60);

impl Step {
    /// The step as data. `reverse` says whether the old side is kept in step afterwards.
    #[must_use]
    pub fn spec(self, reverse: bool) -> StepSpec {
        match self {
            Self::Prepare(preparation) => preparation.spec(),
            Self::Arm(switch) => arm(switch, reverse),
            Self::BeginPause(switch) => StepSpec {
                name: "begin_pause",
                establishes: "the rows that changed are the same on both sides but for the last; then the intent is durable before the first effect",
                does: vec![
                    Action::CheckStream(switch.stream()),
                    Action::VerifyChanges(switch.stream()),
                    Action::BringLargeObjects(switch.stream()),
                ],
                undo: vec![],
                timeout: Some(MINUTE),
                in_pause: false,
            },
            Self::Fence(switch) => StepSpec {
                name: "fence",
                establishes: "no client commits at the old side after the marker",
                does: vec![Action::HoldTraffic, Action::CloseGate(switch.from()), Action::WriteMarker(switch.from())],
                undo: vec![Action::OpenGate(switch.from()), Action::ReleaseTraffic(switch.from())],
                timeout: None,
                in_pause: true,
            },
            Self::Drain(switch) => drain(switch, reverse),
            Self::Commit(switch) => StepSpec {
                name: "commit",
                establishes: "the fence still holds; then the commit point: the new side is the authority",
                does: vec![Action::CheckFence(switch.from())],
                undo: vec![],
                timeout: None,
                in_pause: true,
            },
            Self::Open(switch) => open(switch),
            Self::Smoke(_) => StepSpec {
                name: "smoke",
                establishes: "the new side does what the application needs",
                does: vec![Action::RunHook(Hook::Smoke)],
                undo: vec![],
                timeout: None,
                in_pause: false,
            },
            Self::Undo(switch) => undo(switch),
            Self::Restore(switch) => restore(switch, reverse),
            Self::Retire => StepSpec {
                name: "retire",
                establishes: "the old side is archived and no longer kept in step; there is no way back any more",
                does: vec![
                    Action::DropStream(Stream::Reverse),
                    Action::DropStream(Stream::Forward),
                    Action::Disarm(Side::Target),
                    Action::RemoveGate(Side::Target),
                ],
                undo: vec![],
                timeout: Some(5 * MINUTE),
                in_pause: false,
            },
            Self::TearDown => StepSpec {
                name: "tear_down",
                establishes: "nothing of the cutover is left in either database; the target's copy stays as it is, followed no more",
                does: vec![
                    Action::DropStream(Stream::Forward),
                    Action::DropStream(Stream::Reverse),
                    Action::Disarm(Side::Source),
                    Action::RemoveGate(Side::Source),
                    Action::Disarm(Side::Target),
                    Action::Admit(Side::Target),
                    Action::RemoveGate(Side::Target),
                ],
                undo: vec![],
                timeout: Some(5 * MINUTE),
                in_pause: false,
            },
        }
    }

    /// Every step of a cutover in order, as `cutover plan` prints it, from where `state` stands.
    #[must_use]
    pub fn all(state: &State) -> Vec<Self> {
        let switch = Switch { to: Side::Target, attempt: 1 };
        let preparations =
            Preparation::ALL.into_iter().filter(|step| state.shape.migrate || *step != Preparation::Migrate).map(Self::Prepare);
        let mut steps: Vec<Self> = preparations.collect();
        steps.extend([
            Self::Arm(switch),
            Self::BeginPause(switch),
            Self::Fence(switch),
            Self::Drain(switch),
            Self::Commit(switch),
            Self::Open(switch),
        ]);
        if state.shape.smoke {
            steps.push(Self::Smoke(switch));
        }
        steps.push(Self::Retire);
        steps
    }
}

impl Preparation {
    fn spec(self) -> StepSpec {
        let (establishes, does, undo, timeout) = match self {
            Self::Install => (
                "both gates exist; no client can write at the target",
                vec![
                    Action::InstallGate(Side::Target),
                    Action::CloseGate(Side::Target),
                    Action::Isolate(Side::Target),
                    Action::InstallGate(Side::Source),
                ],
                vec![Action::RemoveGate(Side::Source), Action::Admit(Side::Target), Action::RemoveGate(Side::Target)],
                Some(MINUTE),
            ),
            Self::CopySchema => (
                "the target has the source's tables, each behind a closed gate",
                vec![Action::CopySchema, Action::Arm(Side::Target)],
                vec![],
                Some(30 * MINUTE),
            ),
            Self::CopyRows => (
                "the target holds the rows of one snapshot, and the slot everything since",
                vec![Action::BringLargeObjects(Stream::Forward), Action::Publish(Stream::Forward), Action::CopyRows],
                vec![Action::DropStream(Stream::Forward)],
                None,
            ),
            Self::BuildIndexes => (
                "the target has the source's indexes, constraints and statistics",
                vec![Action::BuildIndexes, Action::Arm(Side::Target)],
                vec![],
                None,
            ),
            Self::Migrate => {
                ("the target's schema is migrated", vec![Action::RunHook(Hook::Migrate), Action::Arm(Side::Target)], vec![], None)
            }
            Self::Follow => (
                "the target applies what the source commits",
                vec![Action::Subscribe(Stream::Forward), Action::EnableStream(Stream::Forward)],
                vec![Action::DisableStream(Stream::Forward)],
                Some(MINUTE),
            ),
            Self::CatchUp => (
                "the target is close behind",
                vec![Action::BringLargeObjects(Stream::Forward), Action::CatchUp(Stream::Forward)],
                vec![],
                None,
            ),
            Self::Verify => ("both sides hold the same rows", vec![Action::Verify], vec![], None),
        };
        StepSpec { name: self.name(), establishes, does, undo, timeout, in_pause: false }
    }
}

/// On the way there the flags say "open" only when no instance is left at the old side, as far as the plan allows time
/// for that (A13, A16). On the way back, writes go on at once: who is still connected to the target is refused there, by
/// the flags, which name the source, and by the gate, which is closed.
fn open(switch: Switch) -> StepSpec {
    let mut does =
        vec![Action::Admit(switch.to), Action::OpenGate(switch.to), Action::ReleaseTraffic(switch.to), Action::DropSlot(switch.stream())];
    if switch.to == Side::Target {
        does.extend([Action::AwaitClients(switch.to), Action::Try(switch.to)]);
    }
    StepSpec {
        name: "open",
        establishes: "the new side takes writes and traffic goes there",
        does,
        undo: vec![],
        timeout: Some(MINUTE),
        in_pause: false,
    }
}

fn arm(switch: Switch, reverse: bool) -> StepSpec {
    let back = switch.stream().opposite();
    let mut does =
        vec![Action::CheckStream(switch.stream()), Action::BringLargeObjects(switch.stream()), Action::WatchChanges(switch.stream())];
    if reverse {
        does.extend([Action::Publish(back), Action::CreateSlot(back), Action::Subscribe(back)]);
    }
    does.extend([Action::Arm(switch.to), Action::Arm(switch.from())]);
    StepSpec {
        name: "arm",
        establishes: "the way back exists before it is needed, and every table has a gate",
        does,
        undo: vec![],
        timeout: Some(5 * MINUTE),
        in_pause: false,
    }
}

fn drain(switch: Switch, reverse: bool) -> StepSpec {
    let (stream, back) = (switch.stream(), switch.stream().opposite());
    let mut does = vec![
        Action::AwaitMarker(stream),
        Action::Flush(switch.to),
        Action::CompareChanges(stream),
        Action::BringLastLargeObjects(stream),
        Action::DisableStream(stream),
        Action::SetSequences(switch.to),
    ];
    if reverse {
        does.extend([Action::AdvanceStream(back), Action::EnableStream(back)]);
    }
    StepSpec {
        name: "drain",
        establishes: "the new side holds all of the old one, durably, what changed last is the same on both, and the way back runs",
        does,
        undo: turn_back(switch, reverse),
        timeout: None,
        in_pause: true,
    }
}

/// Writes go on first: while they are held, nothing else matters. That the stream is turned round is a step of its own,
/// so that a slot which was lost meanwhile keeps nobody from writing.
fn undo(switch: Switch) -> StepSpec {
    StepSpec {
        name: "undo",
        establishes: "the old side takes writes, and traffic goes there",
        does: vec![Action::OpenGate(switch.from()), Action::ReleaseTraffic(switch.from())],
        undo: vec![],
        timeout: Some(5 * MINUTE),
        in_pause: false,
    }
}

fn restore(switch: Switch, reverse: bool) -> StepSpec {
    StepSpec {
        name: "restore",
        establishes: "the old side is followed as before; meanwhile its slot kept what it committed",
        does: turn_back(switch, reverse),
        undo: vec![],
        timeout: Some(5 * MINUTE),
        in_pause: false,
    }
}

/// The two streams never run at once, or each would send the other's changes round for ever.
fn turn_back(switch: Switch, reverse: bool) -> Vec<Action> {
    let (stream, back) = (switch.stream(), switch.stream().opposite());
    let mut actions = Vec::new();
    if reverse {
        actions.push(Action::DisableStream(back));
    }
    actions.push(Action::EnableStream(stream));
    actions
}
