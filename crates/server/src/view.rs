//! What the server knows of the cutover: the journal's fold, as of a moment that is known.

use std::{sync::Arc, time::Duration};

use cutover_core::{Route, State};
use cutover_engine::{Cutover, EngineResult, Follower};
use cutover_journal::Entry;
use serde_json::Value;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

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

/// Follows the journal, for everybody in this process.
#[derive(Debug)]
pub(crate) struct Watcher {
    view: watch::Sender<View>,
    told: broadcast::Sender<Told>,
}

impl Watcher {
    /// Reads the journal.
    pub(crate) async fn open(cutover: &Cutover) -> EngineResult<(Self, Follower)> {
        let as_of = Instant::now();
        let follower = cutover.follow().await?;
        let view = View::of(&follower, as_of);
        Ok((Self { view: watch::Sender::new(view), told: broadcast::Sender::new(BACKLOG) }, follower))
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

    /// Tells everybody who subscribed.
    pub(crate) fn publish(&self, view: View) {
        self.view.send_replace(view);
    }

    /// Follows until it is dropped, and says what it saw. `every` is how often it is made sure that nothing newer is there.
    pub(crate) async fn follow(&self, cutover: &Cutover, mut follower: Follower, every: Duration, see: impl Fn(View)) {
        loop {
            let asked_at = Instant::now();
            match cutover.follow_on(&mut follower, every).await {
                Ok(entries) => {
                    see(View::of(&follower, asked_at));
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
