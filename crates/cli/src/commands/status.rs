//! `cutover status`: where everything stands, and the next safe command.

use std::time::Duration;

use cutover_core::Ladder;
use cutover_engine::Status as Standing;
use cutover_postgres::shadow::routes::Shown;
use serde::Serialize;

use super::{remote, sql};
use crate::{
    args::{Global, Output, Status},
    left_out,
    output::{Failure, Paint, bytes, print_json, to_stdout, verified},
    plan_file, stop,
};

pub(crate) async fn run(global: &Global, args: &Status) -> Result<(), Failure> {
    let shadow = sql::named(&args.shadow, &args.remote)?;
    if let Some(server) = remote::named(&args.remote)? {
        return server.status(global, args.watch).await;
    }
    // Shadow tables need no plan.
    if let Some(url) = shadow.as_ref().filter(|_| plan_file::is_none(global)) {
        return sql::status::show(global, url, &args.shadow.schema, args.watch).await;
    }
    let cutover = plan_file::open(global).await?;
    let mut stop = stop::on_signal();
    loop {
        let status = cutover.status().await?;
        // What is known of the switch is told, whatever becomes of these.
        let looked = match &shadow {
            Some(url) => sql::status::look(url, &args.shadow.schema).await.map(Some),
            None => Ok(None),
        };
        let (shadow_tables, failed) = looked.map_or_else(|failure| (None, Some(failure.answered())), |tables| (tables, None));
        match global.output {
            Output::Json => print_json(&WithTables { status, shadow_tables }),
            Output::Human => {
                to_stdout(&text(&status, Paint::stdout()));
                shadow_tables.iter().for_each(|tables| to_stdout(&sql::status::text(tables, Paint::stdout())));
            }
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        if !args.watch {
            return Ok(());
        }
        if tokio::time::timeout(Duration::from_secs(1), stop.wait_for(|stop| *stop)).await.is_ok() {
            return Ok(());
        }
    }
}

/// A switch, and the shadow tables that were asked for besides.
#[derive(Serialize)]
struct WithTables {
    #[serde(flatten)]
    status: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_tables: Option<Vec<Shown>>,
}

/// What a person is told, line by line.
pub(crate) fn text(status: &Standing, paint: Paint) -> String {
    let mut lines = Vec::new();
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
    lines.push(format!("{}  {}", paint.bold(&status.phase), ladder.unwrap_or_default()));
    for side in &status.sides {
        let gate = match (&side.unreachable, side.open) {
            (Some(why), _) => paint.red(&format!("can't be reached: {why}")),
            (None, Some(true)) => paint.green("writes open"),
            (None, Some(false)) => paint.yellow("fenced"),
            (None, None) => "no gate".to_owned(),
        };
        let sessions: i64 = side.clients.iter().map(|client| client.sessions).sum();
        lines.push(format!("  {:<7} {:<22} {gate}, {sessions} client sessions", side.side.to_string(), side.address));
        for client in &side.clients {
            lines.push(paint.dim(&format!("            {} x {} ({})", client.sessions, client.role, client.application)));
        }
    }
    if let Some(last) = &status.verified {
        lines.push(format!("  verified {}", verified(last)));
    }
    if let Some(stream) = &status.stream {
        let seconds = stream.lag_seconds.map(|seconds| format!(", {seconds:.1} s")).unwrap_or_default();
        let worker = match (&status.cause, stream.worker_running) {
            (Some(_), _) => "failing",
            (None, true) => "running",
            (None, false) => "not running",
        };
        lines.push(format!(
            "  stream  {} behind{seconds}; apply worker {worker}; the slot keeps {}",
            bytes(stream.lag_bytes),
            bytes(stream.retained_bytes)
        ));
        for warning in &stream.warnings {
            lines.push(format!("  {} {warning}", paint.yellow("warning:")));
        }
    }
    if let Some(cause) = &status.cause {
        lines.push(format!("  {} {cause}", paint.red("stands still:")));
        lines.push(paint.dim(&format!("            {}", cause.hint())));
    }
    for drift in &status.drift {
        lines.push(format!("  {} {drift}", paint.yellow("definitions differ:")));
    }
    if let Some(left_out) = left_out::line(&status.left_out) {
        lines.push(format!("  left out {left_out}"));
    }
    for adapter in &status.traffic {
        lines.push(format!("  traffic {}: {}", adapter.name, adapter.detail));
    }
    for warning in &status.warnings {
        lines.push(format!("  {} {warning}", paint.yellow("warning:")));
    }
    lines.push(format!("next: {}", status.next));
    lines.join("\n")
}
