//! How far a copy has come, for whoever asks.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    eta::{Pace, Weight},
    ledger::{Entry, by_table},
};

/// The rate is that of so long.
const WINDOW: Duration = Duration::from_secs(5);

/// Counters of a copy under way.
#[derive(Debug, Default)]
pub struct Progress {
    tables: AtomicU64,
    tables_done: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    parts_done: AtomicU64,
    indexes: AtomicU64,
    seen: Mutex<VecDeque<(Instant, u64)>>,
    weight: Mutex<Weight>,
    pace: Mutex<Pace>,
    notes: Mutex<Vec<String>>,
}

/// One look at them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgressSnapshot {
    /// Tables in all.
    pub tables: u64,
    /// Tables that are done.
    pub tables_done: u64,
    /// Rows that are at the target.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Bytes in all, as the tables' sizes let expect.
    pub bytes_total: u64,
    /// Bytes a second, lately.
    pub bytes_per_second: f64,
    /// Indexes that were built on full tables.
    pub indexes: u64,
    /// Seconds left.
    pub eta_seconds: Option<f64>,
}

impl Progress {
    /// Begins to count, from what an earlier attempt has done. What that sent in vain counts no longer.
    pub(super) fn begin(&self, entries: &[Entry]) {
        let sum = |of: fn(&Entry) -> u64| entries.iter().map(of).sum::<u64>();
        let tables = by_table(entries);
        self.rows.store(sum(|entry| entry.rows), Relaxed);
        self.bytes.store(sum(|entry| entry.bytes), Relaxed);
        self.bytes_total.store(sum(|entry| if entry.done { entry.bytes } else { entry.expected }), Relaxed);
        self.parts_done.store(sum(|entry| u64::from(entry.done)), Relaxed);
        self.tables_done.store(tables.values().filter(|(all, done)| all == done).count() as u64, Relaxed);
        self.tables.store(tables.len() as u64, Relaxed);
        self.indexes.store(0, Relaxed);
        lock(&self.seen).clear();
        *lock(&self.weight) = Weight::of(entries);
        *lock(&self.pace) = Pace::default();
    }

    /// Something that a person should know.
    pub(super) fn note(&self, note: String) {
        lock(&self.notes).push(note);
    }

    /// What a person should know and was not told yet.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.notes))
    }

    /// Whether there ever was a snapshot to copy from; and how many tables and parts of tables are done.
    #[must_use]
    pub fn parts_done(&self) -> Option<u64> {
        (self.tables.load(Relaxed) > 0).then(|| self.parts_done.load(Relaxed))
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        lock(&self.weight).sent(bytes);
    }

    /// What is expected in all becomes truer with each part: what was expected of it makes way for what was sent.
    pub(super) fn finish_part(&self, expected: u64, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Relaxed);
        self.parts_done.fetch_add(1, Relaxed);
        self.bytes_total.fetch_add(bytes, Relaxed);
        self.bytes_total.fetch_sub(expected, Relaxed);
        lock(&self.weight).done(expected, bytes);
    }

    /// A part is done without our having sent it.
    pub(super) fn find_done(&self, expected: u64, rows: u64, bytes: u64) {
        self.add_bytes(bytes);
        self.finish_part(expected, rows, bytes);
    }

    /// A part is not done, and what was sent for it was sent in vain.
    pub(super) fn skip_part(&self, expected: u64, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Relaxed);
        self.bytes_total.fetch_sub(expected, Relaxed);
        lock(&self.weight).skip(expected, bytes);
    }

    pub(super) fn finish_table(&self) {
        self.tables_done.fetch_add(1, Relaxed);
    }

    pub(super) fn finish_indexes(&self, count: usize) {
        self.indexes.fetch_add(count as u64, Relaxed);
    }

    /// A table's parts did not fit together: their rows count no longer, and all of it is to be sent once more.
    pub(super) fn begin_again(&self, expected: u64, rows: u64) {
        self.rows.fetch_sub(rows, Relaxed);
        self.bytes_total.fetch_add(expected, Relaxed);
        lock(&self.weight).again(expected);
    }

    /// Looks. The rate is that since the looks of the last seconds.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        let bytes = self.bytes.load(Relaxed);
        let bytes_total = self.bytes_total.load(Relaxed).max(bytes);
        let bytes_per_second = self.rate(bytes);
        let left = lock(&self.weight).left();
        let eta_seconds = lock(&self.pace).eta_seconds(Instant::now(), left);
        let (tables, tables_done) = (self.tables.load(Relaxed), self.tables_done.load(Relaxed));
        let eta_seconds = if tables > 0 && tables_done == tables { Some(0.0) } else { eta_seconds };
        let (rows, indexes) = (self.rows.load(Relaxed), self.indexes.load(Relaxed));
        ProgressSnapshot { tables, tables_done, rows, bytes, bytes_total, bytes_per_second, indexes, eta_seconds }
    }

    fn rate(&self, bytes: u64) -> f64 {
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        seen.push_back((now, bytes));
        while seen.len() > 2 && seen.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            seen.pop_front();
        }
        match seen.front() {
            Some((at, before)) if now > *at => bytes.saturating_sub(*before) as f64 / now.duration_since(*at).as_secs_f64(),
            _ => 0.0,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
