//! What has happened: the journal's entries. The state is their fold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Lsn, Preparation, Side, plan::Filter};

/// A server and database, by what cannot be mistaken for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `pg_control_system().system_identifier`: given to a cluster when it was made.
    pub system_identifier: String,
    /// The database's name.
    pub database: String,
    /// `pg_control_checkpoint().timeline_id`: changes when a standby is promoted.
    pub timeline: u32,
    /// Major version.
    pub major: u32,
    /// Where it was reached, for messages.
    pub address: String,
}

impl Identity {
    /// Whether `other` is the same database of the same cluster. The timeline may differ; that is a fail-over.
    #[must_use]
    pub fn same_database(&self, other: &Self) -> bool {
        self.system_identifier == other.system_identifier && self.database == other.database
    }
}

/// Which plan a cutover follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRef {
    /// The plan's name.
    pub name: String,
    /// SHA-256 of the plan file, in hexadecimal.
    pub digest: String,
    /// 1 for the first version, one more for each change.
    pub revision: u32,
}

/// What of the plan decides which steps there are. It is journalled, so that recovery needs no plan file to know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The old side is kept in step after the switch.
    pub reverse: bool,
    /// There is a migration hook.
    pub migrate: bool,
    /// There is a smoke test.
    pub smoke: bool,
}

/// The instant that the copy was taken at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The replication slot that was made before it, and holds everything committed since.
    pub slot: String,
    /// Its name, as `pg_dump --snapshot` takes it.
    pub snapshot: String,
    /// The log position of the snapshot, for point-in-time recovery.
    pub lsn: Lsn,
}

/// The fence that stands, and the position that covers every commit before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The log's insert position, read after the gate was closed.
    pub lsn: Lsn,
    /// The marker that was written behind the last commit.
    pub marker: String,
    /// The server's timeline at that moment.
    pub timeline: u32,
}

/// What was compared of the rows that changed while a switch was prepared. All of it was the same on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Looked up before the pause, while both sides moved. Unit: keys.
    pub keys_before: u64,
    /// Looked up inside the pause, while both sides stood still. Unit: keys.
    pub keys_in_pause: u64,
    /// Tables that were compared as a whole.
    pub tables: u64,
    /// Tables that changed and could not be compared inside the pause, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
}

/// Who was waited for until the last of them had acknowledged an epoch, or could not act on an older one any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Servers that give leases.
    pub servers: u64,
    /// Their clients.
    pub clients: u64,
    /// When it was the last one's turn, in milliseconds: for a hold after the pause began, for an opening after the gate
    /// was open.
    pub after_ms: u64,
}

/// A table of which every row was the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedTable {
    /// Its schema.
    pub schema: String,
    /// Its name in the schema.
    pub name: String,
    /// A digest of what its definition was on both sides. What is altered later is not what was compared.
    pub definition: String,
    /// The position of the authority's log before its first row was compared.
    pub lsn: Lsn,
    /// Rows compared.
    pub rows: u64,
}

/// A verification of all tables that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// The position of the authority's log before the first row was compared.
    pub lsn: Lsn,
    /// Tables compared.
    pub tables: u64,
    /// Rows compared.
    pub rows: u64,
    /// Rows, columns or tables that differ. Nothing is known to be equal by one that found any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub differences: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A cutover begins: its plan, and which databases it is about.
    Created {
        /// The plan.
        plan: PlanRef,
        /// What decides its steps.
        shape: Shape,
        /// The source.
        source: Identity,
        /// The target.
        target: Identity,
        /// Which tables it covers, to its end.
        #[serde(default, skip_serializing_if = "Filter::is_all")]
        filter: Box<Filter>,
    },
    /// The plan was changed.
    PlanRevised {
        /// The new revision.
        plan: PlanRef,
        /// What decides its steps from now on.
        shape: Shape,
    },
    /// A driver took the cutover over; every older driver is shut out by the epoch.
    DriverTookOver {
        /// Who: user, host and process.
        driver: String,
    },
    /// The slot and the snapshot of the copy exist.
    SnapshotTaken(Snapshot),
    /// A step of the preparation is done.
    Prepared {
        /// Which.
        step: Preparation,
        /// What was measured, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        facts: BTreeMap<String, serde_json::Value>,
    },
    /// These tables are compared. Where the verification is broken off, the next one goes on with the others.
    TablesVerified {
        /// Which.
        tables: Vec<VerifiedTable>,
    },
    /// Both sides were compared once more, to the end, while one followed the other.
    Verified(Verification),
    /// Rows of the follower's that differ are to be made equal to the authority's.
    RepairStarted {
        /// Differences that were reported. Unit: rows.
        rows: u64,
    },
    /// They were, as far as they could be.
    Repaired {
        /// Rows that were made equal.
        repaired: u64,
        /// Rows that were equal by then.
        equal_meanwhile: u64,
        /// Rows that are different still, or not known to be equal.
        still_different: u64,
        /// Rows that were made equal, by table.
        tables: BTreeMap<String, u64>,
    },
    /// Somebody decided that the database changes hands.
    SwitchStarted {
        /// The side that is to be in charge.
        to: Side,
        /// 1 for the first attempt of this switch.
        attempt: u32,
    },
    /// The way back is made and the gates stand open on their hinges: a pause can begin.
    Armed {
        /// Tables with a gate.
        tables: u32,
    },
    /// The pause begins: from here on, until it is undone, writes may be refused.
    FencingStarted,
    /// No client can commit at the old side any more.
    Fenced {
        /// The fence.
        fence: Fence,
        /// When the gate was closed, in milliseconds after the pause began.
        closed_after_ms: u64,
        /// A7: who had acknowledged by then that writes are held; none where the plan has no flags.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        acknowledged: Option<Acknowledged>,
    },
    /// The new side holds all of the old one's data, durably, and the way back runs.
    Drained {
        /// Sequences that were set.
        sequences: u32,
        /// In milliseconds after the pause began.
        after_ms: u64,
        /// What was compared of the rows that had changed; none where the plan or a missing slot kept it from being.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changes: Option<Changes>,
    },
    /// The commit point: the new side is the authority.
    Committed,
    /// Before the new side is opened to all clients, one of them may try one write.
    TrialOffered {
        /// SHA-256, in hexadecimal, of the word that whoever tries it shows.
        digest: String,
    },
    /// This one may, and no other.
    TrialGranted {
        /// Its claim, as the server wrote it down that it asked.
        claim: String,
        /// Its name.
        instance: String,
    },
    /// Nobody may any more.
    TrialEnded {
        /// Whether the hook said that it went well.
        passed: bool,
    },
    /// The new side takes writes and traffic goes there.
    Opened {
        /// How long the pause lasted, in milliseconds, from its first effect to the open gate.
        pause_ms: u64,
        /// Whom the opening waited for; none where it waited for nobody, or a driver before us had committed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        acknowledged: Option<Acknowledged>,
    },
    /// The smoke test passed.
    Smoked,
    /// A switch is given up before its commit point, and is to be undone.
    Abandoned {
        /// Why.
        why: String,
        /// Rows that were found to differ, if it was because of them. What was verified before doesn't count any more then.
        #[serde(default, skip_serializing_if = "is_zero")]
        differences: u64,
    },
    /// An abandoned switch is undone: the old side takes writes.
    Undone {
        /// How long writes were held, in milliseconds.
        pause_ms: u64,
    },
    /// After an undone switch the old side's changes flow as before.
    Restored,
    /// The roles are swapped: the target is what the source was.
    Completed,
    /// A final archive of the old side was written and read back.
    Archived {
        /// The file.
        file: String,
        /// Its SHA-256, in hexadecimal.
        sha256: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The reverse stream is dropped: there is no way back any more.
    Retired,
    /// The cutover is being given up before any switch: whatever it made is to be removed.
    GivenUp,
    /// What it had made is removed from both databases.
    TornDown,
}

impl Event {
    /// The entry's kind, as the journal stores and shows it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::PlanRevised { .. } => "plan_revised",
            Self::DriverTookOver { .. } => "driver_took_over",
            Self::SnapshotTaken(_) => "snapshot_taken",
            Self::Prepared { .. } => "prepared",
            Self::TablesVerified { .. } => "tables_verified",
            Self::Verified(_) => "verified",
            Self::RepairStarted { .. } => "repair_started",
            Self::Repaired { .. } => "repaired",
            Self::SwitchStarted { .. } => "switch_started",
            Self::Armed { .. } => "armed",
            Self::FencingStarted => "fencing_started",
            Self::Fenced { .. } => "fenced",
            Self::Drained { .. } => "drained",
            Self::Committed => "committed",
            Self::TrialOffered { .. } => "trial_offered",
            Self::TrialGranted { .. } => "trial_granted",
            Self::TrialEnded { .. } => "trial_ended",
            Self::Opened { .. } => "opened",
            Self::Smoked => "smoked",
            Self::Abandoned { .. } => "abandoned",
            Self::Undone { .. } => "undone",
            Self::Restored => "restored",
            Self::Completed => "completed",
            Self::Archived { .. } => "archived",
            Self::Retired => "retired",
            Self::GivenUp => "given_up",
            Self::TornDown => "torn_down",
        }
    }

    /// Whether the entry raises the epoch: a new driver, or a new route.
    #[must_use]
    pub fn raises_epoch(&self) -> bool {
        matches!(self, Self::DriverTookOver { .. } | Self::FencingStarted | Self::Committed | Self::Abandoned { .. } | Self::Undone { .. })
    }
}
