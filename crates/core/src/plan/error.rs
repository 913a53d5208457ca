//! A fault in a plan file, with the place and a way to mend it.

use std::{fmt, ops::Range};

/// What is wrong with a plan, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// What is wrong.
    pub message: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in that line, from 1, in characters.
    pub column: usize,
    /// How to mend it, where that is known.
    pub hint: Option<String>,
}

impl PlanError {
    /// A fault at a byte range of `file`.
    pub(super) fn at(file: &str, span: Range<usize>, message: impl Into<String>, hint: Option<String>) -> Self {
        let before = file.get(..span.start).unwrap_or(file);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { message: message.into(), line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, hint }
    }

    /// What the TOML reader found, with the nearest known key as a hint.
    pub(super) fn from_toml(file: &str, error: &toml::de::Error) -> Self {
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        let hint = nearest_key(&message).map(|key| format!("did you mean `{key}`?"));
        Self::at(file, error.span().unwrap_or(0..0), message, hint)
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for PlanError {}

/// The expected key that is closest to the unknown one in serde's ``unknown field `a`, expected one of `b`, `c` ``.
fn nearest_key(message: &str) -> Option<String> {
    let (unknown, expected) = message.split_once(", expected ")?;
    let unknown = unknown.strip_prefix("unknown field ")?.trim_matches('`');
    nearest(unknown, expected.split('`').skip(1).step_by(2))
}

/// The candidate that differs least from `word`, if it is close enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
