//! `cutover plan`: every step, with what it would do. Executes nothing.

use std::time::Duration;

use cutover_core::Side;
use cutover_engine::{CheckPlan, Described, StepPlan};

use super::remote;
use crate::{
    args::{Global, Output, Remote},
    left_out,
    output::{Failure, Paint, print_json, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global, remote: &Remote) -> Result<(), Failure> {
    let described = match remote::named(remote)? {
        Some(server) => server.plan().await?,
        None => plan_file::open(global).await?.describe().await?,
    };
    match global.output {
        Output::Json => print_json(&described),
        Output::Human => show(&described),
    }
    Ok(())
}

/// The step that the plan's checks come before.
const FIRST_OF_A_SWITCH: &str = "arm";

fn show(described: &Described) {
    if let Some(left_out) = left_out::described(described) {
        to_stdout(&format!("{} {left_out}", Paint::stdout().bold("left out:")));
    }
    for (at, step) in described.steps.iter().enumerate() {
        if step.name == FIRST_OF_A_SWITCH {
            described.checks.iter().for_each(print_check);
        }
        print(at + 1, step);
    }
}

/// It is no step: it changes nothing, and `cutover verify` asks the same.
fn print_check(check: &CheckPlan) {
    let paint = Paint::stdout();
    let expected = match &check.value {
        Some(value) => format!("`{value}` at both sides"),
        None if check.expect == "empty" => "no row at either side".to_owned(),
        None => "the same rows at both sides".to_owned(),
    };
    let limit = Duration::from_millis(check.timeout_ms).as_secs_f64();
    let bound = format!("(before a switch to the target, read-only; at most {limit} s for an answer)");
    to_stdout(&format!(" {}  {}  {}", paint.bold("?"), paint.bold(&check.name), paint.dim(&bound)));
    to_stdout(&format!("    {expected}"));
    let sql = check.sql.replace('\n', "\n               ");
    Side::BOTH.iter().for_each(|side| to_stdout(&format!("    {} {sql}", paint.cyan(&format!("{side:>9}:")))));
}

fn print(number: usize, step: &StepPlan) {
    let paint = Paint::stdout();
    let bound = match (step.in_pause, step.timeout_ms) {
        (true, _) => "inside the pause, within its budget".to_owned(),
        (false, Some(limit)) => format!("at most {} s", limit / 1000),
        (false, None) => "as long as the data is large".to_owned(),
    };
    to_stdout(&format!("{} {}  {}", paint.bold(&format!("{number:>2}.")), paint.bold(&step.name), paint.dim(&format!("({bound})"))));
    to_stdout(&format!("    {}", step.establishes));
    for call in &step.does {
        to_stdout(&format!("    {} {}", paint.cyan(&format!("{:>9}:", call.place)), call.text.replace('\n', "\n               ")));
    }
    for call in &step.undo {
        to_stdout(&format!("    {} {} {}", paint.yellow("     undo:"), call.place, call.text.replace('\n', "\n               ")));
    }
}
