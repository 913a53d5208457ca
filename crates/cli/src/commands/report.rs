//! `cutover report`: what the cutover did, from the journal alone.

use cutover_core::{Acknowledged, Event, Side};
use cutover_journal::Entry;
use serde::Serialize;

use crate::{
    args::{Global, Output},
    output::{Failure, print_json, thousands, to_stdout},
    plan_file,
};

/// One pause.
#[derive(Debug, Serialize)]
struct PauseLine {
    /// When it began, in milliseconds since 1970.
    began_at_ms: i64,
    /// When the gate was open again.
    opened_at_ms: i64,
    /// The side that took writes from then on.
    opened: Side,
    /// Length in milliseconds, by the driver's own clock.
    pause_ms: u64,
    /// A14's downtime, from freeze to unfreeze: how long the clients of the flags were refused, where the opening waited for
    /// them, in milliseconds by the journal's clock.
    downtime_ms: Option<u64>,
    /// The write on trial, where there was one.
    trial: Option<TrialLine>,
    /// Whether it was undone.
    undone: bool,
    /// A7: when the last client of the flags had acknowledged that writes are held; none without flags.
    acknowledged: Option<Acknowledged>,
    /// Whom the opening waited for, from the commit point on; none where it waited for nobody.
    gathered: Option<Acknowledged>,
    /// Who asked for it.
    actor: String,
    /// Why.
    reason: String,
}

/// A11: one write before all others.
#[derive(Debug, Default, Serialize)]
struct TrialLine {
    /// Who tried it; none where nobody asked for leave.
    instance: Option<String>,
    /// Whether the hook said that it went well.
    passed: bool,
}

pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let cutover = plan_file::open(global).await?;
    let state = cutover
        .state()
        .await?
        .ok_or_else(|| Failure::new("this cutover has not begun").with_hint("`cutover run --until ready` begins it"))?;
    let entries = cutover.entries().await?;
    let pauses = pauses(&entries);
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "state": state, "pauses": pauses, "entries": entries.len() })),
        Output::Human => {
            to_stdout(&format!("{}: {}; the {} is in charge", state.plan.name, state.phase.describe(), state.authority));
            to_stdout(&format!(
                "  source  PostgreSQL {} at {}, server {}",
                state.source.major, state.source.address, state.source.system_identifier
            ));
            to_stdout(&format!(
                "  target  PostgreSQL {} at {}, server {}",
                state.target.major, state.target.address, state.target.system_identifier
            ));
            if let Some(snapshot) = &state.snapshot {
                to_stdout(&format!("  copied from snapshot {} at {}", snapshot.snapshot, snapshot.lsn));
            }
            for pause in &pauses {
                let outcome = if pause.undone { "undone, writes went on at the" } else { "writes opened at the" };
                to_stdout(&format!(
                    "  pause of {} ms, {outcome} {} ({}{})",
                    thousands(pause.pause_ms),
                    pause.opened,
                    pause.actor,
                    quoted(&pause.reason)
                ));
                if let Some(downtime) = pause.downtime_ms {
                    to_stdout(&format!("    clients of the flags were refused for {} ms in all", thousands(downtime)));
                }
                if let Some(TrialLine { instance, passed }) = &pause.trial {
                    let (who, how) = (instance.as_deref().unwrap_or("nobody"), if *passed { "well" } else { "wrong" });
                    to_stdout(&format!("    {who} tried one write before that: it went {how}"));
                }
                for (heard, of) in [(pause.acknowledged, "acknowledged the hold"), (pause.gathered, "were at the new side")] {
                    if let Some(Acknowledged { clients, after_ms, .. }) = heard {
                        to_stdout(&format!("    {clients} clients of the flags {of} after {} ms", thousands(after_ms)));
                    }
                }
            }
        }
    }
    Ok(())
}

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
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
