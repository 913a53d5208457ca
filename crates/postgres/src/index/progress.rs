//! How far the building has come, for whoever asks.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::Definitions;

/// What every definition counts besides its size. Unit: bytes.
const EACH: u64 = 64 * 1024;

/// Counters of what is being built.
#[derive(Debug, Default)]
pub struct Progress {
    weight: AtomicU64,
    weight_done: AtomicU64,
    definitions: AtomicUsize,
    definitions_done: AtomicUsize,
    indexes: AtomicUsize,
    indexes_there: AtomicUsize,
    stage: Mutex<Option<(Instant, &'static str)>>,
    notes: Mutex<Vec<String>>,
}

/// One look at them.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressSnapshot {
    /// What is being done.
    pub stage: &'static str,
    /// How much is done, by the sizes at the source of what is built and looked through. Unit: bytes.
    pub done: u64,
    /// How much there is to do.
    pub total: u64,
    /// Bytes a second since it was begun.
    pub per_second: f64,
    /// Seconds left, without the views and the statistics.
    pub eta_seconds: Option<f64>,
    /// Definitions that are done, and all of them.
    pub definitions: (usize, usize),
    /// Indexes that were there before, and all of them.
    pub indexes: (usize, usize),
}

impl Progress {
    pub(super) fn begin(&self, left: &Definitions, indexes: usize) {
        let proofs = left.proofs.iter().map(|proofs| (proofs.entries.len(), proofs.bytes));
        let sizes = || left.indexes.iter().map(|index| (1, index.bytes)).chain(proofs.clone());
        let small = left.others.len() + left.privileges.len();
        let definitions = sizes().map(|(count, _)| count).sum::<usize>() + small;
        let weight = sizes().map(|(count, bytes)| (bytes + EACH) * count as u64).sum::<u64>() + small as u64 * EACH;
        self.definitions.store(definitions, Relaxed);
        self.weight.store(weight, Relaxed);
        self.indexes.store(indexes, Relaxed);
        self.indexes_there.store(indexes - left.indexes.len(), Relaxed);
    }

    /// Says what is being done from now on.
    pub(super) fn enter(&self, stage: &'static str) {
        let mut now = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let began = now.map_or_else(Instant::now, |(began, _)| began);
        *now = Some((began, stage));
    }

    /// Something that a person should know.
    pub(super) fn note(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// What a person should know and was not told yet.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One more is done.
    pub(super) fn finish(&self, bytes: u64) {
        self.weight_done.fetch_add(bytes + EACH, Relaxed);
        self.definitions_done.fetch_add(1, Relaxed);
    }

    /// Looks. None while the definitions are still being read.
    #[must_use]
    pub fn snapshot(&self) -> Option<ProgressSnapshot> {
        let (began, stage) = (*self.stage.lock().unwrap_or_else(PoisonError::into_inner))?;
        let (done, total) = (self.weight_done.load(Relaxed), self.weight.load(Relaxed));
        let per_second = done as f64 / began.elapsed().as_secs_f64().max(0.001);
        Some(ProgressSnapshot {
            stage,
            done,
            total,
            per_second,
            eta_seconds: (done > 0).then(|| total.saturating_sub(done) as f64 / per_second),
            definitions: (self.definitions_done.load(Relaxed), self.definitions.load(Relaxed)),
            indexes: (self.indexes_there.load(Relaxed), self.indexes.load(Relaxed)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_begun_is_done_in_the_end() {
        let progress = Progress::default();
        assert_eq!(progress.snapshot(), None);
        let entry = super::super::section::Entry::default;
        let proofs = super::super::definitions::Group { bytes: 5000, entries: vec![entry(), entry()] };
        let left = Definitions { others: vec![entry()], proofs: vec![proofs], ..Definitions::default() };
        progress.begin(&left, 3);
        progress.enter("proving foreign keys");
        let before = progress.snapshot().unwrap();
        assert_eq!((before.done, before.total, before.eta_seconds), (0, 2 * 5000 + 3 * EACH, None));
        assert_eq!(before.indexes, (3, 3), "the copy had built them");
        progress.finish(0);
        progress.finish(5000);
        progress.finish(5000);
        let after = progress.snapshot().unwrap();
        assert_eq!((after.done, after.definitions, after.eta_seconds), (after.total, (3, 3), Some(0.0)));
    }
}
