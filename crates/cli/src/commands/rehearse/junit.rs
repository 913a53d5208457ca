//! JUnit's XML: what every pipeline shows as a list of tests.

use std::fmt::Write as _;

use cutover_engine::rehearse::{Case, Outcome, Rehearsed};

/// One suite for each profile, one test for each case.
pub(super) fn xml(plan: &str, results: &[Rehearsed]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let all: Vec<&Case> = results.iter().flat_map(|result| &result.cases).collect();
    let seconds: f64 = results.iter().map(|result| result.seconds).sum();
    let _ = writeln!(xml, "<testsuites name=\"cutover rehearse {}\" {}>", text(plan), numbers(&all, seconds));
    for result in results {
        let cases: Vec<&Case> = result.cases.iter().collect();
        let suite = format!("{plan}.{}", result.profile);
        let _ = writeln!(xml, "  <testsuite name=\"{}\" {}>", text(&suite), numbers(&cases, result.seconds));
        for case in cases {
            xml.push_str(&test(&suite, case));
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn numbers(cases: &[&Case], seconds: f64) -> String {
    let count = |outcome: Outcome| cases.iter().filter(|case| case.outcome == outcome).count();
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\"",
        cases.len(),
        count(Outcome::Failed),
        count(Outcome::Inconclusive),
        count(Outcome::Skipped)
    )
}

fn test(suite: &str, case: &Case) -> String {
    let head = format!(
        "    <testcase classname=\"cutover.{}\" name=\"{}\" time=\"{:.3}\">",
        text(suite),
        text(&format!("{}: {}", case.name, case.establishes)),
        case.ms as f64 / 1000.0
    );
    let first = text(case.message.lines().next().unwrap_or_default());
    let body = match case.outcome {
        Outcome::Passed => format!("<system-out>{}</system-out>", text(&case.message)),
        Outcome::Failed => format!("<failure message=\"{first}\">{}</failure>", text(&case.message)),
        Outcome::Inconclusive => format!("<error message=\"{first}\">{}</error>", text(&case.message)),
        Outcome::Skipped => format!("<skipped message=\"{first}\"/>"),
    };
    format!("{head}{body}</testcase>\n")
}

/// Fit for an element and for an attribute. XML has no way at all to write most control characters.
fn text(plain: &str) -> String {
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hook_prints_can_not_break_the_file() {
        assert_eq!(text("a<b> & \"c\"\u{1b}[31m\n"), "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}[31m\n");
    }
}
