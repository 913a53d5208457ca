//! The journal in a file: the embedded default, for one host.

mod connection;
mod lock;
mod rows;
mod store;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};

use crate::chain;
use crate::entry::{Draft, Entry, Position, Snapshot};
use crate::error::{AppendError, DriveError, JournalError};
use crate::hash::Hash;
use crate::hold::{Hold, holder_name};
use crate::limits;
use crate::roster::{self, Row};
use crate::{Journal, LONGEST_WAIT};
pub(crate) use lock::FileHold;
use store::Store;

/// How often the file is looked at for what other processes wrote; SQLite can't call anybody. A freeze must reach
/// clients at once.
const LOOK: Duration = Duration::from_millis(4);

/// A plan's journal in an SQLite file. Its methods must be called within a tokio runtime; the file is used on threads
/// where blocking is allowed.
pub struct SqliteJournal {
    store: Arc<Store>,
    /// Nothing after a commit failed: the file must be opened anew to learn what became of it.
    connection: Arc<Mutex<Option<Connection>>>,
    /// For the servers' rows, which are not synced; opened when it is first used.
    quick: Arc<Mutex<Option<Connection>>>,
    /// Wakes those who wait in this process at once, for entries or for rows.
    written: watch::Sender<()>,
}

/// Opens the journal of `plan` in the file at `path`, which is created if it isn't there; its folder must be.
/// Beside it SQLite keeps `-wal` and `-shm` files, and each driven plan a `.lock` and a `.holder` file.
///
/// # Errors
/// When the name can't be a plan's, the file can't be used, is something else than a journal, has another format, or
/// lies where it can't be made durable (some network file systems).
pub async fn open_sqlite(path: &Path, plan: &str) -> Result<SqliteJournal, JournalError> {
    let plan = limits::plan_name(plan)?;
    let path = path.to_owned();
    let doing = "open the journal";
    let opened = tokio::task::spawn_blocking(move || Store::open(&path, plan)).await;
    let (store, connection) = opened.map_err(|_| JournalError::Stopped { doing })??;
    let connection = Arc::new(Mutex::new(Some(connection)));
    Ok(SqliteJournal { store: Arc::new(store), connection, quick: Arc::default(), written: watch::Sender::new(()) })
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append_if(&self, expected: Position, drafts: Vec<Draft>) -> Result<Vec<Entry>, AppendError> {
        let drafts = chain::check(expected, drafts)?;
        let appended = self.blocking(move |store, slot| store.append(slot, expected, drafts)).await;
        let stopped = |_| AppendError::Unknown { source: JournalError::Stopped { doing: "append to the journal" } };
        let entries = appended.map_err(stopped)??;
        self.written.send_replace(());
        Ok(entries)
    }

    async fn snapshot(&self) -> Result<Snapshot, JournalError> {
        self.blocking(Store::snapshot).await.map_err(stopped)?
    }

    async fn head(&self) -> Result<Option<(Position, Hash)>, JournalError> {
        self.blocking(Store::head).await.map_err(stopped)?
    }

    async fn tail(&self, after_seq: u64, wait: Duration) -> Result<Vec<Entry>, JournalError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let mut written = self.written.subscribe();
        loop {
            let newer = self.blocking(move |store, slot| store.after(slot, after_seq)).await.map_err(stopped)??;
            if !newer.is_empty() || Instant::now() >= deadline {
                return Ok(newer);
            }
            // Either way it is time to look again.
            let _ = timeout_at(deadline.min(Instant::now() + LOOK), written.changed()).await;
        }
    }

    async fn drive(&self, who: &str) -> Result<Hold, DriveError> {
        limits::driver(who).map_err(JournalError::from)?;
        let who = holder_name(who);
        let doing = "take the lock of the plan";
        let store = Arc::clone(&self.store);
        let taken = tokio::task::spawn_blocking(move || lock::take(store.path(), store.plan(), who)).await;
        taken.map_err(|_| JournalError::Stopped { doing })?
    }

    async fn write_row(&self, server: &str, beat: u64, lease_ms: u64, body: &Value) -> Result<(), JournalError> {
        let draft = Arc::new(roster::check(server, beat, lease_ms, body)?);
        let update = Arc::clone(&draft);
        let updated = self.on(&self.quick, move |store, slot| store.update_row(slot, &update)).await.map_err(stopped)??;
        if !updated {
            self.blocking(move |store, slot| store.insert_row(slot, &draft)).await.map_err(stopped)??;
        }
        self.written.send_replace(());
        Ok(())
    }

    async fn rows(&self) -> Result<Vec<Row>, JournalError> {
        self.on(&self.quick, Store::rows).await.map_err(stopped)?
    }

    async fn rows_changed(&self, known: &[Row], wait: Duration) -> Result<Vec<Row>, JournalError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let mut written = self.written.subscribe();
        loop {
            let rows = self.rows().await?;
            if rows != known || Instant::now() >= deadline {
                return Ok(rows);
            }
            let _ = timeout_at(deadline.min(Instant::now() + LOOK), written.changed()).await;
        }
    }

    async fn remove_row(&self, server: &str) -> Result<(), JournalError> {
        let server = server.to_owned();
        self.on(&self.quick, move |store, slot| store.remove_row(slot, &server)).await.map_err(stopped)??;
        self.written.send_replace(());
        Ok(())
    }

    fn location(&self) -> String {
        self.store.path().display().to_string()
    }
}

impl SqliteJournal {
    /// Does the work on a thread that may block. The connection goes with it: even where the caller stops waiting
    /// before it has begun, whatever is asked next comes after it.
    async fn blocking<T, F>(&self, work: F) -> Result<T, JoinError>
    where
        T: Send + 'static,
        F: FnOnce(&Store, &mut Option<Connection>) -> T + Send + 'static,
    {
        self.on(&self.connection, work).await
    }

    async fn on<T, F>(&self, connection: &Arc<Mutex<Option<Connection>>>, work: F) -> Result<T, JoinError>
    where
        T: Send + 'static,
        F: FnOnce(&Store, &mut Option<Connection>) -> T + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let mut slot = Arc::clone(connection).lock_owned().await;
        tokio::task::spawn_blocking(move || work(&store, &mut slot)).await
    }
}

impl fmt::Debug for SqliteJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteJournal").field("path", &self.store.path()).field("plan", &self.store.plan()).finish_non_exhaustive()
    }
}

fn stopped(_: JoinError) -> JournalError {
    JournalError::Stopped { doing: "use the journal" }
}
