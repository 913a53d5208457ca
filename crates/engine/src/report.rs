//! What a driver tells while it drives. Who listens decides what to show.

use cutover_core::{Action, Event, Step};
use cutover_journal::Entry;

/// One thing that happened.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A step begins, or begins again.
    Step(Step),
    /// An action of it begins.
    Action(Action),
    /// An action took this long, in milliseconds.
    ActionDone(Action, u64),
    /// An action takes so long that a person begins to wonder.
    Waiting {
        /// The step's name.
        step: &'a str,
        /// The action, in a line.
        line: &'a str,
        /// For how long.
        seconds: u64,
    },
    /// An entry is durable in the journal.
    Journalled(&'a Entry, &'a Event),
    /// Long work has come this far.
    Progress(Progress),
    /// Something a person should know, without being asked to act.
    Note(String),
    /// Something a person should look at.
    Warning(String),
}

/// How far long work has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub what: &'static str,
    /// Units done.
    pub done: u64,
    /// Units in all, as far as known.
    pub total: u64,
    /// The unit.
    pub unit: &'static str,
    /// Units a second, over the last seconds.
    pub per_second: f64,
    /// Seconds left, where that can be told.
    pub eta_seconds: Option<f64>,
    /// More of it, for a person.
    pub detail: String,
}

/// Listens to a driver.
pub trait Report: Send + Sync {
    /// Called for each notice, in order. Must return at once.
    fn notice(&self, notice: &Notice<'_>);
}

/// Hears everything and says nothing.
#[derive(Debug)]
pub struct Silent;

impl Report for Silent {
    fn notice(&self, _notice: &Notice<'_>) {}
}
