//! How fast long work may read: bytes or rows a second over all workers, and less while the clients of the side that is
//! read have to wait.
//!
//! A bucket fills at the allowed rate, and whoever reads takes from it. The rate is at most the plan's `max_rate`. Where
//! the plan has a `max_latency`, a small query is timed at that side several times a second: over the ceiling the rate
//! is halved, below it the rate grows by steps, up to where it was no limit any more.

mod rate;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cutover_core::plan::DatabaseUrl;
use tokio::time::Instant;
use tokio_postgres::Client;

use self::rate::State;
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
};

/// The rest between an answer and the next question.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// How long an answer is waited for beyond the ceiling, before the session counts as lost.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How long the work goes on without any answer. Longer than a lost session takes to be noticed and made anew.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// What a plan allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Over all workers. Unit: bytes a second for a copy, rows a second for a verification.
    pub max_rate: Option<u64>,
    /// How long the side that is read may take to answer a small query.
    pub max_latency: Option<Duration>,
}

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Reads the source. Counted in bytes.
    Copy,
    /// Reads both sides, and asks the one in charge. Counted in rows.
    Verification,
}

impl Work {
    /// What the rate is never cut below. Unit: bytes or rows a second.
    fn floor(self) -> f64 {
        match self {
            Self::Copy => 1_048_576.0,
            Self::Verification => 1000.0,
        }
    }

    fn whom(self) -> &'static str {
        match self {
            Self::Copy => "the source",
            Self::Verification => "the side in charge",
        }
    }

    fn show(self, rate: f64) -> String {
        match self {
            Self::Copy => format!("{:.1} MB/s", rate / f64::from(1 << 20)),
            Self::Verification => format!("{rate:.0} rows/s"),
        }
    }
}

/// Keeps several workers to one rate.
#[derive(Debug)]
pub struct Limiter {
    work: Work,
    limits: Limits,
    /// Whoever waits for the bucket holds it, and it goes by arrival: no worker is passed by for ever.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// How fast is allowed at the moment, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Unit: bytes a second, or rows.
    pub rate: f64,
    /// How long the side that is read takes to answer, where that is why.
    pub latency: Option<Duration>,
}

impl Limiter {
    /// Allows a copy what `limits` say.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::of(Work::Copy, limits)
    }

    /// Allows a verification what `limits` say.
    #[must_use]
    pub fn of_verification(limits: Limits) -> Self {
        Self::of(Work::Verification, limits)
    }

    fn of(work: Work, limits: Limits) -> Self {
        let state = State::new(limits.max_rate.map(|rate| rate as f64), work.floor());
        Self { work, limits, turn: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }

    /// Waits until so many bytes or rows may be read. A wait that is dropped has taken nothing.
    pub async fn take(&self, amount: u64) {
        if self.limits == Limits::default() {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let taken = self.state().take(amount, Instant::now());
            match taken {
                Ok(()) => return,
                Err(nap) => tokio::time::sleep(nap).await,
            }
        }
    }

    /// What holds the work up at the moment, if anything does.
    #[must_use]
    pub fn throttle(&self) -> Option<Throttle> {
        let state = self.state();
        let latency = state.median().filter(|_| state.rate != state.most);
        state.rate.map(|rate| Throttle { rate, latency })
    }

    /// The same for a person.
    #[must_use]
    pub fn held(&self) -> Option<String> {
        let Throttle { rate, latency } = self.throttle()?;
        let (rate, whom) = (self.work.show(rate), self.work.whom());
        let Some(latency) = latency else { return Some(format!("at most {rate} by max_rate")) };
        let milliseconds = latency.as_secs_f64() * 1000.0;
        Some(if self.limits.max_latency.is_some_and(|ceiling| latency <= ceiling) {
            format!("held to {rate} and rising: {whom} answers in {milliseconds:.1} ms again")
        } else {
            format!("held to {rate}: {whom} answers in {milliseconds:.1} ms")
        })
    }

    /// Times a small query at the side that is read again and again, in a session of its own: what the others do must not
    /// count as its latency. A session that is lost is made anew. Comes back only when that side has not answered for a
    /// minute; never where the plan has no ceiling.
    pub async fn watch(&self, url: &DatabaseUrl, application: &str) -> PgError {
        let Some(ceiling) = self.limits.max_latency else { return std::future::pending().await };
        let mut session = None;
        let mut answered_at = Instant::now();
        loop {
            match self.ask(&mut session, url, application, ceiling).await {
                Ok(()) => answered_at = Instant::now(),
                Err(error) => {
                    session = None;
                    let silence = answered_at.elapsed();
                    if silence > LONGEST_SILENCE {
                        return error;
                    }
                    tracing::debug!(%error, "{} did not say how long it takes to answer", self.work.whom());
                    if silence > ceiling {
                        self.state().seen(silence, ceiling, Instant::now());
                    }
                }
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn ask(&self, session: &mut Option<Client>, url: &DatabaseUrl, application: &str, ceiling: Duration) -> PgResult<()> {
        let client = match session {
            Some(client) => client,
            none => none.insert(connect(url, &Purpose::new(application)).await?),
        };
        let limit = PROBE_LIMIT + ceiling;
        let silent = || PgError::TimedOut { doing: self.asking(), limit };
        tokio::time::timeout(limit, self.probe(client, ceiling)).await.map_err(|_| silent())?
    }

    /// One small query, in one round trip. One that takes long counts before it is answered.
    async fn probe(&self, client: &Client, ceiling: Duration) -> PgResult<()> {
        let asked_at = Instant::now();
        let mut answer = std::pin::pin!(client.batch_execute("SELECT relpages FROM pg_catalog.pg_class WHERE oid = 1259"));
        loop {
            let answered = tokio::time::timeout(PROBE_EVERY.max(ceiling), &mut answer).await;
            if let Ok(Err(error)) = answered {
                return Err(PgError::sql(self.asking(), error));
            }
            let now = Instant::now();
            self.state().seen(now - asked_at, ceiling, now);
            if answered.is_ok() {
                return Ok(());
            }
        }
    }

    fn asking(&self) -> String {
        format!("asking {} how long it takes to answer", self.work.whom())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn without_limits_nothing_waits() {
        let limiter = Limiter::new(Limits::default());
        assert!((0..1000).all(|_| limiter.take(1 << 40).now_or_never().is_some()));
        assert_eq!(limiter.throttle(), None);
    }

    /// All wait for one bucket, and who came first goes first, also behind one that was given up.
    #[tokio::test]
    async fn workers_take_turns() {
        let limiter = Limiter::new(Limits { max_rate: Some(1 << 20), max_latency: None });
        let piece = 1 << 17;
        limiter.take(piece).await;
        let (begun, order) = (Instant::now(), Mutex::new(Vec::new()));
        let wait = async |worker| {
            limiter.take(piece).await;
            order.lock().unwrap().push(worker);
        };
        let given_up = tokio::time::timeout(Duration::from_millis(30), limiter.take(piece));
        let (given_up, ..) = tokio::join!(given_up, wait(1), wait(2), wait(3));
        assert!(given_up.is_err());
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
        assert!(begun.elapsed() > Duration::from_millis(370), "what was given up was not taken, what was taken was waited for");
    }
}
