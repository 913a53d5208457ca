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

/// `POST /v1/retire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetireRequest {
    /// The name of the archive, in the server's folder of archives: letters, digits, `.`, `_` and `-`, and not `.partial` at its end.
    /// There must be no such file.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))]
    pub archive: String,
    /// The plan's name: there is no way back afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// Why, for the journal. At most 1,000 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 1000, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyRequest {
    /// Only these tables, `schema.table` without quotes, and none of the plan's checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Only the plan's own checks, and no tables.
    #[serde(default)]
    pub only_checks: bool,
    /// Show both sides' values of the columns that differ, but for those that the plan redacts.
    #[serde(default)]
    pub values: bool,
    /// Make the rows that differ equal at the side that follows, where there are at most so many: 1 to 10,000. Wants a reason.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<u32>,
    /// Why, for the journal. At most 1,000 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 1000, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    #[serde(default)]
    pub reason: String,
}

/// What this server drives, or drove last: `GET /v1/drive`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drive {
    /// `run`, `rollback`, `complete`, `retire`, or `verify`, which drives nothing.
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

impl AsRef<Self> for Drive {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// How driving ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
