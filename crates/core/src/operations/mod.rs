//! What applications tell of their reads and writes, and what it comes to over some time: pure, in milliseconds of the
//! caller's monotonic clock.
//!
//! Durations are told in so few different lengths that each is counted by itself: percentiles are exact in them, and two
//! counts are added without a loss.

mod durations;
mod ledger;
mod tellers;

use crate::Side;

pub use durations::Durations;
pub use ledger::{Ledger, SLOT_MS, Summary, WINDOW_MS};
pub use tellers::Tellers;

/// What operations have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// What is moved.
    pub unit: String,
    /// What was done, in the application's words.
    pub operation: String,
    /// The store that was asked.
    pub store: Side,
}

/// How an operation ended at one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was done, and the other store says the same.
    Agreed,
    /// It was done, and the other store says something else.
    Differed,
    /// It failed, and the other store answered in its place.
    FellBack,
    /// It failed.
    Failed,
}

impl Outcome {
    /// All, in their order.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Agreed, Self::Differed, Self::FellBack, Self::Failed];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Agreed => "agreed",
            Self::Differed => "differed",
            Self::FellBack => "fell_back",
            Self::Failed => "failed",
        }
    }
}
