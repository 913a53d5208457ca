//! What may be written: names, lengths and numbers that every backend can store.

use crate::entry::Draft;

/// Longest name of a plan, in bytes.
pub const MOST_PLAN_BYTES: usize = 63;
/// Longest actor, and longest name of a driver or a server, in bytes.
pub const MOST_ACTOR_BYTES: usize = 256;
/// Longest reason, in bytes.
pub const MOST_REASON_BYTES: usize = 4096;
/// Longest kind, in bytes.
pub const MOST_KIND_BYTES: usize = 128;
/// Longest body, in bytes of its JSON text.
pub const MOST_BODY_BYTES: usize = 1024 * 1024;
/// Most drafts in one append.
pub const MOST_DRAFTS: usize = 100;

/// Something the journal refuses to store.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The plan's name has another form than names have; it also names files.
    #[error("`{name}` can't name a plan: use 1 to {MOST_PLAN_BYTES} letters, digits, `-` or `_`, beginning with a letter or digit")]
    PlanName {
        /// The name, cut short where it is long.
        name: String,
    },
    /// The field must say something.
    #[error("the {field} is empty")]
    Empty {
        /// Which field.
        field: &'static str,
    },
    /// The field is too long.
    #[error("the {field} has {bytes} bytes, and at most {most_bytes} are allowed")]
    Long {
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The longest length in bytes.
        most_bytes: usize,
    },
    /// The field holds a NUL character, which PostgreSQL can't store.
    #[error("the {field} holds a NUL character")]
    Nul {
        /// Which field.
        field: &'static str,
    },
    /// The epoch is larger than databases can store.
    #[error("the epoch {epoch} is larger than {}", i64::MAX)]
    Epoch {
        /// The epoch.
        epoch: u64,
    },
    /// The body can be written but not read again, for example because it is nested too deeply.
    #[error("the body could not be read again")]
    Body {
        /// Why.
        source: serde_json::Error,
    },
    /// Too many drafts in one append.
    #[error("{count} entries in one append, and at most {MOST_DRAFTS} are allowed")]
    Drafts {
        /// How many there were.
        count: usize,
    },
}

/// The plan's name, if it may be one.
pub(crate) fn plan_name(name: &str) -> Result<String, Invalid> {
    let fits = (1..=MOST_PLAN_BYTES).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|each| each.is_ascii_alphanumeric() || matches!(each, '-' | '_'));
    if fits { Ok(name.to_owned()) } else { Err(Invalid::PlanName { name: name.chars().take(MOST_PLAN_BYTES).collect() }) }
}

/// Checks who wants to drive.
pub(crate) fn driver(who: &str) -> Result<(), Invalid> {
    filled("driver's name", who)?;
    text("driver's name", who, MOST_ACTOR_BYTES)
}

/// Checks a server's name.
pub(crate) fn server(name: &str) -> Result<(), Invalid> {
    filled("server's name", name)?;
    text("server's name", name, MOST_ACTOR_BYTES)
}

/// Checks all of a draft but its body.
pub(crate) fn draft(draft: &Draft) -> Result<(), Invalid> {
    if i64::try_from(draft.epoch).is_err() {
        return Err(Invalid::Epoch { epoch: draft.epoch });
    }
    filled("actor", &draft.actor)?;
    filled("kind", &draft.kind)?;
    text("actor", &draft.actor, MOST_ACTOR_BYTES)?;
    text("kind", &draft.kind, MOST_KIND_BYTES)?;
    text("reason", &draft.reason, MOST_REASON_BYTES)
}

/// Checks a body's text. It holds no NUL: JSON escapes it.
pub(crate) fn body(body_text: &str) -> Result<(), Invalid> {
    short("body", body_text, MOST_BODY_BYTES)
}

/// A number as databases store it. An epoch was checked to fit, and a sequence number is one more than one that did.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn filled(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.trim().is_empty() { Err(Invalid::Empty { field }) } else { Ok(()) }
}

fn text(field: &'static str, text: &str, most_bytes: usize) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::Nul { field });
    }
    short(field, text, most_bytes)
}

fn short(field: &'static str, text: &str, most_bytes: usize) -> Result<(), Invalid> {
    let bytes = text.len();
    if bytes > most_bytes { Err(Invalid::Long { field, bytes, most_bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for bad in ["", "-a", "_a", "a/b", "..", "a.b", "a b", "ä", "a\0", &"a".repeat(64)] {
            assert!(plan_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "0", "Shop_2-east", &"a".repeat(63)] {
            assert_eq!(plan_name(good).unwrap(), good);
        }
    }
}
