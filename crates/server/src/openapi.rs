//! The routes, what each wants of a caller, and the document that lists them.

use axum::{Json, Router, extract::FromRef, middleware::from_fn_with_state, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::require,
    drive, events, flagd,
    front::Front,
    health, ofrep, operations, permits, read,
    serve::App,
    shadow::{board, server as alone},
    tokens::Role,
    trial, verify,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "cutover", description = "The control plane of one cutover: what every pod obeys."),
    security(("bearer" = []), ("key" = [])),
    modifiers(&Schemes),
    tags(
        (name = "clients", description = "Leases for clients that check before every write"),
        (name = "ofrep", description = "The OpenFeature Remote Evaluation Protocol, 0.3"),
        (name = "drive", description = "The verbs that change something"),
        (name = "verify", description = "Both sides compared"),
        (name = "look", description = "Where everything stands"),
        (name = "health", description = "Of the server itself")
    )
)]
struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()));
        components.add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    }
}

/// A server's routes, each behind what it wants of a caller.
pub(crate) fn of_server(app: &App) -> Router {
    routes(&app.front, server_parts()).with_state(app.clone())
}

/// An agent's: what clients ask, and its own health.
pub(crate) fn of_agent(front: &Front) -> Router {
    routes(front, agent_parts()).with_state(front.clone())
}

/// Those of a server of shadow tables alone: what clients ask, and where the tables stand.
pub(crate) fn of_tables(front: &Front) -> Router {
    let parts = agent_parts();
    let viewers = parts.viewers.routes(routes!(board::look)).routes(routes!(alone::status)).routes(routes!(alone::status_text));
    routes(front, Parts { viewers, ..parts }).with_state(front.clone())
}

/// What is open to everybody, what clients may do, what those may who look on, and what those may who drive.
struct Parts<S> {
    open: OpenApiRouter<S>,
    clients: OpenApiRouter<S>,
    viewers: OpenApiRouter<S>,
    operators: OpenApiRouter<S>,
}

fn routes<S: Clone + Send + Sync + 'static>(front: &Front, parts: Parts<S>) -> Router<S>
where
    Front: FromRef<S>,
{
    let behind = |router: OpenApiRouter<S>, role| router.layer(from_fn_with_state((front.clone(), role), require));
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(parts.open)
        .merge(behind(parts.clients, Role::Client))
        .merge(behind(parts.viewers, Role::Viewer))
        .merge(behind(parts.operators, Role::Operator))
        .split_for_parts();
    // Stock clients may end an address with a slash, and mean the same. gRPC is described by messages of its own.
    let besides = flagd::routes().route("/ofrep/v1/evaluate/flags/", axum::routing::post(ofrep::all));
    let besides = besides.layer(from_fn_with_state((front.clone(), Role::Client), require));
    router.merge(besides).route("/openapi.json", get(async move || Json(document.clone())))
}

fn agent_parts<S: Clone + Send + Sync + 'static>() -> Parts<S>
where
    Front: FromRef<S>,
{
    Parts {
        open: OpenApiRouter::new().routes(routes!(health::healthz)).routes(routes!(health::readyz)).routes(routes!(ofrep::events)),
        clients: OpenApiRouter::new()
            .routes(routes!(permits::permit))
            .routes(routes!(permits::leave))
            .routes(routes!(permits::agent))
            .routes(routes!(permits::agent_leaves))
            .routes(routes!(trial::ask))
            .routes(routes!(operations::tell))
            .routes(routes!(ofrep::one))
            .routes(routes!(ofrep::all)),
        viewers: OpenApiRouter::new().routes(routes!(health::metrics)),
        operators: OpenApiRouter::new(),
    }
}

fn server_parts() -> Parts<App> {
    let parts = agent_parts::<App>();
    Parts {
        viewers: parts
            .viewers
            .routes(routes!(read::status))
            .routes(routes!(read::status_text))
            .routes(routes!(board::look))
            .routes(routes!(read::steps))
            .routes(routes!(read::check))
            .routes(routes!(read::report))
            .routes(routes!(read::journal))
            .routes(routes!(read::audit))
            .routes(routes!(operations::lately))
            .routes(routes!(drive::driven))
            .routes(routes!(events::journal)),
        operators: parts
            .operators
            .routes(routes!(drive::run))
            .routes(routes!(drive::rollback))
            .routes(routes!(drive::complete))
            .routes(routes!(drive::retire))
            .routes(routes!(drive::stop))
            .routes(routes!(verify::begin, verify::look, verify::stop)),
        ..parts
    }
}

/// The document that `GET /openapi.json` serves.
#[must_use]
pub fn document() -> serde_json::Value {
    let Parts { open, clients, viewers, operators } = server_parts();
    let router = OpenApiRouter::with_openapi(Document::openapi()).merge(open).merge(clients).merge(viewers).merge(operators);
    serde_json::to_value(router.into_openapi()).unwrap_or_default()
}
