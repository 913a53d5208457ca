//! Flag services that a team already has: the named flag there is kept in step with the route.
//!
//! An open flag is never a bare yes, which would arm every instance at once, also one that is still connected to the old
//! side: it is open to the names of the side in charge, by the service's own targeting. So nobody has to be waited for
//! when it is opened. What instances hear of it, and when, no service tells; the fence in the database is what holds.

mod consul;
mod document;
mod fault;
mod flagsmith;
mod http;
mod launchdarkly;
mod shown;
mod split;
mod unleash;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use cutover_core::{
    Plan, Route, Side, Writes,
    clients::{Names, Wanted},
    plan::{FlagService, ServiceFlag, Traffic},
};
use tokio::time::{Instant, sleep};

pub use fault::ServiceFault;

use self::{
    consul::Consul,
    flagsmith::Flagsmith,
    http::Http,
    launchdarkly::LaunchDarkly,
    shown::{Shown, To, spell},
    split::Split,
    unleash::Unleash,
};
use crate::{Adapter, Endpoint, Observation, Problem, Routes, TrafficError, adapter::within};

/// How long a preflight or a look may take.
const LOOK: Duration = Duration::from_secs(5);

/// Between two looks whether a service shows what was written, at first and at most.
const LOOKS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(400)];

/// After how long without showing it is written again: somebody may have changed it right after us.
const AGAIN: Duration = Duration::from_secs(1);

/// A service. What it writes it can write twice.
#[async_trait]
trait Service: Send + Sync {
    /// The flag, for a person: `consul 127.0.0.1:8500 shop/writes`.
    fn name(&self) -> &str;

    /// How it is reached.
    fn http(&self) -> &Http;

    /// The calls of [`write`](Self::write), as a person would type them. No secrets.
    fn calls(&self, wanted: &Wanted) -> Vec<String>;

    /// The flag as it is there.
    async fn read(&self, deadline: Instant) -> Result<Shown, TrafficError>;

    /// Makes the flag say what it has to.
    async fn write(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError>;

    /// What else would keep it from being written, or instances from obeying it. `wanted` is what it has to say now.
    async fn check(&self, wanted: &Wanted, deadline: Instant) -> Result<Vec<Problem>, TrafficError>;
}

/// The flag services of a plan, in its order. `folder` is the plan file's; `routes` is where the newest route is read.
///
/// # Errors
/// What the plan asks for and can't be done, such as a file of certificates that is none.
pub fn services(plan: &Plan, folder: &Path, routes: &Arc<dyn Routes>) -> Result<Vec<Box<dyn Adapter>>, TrafficError> {
    let wanted = plan.traffic.iter().filter_map(|traffic| if let Traffic::Service(service) = traffic { Some(service) } else { None });
    let built = wanted.map(|service| {
        let (names, settle, routes) = (plan.names(), service.settle, Arc::clone(routes));
        let service = build(service, plan, folder)?;
        Ok(Box::new(ServiceAdapter { service, names, settle, routes }) as Box<dyn Adapter>)
    });
    built.collect()
}

fn build(service: &FlagService, plan: &Plan, folder: &Path) -> Result<Box<dyn Service>, TrafficError> {
    Ok(match &service.flag {
        ServiceFlag::Consul { key } => Box::new(Consul::new(service, key, &plan.name, folder)?),
        ServiceFlag::Flagsmith(flag) => Box::new(Flagsmith::new(service, flag, (&plan.name, plan.names()), folder)?),
        ServiceFlag::LaunchDarkly(flag) => Box::new(LaunchDarkly::new(service, flag, folder)?),
        ServiceFlag::Unleash(flag) => Box::new(Unleash::new(service, flag, folder)?),
        ServiceFlag::Split(flag) => Box::new(Split::new(service, flag, folder)?),
    })
}

/// The adapter over any of them.
struct ServiceAdapter {
    service: Box<dyn Service>,
    names: Names,
    settle: Duration,
    routes: Arc<dyn Routes>,
}

impl ServiceAdapter {
    async fn route(&self, deadline: Instant) -> Result<Route, TrafficError> {
        let adapter = self.service.name();
        let unread = |source| TrafficError::Audience { adapter: adapter.to_owned(), source };
        within(deadline, adapter, "read the journal", async { self.routes.route().await.map_err(unread) }).await
    }

    /// Writes it, and looks until the service shows it.
    async fn bring(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        let begun = Instant::now();
        loop {
            self.service.write(wanted, deadline).await?;
            let Some(shown) = self.shows(wanted, deadline).await? else { return Ok(()) };
            if Instant::now() + LOOKS[0] >= deadline {
                let adapter = self.service.name().to_owned();
                return Err(TrafficError::NotShown { adapter, wanted: spell(wanted), shown: shown.to_string(), waited: begun.elapsed() });
            }
        }
    }

    /// What the service shows instead after a second, or at the deadline.
    async fn shows(&self, wanted: &Wanted, deadline: Instant) -> Result<Option<Shown>, TrafficError> {
        let until = deadline.min(Instant::now() + AGAIN);
        let mut pause = LOOKS[0];
        loop {
            let shown = self.service.read(deadline).await?;
            if shown.is(wanted) {
                return Ok(None);
            }
            if Instant::now() + pause >= until {
                return Ok(Some(shown));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOKS[1]);
        }
    }

    /// Lets instances hear of it.
    async fn settle(&self, deadline: Instant) -> Result<(), TrafficError> {
        if Instant::now() + self.settle > deadline {
            let call = format!("settle for {:?}", self.settle);
            let waited = deadline.saturating_duration_since(Instant::now());
            return Err(TrafficError::TimedOut { adapter: self.service.name().to_owned(), call, waited });
        }
        sleep(self.settle).await;
        Ok(())
    }

    fn open(&self, route: Route, authority: Side) -> Wanted {
        Wanted::of(Route { authority, writes: Writes::Open, ..route }, &self.names)
    }

    fn held(&self, route: Route) -> Wanted {
        Wanted::of(Route { writes: Writes::Held, ..route }, &self.names)
    }

    /// What the preflight says of the flag as it is now.
    fn judge(&self, shown: &Shown, wanted: &Wanted, route: Route) -> Problem {
        let names = spell(wanted);
        let beforehand = || format!("bring it there beforehand: {}", self.service.calls(wanted).join("; "));
        match (&shown.to, shown.on) {
            _ if !shown.on && route.writes == Writes::Open => {
                Problem::warning("it is closed: whoever asks it is refused".to_owned(), beforehand())
            }
            (To::Databases(databases), _) if *databases == wanted.databases => Problem::info(shown.to_string()),
            (To::Databases(_), _) if shown.points_at(&self.names) == Some(route.authority.other()) => {
                Problem::warning(format!("it is open to clients of the {}: {shown}", route.authority.other()), beforehand())
            }
            _ => Problem::warning(
                format!("it is {shown}; the first pause makes it {names}, and whoever gives no such name is refused from then on"),
                format!("see that every instance gives the name of its database when it asks, then {}", beforehand()),
            ),
        }
    }

    async fn look(&self) -> Result<Vec<Problem>, TrafficError> {
        let deadline = Instant::now() + LOOK;
        let route = self.route(deadline).await?;
        let wanted = self.open(route, route.authority);
        let mut problems = self.service.check(&wanted, deadline).await?;
        if self.service.http().tells_its_token() {
            problems.push(Problem::warning("its token goes over the network as plain text", "use https"));
        }
        if problems.iter().all(|problem| problem.severity < crate::Severity::Error) {
            problems.push(self.judge(&self.service.read(deadline).await?, &wanted, route));
        }
        Ok(problems)
    }
}

#[async_trait]
impl Adapter for ServiceAdapter {
    fn name(&self) -> String {
        self.service.name().to_owned()
    }

    fn holds(&self) -> bool {
        true
    }

    fn hold_calls(&self) -> Vec<String> {
        let name = self.service.name();
        let mut calls = self.service.calls(&self.held(Route::default()));
        calls.push(format!("{name}: read it until it shows that writes are held"));
        if !self.settle.is_zero() {
            calls.push(format!("{name}: wait another {:?} for instances to hear of it", self.settle));
        }
        calls
    }

    fn release_calls(&self, to: &Endpoint) -> Vec<String> {
        let wanted = self.open(Route::default(), to.side);
        let mut calls = self.service.calls(&wanted);
        calls.push(format!("{}: read it until it is {}", self.service.name(), spell(&wanted)));
        calls
    }

    async fn observe(&self, _endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError> {
        let shown = self.service.read(Instant::now() + LOOK).await?;
        let points_at = shown.points_at(&self.names);
        Ok(Observation { points_at, held: !shown.on, clients: None, detail: shown.to_string() })
    }

    async fn check(&self, _endpoints: &[Endpoint; 2]) -> Vec<Problem> {
        self.look().await.unwrap_or_else(|error| vec![Problem::from_error(&error)])
    }

    async fn hold(&self, deadline: Instant) -> Result<(), TrafficError> {
        let route = self.route(deadline).await?;
        self.bring(&self.held(route), deadline).await?;
        self.settle(deadline).await
    }

    async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        let route = self.route(deadline).await?;
        self.bring(&self.open(route, to.side), deadline).await
    }
}
