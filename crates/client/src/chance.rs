//! Chance, for names and pauses that should differ. Not for secrets.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    time::Duration,
};

/// A random number. The standard library seeds its hash maps from the system.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// At least half of a length, and less than all of it.
pub(crate) fn jittered(length: Duration) -> Duration {
    let half = length / 2;
    half + half.mul_f64((number() >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_between_half_and_all_and_not_always_the_same() {
        let second = Duration::from_secs(1);
        let pauses: Vec<_> = (0..100).map(|_| jittered(second)).collect();
        assert!(pauses.iter().all(|pause| *pause >= second / 2 && *pause < second), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
