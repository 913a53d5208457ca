//! Why a service did not do what it was asked to.

use std::time::Duration;

/// What came of a call.
#[derive(Debug, thiserror::Error)]
pub enum ServiceFault {
    /// Nothing came back, or not all of it.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    /// It was refused.
    #[error("it answered {status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Status {
        /// The status.
        status: u16,
        /// The beginning of what the service says, without our token.
        said: String,
        /// How long the service wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is no JSON.
    #[error("its answer can't be read")]
    Unreadable(#[source] serde_json::Error),
    /// The answer is too long.
    #[error("its answer is longer than {most} bytes")]
    TooLong {
        /// The limit.
        most: usize,
    },
    /// The answer is not what the service's documentation says, or the flag is none that can be used.
    #[error("there is no {0}")]
    Lacks(String),
    /// What is there was written by a newer driver of the same cutover.
    #[error("it holds epoch {epoch} of this cutover already, which is newer")]
    Newer {
        /// The epoch there.
        epoch: u64,
    },
    /// Somebody else changed it at the same time, each time that it was tried.
    #[error("somebody else keeps changing it")]
    Contended,
}

impl ServiceFault {
    /// Whether the same call may have another outcome soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Contended => true,
            // Too long under way, in conflict with another change, too early, too many: the service may be asked again.
            Self::Status { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..),
            Self::Unreadable(_) | Self::TooLong { .. } | Self::Lacks(_) | Self::Newer { .. } => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Status { status: 401, .. } => "see that the plan's `token` is one of the service's admin API, and has not run out",
            Self::Status { status: 403, .. } => {
                "give the plan's `token` the right to read and write this flag; where the service wants changes approved, exempt this flag"
            }
            Self::Status { status: 404, .. } => "make the flag in the service, or correct its name, project and environment in the plan",
            Self::Status { status: 300..=399, .. } => "set `url` to where the service really is",
            Self::Unreadable(_) => "see that `url` is the service's API and no page of a proxy before it",
            Self::Newer { .. } => "another driver has taken over; `cutover status` says who",
            _ => return None,
        })
    }
}
