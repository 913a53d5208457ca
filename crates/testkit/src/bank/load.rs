//! Clients that work on the bank.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::RngExt as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};

use super::{
    History,
    client::Worker,
    history::longest_gap,
    operation::{Mix, Tags},
    session::Session,
};
use crate::{Error, Result, Seed, connection::connect};

/// How many errors are kept.
const ERRORS_KEPT: usize = 20;

/// What load to put on the bank.
#[derive(Clone)]
pub struct LoadOptions {
    /// Where the application connects: a server, a `PgBouncer`, a proxy.
    pub url: String,
    /// How many clients, each with a connection of its own.
    pub clients: u16,
    /// What the clients' choices come from.
    pub seed: Seed,
    /// Requests per second of all clients together; `None` for as many as they can.
    pub rate: Option<u32>,
    /// The share of requests that read, 0 to 1.
    pub read_share: f64,
    /// The share of transactions that stay open for [`Self::slow`] before they commit, 0 to 1.
    pub slow_share: f64,
    /// How long these do.
    pub slow: Duration,
    /// When an application gives up: from the start of a request, connecting included.
    pub request_timeout: Duration,
}

impl LoadOptions {
    /// Eight clients at full speed, 10 % reads, 1 % transactions that take 100 ms, patience of 30 s.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            clients: 8,
            seed: Seed::new(1),
            rate: None,
            read_share: 0.1,
            slow_share: 0.01,
            slow: Duration::from_millis(100),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("clients", &self.clients)
            .field("seed", &self.seed)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

/// How far a load is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadStats {
    /// Requests that were finished, one way or another.
    pub requests: u64,
    /// Writes whose commit was confirmed.
    pub acknowledged: u64,
    /// Requests that failed, reads too.
    pub failed: u64,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
}

/// A load under way. Dropping it breaks it off; [`Load::stop`] ends it and tells what the clients saw.
#[derive(Debug)]
pub struct Load {
    board: Arc<Board>,
    url: watch::Sender<String>,
    stop: watch::Sender<bool>,
    workers: JoinSet<History>,
}

impl Load {
    /// Sets the clients to work.
    ///
    /// # Errors
    /// The bank can't be read, or the options make no sense.
    pub async fn start(options: LoadOptions) -> Result<Self> {
        let shares = [options.read_share, options.slow_share];
        if options.clients == 0 || options.rate == Some(0) || shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return Err(Error::Usage("a load needs clients, a rate above 0, and shares from 0 to 1".to_owned()));
        }
        let mix = Mix {
            accounts: accounts(&options.url).await?,
            read_share: options.read_share,
            slow_share: options.slow_share,
            slow: options.slow,
        };
        let (url, urls) = watch::channel(options.url.clone());
        let (stop, stops) = watch::channel(false);
        let mut load = Self { board: Arc::default(), url, stop, workers: JoinSet::new() };
        let mix = Arc::new(mix);
        for (index, id) in (0..options.clients).zip(fresh_clients(options.clients)) {
            load.workers.spawn(
                Worker {
                    id,
                    mix: mix.clone(),
                    board: load.board.clone(),
                    rng: options.seed.derive(u64::from(index)).rng(),
                    request_timeout: options.request_timeout,
                    url: urls.clone(),
                    stop: stops.clone(),
                    pace: options.rate.map(|rate| pace(rate, index, options.clients)),
                    session: None::<Session>,
                    tags: Tags::default(),
                    back_off: Duration::ZERO,
                    seen: History::default(),
                }
                .run(),
            );
        }
        Ok(load)
    }

    /// Writes whose commit was confirmed so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.stats().acknowledged
    }

    /// Requests that failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.stats().failed
    }

    /// How far it is.
    #[must_use]
    pub fn stats(&self) -> LoadStats {
        self.board.stats()
    }

    /// The last things that went wrong, oldest first.
    #[must_use]
    pub fn last_errors(&self) -> Vec<String> {
        self.board.last_errors()
    }

    /// Waits until so many more writes are acknowledged than are now.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with the last thing that went wrong.
    pub async fn wait_acknowledged(&self, more: u64, deadline: Duration) -> Result<()> {
        let target = self.acknowledged() + more;
        let reached = async {
            loop {
                let mut changed = std::pin::pin!(self.board.changed.notified());
                changed.as_mut().enable();
                if self.acknowledged() >= target {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(deadline, reached).await.map_err(|_| Error::TimedOut {
            what: format!("{more} more acknowledged writes"),
            limit: deadline,
            last: self.last_errors().pop(),
        })
    }

    /// The longest time in a span in which no write of any client was acknowledged.
    #[must_use]
    pub fn pause_between(&self, from: Instant, to: Instant) -> Duration {
        longest_gap(&self.board.times(), from, to)
    }

    /// Lets every client connect elsewhere from its next request on, as a changed configuration would.
    pub fn repoint(&self, url: impl Into<String>) {
        self.url.send_replace(url.into());
    }

    /// Ends the load: requests under way are brought to their end, which takes at most a request's time-out.
    pub async fn stop(mut self) -> History {
        self.stop.send_replace(true);
        let mut history = History::default();
        while let Some(seen) = self.workers.join_next().await {
            // A client that broke down has lost what it saw: better to hear of it than to check half a history.
            history.merge(seen.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        history.errors = self.last_errors();
        history
    }
}

/// What all clients share.
#[derive(Debug, Default)]
pub(super) struct Board {
    requests: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    /// When writes were acknowledged, ascending.
    times: Mutex<Vec<Instant>>,
    errors: Mutex<VecDeque<String>>,
    /// Told with every acknowledged write.
    changed: Notify,
}

impl Board {
    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unknown(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an acknowledged write, and returns when that was.
    pub(super) fn acknowledge(&self) -> Instant {
        let mut times = self.times();
        // Taken under the lock, so that the times ascend.
        let now = Instant::now();
        times.push(now);
        drop(times);
        self.changed.notify_waiters();
        now
    }

    pub(super) fn complain(&self, error: &str) {
        let mut errors = self.errors();
        if errors.len() == ERRORS_KEPT {
            errors.pop_front();
        }
        errors.push_back(error.to_owned());
    }

    fn stats(&self) -> LoadStats {
        LoadStats {
            requests: self.requests.load(Ordering::Relaxed),
            acknowledged: super::history::count(self.times().len()),
            failed: self.failed.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }

    fn last_errors(&self) -> Vec<String> {
        self.errors().iter().cloned().collect()
    }

    fn times(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn errors(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accounts(url: &str) -> Result<i64> {
    let client = connect(url, "connect to the bank").await?;
    let messages =
        client.simple_query("SELECT accounts FROM bank.charter").await.map_err(|source| Error::sql("read the bank's charter", source))?;
    let row = messages.iter().find_map(|message| if let tokio_postgres::SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
    let accounts = row.and_then(|row| row.get(0)).and_then(|text| text.parse().ok());
    accounts.filter(|accounts| *accounts > 1).ok_or_else(|| Error::Usage("the bank has no accounts".to_owned()))
}

/// Numbers for clients that no load on this bank had before: from another process neither, in all likelihood.
fn fresh_clients(clients: u16) -> std::ops::Range<i32> {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    let _ = NEXT.compare_exchange(0, rand::rng().random_range(1..20_000) * 50_000, Ordering::Relaxed, Ordering::Relaxed);
    let first = NEXT.fetch_add(i32::from(clients), Ordering::Relaxed);
    first..first + i32::from(clients)
}

/// The `index`th of several clients that share a rate.
fn pace(rate: u32, index: u16, clients: u16) -> Interval {
    let step = Duration::from_secs_f64(1.0 / f64::from(rate));
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + step * u32::from(index), step * u32::from(clients));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
