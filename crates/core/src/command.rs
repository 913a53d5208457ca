//! What somebody asks for, and why it can be refused.

use std::collections::BTreeMap;

use crate::{Acknowledged, Changes, Fence, Identity, PlanRef, Shape, Side, Snapshot, Verification, VerifiedTable, plan::Filter};

/// What somebody asks for, or what a step was observed to have done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Begin a cutover.
    Create {
        /// The plan.
        plan: PlanRef,
        /// What decides its steps.
        shape: Shape,
        /// The source.
        source: Identity,
        /// The target.
        target: Identity,
        /// Which tables it covers.
        filter: Filter,
    },
    /// Follow a changed plan.
    RevisePlan {
        /// SHA-256 of the new file.
        digest: String,
        /// What decides its steps.
        shape: Shape,
        /// Which tables it wants to cover.
        filter: Filter,
    },
    /// Drive the cutover from now on.
    TakeOver {
        /// Who.
        driver: String,
    },
    /// The copy's snapshot exists.
    SnapshotTaken(Snapshot),
    /// The preparation that was next is done.
    Prepared {
        /// What was measured.
        facts: BTreeMap<String, serde_json::Value>,
    },
    /// Tables were compared, while a verification goes on.
    TablesVerified {
        /// Which.
        tables: Vec<VerifiedTable>,
    },
    /// All of them were, and what came of it.
    Verified(Verification),
    /// Make rows of the follower's that differ equal to the authority's.
    Repair {
        /// How many were reported to differ.
        rows: u64,
    },
    /// They are, as far as they could be.
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
    /// Let the database change hands.
    Switch {
        /// The side that is to be in charge.
        to: Side,
    },
    /// The way back is made, the gates are armed.
    Armed {
        /// Tables with a gate.
        tables: u32,
    },
    /// Begin the pause.
    BeginPause,
    /// The old side is fenced.
    Fenced {
        /// The fence.
        fence: Fence,
        /// Milliseconds after the pause began.
        closed_after_ms: u64,
        /// Who had acknowledged by then that writes are held.
        acknowledged: Option<Acknowledged>,
    },
    /// The new side holds everything.
    Drained {
        /// Sequences set.
        sequences: u32,
        /// Milliseconds after the pause began.
        after_ms: u64,
        /// What was compared of the rows that had changed.
        changes: Option<Changes>,
    },
    /// The fence was seen to hold: commit.
    Commit,
    /// Let one client try one write before all may.
    OfferTrial {
        /// SHA-256, in hexadecimal, of the word that whoever tries it shows.
        digest: String,
    },
    /// Let this one.
    GrantTrial {
        /// Its claim.
        claim: String,
        /// Its name.
        instance: String,
    },
    /// Let nobody any more.
    EndTrial {
        /// Whether it went well.
        passed: bool,
    },
    /// The new side takes writes.
    Opened {
        /// Length of the pause in milliseconds.
        pause_ms: u64,
        /// Whom the opening waited for.
        acknowledged: Option<Acknowledged>,
    },
    /// The smoke test passed.
    Smoked,
    /// Give the switch up.
    Abandon {
        /// Why.
        why: String,
        /// Rows that were found to differ, if it was because of them.
        differences: u64,
    },
    /// Of the abandoned switch nothing holds writes any more.
    Undone {
        /// How long writes were held, in milliseconds.
        pause_ms: u64,
    },
    /// The old side's changes flow as before.
    Restored,
    /// Swap the roles for good.
    Complete,
    /// The archive was written and read back.
    Archived {
        /// The file.
        file: String,
        /// SHA-256 in hexadecimal.
        sha256: String,
        /// Size in bytes.
        bytes: u64,
    },
    /// The reverse stream is gone.
    Retired,
    /// Give the cutover up before any switch.
    GiveUp,
    /// What it had made is removed.
    TornDown,
}

/// Why a command can't be obeyed now. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cutover exists already.
    #[error("this cutover has begun already")]
    Begun,
    /// There is no cutover yet.
    #[error("this cutover has not begun")]
    NotBegun,
    /// The databases are not those of the journal.
    #[error("{what}")]
    WrongDatabase {
        /// Which, and how they differ.
        what: String,
    },
    /// What a cutover covers can't change under way: what was copied, published and fenced would no longer fit.
    #[error("the plan's [tables] has changed since the cutover began: it covers {began}, the plan now says {now}")]
    TablesChanged {
        /// What the journal says.
        began: Filter,
        /// What the plan says.
        now: Filter,
    },
    /// It is over.
    #[error("this cutover is over: it was {how}")]
    Over {
        /// How it ended.
        how: &'static str,
    },
    /// Not from where it stands.
    #[error("{what} is not possible while the cutover is {phase}")]
    NotNow {
        /// What was asked.
        what: &'static str,
        /// Where it stands.
        phase: String,
    },
    /// The side is in charge already.
    #[error("the {side} is in charge already")]
    InCharge {
        /// The side.
        side: Side,
    },
    /// After the commit point there is only forward.
    #[error("the switch has passed its commit point and can only go forward")]
    PastCommitPoint,
    /// The plan said so.
    #[error("the plan keeps no way back (`reverse = false`): the switch was the point of no return")]
    NoWayBack,
}

/// An entry that can't follow the ones before it: the journal was not written by this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a journal entry `{event}` can't follow the state `{phase}`")]
pub struct Illegal {
    /// The entry's kind.
    pub event: &'static str,
    /// Where the cutover stood.
    pub phase: String,
}
