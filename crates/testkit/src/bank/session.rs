//! One client's session: simple queries only, so that it works through every pooler, and never without a time limit.

use std::future::Future;

use tokio::{task::JoinHandle, time::Instant};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, config::SslMode, error::Severity};

use crate::error::describe;

/// Why a statement did not succeed.
pub(super) struct Trouble {
    /// For people.
    pub(super) text: String,
    /// The session can go on: the server refused the statement, and undid it.
    pub(super) refused: bool,
}

impl Trouble {
    pub(super) fn refused(text: String) -> Self {
        Self { text, refused: true }
    }
}

/// An open session. Dropping it closes the socket at once, whatever is under way.
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    pub(super) async fn open(url: &str, deadline: Instant) -> Result<Self, Trouble> {
        let mut config: tokio_postgres::Config = url.parse().map_err(|error| trouble(&error))?;
        config.ssl_mode(SslMode::Disable);
        let (client, connection) = within(deadline, config.connect(NoTls)).await?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer hears how it ended.
            let _ = connection.await;
        });
        Ok(Self { client, driver })
    }

    /// Executes one statement; returns how many rows it touched.
    pub(super) async fn execute(&self, sql: &str, deadline: Instant) -> Result<u64, Trouble> {
        let messages = within(deadline, self.client.simple_query(sql)).await?;
        let rows =
            messages.iter().find_map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { Some(*rows) } else { None });
        Ok(rows.unwrap_or_default())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout_at(deadline, work).await {
        Ok(done) => done.map_err(|error| trouble(&error)),
        Err(_) => Err(Trouble { text: "no answer within the request's time-out".to_owned(), refused: false }),
    }
}

fn trouble(error: &tokio_postgres::Error) -> Trouble {
    // Anything graver than ERROR ends the session; so does a pooler that lost its server.
    let refused =
        error.as_db_error().is_some_and(|db| db.parsed_severity() == Some(Severity::Error) && !db.code().code().starts_with("08"));
    Trouble { text: describe(error), refused }
}
