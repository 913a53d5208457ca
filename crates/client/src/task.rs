//! Keeps the lease: asks again and again, in the background.

use std::{pin::pin, sync::Arc, time::Duration};

use cutover_api::{Permit, PermitRequest};
use cutover_wire::{Method, Wire, pace};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    chance,
    guard::Shared,
    keeper::{Keeper, Taken},
    settings::Checked,
};

/// A longer answer is none of the server's, which tells of 500 tables at most. Unit: bytes.
pub(crate) const MOST_BODY: usize = 512 * 1024;

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Wire(#[from] cutover_wire::Failure),
    #[error("the server's answer is older than what is known: revision {revision} of epoch {epoch}")]
    Stale { revision: u64, epoch: u64 },
    #[error("the server answers for another cutover: {cutover}")]
    Other { cutover: String },
}

impl Failure {
    /// Whether the server would say so again.
    pub(crate) fn is_rejection(&self) -> bool {
        matches!(self, Self::Wire(failure) if failure.is_rejection())
    }
}

pub(crate) struct Task {
    shared: Arc<Shared>,
    wire: Wire,
    ending: watch::Receiver<bool>,
    keeper: Keeper,
    /// When the lease runs out, by the system's clock: should the processor's ever stand still, this closes the gate.
    until: Instant,
    asks: PermitRequest,
    /// In a row.
    failures: u32,
}

/// How something ended that was attended to.
enum Attended<T> {
    Done(T),
    /// A newer epoch can be acknowledged.
    Acknowledge,
    Ended,
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>, wire: Wire, settings: Checked, incarnation: String, ending: watch::Receiver<bool>) -> Self {
        let Checked { instance, database, .. } = settings;
        let asks = PermitRequest { instance, incarnation, database, acknowledged: None, revision: None, tables: None, wait_ms: 0 };
        Self { shared, wire, ending, keeper: Keeper::default(), until: Instant::now(), asks, failures: 0 }
    }

    pub(crate) async fn run(mut self) {
        while self.ask().await {}
        self.end().await;
    }

    /// Asks once. Returns whether to go on.
    async fn ask(&mut self) -> bool {
        let (request, limit) = self.request();
        let wire = self.wire.clone();
        let (sent, sent_at) = (self.shared.clock.now(), Instant::now());
        let answer = match self.attend(wire.ask(Method::POST, "v1/permits", Some(&request), limit)).await {
            Attended::Done(answer) => answer,
            Attended::Acknowledge => return true,
            Attended::Ended => return false,
        };
        let rest = match answer.map_err(Failure::Wire).and_then(|permit| self.take(permit, sent, sent_at)) {
            Ok(news) => {
                self.recovered();
                pace::after_answer(news, Duration::from_millis(request.wait_ms), sent_at.elapsed())
            }
            Err(failure) => Some(self.failed(failure)),
        };
        match rest {
            Some(rest) => !matches!(self.attend(sleep(chance::jittered(rest))).await, Attended::Ended),
            None => true,
        }
    }

    fn request(&mut self) -> (PermitRequest, Duration) {
        self.keeper.settle(&self.shared.gate);
        let lease = self.keeper.known().map_or(0, |known| known.lease_ms);
        let acknowledged = self.keeper.acknowledged();
        let (revision, tables) = self.keeper.known().map(|known| (known.revision, known.tables)).unzip();
        // After a failure it is the lease that counts, not the news.
        let wait_ms = if self.failures > 0 { 0 } else { lease / 3 };
        let request = PermitRequest { acknowledged, revision, tables, wait_ms, ..self.asks.clone() };
        let wait = Duration::from_millis(wait_ms);
        let left = self.until.saturating_duration_since(Instant::now());
        (request, pace::limit(wait, left))
    }

    fn take(&mut self, permit: Permit, sent: u64, sent_at: Instant) -> Result<bool, Failure> {
        let lease = Duration::from_millis(permit.lease_ms);
        match self.keeper.take(&self.shared.gate, permit, sent) {
            Taken::Applied { news } => {
                self.until = self.until.max(sent_at.checked_add(lease).unwrap_or(sent_at));
                self.publish();
                Ok(news)
            }
            Taken::Stale { revision, epoch } => Err(Failure::Stale { revision, epoch }),
            Taken::Other { cutover } => Err(Failure::Other { cutover }),
        }
    }

    /// Waits for something, and meanwhile closes the gate when the lease runs out, and looks after writes that end.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Attended<T> {
        let mut work = pin!(work);
        let (shared, mut ending) = (self.shared.clone(), self.ending.clone());
        let asked = self.keeper.acknowledged();
        loop {
            let waits = self.keeper.waits();
            let leased = Instant::now() < self.until;
            select! {
                biased;
                // Also when the last handle was dropped.
                _ = ending.wait_for(|ending| *ending) => return Attended::Ended,
                () = shared.left.notified(), if waits => {
                    if self.keeper.settle(&shared.gate) {
                        self.publish();
                    }
                    if self.keeper.acknowledged() > asked {
                        return Attended::Acknowledge;
                    }
                }
                () = sleep_until(self.until), if leased => shared.gate.close(),
                done = &mut work => return Attended::Done(done),
            }
        }
    }

    /// Tells everybody what holds now, and wakes whoever waits to write.
    fn publish(&self) {
        if let Some(known) = self.keeper.known() {
            // First, so that whoever hears of a route reads by it.
            self.shared.reads.learn(known);
            self.shared.view.send_modify(|view| view.learn(known, self.keeper.until()));
        }
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "the cutover server answers again");
        }
        self.failures = 0;
    }

    /// Returns how long to rest.
    fn failed(&mut self, failure: Failure) -> Duration {
        let left = self.until.saturating_duration_since(Instant::now());
        if self.failures == 0 {
            tracing::warn!(%failure, lease_left_ms = left.as_millis(), "no lease from the cutover server; writes are refused when it has run out");
        }
        let rest = pace::after_failure(self.failures, left);
        self.failures = self.failures.saturating_add(1);
        self.shared.view.send_modify(|view| view.failure = Some(Arc::new(failure)));
        rest
    }

    /// Lets the writes under way end, and then says goodbye. As long as one is under way, saying so would be a lie: then
    /// the lease has to run out.
    async fn end(mut self) {
        let shared = self.shared.clone();
        shared.gate.close();
        shared.view.send_modify(|view| view.closed = true);
        let drained = async {
            while !self.keeper.end(&shared.gate) {
                shared.left.notified().await;
            }
        };
        if timeout_at(self.until, drained).await.is_err() {
            return tracing::warn!("a write takes longer than the lease; the server is not told that this client has ended");
        }
        if let Err(failure) = self.wire.say(Method::DELETE, &format!("v1/permits/{}", self.asks.incarnation), pace::GOODBYE_LIMIT).await {
            tracing::debug!(%failure, "the server could not be told that this client has ended");
        }
    }
}
