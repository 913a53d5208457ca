//! What somebody has to call again and again, where the database has no clock of its own: the safety check, and the queue.

use std::time::{Duration, Instant};

use cutover_core::plan::DatabaseUrl;
pub use cutover_postgres::shadow::safety::Checked;
use cutover_postgres::{
    PgError, PgResult,
    connect::{Purpose, connect},
    shadow::{self, safety},
};
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::EngineResult;

/// One call may take so long: a check compares samples of every table.
const LONGEST: Duration = Duration::from_secs(300);

/// Keys that one transaction takes out of the queue.
pub const AT_ONCE: u32 = 1_000;

/// After a failure, until the next try; twice as long after each further one, and no longer than between two looks.
const REST: Duration = Duration::from_secs(1);

/// What the server's views show it as.
const APPLICATION: &str = "cutover sql";

/// What one look came to.
#[derive(Debug, Serialize)]
pub struct Look {
    /// Each table that is on its way.
    pub checked: Vec<Checked>,
    /// Rows that were queued, and are brought.
    pub brought: u64,
    /// Keys that are queued still.
    pub queued: u64,
}

/// Looks after the shadow tables of a database, as a role that may decide.
#[derive(Debug)]
pub struct Watch {
    url: DatabaseUrl,
    schema: String,
    every: Duration,
    client: Option<Client>,
    failures: u32,
}

impl Watch {
    /// Connects to nothing yet. `schema` is the one that holds the functions.
    #[must_use]
    pub fn new(url: DatabaseUrl, schema: String, every: Duration) -> Self {
        Self { url, schema, every, client: None, failures: 0 }
    }

    /// Checks every table once, with what follows from it, and brings what is queued: of each table until nothing can be brought, or it is
    /// time for the next look.
    ///
    /// # Errors
    /// The database can't be reached, or refuses. The next call connects anew.
    pub async fn look(&mut self) -> EngineResult<Look> {
        // A server that is gone without a word answers to no time-out of its own.
        let limit = LONGEST + self.every;
        let too_slow = || PgError::TimedOut { doing: "checking the tables".to_owned(), limit };
        let looked = timeout(limit, self.call()).await.unwrap_or_else(|_| Err(too_slow()));
        if looked.is_err() {
            self.client = None;
        }
        self.failures = if looked.is_ok() { 0 } else { self.failures.saturating_add(1).min(8) };
        Ok(looked?)
    }

    /// How long to rest after a look that was begun then.
    #[must_use]
    pub fn rest(&self, begun: Instant) -> Duration {
        match self.failures {
            0 => self.every.saturating_sub(begun.elapsed()),
            failures => (REST * 2_u32.pow(failures - 1)).min(self.every),
        }
    }

    async fn call(&mut self) -> PgResult<Look> {
        let begun = Instant::now();
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let purpose = Purpose { statement_timeout: Some(LONGEST), ..Purpose::new(APPLICATION) };
            self.client = Some(connect(&self.url, &purpose).await?);
        }
        let Some(client) = &self.client else { return Err(PgError::Mismatch("there is no connection".to_owned())) };
        let checked = safety::check(client, &self.schema).await?;
        let (mut brought, mut queued) = (0, 0);
        for table in shadow::tables(client, &self.schema).await? {
            queued += loop {
                let (rows, left) = shadow::drain(client, &self.schema, &table, AT_ONCE).await?;
                brought += rows;
                if rows == 0 || begun.elapsed() >= self.every {
                    break left;
                }
            };
        }
        Ok(Look { checked, brought, queued })
    }
}
