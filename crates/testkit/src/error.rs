//! What can go wrong with throwaway servers and with the load on them.

use std::{path::PathBuf, time::Duration};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the testkit. [`Error::hint`] says what to do about it, where that is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server program that a test asked for is not on this machine.
    #[error("{what} is not installed")]
    NotInstalled {
        /// The program, with its version.
        what: String,
        /// How to get it.
        hint: String,
    },
    /// A program could not be started at all.
    #[error("can't start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it said.
        output: String,
    },
    /// A server ended by itself, or never became ready.
    #[error("{server} {what}; the end of its log:\n{log}")]
    Server {
        /// The server's name.
        server: String,
        /// What it did.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// The server is stopped, and has to be started before it can do this.
    #[error("{0} is not running")]
    NotRunning(String),
    /// A file or a socket could not be used.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The database refused, or the connection to it broke.
    #[error("{doing}: {}", describe(source))]
    Sql {
        /// What was being done.
        doing: String,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// Something was waited for in vain.
    #[error("{what} did not happen within {} ms{}", limit.as_millis(), last.as_deref().map(|l| format!("; last seen: {l}")).unwrap_or_default())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What was seen last, if anything.
        last: Option<String>,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// What a person can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled { hint, .. } => Some(hint.clone()),
            Self::Spawn { program, source } if source.kind() == std::io::ErrorKind::PermissionDenied => Some(format!(
                "servers run as an ordinary user, who must be able to reach {}: move the servers elsewhere and set CUTOVER_SERVERS, or don't run this as root",
                program.display()
            )),
            Self::Server { .. } | Self::TimedOut { .. } => Some("the machine may be short of memory, disk or processors".to_owned()),
            Self::NotRunning(_) => Some("start it again first".to_owned()),
            _ => None,
        }
    }

    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }

    pub(crate) fn sql(doing: impl Into<String>, source: tokio_postgres::Error) -> Self {
        Self::Sql { doing: doing.into(), source }
    }

    pub(crate) fn timed_out(what: impl Into<String>, limit: Duration) -> Self {
        Self::TimedOut { what: what.into(), limit, last: None }
    }
}

/// A PostgreSQL error with its code and details: the library's own text is only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return chain(error) };
    let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
    format!("{} {}{detail}", db.code().code(), db.message())
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
