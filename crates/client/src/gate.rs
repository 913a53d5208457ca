//! One word that says until when writes may begin, and the counts of those under way.
//!
//! Whoever writes counts itself and *then* looks at the word; whoever closes changes the word and *then* looks at the
//! counts. Both change the count by a read-modify-write, and of these one comes first. If it is the writer's, the closer
//! sees it counted. If it is the closer's, the writer's reads what the closer wrote, so the writer sees the word closed.
//! So no guard is ever taken between closing and the look at the counts, without a fence on the writer's side.
//! `model.rs` tries all interleavings.

use std::fmt;

use super::sync::{AtomicU64, Ordering, SHARDS};

/// Epochs under which writes may be under way at the same time.
pub(crate) const BANKS: usize = 4;

const BANK_BITS: u32 = BANKS.trailing_zeros();
const BANK_MASK: u64 = BANKS as u64 - 1;

/// The latest instant that fits into the word: 146 years.
const LATEST: u64 = u64::MAX >> BANK_BITS;

/// Nothing may begin.
const CLOSED: u64 = 0;

/// Two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
struct Alone<T>(T);

/// Only one task opens and closes it; any thread may enter and leave. Instants are nanoseconds of the caller's clock.
pub(crate) struct Gate {
    /// Until when, above the bank. Closed where no instant is left.
    word: Alone<AtomicU64>,
    /// The epoch of each bank. Constant while writes are counted there.
    epochs: [AtomicU64; BANKS],
    counts: [Alone<[AtomicU64; BANKS]>; SHARDS],
}

/// Stands for one write that is counted. It has to be given back to [`Gate::leave`].
#[derive(Debug)]
pub(crate) struct Ticket {
    bank: usize,
    shard: usize,
    epoch: u64,
}

impl Ticket {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { word: Alone(AtomicU64::new(CLOSED)), epochs: zeros(), counts: std::array::from_fn(|_| Alone(zeros())) }
    }

    /// Whether a write may begin now.
    pub(crate) fn is_open(&self, now: u64) -> bool {
        until(self.word.0.load(Ordering::Acquire)) > now
    }

    /// Counts a write, if one may begin now. `shard` is any number; threads that have different ones don't disturb each
    /// other. `in_vain` is called after it was counted for a moment and then was not admitted: somebody who closes may
    /// have seen the count.
    pub(crate) fn enter(&self, shard: usize, now: impl Fn() -> u64, in_vain: impl Fn()) -> Option<Ticket> {
        let shard = shard % SHARDS;
        let mut seen = self.word.0.load(Ordering::Acquire);
        // Ends: each further round means that the gate was opened under another epoch meanwhile.
        while seen != CLOSED {
            let bank = bank(seen);
            self.counts[shard].0[bank].fetch_add(1, Ordering::AcqRel);
            seen = self.word.0.load(Ordering::Acquire);
            let ticket = Ticket { bank, shard, epoch: self.epochs[bank].load(Ordering::Relaxed) };
            let now = now();
            if self.admits(&ticket, seen, now) {
                return Some(ticket);
            }
            self.uncount(&ticket);
            in_vain();
            if until(seen) <= now {
                return None;
            }
        }
        None
    }

    /// Counts a write once more that is counted already, open or not.
    pub(crate) fn enter_again(&self, ticket: &Ticket) -> Ticket {
        self.counts[ticket.shard].0[ticket.bank].fetch_add(1, Ordering::AcqRel);
        Ticket { ..*ticket }
    }

    /// Takes a write back. Returns whether somebody may be waiting for it.
    pub(crate) fn leave(&self, ticket: &Ticket) -> bool {
        self.uncount(ticket);
        let word = self.word.0.load(Ordering::Acquire);
        word == CLOSED || bank(word) != ticket.bank
    }

    /// Whether a write that entered could still enter under the same epoch.
    pub(crate) fn still_admits(&self, ticket: &Ticket, now: u64) -> bool {
        self.admits(ticket, self.word.0.load(Ordering::Acquire), now)
    }

    /// Lets writes begin until an instant, counted in a bank. One that had another epoch has to be drained.
    pub(crate) fn open(&self, bank: usize, epoch: u64, until: u64) {
        self.epochs[bank].store(epoch, Ordering::Relaxed);
        self.word.0.store(until.min(LATEST) << BANK_BITS | bank as u64, Ordering::Release);
    }

    /// Lets no write begin.
    pub(crate) fn close(&self) {
        self.word.0.store(CLOSED, Ordering::Release);
    }

    /// Whether no write is under way in a bank, after the gate was closed or opened for another bank.
    ///
    /// It is enough to see each count at zero once: no new write comes to a bank that is closed.
    pub(crate) fn is_drained(&self, bank: usize) -> bool {
        self.counts.iter().all(|shard| shard.0[bank].fetch_add(0, Ordering::AcqRel) == 0)
    }

    fn admits(&self, ticket: &Ticket, word: u64, now: u64) -> bool {
        bank(word) == ticket.bank && until(word) > now
    }

    fn uncount(&self, ticket: &Ticket) {
        self.counts[ticket.shard].0[ticket.bank].fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

fn until(word: u64) -> u64 {
    word >> BANK_BITS
}

fn bank(word: u64) -> usize {
    (word & BANK_MASK) as usize
}
