//! `cutover verify`: row by row, while both sides move; then the plan's own checks.

use cutover_api::VerifyRequest;
use cutover_core::Side;
use cutover_engine::{Cutover, Drive, Found, MOST_NAMED, Wanted, table};
use cutover_postgres::verify::{
    self,
    user_check::{self, Verdict},
};

use super::remote::{self, Server};
use crate::{
    args::{Global, Output, Verify},
    commands::drive::{actor, agree, drive, refuse_empty},
    listen::Listener,
    output::{Failure, Paint, print_json, thousands, to_stderr, to_stdout},
    plan_file, stop,
};

pub(crate) async fn run(global: &Global, args: &Verify) -> Result<(), Failure> {
    if let Some(reason) = &args.reason {
        refuse_empty(reason)?;
    }
    let wanted = wanted(args)?;
    if let Some(server) = remote::named(&args.remote)? {
        return there(global, args, &server).await;
    }
    let cutover = plan_file::open(global).await?;
    if wanted.only_checks && cutover.checks_of(&wanted).is_empty() {
        return Err(Failure::usage("the plan has no checks").with_hint("write one as a section [[check]]: a name and one query"));
    }
    let found = find(global, &cutover, &wanted, args.reason.as_deref().unwrap_or_default()).await?.bounded();
    if global.output == Output::Json {
        print_json(&found);
    }
    match found.shortfall() {
        None => Ok(()),
        Some(short) => Err(short.hint.into_iter().fold(Failure::new(short.message).with_code(short.code).answered(), Failure::with_hint)),
    }
}

/// A server does it. Whoever wants rows repaired agrees before it begins.
async fn there(global: &Global, args: &Verify, server: &Server) -> Result<(), Failure> {
    if args.repair {
        to_stderr(
            "after:    rows that differ are at the side that follows as they are at the side in charge; the side in charge is not changed\n\
             way back: none: what the side that follows held instead is not kept\n",
        );
        agree(global, "without --repair rows are only compared")?;
    }
    let request = VerifyRequest {
        tables: args.tables.clone(),
        only_checks: args.only_checks,
        values: args.values,
        repair: args.repair.then_some(args.max_repairs),
        reason: args.reason.clone().unwrap_or_default(),
    };
    let (found, outcome) = server.verify(&request).await?;
    if let Some(found) = &found {
        match global.output {
            Output::Json => print_json(found),
            Output::Human => show(found),
        }
    }
    match remote::judged(outcome) {
        Err(failure) if found.is_some() => Err(failure.answered()),
        judged => judged,
    }
}

fn wanted(args: &Verify) -> Result<Wanted, Failure> {
    let tables = args.tables.iter().map(|name| table(name)).collect::<Result<Vec<_>, _>>();
    let tables = tables.map_err(|what| Failure::usage(what).with_hint("write schema.table, without quotes"))?;
    Ok(Wanted { tables, only_checks: args.only_checks, values: args.values, repair: args.repair.then_some(args.max_repairs) })
}

/// Shows each part as soon as it is found.
async fn find(global: &Global, cutover: &Cutover, wanted: &Wanted, reason: &str) -> Result<Found, Failure> {
    let human = global.output == Output::Human;
    let listener = Listener::new(global.verbose);
    let interrupt = stop::on_signal_saying("stopping: what was compared so far is not kept");
    let by =
        Drive { actor: actor(), reason: reason.to_owned(), report: &listener, interrupt, failpoint: cutover_engine::Failpoint::default() };
    let mut found = Found::default();
    if !wanted.only_checks {
        let tables = cutover.compare(&by, wanted).await?;
        listener.end_bar();
        if human {
            print(&tables);
        }
        if wanted.repair.is_some() && tables.differences_total > 0 {
            cutover.refuse_too_many(wanted, &tables)?;
            announce(tables.differences_total, tables.authority);
            agree(global, "without --repair rows are only compared")?;
            let repair = cutover.mend(drive(&listener, reason)?, wanted, &tables).await?;
            if human {
                print_repair(&repair);
            }
            found.repair = Some(repair);
        }
        found.tables = Some(tables);
    }
    for check in cutover.checks_of(wanted) {
        let report = cutover.ask(&by, check).await?;
        if human {
            print_check(&report);
        }
        found.checks.push(report);
    }
    Ok(found)
}

/// What repairing changes.
fn announce(rows: u64, authority: Side) {
    let follower = authority.other();
    to_stderr(&format!(
        "before:   {} rows differ\nafter:    they are at the {follower} as they are at the {authority}; the {authority} is not changed\n\
         way back: none: what the {follower} held instead is not kept\n",
        thousands(rows)
    ));
}

fn show(found: &Found) {
    found.tables.iter().for_each(print);
    found.repair.iter().for_each(print_repair);
    found.checks.iter().for_each(print_check);
}

fn print(report: &verify::Report) {
    for difference in report.differences.iter().take(MOST_NAMED) {
        to_stdout(&difference.to_string());
    }
    for unsettled in report.unsettled.iter().take(MOST_NAMED) {
        to_stdout(&format!("not established: {unsettled}"));
    }
    for skipped in report.skipped.iter().take(MOST_NAMED) {
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

fn print_repair(repair: &verify::Repair) {
    for still in &repair.still_different {
        to_stdout(&format!("still different: {still}"));
    }
    for (table, rows) in &repair.tables {
        to_stdout(&format!("repaired: {table}, {} rows", thousands(*rows)));
    }
    let (repaired, still) = (thousands(repair.repaired), repair.still_different.len());
    to_stdout(&format!("{repaired} rows repaired and equal now, {} were equal by then, {still} still different", repair.equal_meanwhile));
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
