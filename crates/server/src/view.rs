//! What the server knows of the cutover: the journal's fold, as of a moment that is known.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cutover_core::{
    Route, State,
    clients::{Desk, FutureEpoch, Renewal, Report},
};
use cutover_engine::{Cutover, EngineResult, Follower};
use cutover_journal::Entry;
use serde_json::Value;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use crate::permits::whole_ms;

/// Entries that a slow reader of the stream of events may be behind before it has to read the journal again.
const BACKLOG: usize = 1024;

/// After a failure of the journal, the time until it is asked again.
pub(crate) const REST: Duration = Duration::from_millis(250);

/// The fold of the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The newest entry's number; 0 while there is none.
    pub(crate) revision: u64,
    /// The route that it comes to.
    pub(crate) route: Route,
    /// When it was known that there was no newer entry.
    pub(crate) as_of: Instant,
}

impl View {
    fn of(follower: &Follower, as_of: Instant) -> Self {
        Self { revision: follower.seq(), route: follower.state().map(State::route).unwrap_or_default(), as_of }
    }
}

/// What the stream of events tells.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// An entry of the journal.
    Entry(Arc<Entry>),
    /// What a driver in this server tells.
    Notice { kind: &'static str, data: Value },
}

/// Follows the journal, for everybody in this process, and lends on what it knows.
#[derive(Debug)]
pub(crate) struct Watcher {
    view: watch::Sender<View>,
    told: broadcast::Sender<Told>,
    /// Changes together with the view: nobody is told of an epoch that can't be acknowledged here yet.
    desk: Mutex<Desk>,
    started: Instant,
}

impl Watcher {
    /// Reads the journal. The first report was begun at `started`, before this.
    pub(crate) async fn open(cutover: &Cutover, lease: Duration, started: Instant) -> EngineResult<(Self, Follower)> {
        let as_of = Instant::now();
        let follower = cutover.follow().await?;
        Ok((Self::at(View::of(&follower, as_of), lease, started), follower))
    }

    fn at(view: View, lease: Duration, started: Instant) -> Self {
        let desk = Mutex::new(Desk::new(whole_ms(lease), 0, view.route, ms_since(started, view.as_of)));
        Self { view: watch::Sender::new(view), told: broadcast::Sender::new(BACKLOG), desk, started }
    }

    /// What is known now.
    pub(crate) fn now(&self) -> View {
        *self.view.borrow()
    }

    /// Tells each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Tells each entry that comes from here on, and what is told besides.
    pub(crate) fn told(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    /// Tells those who listen something besides.
    pub(crate) fn tell(&self, kind: &'static str, data: Value) {
        self.told.send(Told::Notice { kind, data }).ok();
    }

    /// Takes up what the journal says, and tells everybody who subscribed. These come first: see [`Desk`].
    pub(crate) fn see(&self, view: View) {
        let mut desk = self.desk();
        self.view.send_replace(view);
        desk.see(view.route, self.ms(view.as_of));
    }

    /// Gives a client a lease, which counts from `arrived`, and says whether somebody was behind who isn't now. What the
    /// client is told has to be by the view that is known after this: see [`Desk`].
    pub(crate) fn lend(&self, renewal: &Renewal<'_>, arrived: Instant) -> Result<(Duration, bool), FutureEpoch> {
        let lent = self.desk().lend(renewal, self.ms(arrived))?;
        Ok((Duration::from_millis(lent.lease_ms), lent.caught_up))
    }

    /// Forgets a client that says that it has ended.
    pub(crate) fn leave(&self, key: &str) {
        self.desk().leave(key);
    }

    /// How much longer what is known may be relied on.
    pub(crate) fn fresh_for(&self) -> Duration {
        let until = self.desk().relies_until_ms();
        Duration::from_millis(until.saturating_sub(self.ms(Instant::now())))
    }

    /// The sum of all clients.
    pub(crate) fn report(&self) -> Report {
        self.desk().report(self.ms(Instant::now()))
    }

    /// A report that was begun at `asked_at` is written down.
    pub(crate) fn reported(&self, asked_at: Instant) {
        // One more, because both are rounded down: a reading that was begun in the same millisecond may have come before.
        self.desk().reported(self.ms(asked_at), self.ms(Instant::now()) + 1);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, at: Instant) -> u64 {
        ms_since(self.started, at)
    }

    /// Follows until it is dropped. `every` is how often it is made sure that nothing newer is there.
    pub(crate) async fn follow(&self, cutover: &Cutover, mut follower: Follower, every: Duration) {
        loop {
            let asked_at = Instant::now();
            match cutover.follow_on(&mut follower, every).await {
                Ok(entries) => {
                    self.see(View::of(&follower, asked_at));
                    for entry in entries {
                        self.told.send(Told::Entry(Arc::new(entry))).ok();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal can't be followed");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Rounded down.
fn ms_since(started: Instant, at: Instant) -> u64 {
    whole_ms(at.saturating_duration_since(started))
}

#[cfg(test)]
mod tests {
    use cutover_core::clients::Who;

    use super::*;

    #[test]
    fn an_epoch_that_somebody_was_told_of_can_be_acknowledged() {
        let started = Instant::now();
        let view = |epoch| View { revision: epoch, route: Route { epoch, ..Route::default() }, as_of: Instant::now() };
        let watcher = Watcher::at(view(0), Duration::from_secs(5), started);
        let newest = 100_000;
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=newest).for_each(|epoch| watcher.see(view(epoch))));
            let mut epoch = 0;
            while epoch < newest {
                epoch = watcher.now().route.epoch;
                let renewal = Renewal { key: "a", name: "a", who: Who::Keeps { place: None, acknowledged: Some(epoch) }, until_ms: 0 };
                watcher.lend(&renewal, Instant::now()).expect("it was told of it");
            }
        });
    }
}
