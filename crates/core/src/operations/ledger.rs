//! What was told, since the beginning and lately.

use std::collections::{BTreeMap, VecDeque};

use super::{Durations, Kind, Outcome};

/// What was told in one slot is forgotten together. Unit: milliseconds.
pub const SLOT_MS: u64 = 10_000;

/// How far back it is known what was told. Unit: milliseconds.
pub const WINDOW_MS: u64 = 3_600_000;

/// Kinds that are kept.
const MOST_KINDS: usize = 1_000;

/// Numbers that one slot holds, over all its kinds: an hour then takes less than 100 MB, whatever is told.
const MOST_IN_SLOT: usize = 10_000;

type Told = BTreeMap<Kind, BTreeMap<Outcome, Durations>>;

/// Keeps what applications tell.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Since the beginning.
    totals: Told,
    /// Oldest first.
    slots: VecDeque<Slot>,
    lost: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    /// Counted from the beginning of the clock.
    number: u64,
    told: Told,
    numbers: usize,
}

/// What operations of one kind come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub durations: Durations,
    /// How many ended so, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; 5],
}

impl Ledger {
    /// Counts operations of one kind that ended alike and took equally long.
    pub fn add(&mut self, kind: &Kind, outcome: Outcome, us: u64, times: u64, now_ms: u64) {
        if !self.totals.contains_key(kind) && self.totals.len() >= MOST_KINDS {
            return self.lose(times);
        }
        let slot = self.slot(now_ms);
        let of_kind = slot.told.entry(kind.clone()).or_default().entry(outcome).or_default();
        if !of_kind.has(us) {
            if slot.numbers >= MOST_IN_SLOT {
                return self.lose(times);
            }
            slot.numbers += 1;
        }
        of_kind.add(us, times);
        self.totals.entry(kind.clone()).or_default().entry(outcome).or_default().add(us, times);
    }

    /// Counts operations of which nothing more is known.
    pub fn lose(&mut self, times: u64) {
        self.lost = self.lost.saturating_add(times);
    }

    /// How many were lost since the beginning.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What was told since the beginning.
    pub fn totals(&self) -> impl Iterator<Item = (&Kind, Outcome, &Durations)> {
        self.totals.iter().flat_map(|(kind, outcomes)| outcomes.iter().map(move |(outcome, durations)| (kind, *outcome, durations)))
    }

    /// What was told lately, in whole slots: in the one that is now, and in those before it that `length_ms` reaches into.
    #[must_use]
    pub fn lately(&self, now_ms: u64, length_ms: u64) -> BTreeMap<Kind, Summary> {
        let first = now_ms.saturating_sub(length_ms.min(WINDOW_MS)) / SLOT_MS;
        let mut sums = BTreeMap::<Kind, Summary>::new();
        for (kind, outcomes) in self.slots.iter().filter(|slot| slot.number >= first).flat_map(|slot| &slot.told) {
            let sum = sums.entry(kind.clone()).or_default();
            for (outcome, durations) in outcomes {
                let of_outcome = &mut sum.outcomes[*outcome as usize];
                *of_outcome = of_outcome.saturating_add(durations.count());
                sum.durations.merge(durations);
            }
        }
        sums
    }

    fn slot(&mut self, now_ms: u64) -> &mut Slot {
        let number = now_ms / SLOT_MS;
        if self.slots.back().is_none_or(|last| last.number < number) {
            self.slots.push_back(Slot { number, told: Told::new(), numbers: 0 });
            let oldest = number.saturating_sub(WINDOW_MS / SLOT_MS);
            self.slots.retain(|slot| slot.number >= oldest);
        }
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }
}

impl Summary {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.durations.count()
    }

    /// The share that failed at this store.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        share(self.of(Outcome::FellBack).saturating_add(self.of(Outcome::Failed)), self.count())
    }

    /// The share that failed at this store, and the other answered in its place.
    #[must_use]
    pub fn fallback_rate(&self) -> Option<f64> {
        share(self.of(Outcome::FellBack), self.count())
    }

    /// Of those that were compared with the other store, the share that differed.
    #[must_use]
    pub fn mismatch_rate(&self) -> Option<f64> {
        share(self.of(Outcome::Differed), self.of(Outcome::Agreed).saturating_add(self.of(Outcome::Differed)))
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}

/// None of none: no data is not zero.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Side;

    fn kind(operation: &str) -> Kind {
        Kind { unit: "images".to_owned(), operation: operation.to_owned(), store: Side::Target }
    }

    #[test]
    fn a_fallback_is_an_error_of_the_store_that_failed_and_no_data_is_no_rate() {
        let mut ledger = Ledger::default();
        for (outcome, times) in Outcome::ALL.into_iter().zip([80, 9, 1, 6, 4]) {
            ledger.add(&kind("get"), outcome, 100, times, 0);
        }
        let lately = ledger.lately(0, 1);
        let sum = &lately[&kind("get")];
        assert_eq!((sum.count(), sum.error_rate(), sum.fallback_rate(), sum.mismatch_rate()), (100, Some(0.1), Some(0.06), Some(0.1)));
        let none = Summary::default();
        assert_eq!((none.error_rate(), none.fallback_rate(), none.mismatch_rate()), (None, None, None));
    }

    #[test]
    fn what_was_told_long_ago_is_in_the_totals_alone() {
        let mut ledger = Ledger::default();
        for (at, times) in [(0, 1), (SLOT_MS, 10), (5 * SLOT_MS, 100)] {
            ledger.add(&kind("get"), Outcome::Ok, 7, times, at);
        }
        let lately = |ledger: &Ledger, now, length| ledger.lately(now, length).values().map(Summary::count).sum::<u64>();
        assert_eq!([1, 4 * SLOT_MS, u64::MAX].map(|length| lately(&ledger, 5 * SLOT_MS, length)), [100, 110, 111]);
        assert_eq!(lately(&ledger, 9 * SLOT_MS, SLOT_MS), 0);
        ledger.add(&kind("get"), Outcome::Ok, 7, 1_000, WINDOW_MS + 2 * SLOT_MS);
        assert_eq!(lately(&ledger, WINDOW_MS + 2 * SLOT_MS, u64::MAX), 1_100, "the first two are forgotten");
        assert_eq!(ledger.totals().map(|(_, _, durations)| durations.count()).sum::<u64>(), 1_111);
    }

    #[test]
    fn whatever_is_told_takes_a_bounded_memory() {
        let mut ledger = Ledger::default();
        (0..MOST_KINDS as u64 + 5).for_each(|id| ledger.add(&kind(&id.to_string()), Outcome::Ok, 1, 1, 0));
        assert_eq!((ledger.totals.len(), ledger.lost()), (MOST_KINDS, 5));
        (0..MOST_IN_SLOT as u64).for_each(|us| ledger.add(&kind("0"), Outcome::Ok, us, 1, 0));
        assert_eq!(ledger.slots[0].numbers, MOST_IN_SLOT);
        assert_eq!(ledger.lost(), 5 + MOST_KINDS as u64 - 1);
    }
}
