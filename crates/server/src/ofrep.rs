//! The OpenFeature Remote Evaluation Protocol, 0.3: what stock providers in any language ask.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cutover_api::TrialRequest;
use cutover_core::clients::{self, Context, Evaluation, FlagError, Flags, Reason, Renewal, Who};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    events::Ticket,
    front::{Front, View},
    problem::{Refusal, status},
};

/// Marks an answer that says already, in the protocol's form, why it is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said;

/// The longest name of an instance that is taken down.
const MOST_NAME: usize = 200;

/// A flag's value, for one context.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Evaluated {
    key: String,
    value: FlagValue,
    variant: String,
    /// TARGETING_MATCH, SPLIT where it was decided by the key, or UNKNOWN where the server has lost touch with its journal. Never STATIC, which clients cache.
    #[schema(value_type = String)]
    reason: Reason,
    /// Flat: strings, numbers and booleans.
    #[schema(value_type = Object)]
    metadata: Value,
}

/// A boolean or a string.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
enum FlagValue {
    Flag(bool),
    Text(String),
}

/// All flags, for one context.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bulk {
    flags: Vec<Evaluated>,
    #[schema(value_type = Object)]
    metadata: Value,
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

impl EvaluationRequest {
    fn text(&self, name: &str) -> Option<&str> {
        self.context.as_ref()?.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// Who asks: an instance, or whoever it is that the context is about.
    fn who(&self) -> &str {
        self.text("instance").or_else(|| self.text("targetingKey")).unwrap_or("unnamed")
    }
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
        Ok(request) => {
            let (lease, view) = present(&front, &request, arrived);
            let flags = front.flags(&view);
            match evaluate(&front, &flags, &key, &request).await {
                Ok(evaluation) => Json(evaluated(key, evaluation, metadata(&flags, &view, lease))).into_response(),
                Err(FlagError::NotFound) => {
                    let details = format!("no flag is called `{key}` here; the flags are {}", flags.names().join(", "));
                    failure(StatusCode::NOT_FOUND, Some(key), "FLAG_NOT_FOUND", details)
                }
                Err(FlagError::KeyMissing) => {
                    let details = format!("where `{key}` leads depends on whose read it is: give a `targetingKey`");
                    failure(StatusCode::BAD_REQUEST, Some(key), "TARGETING_KEY_MISSING", details)
                }
            }
        }
        Err((code, details)) => failure(StatusCode::BAD_REQUEST, Some(key), code, details),
    };
    front.metrics.seconds.observe(arrived.elapsed().as_secs_f64());
    answer
}

/// What a flag says; one about writes says yes, once, to whoever shows the word of a trial and is granted it.
async fn evaluate(front: &Front, flags: &Flags<'_>, key: &str, request: &EvaluationRequest) -> Result<Evaluation, FlagError> {
    let database = request.text("database");
    let evaluation = flags.evaluate(key, Context { database, key: request.text("targetingKey") })?;
    let (Some(trial), Some(database), Some(allowed)) = (request.text("trial"), database, flags.allowing(key)) else {
        return Ok(evaluation);
    };
    let asked = TrialRequest { trial: trial.to_owned(), instance: named(request.who()), database: database.to_owned() };
    Ok(if evaluation.why.is_some() && front.try_write(&asked).await { allowed } else { evaluation })
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
    let request = match read(&body) {
        Ok(request) => request,
        Err((code, details)) => return failure(StatusCode::BAD_REQUEST, None, code, details),
    };
    let (lease, view) = present(&front, &request, arrived);
    let flags = front.flags(&view);
    let etag = etag(&view, flags.fresh, &body);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let context = Context { database: request.text("database"), key: request.text("targetingKey") };
        let evaluations = flags.names().into_iter().filter_map(|key| Some((flags.evaluate(&key, context).ok()?, key)));
        let metadata = metadata(&flags, &view, lease);
        let all = evaluations.map(|(evaluation, key)| evaluated(key, evaluation, metadata.clone())).collect();
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
fn read(body: &Bytes) -> Result<EvaluationRequest, (&'static str, String)> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(EvaluationRequest::default());
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| ("PARSE_ERROR", format!("the body is no JSON: {error}")))?;
    let invalid = |why: &dyn std::fmt::Display| ("INVALID_CONTEXT", format!("the context has to be an object: {why}"));
    match value {
        Value::Null => Ok(EvaluationRequest::default()),
        // A list would be read as the fields in their order.
        Value::Object(_) => serde_json::from_value(value).map_err(|error| invalid(&error)),
        _ => Err(invalid(&"the body is none")),
    }
}

/// Takes down that an instance is there, and where it writes; and says by which view it is to be answered.
fn present(front: &Front, request: &EvaluationRequest, arrived: Instant) -> (Duration, View) {
    let name = named(request.who());
    let database = request.text("database");
    let key = format!("ofrep {name} {}", database.unwrap_or_default().chars().take(MOST_NAME).collect::<String>());
    let renewal = Renewal {
        key: &key,
        name: &name,
        who: Who::Asks { place: database.and_then(|database| front.now().places.find(database)) },
        until_ms: 0,
    };
    front.lend(&renewal, arrived).unwrap_or_else(|_| (Duration::ZERO, front.now()))
}

/// A name as it can be written down.
fn named(who: &str) -> String {
    who.chars().filter(|c| !c.is_control()).take(MOST_NAME).collect()
}

fn evaluated(key: String, evaluation: Evaluation, mut metadata: Value) -> Evaluated {
    if let (Some(why), Some(fields)) = (evaluation.why, metadata.as_object_mut()) {
        fields.insert("why".to_owned(), why.into());
    }
    let value = match evaluation.value {
        clients::Value::Flag(flag) => FlagValue::Flag(flag),
        clients::Value::Text(text) => FlagValue::Text(text),
    };
    Evaluated { key, value, variant: evaluation.variant, reason: evaluation.reason, metadata }
}

fn metadata(flags: &Flags<'_>, view: &View, lease: Duration) -> Value {
    let until = SignedDuration::try_from(lease).ok().and_then(|lease| Timestamp::now().checked_add(lease).ok());
    json!({
        "flagSetId": flags.cutover,
        "contextId": flags.cutover,
        "version": view.revision.to_string(),
        "epoch": flags.route.epoch,
        "stage": flags.stage(),
        "leaseExpiresAt": until.map(|until| until.to_string()).unwrap_or_default(),
    })
}

/// Over everything that an answer depends on.
fn etag(view: &View, fresh: bool, body: &Bytes) -> String {
    let mut hash = Sha256::new();
    hash.update(view.revision.to_be_bytes());
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
