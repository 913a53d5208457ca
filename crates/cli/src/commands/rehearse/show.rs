//! How a rehearsal is shown: a table for people, one object for scripts.

use cutover_engine::rehearse::{Case, Outcome, Rehearsed};
use serde::Serialize;

use crate::output::{Paint, thousands, to_stdout};

/// What is printed for scripts.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    plan: &'a str,
    green: bool,
    profiles: &'a [Rehearsed],
}

impl<'a> Answer<'a> {
    pub(super) fn new(plan: &'a str, profiles: &'a [Rehearsed]) -> Self {
        Self { plan, green: !profiles.is_empty() && profiles.iter().all(Rehearsed::is_green), profiles }
    }
}

pub(super) fn print(results: &[Rehearsed]) {
    let paint = Paint::stdout();
    for result in results {
        let width = result.cases.iter().map(|case| case.name.chars().count()).max().unwrap_or_default();
        to_stdout("");
        to_stdout(&format!(
            "{}  PostgreSQL {} to {}, {}",
            paint.bold(&result.profile),
            result.source_major,
            result.target_major,
            result.database
        ));
        for case in &result.cases {
            to_stdout(&line(case, width, paint));
        }
        to_stdout(&sum(result, paint));
    }
}

fn line(case: &Case, width: usize, paint: Paint) -> String {
    let (mark, text) = match case.outcome {
        Outcome::Passed if case.message.is_empty() => (paint.green("✓"), case.establishes.clone()),
        Outcome::Passed => (paint.green("✓"), format!("{}: {}", case.establishes, case.message)),
        Outcome::Failed => (paint.red("✗"), case.message.clone()),
        Outcome::Inconclusive => (paint.yellow("?"), case.message.clone()),
        Outcome::Skipped => return paint.dim(&format!("  - {:<width$}          {}", case.name, case.message)),
    };
    let text = text.trim_end().replace('\n', &format!("\n{}", " ".repeat(width + 14)));
    format!("  {mark} {:<width$} {:>7.1} s {text}", case.name, case.ms as f64 / 1000.0)
}

fn sum(result: &Rehearsed, paint: Paint) -> String {
    let verdict = if result.is_green() { paint.green("green") } else { paint.red("not green") };
    let passed = result.cases.iter().filter(|case| case.outcome == Outcome::Passed).count();
    let pause = |name: &str, pause: Option<u64>| pause.map(|ms| format!(", {name} {ms} ms")).unwrap_or_default();
    format!(
        "{verdict}: {passed} of {} cases in {:.1} s{}{}, {} acknowledged writes, {} lost",
        result.cases.len(),
        result.seconds,
        pause("pause of the switch", result.switch_pause_ms),
        pause("of the way back", result.rollback_pause_ms),
        thousands(result.acknowledged_writes),
        thousands(result.lost_writes)
    )
}
