//! How fast long work may read: bytes a second over all workers, and less while the source's clients have to wait.
//!
//! A bucket fills at the allowed rate, and whoever sends takes from it. The rate is at most the plan's `max_rate`. Where
//! the plan has a `max_latency`, a small query is timed at the source several times a second: over the ceiling the rate
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
    /// Unit: bytes a second, over all workers.
    pub max_rate: Option<u64>,
    /// How long the source may take to answer a small query.
    pub max_latency: Option<Duration>,
}

/// Keeps several workers to one rate.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    /// Whoever waits for the bucket holds it, and it goes by arrival: no worker is passed by for ever.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// How fast is allowed at the moment, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Unit: bytes a second.
    pub rate: f64,
    /// How long the source takes to answer, where that is why.
    pub latency: Option<Duration>,
}

impl Limiter {
    /// Allows what `limits` say.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, turn: tokio::sync::Mutex::default(), state: Mutex::new(State::new(limits.max_rate.map(|rate| rate as f64))) }
    }

    /// What the plan allows.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Waits until so many bytes may be sent. A wait that is dropped has taken nothing.
    pub async fn take(&self, bytes: u64) {
        if self.limits == Limits::default() {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let taken = self.state().take(bytes, Instant::now());
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

    /// Times a small query at the source again and again, in a session of its own: what the others do must not count as
    /// the source's latency. A session that is lost is made anew. Comes back only when the source has not answered for a
    /// minute; never where the plan has no ceiling.
    pub async fn watch(&self, source: &DatabaseUrl, application: &str) -> PgError {
        let Some(ceiling) = self.limits.max_latency else { return std::future::pending().await };
        let mut session = None;
        let mut answered_at = Instant::now();
        loop {
            match self.ask(&mut session, source, application, ceiling).await {
                Ok(()) => answered_at = Instant::now(),
                Err(error) => {
                    session = None;
                    let silence = answered_at.elapsed();
                    if silence > LONGEST_SILENCE {
                        return error;
                    }
                    tracing::debug!(%error, "the source did not say how long it takes to answer");
                    if silence > ceiling {
                        self.state().seen(silence, ceiling, Instant::now());
                    }
                }
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn ask(&self, session: &mut Option<Client>, source: &DatabaseUrl, application: &str, ceiling: Duration) -> PgResult<()> {
        let client = match session {
            Some(client) => client,
            none => none.insert(connect(source, &Purpose::new(application)).await?),
        };
        let limit = PROBE_LIMIT + ceiling;
        let silent = || PgError::TimedOut { doing: "asking the source how long it takes to answer".to_owned(), limit };
        tokio::time::timeout(limit, self.probe(client, ceiling)).await.map_err(|_| silent())?
    }

    /// One small query, in one round trip. One that takes long counts before it is answered.
    async fn probe(&self, client: &Client, ceiling: Duration) -> PgResult<()> {
        let asked_at = Instant::now();
        let mut answer = std::pin::pin!(client.batch_execute("SELECT relpages FROM pg_catalog.pg_class WHERE oid = 1259"));
        loop {
            let answered = tokio::time::timeout(PROBE_EVERY.max(ceiling), &mut answer).await;
            if let Ok(Err(error)) = answered {
                return Err(PgError::sql("asking the source how long it takes to answer", error));
            }
            let now = Instant::now();
            self.state().seen(now - asked_at, ceiling, now);
            if answered.is_ok() {
                return Ok(());
            }
        }
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
