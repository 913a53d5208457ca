//! PgBouncer's admin console.
//!
//! It speaks the simple query protocol only. Every call has a time-out of its own within the caller's
//! deadline; a console that was dropped leaves nothing behind but what PgBouncer remembers.

use std::{collections::HashMap, time::Duration};

use cutover_core::plan::{DatabaseUrl, Secret};
use tokio::{task::JoinHandle, time::Instant};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, config::SslMode};

use crate::{TrafficError, adapter::within};

/// How long any call may take, except PAUSE, which waits for clients.
const CALL: Duration = Duration::from_secs(2);

/// An open console.
pub(super) struct Console {
    adapter: String,
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Console {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Console {
    pub(super) async fn open(adapter: &str, url: &DatabaseUrl, deadline: Instant) -> Result<Self, TrafficError> {
        let config = config(url);
        let connect = async {
            let unreachable = |source| TrafficError::Unreachable { adapter: adapter.to_owned(), source };
            config.connect(NoTls).await.map_err(unreachable)
        };
        let (client, connection) = within(soon(deadline), adapter, "connect to the admin console", connect).await?;
        let connection = tokio::spawn(async move {
            // Its error reaches whoever made the call that broke.
            let _ = connection.await;
        });
        Ok(Self { adapter: adapter.to_owned(), client, connection })
    }

    /// Makes a call that comes back at once.
    pub(super) async fn call(&self, call: &str, deadline: Instant) -> Result<Vec<Row>, TrafficError> {
        self.wait(call, soon(deadline)).await
    }

    /// Makes a call that may take until `deadline`.
    pub(super) async fn wait(&self, call: &str, deadline: Instant) -> Result<Vec<Row>, TrafficError> {
        let query = async {
            let refused = |source| TrafficError::Refused { adapter: self.adapter.clone(), call: call.to_owned(), source };
            self.client.simple_query(call).await.map_err(refused)
        };
        let messages = within(deadline, &self.adapter, call, query).await?;
        Ok(messages.into_iter().filter_map(|message| self.row(call, message)).collect())
    }

    fn row(&self, call: &str, message: SimpleQueryMessage) -> Option<Row> {
        let SimpleQueryMessage::Row(row) = message else { return None };
        let column = |(index, column): (usize, &tokio_postgres::SimpleColumn)| {
            (column.name().to_owned(), row.get(index).unwrap_or_default().to_owned())
        };
        let columns = row.columns().iter().enumerate().map(column).collect();
        Some(Row { adapter: self.adapter.clone(), call: call.to_owned(), columns })
    }
}

/// A row of a SHOW command; a missing value is empty.
#[derive(Debug)]
pub(super) struct Row {
    adapter: String,
    call: String,
    columns: HashMap<String, String>,
}

impl Row {
    /// The value of `column`.
    pub(super) fn text(&self, column: &str) -> Result<&str, TrafficError> {
        self.columns.get(column).map(String::as_str).ok_or_else(|| self.without(column))
    }

    /// The value of `column`, which must be a number.
    pub(super) fn number(&self, column: &str) -> Result<u32, TrafficError> {
        self.text(column)?.parse().map_err(|_| self.without(column))
    }

    /// The value of a `column` that older versions don't have: there it counts as 0.
    pub(super) fn number_if_any(&self, column: &str) -> u32 {
        self.columns.get(column).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn without(&self, column: &str) -> TrafficError {
        let missing = format!("a number or text `{column}`");
        TrafficError::Unexpected { adapter: self.adapter.clone(), call: self.call.clone(), missing }
    }
}

/// Whether PgBouncer itself said no, with `words` in its answer.
pub(super) fn says(error: &TrafficError, words: &str) -> bool {
    let TrafficError::Refused { source, .. } = error else { return false };
    source.as_db_error().is_some_and(|answer| answer.message().contains(words))
}

/// A name, as the console's commands take it.
pub(super) fn name(database: &str) -> String {
    format!("\"{}\"", database.replace('"', "\"\""))
}

fn soon(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + CALL)
}

fn config(url: &DatabaseUrl) -> Config {
    let mut config = Config::new();
    config.host(&url.host).port(url.port).user(&url.user).dbname(&url.database).ssl_mode(SslMode::Disable);
    if let Some(password) = url.password.as_ref().map(Secret::expose) {
        config.password(password);
    }
    config
}
