//! What was seen of a row, and what that proves.

use tokio_postgres::Row;

use super::Key;

/// One row at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowState {
    pub(super) key: Key,
    pub(super) version: String,
    /// No transaction has deleted, replaced or locked this version.
    pub(super) unclaimed: bool,
    /// A hash per column.
    pub(super) columns: Vec<i64>,
    /// What may be shown of each column, where that was asked for.
    pub(super) shown: Option<Vec<Option<String>>>,
    /// How long each column is. Unit: characters.
    pub(super) lengths: Option<Vec<Option<i32>>>,
}

/// Rows in the order of the keys that were asked for.
pub(super) type States = Vec<Option<RowState>>;

impl RowState {
    /// From a row of [`TableSql::states`](super::sql::TableSql::states).
    pub(super) fn of(row: &Row) -> Self {
        Self { key: row.get(1), version: row.get(2), unclaimed: row.get(3), columns: row.get(4), shown: row.get(5), lengths: row.get(6) }
    }
}

/// Puts rows, each behind the number of its key, in the order of the keys.
pub(super) fn in_order<'a>(keys: usize, rows: impl IntoIterator<Item = &'a Row>) -> States {
    let mut states = vec![None; keys];
    for row in rows {
        if let Some(state) = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|at| states.get_mut(at)) {
            *state = Some(RowState::of(row));
        }
    }
    states
}

/// The row as it was seen four times.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    pub(super) follower_before: Option<RowState>,
    pub(super) authority: Option<RowState>,
    pub(super) follower: Option<RowState>,
    pub(super) authority_after: Option<RowState>,
    /// Whether the authority's looks show everything that it committed before `follower_before`.
    pub(super) writers_done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    Equal,
    Missing,
    Extra,
    /// The numbers of the columns.
    Differs(Vec<usize>),
    Undecided,
}

impl Looks {
    pub(super) fn judge(&self) -> Ruling {
        if same(&self.authority, &self.follower) || same(&self.authority_after, &self.follower) {
            return Ruling::Equal;
        }
        match (&self.authority, &self.authority_after) {
            (Some(before), Some(after)) if before.version == after.version && after.unclaimed => compare(before, self.follower.as_ref()),
            (None, None) if self.writers_done && same_version(&self.follower_before, &self.follower) => Ruling::Extra,
            _ => Ruling::Undecided,
        }
    }
}

/// What two rows that stand still say.
pub(super) fn compare_still(authority: Option<&RowState>, follower: Option<&RowState>) -> Ruling {
    match (authority, follower) {
        (Some(authority), follower) => compare(authority, follower),
        (None, Some(_)) => Ruling::Extra,
        (None, None) => Ruling::Equal,
    }
}

fn compare(authority: &RowState, follower: Option<&RowState>) -> Ruling {
    let Some(follower) = follower else { return Ruling::Missing };
    let differing = authority.columns.iter().zip(&follower.columns).enumerate().filter(|(_, (one, other))| one != other);
    let differing: Vec<usize> = differing.map(|(at, _)| at).collect();
    if differing.is_empty() { Ruling::Equal } else { Ruling::Differs(differing) }
}

fn same(one: &Option<RowState>, other: &Option<RowState>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.columns == other.columns,
        (None, None) => true,
        _ => false,
    }
}

pub(super) fn same_version(one: &Option<RowState>, other: &Option<RowState>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.version == other.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: &str, value: i64) -> Option<RowState> {
        Some(RowState {
            key: vec!["1".to_owned()],
            version: version.to_owned(),
            unclaimed: true,
            columns: vec![1, value],
            shown: None,
            lengths: None,
        })
    }

    fn claimed(version: &str, value: i64) -> Option<RowState> {
        row(version, value).map(|state| RowState { unclaimed: false, ..state })
    }

    fn judge(f1: Option<RowState>, a1: Option<RowState>, f2: Option<RowState>, a2: Option<RowState>) -> Ruling {
        Looks { follower_before: f1, authority: a1, follower: f2, authority_after: a2, writers_done: true }.judge()
    }

    #[test]
    fn a_row_that_stood_still_at_the_authority_is_decided() {
        assert_eq!(judge(None, row("a", 5), row("x", 5), row("a", 5)), Ruling::Equal);
        assert_eq!(judge(row("x", 4), row("a", 5), row("x", 4), row("a", 5)), Ruling::Differs(vec![1]));
        assert_eq!(judge(None, row("a", 5), None, row("a", 5)), Ruling::Missing);
    }

    #[test]
    fn a_row_that_moved_is_not() {
        // Replaced between the looks, and the follower is ahead of the first and behind the second.
        assert_eq!(judge(row("x", 4), row("a", 5), row("y", 6), row("b", 7)), Ruling::Undecided);
        // The follower shows a commit that the authority does not show yet, but has claimed the row for.
        assert_eq!(judge(row("x", 5), row("a", 5), row("y", 6), claimed("a", 5)), Ruling::Undecided);
        assert_eq!(judge(row("x", 5), row("a", 5), None, claimed("a", 5)), Ruling::Undecided);
        // Inserted at the authority after the first look.
        assert_eq!(judge(None, None, row("x", 5), None), Ruling::Undecided);
        assert_eq!(judge(row("w", 5), None, row("x", 5), None), Ruling::Undecided);
    }

    #[test]
    fn a_row_is_extra_only_once_all_writers_are_visible() {
        assert_eq!(judge(row("x", 5), None, row("x", 5), None), Ruling::Extra);
        let looks = Looks { follower_before: row("x", 5), follower: row("x", 5), ..Looks::default() };
        assert_eq!(looks.judge(), Ruling::Undecided);
    }
}
