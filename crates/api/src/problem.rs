//! How a request is refused.

use serde::{Deserialize, Serialize};

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What kind of refusal it is; stable, for programs.
    pub code: Code,
    /// What happened, in a sentence. Holds no secret, and nothing that a database said.
    pub message: String,
    /// What to do about it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Names the request in the server's log.
    pub request_id: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// 400: the request can't be understood.
    BadRequest,
    /// 401: no token, or none that is known.
    Unauthorized,
    /// 403: the token's role may not do this.
    Forbidden,
    /// 404: there is no such thing here.
    NotFound,
    /// 405: not with this method.
    MethodNotAllowed,
    /// 408: the request came too slowly.
    Timeout,
    /// 409: it does not fit what holds now, such as an epoch that never was.
    Conflict,
    /// 409: what can't be undone is not confirmed with the plan's name.
    Unconfirmed,
    /// 409: the server does something already that excludes this.
    Busy,
    /// 413: the body is larger than what is read.
    TooLarge,
    /// 415: the body is no JSON.
    UnsupportedMediaType,
    /// 503: the server does not know how things stand, or has too much to do. Try again.
    Unavailable,
    /// 500: a defect of ours. The log tells more.
    Internal,
    /// One that is newer than this program.
    #[serde(other)]
    Unknown,
}
