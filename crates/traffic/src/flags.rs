//! Flags that instances ask before they write: who has heard what they say.
//!
//! The flags themselves are the journal's route, which servers hand on with a lease. So nothing is called here to hold
//! or to release: to hold is to wait until everybody has heard. When writes go on at the side that had them, nobody is
//! waited for either. Who has not heard of that yet refuses writes, which harms nobody; and who has not even heard of
//! the hold acts on an epoch under which the same side was open.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cutover_core::{
    Route, Side, Writes,
    clients::{Claim, Heard, Listeners, Verdict},
};
use tokio::time::Instant;

use crate::{Adapter, Endpoint, Observation, Problem, TrafficError, adapter::within};

/// How often the servers are judged anew though none has written: one may have been silent for too long.
const LOOK: Duration = Duration::from_millis(50);

/// How long a preflight watches for servers that are silent.
const WATCH: Duration = Duration::from_secs(5);

/// How often whoever waits for clients is told who is left.
const TELL: Duration = Duration::from_secs(5);

const NAME: &str = "flags";

/// Why it can't be found out who has heard.
pub type AudienceError = Box<dyn std::error::Error + Send + Sync>;

/// What there is to hear.
#[async_trait]
pub trait Routes: Send + Sync {
    /// The newest route.
    ///
    /// # Errors
    /// When it can't be read.
    async fn route(&self) -> Result<Route, AudienceError>;
}

/// What the servers that give leases have heard and written down.
#[async_trait]
pub trait Audience: Routes {
    /// What all servers have written down last, as soon as it is other than `known`; the same when `wait` has passed.
    ///
    /// # Errors
    /// When it can't be read.
    async fn heard(&self, known: &[Heard], wait: Duration) -> Result<Vec<Heard>, AudienceError>;
}

/// How the plan wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagSettings {
    /// How long an instance may act on an answer.
    pub lease: Duration,
    /// How long an opening waits for instances to go; zero for none.
    pub rollout: Duration,
    /// What all of a pause may take.
    pub budget: Duration,
}

/// Whom a call has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Servers that were there.
    pub servers: u64,
    /// Their clients.
    pub clients: u64,
    /// For how long.
    pub waited: Duration,
}

/// The adapter.
pub struct Flags {
    settings: FlagSettings,
    audience: Box<dyn Audience>,
    origin: Instant,
    /// Kept from call to call: since when a server has been silent is learned before a pause.
    listeners: Mutex<Listeners>,
    held: Mutex<Option<Waited>>,
}

impl Flags {
    /// Flags whose servers are heard through `audience`.
    #[must_use]
    pub fn new(settings: FlagSettings, audience: Box<dyn Audience>) -> Self {
        Self { settings, audience, origin: Instant::now(), listeners: Mutex::default(), held: Mutex::default() }
    }

    /// Learns which servers are silent, so that a dead one costs no lease while writes are held: comes back when each
    /// has written anew or has been silent for longer than its leases, at the latest at `deadline`.
    ///
    /// # Errors
    /// When what they have written can't be read.
    pub async fn meet(&self, deadline: Instant) -> Result<Verdict, TrafficError> {
        let epoch = self.route(deadline).await?.epoch;
        let first = self.heard(&[], Duration::ZERO, deadline).await?;
        let mut heard = first.clone();
        loop {
            // Both as of one moment: who is silent counts as nobody any more.
            let now_ms = self.now_ms();
            let verdict = lock(&self.listeners).judge(now_ms, &heard, epoch);
            let mut unmoved = heard.clone();
            unmoved.retain(|now| first.iter().any(|first| (&first.server, first.beat) == (&now.server, now.beat)));
            let silent = lock(&self.listeners).clone().judge(now_ms, &unmoved, epoch).servers == 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if silent || left.is_zero() {
                return Ok(verdict);
            }
            heard = self.heard(&heard, left.min(LOOK), deadline).await?;
        }
    }

    /// Whom the last [`hold`](Adapter::hold) waited for, once.
    pub fn take_held(&self) -> Option<Waited> {
        lock(&self.held).take()
    }

    /// Waits until every client has acknowledged the newest epoch and none is left whose writes don't go to the side in
    /// charge (A13, A16), for as long as the plan's `rollout` says. `tell` hears every few seconds who is left.
    ///
    /// # Errors
    /// [`TrafficError::Astray`] when some are left, or when what the servers have written can't be read.
    pub async fn gather(&self, tell: impl Fn(&Verdict) + Send + Sync) -> Result<Option<Waited>, TrafficError> {
        let rollout = self.settings.rollout;
        if rollout.is_zero() {
            return Ok(None);
        }
        let (begun, deadline) = (Instant::now(), Instant::now() + rollout);
        let epoch = self.route(deadline).await?.epoch;
        let mut next = begun + TELL;
        let told = |verdict: &Verdict| {
            if Instant::now() >= next {
                tell(verdict);
                next = Instant::now() + TELL;
            }
        };
        match self.until(epoch, deadline, |verdict| verdict.report.behind == 0 && verdict.report.astray == 0, told).await? {
            Ok(verdict) => Ok(Some(waited(&verdict, begun))),
            Err(left) => Err(TrafficError::Astray {
                adapter: NAME.to_owned(),
                rollout,
                left: left.report.behind.max(left.report.astray),
                names: names(&left),
            }),
        }
    }

    /// Waits until a client of any server asks for the leave to try one write with the word of this digest.
    ///
    /// # Errors
    /// When what the servers have written can't be read.
    pub async fn claimed(&self, digest: &str) -> Result<Claim, TrafficError> {
        let mut heard = Vec::new();
        loop {
            heard = self.heard(&heard, LOOK, Instant::now() + WATCH).await?;
            let claim = heard.iter().flat_map(|heard| &heard.report.claims).find(|claim| claim.digest == digest);
            if let Some(claim) = claim {
                return Ok(claim.clone());
            }
        }
    }

    /// What [`gather`](Self::gather) does, for a person; nothing where it does nothing.
    #[must_use]
    pub fn gather_calls(&self, to: Side) -> Vec<String> {
        let FlagSettings { rollout, .. } = self.settings;
        let call = format!("{NAME}: wait until no client is left that is connected to the {}, for {rollout:?} at most", to.other());
        if rollout.is_zero() { Vec::new() } else { vec![call] }
    }

    /// The verdict once it is as `done` wants it, or the last one before the deadline.
    async fn until(
        &self,
        epoch: u64,
        deadline: Instant,
        done: impl Fn(&Verdict) -> bool,
        mut told: impl FnMut(&Verdict),
    ) -> Result<Result<Verdict, Verdict>, TrafficError> {
        let mut heard = self.heard(&[], Duration::ZERO, deadline).await?;
        loop {
            let verdict = self.judge(&heard, epoch);
            if done(&verdict) {
                return Ok(Ok(verdict));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err(verdict));
            }
            told(&verdict);
            heard = self.heard(&heard, left.min(LOOK), deadline + LOOK).await?;
        }
    }

    fn judge(&self, heard: &[Heard], epoch: u64) -> Verdict {
        lock(&self.listeners).judge(self.now_ms(), heard, epoch)
    }

    async fn route(&self, deadline: Instant) -> Result<Route, TrafficError> {
        within(deadline, NAME, "read the journal", async { self.audience.route().await.map_err(unheard) }).await
    }

    async fn heard(&self, known: &[Heard], wait: Duration, deadline: Instant) -> Result<Vec<Heard>, TrafficError> {
        within(deadline, NAME, "read what the servers have heard", async { self.audience.heard(known, wait).await.map_err(unheard) }).await
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[async_trait]
impl Adapter for Flags {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn holds(&self) -> bool {
        true
    }

    fn hold_calls(&self) -> Vec<String> {
        let lease = self.settings.lease;
        vec![format!("{NAME}: wait until every client has acknowledged that writes are held, or its lease ({lease:?}) has run out")]
    }

    fn release_calls(&self, to: &Endpoint) -> Vec<String> {
        vec![format!("{NAME}: nothing; they name the {} as soon as the journal does", to.side)]
    }

    async fn observe(&self, _endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError> {
        let deadline = Instant::now() + WATCH;
        let route = self.route(deadline).await?;
        let verdict = self.judge(&self.heard(&[], Duration::ZERO, deadline).await?, route.epoch);
        let mut detail = format!("{} servers, {} clients", verdict.servers, verdict.report.clients);
        if !verdict.report.names.is_empty() {
            detail = format!("{detail}; {}", names(&verdict));
        }
        Ok(Observation {
            points_at: Some(route.authority),
            held: route.writes == Writes::Held,
            clients: u32::try_from(verdict.report.clients).ok(),
            detail,
        })
    }

    async fn check(&self, _endpoints: &[Endpoint; 2]) -> Vec<Problem> {
        let verdict = match self.meet(Instant::now() + WATCH).await {
            Ok(verdict) => verdict,
            Err(error) => return vec![Problem::from_error(&error)],
        };
        let FlagSettings { lease, budget, .. } = self.settings;
        let mut problems = Vec::new();
        if verdict.servers == 0 {
            let fix = "start `cutover serve` with this plan, or take the section out of it";
            problems.push(Problem::error("no server is there that gives leases: whoever asks the flags is refused", fix));
        } else {
            problems.push(Problem::info(format!("{} servers, {} clients", verdict.servers, verdict.report.clients)));
        }
        if verdict.report.unknown > 0 {
            let message = format!("{} clients name no database that is known: {}", verdict.report.unknown, names(&verdict));
            problems.push(Problem::warning(message, "list the names that they use under `source`, `target` or `through` of the section"));
        }
        if lease > budget / 2 {
            let message = format!("a client that dies in the pause is waited for {lease:?}, and the pause has {budget:?} in all");
            problems.push(Problem::warning(message, "choose a lease of at most half of pause.budget"));
        }
        problems
    }

    async fn hold(&self, deadline: Instant) -> Result<(), TrafficError> {
        let begun = Instant::now();
        let epoch = self.route(deadline).await?.epoch;
        match self.until(epoch, deadline, |verdict| verdict.report.behind == 0, |_| ()).await? {
            Ok(verdict) => {
                *lock(&self.held) = Some(waited(&verdict, begun));
                Ok(())
            }
            Err(left) => Err(TrafficError::Unheard {
                adapter: NAME.to_owned(),
                epoch,
                waited: begun.elapsed(),
                left: left.report.behind,
                names: names(&left),
            }),
        }
    }

    async fn release(&self, _to: &Endpoint, _deadline: Instant) -> Result<(), TrafficError> {
        Ok(())
    }

    fn flags(&self) -> Option<&Flags> {
        Some(self)
    }
}

fn waited(verdict: &Verdict, begun: Instant) -> Waited {
    Waited { servers: verdict.servers, clients: verdict.report.clients, waited: begun.elapsed() }
}

/// Some of those who are left, with why.
fn names(verdict: &Verdict) -> String {
    verdict.report.names.join(", ")
}

fn unheard(source: AudienceError) -> TrafficError {
    TrafficError::Audience { adapter: NAME.to_owned(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
