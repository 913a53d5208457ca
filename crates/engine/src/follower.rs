//! The journal as somebody follows it who does not drive.

use std::time::Duration;

use cutover_core::{
    State,
    clients::{Heard, Report},
};
use cutover_journal::Entry;

use crate::{Cutover, EngineError, EngineResult, audience::heard, log::fold_onto};

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

    /// What further entries make of it.
    fn with(&self, entries: &[Entry]) -> EngineResult<Self> {
        let seq = entries.last().map_or(self.seq, |entry| entry.seq);
        Ok(Self { seq, state: fold_onto(self.state.clone(), entries)? })
    }
}

impl Cutover {
    /// Reads the journal up to now.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn follow(&self) -> EngineResult<Follower> {
        Follower::default().with(&self.journal.load().await?)
    }

    /// Reads on: the entries since, as soon as there is one; none when `wait` has passed.
    ///
    /// # Errors
    /// If the journal can't be read. Then nothing of it was taken, and the next call begins at the same place.
    pub async fn follow_on(&self, follower: &mut Follower, wait: Duration) -> EngineResult<Vec<Entry>> {
        let entries = self.journal.tail(follower.seq, wait).await?;
        *follower = follower.with(&entries)?;
        Ok(entries)
    }

    /// Writes down what a server and its clients have heard, for whoever drives. `beat` is another one each time. No lease
    /// that the server gives lasts longer than `lease` after this was called.
    ///
    /// The order closes a race: a server writes its first report before it reads the journal, a driver reads the reports
    /// after it has written to the journal. Whoever is second sees the other.
    ///
    /// # Errors
    /// If the journal's store can't be written.
    pub async fn report(&self, server: &str, beat: u64, lease: Duration, report: &Report) -> EngineResult<()> {
        let body = serde_json::to_value(report).map_err(|error| EngineError::Mismatch {
            what: format!("a report can't be written down: {error}"),
            hint: "report this as a bug".to_owned(),
        })?;
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Ok(self.journal.write_row(server, beat, lease_ms, &body).await?)
    }

    /// What all servers have written down.
    ///
    /// # Errors
    /// If the journal's store can't be read.
    pub async fn servers(&self) -> EngineResult<Vec<Heard>> {
        Ok(self.journal.rows().await?.iter().map(heard).collect())
    }

    /// Forgets a server that has ended and given no lease that still holds.
    ///
    /// # Errors
    /// If the journal's store can't be written.
    pub async fn forget_server(&self, server: &str) -> EngineResult<()> {
        Ok(self.journal.remove_row(server).await?)
    }
}
