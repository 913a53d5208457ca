//! What the journal holds: drafts before they are appended, entries after.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::error::JournalError;
use crate::hash::{Hash, HashedFields};
use crate::verify::{Tampered, Verified, verify};

/// Where an entry stands: its sequence number, from 1 without gaps, and its epoch, which never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Position {
    /// Sequence number of the entry; 0 in an empty journal.
    pub seq: u64,
    /// Epoch of the entry; 0 in an empty journal.
    pub epoch: u64,
}

impl Position {
    /// The position of an empty journal.
    pub const ORIGIN: Self = Self { seq: 0, epoch: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {} of epoch {}", self.seq, self.epoch)
    }
}

/// An entry to be appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Epoch it belongs to; not below that of the entry before it.
    pub epoch: u64,
    /// When it was decided, in milliseconds since 1970 (UTC), by the clock of whoever appends it.
    pub at_ms: i64,
    /// Who decided it: a person or a part of the program. Never empty.
    pub actor: String,
    /// Why; may be empty where the kind says it all.
    pub reason: String,
    /// What kind of body follows. Never empty.
    pub kind: String,
    /// The body, opaque to the journal.
    pub body: Value,
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The plan whose journal it belongs to.
    pub plan: String,
    /// Sequence number, from 1 without gaps.
    pub seq: u64,
    /// Epoch; never falls from one entry to the next.
    pub epoch: u64,
    /// When it was decided, in milliseconds since 1970 (UTC).
    pub at_ms: i64,
    /// Who decided it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What kind of body it has.
    pub kind: String,
    /// The body, as parsed from the stored text.
    pub body: Value,
    /// Hash of the entry before it; [`Hash::ORIGIN`] for the first.
    pub prev_hash: Hash,
    /// Hash over the plan's name, all fields above and the body's stored text.
    pub hash: Hash,
    /// The body as it is stored: exactly the bytes that were hashed.
    #[serde(skip)]
    pub(crate) body_text: String,
}

impl Entry {
    /// Sequence number and epoch.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { seq: self.seq, epoch: self.epoch }
    }

    /// The body's text as it is stored and hashed.
    #[must_use]
    pub fn body_text(&self) -> &str {
        &self.body_text
    }

    /// Whether this entry says exactly what `draft` says. After an append of unknown outcome, this tells one's own
    /// entry from somebody else's at the same sequence number.
    #[must_use]
    pub fn is_from(&self, draft: &Draft) -> bool {
        let body_text = draft.body.to_string();
        self.epoch == draft.epoch
            && self.at_ms == draft.at_ms
            && self.actor == draft.actor
            && self.reason == draft.reason
            && self.kind == draft.kind
            && self.body_text == body_text
    }

    /// The hash that the entry's content has now, whatever `hash` claims.
    pub(crate) fn computed_hash(&self) -> Hash {
        HashedFields {
            plan: &self.plan,
            seq: self.seq,
            epoch: self.epoch,
            at_ms: self.at_ms,
            actor: &self.actor,
            reason: &self.reason,
            kind: &self.kind,
            body_text: &self.body_text,
            prev_hash: &self.prev_hash,
        }
        .hash()
    }
}

/// All entries and the head, as of one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// All entries, oldest first.
    pub entries: Vec<Entry>,
    /// Position and hash of the newest entry by the head row; `None` without one.
    pub head: Option<(Position, Hash)>,
}

impl Snapshot {
    /// Recomputes the chain; see [`verify`].
    ///
    /// # Errors
    /// The first place where the journal isn't what was appended.
    pub fn verify(&self) -> Result<Verified, Tampered> {
        verify(&self.entries, self.head)
    }
}

/// A row of the store, before it is known to be an entry.
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) epoch: i64,
    pub(crate) at_ms: i64,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) kind: String,
    pub(crate) body_text: String,
    pub(crate) prev_hash: Vec<u8>,
    pub(crate) hash: Vec<u8>,
}

impl Row {
    pub(crate) fn into_entry(self, plan: &str) -> Result<Entry, JournalError> {
        let seq = self.seq;
        let malformed = |what| JournalError::Malformed { seq, what };
        Ok(Entry {
            plan: plan.to_owned(),
            seq: u64::try_from(self.seq).map_err(|_| malformed("its sequence number is negative"))?,
            epoch: u64::try_from(self.epoch).map_err(|_| malformed("its epoch is negative"))?,
            at_ms: self.at_ms,
            actor: self.actor,
            reason: self.reason,
            kind: self.kind,
            body: serde_json::from_str(&self.body_text).map_err(|source| JournalError::NotJson { seq, source })?,
            prev_hash: Hash::from_stored(seq, &self.prev_hash)?,
            hash: Hash::from_stored(seq, &self.hash)?,
            body_text: self.body_text,
        })
    }
}
