//! What a check of the user's came to, and how a person reads it.

use std::fmt;

use cutover_core::Side;
use serde::{Deserialize, Serialize};

use super::ask::{Row, Rows};

/// Rows of an answer that are shown.
const SHOWN_ROWS: usize = 20;

/// Characters of a line that are shown to a person.
const SHOWN_CHARACTERS: usize = 200;

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both sides answered as expected.
    Pass,
    /// They did not, or the SQL can't be run.
    Fail,
    /// It could not be established. That is no pass.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// One check: its outcome, and what led to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The check's name in the plan.
    pub name: String,
    /// The outcome.
    pub verdict: Verdict,
    /// Why it is no pass; empty for a pass.
    pub why: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
    /// What was answered in the last try, the source's first.
    pub answers: Vec<Answer>,
    /// How often both sides were asked.
    pub tries: u32,
    /// How long it took. Unit: milliseconds.
    pub ms: u64,
}

/// What one side answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The side.
    pub side: Side,
    /// The first rows, those that the other side does not have before the others; none where it did not answer.
    pub rows: Option<Vec<Vec<Option<String>>>>,
    /// How many rows there are in all.
    pub rows_total: u64,
    /// Why it did not answer; none where it did, or was not asked.
    pub error: Option<String>,
}

impl Report {
    /// The values of the answers, to be cut where they are long.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.answers.iter_mut().flat_map(|answer| answer.rows.iter_mut().flatten().flatten().flatten())
    }
}

impl Answer {
    pub(super) fn new(side: Side, rows: Option<&Rows>, other: Option<&Rows>, error: Option<String>) -> Self {
        let shown = rows.map(|rows| differing_first(rows, other));
        Self { side, rows: shown, rows_total: rows.map_or(0, |rows| rows.len() as u64), error }
    }
}

/// The first rows of an answer in order; those that the other answer lacks come before the others.
fn differing_first(rows: &Rows, other: Option<&Rows>) -> Vec<Row> {
    let mut left = other.unwrap_or(rows).iter().peekable();
    let (mut only_here, mut common) = (Vec::new(), Vec::new());
    for row in rows {
        while left.next_if(|other| *other < row).is_some() {}
        let list = if left.next_if_eq(&row).is_some() { &mut common } else { &mut only_here };
        list.push(row.clone());
    }
    only_here.append(&mut common);
    only_here.truncate(SHOWN_ROWS);
    only_here
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tries = if self.tries == 1 { "1 try".to_owned() } else { format!("{} tries", self.tries) };
        write!(f, "{}: {} ({tries}, {} ms)", self.name, self.verdict, self.ms)?;
        if self.verdict == Verdict::Pass {
            return Ok(());
        }
        write!(f, ": {}", self.why)?;
        self.answers.iter().try_for_each(|answer| write!(f, "{answer}"))?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n  hint: {hint}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rows) = &self.rows else {
            // Why one did not answer stands before the answers.
            return write!(f, "\n  {}: {}", self.side, if self.error.is_some() { "no answer" } else { "not asked" });
        };
        let total = self.rows_total;
        write!(f, "\n  {}: {total} {}", self.side, if total == 1 { "row" } else { "rows" })?;
        rows.iter().try_for_each(|row| write!(f, "\n    {}", line(row)))?;
        let more = total - rows.len() as u64;
        if more > 0 { write!(f, "\n    … and {more} more") } else { Ok(()) }
    }
}

/// `EUR | 1200`: one line, and not a long one.
fn line(row: &Row) -> String {
    let values: Vec<String> =
        row.iter().map(|value| value.as_ref().map_or("<null>".to_owned(), |value| value.escape_debug().to_string())).collect();
    let line = values.join(" | ");
    let mut shown: String = line.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < line.len() {
        shown.push_str(" …");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&str]) -> Rows {
        values.iter().map(|value| vec![Some((*value).to_owned())]).collect()
    }

    #[test]
    fn rows_that_only_one_side_has_come_first() {
        let (one, other) = (rows(&["a", "b", "b", "c"]), rows(&["b", "c", "d"]));
        assert_eq!(differing_first(&one, Some(&other)), rows(&["a", "b", "b", "c"]));
        assert_eq!(differing_first(&other, Some(&one)), rows(&["d", "b", "c"]));
        assert_eq!(differing_first(&one, None), one);
    }

    #[test]
    fn a_long_answer_is_cut_and_says_so() {
        let many: Rows = (100..150).map(|at| vec![Some(at.to_string()), None]).collect();
        let text = Answer::new(Side::Source, Some(&many), None, None).to_string();
        assert!(text.starts_with("\n  source: 50 rows\n    100 | <null>\n"), "{text}");
        assert!(text.ends_with("\n    119 | <null>\n    … and 30 more"), "{text}");
        let long = Answer::new(Side::Target, Some(&rows(&[&"x\n".repeat(300)])), None, None).to_string();
        assert_eq!(long.lines().count(), 3, "a line break in a value is none in the report: {long}");
        assert!(long.ends_with(" …"), "{long}");
    }
}
