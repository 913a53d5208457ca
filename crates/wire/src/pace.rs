//! How often a lease is asked for, and how long an answer is waited for: a client's and an agent's.

use std::time::Duration;

/// How long a server may take to hear a goodbye.
pub const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// How long an answer may take that is not held back, where no lease is at stake.
pub const ASK_LIMIT: Duration = Duration::from_secs(2);

/// No answer has less time than this: a lease that is nearly over runs out by itself.
const LEAST_LIMIT: Duration = Duration::from_millis(250);

/// The first pause after a failure. It doubles.
const FIRST_REST: Duration = Duration::from_millis(25);

/// The longest pause after a failure.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long an answer may take that is held back for `wait`, where so much of the lease is `left`: another try should still
/// fit in.
#[must_use]
pub fn limit(wait: Duration, left: Duration) -> Duration {
    if left > wait { (wait + (left - wait) / 2).max(LEAST_LIMIT) } else { wait + ASK_LIMIT }
}

/// How long to rest after a failure, behind so many others in a row. As long as there is something to lose, it is tried more
/// often.
#[must_use]
pub fn after_failure(failures: u32, left: Duration) -> Duration {
    let rest = FIRST_REST.saturating_mul(1 << failures.min(8)).min(LONGEST_REST);
    if left.is_zero() { rest } else { rest.min((left / 4).max(FIRST_REST)) }
}

/// How long to rest after an answer that came after `took`. One that is closing, or that gives no lease, answers at once,
/// though there is nothing new.
#[must_use]
pub fn after_answer(news: bool, wait: Duration, took: Duration) -> Option<Duration> {
    (!news && (wait.is_zero() || took < wait / 2)).then_some(FIRST_REST * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn another_try_fits_into_what_is_left_of_the_lease() {
        assert_eq!(limit(300 * MS, 1_300 * MS), 800 * MS);
        assert_eq!(limit(Duration::ZERO, 100 * MS), LEAST_LIMIT);
        assert_eq!(limit(300 * MS, Duration::ZERO), 300 * MS + ASK_LIMIT);
    }

    #[test]
    fn rests_grow_and_are_short_while_there_is_something_to_lose() {
        assert_eq!([0, 1, 2, 9, 99].map(|failures| after_failure(failures, Duration::ZERO).as_millis()), [25, 50, 100, 1_000, 1_000]);
        assert_eq!([0, 9].map(|failures| after_failure(failures, 400 * MS).as_millis()), [25, 100]);
    }

    #[test]
    fn a_server_that_answers_at_once_without_news_is_not_asked_at_once_again() {
        assert_eq!(after_answer(false, Duration::ZERO, 400 * MS), Some(50 * MS), "as where it gives no lease");
        assert_eq!(after_answer(false, 600 * MS, 10 * MS), Some(50 * MS));
        assert_eq!(after_answer(false, 600 * MS, 600 * MS), None);
        assert_eq!(after_answer(true, Duration::ZERO, Duration::ZERO), None);
    }
}
