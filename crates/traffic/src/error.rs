//! What can go wrong with traffic.

use std::{error::Error as _, io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::{AudienceError, ServiceFault};

/// Why an adapter could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The plan asks for something that can't be done.
    #[error("{adapter}: {reason}")]
    Plan {
        /// The adapter.
        adapter: String,
        /// What is wrong, without the plan's values, which may hold secrets.
        reason: String,
    },
    /// No connection to an admin console.
    #[error("{adapter}: its admin console can't be reached")]
    Unreachable {
        /// The adapter.
        adapter: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// An admin console answered a call with an error, or the connection broke during it.
    #[error("{adapter}: `{call}` failed")]
    Refused {
        /// The adapter.
        adapter: String,
        /// The call.
        call: String,
        /// The answer.
        source: tokio_postgres::Error,
    },
    /// An admin console answered something that could not be understood.
    #[error("{adapter}: `{call}` answered without {missing}")]
    Unexpected {
        /// The adapter.
        adapter: String,
        /// The call.
        call: String,
        /// What was looked for.
        missing: String,
    },
    /// A call that did not come back in its time. Whatever it had begun was undone.
    #[error("{adapter}: `{call}` did not come back within {} ms", waited.as_millis())]
    TimedOut {
        /// The adapter.
        adapter: String,
        /// The call.
        call: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Holding was given up, but letting go on failed too: clients may be waiting still.
    #[error("{adapter}: holding was given up, and clients may be waiting still because letting go failed")]
    StillHeld {
        /// The adapter.
        adapter: String,
        /// Why letting go failed.
        source: Box<TrafficError>,
    },
    /// The whole pooler was paused or suspended by somebody else; that is not ours to end.
    #[error("{adapter}: the whole pooler is paused or suspended by somebody else")]
    PausedByOthers {
        /// The adapter.
        adapter: String,
    },
    /// A reload did not bring what was written into the configuration file. Clients are kept waiting.
    #[error("{adapter}: after RELOAD it shows {shown} where {path} says {wanted}; clients are kept waiting", path = path.display())]
    NotApplied {
        /// The adapter.
        adapter: String,
        /// The file that was written.
        path: PathBuf,
        /// What it says.
        wanted: String,
        /// What is in effect.
        shown: String,
    },
    /// Reading or replacing a file failed.
    #[error("{doing} {path}", path = path.display())]
    Io {
        /// What was being done, as in `reading`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration file is not as it must be. It was not changed.
    #[error("{path} can't be used", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileFault,
    },
    /// A command could not be started or waited for.
    #[error("{command} could not be run")]
    CommandIo {
        /// Which command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("{command} ended with {status}{}", shown(output))]
    CommandFailed {
        /// Which command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// A command ran out of its time; it and all processes of its group were killed.
    #[error("{command} was killed after {} ms{}", waited.as_millis(), shown(output))]
    CommandTimedOut {
        /// Which command.
        command: String,
        /// How long it ran.
        waited: Duration,
        /// The end of what it printed.
        output: String,
    },
    /// A flag service refused a call, or answered what can't be used. It would do so again.
    #[error("{adapter}: `{call}` failed")]
    Service {
        /// The adapter.
        adapter: String,
        /// The call.
        call: String,
        /// Why.
        source: ServiceFault,
    },
    /// A call to a flag service was made again and again, and did not succeed in its time.
    #[error("{adapter}: `{call}` did not succeed within {} ms", waited.as_millis())]
    Unserved {
        /// The adapter.
        adapter: String,
        /// The call.
        call: String,
        /// How long it was tried.
        waited: Duration,
        /// What came of it last.
        source: ServiceFault,
    },
    /// A flag service does not show what was written.
    #[error("{adapter}: it has to be {wanted}, and after {} ms it is {shown}", waited.as_millis())]
    NotShown {
        /// The adapter.
        adapter: String,
        /// What the flag has to say.
        wanted: String,
        /// What it says.
        shown: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The journal, or what the servers of the flags have heard, can't be read.
    #[error("{adapter}: what is journalled can't be read")]
    Audience {
        /// The adapter.
        adapter: String,
        /// Why.
        source: AudienceError,
    },
    /// Somebody may still act on an older epoch. Clients go on.
    #[error("{adapter}: {left} have not acknowledged epoch {epoch} after {} ms: {names}", waited.as_millis())]
    Unheard {
        /// The adapter.
        adapter: String,
        /// The epoch.
        epoch: u64,
        /// How long they were waited for.
        waited: Duration,
        /// How many servers and clients.
        left: u64,
        /// Some of them, with why.
        names: String,
    },
    /// Clients are left whose writes don't go to the side in charge, or that have not heard which one that is.
    #[error("{adapter}: after {rollout:?} {left} clients are left in the way: {names}")]
    Astray {
        /// The adapter.
        adapter: String,
        /// How long the plan lets them be waited for.
        rollout: Duration,
        /// How many.
        left: u64,
        /// Some of them, with why.
        names: String,
    },
    /// Some adapters of a fleet failed.
    #[error("{}", joined(.0))]
    Several(
        /// One error per adapter that failed.
        Vec<TrafficError>,
    ),
}

/// What is wrong with a configuration file. Never repeats a value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// It does not set the variable.
    #[error("it does not set `{0}`")]
    Missing(String),
    /// It sets the variable more than once.
    #[error("it sets `{0}` more than once")]
    Ambiguous(String),
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It breaks its own syntax.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The place of the variable is written in a way that is not rewritten here.
    #[error("line {line}: {reason}")]
    Unsupported {
        /// Line, from 1.
        line: usize,
        /// What it is.
        reason: String,
    },
    /// The variable would change its type.
    #[error("`{variable}` is a {was}, and the new value is not")]
    Type {
        /// The variable.
        variable: String,
        /// Its type now.
        was: &'static str,
    },
    /// The result would differ in more than the one variable.
    #[error("more than `{0}` would change")]
    NotOnly(String),
    /// The `[databases]` section has no entry of its own for the database, only `*`.
    #[error("`{0}` has no entry of its own in [databases], only `*` covers it")]
    Wildcard(String),
}

impl TrafficError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => "check admin_url: host, port, user, password, and that its database is `pgbouncer`".to_owned(),
            Self::StillHeld { .. } => "RESUME the database on the admin console once it can be reached".to_owned(),
            Self::PausedByOthers { .. } => "whoever paused the pooler must RESUME it".to_owned(),
            Self::NotApplied { path, .. } => format!(
                "make config_file the file that PgBouncer reads (`SHOW CONFIG`, key conffile), and look in its log for errors in {}",
                path.display()
            ),
            Self::File { source, .. } => source.hint()?,
            Self::CommandTimedOut { .. } => "give it a longer timeout, or make it quicker".to_owned(),
            Self::Service { source, .. } | Self::Unserved { source, .. } => source.hint()?.to_owned(),
            Self::NotShown { .. } => "see who else changes this flag, and that the service does not want its changes approved".to_owned(),
            Self::Unheard { .. } => "see that these instances and servers are up, or choose a shorter `lease`".to_owned(),
            Self::Astray { .. } => "stop these instances, then `cutover run` goes on with the opening".to_owned(),
            Self::Several(errors) => errors.iter().find_map(Self::hint)?,
            _ => return None,
        })
    }

    /// The error with its causes, in one line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// Whether it ran out of its time, and may well succeed another time.
    #[must_use]
    pub fn is_time_out(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::CommandTimedOut { .. } | Self::Unheard { .. } | Self::Unserved { .. } | Self::NotShown { .. } => {
                true
            }
            Self::Several(errors) => errors.iter().all(Self::is_time_out),
            _ => false,
        }
    }
}

impl FileFault {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing(name) => format!("set `{name}` there once by hand, or correct its name in the plan"),
            Self::Ambiguous(name) => format!("leave one setting of `{name}`"),
            Self::Wildcard(name) => format!("add an entry `{name} = host=… port=… dbname=…` to [databases] and RELOAD"),
            Self::Unsupported { .. } => "write the value there as a plain or quoted text on one line".to_owned(),
            Self::Type { .. } => "correct the value in the plan, or quote it in the file".to_owned(),
            _ => return None,
        })
    }
}

fn shown(output: &str) -> String {
    if output.trim().is_empty() { String::new() } else { format!("; it printed: {}", output.trim()) }
}

fn joined(errors: &[TrafficError]) -> String {
    errors.iter().map(TrafficError::report).collect::<Vec<_>>().join("; ")
}
