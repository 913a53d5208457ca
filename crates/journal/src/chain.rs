//! From drafts to chained entries: the same for every backend.

use serde_json::Value;

use crate::entry::{Draft, Entry, Position};
use crate::error::{AppendError, JournalError};
use crate::hash::Hash;
use crate::limits::{self, Invalid, MOST_DRAFTS};
use crate::verify::{Tampered, Tampering};

/// The newest entry: what the next one is chained to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) position: Position,
    pub(crate) hash: Hash,
}

impl Head {
    pub(crate) const ORIGIN: Self = Self { position: Position::ORIGIN, hash: Hash::ORIGIN };

    /// The head as a store has it.
    pub(crate) fn from_row(seq: i64, epoch: i64, hash: &[u8]) -> Result<Self, JournalError> {
        let negative = |_| JournalError::Malformed { seq, what: "the head has a negative number" };
        let position = Position { seq: u64::try_from(seq).map_err(negative)?, epoch: u64::try_from(epoch).map_err(negative)? };
        Ok(Self { position, hash: Hash::from_stored(seq, hash)? })
    }

    /// As the public interface has it: nothing while the journal is empty.
    pub(crate) fn published(self) -> Option<(Position, Hash)> {
        (self != Self::ORIGIN).then_some((self.position, self.hash))
    }
}

/// A draft that may be stored, with its body as it will be stored and as it will read back.
pub(crate) struct Checked {
    draft: Draft,
    body_text: String,
    body: Value,
}

/// Checks the drafts before a store is bothered with them.
pub(crate) fn check(expected: Position, drafts: Vec<Draft>) -> Result<Vec<Checked>, AppendError> {
    if drafts.len() > MOST_DRAFTS {
        return Err(Invalid::Drafts { count: drafts.len() }.into());
    }
    let mut least = expected.epoch;
    for Draft { epoch, .. } in &drafts {
        if *epoch < least {
            return Err(AppendError::Regressed { epoch: *epoch, least });
        }
        least = *epoch;
    }
    drafts.into_iter().map(|draft| check_draft(draft).map_err(AppendError::from)).collect()
}

/// Refuses to go on where the head isn't where the caller thinks it is, or isn't the newest entry's.
/// `newest` is the hash of the newest entry in the store.
pub(crate) fn check_head(expected: Position, head: Head, newest: Option<Hash>) -> Result<(), AppendError> {
    if newest.unwrap_or(Hash::ORIGIN) != head.hash {
        let tampered = Tampered { seq: head.position.seq, what: Tampering::HeadDiffers };
        return Err(AppendError::Failed { source: tampered.into() });
    }
    if head.position == expected { Ok(()) } else { Err(AppendError::Conflict { newest: head.position }) }
}

/// Chains the drafts to the head.
pub(crate) fn chain(plan: &str, mut head: Head, drafts: Vec<Checked>) -> Vec<Entry> {
    let chained = |checked| {
        let entry = chain_one(plan, head, checked);
        head = Head { position: entry.position(), hash: entry.hash };
        entry
    };
    drafts.into_iter().map(chained).collect()
}

fn check_draft(draft: Draft) -> Result<Checked, Invalid> {
    limits::draft(&draft)?;
    let body_text = draft.body.to_string();
    limits::body(&body_text)?;
    // The live run must see the very value that recovery will read, down to a float's last digit.
    let body = serde_json::from_str(&body_text).map_err(|source| Invalid::Body { source })?;
    Ok(Checked { draft, body_text, body })
}

fn chain_one(plan: &str, head: Head, checked: Checked) -> Entry {
    let Checked { draft, body_text, body } = checked;
    let mut entry = Entry {
        plan: plan.to_owned(),
        seq: head.position.seq + 1,
        epoch: draft.epoch,
        at_ms: draft.at_ms,
        actor: draft.actor,
        reason: draft.reason,
        kind: draft.kind,
        body,
        prev_hash: head.hash,
        hash: Hash::ORIGIN,
        body_text,
    };
    entry.hash = entry.computed_hash();
    entry
}
