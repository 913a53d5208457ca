//! A flag service that a team already has, and the flag there that is kept in step with the route.

use std::{path::PathBuf, time::Duration};

use super::Secret;

/// A service, how it is reached, and the flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagService {
    /// Where the flag is.
    pub flag: ServiceFlag,
    /// The service's address: `http` or `https`, without user, query and fragment.
    pub url: String,
    /// What we show to be let in; only Consul may do without.
    pub token: Option<Secret>,
    /// Whom to trust in place of the system's own authorities: a file in PEM, relative to the plan's folder.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
    /// How long a hold waits, once the service shows that writes are held, for instances to hear of it.
    pub settle: Duration,
    /// More names under which instances know the source.
    pub source: Vec<String>,
    /// More names under which they know the target.
    pub target: Vec<String>,
    /// Names of what always leads to the side in charge.
    pub through: Vec<String>,
}

/// A flag, as its service finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceFlag {
    /// A key of Consul's KV store, whose value is a JSON document.
    Consul {
        /// The key, with slashes and without one at its beginning.
        key: String,
    },
}

impl ServiceFlag {
    /// The kind of traffic, as a plan names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Consul { .. } => "consul",
        }
    }
}
