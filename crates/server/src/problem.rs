//! Refusals: a stable code, a sentence, a hint, and the request's name in the log. What a database said stays inside.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cutover_api::{Code, Problem};
use cutover_engine::EngineError;

/// A refusal on its way out; the request's name is added when it leaves.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    message: String,
    hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What goes wrong inside is for the log.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(Code::Internal, "something went wrong inside the server").hint("the server's log says what, under this request_id")
    }

    /// What the engine could not answer: because of where the cutover stands, or because the journal or a database can't be
    /// asked now.
    pub(crate) fn of(error: EngineError) -> Self {
        if matches!(error, EngineError::Mismatch { .. } | EngineError::Refused(_)) {
            let hint = error.hint();
            return Self { hint, ..Self::new(Code::Conflict, error.to_string()) };
        }
        tracing::warn!(%error, "a request can't be answered now");
        Self::new(Code::Unavailable, "the journal or a database can't be reached").hint("try again; the server's log says more")
    }

    /// What a client without our codes is told.
    pub(crate) fn text(&self) -> String {
        self.hint.as_ref().map_or_else(|| self.message.clone(), |hint| format!("{}; {hint}", self.message))
    }

    /// Its body, under a request's name.
    pub(crate) fn named(self, request_id: String) -> (StatusCode, Json<Problem>) {
        let problem = Problem { code: self.code, message: self.message, hint: self.hint, request_id };
        (status(self.code), Json(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = status(self.code);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub(crate) fn status(code: Code) -> StatusCode {
    match code {
        Code::BadRequest => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Timeout => StatusCode::REQUEST_TIMEOUT,
        Code::Conflict | Code::Unconfirmed | Code::Busy => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The code of an answer that some layer gave without one.
pub(crate) fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => Code::Timeout,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::BadRequest,
        _ => Code::Internal,
    }
}

/// How a route with a role refuses.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only what it documents is used")]
pub(crate) enum NotAllowed {
    /// No token that is known.
    #[response(status = 401)]
    Unknown(Problem),
    /// The token's role may not.
    #[response(status = 403)]
    Role(Problem),
}

/// How a route with a body refuses one.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only what it documents is used")]
pub(crate) enum NotUnderstood {
    /// Not understood.
    #[response(status = 400)]
    Content(Problem),
    /// Larger than what is read.
    #[response(status = 413)]
    Size(Problem),
    /// No JSON.
    #[response(status = 415)]
    Kind(Problem),
}
