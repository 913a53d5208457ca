//! What a service shows of a flag, and whether that is what is wanted.

use std::{collections::BTreeSet, fmt};

use cutover_core::{
    Side,
    clients::{Names, Wanted},
};
use serde_json::Value;

/// Whom a flag is open to, or would be if it were on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// Whoever asks.
    Everybody,
    /// Whoever is connected to a database of one of these names.
    Databases(BTreeSet<String>),
    /// Something else that somebody set up, in a few words.
    Others(String),
}

/// The flag as it is at its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Whether it is open to anybody.
    pub(super) on: bool,
    pub(super) to: To,
    /// The route that stands there beside it, where the service has room for one.
    pub(super) record: Option<Record>,
}

/// What was written down with the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) epoch: u64,
    pub(super) authority: Side,
}

impl Shown {
    /// Whether it says no less and no more than it has to.
    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        let recorded = Record { epoch: wanted.route.epoch, authority: wanted.route.authority };
        let says = if wanted.open() { self.on && self.to == To::Databases(wanted.databases.clone()) } else { !self.on };
        says && self.record.is_none_or(|record| record == recorded)
    }

    /// The side whose clients it is open to, or was when it was last open.
    pub(super) fn points_at(&self, names: &Names) -> Option<Side> {
        match &self.to {
            To::Databases(databases) if self.on || self.record.is_none() => names.side_of(databases),
            _ => self.record.filter(|_| !self.on).map(|record| record.authority),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.to, self.on) {
            (_, false) => f.write_str("closed")?,
            (To::Everybody, true) => f.write_str("open to everybody")?,
            (To::Databases(names), true) => write!(f, "open to {}", list(names))?,
            (To::Others(what), true) => write!(f, "open by {what}")?,
        }
        if let Some(record) = self.record { write!(f, " since epoch {}", record.epoch) } else { Ok(()) }
    }
}

/// What is wanted, for a person.
pub(super) fn spell(wanted: &Wanted) -> String {
    if wanted.open() { format!("open to {}", list(&wanted.databases)) } else { "closed".to_owned() }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A list of texts.
pub(super) fn texts(value: &Value) -> Option<BTreeSet<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}
