//! The journal as it grows, told to everybody in this process who listens.

use std::{sync::Arc, time::Duration};

use cutover_core::{
    State,
    clients::{Places, Unit},
};
use cutover_engine::{Cutover, EngineResult, Follower};
use cutover_journal::Entry;
use serde_json::Value;
use tokio::{sync::broadcast, time::Instant};

use crate::front::{Front, Tables, View};

/// Entries that a slow reader of the stream of events may be behind before it has to read the journal again.
const BACKLOG: usize = 1024;

/// After a failure of the journal, the time until it is asked again.
pub(crate) const REST: Duration = Duration::from_millis(250);

/// What the stream of events tells.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// An entry of the journal.
    Entry(Arc<Entry>),
    /// What a driver in this server tells.
    Notice { kind: &'static str, data: Value },
}

/// Follows the journal.
#[derive(Debug)]
pub(crate) struct Story {
    cutover: Arc<str>,
    places: Arc<Places>,
    told: broadcast::Sender<Told>,
}

impl Story {
    /// Reads the journal, and says how things stand.
    pub(crate) async fn open(cutover: &Cutover, places: Places) -> EngineResult<(Self, Follower, View)> {
        let story = Self { cutover: cutover.plan().name.as_str().into(), places: Arc::new(places), told: broadcast::Sender::new(BACKLOG) };
        let as_of = Instant::now();
        let follower = cutover.follow().await?;
        let view = story.view(&follower, as_of);
        Ok((story, follower, view))
    }

    /// Tells each entry that comes from here on, and what is told besides.
    pub(crate) fn told(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    /// Tells those who listen something besides.
    pub(crate) fn tell(&self, kind: &'static str, data: Value) {
        self.told.send(Told::Notice { kind, data }).ok();
    }

    /// Follows until it is dropped. `every` is how often it is made sure that nothing newer is there.
    pub(crate) async fn follow(&self, cutover: &Cutover, front: &Front, mut follower: Follower, every: Duration) {
        loop {
            let asked_at = Instant::now();
            match cutover.follow_on(&mut follower, every).await {
                Ok(entries) => {
                    front.see(self.view(&follower, asked_at));
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

    fn view(&self, follower: &Follower, as_of: Instant) -> View {
        let route = follower.state().map(State::route).unwrap_or_default();
        let trial = follower.state().and_then(|state| state.trial.clone()).map(Arc::new);
        let (cutover, places, units) = (self.cutover.clone(), self.places.clone(), [Unit::of_switch(&route)].into());
        View { cutover, places, revision: follower.seq(), route, units, tables: Tables::default(), trial, as_of }
    }
}
