//! Writes that need to know nothing of the application, made all the while; and the user's own load beside them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cutover_core::{Side, plan::DatabaseUrl};
use cutover_postgres::clone::probe;
use cutover_traffic::{Endpoint, TrafficError, run_hook};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_postgres::Client;

use crate::{EngineError, EngineResult};

/// Between two writes.
const PACE: Duration = Duration::from_millis(20);

/// How long a write is waited for beyond the pause's budget.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long writes may fail to come through after a switch.
const COME_THROUGH: Duration = Duration::from_secs(30);

/// Between two looks at how far the writes are.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A client that writes one row after the other, by whatever way lets it.
pub(super) struct Load {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What the client saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<String>,
    last_error: Option<String>,
}

impl Load {
    /// Begins to write. `ways` are tried in turn when one refuses.
    pub(super) fn start(ways: Vec<DatabaseUrl>, tag: &str, budget: Duration) -> Self {
        let seen = Arc::new(Mutex::default());
        let client = Writer { ways, at: 0, session: None, patience: budget + PATIENCE };
        Self { seen: Arc::clone(&seen), task: tokio::spawn(client.write_on(tag.to_owned(), seen)) }
    }

    /// Rows that were acknowledged so far, oldest first.
    pub(super) fn acknowledged(&self) -> Vec<String> {
        self.seen().acknowledged.clone()
    }

    /// Waits until so many more rows are acknowledged.
    pub(super) async fn comes_through(&self, more: usize) -> EngineResult<()> {
        let (wanted, until) = (self.seen().acknowledged.len() + more, Instant::now() + COME_THROUGH);
        while self.seen().acknowledged.len() < wanted {
            if Instant::now() >= until {
                let why = self.seen().last_error.clone().unwrap_or_else(|| "no answer".to_owned());
                let what = format!("no client's write came through for {} s: {why}", COME_THROUGH.as_secs());
                return Err(EngineError::Mismatch { what, hint: "the side in charge must take writes".to_owned() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    ways: Vec<DatabaseUrl>,
    at: usize,
    session: Option<Client>,
    patience: Duration,
}

impl Writer {
    async fn write_on(mut self, tag: String, seen: Arc<Mutex<Seen>>) {
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 1_u64.. {
            tick.tick().await;
            let row = format!("{tag}-{number}");
            match tokio::time::timeout(self.patience, self.write(&row)).await {
                Ok(Ok(())) => lock(&seen).acknowledged.push(row),
                Ok(Err(error)) => {
                    lock(&seen).last_error = Some(error.to_string());
                    self.go_elsewhere();
                }
                // Its outcome is not known, so nothing is claimed of it.
                Err(_) => self.go_elsewhere(),
            }
        }
    }

    async fn write(&mut self, row: &str) -> EngineResult<()> {
        let session = match &mut self.session {
            Some(session) => session,
            None => self.session.insert(probe::client(&self.ways[self.at]).await?),
        };
        Ok(probe::write(session, row).await?)
    }

    fn go_elsewhere(&mut self) {
        self.session = None;
        self.at = (self.at + 1) % self.ways.len();
    }
}

/// The user's own load: a command that runs until it ends or we end it.
pub(super) struct Command {
    task: JoinHandle<Result<(), TrafficError>>,
}

impl Command {
    /// Starts it, with the way in its environment.
    pub(super) fn start(command: &str, way: DatabaseUrl, plan: &str, limit: Duration, folder: PathBuf) -> Self {
        let environment = [("CUTOVER_PLAN".to_owned(), plan.to_owned()), ("CUTOVER_ACTION".to_owned(), "load".to_owned())];
        let (command, to) = (command.to_owned(), Endpoint { side: Side::Source, url: way });
        Self { task: tokio::spawn(async move { run_hook(&command, &to, &environment, limit, &folder).await.map(drop) }) }
    }

    /// Ends it. One that had ended by itself must have ended well.
    pub(super) async fn end(mut self) -> EngineResult<String> {
        if !self.task.is_finished() {
            return Ok("ran until it was ended".to_owned());
        }
        match (&mut self.task).await {
            Ok(Ok(())) => Ok("ended by itself".to_owned()),
            Ok(Err(error)) => Err(EngineError::Hook(format!("the load failed: {}", error.report()))),
            Err(error) => Err(EngineError::Hook(format!("the load broke down: {error}"))),
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.task.abort();
    }
}
