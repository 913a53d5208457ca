//! `cutover plan`: every step, with what it would do. Executes nothing.

use cutover_core::{
    Side,
    plan::{Check, Expect},
};
use cutover_engine::StepPlan;

use crate::{
    args::{Global, Output},
    left_out,
    output::{Failure, Paint, print_json, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let cutover = plan_file::open(global).await?;
    let steps = cutover.steps().await?;
    let checks = &cutover.plan().checks;
    let filter = &cutover.plan().tables.filter;
    match global.output {
        Output::Json => {
            let checks: Vec<_> = checks.iter().map(json).collect();
            print_json(
                &serde_json::json!({ "plan": cutover.plan().name, "steps": steps, "checks": checks, "tables": filter, "left_out": cutover.left_out().await.ok() }),
            );
        }
        Output::Human => {
            if let Some(left_out) = left_out::ask(&cutover).await {
                to_stdout(&format!("{} {left_out}", Paint::stdout().bold("left out:")));
            }
            for (at, step) in steps.iter().enumerate() {
                if step.name == FIRST_OF_A_SWITCH {
                    checks.iter().for_each(print_check);
                }
                print(at + 1, step);
            }
        }
    }
    Ok(())
}

/// The step that the plan's checks come before.
const FIRST_OF_A_SWITCH: &str = "arm";

fn json(check: &Check) -> serde_json::Value {
    let value = match &check.expect {
        Expect::Value(value) => Some(value),
        Expect::Equal | Expect::Empty => None,
    };
    let timeout_ms = u64::try_from(check.timeout.as_millis()).unwrap_or(u64::MAX);
    serde_json::json!({
        "name": check.name, "sql": check.sql, "expect": check.expect.name(), "value": value, "timeout_ms": timeout_ms
    })
}

/// It is no step: it changes nothing, and `cutover verify` asks the same.
fn print_check(check: &Check) {
    let paint = Paint::stdout();
    let expected = match &check.expect {
        Expect::Equal => "the same rows at both sides".to_owned(),
        Expect::Empty => "no row at either side".to_owned(),
        Expect::Value(value) => format!("`{value}` at both sides"),
    };
    let bound = format!("(before a switch to the target, read-only; at most {} s for an answer)", check.timeout.as_secs_f64());
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
    to_stdout(&format!("{} {}  {}", paint.bold(&format!("{number:>2}.")), paint.bold(step.name), paint.dim(&format!("({bound})"))));
    to_stdout(&format!("    {}", step.establishes));
    for call in &step.does {
        to_stdout(&format!("    {} {}", paint.cyan(&format!("{:>9}:", call.place)), call.text.replace('\n', "\n               ")));
    }
    for call in &step.undo {
        to_stdout(&format!("    {} {} {}", paint.yellow("     undo:"), call.place, call.text.replace('\n', "\n               ")));
    }
}
