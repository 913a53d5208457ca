//! `cutover report`: what the cutover did, from the journal alone.

use cutover_core::Acknowledged;
use cutover_engine::{Account, TrialLine};

use super::remote;
use crate::{
    args::{Global, Output, Remote},
    output::{Failure, print_json, thousands, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global, remote: &Remote) -> Result<(), Failure> {
    let account = match remote::named(remote)? {
        Some(server) => server.report().await?,
        None => plan_file::open(global)
            .await?
            .account()
            .await?
            .ok_or_else(|| Failure::new("this cutover has not begun").with_hint("`cutover run --until ready` begins it"))?,
    };
    match global.output {
        Output::Json => print_json(&account),
        Output::Human => show(&account),
    }
    Ok(())
}

fn show(Account { state, pauses, .. }: &Account) {
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
    for pause in pauses {
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

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
