//! `cutover sql status`, and the same below a switch: where each table with a shadow stands.

use std::time::Duration;

use cutover_core::plan::DatabaseUrl;
use cutover_postgres::shadow::routes::{self, Shown};

use crate::{
    args::{Global, Output, SqlStatus},
    output::{Failure, Paint, duration, print_json, thousands, to_stdout},
    stop,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global, args: &SqlStatus) -> Result<(), Failure> {
    let url = DatabaseUrl::parse(&args.there.url).map_err(Failure::usage)?;
    show(global, &url, &args.there.schema.schema, args.watch).await
}

/// Shows where the tables stand, once or until Ctrl-C.
pub(crate) async fn show(global: &Global, url: &DatabaseUrl, schema: &str, watch: bool) -> Result<(), Failure> {
    let mut stop = stop::on_signal_saying("");
    let client = super::connected(url).await?;
    loop {
        let tables = routes::shown(&client, schema).await?;
        match global.output {
            Output::Json => print_json(&serde_json::json!({ "tables": tables })),
            Output::Human => to_stdout(&text(&tables, Paint::stdout())),
        }
        if !watch || super::stopped(&mut stop, LOOK).await {
            return Ok(());
        }
    }
}

/// Where the tables stand now.
pub(crate) async fn look(url: &DatabaseUrl, schema: &str) -> Result<Vec<Shown>, Failure> {
    Ok(routes::shown(&super::connected(url).await?, schema).await?)
}

/// What a person is told, two lines for each.
pub(crate) fn text(tables: &[Shown], paint: Paint) -> String {
    if tables.is_empty() {
        return "no table has a shadow".to_owned();
    }
    let width = tables.iter().map(|shown| shown.table.table.chars().count()).max().unwrap_or_default();
    tables.iter().map(|shown| line(shown, width, paint)).collect::<Vec<_>>().join("\n")
}

fn line(shown: &Shown, width: usize, paint: Paint) -> String {
    let (table, measures) = (&shown.table, &shown.measures);
    let health = match table.health.as_str() {
        "healthy" => paint.green("healthy"),
        "unhealthy" => paint.red("unhealthy"),
        other => paint.yellow(&format!("health {other}")),
    };
    let mut parts = vec![format!("{:>5} % of reads", f64::from(table.target_reads()) / 100.0), health];
    let measured =
        [("errors", measures.error_rate_percent), ("latency", measures.latency_increase_percent), ("same", measures.validation_score)];
    parts.extend(measured.into_iter().filter_map(|(name, value)| Some(format!("{name} {} %", value?))));
    if let Some(queued) = measures.queued.filter(|queued| *queued > 0) {
        parts.push(paint.yellow(&format!("{} keys queued", thousands(queued))));
    }
    if !table.dual_write {
        parts.push(paint.yellow("not written twice"));
    }
    if table.dwell_left_s > 0 {
        parts.push(format!("{} to stay", duration(table.dwell_left_s as f64)));
    }
    if table.emergency_stop {
        parts.push(paint.red("emergency stop"));
    }
    let head =
        format!("{:<width$}  {}  epoch {}  {}", table.table, paint.bold(&format!("{:<10}", table.stage)), table.epoch, parts.join(", "));
    let advice = measures.recommendations.iter().map(|advice| format!("\n{:width$}  {}", "", paint.dim(advice))).collect::<String>();
    format!("{head}{advice}\n{:width$}  next: {}", "", shown.next)
}
