//! Leave for one write on trial: `POST /v1/trial`.

use serde::{Deserialize, Serialize};

/// An instance that was shown the word of a trial asks for leave to write once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrialRequest {
    /// The word, as the plan's `trial` hook was given it. At most 200 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub trial: String,
    /// Who asks, for a person: a pod's name. At most 200 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub instance: String,
    /// The database that it is connected to. At most 500 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 500, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub database: String,
}

/// Whether it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrialAnswer {
    /// Whether this instance may write once, now. It is in the journal by then.
    pub granted: bool,
    /// The epoch that it may write under.
    pub epoch: u64,
}
