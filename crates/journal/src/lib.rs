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
//!
//! Bodies are opaque JSON. This crate knows nothing of what they mean.

mod chain;
mod entry;
mod error;
mod hash;
mod hold;
mod limits;
mod postgres;
mod sqlite;
mod verify;

use std::time::Duration;

use async_trait::async_trait;

pub use entry::{Draft, Entry, Position, Snapshot};
pub use error::{AppendError, DriveError, JournalError};
pub use hash::{Hash, ParseHashError};
pub use hold::Hold;
pub use limits::{Invalid, MOST_ACTOR_BYTES, MOST_BODY_BYTES, MOST_DRAFTS, MOST_KIND_BYTES, MOST_PLAN_BYTES, MOST_REASON_BYTES};
pub use postgres::{PostgresJournal, open_postgres};
pub use sqlite::{SqliteJournal, open_sqlite};
pub use verify::{Tampered, Tampering, Verified, verify};

/// The longest that [`Journal::tail`] waits: a day.
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

    /// Where the journal is, for messages. Holds no secret.
    fn location(&self) -> String;
}
