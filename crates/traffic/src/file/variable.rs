//! Finding and replacing one variable in a text of any of the formats.

use std::ops::Range;

use cutover_core::plan::Format;

use super::{env, json, toml, yaml};
use crate::FileFault;

/// Where a variable's value stands, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The bytes of the value, with its quotes.
    pub(super) span: Range<usize>,
    /// The value as the application reads it.
    pub(super) value: String,
    /// Its type.
    pub(super) kind: Kind,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
    Null,
}

impl Kind {
    /// The type of `value` in the place of one of this type: what was no text must not become text.
    pub(super) fn of_new(self, variable: &str, value: &str) -> Result<Self, FileFault> {
        let fits = match self {
            Self::Text | Self::Null => return Ok(Self::Text),
            Self::Number => is_number(value),
            Self::Bool => matches!(value, "true" | "false"),
        };
        let was = if self == Self::Bool { "boolean" } else { "number" };
        if fits { Ok(self) } else { Err(FileFault::Type { variable: variable.to_owned(), was }) }
    }
}

/// Whether all formats but env read `text` as a number.
pub(super) fn is_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// The value of `variable`.
pub(super) fn current(format: Format, text: &str, variable: &str) -> Result<String, FileFault> {
    locate(format, text, variable).map(|found| found.value)
}

/// The text with `variable` set to `value` and nothing else changed; `None` where it has that value already.
pub(super) fn replace(format: Format, old: &str, variable: &str, value: &str) -> Result<Option<String>, FileFault> {
    let found = locate(format, old, variable)?;
    if found.value == value && found.kind != Kind::Null {
        return Ok(None);
    }
    let raw = &old[found.span.clone()];
    let written = match format {
        Format::Env => env::written(raw, value),
        Format::Json => json::written(found.kind.of_new(variable, value)?, value),
        Format::Yaml => yaml::written(raw, found.kind.of_new(variable, value)?, value),
        Format::Toml => toml::written(raw, found.kind.of_new(variable, value)?, value),
    };
    let new = format!("{}{written}{}", &old[..found.span.start], &old[found.span.end..]);
    if only_changed(format, old, &new, variable, value) { Ok(Some(new)) } else { Err(FileFault::NotOnly(variable.to_owned())) }
}

fn locate(format: Format, text: &str, variable: &str) -> Result<Found, FileFault> {
    match format {
        Format::Env => env::locate(text, variable),
        Format::Json => json::locate(text, variable),
        Format::Yaml => yaml::locate(text, variable),
        Format::Toml => toml::locate(text, variable),
    }
}

/// Reads both texts again: whether they differ in that `variable` now is `value`, and in nothing else.
fn only_changed(format: Format, old: &str, new: &str, variable: &str, value: &str) -> bool {
    match format {
        Format::Env => env::only_changed(old, new, variable, value),
        Format::Json => json::only_changed(old, new, variable, value),
        Format::Yaml => yaml::only_changed(old, new, variable, value),
        Format::Toml => toml::only_changed(old, new, variable, value),
    }
}
