//! Where one unit stands on its way, and the only way to another stage.

use std::time::Duration;

use super::{Compared, Health, Judgement, Limits, Rung, Rungs, Watch};

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    rungs: Rungs,
    place: usize,
    /// Grows with each change of the stage. Whoever decides by where it stands names the epoch that they have seen.
    pub epoch: u64,
    /// How it does.
    pub health: Health,
    /// Failed checks in a row.
    pub row: u32,
    /// Whether what is written goes to both.
    pub mirror: bool,
    /// Stopped in an emergency: it does not begin again before somebody says so.
    pub stopped: bool,
    /// How long stages last, where it was said.
    dwell: Option<Duration>,
    /// When the next step may be taken. Unit: milliseconds, of the caller's clock.
    eligible_ms: u64,
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Begin. Stages last as long as that, or as their rungs say.
    Start(Option<Duration>),
    /// Take the next step, by what was found out.
    Advance(Evidence),
    /// Take the next step whatever was found out, for this reason.
    Force(String),
    /// All reads back to the source, for this reason.
    Rollback(String),
    /// The same, and not again before [`Decision::Mirror`] says so.
    Stop(String),
    /// Have what is written go to both, or not.
    Mirror(bool),
    /// Everything to its beginning, if that is confirmed.
    Reset(bool),
}

/// What was found out before a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// All rows of both sides.
    pub compared: Compared,
    /// What was measured.
    pub judgement: Judgement,
}

/// Why it can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has begun already.
    #[error("it is under way already")]
    UnderWay,
    /// It has not begun.
    #[error("it was not started")]
    NotStarted,
    /// No stage is left but the last, which is a decision of its own.
    #[error("only completion is left")]
    OnlyCompletion,
    /// What is written does not go to both.
    #[error("it is not written twice")]
    NoMirror,
    /// It was stopped in an emergency.
    #[error("it was stopped in an emergency")]
    Stopped,
    /// The stage has not lasted as long as it was to. Unit: milliseconds, of the caller's clock.
    #[error("the stage lasts until {0} ms")]
    TooEarly(u64),
    /// Both sides are not the same, or nobody knows.
    #[error("both sides are not known to be the same")]
    Different,
    /// Something is not good enough, or was not measured.
    #[error("it is not good enough: {0:?}")]
    NotReady(Judgement),
    /// It is unhealthy.
    #[error("it is unhealthy")]
    Unhealthy,
    /// What passes over checks, and a way back, want a reason.
    #[error("it wants a reason")]
    NoReason,
    /// It wants to be confirmed.
    #[error("it was not confirmed")]
    Unconfirmed,
}

impl Refusal {
    /// The SQLSTATE that the functions in a database have for it.
    #[must_use]
    pub fn sql_state(&self) -> &'static str {
        match self {
            Self::UnderWay | Self::NotStarted | Self::OnlyCompletion | Self::NoMirror | Self::Stopped | Self::TooEarly(_) => "SC002",
            Self::NoReason | Self::Unconfirmed => "SC003",
            Self::Different | Self::NotReady(_) | Self::Unhealthy => "SC005",
        }
    }
}

impl Way {
    /// Before it begins.
    #[must_use]
    pub fn new(rungs: Rungs) -> Self {
        Self { rungs, place: 0, epoch: 0, health: Health::Unknown, row: 0, mirror: false, stopped: false, dwell: None, eligible_ms: 0 }
    }

    /// The stage that it is at.
    #[must_use]
    pub fn rung(&self) -> &'static Rung {
        &self.rungs.all()[self.place]
    }

    /// What has to be measured there.
    #[must_use]
    pub fn watch(&self) -> Watch {
        match self.rung().target_reads {
            0 if self.place == 0 => Watch::Nothing,
            0 => Watch::Writes,
            _ => Watch::Reads,
        }
    }

    /// The share of reads that goes to the target now: none where it is unhealthy. Unit: basis points.
    #[must_use]
    pub fn target_reads(&self) -> u16 {
        if self.health == Health::Unhealthy { 0 } else { self.rung().target_reads }
    }

    /// How it does after a check. `fresh`: something was measured since the last one.
    #[must_use]
    pub fn checked(&self, judgement: &Judgement, fresh: bool, limits: &Limits) -> Self {
        let (health, row) = self.health.after(self.row, judgement, fresh, limits);
        Self { health, row, ..self.clone() }
    }

    /// Where it stands after a decision. What is refused changes nothing.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn decide(&self, decision: &Decision, now_ms: u64) -> Result<Self, Refusal> {
        match decision {
            Decision::Start(dwell) => self.start(*dwell, now_ms),
            Decision::Advance(evidence) => self.advance(evidence, now_ms),
            Decision::Force(reason) => {
                self.next()?;
                given(reason)?;
                self.written_twice()?;
                Ok(self.at(self.place + 1, now_ms))
            }
            Decision::Rollback(reason) => {
                given(reason)?;
                Ok(if self.place == 0 { self.clone() } else { self.at(0, now_ms) })
            }
            Decision::Stop(reason) if self.place > 0 => {
                Ok(Self { stopped: true, ..self.decide(&Decision::Rollback(reason.clone()), now_ms)? })
            }
            Decision::Stop(_) => Ok(self.clone()),
            Decision::Mirror(true) => Ok(Self { mirror: true, stopped: false, ..self.clone() }),
            // What is not written is not read.
            Decision::Mirror(false) => Ok(Self { mirror: false, ..if self.place == 0 { self.clone() } else { self.at(0, now_ms) } }),
            Decision::Reset(confirmed) => match (confirmed, self.place) {
                (false, _) => Err(Refusal::Unconfirmed),
                (true, 0) => Ok(Self { epoch: self.epoch + 1, mirror: self.mirror, ..Self::new(self.rungs) }),
                (true, _) => Err(Refusal::UnderWay),
            },
        }
    }

    fn start(&self, dwell: Option<Duration>, now_ms: u64) -> Result<Self, Refusal> {
        if self.place > 0 {
            return Err(Refusal::UnderWay);
        } else if self.stopped {
            return Err(Refusal::Stopped);
        }
        self.written_twice()?;
        Ok(Self { dwell, ..self.clone() }.at(1, now_ms))
    }

    fn advance(&self, evidence: &Evidence, now_ms: u64) -> Result<Self, Refusal> {
        self.next()?;
        self.written_twice()?;
        if now_ms < self.eligible_ms {
            return Err(Refusal::TooEarly(self.eligible_ms));
        } else if !matches!(evidence.compared, Compared::Rows { different: 0, .. }) {
            return Err(Refusal::Different);
        } else if !evidence.judgement.is_ready() {
            return Err(Refusal::NotReady(evidence.judgement.clone()));
        } else if self.health == Health::Unhealthy {
            return Err(Refusal::Unhealthy);
        }
        Ok(self.at(self.place + 1, now_ms))
    }

    /// Whether there is a next stage that is no completion.
    fn next(&self) -> Result<(), Refusal> {
        match self.place {
            0 => Err(Refusal::NotStarted),
            place if place + 1 >= self.rungs.last() => Err(Refusal::OnlyCompletion),
            _ => Ok(()),
        }
    }

    fn written_twice(&self) -> Result<(), Refusal> {
        if self.mirror { Ok(()) } else { Err(Refusal::NoMirror) }
    }

    /// At another stage, of which nothing is known yet.
    fn at(&self, place: usize, now_ms: u64) -> Self {
        let dwell = self.dwell.unwrap_or(self.rungs.all()[place].dwell);
        let eligible_ms = now_ms.saturating_add(u64::try_from(dwell.as_millis()).unwrap_or(u64::MAX));
        Self { place, epoch: self.epoch + 1, health: Health::Unknown, row: 0, eligible_ms, ..self.clone() }
    }
}

fn given(reason: &str) -> Result<(), Refusal> {
    if reason.trim().is_empty() { Err(Refusal::NoReason) } else { Ok(()) }
}
