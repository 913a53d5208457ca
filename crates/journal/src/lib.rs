//! The append-only, hash-chained journal: SQLite and PostgreSQL.
//!
//! The journal lies outside both databases of a cutover. Every change is written to it before it takes effect, so
//! that the state can be rebuilt by replaying it, and so that it can be told afterwards who did what, when and why.
//!
//! - **Append-if.** [`Journal::append_if`] is compare-and-set on the newest [`Position`]: of several writers that saw
//!   the same position exactly one wins, and the others learn the newest position. A returned append survives a
//!   power loss.
//! - **Chain.** Each [`Entry`] carries the [`Hash`] of the one before it, and a head row carries that of the newest,
//!   so [`verify`] finds an entry that was changed, removed, moved or slipped in. Whoever can write to the store
//!   *and* computes the chain anew can still forge it: keep the head's hash in a second place to rule that out.
//! - **One driver.** [`Journal::drive`] gives the exclusive right to drive a plan. It is tied to the life of the
//!   process, never to a clock.
//! - **Roster.** Beside the journal, servers write down what they and their clients have heard of it: [`Journal::rows`].
//!
//! Bodies are opaque JSON. This crate knows nothing of what they mean.

mod chain;
mod entry;
mod error;
mod hash;
mod hold;
mod limits;
mod postgres;
mod roster;
mod sqlite;
mod verify;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

pub use entry::{Draft, Entry, Position, Snapshot};
pub use error::{AppendError, DriveError, JournalError};
pub use hash::{Hash, ParseHashError};
pub use hold::Hold;
pub use limits::{Invalid, MOST_ACTOR_BYTES, MOST_BODY_BYTES, MOST_DRAFTS, MOST_KIND_BYTES, MOST_PLAN_BYTES, MOST_REASON_BYTES};
pub use postgres::{PostgresJournal, open_postgres};
pub use roster::Row;
pub use sqlite::{SqliteJournal, open_sqlite};
pub use verify::{Tampered, Tampering, Verified, verify};

/// The longest that [`Journal::tail`] and [`Journal::rows_changed`] wait: a day.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The journal of one plan. Several plans may share a store; each has a chain of its own.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends all drafts in one durable transaction, if the newest entry is at `expected` and no draft's epoch is
    /// below the one before it. Without drafts it only checks that the newest entry is at `expected`.
    ///
    /// Dropping the future while it runs leaves the outcome unknown, as [`AppendError::Unknown`] does: read the
    /// journal, and compare what stands after `expected` with [`Entry::is_from`].
    ///
    /// # Errors
    /// See [`AppendError`]: only `Unknown` leaves open whether the entries were appended.
    async fn append_if(&self, expected: Position, drafts: Vec<Draft>) -> Result<Vec<Entry>, AppendError>;

    /// All entries, oldest first, with the head as of the same instant. Nothing is verified: see [`Snapshot::verify`].
    ///
    /// # Errors
    /// When the store can't be read, or holds something that can't be an entry.
    async fn snapshot(&self) -> Result<Snapshot, JournalError>;

    /// All entries, oldest first. Nothing is verified.
    ///
    /// # Errors
    /// As [`Journal::snapshot`].
    async fn load(&self) -> Result<Vec<Entry>, JournalError> {
        Ok(self.snapshot().await?.entries)
    }

    /// Position and hash of the newest entry as the head row has them; `None` while the journal is empty.
    ///
    /// # Errors
    /// When the store can't be read.
    async fn head(&self) -> Result<Option<(Position, Hash)>, JournalError>;

    /// The entries after `after_seq`, as soon as there is one; nothing when `wait` (at most a day) has passed.
    ///
    /// # Errors
    /// As [`Journal::snapshot`].
    async fn tail(&self, after_seq: u64, wait: Duration) -> Result<Vec<Entry>, JournalError>;

    /// Takes the exclusive right to drive the plan, until the [`Hold`] is dropped or this process ends in any way.
    /// `who` is for the message that others get, such as `anna@bastion`; the process id is added to it.
    ///
    /// # Errors
    /// [`DriveError::Held`] at once when another live holder has it.
    async fn drive(&self, who: &str) -> Result<Hold, DriveError>;

    /// Writes down what a server has to say, in place of what it said before. Who reads after this returned sees it.
    /// See [`Row`] for the fields; the name must be one that no other server of the plan has.
    ///
    /// # Errors
    /// When the store refuses it or can't be reached. It may have been written all the same.
    async fn write_row(&self, server: &str, beat: u64, lease_ms: u64, body: &Value) -> Result<(), JournalError>;

    /// What all servers of the plan have last written down, ordered by name.
    ///
    /// # Errors
    /// When the store can't be read, or holds something that can't be a row.
    async fn rows(&self) -> Result<Vec<Row>, JournalError>;

    /// The rows as soon as they are others than `known`; the same when `wait` (at most a day) has passed.
    ///
    /// # Errors
    /// As [`Journal::rows`].
    async fn rows_changed(&self, known: &[Row], wait: Duration) -> Result<Vec<Row>, JournalError>;

    /// Forgets a server that has ended and whose leases are over. It need not be there.
    ///
    /// # Errors
    /// When the store refuses it or can't be reached.
    async fn remove_row(&self, server: &str) -> Result<(), JournalError>;

    /// Where the journal is, for messages. Holds no secret.
    fn location(&self) -> String;
}
