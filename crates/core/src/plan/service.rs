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
    /// A boolean flag of LaunchDarkly.
    LaunchDarkly(LaunchDarklyFlag),
    /// A flag of Unleash.
    Unleash(UnleashFlag),
    /// A feature of Flagsmith.
    Flagsmith(FlagsmithFlag),
    /// A feature flag of Split, with the treatments `on` and `off`.
    Split(SplitFlag),
}

/// Where a flag of LaunchDarkly is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchDarklyFlag {
    /// The project's key.
    pub project: String,
    /// The environment's key.
    pub environment: String,
    /// The flag's key.
    pub flag: String,
    /// The kind of context that instances ask with.
    pub context: String,
    /// The attribute of it that names the database.
    pub attribute: String,
}

/// Where a flag of Unleash is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnleashFlag {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// The flag's name.
    pub flag: String,
    /// The field of the context that names the database.
    pub attribute: String,
}

/// Where a feature flag of Split is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFlag {
    /// The workspace's id.
    pub workspace: String,
    /// The environment's id or name.
    pub environment: String,
    /// The flag's name.
    pub flag: String,
    /// The attribute that names the database.
    pub attribute: String,
}

/// Where a feature of Flagsmith is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagsmithFlag {
    /// The environment's key, as clients use it.
    pub environment: String,
    /// The feature's name.
    pub flag: String,
    /// The trait that names the database.
    pub attribute: String,
    /// The ids of the segments of those who are connected to the source, and to the target.
    pub segments: [u64; 2],
}
