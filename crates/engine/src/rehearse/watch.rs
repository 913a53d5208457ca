//! Listens to the driver on the way to whoever listens to us, and keeps what each step took.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cutover_core::{Event, Step};

use crate::{Notice, Report};

/// What a step came to.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: &'static str,
    began: Instant,
    /// None while it is under way, or where it failed.
    took: Option<Duration>,
    /// What was measured, for a person.
    pub(super) facts: String,
}

impl Seen {
    pub(super) fn is_done(&self) -> bool {
        self.took.is_some()
    }

    /// How long it took, or has taken so far.
    pub(super) fn took(&self) -> Duration {
        self.took.unwrap_or_else(|| self.began.elapsed())
    }
}

/// Keeps the steps of one verb.
pub(super) struct Watch<'a> {
    to: &'a dyn Report,
    steps: Mutex<Vec<Seen>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(to: &'a dyn Report) -> Self {
        Self { to, steps: Mutex::default() }
    }

    /// The last attempt of a step, where there was one.
    pub(super) fn step(&self, name: &str) -> Option<Seen> {
        self.steps().iter().rev().find(|seen| seen.name == name).cloned()
    }

    fn steps(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, step: Step) {
        let name = step.spec(true).name;
        self.steps().push(Seen { name, began: Instant::now(), took: None, facts: String::new() });
    }

    fn end(&self, facts: String) {
        if let Some(seen) = self.steps().last_mut() {
            seen.took = Some(seen.began.elapsed());
            seen.facts = facts;
        }
    }
}

impl Report for Watch<'_> {
    fn notice(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Step(step) => self.begin(*step),
            Notice::Journalled(_, Event::Prepared { facts, .. }) => {
                let facts: Vec<String> = facts.iter().map(|(name, value)| fact(name, value)).collect();
                self.end(facts.join(", "));
            }
            Notice::Journalled(_, Event::Smoked | Event::Opened { .. } | Event::TornDown) => self.end(String::new()),
            _ => {}
        }
        self.to.notice(notice);
    }
}

/// `rows 1200`, `seconds 0.4`.
fn fact(name: &str, value: &serde_json::Value) -> String {
    let name = name.replace('_', " ");
    match value.as_f64() {
        Some(number) if value.is_f64() => format!("{name} {number:.1}"),
        _ => format!("{name} {value}"),
    }
}
