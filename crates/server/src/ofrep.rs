//! The OpenFeature Remote Evaluation Protocol, 0.3: what stock providers in any language ask.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cutover_core::clients::FlagError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    evaluate::{self, Asker, Evaluated, Unanswered},
    events::Ticket,
    front::{Front, View},
    problem::{Refusal, status},
};

/// Marks an answer that says already, in the protocol's form, why it is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said;

/// All flags, for one context.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bulk {
    flags: Vec<Evaluated>,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// Where changes are told.
    event_streams: Vec<EventStream>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct EventStream {
    /// `sse`.
    r#type: &'static str,
    url: String,
}

/// Why there is no value.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EvaluationFailure {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// `PARSE_ERROR`, `INVALID_CONTEXT`, `TARGETING_KEY_MISSING`, `FLAG_NOT_FOUND` or `GENERAL`.
    error_code: &'static str,
    error_details: String,
}

/// What a client says of itself. Everything may be missing.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct EvaluationRequest {
    #[serde(default)]
    #[schema(value_type = Object)]
    context: Option<Map<String, Value>>,
}

/// Evaluates one flag.
#[utoipa::path(post, path = "/ofrep/v1/evaluate/flags/{key}", tag = "ofrep", params(("key" = String, Path)), request_body = Option<EvaluationRequest>, responses(
    (status = 200, description = "The flag's value", body = Evaluated),
    (status = 400, description = "The context can't be understood", body = EvaluationFailure),
    (status = 401, description = "No token that is known", body = EvaluationFailure),
    (status = 403, description = "The token's role may not", body = EvaluationFailure),
    (status = 404, description = "No flag has that name", body = EvaluationFailure),
    (status = 413, description = "Too large", body = EvaluationFailure)
))]
pub(crate) async fn one(State(front): State<Front>, Path(key): Path<String>, body: Bytes) -> Response {
    let arrived = Instant::now();
    let answer = match read(&body) {
        Ok(asker) => match evaluate::one(&front, &key, &asker, arrived).await {
            Ok(evaluated) => Json(evaluated).into_response(),
            Err(Unanswered { error: FlagError::NotFound, details }) => failure(StatusCode::NOT_FOUND, Some(key), "FLAG_NOT_FOUND", details),
            Err(Unanswered { error: FlagError::KeyMissing, details }) => {
                failure(StatusCode::BAD_REQUEST, Some(key), "TARGETING_KEY_MISSING", details)
            }
        },
        Err((code, details)) => failure(StatusCode::BAD_REQUEST, Some(key), code, details),
    };
    front.metrics.seconds.observe(arrived.elapsed().as_secs_f64());
    answer
}

/// Evaluates all flags.
#[utoipa::path(post, path = "/ofrep/v1/evaluate/flags", tag = "ofrep", request_body = Option<EvaluationRequest>, responses(
    (status = 200, description = "All flags' values", body = Bulk, headers(("etag" = String, description = "Changes with any value"))),
    (status = 304, description = "Nothing has changed since the ETag in If-None-Match"),
    (status = 400, description = "The context can't be understood", body = EvaluationFailure),
    (status = 401, description = "No token that is known", body = EvaluationFailure),
    (status = 403, description = "The token's role may not", body = EvaluationFailure),
    (status = 413, description = "Too large", body = EvaluationFailure)
))]
pub(crate) async fn all(State(front): State<Front>, headers: HeaderMap, body: Bytes) -> Response {
    let arrived = Instant::now();
    let asker = match read(&body) {
        Ok(asker) => asker,
        Err((code, details)) => return failure(StatusCode::BAD_REQUEST, None, code, details),
    };
    let (lease, view) = evaluate::present(&front, &asker, arrived);
    let flags = front.flags(&view);
    let etag = etag(&view, flags.fresh, &body);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let metadata = evaluate::metadata(&flags, &view, lease);
        let all = evaluate::all(&flags, &asker, &metadata);
        let stream = EventStream { r#type: "sse", url: format!("{}/ofrep/v1/events?ticket={}", base(&headers), front.tickets.make()) };
        Json(Bulk { flags: all, metadata, event_streams: vec![stream] }).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    front.metrics.seconds.observe(arrived.elapsed().as_secs_f64());
    response
}

/// An empty body is an empty context.
fn read(body: &Bytes) -> Result<Asker, (&'static str, String)> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Asker::default());
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| ("PARSE_ERROR", format!("the body is no JSON: {error}")))?;
    let invalid = |why: &dyn std::fmt::Display| ("INVALID_CONTEXT", format!("the context has to be an object: {why}"));
    match value {
        Value::Null => Ok(Asker::default()),
        // A list would be read as the fields in their order.
        Value::Object(_) => {
            let request: EvaluationRequest = serde_json::from_value(value).map_err(|error| invalid(&error))?;
            Ok(Asker(request.context.unwrap_or_default()))
        }
        _ => Err(invalid(&"the body is none")),
    }
}

/// Over everything that an answer depends on.
fn etag(view: &View, fresh: bool, body: &Bytes) -> String {
    let mut hash = Sha256::new();
    hash.update(view.revision.to_be_bytes());
    hash.update(view.tables.version.to_be_bytes());
    hash.update([u8::from(fresh)]);
    hash.update(body);
    format!("\"{}\"", hex::encode(&hash.finalize()[..12]))
}

/// How the client reached us.
fn base(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{}", text("host").unwrap_or("localhost"))
}

fn failure(status: StatusCode, key: Option<String>, error_code: &'static str, error_details: String) -> Response {
    let mut response = (status, Json(EvaluationFailure { key, error_code, error_details })).into_response();
    response.extensions_mut().insert(Said);
    response
}

/// A refusal in the protocol's form. It never carries a value: some clients believe one whatever the status is.
pub(crate) fn refuse(path: &str, refusal: Refusal) -> Response {
    let key = path.strip_prefix("/ofrep/v1/evaluate/flags/").filter(|key| !key.is_empty());
    failure(status(refusal.code), key.map(str::to_owned), "GENERAL", refusal.text())
}

/// Tells whoever keeps flags that there are others.
#[utoipa::path(get, path = "/ofrep/v1/events", tag = "ofrep", security(()), params(("ticket" = Option<String>, Query, description = "From the answer that named this address")), responses(
    (status = 200, description = "Server-sent events: `refetchEvaluation` with each change", body = String, content_type = "text/event-stream"),
    (status = 401, description = "The ticket is not known, or has expired", body = EvaluationFailure)
))]
pub(crate) async fn events(State(front): State<Front>, _: Ticket) -> impl IntoResponse {
    crate::events::changes(&front)
}
