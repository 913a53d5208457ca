//! The plan: the file that describes one cutover, checked once, at the edge.

mod check;
mod error;
mod expand;
mod file;
mod rehearse;
mod secret;
mod service;
mod tables;
mod url;

use std::{path::PathBuf, time::Duration};

use crate::{
    Side,
    clients::{Names, Place, Places},
};

pub use self::{
    error::{PlanError, nearest},
    expand::expand,
    rehearse::{Data, Rehearse},
    secret::Secret,
    service::{FlagService, FlagsmithFlag, LaunchDarklyFlag, ServiceFlag, SplitFlag, UnleashFlag},
    tables::{Filter, Pattern, PatternError, Piece, TableSettings, Tables, spell},
    url::{DatabaseUrl, SslMode},
};

/// One cutover, as its file describes it, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name: letters, digits, `-` and `_`; it names slots and publications too.
    pub name: String,
    /// Where the data is.
    pub source: Database,
    /// Where it goes.
    pub target: Database,
    /// The PostgreSQL database that holds the journal; SQLite beside the plan where absent.
    pub journal: Option<DatabaseUrl>,
    /// The application's roles; found out from the catalogue where empty.
    pub application_roles: Vec<String>,
    /// Which tables move, and what is said of single ones.
    pub tables: Tables,
    /// How long writes may stand still.
    pub pause: Pause,
    /// How rows are copied.
    pub copy: Copy,
    /// How both sides are compared.
    pub verify: Verify,
    /// How the database changes hands.
    pub switch: Switch,
    /// Differences between both sides' definitions that the clients bear, as the user knows.
    pub accept: Vec<Accept>,
    /// The user's own commands.
    pub hooks: Hooks,
    /// How the application's traffic is held and pointed elsewhere, in this order.
    pub traffic: Vec<Traffic>,
    /// The user's own questions to both sides, in this order.
    pub checks: Vec<Check>,
    /// How the plan is rehearsed.
    pub rehearse: Rehearse,
}

/// One of the two databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// How we reach it.
    pub url: DatabaseUrl,
    /// How the other database's server reaches it, for replication.
    pub peer_url: DatabaseUrl,
}

/// The pause of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long all steps inside the pause may take together; shorter than the clients' time-outs.
    pub budget: Duration,
    /// How often a pause that ran out of its budget is tried.
    pub attempts: u32,
    /// How far the other side may be behind, in bytes of log, for a pause to begin.
    pub lag_bytes: u64,
}

/// The copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Tables, or parts of tables, copied at once.
    pub jobs: u32,
    /// A table larger than this is copied in parts. Unit: bytes.
    pub part_bytes: u64,
    /// How long the source keeps the snapshot of a copy that was broken off, so that it can be gone on with.
    pub resume_within: Duration,
    /// What is done about large objects.
    pub large_objects: LargeObjects,
    /// What is sent at most, by all workers together. Unit: bytes a second.
    pub max_rate: Option<u64>,
    /// How long the source may take to answer a small query before less is sent.
    pub max_latency: Option<Duration>,
}

/// What is done about large objects, which are not replicated and which no trigger guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeObjects {
    /// A cutover does not begin while there is one.
    Refuse,
    /// They stay behind.
    Ignore,
    /// They are copied, brought over again as they change, and fenced.
    Copy,
}

/// The comparison of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Chunks compared at once.
    pub jobs: u32,
    /// Rows in a chunk.
    pub chunk_rows: u32,
    /// How often rows that differ are looked at again before they count as different.
    pub rechecks: u32,
    /// Columns whose values are never shown: `schema.table.column`, with `*` for any text.
    pub redact: Vec<String>,
    /// What is verified inside the pause of a switch.
    pub in_pause: InPause,
    /// How old the last verification may be when a switch to the target begins; any age where absent.
    pub max_age: Option<Duration>,
    /// Rows that are compared in a second, at most; as fast as can be where absent.
    pub max_rate: Option<u64>,
    /// Fewer are while the side in charge takes longer than this to answer a small query.
    pub max_latency: Option<Duration>,
}

/// What is verified inside the pause of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPause {
    /// The rows that changed since the switch began.
    Changed,
    /// Nothing.
    Off,
}

impl InPause {
    /// The names that a plan uses.
    pub const NAMES: [(&'static str, Self); 2] = [("changed", Self::Changed), ("off", Self::Off)];
}

/// The change of hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Whether the old side is kept in step afterwards, which is what makes a way back without loss.
    pub reverse: bool,
    /// Values by which each sequence is moved ahead on the side that opens, times its increment.
    pub sequence_headroom: u32,
    /// Whether the target may be an older major version than the source.
    pub allow_downgrade: bool,
}

/// A difference between both sides' definitions that keeps no switch from beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// What differs, as `cutover check` names it: `public.orders.legacy_code`.
    pub name: String,
    /// Why it is borne.
    pub reason: String,
}

/// The user's own commands, run by a shell with a documented environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Migrates the target's schema after the copy, e.g. `make db-migrate`.
    pub migrate: Option<String>,
    /// Tries one write at the target, with leave of its own, before it is opened to the flags' clients.
    pub trial: Option<String>,
    /// Tries the side that was opened, e.g. one test write.
    pub smoke: Option<String>,
    /// How long each may take.
    pub timeout: Duration,
}

/// A question of the user's own, asked read-only at both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, unique within the plan.
    pub name: String,
    /// One query. Its names carry their schema.
    pub sql: String,
    /// What the answers must be.
    pub expect: Expect,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// What both sides must answer to a [`Check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The same rows, in any order.
    Equal,
    /// No row.
    Empty,
    /// One row with one column, which is this as text.
    Value(String),
}

impl Expect {
    /// The name that a plan uses.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Empty => "empty",
            Self::Value(_) => "value",
        }
    }
}

/// One way in which the application's traffic is held and pointed elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A PgBouncer in front of the databases.
    PgBouncer {
        /// Its admin console.
        admin_url: DatabaseUrl,
        /// The entry of its `[databases]` section.
        database: String,
        /// Its configuration file, relative to the plan's folder.
        config_file: PathBuf,
    },
    /// One variable in a configuration file.
    File {
        /// The file, relative to the plan's folder.
        path: PathBuf,
        /// Its syntax.
        format: Format,
        /// The variable: a name, or for nested files a path such as `database.url`.
        variable: String,
        /// What it is set to, with `{host}`, `{port}`, `{database}` filled in for the side that is in charge.
        value: String,
    },
    /// The user's commands.
    Command {
        /// Stops writes, or makes them wait; nothing where absent.
        hold: Option<String>,
        /// Points traffic at the side named in the environment, and lets it go on.
        release: String,
        /// Prints `source` or `target`: where traffic goes now; unknown where absent.
        observe: Option<String>,
        /// How long each may take.
        timeout: Duration,
    },
    /// Flags that instances ask before they write; `cutover serve` answers.
    Flags {
        /// How long an instance may act on an answer.
        lease: Duration,
        /// How long the opening waits for instances that are connected to the old side; 0 to wait for none.
        rollout: Duration,
        /// More names under which instances know the source.
        source: Vec<String>,
        /// More names under which they know the target.
        target: Vec<String>,
        /// Names of what always leads to the side in charge, such as a PgBouncer of the plan.
        through: Vec<String>,
    },
    /// A flag at a service that the team already has.
    Service(Box<FlagService>),
}

impl Traffic {
    /// The names of both databases that are listed here: for the source, for the target, and for what always leads to the
    /// side in charge.
    fn listed(&self) -> [(&[String], Place); 3] {
        let (source, target, through): (&[String], &[String], &[String]) = match self {
            Self::Flags { source, target, through, .. } => (source, target, through),
            Self::Service(service) => (&service.source, &service.target, &service.through),
            Self::PgBouncer { .. } | Self::File { .. } | Self::Command { .. } => (&[], &[], &[]),
        };
        [(source, Place::At(Side::Source)), (target, Place::At(Side::Target)), (through, Place::Through)]
    }
}

/// The syntax of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `NAME=value` lines.
    Env,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// TOML.
    Toml,
}

impl Format {
    /// The names a plan uses.
    pub const NAMES: [(&'static str, Self); 5] =
        [("env", Self::Env), ("json", Self::Json), ("yaml", Self::Yaml), ("yml", Self::Yaml), ("toml", Self::Toml)];

    /// The syntax that `name` stands for.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }
}

impl Plan {
    /// Reads a plan file. `environment` looks up the `${NAME}` in its strings.
    ///
    /// # Errors
    /// The first fault, with its line, column and a hint.
    pub fn parse(file: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, PlanError> {
        check::check(file, environment)
    }

    /// The names of both databases, as instances may give them.
    ///
    /// # Errors
    /// The name that is none; a plan that was read has no such.
    pub fn places(&self) -> Result<Places, String> {
        Places::new([&self.source.url, &self.target.url], self.listed())
    }

    /// The same names, for services that compare texts.
    #[must_use]
    pub fn names(&self) -> Names {
        let leads_to = |place| match place {
            Place::At(side) => Some(side),
            Place::Through => None,
        };
        Names::new([&self.source.url, &self.target.url], self.listed().map(|(name, place)| (name, leads_to(place))))
    }

    fn listed(&self) -> impl Iterator<Item = (String, Place)> {
        let lists = self.traffic.iter().flat_map(Traffic::listed);
        lists.flat_map(|(names, place)| names.iter().map(move |name| (name.clone(), place)))
    }

    /// The database at `side`.
    #[must_use]
    pub fn database(&self, side: Side) -> &Database {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }
}

#[cfg(test)]
mod tests;
