//! What a cutover is at one moment.

use serde::{Deserialize, Serialize};

use crate::{Fence, Identity, PlanRef, Preparation, Route, Shape, Side, Snapshot, Stream, Writes, plan::Filter};

/// One change of hands that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The side that is to be in charge.
    pub to: Side,
    /// 1 for the first attempt.
    pub attempt: u32,
}

impl Switch {
    /// The side that was in charge.
    #[must_use]
    pub fn from(self) -> Side {
        self.to.other()
    }

    /// The stream that the new side follows, and that stops in the pause.
    #[must_use]
    pub fn stream(self) -> Stream {
        Stream::from_side(self.from())
    }
}

/// Where a cutover stands. Each phase is durable: it is the fold of journal entries and nothing else. The step
/// that [`crate::next`] names for a phase may be under way or done already; every earlier one is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", content = "at", rename_all = "snake_case")]
pub enum Phase {
    /// Set by [`Created`](crate::Event::Created) and each finished preparation: the step named is to be done.
    Preparing {
        /// The step that is next, or under way.
        step: Preparation,
    },
    /// Set by the last preparation, by an opening, or when an abandoned switch is undone altogether: the authority takes writes, the other
    /// side follows. A switch may begin.
    Following,
    /// Set by the decision to switch: the way back is being made and the gates armed. Nothing is held yet.
    Arming(Switch),
    /// Set when both are done. Nothing is held yet; the pause is about to begin.
    Armed(Switch),
    /// Set *before* the first effect of the pause. Traffic may be held, the gate may be closed.
    Fencing(Switch),
    /// Set when no client can commit at the old side any more.
    Fenced(Switch, Fence),
    /// Set when the new side holds everything and the way back runs.
    Drained(Switch, Fence),
    /// Set by the commit point. The new side is the authority; its gate may be open already.
    Opening(Switch),
    /// Set when the new side takes writes and there is a smoke test to run.
    Smoking(Switch),
    /// Set by a decision to give a switch up before its commit point. Writes may still be held.
    Undoing(Switch),
    /// Set when writes go on at the old side. The stream is being turned round again; until it flows, its slot keeps
    /// what the old side commits.
    Restoring(Switch),
    /// Set by the decision that the target stays: the roles are swapped. The way back is still there.
    Completed,
    /// Set when the archive of the old side is written and read back.
    Archived,
    /// Set when the reverse stream is gone. The end.
    Retired,
    /// Set by the decision to give the cutover up before any switch.
    TearingDown,
    /// Set when nothing of the cutover is left in either database. The end.
    TornDown,
}

/// One pause, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The side that took over; the old one if it was undone.
    pub opened: Side,
    /// From the first effect to the open gate, in milliseconds.
    pub pause_ms: u64,
    /// Whether it was undone.
    pub undone: bool,
}

/// Leave for one write, before the new side is opened to all clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// SHA-256, in hexadecimal, of the word that whoever tries it shows.
    pub digest: String,
    /// The claim that it was granted to.
    pub granted: Option<String>,
}

/// A cutover, as the journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The plan it follows.
    pub plan: PlanRef,
    /// What decides its steps.
    pub shape: Shape,
    /// The source, as it was when the cutover began.
    pub source: Identity,
    /// The target, likewise.
    pub target: Identity,
    /// Which tables it covers.
    pub filter: Filter,
    /// The fencing token.
    pub epoch: u64,
    /// Whose data counts.
    pub authority: Side,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// The write that may be tried now. A new driver, or the opening, ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// The snapshot of the copy, once there is one.
    pub snapshot: Option<Snapshot>,
    /// Every pause so far, oldest first.
    pub pauses: Vec<Pause>,
}

impl State {
    /// The database at `side`, as it was when the cutover began.
    #[must_use]
    pub fn identity(&self, side: Side) -> &Identity {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// Who may write, and where.
    #[must_use]
    pub fn route(&self) -> Route {
        let held = matches!(self.phase, Phase::Fencing(_) | Phase::Fenced(..) | Phase::Drained(..) | Phase::Opening(_) | Phase::Undoing(_));
        Route { epoch: self.epoch, authority: self.authority, writes: if held { Writes::Held } else { Writes::Open } }
    }

    /// The switch that is under way.
    #[must_use]
    pub fn switch(&self) -> Option<Switch> {
        match &self.phase {
            Phase::Arming(switch)
            | Phase::Armed(switch)
            | Phase::Fencing(switch)
            | Phase::Fenced(switch, _)
            | Phase::Drained(switch, _)
            | Phase::Opening(switch)
            | Phase::Smoking(switch)
            | Phase::Undoing(switch)
            | Phase::Restoring(switch) => Some(*switch),
            _ => None,
        }
    }

    /// Whether a switch is under way that is not yet committed, and so can be given up.
    #[must_use]
    pub fn before_commit_point(&self) -> bool {
        matches!(self.phase, Phase::Arming(_) | Phase::Armed(_) | Phase::Fencing(_) | Phase::Fenced(..) | Phase::Drained(..))
    }

    /// Switches that reached their commit point and opened, forth and back.
    #[must_use]
    pub fn switches(&self, to: Side) -> usize {
        self.pauses.iter().filter(|pause| !pause.undone && pause.opened == to).count()
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Retired | Phase::TornDown)
    }
}
