//! The journal in PostgreSQL: for several controllers.

mod connection;
mod drive;
mod rows;
mod schema;
mod store;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Client;

use self::connection::Way;

use crate::chain;
use crate::entry::{Draft, Entry, Position, Snapshot};
use crate::error::{AppendError, DriveError, JournalError};
use crate::hash::Hash;
use crate::hold::{Hold, holder_name};
use crate::limits;
use crate::roster::{self, Row};
use crate::{Journal, LONGEST_WAIT};
pub(crate) use drive::SessionHold;

/// How often a waiting [`Journal::tail`] looks even without a notification, which a broken connection can swallow.
const LOOK: Duration = Duration::from_secs(1);

/// A plan's journal in the schema `cutover_journal` of a PostgreSQL database. Its methods must be called within a
/// tokio runtime. A connection that was lost is made anew at the next call.
pub struct PostgresJournal {
    way: Way,
    location: String,
    plan: String,
    session: Mutex<Session>,
    /// Changed when somebody wrote to any plan's journal or roster.
    notified: watch::Sender<()>,
}

/// The session with the server, one user at a time.
///
/// Whoever uses the client takes it out and puts it back only once all is well. So a call that failed, or whose future
/// was dropped, never leaves a session behind that is in the middle of something.
#[derive(Default)]
struct Session {
    client: Option<Client>,
    /// A COMMIT was sent whose outcome isn't known, by this process or by the driver before it. It can still be under
    /// way: on the network, or in the server waiting for a standby. Reading now could miss what lands a moment later.
    unsettled: bool,
}

/// Opens the journal of `plan` in the database that `url` names, and creates its
/// schema if it isn't there: the role needs CREATE on the database for that, and nothing more. The connection must be
/// one to the server itself: a pooler that shares sessions breaks the right to drive.
///
/// With `tls` the connection is encrypted as that says: always where the URL's `sslmode` is `require`, and with `prefer`
/// where the server speaks TLS.
///
/// # Errors
/// When the name can't be a plan's, the URL can't be read, the server can't be reached within ten seconds or is no
/// primary, the schema can't be created, or it has another format.
pub async fn open_postgres(url: &str, tls: Option<ClientConfig>, plan: &str) -> Result<PostgresJournal, JournalError> {
    let plan = limits::plan_name(plan)?;
    let way = Way::new(url, tls)?;
    let location = connection::location(&way.config);
    let journal = PostgresJournal { way, location, plan, session: Mutex::default(), notified: watch::Sender::new(()) };
    let mut client = journal.connect().await?;
    schema::prepare(&mut client, &journal.location).await?;
    store::warn_if_not_durable(&client, &journal.location).await?;
    journal.session.lock().await.client = Some(client);
    Ok(journal)
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn append_if(&self, expected: Position, drafts: Vec<Draft>) -> Result<Vec<Entry>, AppendError> {
        let drafts = chain::check(expected, drafts)?;
        let mut session = self.session.lock().await;
        let client = self.begun(&mut session).await.map_err(|source| AppendError::Failed { source })?;
        match store::stage(&client, &self.plan, expected, drafts).await {
            Ok(entries) => commit(&mut session, client).await.map(|()| entries),
            Err(conflict @ AppendError::Conflict { .. }) => {
                session.client = store::roll_back(&client).await.is_ok().then_some(client);
                Err(conflict)
            }
            Err(other) => Err(other),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, JournalError> {
        let mut session = self.session.lock().await;
        let mut client = self.settled(&mut session).await?;
        let snapshot = store::snapshot(&mut client, &self.plan).await?;
        session.client = Some(client);
        Ok(snapshot)
    }

    async fn head(&self) -> Result<Option<(Position, Hash)>, JournalError> {
        let mut session = self.session.lock().await;
        let client = self.settled(&mut session).await?;
        let head = store::head(&client, &self.plan).await?;
        session.client = Some(client);
        Ok(head.published())
    }

    async fn tail(&self, after_seq: u64, wait: Duration) -> Result<Vec<Entry>, JournalError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let mut notified = self.notified.subscribe();
        loop {
            notified.mark_unchanged();
            let newer = self.after(after_seq).await?;
            if !newer.is_empty() || Instant::now() >= deadline {
                return Ok(newer);
            }
            // Either way it is time to look again.
            let _ = timeout_at(deadline.min(Instant::now() + LOOK), notified.changed()).await;
        }
    }

    async fn drive(&self, who: &str) -> Result<Hold, DriveError> {
        limits::driver(who).map_err(JournalError::from)?;
        let hold = drive::take(&self.way, &self.plan, holder_name(who)).await?;
        // What the driver before sent last may land yet; this one must not read before that.
        self.session.lock().await.unsettled = true;
        Ok(hold)
    }

    async fn write_row(&self, server: &str, beat: u64, lease_ms: u64, body: &Value) -> Result<(), JournalError> {
        let draft = roster::check(server, beat, lease_ms, body)?;
        let mut session = self.session.lock().await;
        let client = self.living(&mut session).await?;
        rows::write(&client, &self.plan, &draft).await?;
        session.client = Some(client);
        Ok(())
    }

    async fn rows(&self) -> Result<Vec<Row>, JournalError> {
        let mut session = self.session.lock().await;
        let client = self.living(&mut session).await?;
        let rows = rows::read(&client, &self.plan).await?;
        session.client = Some(client);
        Ok(rows)
    }

    async fn rows_changed(&self, known: &[Row], wait: Duration) -> Result<Vec<Row>, JournalError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let mut notified = self.notified.subscribe();
        loop {
            notified.mark_unchanged();
            let rows = self.rows().await?;
            if rows != known || Instant::now() >= deadline {
                return Ok(rows);
            }
            let _ = timeout_at(deadline.min(Instant::now() + LOOK), notified.changed()).await;
        }
    }

    async fn remove_row(&self, server: &str) -> Result<(), JournalError> {
        let mut session = self.session.lock().await;
        let client = self.living(&mut session).await?;
        rows::remove(&client, &self.plan, server).await?;
        session.client = Some(client);
        Ok(())
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

impl PostgresJournal {
    async fn after(&self, seq: u64) -> Result<Vec<Entry>, JournalError> {
        // No entry has a number that PostgreSQL can't hold.
        let Ok(seq) = i64::try_from(seq) else { return Ok(Vec::new()) };
        let mut session = self.session.lock().await;
        let client = self.settled(&mut session).await?;
        let newer = store::after(&client, &self.plan, seq).await?;
        session.client = Some(client);
        Ok(newer)
    }

    /// A client in a transaction; on a new session where the old one was found dead, as after the server's restart.
    async fn begun(&self, session: &mut Session) -> Result<Client, JournalError> {
        let client = self.client(session).await?;
        if store::begin(&client).await.is_ok() {
            return Ok(client);
        }
        let client = self.connect().await?;
        store::begin(&client).await?;
        Ok(client)
    }

    /// A client that sees the outcome of everything sent before: a transaction that is still appending holds the
    /// head's lock until it ends, so having had that lock means that it has ended.
    async fn settled(&self, session: &mut Session) -> Result<Client, JournalError> {
        if !session.unsettled {
            return self.living(session).await;
        }
        let client = self.begun(session).await?;
        store::lock_head(&client, &self.plan).await?;
        store::roll_back(&client).await?;
        session.unsettled = false;
        Ok(client)
    }

    /// A client that has just answered; a new one where the old one didn't, as after the server's restart.
    async fn living(&self, session: &mut Session) -> Result<Client, JournalError> {
        let client = self.client(session).await?;
        if store::answers(&client).await { Ok(client) } else { self.connect().await }
    }

    /// The client, made anew if there is none, or if it is known to be dead.
    async fn client(&self, session: &mut Session) -> Result<Client, JournalError> {
        match session.client.take().filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<Client, JournalError> {
        let client = connection::connect(&self.way, Some(self.notified.clone())).await?;
        store::listen(&client).await?;
        Ok(client)
    }
}

impl fmt::Debug for PostgresJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresJournal").field("location", &self.location).field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Commits what the client has staged. The doubt is noted first, so that it stays when this future is dropped.
async fn commit(session: &mut Session, client: Client) -> Result<(), AppendError> {
    let doubted = std::mem::replace(&mut session.unsettled, true);
    store::commit(&client).await.map_err(|source| AppendError::Unknown { source })?;
    session.unsettled = doubted;
    session.client = Some(client);
    Ok(())
}
