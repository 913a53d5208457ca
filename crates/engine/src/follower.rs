//! The journal as somebody follows it who does not drive.

use std::time::Duration;

use cutover_core::{State, apply};
use cutover_journal::Entry;

use crate::{Cutover, EngineResult, log::read};

/// How far a journal was read, and what it comes to.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    seq: u64,
    state: Option<State>,
}

impl Follower {
    /// The number of the newest entry that was read; 0 where there was none.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What the entries so far come to; none before the cutover has begun.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    fn take(&mut self, entries: &[Entry]) -> EngineResult<()> {
        for entry in entries {
            self.state = Some(apply(self.state.take(), &read(entry)?)?);
            self.seq = entry.seq;
        }
        Ok(())
    }
}

impl Cutover {
    /// Reads the journal up to now.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn follow(&self) -> EngineResult<Follower> {
        let mut follower = Follower::default();
        follower.take(&self.journal.load().await?)?;
        Ok(follower)
    }

    /// Reads on: the entries since, as soon as there is one; none when `wait` has passed.
    ///
    /// # Errors
    /// If the journal can't be read. Then nothing of it was taken, and the next call begins at the same place.
    pub async fn follow_on(&self, follower: &mut Follower, wait: Duration) -> EngineResult<Vec<Entry>> {
        let entries = self.journal.tail(follower.seq, wait).await?;
        let mut next = follower.clone();
        next.take(&entries)?;
        *follower = next;
        Ok(entries)
    }
}
