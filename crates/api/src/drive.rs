//! Driving a cutover over HTTP: the command line's verbs.

use serde::{Deserialize, Serialize};

/// How far to drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Until {
    /// Copied, following, verified.
    Ready,
    /// The target is in charge.
    #[default]
    Switched,
}

/// `POST /v1/run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunRequest {
    /// How far.
    #[serde(default)]
    pub until: Until,
    /// Why, for the journal. At most 1,000 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 1000, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    #[serde(default)]
    pub reason: String,
    /// The plan's name, where the plan keeps no way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// `POST /v1/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RollbackRequest {
    /// Why, for the journal. At most 1,000 characters.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 1000,
            pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\u0000-\\u001f\\u007f-\\u009f\\s][^\\u0000-\\u001f\\u007f-\\u009f]*$"
        )
    )]
    pub reason: String,
    /// The plan's name: give the cutover up, and remove what it made in both databases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// `POST /v1/complete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompleteRequest {
    /// Why, for the journal. At most 1,000 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 1000, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    #[serde(default)]
    pub reason: String,
}

/// What this server drives, or drove last: `GET /v1/drive`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drive {
    /// `run`, `rollback` or `complete`.
    pub verb: String,
    /// Who asked for it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// How long it has taken so far, or took. Unit: milliseconds.
    pub elapsed_ms: u64,
    /// What was told last, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// How it ended; none while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// How driving ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Outcome {
    /// The exit code that the command line would have: 0 done, 1 failed, 3 a gate said no, 4 inconclusive, 5 ran out of the
    /// pause and was undone, 6 somebody else drives it, 7 outcome unknown.
    pub code: u8,
    /// Why it is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
