//! The agent: it keeps a lease from a server, and lends on it to clients of its own.
//!
//! It is a server to whoever asks it, and tells the same; what it knows comes from another server rather than from a
//! journal. When that one can't be reached, its own lease runs out, and with it those of its clients: writes are refused,
//! and reads stay where they were.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cutover_api::{AgentPermit, AgentRequest, ClientSum, PlaceName, TrialAnswer, TrialRequest};
use cutover_core::{
    Route,
    clients::{Place, Places, Unit},
};
use cutover_wire::{Failure, Method, Reach, ReachError, Wire, operations::Outbox, pace};
use tokio::time::{Instant, sleep};

use crate::{
    ServerError,
    front::{Front, Tables, View, whole_ms},
    house::{Door, House, Options},
    openapi,
    trial::GRANT_LIMIT,
    words,
};

/// A longer answer is none of a server's. Unit: bytes.
const MOST_BODY: usize = 512 * 1024;

/// Where an agent gets its lease from.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The server, or another agent.
    pub reach: Reach,
    /// What the agent is known by there: a node's name. At most 200 characters.
    pub instance: String,
}

/// An agent that listens.
pub struct Agent {
    house: House,
    front: Front,
    link: Arc<Link>,
}

impl Agent {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.house.address()
    }

    /// Takes no new request, lets those under way end, and says goodbye where nobody has a lease any more.
    ///
    /// # Errors
    /// If it had ended before, of itself.
    pub async fn close(self) -> Result<(), ServerError> {
        let ended = self.house.close().await;
        self.link.pass_on_last(&self.front).await;
        // Else whoever waits for its clients waits until the last lease is over.
        if self.front.report().clients == 0 {
            self.link.leave().await;
        }
        ended
    }

    /// Returns when it has ended.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        self.house.ended().await
    }
}

/// Starts an agent. It listens at once, and refuses writes until the server has answered.
///
/// # Errors
/// See [`ServerError`].
pub async fn agent(upstream: Upstream, options: Options) -> Result<Agent, ServerError> {
    if upstream.instance.is_empty() || !words::is_line(&upstream.instance, 200) {
        return Err(ServerError::Name(upstream.instance));
    }
    let (door, manners) = Door::open(&options).await?;
    let link = Arc::new(Link::new(&upstream)?);
    let front = Front::of_agent(manners, link.clone());
    let mut house = door.welcome(&front, openapi::of_agent(&front))?;
    house.tasks.spawn({
        let (front, link) = (front.clone(), link.clone());
        async move { link.keep(&front).await }
    });
    house.tasks.spawn({
        let (front, link) = (front.clone(), link.clone());
        async move { link.tell(&front).await }
    });
    house.tasks.spawn({
        let (front, link) = (front.clone(), link.clone());
        async move { link.pass_on(&front).await }
    });
    Ok(Agent { house, front, link })
}

/// The way to the server.
pub(crate) struct Link {
    wire: Wire,
    instance: String,
    incarnation: String,
    beat: AtomicU64,
    /// When the lease runs out that the agent has, and how long it was when it was given. Only one answer at a time is taken.
    lease: Mutex<(Instant, Duration)>,
    /// What the clients' applications did. Taken by the one task that tells the server.
    outbox: tokio::sync::Mutex<Outbox>,
}

impl Link {
    fn new(upstream: &Upstream) -> Result<Self, ReachError> {
        let incarnation = hex::encode(rand::random::<[u8; 16]>());
        Ok(Self {
            wire: Wire::new(&upstream.reach, concat!("cutover-agent/", env!("CARGO_PKG_VERSION")), MOST_BODY)?,
            instance: upstream.instance.clone(),
            outbox: tokio::sync::Mutex::new(Outbox::new(incarnation.clone())),
            incarnation,
            beat: AtomicU64::new(0),
            lease: Mutex::new((Instant::now(), Duration::ZERO)),
        })
    }

    /// Asks again and again: for news, and for the lease.
    async fn keep(&self, front: &Front) -> Result<(), ServerError> {
        let mut failures = 0_u32;
        loop {
            let (until, lease) = *self.lease();
            // After a failure it is the lease that counts, not the news.
            let wait = if failures > 0 { Duration::ZERO } else { lease / 3 };
            let known = front.now().version();
            let asked_at = Instant::now();
            match self.ask(front, wait, until).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(failures, "the server answers again");
                    }
                    failures = 0;
                    if let Some(rest) = pace::after_answer(front.now().version() != known, wait, asked_at.elapsed()) {
                        sleep(rest).await;
                    }
                }
                Err(Trouble::Other(error)) => return Err(error),
                Err(Trouble::Passing(why)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if failures == 0 {
                        tracing::warn!(
                            why,
                            lease_left_ms = whole_ms(left),
                            "no lease from the server; writes are refused when it has run out"
                        );
                    }
                    sleep(pace::after_failure(failures, left)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Says at once what somebody may be waiting for, beside the request that waits for news.
    async fn tell(&self, front: &Front) -> Result<(), ServerError> {
        loop {
            front.news.notified().await;
            let (until, _) = *self.lease();
            match self.ask(front, Duration::ZERO, until).await {
                Ok(()) => {}
                Err(Trouble::Other(error)) => return Err(error),
                // What waits for news says it with its next request.
                Err(Trouble::Passing(why)) => tracing::debug!(why, "the server could not be told"),
            }
        }
    }

    /// Tells of what the clients' applications did.
    async fn pass_on(&self, front: &Front) -> Result<(), ServerError> {
        self.outbox.lock().await.keep_telling(&self.wire, |tally| front.told.pass_on(tally)).await;
        Ok(())
    }

    async fn pass_on_last(&self, front: &Front) {
        let mut outbox = self.outbox.lock().await;
        front.told.pass_on(&mut outbox.tally);
        outbox.tell_last(&self.wire).await;
    }

    async fn ask(&self, front: &Front, wait: Duration, until: Instant) -> Result<(), Trouble> {
        let beat = self.beat.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let known = front.now();
        let knows = !known.cutover.is_empty();
        let request = AgentRequest {
            instance: self.instance.clone(),
            incarnation: self.incarnation.clone(),
            beat,
            clients: knows.then(|| sum(front)),
            revision: (knows && !wait.is_zero()).then_some(known.revision),
            tables: knows.then_some(known.tables.version),
            wait_ms: whole_ms(wait),
        };
        let left = until.saturating_duration_since(sent);
        let permit = self.wire.ask(Method::POST, "v1/agents", Some(&request), pace::limit(wait, left)).await?;
        self.take(front, permit, sent)
    }

    fn take(&self, front: &Front, permit: AgentPermit, sent: Instant) -> Result<(), Trouble> {
        let mut lease = self.lease();
        let known = front.now();
        if !known.cutover.is_empty() && *known.cutover != *permit.cutover {
            // Its epochs begin anew: what clients were lent by the other one could not be told from it.
            return Err(Trouble::Other(ServerError::OtherCutover { was: known.cutover.to_string(), is: permit.cutover }));
        }
        let route = Route { epoch: permit.epoch, authority: words::core_side(permit.authority), writes: words::core_writes(permit.writes) };
        if permit.revision < known.revision || route.epoch < known.route.epoch {
            let why = format!("the server's answer is older than what is known: revision {} of epoch {}", permit.revision, permit.epoch);
            return Err(Trouble::Passing(why));
        }
        let places = permit.places.into_iter().map(|PlaceName { name, side }| (name, side.map_or(Place::Through, at)));
        let places = Places::of_names(places).map_err(|name| Trouble::Passing(format!("`{name}` is no name of a database")))?;
        let mut units: Vec<_> = permit.units.into_iter().map(words::core_unit).collect();
        if units.is_empty() && permit.tables == 0 {
            // An older server tells of none.
            units.push(Unit::of_switch(&route));
        }
        let given = Duration::from_millis(permit.lease_ms);
        let (cutover, places, units) = (permit.cutover.into(), places.into(), units.into());
        let tables = Tables::heard_of(permit.tables);
        let view = View { cutover, places, revision: permit.revision, route, units, tables, trial: None, as_of: sent };
        front.renewed(view, given);
        *lease = (lease.0.max(sent + given), given);
        Ok(())
    }

    fn lease(&self) -> MutexGuard<'_, (Instant, Duration)> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server whether an instance may write once.
    pub(crate) async fn try_write(&self, request: &TrialRequest) -> bool {
        let asked = self.wire.ask::<TrialAnswer>(Method::POST, "v1/trial", Some(request), GRANT_LIMIT + pace::ASK_LIMIT).await;
        asked.map(|answer| answer.granted).unwrap_or_else(|failure| {
            tracing::warn!(%failure, "the server could not be asked for the write on trial");
            false
        })
    }

    async fn leave(&self) {
        let path = format!("v1/agents/{}", self.incarnation);
        if let Err(failure) = self.wire.say(Method::DELETE, &path, pace::GOODBYE_LIMIT).await {
            tracing::debug!(%failure, "the server could not be told that this agent has ended");
        }
    }
}

/// Why there is no lease.
enum Trouble {
    /// It may be tried again.
    Passing(String),
    /// It must not.
    Other(ServerError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Passing(failure.to_string())
    }
}

fn at(side: cutover_api::Side) -> Place {
    Place::At(words::core_side(side))
}

fn sum(front: &Front) -> ClientSum {
    let report = front.report();
    let names = report.names.iter().map(|name| name.chars().take(300).collect()).collect();
    ClientSum { epoch: report.epoch, clients: report.clients, behind: report.behind, astray: report.astray, unknown: report.unknown, names }
}
