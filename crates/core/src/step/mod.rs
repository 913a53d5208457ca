//! The steps of a cutover as data: what each does, how it is undone, and how long it may take.

mod spec;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Side, Stream, Switch};

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
    /// Begin to gather the keys of the rows that change at the origin.
    WatchChanges(Stream),
    /// Compare what has changed so far, while both sides move, until little is left.
    VerifyChanges(Stream),
    /// Compare what is left, up to the marker, while both sides stand still.
    CompareChanges(Stream),
    /// Bring over the large objects that changed at the origin, while both sides move, until little is left.
    BringLargeObjects(Stream),
    /// Bring over those that changed last, while both sides stand still.
    BringLastLargeObjects(Stream),
    /// See that the publication covers the catalogue, every table replicates, nothing is prepared, the lag is small.
    CheckStream(Stream),
    /// Hold traffic.
    HoldTraffic,
    /// Send traffic to a side and let it go on.
    ReleaseTraffic(Side),
    /// Wait until every client of the flags has heard, and none is left that is connected to the other side.
    AwaitClients(Side),
    /// Let one client try one write at a side, while all others are still refused.
    Try(Side),
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
