//! What somebody may act on who was told rules and can't acknowledge: each holds until it runs out of itself.

use std::{collections::BTreeMap, time::Duration};

/// The rules that one listener was told, by which it may write. A newer one does not end an older one: nobody knows whether
/// it has arrived. So it acts on the oldest that has not run out.
///
/// When that is, the listener reads from a wall clock, the only one that both have. Ours may be set forward or back
/// meanwhile, and his with it or not; so a rule has run out when the wall clock says so *and* as much time has passed.
#[derive(Clone, Debug, Default)]
pub struct Pushed(BTreeMap<u64, Moment>);

/// A moment by both clocks. Unit: milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970.
    pub wall_ms: u64,
    /// By the server's monotonic clock.
    pub steady_ms: u64,
}

impl Pushed {
    /// A rule of this epoch is told, by which it may write until this second of the wall clock begins.
    pub fn tell(&mut self, epoch: u64, now: Moment, until_s: u64) {
        let wall_ms = until_s * 1_000;
        let steady_ms = now.steady_ms + wall_ms.saturating_sub(now.wall_ms);
        let until = self.0.entry(epoch).or_default();
        *until = Moment { wall_ms: wall_ms.max(until.wall_ms), steady_ms: steady_ms.max(until.steady_ms) };
    }

    /// The oldest epoch that it may act on; none if all has run out.
    pub fn acts_on(&mut self, now: Moment) -> Option<u64> {
        self.0.retain(|_, until| !until.left(now).is_zero());
        self.0.keys().next().copied()
    }

    /// For how much longer it may act on the oldest.
    #[must_use]
    pub fn left(&self, now: Moment) -> Option<Duration> {
        self.0.values().next().map(|until| until.left(now))
    }

    /// For how much longer it may act on any of them.
    #[must_use]
    pub fn ends_in(&self, now: Moment) -> Duration {
        self.0.values().map(|until| until.left(now)).max().unwrap_or_default()
    }
}

impl Moment {
    fn left(self, now: Self) -> Duration {
        Duration::from_millis(self.wall_ms.saturating_sub(now.wall_ms).max(self.steady_ms.saturating_sub(now.steady_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both clocks go on alike from 10 s and 0 s.
    fn at(steady_ms: u64) -> Moment {
        Moment { wall_ms: 10_000 + steady_ms, steady_ms }
    }

    #[test]
    fn a4_a_rule_that_may_not_have_arrived_does_not_end_the_one_before() {
        let mut pushed = Pushed::default();
        assert_eq!(pushed.acts_on(at(0)), None, "nothing yet");
        pushed.tell(3, at(0), 11);
        pushed.tell(3, at(500), 12);
        pushed.tell(5, at(1_000), 13);
        assert_eq!((pushed.acts_on(at(1_999)), pushed.left(at(1_999))), (Some(3), Some(Duration::from_millis(1))));
        assert_eq!((pushed.acts_on(at(2_000)), pushed.ends_in(at(2_000))), (Some(5), Duration::from_secs(1)));
        assert_eq!((pushed.acts_on(at(3_000)), pushed.left(at(3_000))), (None, None));
    }

    #[test]
    fn a_clock_that_is_set_forward_or_back_ends_no_rule() {
        let mut pushed = Pushed::default();
        pushed.tell(3, at(0), 12);
        pushed.tell(3, at(0), 11);
        assert_eq!(pushed.acts_on(Moment { wall_ms: 90_000, ..at(1_999) }), Some(3), "the listener's clock may be right");
        assert_eq!(pushed.acts_on(Moment { wall_ms: 2_000, ..at(2_001) }), Some(3), "the listener's may have been set back as well");
        assert_eq!(pushed.acts_on(at(2_000)), None);
    }
}
