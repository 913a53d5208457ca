//! What requests tell whoever collects traces: a span for each, within the caller's trace where it names one.

use axum::{extract::Request, http::Method, response::Response};
use cutover_engine::traces::TARGET;
use opentelemetry::{global, trace::TraceContextExt as _};
use opentelemetry_http::HeaderExtractor;
use serde_json::Value;
use tracing::{Level, Span, field::Empty, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::evaluate::Evaluated;

/// What is asked again and again whatever happens: of interest only within somebody's trace.
const POLLED: [&str; 5] = ["/v1/permits", "/v1/agents", "/healthz", "/readyz", "/metrics"];

/// A request's span, by the route that it matched, with names as of OpenTelemetry's conventions for HTTP.
pub(crate) fn request(request: &Request, route: Option<&str>) -> Span {
    let caller = global::get_text_map_propagator(|propagator| propagator.extract(&HeaderExtractor(request.headers())));
    let called = caller.span().span_context().is_valid();
    let route = route.unwrap_or_default();
    if !called && POLLED.contains(&route) {
        return Span::none();
    }
    let method = method(request.method());
    let span = trace_span!(
        target: TARGET,
        "request",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = Empty,
    );
    if called {
        // It can't fail: this span was entered by nobody yet.
        span.set_parent(caller).ok();
    }
    span
}

/// How it was answered.
pub(crate) fn answered(span: &Span, response: &Response) {
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// That a flag was evaluated, as an event of the request, with names as of OpenTelemetry's conventions for feature flags.
pub(crate) fn evaluated(asker: Option<&str>, flag: &Evaluated) {
    // Asked before each write: what nobody collects is not looked up.
    if !tracing::enabled!(target: TARGET, Level::TRACE) {
        return;
    }
    // The macro has a `Value` of its own.
    let told = |name| flag.metadata.get(name).and_then(Value::as_str);
    let (set, version) = (told("flagSetId"), told("version"));
    tracing::event!(
        name: "feature_flag.evaluation",
        target: TARGET,
        Level::TRACE,
        feature_flag.key = flag.key,
        feature_flag.provider.name = "cutover",
        feature_flag.result.variant = flag.variant,
        feature_flag.result.reason = flag.reason.as_str().to_ascii_lowercase(),
        feature_flag.context.id = asker,
        feature_flag.set.id = set,
        feature_flag.version = version,
    );
}

/// Methods that nobody knows could be without number.
fn method(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD | Method::OPTIONS | Method::PATCH => method.as_str(),
        _ => "_OTHER",
    }
}
