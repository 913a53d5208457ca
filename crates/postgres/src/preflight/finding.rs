//! What a check reports: severity, evidence and fix, as data. Who shows it decides how.

use std::{borrow::Cow, time::Duration};

use cutover_core::Side;
use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

use crate::PgError;

/// Lines of evidence that a finding carries at most; the rest is counted.
pub const EVIDENCE_LINES: usize = 20;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// May surprise somebody, or weakens a guarantee.
    Warning,
    /// The cutover would fail or lose something: it does not begin.
    Error,
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check.
    pub check: Cow<'static, str>,
    /// How much it matters.
    pub severity: Severity,
    /// The side that it was found at; none where it concerns both.
    pub side: Option<Side>,
    /// What was found and what follows from it, in a sentence.
    pub message: String,
    /// Names and numbers; at most [`EVIDENCE_LINES`] and a count of the rest.
    pub evidence: Vec<String>,
    /// How to mend it, where that is known.
    pub fix: Option<Fix>,
}

impl Finding {
    /// Whether the cutover does not begin because of it.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// How to mend what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fix {
    /// Statements to run at a side.
    Sql {
        /// Where.
        side: Side,
        /// One statement per line.
        text: String,
    },
    /// A command for a shell.
    Command(String),
    /// What to do, where no statement does it.
    Advice(String),
}

impl Fix {
    /// Statements to run at `side`, one per line.
    pub(super) fn sql<T: Into<String>>(side: Side, statements: impl IntoIterator<Item = T>) -> Self {
        let statements: Vec<String> = statements.into_iter().map(Into::into).collect();
        Self::Sql { side, text: statements.join("\n") }
    }

    /// The same where a gate may be closed: in a session that may pass it, if a statement is one that it refuses.
    pub(super) fn through_gate(self, is_fenced: impl Fn(Side) -> bool) -> Self {
        let passes = |statement: &str| statement.starts_with("SELECT ") || statement.starts_with("ALTER SYSTEM ");
        match self {
            Self::Sql { side, text } if is_fenced(side) && !text.lines().all(passes) => {
                Self::Sql { side, text: format!("SELECT cutover.let_pass('by hand');\n{text}") }
            }
            other => other,
        }
    }

    /// Advice.
    pub(super) fn advice(text: impl Into<String>) -> Self {
        Self::Advice(text.into())
    }
}

/// A finding in the making; its check's name is added and its evidence bounded in one place.
#[derive(Debug)]
pub(super) struct Draft {
    severity: Severity,
    side: Option<Side>,
    message: String,
    evidence: Vec<String>,
    fix: Option<Fix>,
}

impl Draft {
    /// The cutover would fail or lose something.
    pub(super) fn error(side: Side, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, side, message)
    }

    /// May surprise somebody.
    pub(super) fn warning(side: Side, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, side, message)
    }

    /// Good to know.
    pub(super) fn info(side: Side, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, side, message)
    }

    pub(super) fn new(severity: Severity, side: Side, message: impl Into<String>) -> Self {
        Self { severity, side: Some(side), message: message.into(), evidence: Vec::new(), fix: None }
    }

    /// Makes it concern both sides.
    pub(super) fn of_both(mut self) -> Self {
        self.side = None;
        self
    }

    pub(super) fn evidence<T: Into<String>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        self.evidence.extend(lines.into_iter().map(Into::into));
        self
    }

    pub(super) fn fix(mut self, fix: Fix) -> Self {
        self.fix = Some(fix);
        self
    }

    pub(super) fn finish(self, check: &'static str) -> Finding {
        let Self { severity, side, message, mut evidence, fix } = self;
        let more = evidence.len().saturating_sub(EVIDENCE_LINES);
        if more > 0 {
            evidence.truncate(EVIDENCE_LINES);
            evidence.push(format!("and {more} more"));
        }
        Finding { check: check.into(), severity, side, message, evidence, fix }
    }
}

/// Why a check could not tell.
#[derive(Clone, Debug)]
pub(super) struct Inconclusive {
    side: Option<Side>,
    reason: String,
    forbidden: bool,
}

impl Inconclusive {
    pub(super) fn at(side: Side, error: &PgError) -> Self {
        let forbidden = error.sql_state() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        Self { side: Some(side), reason: error.to_string(), forbidden }
    }

    pub(super) fn slow(limit: Duration) -> Self {
        Self { side: None, reason: format!("no answer within {} s", limit.as_secs()), forbidden: false }
    }

    pub(super) fn into_draft(self, about: &str) -> Draft {
        let advice = if self.forbidden {
            "grant our role what the message names, or let a superuser's role drive the cutover; then check again"
        } else {
            "remove what the message names, then check again"
        };
        Draft {
            severity: Severity::Error,
            side: self.side,
            message: format!("could not be established: {}", self.reason),
            evidence: vec![format!("what the check is for: {about}")],
            fix: Some(Fix::advice(advice)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_and_the_rest_is_counted() {
        let exact = Draft::error(Side::Source, "").evidence(vec!["x"; EVIDENCE_LINES]).finish("c");
        assert_eq!(exact.evidence.len(), EVIDENCE_LINES);
        let more = Draft::error(Side::Source, "").evidence(vec!["x"; EVIDENCE_LINES + 7]).finish("c");
        assert_eq!((more.evidence.len(), more.evidence.last().unwrap().as_str()), (EVIDENCE_LINES + 1, "and 7 more"));
    }

    #[test]
    fn what_can_not_be_established_blocks() {
        let finding = Inconclusive::slow(Duration::from_secs(9)).into_draft("rows get lost").finish("c");
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.message.contains("could not be established: no answer within 9 s"), "{}", finding.message);
    }

    #[test]
    fn a_fix_says_what_kind_it_is() {
        let json = serde_json::to_string(&[Fix::sql(Side::Target, ["A;", "B;"]), Fix::advice("look")]).unwrap();
        assert_eq!(json, r#"[{"sql":{"side":"target","text":"A;\nB;"}},{"advice":"look"}]"#);
    }
}
