//! The steps of a cutover as data: what each does, how it is undone, and how long it may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Side, State, Stream, Switch};

/// A step of the preparation, in the order in which they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preparation {
    /// The gate and its functions are installed on both sides; the target's is closed and its clients shut out.
    Install,
    /// The target gets the source's tables, without indexes, each with a closed gate.
    CopySchema,
    /// The rows are copied from one snapshot, taken after the slot.
    CopyRows,
    /// Indexes, constraints and statistics are made.
    BuildIndexes,
    /// The migration hook runs against the target.
    Migrate,
    /// The target follows the source from the slot.
    Follow,
    /// The target has caught up.
    CatchUp,
    /// Both sides are compared, row by row.
    Verify,
}

impl Preparation {
    /// All of them, in order.
    pub const ALL: [Self; 8] =
        [Self::Install, Self::CopySchema, Self::CopyRows, Self::BuildIndexes, Self::Migrate, Self::Follow, Self::CatchUp, Self::Verify];

    /// The one after this, of those that a plan of this shape has.
    #[must_use]
    pub fn following(self, migrate: bool) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step > self && (migrate || *step != Self::Migrate))
    }

    /// Its name in the journal, on the page and in the plan.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::CopySchema => "copy_schema",
            Self::CopyRows => "copy_rows",
            Self::BuildIndexes => "build_indexes",
            Self::Migrate => "migrate",
            Self::Follow => "follow",
            Self::CatchUp => "catch_up",
            Self::Verify => "verify",
        }
    }
}

/// A journalled, idempotent unit of work: when it is done, exactly one entry says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// One of the preparation.
    Prepare(Preparation),
    /// Make the way back and arm the gates.
    Arm(Switch),
    /// Decide to pause: the entry alone, before any effect.
    BeginPause(Switch),
    /// Hold traffic, close the old side's gate, write the marker.
    Fence(Switch),
    /// Wait for the marker, make it durable, turn the stream round.
    Drain(Switch),
    /// Look at the fence once more, then commit.
    Commit(Switch),
    /// Open the new side and send traffic there.
    Open(Switch),
    /// Try the new side.
    Smoke(Switch),
    /// Open the old side again, after a switch that was abandoned before its commit point.
    Undo(Switch),
    /// Turn the stream round again, after the undo.
    Restore(Switch),
    /// Drop the reverse stream and the gates.
    Retire,
    /// Remove everything that was made.
    TearDown,
}

/// The user's own commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Migrates the target's schema.
    Migrate,
    /// Tries the side that was opened.
    Smoke,
}

/// One effect on a database, on traffic, or a wait for something to be observed. Each can be done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Install the control schema with the gate.
    InstallGate(Side),
    /// Close the gate and wait for writers under way.
    CloseGate(Side),
    /// Open the gate.
    OpenGate(Side),
    /// Take the right to connect from everyone but us.
    Isolate(Side),
    /// Give that right back as it was.
    Admit(Side),
    /// Create the tables, types and functions.
    CopySchema,
    /// Put the gate before every table and partition.
    Arm(Side),
    /// Take the gate from every table again.
    Disarm(Side),
    /// Publish the tables that are to be copied.
    Publish(Stream),
    /// Make the slot, export its snapshot, copy all rows.
    CopyRows,
    /// Build indexes and constraints, refresh materialised views, collect statistics.
    BuildIndexes,
    /// Run a command of the user's.
    RunHook(Hook),
    /// Make the slot of a stream, at the origin's present position.
    CreateSlot(Stream),
    /// Make the subscription of a stream, disabled.
    Subscribe(Stream),
    /// Let the stream flow, and see its worker run.
    EnableStream(Stream),
    /// Stop the stream and see its worker gone.
    DisableStream(Stream),
    /// Skip everything that the origin has written so far.
    AdvanceStream(Stream),
    /// Drop the slot of a stream that has stopped, so that its origin keeps no log for it.
    DropSlot(Stream),
    /// Wait until the destination is close behind.
    CatchUp(Stream),
    /// Compare both sides.
    Verify,
    /// See that the publication covers the catalogue, every table replicates, nothing is prepared, the lag is small.
    CheckStream(Stream),
    /// Hold traffic.
    HoldTraffic,
    /// Send traffic to a side and let it go on.
    ReleaseTraffic(Side),
    /// Write a marker and read the position that covers every commit.
    WriteMarker(Side),
    /// Wait until the marker is applied.
    AwaitMarker(Stream),
    /// Commit once, synchronously, so that everything applied before it is durable.
    Flush(Side),
    /// Set every sequence as at the other side, with head-room.
    SetSequences(Side),
    /// See that gate, timeline and server are as the journal says.
    CheckFence(Side),
    /// Drop a stream: subscription, slot and publication.
    DropStream(Stream),
    /// Remove the control schema.
    RemoveGate(Side),
}

/// What a step does, how that is undone, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepSpec {
    /// Its name in the journal, on the page and in the plan.
    pub name: &'static str,
    /// One sentence: what it establishes.
    pub establishes: &'static str,
    /// The actions, in order.
    pub does: Vec<Action>,
    /// The actions that undo it, in order; empty where there is nothing to undo.
    pub undo: Vec<Action>,
    /// How long it may take, where the pause's budget does not bound it; none where it takes as long as the data is large.
    pub timeout: Option<Duration>,
    /// Whether it runs inside the pause, against what is left of its budget.
    pub in_pause: bool,
}

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
                establishes: "the intent is durable before the first effect",
                does: vec![Action::CheckStream(switch.stream())],
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
            Self::Open(switch) => StepSpec {
                name: "open",
                establishes: "the new side takes writes and traffic goes there",
                does: vec![
                    Action::Admit(switch.to),
                    Action::OpenGate(switch.to),
                    Action::ReleaseTraffic(switch.to),
                    Action::DropSlot(switch.stream()),
                ],
                undo: vec![],
                timeout: Some(MINUTE),
                in_pause: false,
            },
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
                vec![Action::Publish(Stream::Forward), Action::CopyRows],
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
            Self::CatchUp => ("the target is close behind", vec![Action::CatchUp(Stream::Forward)], vec![], None),
            Self::Verify => ("both sides hold the same rows", vec![Action::Verify], vec![], None),
        };
        StepSpec { name: self.name(), establishes, does, undo, timeout, in_pause: false }
    }
}

fn arm(switch: Switch, reverse: bool) -> StepSpec {
    let back = switch.stream().opposite();
    let mut does = vec![Action::CheckStream(switch.stream())];
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
    let mut does =
        vec![Action::AwaitMarker(stream), Action::Flush(switch.to), Action::DisableStream(stream), Action::SetSequences(switch.to)];
    if reverse {
        does.extend([Action::AdvanceStream(back), Action::EnableStream(back)]);
    }
    StepSpec {
        name: "drain",
        establishes: "the new side holds all of the old one, durably, and the way back runs",
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
