//! The stages of a shift, in their order.

use std::time::Duration;

use cutover_bucketing::ALL;

/// A stage of a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Its name, as it is shown.
    pub stage: &'static str,
    /// The share of reads that goes to the target. Unit: basis points.
    pub target_reads: u16,
    /// How long it lasts at least, where nobody says otherwise.
    pub dwell: Duration,
}

impl Rung {
    const fn new(stage: &'static str, target_reads: u16, hours: u64) -> Self {
        Self { stage, target_reads, dwell: Duration::from_secs(hours * 3_600) }
    }
}

/// The stages that a unit climbs. The first is where nothing has begun, and the last where it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rungs(&'static [Rung]);

impl Rungs {
    /// Of shadow tables: the least time that their document recommends for each stage.
    pub const SHADOW_TABLES: Self = Self(&[
        Rung::new("disabled", 0, 0),
        Rung::new("dual_write", 0, 24),
        Rung::new("test_1", ALL / 100, 12),
        Rung::new("test_10", ALL / 10, 6),
        Rung::new("half_50", ALL / 2, 4),
        Rung::new("full_100", ALL, 2),
        Rung::new("completed", ALL, 0),
    ]);

    /// All of them.
    #[must_use]
    pub fn all(self) -> &'static [Rung] {
        self.0
    }

    /// The one at a place, counted from 0.
    #[must_use]
    pub fn at(self, place: usize) -> Option<&'static Rung> {
        self.0.get(place)
    }

    /// The place of the last one.
    #[must_use]
    pub fn last(self) -> usize {
        self.0.len() - 1
    }
}
