//! How long operations took.

use std::collections::BTreeMap;

/// How many operations took how long. Unit: microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: BTreeMap<u64, u64>,
    count: u64,
}

impl Durations {
    /// Counts operations that took equally long.
    pub fn add(&mut self, us: u64, times: u64) {
        let known = self.counts.entry(us).or_default();
        *known = known.saturating_add(times);
        self.count = self.count.saturating_add(times);
    }

    /// Counts what another has counted.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(us, times)| self.add(*us, *times));
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether one took exactly so long.
    #[must_use]
    pub fn has(&self, us: u64) -> bool {
        self.counts.contains_key(&us)
    }

    /// The least length that a share of all, in thousandths, took no longer than: the nearest rank. None of none.
    #[must_use]
    pub fn at_most(&self, thousandths: u16) -> Option<u64> {
        let rank = (u128::from(self.count) * u128::from(thousandths)).div_ceil(1_000).max(1);
        let mut seen = 0_u128;
        self.counts.iter().find_map(|(us, times)| {
            seen += u128::from(*times);
            (seen >= rank).then_some(*us)
        })
    }

    /// How many took longer than the limit before and no longer than this one, by each of the limits, which grow.
    #[must_use]
    pub fn between(&self, limits: &[u64]) -> Vec<u64> {
        let mut counts = self.counts.iter().peekable();
        let mut within = |limit: &u64| {
            let mut sum = 0_u64;
            while let Some((_, times)) = counts.next_if(|(us, _)| *us <= limit) {
                sum = sum.saturating_add(*times);
            }
            sum
        };
        limits.iter().map(&mut within).collect()
    }

    /// All lengths together. Unit: microseconds.
    #[must_use]
    pub fn sum(&self) -> u128 {
        self.counts.iter().map(|(us, times)| u128::from(*us) * u128::from(*times)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut durations = Durations::default();
        assert_eq!(durations.at_most(500), None);
        (1..=100).for_each(|us| durations.add(us, 1));
        assert_eq!([0, 1, 500, 501, 950, 990, 999, 1_000].map(|of| durations.at_most(of)), [1, 1, 50, 51, 95, 99, 100, 100].map(Some));
        let mut slow = Durations::default();
        slow.add(1_000, 900);
        durations.merge(&slow);
        assert_eq!((durations.at_most(500), durations.count()), (Some(1_000), 1_000));
        assert_eq!((durations.between(&[0, 50, 5_000]), durations.sum()), (vec![0, 50, 950], 5_050 + 900_000));
    }

    #[test]
    fn more_than_can_be_counted_is_the_most_that_can() {
        let mut durations = Durations::default();
        (1..=2).for_each(|us| durations.add(us, u64::MAX));
        assert_eq!((durations.count(), durations.between(&[2]), durations.at_most(1_000)), (u64::MAX, vec![u64::MAX], Some(1)));
    }
}
