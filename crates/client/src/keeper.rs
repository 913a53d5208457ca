//! What the answers of the server mean: until when writes may begin, and which epoch can be acknowledged. Pure.
//!
//! Instants are nanoseconds of the client's own monotonic clock.

use cutover_api::Permit;

use crate::gate::{BANKS, Gate};

const NANOS_IN_MILLI: u64 = 1_000_000;

/// Takes the answers, moves the gate. There is one, in one task.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    known: Option<Permit>,
    /// When the lease of what is known runs out.
    until: u64,
    /// The epoch under which writes were let in, by bank. None: no write is counted there.
    banks: [Option<u64>; BANKS],
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is what holds now. `news`: it says something else than the one before.
    Applied { news: bool },
    /// It is older than what is known.
    Stale { revision: u64, epoch: u64 },
    /// It is about another cutover.
    Other { cutover: String },
}

impl Keeper {
    /// What holds.
    pub(crate) fn known(&self) -> Option<&Permit> {
        self.known.as_ref()
    }

    /// When the lease of what is known runs out.
    pub(crate) fn until(&self) -> u64 {
        self.until
    }

    /// Takes an answer to a request that was sent at an instant, and opens or closes the gate accordingly.
    pub(crate) fn take(&mut self, gate: &Gate, permit: Permit, sent: u64) -> Taken {
        if let Some(known) = &self.known {
            if permit.cutover != known.cutover {
                return Taken::Other { cutover: permit.cutover };
            }
            if permit.revision < known.revision || permit.epoch < known.epoch {
                return Taken::Stale { revision: permit.revision, epoch: permit.epoch };
            }
        }
        let until = sent.saturating_add(permit.lease_ms.saturating_mul(NANOS_IN_MILLI));
        // The lease may have been given a little shorter than the one before; each was honest when it was given.
        let renews = self.known.as_ref().is_some_and(|known| known.epoch == permit.epoch && known.write && permit.write);
        self.until = if renews && permit.lease_ms > 0 { self.until.max(until) } else { until };
        let news = self.known.as_ref().is_none_or(|known| Permit { lease_ms: permit.lease_ms, ..known.clone() } != permit);
        self.known = Some(permit);
        self.move_gate(gate);
        Taken::Applied { news }
    }

    /// Looks whether writes have ended that were waited for. Returns whether the gate opened.
    pub(crate) fn settle(&mut self, gate: &Gate) -> bool {
        let waited = self.may_open() && self.current_bank().is_none();
        self.forget_drained(gate);
        if waited {
            self.move_gate(gate);
        }
        waited && self.current_bank().is_some()
    }

    /// The epoch that this client acts on: no write of it is under way under an older one. Call [`Keeper::settle`] first.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        let known = self.known.as_ref()?.epoch;
        Some(self.banks.iter().flatten().fold(known, |least, epoch| least.min(*epoch)))
    }

    /// Whether writes are under way that keep the newest epoch from being acknowledged, or from being written under.
    pub(crate) fn waits(&self) -> bool {
        self.known.as_ref().is_some_and(|known| self.acknowledged() < Some(known.epoch))
    }

    /// Lets no write begin any more. Returns whether none is under way.
    pub(crate) fn end(&mut self, gate: &Gate) -> bool {
        gate.close();
        (0..BANKS).all(|bank| gate.is_drained(bank))
    }

    fn move_gate(&mut self, gate: &Gate) {
        let Some(known) = self.known.as_ref().filter(|_| self.may_open()) else { return gate.close() };
        let epoch = known.epoch;
        if self.current_bank().is_none() && self.banks.iter().all(Option::is_some) {
            // One of them may have been left long ago. They are closed but for the one that is open, if any is: close that.
            gate.close();
            self.forget_drained(gate);
        }
        let free = || self.banks.iter().position(Option::is_none);
        match self.current_bank().or_else(free) {
            Some(bank) => {
                self.banks[bank] = Some(epoch);
                gate.open(bank, epoch, self.until);
            }
            None => gate.close(),
        }
    }

    /// The bank of the newest epoch is left out: as long as the gate is open for it, counts of zero mean nothing there.
    fn forget_drained(&mut self, gate: &Gate) {
        let newest = self.known.as_ref().map(|known| known.epoch);
        for (bank, epoch) in self.banks.iter_mut().enumerate() {
            if epoch.is_some() && *epoch != newest && gate.is_drained(bank) {
                *epoch = None;
            }
        }
    }

    fn may_open(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.write && known.lease_ms > 0)
    }

    fn current_bank(&self) -> Option<usize> {
        let epoch = self.known.as_ref()?.epoch;
        self.banks.iter().position(|bank| *bank == Some(epoch))
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
