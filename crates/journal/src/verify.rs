//! The proof that a journal is what was appended: the chain computed anew.

use crate::chain::Head;
use crate::entry::{Entry, Position};
use crate::hash::Hash;

/// A journal whose chain holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many entries there are.
    pub count: usize,
    /// Where the newest entry stands.
    pub newest: Position,
    /// Hash of the newest entry; it stands for the whole journal. [`Hash::ORIGIN`] for an empty one.
    pub head: Hash,
}

/// A journal that isn't what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal was tampered with or damaged at entry {seq}: {what}")]
pub struct Tampered {
    /// The first sequence number at which it shows.
    pub seq: u64,
    /// How it shows.
    pub what: Tampering,
}

/// How a broken chain shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Tampering {
    /// There is no entry of this sequence number.
    #[error("it is missing")]
    Missing,
    /// The sequence number stands where a later one belongs.
    #[error("it is there twice, or out of order")]
    OutOfOrder,
    /// The hash before it isn't that of the entry before it.
    #[error("it does not follow from the entry before it")]
    Unlinked,
    /// The content doesn't give the hash.
    #[error("its content is not what was appended")]
    Changed,
    /// The epoch is below that of the entry before it.
    #[error("its epoch is lower than the one before it")]
    EpochFell,
    /// The head row names a later entry than the newest.
    #[error("the head says that it was appended, but it is missing")]
    Cut,
    /// There is no head row, or it names another entry than the newest.
    #[error("the head is not that of the newest entry")]
    HeadDiffers,
}

/// Recomputes the chain from the first entry on, and compares its end with the head. Finds an entry that was changed,
/// removed (the newest too), moved or slipped in. `entries` and `head` must be of the same instant: see
/// [`crate::Journal::snapshot`].
///
/// # Errors
/// The first place where the journal isn't what was appended.
pub fn verify(entries: &[Entry], head: Option<(Position, Hash)>) -> Result<Verified, Tampered> {
    let mut last = Head::ORIGIN;
    for entry in entries {
        follow(last, entry)?;
        last = Head { position: entry.position(), hash: entry.hash };
    }
    compare(last, head)?;
    Ok(Verified { count: entries.len(), newest: last.position, head: last.hash })
}

fn follow(last: Head, entry: &Entry) -> Result<(), Tampered> {
    let due = last.position.seq + 1;
    if entry.seq > due {
        return Err(Tampered { seq: due, what: Tampering::Missing });
    }
    let fault = if entry.seq < due {
        Some(Tampering::OutOfOrder)
    } else if entry.prev_hash != last.hash {
        Some(Tampering::Unlinked)
    } else if entry.hash != entry.computed_hash() || !body_is_its_text(entry) {
        Some(Tampering::Changed)
    } else if entry.epoch < last.position.epoch {
        Some(Tampering::EpochFell)
    } else {
        None
    };
    fault.map_or(Ok(()), |what| Err(Tampered { seq: entry.seq, what }))
}

/// The text is what was hashed; the body is what is acted upon.
fn body_is_its_text(entry: &Entry) -> bool {
    serde_json::from_str(&entry.body_text).is_ok_and(|body: serde_json::Value| body == entry.body)
}

fn compare(last: Head, head: Option<(Position, Hash)>) -> Result<(), Tampered> {
    let (position, hash) = head.unwrap_or((Position::ORIGIN, Hash::ORIGIN));
    if position.seq > last.position.seq {
        return Err(Tampered { seq: last.position.seq + 1, what: Tampering::Cut });
    }
    if (Head { position, hash }) == last {
        return Ok(());
    }
    Err(Tampered { seq: last.position.seq, what: Tampering::HeadDiffers })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::chain::{chain, check};
    use crate::entry::Draft;

    fn journal(count: u64) -> (Vec<Entry>, Option<(Position, Hash)>) {
        let draft = |n: u64| Draft {
            epoch: n / 3,
            at_ms: 1_000 + n as i64,
            actor: format!("actor {n}"),
            reason: "why".to_owned(),
            kind: "kind".to_owned(),
            body: json!({"n": n, "share": 0.1 + n as f64}),
        };
        let checked = check(Position::ORIGIN, (0..count).map(draft).collect()).unwrap();
        let entries = chain("plan", Head::ORIGIN, checked);
        let head = entries.last().map(|last| (last.position(), last.hash));
        (entries, head)
    }

    #[test]
    fn c35_an_empty_journal_verifies_and_its_head_must_be_empty_too() {
        assert_eq!(verify(&[], None).unwrap(), Verified { count: 0, newest: Position::ORIGIN, head: Hash::ORIGIN });
        let (_, head) = journal(2);
        assert_eq!(verify(&[], head).unwrap_err(), Tampered { seq: 1, what: Tampering::Cut });
    }

    #[test]
    fn c35_entries_beyond_the_head_are_found() {
        let (entries, _) = journal(4);
        let older = Some((entries[2].position(), entries[2].hash));
        assert_eq!(verify(&entries, older).unwrap_err(), Tampered { seq: 4, what: Tampering::HeadDiffers });
        assert_eq!(verify(&entries, None).unwrap_err(), Tampered { seq: 4, what: Tampering::HeadDiffers });
    }

    #[test]
    fn c35_a_body_that_is_not_its_text_is_found() {
        let (mut entries, head) = journal(2);
        entries[1].body = json!({"n": 7});
        assert_eq!(verify(&entries, head).unwrap_err(), Tampered { seq: 2, what: Tampering::Changed });
    }

    #[test]
    fn c35_a_chain_forged_under_another_name_is_found() {
        let (mut entries, head) = journal(2);
        for entry in &mut entries {
            entry.plan = "other".to_owned();
        }
        assert_eq!(verify(&entries, head).unwrap_err(), Tampered { seq: 1, what: Tampering::Changed });
    }

    /// One way to tamper with the entry at the index.
    fn tamper(entries: &mut Vec<Entry>, at: usize, how: usize) {
        let next = (at + 1) % entries.len();
        match how {
            0 => entries[at].epoch += 1,
            1 => entries[at].at_ms -= 1,
            2 => entries[at].actor.push('x'),
            3 => entries[at].reason.clear(),
            4 => entries[at].kind.insert(0, ' '),
            5 => entries[at].body_text.push(' '),
            6 => entries[at].seq += 1,
            7 => entries[at].prev_hash = entries[at].hash,
            8 => entries[at].hash = entries[next].hash,
            9 => entries.swap(at, next),
            10 => drop(entries.remove(at)),
            11 => entries.insert(at, entries[next].clone()),
            12 => {
                entries[at].body_text = "null".to_owned();
                entries[at].hash = entries[at].computed_hash();
            }
            _ => {
                entries[at].actor = "somebody else".to_owned();
                entries[at].hash = entries[at].computed_hash();
            }
        }
    }

    proptest! {
        #[test]
        fn c35_any_single_tampering_is_found(count in 2_u64..12, at in any::<prop::sample::Index>(), how in 0_usize..14) {
            let (mut entries, head) = journal(count);
            prop_assert_eq!(verify(&entries, head).unwrap().count as u64, count);
            let at = at.index(entries.len());
            tamper(&mut entries, at, how);
            prop_assert!(verify(&entries, head).is_err(), "way {} at {} of {}", how, at, count);
        }
    }
}
