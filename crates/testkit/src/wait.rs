//! Waiting without sleeping blindly, and chance that can be replayed.

use std::{
    fmt::Display,
    io::Write as _,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{Error, Result};

/// Between two looks of [`eventually`].
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a probe of [`eventually`] may answer: `bool`, `Option<T>` or `Result<T, E>`.
pub trait Attempt {
    /// What is there once the wait is over.
    type Value;

    /// The value, or what was seen instead, if there is something to say.
    ///
    /// # Errors
    /// The thing waited for is not there yet.
    fn into_value(self) -> std::result::Result<Self::Value, Option<String>>;
}

impl Attempt for bool {
    type Value = ();

    fn into_value(self) -> std::result::Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Attempt for Option<T> {
    type Value = T;

    fn into_value(self) -> std::result::Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Display> Attempt for std::result::Result<T, E> {
    type Value = T;

    fn into_value(self) -> std::result::Result<T, Option<String>> {
        self.map_err(|error| Some(error.to_string()))
    }
}

/// Asks `probe` again and again until it says `true`, `Some` or `Ok`, for no longer than `deadline`.
///
/// # Errors
/// [`Error::TimedOut`] with what the probe answered last.
pub async fn eventually<A, F, P>(deadline: Duration, mut probe: P) -> Result<A::Value>
where
    A: Attempt,
    F: Future<Output = A>,
    P: FnMut() -> F,
{
    let began = Instant::now();
    let mut last = None;
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, probe()).await.map(Attempt::into_value) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) if began.elapsed() < deadline => last = seen.or(last),
            Ok(Err(seen)) => return Err(timed_out(deadline, seen.or(last))),
            Err(_) => return Err(timed_out(deadline, last)),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn timed_out(limit: Duration, last: Option<String>) -> Error {
    Error::TimedOut { what: "what was waited for".to_owned(), limit, last }
}

/// The seed of everything random in one test, printed so that a failure can be replayed with `CUTOVER_SEED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The seed in `$CUTOVER_SEED`, or a fresh one; says on stderr which.
    #[must_use]
    pub fn from_env_or_random() -> Self {
        let given = std::env::var("CUTOVER_SEED").ok().and_then(|text| text.parse().ok());
        let seed = Self(given.unwrap_or_else(|| rand::rng().random()));
        // If nobody listens on stderr, there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "CUTOVER_SEED={}", seed.0);
        seed
    }

    /// A fixed seed.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Another seed for the `index`th part of the test, so that the parts don't disturb each other's chance.
    #[must_use]
    pub fn derive(self, index: u64) -> Self {
        Self(StdRng::seed_from_u64(self.0 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).random())
    }

    /// A generator that starts from this seed.
    #[must_use]
    pub fn rng(self) -> StdRng {
        StdRng::seed_from_u64(self.0)
    }
}

/// How many rounds a random campaign plays: `$CUTOVER_ROUNDS`, or so many.
#[must_use]
pub fn rounds(otherwise: u32) -> u32 {
    std::env::var("CUTOVER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// How many tables a test of many makes: `$CUTOVER_TABLES`, or so many.
#[must_use]
pub fn tables(otherwise: u32) -> u32 {
    std::env::var("CUTOVER_TABLES").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_takes_the_first_yes_and_reports_the_last_no() {
        let mut looks = 0;
        let seen = eventually(Duration::from_secs(5), || {
            looks += 1;
            let look = looks;
            async move { (look == 3).then_some(look) }
        });
        assert_eq!(seen.await.unwrap(), 3);

        let error = eventually(Duration::from_millis(30), || async { Err::<(), _>("too early") }).await.unwrap_err();
        assert!(error.to_string().contains("too early"), "{error}");

        let hung = eventually(Duration::from_millis(30), std::future::pending::<bool>).await;
        assert!(hung.is_err(), "a probe that hangs is bounded too");
    }

    #[test]
    fn the_same_seed_gives_the_same_chance() {
        let (one, other) = (Seed::new(7), Seed::new(7));
        assert_eq!(one.rng().random::<u64>(), other.rng().random::<u64>());
        assert_eq!(one.derive(1), other.derive(1));
        assert_ne!(one.derive(1), one.derive(2));
    }
}
