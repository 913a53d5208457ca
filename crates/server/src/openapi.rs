//! The routes, what each wants of a caller, and the document that lists them.

use axum::{Json, Router, middleware::from_fn_with_state, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{auth::require, drive, events, health, ofrep, permits, read, serve::App, tokens::Role};

#[derive(OpenApi)]
#[openapi(
    info(title = "cutover", description = "The control plane of one cutover: what every pod obeys."),
    security(("bearer" = []), ("key" = [])),
    modifiers(&Schemes),
    tags(
        (name = "clients", description = "Leases for clients that check before every write"),
        (name = "ofrep", description = "The OpenFeature Remote Evaluation Protocol, 0.3"),
        (name = "drive", description = "The verbs that change something"),
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

/// All routes, each behind what it wants of a caller.
pub(crate) fn routes(app: &App) -> Router<App> {
    let (open, clients, viewers, operators) = parts();
    let behind = |router: OpenApiRouter<App>, role| router.layer(from_fn_with_state((app.clone(), role), require));
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(open)
        .merge(behind(clients, Role::Client))
        .merge(behind(viewers, Role::Viewer))
        .merge(behind(operators, Role::Operator))
        .split_for_parts();
    // Stock clients may end an address with a slash, and mean the same.
    let slashed = Router::new().route("/ofrep/v1/evaluate/flags/", axum::routing::post(ofrep::all));
    let slashed = slashed.layer(from_fn_with_state((app.clone(), Role::Client), require));
    router.merge(slashed).route("/openapi.json", get(async move || Json(document.clone())))
}

/// What is open to everybody, what clients may do, what those may who look on, and what those may who drive.
fn parts() -> (OpenApiRouter<App>, OpenApiRouter<App>, OpenApiRouter<App>, OpenApiRouter<App>) {
    let open = OpenApiRouter::new().routes(routes!(health::healthz)).routes(routes!(health::readyz)).routes(routes!(ofrep::events));
    let clients = OpenApiRouter::new()
        .routes(routes!(permits::permit))
        .routes(routes!(permits::leave))
        .routes(routes!(ofrep::one))
        .routes(routes!(ofrep::all));
    let viewers = OpenApiRouter::new()
        .routes(routes!(health::metrics))
        .routes(routes!(read::status))
        .routes(routes!(read::steps))
        .routes(routes!(read::check))
        .routes(routes!(read::journal))
        .routes(routes!(read::audit))
        .routes(routes!(drive::driven))
        .routes(routes!(events::journal));
    let operators = OpenApiRouter::new()
        .routes(routes!(drive::run))
        .routes(routes!(drive::rollback))
        .routes(routes!(drive::complete))
        .routes(routes!(drive::stop));
    (open, clients, viewers, operators)
}

/// The document that `GET /openapi.json` serves.
#[must_use]
pub fn document() -> serde_json::Value {
    let (open, clients, viewers, operators) = parts();
    let router = OpenApiRouter::with_openapi(Document::openapi()).merge(open).merge(clients).merge(viewers).merge(operators);
    let document = router.into_openapi();
    serde_json::to_value(document).unwrap_or_default()
}
