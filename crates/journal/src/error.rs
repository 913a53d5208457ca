//! What can go wrong. No message holds a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::entry::Position;
use crate::limits::Invalid;
use crate::verify::Tampered;

/// The journal can't be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Something that the journal refuses to store.
    #[error(transparent)]
    Refused(#[from] Invalid),
    /// A file or folder can't be used.
    #[error("could not {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The journal's file was moved, removed or replaced while it was open.
    #[error("{} is no longer the file that was opened: it was moved, removed or replaced", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error("could not {doing}")]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The file can't be made durable in the way the journal needs.
    #[error("SQLite keeps the journal in mode `{mode}` here, which does not survive a power loss; use a local file system")]
    NotDurable {
        /// The journal mode that SQLite insists on.
        mode: String,
    },
    /// PostgreSQL failed or can't be reached.
    #[error("could not {doing}")]
    Postgres {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// The answer didn't come in time.
    #[error("could not {doing} within {limit:?}")]
    TimedOut {
        /// What was tried.
        doing: &'static str,
        /// How long it was tried.
        limit: Duration,
    },
    /// The URL isn't one of PostgreSQL's. The cause is left out: it can quote a piece of the password.
    #[error("the journal's URL can't be read; it looks like postgresql://user@host/database?sslmode=prefer (or disable, or require)")]
    Url,
    /// The URL asks for TLS, which isn't there.
    #[error("the journal's URL says sslmode=require, but nothing says how to encrypt")]
    TlsUnavailable,
    /// The store has another format than this program knows.
    #[error("the journal at {location} has format {found}, and this program knows format {known}; use the program that wrote it")]
    Format {
        /// Where it is.
        location: String,
        /// The format that was found.
        found: i64,
        /// The format that is known.
        known: i64,
    },
    /// The file is something else than a journal.
    #[error("{location} is not a journal but something else")]
    Foreign {
        /// Where it is.
        location: String,
    },
    /// A stored body isn't JSON: somebody changed it.
    #[error("the body of entry {seq} is not JSON")]
    NotJson {
        /// Sequence number of the entry.
        seq: i64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A stored row can't be an entry: somebody changed it.
    #[error("entry {seq} can't be read: {what}")]
    Malformed {
        /// Sequence number of the entry.
        seq: i64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A stored row of the roster can't be one: somebody changed it.
    #[error("the row of server {server} can't be read: {what}")]
    MalformedRow {
        /// Which server's.
        server: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store isn't what was appended.
    #[error(transparent)]
    Tampered(#[from] Tampered),
    /// The thread or task that did the work ended before it was done.
    #[error("could not {doing}: the program is shutting down, or had a fault")]
    Stopped {
        /// What was tried.
        doing: &'static str,
    },
}

/// Entries were not appended, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The newest entry isn't where the caller thought: somebody else appended. Nothing was appended.
    #[error("somebody else has appended to the journal, which is at {newest} now")]
    Conflict {
        /// Where the newest entry is.
        newest: Position,
    },
    /// An epoch is below the one before it. Nothing was appended.
    #[error("the epoch {epoch} is below {least}, and epochs only grow")]
    Regressed {
        /// The epoch that was refused.
        epoch: u64,
        /// The lowest that would have been taken.
        least: u64,
    },
    /// Something that the journal refuses to store. Nothing was appended.
    #[error(transparent)]
    Refused(#[from] Invalid),
    /// Whether the entries were appended can't be known from here. Read the journal until it is known, and do
    /// nothing else meanwhile.
    #[error("it is not known whether the entries were appended; the journal must be read again")]
    Unknown {
        /// What happened.
        source: JournalError,
    },
    /// Nothing was appended, for certain.
    #[error("nothing was appended to the journal")]
    Failed {
        /// What happened.
        source: JournalError,
    },
}

/// The right to drive wasn't given.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Another live process has it.
    #[error("{by} is driving this plan")]
    Held {
        /// Who, with the process id.
        by: String,
        /// Since when, in milliseconds since 1970 (UTC).
        since_ms: i64,
    },
    /// It could not be found out, or not be taken.
    #[error("the right to drive this plan could not be taken")]
    Failed {
        /// What happened.
        #[from]
        source: JournalError,
    },
}
