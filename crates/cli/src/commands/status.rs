//! `cutover status`: where everything stands, and the next safe command.

use std::time::Duration;

use cutover_core::Ladder;
use cutover_engine::Status as Standing;

use crate::{
    args::{Global, Output, Status},
    left_out,
    output::{Failure, Paint, bytes, print_json, to_stdout, verified},
    plan_file, stop,
};

pub(crate) async fn run(global: &Global, args: &Status) -> Result<(), Failure> {
    let cutover = plan_file::open(global).await?;
    let mut stop = stop::on_signal();
    loop {
        let status = cutover.status().await?;
        match global.output {
            Output::Json => print_json(&status),
            Output::Human => print(&status),
        }
        if !args.watch {
            return Ok(());
        }
        if tokio::time::timeout(Duration::from_secs(1), stop.wait_for(|stop| *stop)).await.is_ok() {
            return Ok(());
        }
    }
}

fn print(status: &Standing) {
    let paint = Paint::stdout();
    let ladder = status.state.as_ref().map(|state| {
        let route = state.route();
        let here = Ladder::SWITCH.stage(&route);
        let stages: Vec<String> = Ladder::SWITCH
            .stages()
            .iter()
            .map(|stage| if Some(stage) == here { paint.bold(&format!("[{}]", stage.name)) } else { stage.name.to_owned() })
            .collect();
        format!("{}  epoch {}", stages.join(" -> "), route.epoch)
    });
    to_stdout(&format!("{}  {}", paint.bold(&status.phase), ladder.unwrap_or_default()));
    for side in &status.sides {
        let gate = match (&side.unreachable, side.open) {
            (Some(why), _) => paint.red(&format!("can't be reached: {why}")),
            (None, Some(true)) => paint.green("writes open"),
            (None, Some(false)) => paint.yellow("fenced"),
            (None, None) => "no gate".to_owned(),
        };
        let sessions: i64 = side.clients.iter().map(|client| client.sessions).sum();
        to_stdout(&format!("  {:<7} {:<22} {gate}, {sessions} client sessions", side.side.to_string(), side.address));
        for client in &side.clients {
            to_stdout(&paint.dim(&format!("            {} x {} ({})", client.sessions, client.role, client.application)));
        }
    }
    if let Some(last) = &status.verified {
        to_stdout(&format!("  verified {}", verified(last)));
    }
    if let Some(stream) = &status.stream {
        let seconds = stream.lag_seconds.map(|seconds| format!(", {seconds:.1} s")).unwrap_or_default();
        let worker = match (&status.cause, stream.worker_running) {
            (Some(_), _) => "failing",
            (None, true) => "running",
            (None, false) => "not running",
        };
        to_stdout(&format!(
            "  stream  {} behind{seconds}; apply worker {worker}; the slot keeps {}",
            bytes(stream.lag_bytes),
            bytes(stream.retained_bytes)
        ));
        for warning in &stream.warnings {
            to_stdout(&format!("  {} {warning}", paint.yellow("warning:")));
        }
    }
    if let Some(cause) = &status.cause {
        to_stdout(&format!("  {} {cause}", paint.red("stands still:")));
        to_stdout(&paint.dim(&format!("            {}", cause.hint())));
    }
    for drift in &status.drift {
        to_stdout(&format!("  {} {drift}", paint.yellow("definitions differ:")));
    }
    if let Some(left_out) = left_out::line(&status.left_out) {
        to_stdout(&format!("  left out {left_out}"));
    }
    for adapter in &status.traffic {
        to_stdout(&format!("  traffic {}: {}", adapter.name, adapter.detail));
    }
    for warning in &status.warnings {
        to_stdout(&format!("  {} {warning}", paint.yellow("warning:")));
    }
    to_stdout(&format!("next: {}", status.next));
}
