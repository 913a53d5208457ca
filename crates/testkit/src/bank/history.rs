//! What the clients saw.

use std::time::{Duration, Instant};

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// Moves money: two accounts, one transfer, two rows of the ledger.
    Transfer,
    /// Orders something: one order, and one position counts up.
    Order,
    /// Notes an event: one row, committed by itself.
    Event,
    /// Replaces the client's tag: one row goes, one comes, and an event.
    Tag,
}

/// One write, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who did it.
    pub client: i32,
    /// Its number; grows with each request of the client.
    pub op: i64,
    /// What it does.
    pub kind: OpKind,
    /// When the client began.
    pub started: Instant,
    /// When the client knew the outcome.
    pub finished: Instant,
}

/// What the clients of a load saw, from its start to its stop.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Writes whose commit was confirmed, in the order of the confirmations.
    pub acknowledged: Vec<Op>,
    /// Writes that certainly were not committed: refused, or broken off before COMMIT was sent.
    pub failed: Vec<Op>,
    /// Writes whose connection was lost after COMMIT was sent.
    pub unknown: Vec<Op>,
    /// Reads that failed.
    pub failed_reads: u64,
    /// All requests, reads too.
    pub requests: u64,
    /// How long each successful request took, in microseconds, ascending.
    pub latencies_us: Vec<u32>,
    /// The last things that went wrong.
    pub errors: Vec<String>,
}

impl History {
    /// Requests that an application would have seen fail, reads and unknown outcomes too.
    #[must_use]
    pub fn failed_requests(&self) -> u64 {
        self.failed_reads + count(self.failed.len()) + count(self.unknown.len())
    }

    /// How long a request took that was slower than this share of them, such as 0.99. `None` without requests.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Option<Duration> {
        let last = self.latencies_us.len().checked_sub(1)?;
        // Never negative, and never past the end.
        let index = (last as f64 * quantile.clamp(0.0, 1.0)).round() as usize;
        self.latencies_us.get(index).map(|us| Duration::from_micros(u64::from(*us)))
    }

    /// The longest time in a span in which no write of any client was acknowledged.
    #[must_use]
    pub fn pause_between(&self, from: Instant, to: Instant) -> Duration {
        let times: Vec<_> = self.acknowledged.iter().map(|op| op.finished).collect();
        longest_gap(&times, from, to)
    }

    /// Adds what other clients saw.
    pub fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.acknowledged.sort_by_key(|op| op.finished);
        self.failed.extend(other.failed);
        self.unknown.extend(other.unknown);
        self.failed_reads += other.failed_reads;
        self.requests += other.requests;
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable();
        self.errors.extend(other.errors);
    }
}

/// The longest gap between ascending times within a span, whose edges count as times too.
pub(super) fn longest_gap(times: &[Instant], from: Instant, to: Instant) -> Duration {
    let first = times.partition_point(|time| *time < from);
    let end = times.partition_point(|time| *time <= to).max(first);
    let mut last = from;
    let mut longest = Duration::ZERO;
    for time in times[first..end].iter().copied().chain([to]) {
        longest = longest.max(time.saturating_duration_since(last));
        last = time;
    }
    longest
}

pub(super) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_the_edges_of_the_span() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let times = [at(10), at(20), at(70), at(80)];
        let gap = |from, to| longest_gap(&times, at(from), at(to)).as_millis();
        assert_eq!(gap(0, 90), 50);
        assert_eq!(gap(0, 300), 220, "up to the end");
        assert_eq!(gap(30, 60), 30, "nothing in between");
        assert_eq!(gap(75, 81), 5);
        assert_eq!(gap(100, 150), 50, "after everything");
        assert_eq!(longest_gap(&[], at(0), at(7)).as_millis(), 7);
    }

    #[test]
    fn quantiles_are_exact() {
        let history = History { latencies_us: (1..=101).collect(), ..History::default() };
        assert_eq!(history.latency(0.0), Some(Duration::from_micros(1)));
        assert_eq!(history.latency(0.5), Some(Duration::from_micros(51)));
        assert_eq!(history.latency(1.0), Some(Duration::from_micros(101)));
        assert_eq!(History::default().latency(0.5), None);
    }
}
