//! `cutover verify`: row by row, while both sides move.

use cutover_postgres::{catalogue::QualifiedName, verify};

use crate::{
    args::{Global, Output, Verify},
    output::{Failure, print_json, thousands, to_stderr, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global, args: &Verify) -> Result<(), Failure> {
    let cutover = plan_file::open(global).await?;
    let plan = &cutover.plan().verify;
    let tables = args.tables.iter().map(|name| table(name)).collect::<Result<Vec<_>, _>>()?;
    let options = verify::Options {
        jobs: plan.jobs as usize,
        chunk_rows: plan.chunk_rows,
        rechecks: plan.rechecks,
        tables: (!tables.is_empty()).then_some(tables),
        ..verify::Options::default()
    };
    let progress = verify::Progress::default();
    let began = std::time::Instant::now();
    let report = {
        let work = cutover.verify(&options, &progress);
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tokio::select! {
                done = &mut work => break done?,
                _ = tick.tick() => tell(&progress, began),
            }
        }
    };
    match global.output {
        Output::Json => print_json(&report),
        Output::Human => print(&report),
    }
    if report.differences_total > 0 {
        return Err(Failure::new(format!("the two sides differ in {} rows", report.differences_total)).answered().with_code(3));
    }
    if report.verdict() == verify::Verdict::Inconclusive {
        return Err(Failure::new(format!("{} rows could not be compared", report.unsettled_total))
            .answered()
            .with_code(4)
            .with_hint("`cutover status` shows whether the stream flows; then verify again"));
    }
    Ok(())
}

fn table(name: &str) -> Result<QualifiedName, Failure> {
    let (schema, name) = name.split_once('.').unwrap_or(("public", name));
    if schema.is_empty() || name.is_empty() {
        return Err(Failure::usage(format!("`{schema}.{name}` names no table")).with_hint("write schema.table, without quotes"));
    }
    Ok(QualifiedName { schema: schema.to_owned(), name: name.to_owned() })
}

fn tell(progress: &verify::Progress, began: std::time::Instant) {
    let now = progress.numbers();
    if now.rows_done > 0 {
        let per_second = now.rows_done as f64 / began.elapsed().as_secs_f64().max(0.001);
        let left = now.estimated_rows.saturating_sub(now.rows_done) as f64 / per_second;
        to_stderr(&format!(
            "verified {} of about {} rows, {} rows/s, {left:.0} s left",
            thousands(now.rows_done),
            thousands(now.estimated_rows.max(now.rows_done)),
            thousands(per_second as u64)
        ));
    }
}

fn print(report: &verify::Report) {
    for difference in &report.differences {
        to_stdout(&difference.to_string());
    }
    for unsettled in &report.unsettled {
        to_stdout(&format!("not established: {unsettled}"));
    }
    for skipped in &report.skipped {
        to_stdout(&format!("not compared: {skipped}"));
    }
    to_stdout(&format!(
        "{} tables, {} rows in {:.1} s ({} rows/s): {} differences, {} not established",
        report.tables,
        thousands(report.rows),
        report.seconds,
        thousands(report.rows_per_s as u64),
        report.differences_total,
        report.unsettled_total
    ));
}
