//! What of a differing row's values may be shown.

use serde::{Deserialize, Serialize};

use super::judge::{RowState, Ruling};

/// Both sides' values of one column that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnValues {
    /// The column.
    pub column: String,
    /// Whether the plan keeps its values to themselves: then there are lengths only.
    pub redacted: bool,
    /// At the authority.
    pub authority: Value,
    /// At the follower.
    pub follower: Value,
}

/// A value, as far as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The first 200 characters of its text; absent for NULL, and where it is redacted.
    pub text: Option<String>,
    /// How long its text is; absent for NULL. Unit: characters.
    pub characters: Option<i32>,
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.text, self.characters) {
            (_, None) => f.write_str("NULL"),
            (None, Some(characters)) => write!(f, "({characters} characters)"),
            (Some(text), Some(characters)) if usize::try_from(characters).is_ok_and(|all| all > text.chars().count()) => {
                write!(f, "{text:?}… ({characters} characters)")
            }
            (Some(text), Some(_)) => write!(f, "{text:?}"),
        }
    }
}

/// Both sides' values of the columns that differ, where values were asked for.
pub(super) fn values(
    columns: &[String],
    shown: Option<&[bool]>,
    authority: Option<&RowState>,
    follower: Option<&RowState>,
    ruling: &Ruling,
) -> Vec<ColumnValues> {
    let (Some(shown), Some(authority), Some(follower), Ruling::Differs(differing)) = (shown, authority, follower, ruling) else {
        return Vec::new();
    };
    let of_column = |at: &usize| {
        let redacted = !shown.get(*at)?;
        Some(ColumnValues {
            column: columns.get(*at)?.clone(),
            redacted,
            authority: value(authority, *at, redacted),
            follower: value(follower, *at, redacted),
        })
    };
    differing.iter().filter_map(of_column).collect()
}

fn value(row: &RowState, at: usize, redacted: bool) -> Value {
    let text = row.shown.as_ref().and_then(|shown| shown.get(at).cloned()).flatten();
    let characters = row.lengths.as_ref().and_then(|lengths| lengths.get(at).copied()).flatten();
    Value { text: text.filter(|_| !redacted), characters }
}

/// Whether `pattern` means the column `name` (`schema.table.column`); `*` stands for any text.
pub(super) fn means(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_whole_names() {
        assert!(means("public.users.email", "public.users.email"));
        assert!(!means("public.users.email", "public.users.email2"));
        assert!(means("*.password*", "public.users.password_hash"));
        assert!(means("*.password*", "a.b.password"));
        assert!(!means("*.password*", "a.b.word"));
        assert!(means("a*b*c", "aXbYbZc") && !means("a*b*c", "aXc"));
        assert!(means("*", "a.b.c"));
        assert!(!means("a.*.a", "a."), "what is matched once is not matched again");
    }

    #[test]
    fn a_long_value_says_that_it_goes_on() {
        let value = |text: Option<&str>, characters| Value { text: text.map(str::to_owned), characters }.to_string();
        assert_eq!(value(Some("a"), Some(1)), "\"a\"");
        assert_eq!(value(Some("a"), Some(9)), "\"a\"… (9 characters)");
        assert_eq!(value(None, Some(9)), "(9 characters)");
        assert_eq!(value(None, None), "NULL");
    }
}
