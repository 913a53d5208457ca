//! Tables with a shadow, as a server follows them: over a connection that hears of each change, and is made anew when it is lost.

pub mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cutover_core::plan::DatabaseUrl;
pub use cutover_postgres::shadow::routes::{Measures, Shown, Table};
use cutover_postgres::{
    PgError, PgResult,
    connect::{Purpose, connect_hearing},
    shadow::routes,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_postgres::Client;

pub use self::watch::Watch;
use crate::EngineResult;

/// How long one look may take, the connection included.
const LIMIT: Duration = Duration::from_secs(5);

/// After a change that was heard of, until it is looked at: several that come at once are one look.
const TOGETHER: Duration = Duration::from_millis(10);

/// A database with shadow tables.
#[derive(Debug)]
pub struct ShadowTables {
    url: DatabaseUrl,
    schema: String,
    heard: Arc<Notify>,
    client: Option<Client>,
    watched: Option<Duration>,
}

impl ShadowTables {
    /// Connects to nothing yet. `schema` is the one that holds the functions.
    #[must_use]
    pub fn new(url: DatabaseUrl, schema: String) -> Self {
        Self { url, schema, heard: Arc::default(), client: None, watched: None }
    }

    /// Has a server look after them so often: see [`Watch`]. Then `url` is of a role that may decide.
    #[must_use]
    pub fn watched(self, every: Option<Duration>) -> Self {
        Self { watched: every, ..self }
    }

    /// Whoever looks after them, if anybody is to.
    #[must_use]
    pub fn watch(&self) -> Option<Watch> {
        self.watched.map(|every| Watch::new(self.url.clone(), self.schema.clone(), every))
    }

    /// The same tables, over a connection of their own.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.url.clone(), self.schema.clone())
    }

    /// The database's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.url.database
    }

    /// The schema that holds the functions.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Where it is: `host:port/database`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.url.address(), self.url.database)
    }

    /// Where every table stands, as of some moment after this was called; and whether there are more than are told.
    ///
    /// # Errors
    /// The database can't be reached within five seconds, or has no such functions. The next call connects anew.
    pub async fn read(&mut self) -> EngineResult<(Vec<Table>, bool)> {
        let schema = self.schema.clone();
        Ok(self.asked(async |client| routes::tables(client, &schema).await).await?)
    }

    /// What was measured of every table, by name.
    ///
    /// # Errors
    /// As [`ShadowTables::read`].
    pub async fn measures(&mut self) -> EngineResult<BTreeMap<String, Measures>> {
        let schema = self.schema.clone();
        Ok(self.asked(async |client| routes::measures(client, &schema).await).await?)
    }

    /// Comes back when a change was heard of, when the connection is lost, or when so much time has passed.
    pub async fn news(&self, longest: Duration) {
        if timeout(longest, self.heard.notified()).await.is_ok() {
            sleep(TOGETHER).await;
        }
    }

    async fn asked<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> PgResult<T>) -> PgResult<T> {
        let looked = timeout(LIMIT, async { ask(self.connected().await?).await }).await;
        let too_slow = || PgError::TimedOut { doing: "looking at the shadow tables".to_owned(), limit: LIMIT };
        let answer = looked.unwrap_or_else(|_| Err(too_slow()));
        if answer.is_err() {
            self.client = None;
        }
        answer
    }

    async fn connected(&mut self) -> PgResult<&Client> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let purpose =
                Purpose { statement_timeout: Some(LIMIT), lock_timeout: Duration::from_secs(1), ..Purpose::new("cutover shadow tables") };
            let client = connect_hearing(&self.url, &purpose, Some(self.heard.clone())).await?;
            // First: what changes while it is looked at is heard of.
            routes::listen(&client).await?;
            self.client = Some(client);
        }
        self.client.as_ref().ok_or_else(|| PgError::Mismatch("there is no connection".to_owned()))
    }
}
