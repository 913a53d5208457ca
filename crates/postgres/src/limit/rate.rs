//! How fast is allowed: a bucket, and a rate that falls by halves and comes back by steps.

use std::time::Duration;

use tokio::time::Instant;

use super::PROBE_EVERY;

/// How long a cut is given to show before the next one.
const BETWEEN_CUTS: Duration = Duration::from_millis(600);

/// By how much the rate grows with each answer in time, of what was sent when it was first cut.
const STEP: f64 = 0.02;

/// Up to how many times that it grows, before it counts as no cut any more.
const ENOUGH: f64 = 1.5;

/// What the bucket holds at most: the rate of so long.
const BURST: Duration = Duration::from_millis(100);

/// The longest wait before it is looked again how fast is allowed.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// How fast is allowed, what was sent and how the source answers.
#[derive(Debug)]
pub(super) struct State {
    /// What is allowed at most, ever. Unit: bytes or rows a second, as in all rates here.
    pub(super) most: Option<f64>,
    /// What is allowed now; nothing where there is no limit.
    pub(super) rate: Option<f64>,
    /// What the rate is never cut below.
    floor: f64,
    /// What may be sent at once. Below zero it is owed.
    bucket: f64,
    filled_at: Instant,
    /// The last answers, the newest last.
    latencies: Vec<Duration>,
    cut_at: Option<Instant>,
    /// What was sent a second when the rate was cut from `most`.
    uncut: f64,
    /// What is sent a second, lately.
    speed: f64,
    /// Sent since `speed` was last measured.
    sent: u64,
    measured_at: Instant,
}

impl State {
    pub(super) fn new(most: Option<f64>, floor: f64) -> Self {
        let now = Instant::now();
        Self {
            most,
            rate: most,
            floor,
            bucket: 0.0,
            filled_at: now,
            latencies: Vec::new(),
            cut_at: None,
            uncut: 0.0,
            speed: 0.0,
            sent: 0,
            measured_at: now,
        }
    }

    /// Takes from the bucket, or says when to look again. Whoever takes may owe: a piece is sent as it comes.
    pub(super) fn take(&mut self, amount: u64, now: Instant) -> Result<(), Duration> {
        if let Some(rate) = self.rate {
            let full = rate * BURST.as_secs_f64();
            self.bucket = (self.bucket + rate * (now - self.filled_at).as_secs_f64()).min(full);
            self.filled_at = now;
            if self.bucket < 0.0 {
                return Err(Duration::from_secs_f64(-self.bucket / rate).clamp(Duration::from_millis(1), LONGEST_NAP));
            }
            self.bucket -= amount as f64;
        }
        self.sent += amount;
        Ok(())
    }

    /// Two of three answers over the ceiling cut the rate; one may be chance.
    pub(super) fn seen(&mut self, latency: Duration, ceiling: Duration, now: Instant) {
        self.measure(now);
        self.latencies.push(latency);
        if self.latencies.len() > 3 {
            self.latencies.remove(0);
        }
        let Some(median) = self.median() else { return };
        if median <= ceiling {
            self.recover();
        } else if self.cut_at.is_none_or(|at| now - at >= BETWEEN_CUTS) {
            self.cut(now);
        }
    }

    /// The middle of the last three answers.
    pub(super) fn median(&self) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        (sorted.len() == 3).then(|| sorted[1])
    }

    /// Half of it is what was sent since the last time, so that neither one large row nor one short wait is all of it.
    fn measure(&mut self, now: Instant) {
        let seconds = (now - self.measured_at).as_secs_f64();
        if seconds >= PROBE_EVERY.as_secs_f64() / 2.0 {
            self.speed = f64::midpoint(self.speed, self.sent as f64 / seconds);
            (self.sent, self.measured_at) = (0, now);
        }
    }

    fn cut(&mut self, now: Instant) {
        if self.rate == self.most {
            self.uncut = self.speed.max(self.floor);
        }
        if self.rate.is_none() {
            // What was owed under an earlier limit was sent long ago.
            (self.bucket, self.filled_at) = (0.0, now);
        }
        // What is allowed and not used is no cut.
        let from = self.rate.map_or(self.speed, |rate| rate.min(self.speed));
        let floor = self.rate.map_or(self.floor, |rate| rate.min(self.floor));
        self.rate = Some((from / 2.0).max(floor));
        self.cut_at = Some(now);
    }

    fn recover(&mut self) {
        let Some(rate) = self.rate.filter(|_| self.rate != self.most) else { return };
        let rate = rate + (self.uncut * STEP).max(self.floor / 10.0);
        // Faster than it ever was: there is nothing left to hold back.
        let whole = rate >= self.uncut * ENOUGH || self.most.is_some_and(|most| rate >= most);
        self.rate = if whole { self.most } else { Some(rate) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: f64 = 1_048_576.0;
    const CEILING: Duration = Duration::from_millis(20);
    const SLOW: Duration = Duration::from_millis(50);
    const FAST: Duration = Duration::from_millis(1);

    /// Sends as fast as it may for so long, in pieces of 64 kB at 640 MB/s at most, and says how much that was.
    fn send(state: &mut State, now: &mut Instant, length: Duration) -> u64 {
        let (end, mut sent) = (*now + length, 0);
        while *now < end {
            match state.take(65536, *now) {
                Ok(()) => {
                    sent += 65536;
                    *now += Duration::from_micros(100);
                }
                Err(nap) => *now += nap,
            }
        }
        sent
    }

    /// Goes on sending, with so many answers of the source.
    fn answers(state: &mut State, now: &mut Instant, latency: Duration, count: u32) -> Vec<f64> {
        let mut rates = Vec::new();
        for _ in 0..count {
            send(state, now, PROBE_EVERY);
            state.seen(latency, CEILING, *now);
            rates.extend(state.rate);
        }
        rates
    }

    #[test]
    fn no_more_is_sent_than_the_rate_allows() {
        for rate in [1 << 20, 10 << 20, 100 << 20] {
            let mut state = State::new(Some(f64::from(rate)), FLOOR);
            let sent = send(&mut state, &mut Instant::now(), Duration::from_secs(10)) as f64 / 10.0;
            assert!(sent > f64::from(rate) * 0.95 && sent < f64::from(rate) * 1.05, "{sent} of {rate}");
        }
    }

    #[test]
    fn time_without_work_is_not_made_up_for() {
        let mut state = State::new(Some(10.0 * FLOOR), FLOOR);
        let mut now = state.filled_at + Duration::from_secs(3600);
        let sent = send(&mut state, &mut now, Duration::from_secs(1)) as f64;
        assert!(sent < 11.5 * FLOOR, "{sent}");
    }

    /// Over the ceiling the rate falls to the floor, by halves; below it, it comes back, step by step, until there is no
    /// limit any more.
    #[test]
    fn the_rate_is_cut_while_the_source_is_slow_and_recovers() {
        let mut state = State::new(None, FLOOR);
        let mut now = state.filled_at;
        answers(&mut state, &mut now, FAST, 10);
        answers(&mut state, &mut now, SLOW, 1);
        assert_eq!(state.rate, None, "one slow answer is chance");
        let rates = answers(&mut state, &mut now, SLOW, 60);
        assert!(rates.is_sorted_by(|one, next| one >= next) && rates[0] > 250.0 * FLOOR && rates[0] < 350.0 * FLOOR, "{rates:?}");
        assert!(rates.windows(2).all(|pair| pair[1] > pair[0] * 0.45), "by halves: {rates:?}");
        assert_eq!(rates.last(), Some(&FLOOR));
        let rates = answers(&mut state, &mut now, FAST, 200);
        assert!(rates.is_sorted() && (50..150).contains(&rates.len()), "{rates:?}");
        assert_eq!(state.rate, None);
    }

    #[test]
    fn a_cut_rate_comes_back_to_the_plans() {
        let most = 50.0 * FLOOR;
        let mut state = State::new(Some(most), FLOOR);
        let mut now = state.filled_at;
        let rates = answers(&mut state, &mut now, SLOW, 10);
        assert!(rates[9] < most / 4.0, "{rates:?}");
        let rates = answers(&mut state, &mut now, FAST, 200);
        assert!(rates.is_sorted() && rates[199] == most, "{rates:?}");
    }

    /// Nothing was being sent, as while a lock is waited for: the source is slow for another reason.
    #[test]
    fn a_cut_while_nothing_is_sent_ends_soon() {
        for most in [None, Some(500.0 * FLOOR)] {
            let mut state = State::new(most, FLOOR);
            let mut now = state.filled_at;
            for latency in [SLOW, SLOW, SLOW, FAST, FAST, FAST, FAST, FAST, FAST, FAST] {
                now += PROBE_EVERY;
                state.seen(latency, CEILING, now);
            }
            assert_eq!(state.rate, most);
        }
    }

    /// A large row was sent on credit under one limit; the next limit does not make the workers wait for it.
    #[test]
    fn what_was_owed_is_forgotten_when_nothing_is_held_back() {
        let mut state = State::new(None, FLOOR);
        let mut now = state.filled_at;
        answers(&mut state, &mut now, SLOW, 60);
        state.take(1 << 30, now + LONGEST_NAP).unwrap();
        for _ in 0..200 {
            state.seen(FAST, CEILING, now);
        }
        assert_eq!(state.rate, None);
        answers(&mut state, &mut now, SLOW, 3);
        assert!(state.rate.is_some());
        assert_eq!(state.take(1, now + LONGEST_NAP), Ok(()));
    }
}
