//! `cutover plan`: every step, with what it would do. Executes nothing.

use cutover_engine::StepPlan;

use crate::{
    args::{Global, Output},
    output::{Failure, Paint, print_json, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let cutover = plan_file::open(global).await?;
    let steps = cutover.steps().await?;
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "plan": cutover.plan().name, "steps": steps })),
        Output::Human => steps.iter().enumerate().for_each(|(at, step)| print(at + 1, step)),
    }
    Ok(())
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
