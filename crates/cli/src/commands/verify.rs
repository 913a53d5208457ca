//! `cutover verify`: row by row, while both sides move; then the plan's own checks.

use cutover_core::{State, plan::Check};
use cutover_engine::{Cutover, EngineError};
use cutover_postgres::{
    catalogue::QualifiedName,
    verify::{
        self,
        user_check::{self, Verdict},
    },
};
use serde::Serialize;

use crate::{
    args::{Global, Output, Verify},
    commands::drive::{actor, agree, drive, refuse_empty},
    listen::Listener,
    output::{Failure, Paint, print_json, thousands, to_stderr, to_stdout},
    plan_file,
};

/// What is printed for scripts.
#[derive(Serialize)]
struct Answer<'a> {
    /// Absent with `--only-checks`.
    #[serde(flatten)]
    tables: Option<&'a verify::Report>,
    /// Absent where none was asked for, or nothing differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<&'a verify::Repair>,
    checks: &'a [user_check::Report],
}

pub(crate) async fn run(global: &Global, args: &Verify) -> Result<(), Failure> {
    if let Some(reason) = &args.reason {
        refuse_empty(reason)?;
    }
    let cutover = plan_file::open(global).await?;
    let wanted: &[Check] = if args.tables.is_empty() { &cutover.plan().checks } else { &[] };
    if args.only_checks && wanted.is_empty() {
        return Err(Failure::usage("the plan has no checks").with_hint("write one as a section [[check]]: a name and one query"));
    }
    // What it finds is about the side that was in charge all the while.
    let before = cutover.state().await?;
    let tables = if args.only_checks { None } else { Some(compare(&cutover, args).await?) };
    if let (Some(tables), Output::Human) = (&tables, global.output) {
        print(tables);
    }
    let whole = tables.as_ref().filter(|tables| args.tables.is_empty() && tables.verdict() != verify::Verdict::Inconclusive);
    if let (Some(tables), Some(before)) = (whole, &before) {
        keep(&cutover, before, tables).await;
    }
    let repair = match (&tables, &args.reason) {
        (Some(tables), Some(reason)) if args.repair && tables.differences_total > 0 => {
            Some(repair(global, &cutover, args, reason, tables).await?)
        }
        _ => None,
    };
    let mut checks = Vec::with_capacity(wanted.len());
    for check in wanted {
        to_stderr(&format!("asking both sides: {}", check.name));
        let report = cutover.user_check(check).await?;
        if global.output == Output::Human {
            print_check(&report);
        }
        checks.push(report);
    }
    if global.output == Output::Json {
        print_json(&Answer { tables: tables.as_ref(), repair: repair.as_ref(), checks: &checks });
    }
    judge(tables.as_ref(), repair.as_ref(), &checks)
}

/// A no counts more than what could not be established.
fn judge(tables: Option<&verify::Report>, repair: Option<&verify::Repair>, checks: &[user_check::Report]) -> Result<(), Failure> {
    let count = |verdict: Verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let failed = count(Verdict::Fail);
    let no = |message: String| Err(Failure::new(message).answered().with_code(3));
    let unknown = |message: String| Failure::new(message).answered().with_code(4);
    let different = repair.map(|repair| repair.still_different.len() as u64).or(tables.map(|tables| tables.differences_total));
    match (different.unwrap_or(0), failed) {
        (0, 0) => {}
        (0, _) => return no(format!("{failed} of {} checks failed", checks.len())),
        (rows, 0) => return no(format!("the two sides differ in {rows} rows")),
        (rows, _) => return no(format!("the two sides differ in {rows} rows, and {failed} of {} checks failed", checks.len())),
    }
    if let Some(tables) = tables.filter(|tables| tables.unsettled_total > 0 || tables.verdict() == verify::Verdict::Inconclusive) {
        return Err(unknown(format!("{} rows could not be compared", tables.unsettled_total))
            .with_hint("`cutover status` shows whether the stream flows; then verify again"));
    }
    match count(Verdict::Inconclusive) {
        0 => Ok(()),
        open => Err(unknown(format!("{open} of {} checks could not be established", checks.len()))),
    }
}

/// What a verification of all tables has found is kept for `status` and for the next switch. Where it can't be, nothing is
/// wrong with it.
async fn keep(cutover: &Cutover, before: &State, report: &verify::Report) {
    match cutover.keep_verification(&actor(), before, report).await {
        Ok(()) | Err(EngineError::Refused(_)) => {}
        Err(error) => to_stderr(&format!("note: this verification is not kept in the journal: {error}")),
    }
}

/// Makes what differs equal, once somebody has agreed.
async fn repair(
    global: &Global,
    cutover: &Cutover,
    args: &Verify,
    reason: &str,
    found: &verify::Report,
) -> Result<verify::Repair, Failure> {
    let (most, rows) = (u64::from(args.max_repairs), found.differences_total);
    if rows > most {
        let message =
            format!("the two sides differ in {} rows, more than --max-repairs ({}); none was repaired", thousands(rows), thousands(most));
        let hint = format!(
            "so many are copied anew rather: before any switch `cutover rollback --confirm {}` and a new cutover; or raise --max-repairs",
            cutover.plan().name
        );
        return Err(Failure::new(message).with_hint(hint).with_code(3));
    }
    let follower = found.authority.other();
    to_stderr(&format!(
        "before:   {} rows differ\nafter:    they are at the {follower} as they are at the {}; the {} is not changed\n\
         way back: none: what the {follower} held instead is not kept\n",
        thousands(rows),
        found.authority,
        found.authority
    ));
    agree(global, "without --repair rows are only compared")?;
    let listener = Listener::new(global.verbose);
    let repair = cutover.repair(drive(&listener, reason)?, &options(cutover, args)?, &found.differences).await?;
    if global.output == Output::Human {
        for still in &repair.still_different {
            to_stdout(&format!("still different: {still}"));
        }
        for (table, rows) in &repair.tables {
            to_stdout(&format!("repaired: {table}, {} rows", thousands(*rows)));
        }
        let (repaired, still) = (thousands(repair.repaired), repair.still_different.len());
        to_stdout(&format!(
            "{repaired} rows repaired and equal now, {} were equal by then, {still} still different",
            repair.equal_meanwhile
        ));
    }
    Ok(repair)
}

fn options(cutover: &Cutover, args: &Verify) -> Result<verify::Options, Failure> {
    let tables = args.tables.iter().map(|name| table(name)).collect::<Result<Vec<_>, _>>()?;
    let options = cutover.verify_options();
    Ok(verify::Options {
        tables: (!tables.is_empty()).then_some(tables),
        values: args.values,
        max_differences: if args.repair { options.max_differences.max(args.max_repairs as usize) } else { options.max_differences },
        ..options
    })
}

async fn compare(cutover: &Cutover, args: &Verify) -> Result<verify::Report, Failure> {
    let options = options(cutover, args)?;
    let progress = verify::Progress::default();
    let began = std::time::Instant::now();
    let mut work = Box::pin(cutover.verify(&options, &progress));
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            done = &mut work => break Ok(done?),
            _ = tick.tick() => tell(&progress, began),
        }
    }
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
            "verified {} of about {} rows, {} rows/s, {left:.0} s left{}",
            thousands(now.rows_done),
            thousands(now.estimated_rows.max(now.rows_done)),
            thousands(per_second as u64),
            progress.held().map(|held| format!(", {held}")).unwrap_or_default()
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

fn print_check(report: &user_check::Report) {
    let text = report.to_string();
    let paint = Paint::stdout();
    to_stdout(&match report.verdict {
        Verdict::Pass => text,
        Verdict::Fail => paint.red(&text),
        Verdict::Inconclusive => paint.yellow(&text),
    });
}
