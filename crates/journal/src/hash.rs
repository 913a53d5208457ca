//! The hash that chains the entries, and what goes into it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::JournalError;

/// Names the layout below, so that another layout can never give the same hash.
const LAYOUT: &str = "cutover-journal/1";

/// A SHA-256 hash; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

/// Text that isn't 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a hash has 64 hexadecimal digits")]
pub struct ParseHashError {
    source: hex::FromHexError,
}

impl Hash {
    /// What stands before the first entry: 32 zero bytes.
    pub const ORIGIN: Self = Self([0; 32]);

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash that a store has for the entry `seq`.
    pub(crate) fn from_stored(seq: i64, bytes: &[u8]) -> Result<Self, JournalError> {
        let malformed = |_| JournalError::Malformed { seq, what: "a hash has not 32 bytes" };
        bytes.try_into().map(Self).map_err(malformed)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|source| ParseHashError { source })?;
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All that an entry's hash covers.
pub(crate) struct HashedFields<'a> {
    pub(crate) plan: &'a str,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) at_ms: i64,
    pub(crate) actor: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) body_text: &'a str,
    pub(crate) prev_hash: &'a Hash,
}

impl HashedFields<'_> {
    pub(crate) fn hash(&self) -> Hash {
        let mut digest = Sha256::new();
        put_text(&mut digest, LAYOUT);
        put_text(&mut digest, self.plan);
        digest.update(self.seq.to_be_bytes());
        digest.update(self.epoch.to_be_bytes());
        digest.update(self.at_ms.to_be_bytes());
        put_text(&mut digest, self.actor);
        put_text(&mut digest, self.reason);
        put_text(&mut digest, self.kind);
        put_text(&mut digest, self.body_text);
        digest.update(self.prev_hash.0);
        Hash(digest.finalize().into())
    }
}

/// Length first, so that no byte can move from one field into the next without changing the hash.
fn put_text(digest: &mut Sha256, text: &str) {
    digest.update((text.len() as u64).to_be_bytes());
    digest.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: HashedFields<'static> = HashedFields {
        plan: "plan",
        seq: 1,
        epoch: 2,
        at_ms: 3,
        actor: "anna",
        reason: "because",
        kind: "begun",
        body_text: "{}",
        prev_hash: &Hash::ORIGIN,
    };

    #[test]
    fn c35_the_layout_of_the_hash_stays_as_it_is() {
        // Computed apart from this code; a journal written by an older program must still verify.
        assert_eq!(FIELDS.hash().to_string(), "7d1e24e5e3b74a86d388b3cffabb970066f7c18494445ba53961bc308d693675");
    }

    #[test]
    fn c35_bytes_cant_move_between_fields() {
        let moved = HashedFields { actor: "annab", reason: "ecause", ..FIELDS };
        assert_ne!(moved.hash(), FIELDS.hash());
        let moved = HashedFields { kind: "begun{", body_text: "}", ..FIELDS };
        assert_ne!(moved.hash(), FIELDS.hash());
    }

    #[test]
    fn a_hash_reads_back_from_its_text() {
        let hash = FIELDS.hash();
        assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
        assert!("12".parse::<Hash>().is_err());
        assert!("z".repeat(64).parse::<Hash>().is_err());
    }
}
