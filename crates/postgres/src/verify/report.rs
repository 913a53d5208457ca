//! What a verification found.

use std::fmt;

use cutover_core::{Lsn, Side};
use serde::{Deserialize, Serialize};

use super::{Key, values::ColumnValues};
use crate::catalogue::QualifiedName;

/// What is different about a row or a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DifferenceKind {
    /// The authority has the row, the follower does not.
    Missing,
    /// The follower has a row that the authority does not have.
    Extra,
    /// Both have the row, with other values.
    Differs {
        /// The columns whose values differ, by name.
        columns: Vec<String>,
    },
    /// A table without a key holds this very row a different number of times.
    Multiset {
        /// How often at the authority. Unit: rows.
        authority: i64,
        /// How often at the follower. Unit: rows.
        follower: i64,
    },
    /// The follower has no such table.
    MissingTable,
    /// Only the follower has the table.
    ExtraTable,
    /// The follower's table lacks columns that the authority stores.
    MissingColumns {
        /// Their names.
        columns: Vec<String>,
    },
}

/// A row's key, to look it up by and not to be shown: its columns may be redacted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RowKey(pub(super) Key);

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowKey")
    }
}

/// One difference that was established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The table.
    pub table: QualifiedName,
    /// Column and value, as text, of each column of the key. For a table without a key, `row hash` and the number
    /// under which the row was counted; empty for a difference of the table itself.
    pub key: Vec<(String, String)>,
    /// The key itself, to find the row again.
    #[serde(skip)]
    pub row: RowKey,
    /// What is different.
    #[serde(flatten)]
    pub kind: DifferenceKind,
    /// Both sides' values of the columns that differ, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ColumnValues>,
}

/// Something that could not be established: neither equal nor different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// The table.
    pub table: QualifiedName,
    /// The row, where one row is meant; else empty.
    pub key: Vec<(String, String)>,
    /// Why it could not be established.
    pub why: String,
}

/// A remark about a table: why it was left out, or how it was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// The table.
    pub table: QualifiedName,
    /// The remark.
    pub why: String,
}

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row was compared, and is the same on both sides.
    Equal,
    /// At least one difference was established.
    Different,
    /// No difference was established, and equality was not either.
    Inconclusive,
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "missing at the follower"),
            Self::Extra => write!(f, "at the follower only"),
            Self::Differs { columns } => write!(f, "differs in {}", columns.join(", ")),
            Self::Multiset { authority, follower } => write!(f, "{authority} times at the authority, {follower} times at the follower"),
            Self::MissingTable => write!(f, "the follower has no such table"),
            Self::ExtraTable => write!(f, "only the follower has this table"),
            Self::MissingColumns { columns } => write!(f, "the follower lacks the columns {}", columns.join(", ")),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.table, key_text(&self.key), self.kind)?;
        for ColumnValues { column, authority, follower, .. } in &self.values {
            write!(f, "\n    {column}: {authority} at the authority, {follower} at the follower")?;
        }
        Ok(())
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.table, key_text(&self.key), self.why)
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.why)
    }
}

/// ` (id 5)`; nothing for a whole table.
fn key_text(key: &[(String, String)]) -> String {
    let columns: Vec<String> = key.iter().map(|(column, value)| format!("{column} {value}")).collect();
    if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) }
}

/// What a verification found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The side that the other one is measured by.
    pub authority: Side,
    /// The position of the authority's log before the first row was compared, by whichever part of the verification.
    pub lsn: Lsn,
    /// Tables compared, with those of an earlier part.
    pub tables: u64,
    /// Chunks compared by this part.
    pub chunks: u64,
    /// Rows of the authority that were compared, with those of an earlier part.
    pub rows: u64,
    /// How long this part took. Unit: seconds.
    pub seconds: f64,
    /// Rows per second.
    pub rows_per_s: f64,
    /// Rows that were not the same at the first look and were looked at again.
    pub rechecked_rows: u64,
    /// The differences, at most [`Options::max_differences`](super::Options::max_differences).
    pub differences: Vec<Difference>,
    /// How many there are in all.
    pub differences_total: u64,
    /// What could not be established, at most as many as differences.
    pub unsettled: Vec<Unsettled>,
    /// How many there are in all.
    pub unsettled_total: u64,
    /// Tables that were not compared, and why.
    pub skipped: Vec<Remark>,
    /// How tables were compared, where not in the usual way.
    pub notes: Vec<Remark>,
}

impl Report {
    /// Turns the differences of one kind into notes, where whoever asked knows the reason and it is no fault.
    pub fn set_aside(&mut self, kind: &DifferenceKind, why: &str) {
        let (aside, kept): (Vec<_>, Vec<_>) = self.differences.drain(..).partition(|difference| difference.kind == *kind);
        self.differences = kept;
        self.differences_total -= aside.len() as u64;
        self.notes.extend(aside.into_iter().map(|difference| Remark { table: difference.table, why: why.to_owned() }));
    }

    /// Turns columns that the follower lacks into notes, where whoever asked knows the reason; they are told to it as
    /// `schema.table.column`.
    pub fn set_columns_aside(&mut self, is_known: impl Fn(&str) -> bool, why: &str) {
        let before = self.differences.len();
        for difference in &mut self.differences {
            let DifferenceKind::MissingColumns { columns } = &mut difference.kind else { continue };
            let table = &difference.table;
            let (aside, kept): (Vec<_>, Vec<_>) = columns.drain(..).partition(|column| is_known(&format!("{table}.{column}")));
            *columns = kept;
            let remark = |column: String| Remark { table: table.clone(), why: format!("the follower lacks column {column}: {why}") };
            self.notes.extend(aside.into_iter().map(remark));
        }
        self.differences.retain(|difference| !matches!(&difference.kind, DifferenceKind::MissingColumns { columns } if columns.is_empty()));
        self.differences_total -= (before - self.differences.len()) as u64;
    }

    /// The outcome. Where nothing was compared at all it is inconclusive: no data is not good data.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.differences_total > 0 {
            Verdict::Different
        } else if self.unsettled_total > 0 || self.tables == 0 {
            Verdict::Inconclusive
        } else {
            Verdict::Equal
        }
    }
}

/// What was found so far, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// How many differences, and how many unsettled, are kept with their details.
    kept: usize,
    pub(super) differences: Vec<Difference>,
    pub(super) differences_total: u64,
    pub(super) unsettled: Vec<Unsettled>,
    pub(super) unsettled_total: u64,
    pub(super) rows: u64,
    pub(super) chunks: u64,
    pub(super) rechecked_rows: u64,
}

impl Findings {
    pub(super) fn keeping(kept: usize) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Whether no more details are kept.
    pub(super) fn is_full(&self) -> bool {
        self.differences.len() >= self.kept
    }

    pub(super) fn difference(&mut self, difference: Difference) {
        self.differences_total += 1;
        if self.differences.len() < self.kept {
            self.differences.push(difference);
        }
    }

    pub(super) fn unsettled(&mut self, unsettled: Unsettled) {
        self.unsettled_total += 1;
        if self.unsettled.len() < self.kept {
            self.unsettled.push(unsettled);
        }
    }

    /// Puts the differences in order. One row may have been found in two ranges, where the sides do not sort alike after
    /// all: it counts once.
    pub(super) fn sort(&mut self) {
        self.differences.sort_by(|one, other| (&one.table, &one.key).cmp(&(&other.table, &other.key)));
        let found = self.differences.len();
        self.differences.dedup();
        self.differences_total -= (found - self.differences.len()) as u64;
    }

    /// Adds what another part of the work found.
    pub(super) fn merge(&mut self, other: Self) {
        let room = self.kept.saturating_sub(self.differences.len());
        self.differences.extend(other.differences.into_iter().take(room));
        let room = self.kept.saturating_sub(self.unsettled.len());
        self.unsettled.extend(other.unsettled.into_iter().take(room));
        self.differences_total += other.differences_total;
        self.unsettled_total += other.unsettled_total;
        self.rows += other.rows;
        self.chunks += other.chunks;
        self.rechecked_rows += other.rechecked_rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(name: &str) -> Difference {
        let table = QualifiedName { schema: "public".to_owned(), name: name.to_owned() };
        Difference { table, key: Vec::new(), row: RowKey::default(), kind: DifferenceKind::Missing, values: Vec::new() }
    }

    #[test]
    fn beyond_the_limit_differences_are_counted_and_not_kept() {
        let mut all = Findings::keeping(3);
        for part in ["a", "b"] {
            let mut findings = Findings::keeping(3);
            (0..2).for_each(|_| findings.difference(difference(part)));
            all.merge(findings);
        }
        assert_eq!((all.differences.len(), all.differences_total), (3, 4));
        assert!(all.is_full());
        all.sort();
        assert_eq!((all.differences.len(), all.differences_total), (2, 3), "the same difference counts once");
    }
}
