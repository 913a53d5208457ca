//! How long a copy will take, from what was expected of its parts and how fast that becomes less. Pure.
//!
//! Bytes alone say nonsense where there are thousands of small tables: one without rows takes up a page or two and sends
//! twenty bytes, and what takes time is its transaction. So each part weighs what is expected of it and a little more,
//! and counts as that weight when it is done, whatever it has sent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::ledger::Entry;

/// What a part costs besides its rows, a few round trips and a commit, in bytes that could be sent meanwhile.
const PART_COST: f64 = 262_144.0;

/// How fast it goes is told from the looks of so long.
const WINDOW: Duration = Duration::from_secs(5);

/// What is expected of the parts. Unit: bytes, except where it says parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    expected_done: u64,
    sent_done: u64,
    expected_left: u64,
    parts_left: u64,
    /// Sent of parts that are not done.
    under_way: u64,
}

impl Weight {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut weight = Self::default();
        for entry in entries {
            weight.again(entry.expected);
            if entry.done {
                weight.sent(entry.bytes);
                weight.done(entry.expected, entry.bytes);
            }
        }
        weight
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        self.under_way += bytes;
    }

    /// A part is done.
    pub(super) fn done(&mut self, expected: u64, bytes: u64) {
        self.skip(expected, bytes);
        self.expected_done += expected;
        self.sent_done += bytes;
    }

    /// A part is not done, and will not be.
    pub(super) fn skip(&mut self, expected: u64, bytes: u64) {
        self.under_way = self.under_way.saturating_sub(bytes);
        self.expected_left = self.expected_left.saturating_sub(expected);
        self.parts_left = self.parts_left.saturating_sub(1);
    }

    /// There is one more.
    pub(super) fn again(&mut self, expected: u64) {
        self.expected_left += expected;
        self.parts_left += 1;
    }

    /// What is left to do. What was sent of a part counts as what was expected of so much: rows are sent without the space
    /// between them, and what lies compressed is sent whole.
    pub(super) fn left(&self) -> f64 {
        let worth = if self.sent_done > 0 { self.expected_done as f64 / self.sent_done as f64 } else { 1.0 };
        let under_way = (self.under_way as f64 * worth).min(self.expected_left as f64);
        self.expected_left as f64 - under_way + self.parts_left as f64 * PART_COST
    }
}

/// How fast it becomes less.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seen: VecDeque<(Instant, f64)>,
}

impl Pace {
    /// Looks, and says how many seconds are left. None where it has not become less, lately.
    pub(super) fn eta_seconds(&mut self, now: Instant, left: f64) -> Option<f64> {
        self.seen.push_back((now, left));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.seen.pop_front();
        }
        let (at, before) = *self.seen.front()?;
        (before > left && now > at).then(|| left * now.duration_since(at).as_secs_f64() / (before - left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// What a part is expected to send, and sends.
    type Shape = (u64, u64);

    /// One worker that sends 100 MB/s and takes so long for each part besides, with a look each second. Gives what was said
    /// to be left, beside what was.
    fn play(parts: &[Shape], overhead: Duration) -> Vec<(f64, f64)> {
        let begun = Instant::now();
        let mut weight = Weight::default();
        parts.iter().for_each(|(expected, _)| weight.again(*expected));
        let (mut now, mut looked, mut pace, mut said) = (begun, begun, Pace::default(), Vec::new());
        pace.eta_seconds(now, weight.left());
        for &(expected, sends) in parts {
            now += overhead;
            let mut left = sends;
            while left > 0 {
                let piece = left.min(MB);
                left -= piece;
                now += Duration::from_secs_f64(piece as f64 / (100 * MB) as f64);
                weight.sent(piece);
                if now - looked >= Duration::from_secs(1) {
                    looked = now;
                    said.push((pace.eta_seconds(now, weight.left()), now));
                }
            }
            weight.done(expected, sends);
        }
        assert_eq!(weight.left(), 0.0, "{weight:?}");
        said.into_iter().filter_map(|(said, at)| Some((said?, (now - at).as_secs_f64()))).collect()
    }

    #[track_caller]
    fn assert_within(times: f64, said: &[(f64, f64)]) {
        assert!(said.len() >= 10, "{said:?}");
        for (said_left, left) in said.iter().filter(|(_, left)| *left >= 1.0) {
            assert!(*said_left < left * times && *said_left > left / times, "{said_left} where it is {left}: {said:?}");
        }
    }

    #[test]
    fn large_tables_take_as_long_as_their_bytes() {
        assert_within(1.2, &play(&[(64 * MB, 64 * MB); 40], Duration::from_millis(4)));
        assert_within(1.2, &play(&[(64 * MB, 45 * MB); 60], Duration::from_millis(4)));
        // What compressed rows come to is known when the first part is done.
        assert_within(1.2, &play(&[(64 * MB, 300 * MB); 20], Duration::from_millis(4))[10..]);
    }

    /// Empty ones, whose size is that of an index page, and such as have a few rows.
    #[test]
    fn thousands_of_tiny_tables_take_as_long_as_their_transactions() {
        for overhead in [4, 40] {
            assert_within(1.1, &play(&[(8192, 21); 5000], Duration::from_millis(overhead)));
            let mixed: Vec<Shape> = (0..5000).map(|at| if at % 3 == 0 { (0, 21) } else { (16_384, 9000) }).collect();
            assert_within(1.1, &play(&mixed, Duration::from_millis(overhead)));
        }
    }

    /// The large ones come first.
    #[test]
    fn many_tiny_tables_behind_large_ones_are_counted_from_the_beginning() {
        let mut parts = vec![(64 * MB, 64 * MB); 20];
        parts.extend([(8192, 21); 5000]);
        assert_within(2.0, &play(&parts, Duration::from_millis(3)));
    }

    #[test]
    fn what_was_sent_in_vain_or_stands_still_tells_nothing() {
        let mut weight = Weight::default();
        weight.again(100 * MB);
        weight.again(100 * MB);
        let whole = weight.left();
        weight.sent(30 * MB);
        assert!(weight.left() < whole);
        weight.skip(100 * MB, 30 * MB);
        weight.again(100 * MB);
        assert_eq!(weight.left(), whole);
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.eta_seconds(now, whole), None, "one look tells nothing");
        assert_eq!(pace.eta_seconds(now + WINDOW, whole), None);
        assert_eq!(pace.eta_seconds(now + WINDOW * 2, whole * 2.0), None, "there is more to do than before");
        assert_eq!(pace.eta_seconds(now + WINDOW * 3, whole), Some(5.0), "as fast as since the last look");
    }
}
