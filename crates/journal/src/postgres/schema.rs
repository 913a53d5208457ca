//! The journal's own schema in the database: found or made, and of a known format.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, IsolationLevel, Transaction};

use super::connection::Deadline;
use crate::error::JournalError;

/// What each format adds to the one before it.
const FORMATS: [&str; 2] = [include_str!("schema.sql"), include_str!("roster.sql")];
/// The format this program reads and writes.
const FORMAT: i64 = 2;
/// Makes sure that one at a time creates the schema: "cutjourn".
const CREATING: i64 = 0x6375_746a_6f75_726e;
const LIMIT: Duration = Duration::from_secs(10);

/// Creates what is missing and checks the format. A role that may not create anything can use a schema that is there.
pub(super) async fn prepare(client: &mut Client, location: &str) -> Result<(), JournalError> {
    let deadline = Deadline::after(LIMIT);
    let doing = "prepare the journal's schema (cutover_journal)";
    if deadline.keep(doing, outdated(client)).await? {
        deadline.keep(doing, upgrade(client)).await?;
    }
    match deadline.keep("read the journal's format", format(client)).await? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(JournalError::Format { location: location.to_owned(), found, known: FORMAT }),
        None => Err(JournalError::Foreign { location: location.to_owned() }),
    }
}

/// Whether there is no schema yet, or one of an older format.
async fn outdated(client: &Client) -> Result<bool, Error> {
    Ok(!exists(client).await? || matches!(format(client).await?, Some(1..FORMAT)))
}

/// The schema's format, if it has one.
async fn format(client: &Client) -> Result<Option<i64>, Error> {
    let row = client.query_typed_opt("SELECT version FROM cutover_journal.format", &[]).await?;
    Ok(row.and_then(|row| row.try_get(0).ok()))
}

/// Asks the catalogue's tables. `to_regclass` would answer from the session's cache, which can be older than the lock
/// that was just waited for.
async fn exists(client: &Client) -> Result<bool, Error> {
    let sql =
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'cutover_journal' AND c.relname = 'format'";
    Ok(client.query_typed_opt(sql, &[]).await?.is_some())
}

/// Adds what the schema's format lacks, in one transaction.
async fn upgrade(client: &mut Client) -> Result<(), Error> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false).start().await?;
    transaction.execute_typed("SELECT pg_advisory_xact_lock($1)", &[(&CREATING, Type::INT8)]).await?;
    let mut found = 0;
    if exists(transaction.client()).await? {
        // Another controller may have been first.
        found = format(transaction.client()).await?.unwrap_or(FORMAT);
    } else {
        create_schema(&transaction).await?;
    }
    for schema in FORMATS.iter().skip(usize::try_from(found).unwrap_or(FORMATS.len())) {
        transaction.batch_execute(schema).await?;
    }
    transaction.execute_typed("UPDATE cutover_journal.format SET version = $1 WHERE version < $1", &[(&FORMAT, Type::INT8)]).await?;
    transaction.commit().await
}

/// An empty schema may have been given to a role that can't create one.
async fn create_schema(transaction: &Transaction<'_>) -> Result<(), Error> {
    let sql = "SELECT FROM pg_namespace WHERE nspname = 'cutover_journal'";
    if transaction.query_typed_opt(sql, &[]).await?.is_none() {
        transaction.batch_execute("CREATE SCHEMA cutover_journal").await?;
    }
    Ok(())
}
