//! What a cutover did, from the journal alone, for `cutover report`.

use cutover_core::{Acknowledged, Event, Side, State};
use cutover_journal::Entry;
use serde::{Deserialize, Serialize};

use crate::{Cutover, EngineResult, log::fold};

/// What a cutover did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Where it stands.
    pub state: State,
    /// Every pause, the oldest first.
    pub pauses: Vec<PauseLine>,
    /// Entries of the journal.
    pub entries: u64,
}

/// One pause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PauseLine {
    /// When it began, in milliseconds since 1970.
    pub began_at_ms: i64,
    /// When the gate was open again.
    pub opened_at_ms: i64,
    /// The side that took writes from then on.
    pub opened: Side,
    /// Length in milliseconds, by the driver's own clock.
    pub pause_ms: u64,
    /// A14's downtime, from freeze to unfreeze: how long the clients of the flags were refused, where the opening waited for
    /// them, in milliseconds by the journal's clock.
    pub downtime_ms: Option<u64>,
    /// The write on trial, where there was one.
    pub trial: Option<TrialLine>,
    /// Whether it was undone.
    pub undone: bool,
    /// A7: when the last client of the flags had acknowledged that writes are held; none without flags.
    pub acknowledged: Option<Acknowledged>,
    /// Whom the opening waited for, from the commit point on; none where it waited for nobody.
    pub gathered: Option<Acknowledged>,
    /// Who asked for it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A11: one write before all others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrialLine {
    /// Who tried it; none where nobody asked for leave.
    pub instance: Option<String>,
    /// Whether the hook said that it went well.
    pub passed: bool,
}

impl Cutover {
    /// What the cutover did, by the journal alone; none before it has begun.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub async fn account(&self) -> EngineResult<Option<Account>> {
        let entries = self.entries().await?;
        let account = |state| Account { state, pauses: pauses(&entries), entries: entries.len() as u64 };
        Ok(fold(&entries)?.map(account))
    }
}

fn pauses(entries: &[Entry]) -> Vec<PauseLine> {
    let mut pauses = Vec::new();
    let mut to = Side::Target;
    let mut began_at_ms = None;
    let mut held = None;
    let mut trial: Option<TrialLine> = None;
    for entry in entries {
        let Ok(event) = serde_json::from_value::<Event>(entry.body.clone()) else { continue };
        let (pause_ms, undone, gathered) = match event {
            Event::SwitchStarted { to: side, .. } => {
                to = side;
                began_at_ms = None;
                continue;
            }
            Event::FencingStarted => {
                began_at_ms = Some(entry.at_ms);
                (held, trial) = (None, None);
                continue;
            }
            Event::TrialOffered { .. } => {
                trial = Some(TrialLine::default());
                continue;
            }
            Event::TrialGranted { instance, .. } => {
                trial.get_or_insert_default().instance = Some(instance);
                continue;
            }
            Event::TrialEnded { passed } => {
                trial.get_or_insert_default().passed = passed;
                continue;
            }
            Event::Fenced { acknowledged, .. } => {
                held = acknowledged;
                continue;
            }
            Event::Opened { pause_ms, acknowledged } => (pause_ms, false, acknowledged),
            Event::Undone { pause_ms } => (pause_ms, true, None),
            _ => continue,
        };
        // A switch that was given up before its pause held nobody up.
        let Some(began_at_ms) = began_at_ms.take() else { continue };
        let opened = if undone { to.other() } else { to };
        let (actor, reason) = (entry.actor.clone(), entry.reason.clone());
        let (opened_at_ms, acknowledged) = (entry.at_ms, held.take());
        let downtime_ms = gathered.and_then(|_| u64::try_from(opened_at_ms - began_at_ms).ok());
        let trial = trial.take();
        pauses.push(PauseLine {
            began_at_ms,
            opened_at_ms,
            opened,
            pause_ms,
            downtime_ms,
            trial,
            undone,
            acknowledged,
            gathered,
            actor,
            reason,
        });
    }
    pauses
}
