//! Whether the server is alive, whether it knows how things stand, and what it has counted.

use std::sync::atomic::AtomicU64;

use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};
use cutover_api::Code;
use cutover_core::Writes;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    front::Front,
    problem::{NotAllowed, Refusal},
};

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    pub(crate) seconds: Histogram,
    pub(crate) clients: Gauge,
    pub(crate) behind: Gauge,
    pub(crate) astray: Gauge,
    epoch: Gauge<i64>,
    revision: Gauge<i64>,
    held: Gauge<i64>,
    journal_age: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    route: String,
    status: u16,
}

impl Metrics {
    pub(crate) fn new(collectors: [Box<dyn Collector>; 2]) -> Self {
        let mut registry = Registry::with_prefix("cutover");
        let metrics = Self {
            requests: Family::default(),
            // From a tenth of a millisecond to some seconds.
            seconds: Histogram::new([1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0, 5.0]),
            clients: Gauge::default(),
            behind: Gauge::default(),
            astray: Gauge::default(),
            epoch: Gauge::default(),
            revision: Gauge::default(),
            held: Gauge::default(),
            journal_age: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Answers, by route and status", metrics.requests.clone());
        registry.register_with_unit("evaluation", "Time to answer for flags", Unit::Seconds, metrics.seconds.clone());
        registry.register("clients", "Clients with a lease", metrics.clients.clone());
        registry.register("clients_behind", "Clients that act on an older epoch", metrics.behind.clone());
        registry.register("clients_astray", "Clients whose database is not in charge", metrics.astray.clone());
        registry.register("epoch", "The epoch of the route", metrics.epoch.clone());
        registry.register("revision", "The number of the newest journal entry", metrics.revision.clone());
        registry.register("writes_held", "1 while nobody may write", metrics.held.clone());
        registry.register_with_unit(
            "journal_age",
            "Since it was last known that there is no newer entry",
            Unit::Seconds,
            metrics.journal_age.clone(),
        );
        collectors.into_iter().for_each(|collector| registry.register_collector(collector));
        Self { registry, ..metrics }
    }

    pub(crate) fn count(&self, route: &str, status: u16) {
        self.requests.get_or_create(&Labels { route: route.to_owned(), status }).inc();
    }
}

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, description = "The process answers", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the server is in touch with its journal, or the agent with its server, so that writes can be allowed.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "In touch", body = String),
    (status = 503, description = "Not so: writes are refused", body = cutover_api::Problem)
))]
pub(crate) async fn readyz(State(front): State<Front>) -> Result<&'static str, Refusal> {
    if front.fresh_for().is_zero() {
        return Err(Refusal::new(Code::Unavailable, "out of touch with the journal, or with the server that tells of it")
            .hint("writes are refused meanwhile; the log says why"));
    }
    Ok("ready\n")
}

/// Counters and gauges in the format of OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "What was counted", body = String, content_type = "application/openmetrics-text"),
    NotAllowed
))]
pub(crate) async fn metrics(State(front): State<Front>) -> Result<impl IntoResponse, Refusal> {
    let (metrics, view) = (&front.metrics, front.now());
    let route = view.route;
    metrics.epoch.set(route.epoch.cast_signed());
    metrics.revision.set(view.revision.cast_signed());
    metrics.held.set(i64::from(route.writes == Writes::Held));
    metrics.journal_age.set(view.as_of.elapsed().as_secs_f64());
    front.report();
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|error| Refusal::internal(&error))?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
