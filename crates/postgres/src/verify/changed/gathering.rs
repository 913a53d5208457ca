//! Reads the stream of changes in the background, for as long as it is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cutover_core::Lsn;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::keys::Gathered;
use crate::{
    PgError, PgResult,
    catalogue::QualifiedName,
    replication::{Feed, Sent, Source},
};

/// The stream's reader. Dropping it ends its session, and with it the temporary slot.
pub(super) struct Gathering {
    gathered: Arc<Mutex<Gathered>>,
    reached: watch::Receiver<Reached>,
    reader: JoinHandle<()>,
    address: String,
}

/// How far the reader has come.
#[derive(Clone, Debug, Default)]
struct Reached {
    position: Lsn,
    /// Why it reads no more.
    ended: Option<String>,
}

impl Gathering {
    /// Begins to read, from where the stream's own slot is.
    pub(super) async fn start(source: &Source<'_>, keys: HashMap<QualifiedName, Vec<String>>) -> PgResult<Self> {
        let feed = Feed::start(source).await?;
        let gathered = Arc::new(Mutex::new(Gathered::new(keys)));
        let (told, reached) = watch::channel(Reached::default());
        let reader = tokio::spawn(read(feed, Arc::clone(&gathered), told));
        Ok(Self { gathered, reached, reader, address: source.url.address() })
    }

    /// Why nothing is read any more, if so.
    pub(super) fn ended(&self) -> Option<String> {
        self.reached.borrow().ended.clone()
    }

    pub(super) fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything is gathered that committed before a position.
    pub(super) async fn await_position(&self, lsn: Lsn, deadline: Instant) -> PgResult<()> {
        self.wait(deadline, &format!("reading the changes up to {lsn}"), |reached| reached.position >= lsn).await
    }

    /// Waits until everything is gathered that committed before a marker.
    pub(super) async fn await_marker(&self, marker: &str, deadline: Instant) -> PgResult<()> {
        self.wait(deadline, &format!("reading the changes up to the marker {marker}"), |_| self.gathered().saw(marker)).await
    }

    async fn wait(&self, deadline: Instant, doing: &str, done: impl Fn(&Reached) -> bool) -> PgResult<()> {
        let began = Instant::now();
        let mut reached = self.reached.clone();
        let ended = |why: &str| PgError::Connect { address: self.address.clone(), reason: format!("{doing}: {why}") };
        loop {
            {
                let now = reached.borrow_and_update();
                if done(&now) {
                    return Ok(());
                }
                if let Some(why) = &now.ended {
                    return Err(ended(why));
                }
            }
            match timeout_at(deadline, reached.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ended("the reader is gone")),
                Err(_) => return Err(PgError::TimedOut { doing: doing.to_owned(), limit: began.elapsed() }),
            }
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut feed: Feed, gathered: Arc<Mutex<Gathered>>, told: watch::Sender<Reached>) {
    let ended = loop {
        let position = match feed.next().await {
            Ok(Sent::Message(position, message)) => {
                if !gathered.lock().unwrap_or_else(PoisonError::into_inner).read(message) {
                    break "a message of the stream is not understood".to_owned();
                }
                position
            }
            Ok(Sent::Position(position)) => position,
            Err(error) => break error.to_string(),
        };
        told.send_modify(|reached| reached.position = position);
    };
    told.send_modify(|reached| reached.ended = Some(ended));
}
