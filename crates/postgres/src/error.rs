//! What can go wrong with a PostgreSQL server, kept apart by what the caller may do about it.

use std::time::Duration;

use tokio_postgres::error::SqlState;

/// An error of the PostgreSQL engine.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// No connection could be made.
    #[error("can't connect to {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why, without secrets.
        reason: String,
    },
    /// The server refused a statement, or the connection broke during it.
    #[error("{doing}: {}", describe(source))]
    Sql {
        /// What was being done.
        doing: String,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// Something was waited for and did not come in time.
    #[error("{doing} took longer than {} ms", limit.as_millis())]
    TimedOut {
        /// What was being done.
        doing: String,
        /// How long it was given.
        limit: Duration,
    },
    /// A newer driver has touched this database: this one must stop.
    #[error("another driver has taken over: {0}")]
    Superseded(String),
    /// The server or its state is not what the journal says.
    #[error("{0}")]
    Mismatch(String),
    /// Something is in the way that a person has to remove.
    #[error("{what}")]
    Refused {
        /// What is in the way, with names and numbers.
        what: String,
        /// How to remove it, where that is known.
        hint: Option<String>,
    },
    /// Nobody keeps the snapshot of the copy any more, so no further row can be read from it.
    #[error("the snapshot of the copy is gone: {0}")]
    SnapshotLost(String),
    /// A client program failed.
    #[error("{program} failed: {stderr}")]
    Tool {
        /// Its name.
        program: String,
        /// The end of what it said.
        stderr: String,
    },
    /// A file or a process could not be used.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Result of the PostgreSQL engine.
pub type PgResult<T> = Result<T, PgError>;

/// `SQLSTATE` that the gate's functions raise when a newer epoch has been seen.
const SUPERSEDED: &str = "CU001";

/// `SQLSTATE` that the gate's functions raise when something else than the epoch is in the way.
const REFUSED: &str = "CU002";

impl PgError {
    /// Wraps the server's answer to what was being done.
    pub fn sql(doing: impl Into<String>, source: tokio_postgres::Error) -> Self {
        let message = source.as_db_error().map(|error| (error.code().code().to_owned(), error.message().to_owned()));
        match message {
            Some((code, message)) if code == SUPERSEDED => Self::Superseded(message),
            Some((code, message)) if code == REFUSED => Self::Refused { what: message, hint: None },
            _ => Self::Sql { doing: doing.into(), source },
        }
    }

    /// The server's `SQLSTATE`, where it answered with one.
    #[must_use]
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Self::Sql { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether a statement gave up waiting for a lock.
    #[must_use]
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self.sql_state(), Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether the connection is gone, so that the outcome of what was being done is not known.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TimedOut { .. } => true,
            Self::Sql { source, .. } => match source.code() {
                None => true,
                Some(code) => {
                    *code == SqlState::ADMIN_SHUTDOWN
                        || *code == SqlState::CRASH_SHUTDOWN
                        || *code == SqlState::CANNOT_CONNECT_NOW
                        || code.code().starts_with("08")
                }
            },
            _ => false,
        }
    }

    /// What a person can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::Sql { source, .. } => source.as_db_error().and_then(|error| error.hint()),
            _ => None,
        }
    }
}

/// The server's own words, with detail; tokio-postgres prints only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}: {}{detail} [{}]", db.severity(), db.message(), db.code().code())
        }
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}
