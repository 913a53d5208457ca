//! Flag services: one suite that each of them runs against a double of it, and what each does beyond that.

mod consul;
mod flagsmith;
mod launchdarkly;
mod split;
mod trouble;
mod unleash;

use std::{path::Path, sync::Arc, sync::Mutex};

use async_trait::async_trait;
use cutover_core::{Plan, Route, Side, Writes};
use cutover_traffic::{Adapter, AudienceError, Endpoint, Observation, Problem, Routes, Severity, TrafficError, services};
use tokio::time::Instant;

use crate::{
    doubles::{Api, Double},
    suite::{conforms, endpoints, look, soon},
};

pub(crate) const SOURCE: &str = "blue.example:5432/orders";
pub(crate) const TARGET: &str = "green.example:6000/orders2";

/// What instances may call their database: by the plan's URLs, by its lists, and what nobody knows.
const NAMES: [(&str, Option<Side>, bool); 6] = [
    (SOURCE, Some(Side::Source), true),
    (TARGET, Some(Side::Target), true),
    ("blue", Some(Side::Source), true),
    ("pool:6432", None, true),
    ("elsewhere", None, false),
    ("", None, false),
];

/// A double, and the adapter that knows it.
pub(crate) struct Rig<S> {
    pub(crate) double: Double<S>,
    pub(crate) adapter: Box<dyn Adapter>,
    pub(crate) journal: Arc<Journal>,
}

/// A journal of one route.
pub(crate) struct Journal(Mutex<Result<Route, String>>);

impl Journal {
    /// The next epoch, with this side in charge.
    pub(crate) fn moves_to(&self, authority: Side) {
        let mut route = self.0.lock().unwrap();
        let epoch = route.as_ref().unwrap().epoch + 1;
        *route = Ok(Route { epoch, authority, writes: Writes::Open });
    }

    pub(crate) fn is_out_of_reach(&self) {
        *self.0.lock().unwrap() = Err("connection refused".to_owned());
    }
}

#[async_trait]
impl Routes for Journal {
    async fn route(&self) -> Result<Route, AudienceError> {
        self.0.lock().unwrap().clone().map_err(Into::into)
    }
}

impl<S: Api> Rig<S> {
    /// `keys` are the plan's, besides `url`, `source` and `through`.
    pub(crate) async fn new(state: S, keys: &str) -> Self {
        let double = Double::start(state).await;
        let journal = Arc::new(Journal(Mutex::new(Ok(Route { epoch: 7, authority: Side::Source, writes: Writes::Open }))));
        let adapter = adapter(&double.url, keys, &journal);
        Self { double, adapter, journal }
    }

    /// Whom the flag lets write now: by the service's own evaluation.
    pub(crate) fn lets_write(&self) -> Vec<&'static str> {
        let state = self.double.state();
        NAMES.into_iter().map(|(name, ..)| name).filter(|name| state.says(name)).collect()
    }

    /// No state that the flag was ever in let instances of both sides write, or ones that nobody knows.
    pub(crate) fn was_never_open_to_both(&self) {
        for state in self.double.take_history() {
            let both = state.says(SOURCE) && state.says(TARGET);
            assert!(!both && !state.says("elsewhere") && !state.says(""), "it was open to both sides or to strangers");
        }
    }
}

pub(crate) fn adapter(url: &str, keys: &str, journal: &Arc<Journal>) -> Box<dyn Adapter> {
    let text = format!(
        "name = \"bank\"\nkind = \"switch\"\n[source]\nurl = \"postgres://app:hunter2@blue.example:5432/orders\"\n[target]\n\
         url = \"postgres://app:hunter2@green.example:6000/orders2\"\n[[traffic]]\nurl = \"{url}\"\nsource = [\"blue\"]\n\
         through = [\"pool:6432\"]\n{keys}\n"
    );
    let plan = Plan::parse(&text, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let routes: Arc<dyn Routes> = journal.clone();
    services(&plan, Path::new("/"), &routes).unwrap().remove(0)
}

/// The adapter with a journal that knows who is in charge once it is released.
struct Driven<'a, S>(&'a Rig<S>);

#[async_trait]
impl<S: Api> Adapter for Driven<'_, S> {
    fn name(&self) -> String {
        self.0.adapter.name()
    }

    fn holds(&self) -> bool {
        self.0.adapter.holds()
    }

    fn hold_calls(&self) -> Vec<String> {
        self.0.adapter.hold_calls()
    }

    fn release_calls(&self, to: &Endpoint) -> Vec<String> {
        self.0.adapter.release_calls(to)
    }

    async fn observe(&self, endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError> {
        self.0.adapter.observe(endpoints).await
    }

    async fn check(&self, endpoints: &[Endpoint; 2]) -> Vec<Problem> {
        self.0.adapter.check(endpoints).await
    }

    async fn hold(&self, deadline: Instant) -> Result<(), TrafficError> {
        self.0.adapter.hold(deadline).await
    }

    async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        self.0.journal.moves_to(to.side);
        self.0.adapter.release(to, deadline).await
    }
}

/// What every service does. `rig` is one whose flag is open to the source's clients.
pub(crate) async fn serves<S: Api>(rig: Rig<S>) {
    conforms(&Driven(&rig), &endpoints()).await;
    rig.was_never_open_to_both();
    is_open_to_one_side_only(&rig).await;
    says_what_it_will_call(&rig).await;
    narrows_what_was_open_to_everybody(&rig).await;
}

/// A6, and the fatal step of the runbooks: nobody at the other side is armed by an opening.
async fn is_open_to_one_side_only<S: Api>(rig: &Rig<S>) {
    let [source, target] = endpoints();
    for (to, endpoint) in [(Side::Target, &target), (Side::Source, &source), (Side::Source, &source)] {
        rig.journal.moves_to(to.other());
        rig.adapter.hold(soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [""; 0], "writes are held");
        rig.journal.moves_to(to);
        rig.adapter.release(endpoint, soon()).await.unwrap();
        let expected = NAMES.into_iter().filter(|(_, at, known)| *known && at.is_none_or(|at| at == to)).map(|(name, ..)| name);
        assert_eq!(rig.lets_write(), expected.collect::<Vec<_>>(), "the {to} is open");
    }
    rig.was_never_open_to_both();
}

/// What `cutover plan` shows is what is sent: method, path and body.
async fn says_what_it_will_call<S: Api>(rig: &Rig<S>) {
    let [source, _] = endpoints();
    for hold in [true, false] {
        rig.double.take_requests();
        let shown = if hold {
            rig.adapter.hold(soon()).await.unwrap();
            rig.adapter.hold_calls()
        } else {
            rig.adapter.release(&source, soon()).await.unwrap();
            rig.adapter.release_calls(&source)
        };
        for request in rig.double.take_requests() {
            let path = request.path.iter().map(|segment| if segment.parse::<u64>().is_ok() { "ID" } else { segment });
            let call = format!("{} {}/{}", request.method, rig.double.url, path.collect::<Vec<_>>().join("/"));
            assert!(shown.iter().any(|shown| shown.replace("%20", " ").starts_with(&call)), "{call} is not shown: {shown:#?}");
        }
    }
}

/// A flag that somebody opened to everybody is found before the switch, and is not left so by one.
async fn narrows_what_was_open_to_everybody<S: Api>(rig: &Rig<S>) {
    rig.double.change(S::opened_by_hand);
    assert!(rig.lets_write().contains(&"elsewhere"));
    assert_eq!(look(rig.adapter.as_ref(), &endpoints()).await.points_at, None);
    let problems = rig.adapter.check(&endpoints()).await;
    let warned = problems.iter().find(|problem| problem.severity == Severity::Warning).expect("a warning");
    assert!(warned.message.contains(SOURCE) && warned.fix.contains("beforehand"), "{warned:?}");
    rig.adapter.hold(soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [""; 0]);
    rig.adapter.release(&endpoints()[0], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [SOURCE, "blue", "pool:6432"]);
}

pub(crate) fn ago(begun: Instant) -> u128 {
    begun.elapsed().as_millis()
}
