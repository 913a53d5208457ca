//! What was measured of a unit, and whether that is good enough: to go on, to stay, or not even to stay.
//!
//! Every number is compared exactly, as a fraction: at a limit is not beyond it. What was not measured is never good.

use std::collections::BTreeSet;

/// A million: shares are counted in millionths.
const ALL_PPM: u128 = 1_000_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// The share of operations that failed.
    Errors,
    /// How much longer the target takes than the source.
    Latency,
    /// The share of rows that are not the same.
    Differences,
    /// How many second writes failed.
    SecondWrites,
}

/// Limits of one tier. Unit: millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Of operations.
    pub errors: u64,
    /// Of the source's latency.
    pub latency_increase: u64,
    /// Of rows.
    pub differences: u64,
}

/// Three tiers, from strict to loose, and what a measurement has to be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Only within these, not at them, the next step is taken.
    pub advance: Tier,
    /// Beyond these somebody is told.
    pub alert: Tier,
    /// Beyond these, again and again or by far, it goes back.
    pub back: Tier,
    /// So many times beyond a limit is beyond it by far.
    pub severe_factor: u64,
    /// Fewer operations say nothing.
    pub min_samples: u64,
    /// More second writes that failed within the window are too many.
    pub max_failures: u64,
    /// More failed checks in a row than this are too many.
    pub max_row: u32,
}

impl Default for Limits {
    /// As the document of shadow tables has them.
    fn default() -> Self {
        Self {
            advance: Tier { errors: 1_000, latency_increase: 100_000, differences: 5_000 },
            alert: Tier { errors: 10_000, latency_increase: 200_000, differences: 10_000 },
            back: Tier { errors: 10_000, latency_increase: 200_000, differences: 10_000 },
            severe_factor: 5,
            min_samples: 100,
            max_failures: 3,
            max_row: 3,
        }
    }
}

/// What a comparison of both sides found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// So many rows, and so many of them that are missing, extra or different.
    Rows {
        /// All of them, more than 0.
        all: u64,
        /// Those that are not the same.
        different: u64,
    },
    /// Nothing to compare, or it could not be compared.
    Inconclusive,
}

/// Operations of one kind at one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// How many.
    pub count: u64,
    /// How many of them failed.
    pub failed: u64,
    /// What 95 % of them took at most. Unit: milliseconds.
    pub p95_ms: u64,
}

/// What was measured within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Reads at the target.
    pub target: Reads,
    /// The source's p95, once it was measured with enough operations. Unit: milliseconds.
    pub baseline_ms: Option<u64>,
    /// Second writes within the window, and how many of them failed.
    pub writes: (u64, u64),
    /// The same since the stage began.
    pub writes_since_stage: (u64, u64),
    /// Both sides.
    pub compared: Compared,
}

/// What follows from a stage for what has to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing is moved.
    Nothing,
    /// What is written to both.
    Writes,
    /// What is read at the target, and what is written.
    Reads,
}

/// What is beyond which limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What could not be judged.
    pub unknown: BTreeSet<Measure>,
    /// Beyond the limits for going back.
    pub breaches: BTreeSet<Measure>,
    /// Beyond the limits for telling somebody.
    pub alerts: BTreeSet<Measure>,
    /// Not within the limits for going on.
    pub holds: BTreeSet<Measure>,
    /// One of the breaches is by far.
    pub severe: bool,
}

impl Judgement {
    /// Whether it is good enough for the next step.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unknown.is_empty() && self.breaches.is_empty() && self.holds.is_empty()
    }

    /// Compares a fraction with the limits of its measure.
    fn weigh(&mut self, measure: Measure, part: u64, whole: u64, limits: &Limits, limit: impl Fn(&Tier) -> u64) {
        let scaled = u128::from(part) * ALL_PPM;
        let bound = |limit: u64| u128::from(limit) * u128::from(whole);
        if scaled > bound(limit(&limits.back)) {
            self.breaches.insert(measure);
            self.severe |= scaled > bound(limit(&limits.back)) * u128::from(limits.severe_factor);
        }
        if scaled > bound(limit(&limits.alert)) {
            self.alerts.insert(measure);
        }
        if scaled >= bound(limit(&limits.advance)) {
            self.holds.insert(measure);
        }
    }
}

/// How a unit does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Everything was measured, and nothing is beyond a limit.
    Healthy,
    /// Beyond a limit; so far it holds.
    Degraded,
    /// Beyond a limit again and again, or by far: reads go to the source.
    Unhealthy,
    /// Not enough was measured.
    #[default]
    Unknown,
}

impl Health {
    /// How it does after a check, and how many checks in a row have failed. `fresh`: something was measured since the last one.
    #[must_use]
    pub(super) fn after(self, row: u32, judgement: &Judgement, fresh: bool, limits: &Limits) -> (Self, u32) {
        let failed = !judgement.breaches.is_empty();
        let row = match (failed, fresh, judgement.unknown.is_empty()) {
            (true, true, _) => row.saturating_add(1),
            (false, _, true) => 0,
            _ => row,
        };
        let health = match () {
            () if failed && (judgement.severe || row > limits.max_row) => Self::Unhealthy,
            () if failed || !judgement.alerts.is_empty() => Self::Degraded,
            () if judgement.unknown.is_empty() => Self::Healthy,
            () if self == Self::Unhealthy => Self::Unhealthy,
            () => Self::Unknown,
        };
        (health, row)
    }
}

/// Judges what was measured.
#[must_use]
pub fn judge(watch: Watch, measured: &Measured, limits: &Limits) -> Judgement {
    let mut judgement = Judgement::default();
    let enough = |count: u64| count >= limits.min_samples;

    // The worst of what the target answered and of what was written to it.
    let mut errors = Vec::new();
    let Reads { count, failed, p95_ms } = measured.target;
    if enough(count) {
        errors.push((failed, count));
    } else if watch == Watch::Reads {
        judgement.unknown.insert(Measure::Errors);
    }
    let (writes, failed_writes) = measured.writes;
    if enough(writes) {
        errors.push((failed_writes, writes));
    } else if watch == Watch::Writes {
        // A small table is written seldom: all since the stage began.
        let (writes, failed) = measured.writes_since_stage;
        if enough(writes) {
            errors.push((failed, writes));
        } else {
            judgement.unknown.insert(Measure::Errors);
        }
    }
    for (failed, count) in errors {
        judgement.weigh(Measure::Errors, failed, count, limits, |tier| tier.errors);
    }
    if failed_writes > limits.max_failures {
        judgement.breaches.insert(Measure::SecondWrites);
    }

    if watch == Watch::Reads && enough(count) {
        match measured.baseline_ms {
            // One more is within what whole milliseconds can tell.
            Some(base) => {
                let more = p95_ms.saturating_sub(base);
                judgement.weigh(Measure::Latency, if more <= 1 { 0 } else { more }, base.max(1), limits, |tier| tier.latency_increase);
            }
            None => {
                judgement.unknown.insert(Measure::Latency);
            }
        }
    }

    match measured.compared {
        Compared::Rows { all, different } => judgement.weigh(Measure::Differences, different, all, limits, |tier| tier.differences),
        Compared::Inconclusive => {
            judgement.unknown.insert(Measure::Differences);
        }
    }
    judgement
}
