//! Why a write may not begin.

use std::{fmt, time::Duration};

use tracing::Level;

/// A write may not begin now. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// When it is worth another try. What a client is told in `Retry-After`.
    pub retry_after: Duration,
}

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nobody may write now: the database changes hands. Passes soon.
    Held,
    /// Others may write, and this process may not: it is connected to a database that is not in charge, or does not say
    /// to which. Passes when the process is started with the other database, or the cutover is rolled back.
    WrongDatabase {
        /// The server's words.
        why: String,
    },
    /// The lease ran out, and the server has not been heard of since, or does not know itself how things stand.
    CutOff {
        /// What went wrong last, where that is known.
        why: Option<String>,
    },
    /// The server has not answered yet.
    NotConnected {
        /// What went wrong last, where that is known.
        why: Option<String>,
    },
    /// The client was closed.
    Closed,
}

impl Refused {
    /// Tells whoever traces what this process does, with names as of OpenTelemetry's conventions for feature flags.
    pub(crate) fn tell(&self) {
        tracing::event!(
            name: "feature_flag.evaluation",
            Level::DEBUG,
            feature_flag.key = "database-writes-enabled",
            feature_flag.provider.name = "cutover",
            feature_flag.result.variant = "off",
            error.message = %self.reason,
        );
    }
}

impl Reason {
    /// Whether waiting may help.
    #[must_use]
    pub fn passes(&self) -> bool {
        !matches!(self, Self::WrongDatabase { .. } | Self::Closed)
    }

    fn retry_after(&self) -> Duration {
        Duration::from_secs(if self.passes() { 1 } else { 5 })
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { retry_after: reason.retry_after(), reason }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("writes are held while the database changes hands"),
            Self::WrongDatabase { why } => write!(f, "this process may not write: {why}"),
            Self::CutOff { why: None } => f.write_str("the lease ran out"),
            Self::CutOff { why: Some(why) } => write!(f, "the lease ran out: {why}"),
            Self::NotConnected { why: None } => f.write_str("the cutover server has not answered yet"),
            Self::NotConnected { why: Some(why) } => write!(f, "the cutover server has not answered yet: {why}"),
            Self::Closed => f.write_str("the client was closed"),
        }
    }
}
