//! The journal's own schema in the database: found or made, and of a known format.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, IsolationLevel, Transaction};

use super::connection::Deadline;
use crate::error::JournalError;

const SCHEMA: &str = include_str!("schema.sql");
/// The format this program reads and writes.
const FORMAT: i64 = 1;
/// Makes sure that one at a time creates the schema: "cutjourn".
const CREATING: i64 = 0x6375_746a_6f75_726e;
const LIMIT: Duration = Duration::from_secs(10);

/// Creates what is missing and checks the format. A role that may not create anything can use a schema that is there.
pub(super) async fn prepare(client: &mut Client, location: &str) -> Result<(), JournalError> {
    let deadline = Deadline::after(LIMIT);
    let doing = "prepare the journal's schema (cutover_journal)";
    if !deadline.keep(doing, exists(client)).await? {
        deadline.keep(doing, create(client)).await?;
    }
    let sql = "SELECT version FROM cutover_journal.format";
    let row = deadline.row("read the journal's format", client, sql, &[]).await?;
    match row.map(|row| row.try_get(0)).transpose() {
        Ok(Some(FORMAT)) => Ok(()),
        Ok(Some(found)) => Err(JournalError::Format { location: location.to_owned(), found, known: FORMAT }),
        Ok(None) | Err(_) => Err(JournalError::Foreign { location: location.to_owned() }),
    }
}

/// Asks the catalogue's tables. `to_regclass` would answer from the session's cache, which can be older than the lock
/// that was just waited for.
async fn exists(client: &Client) -> Result<bool, Error> {
    let sql =
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'cutover_journal' AND c.relname = 'format'";
    Ok(client.query_typed_opt(sql, &[]).await?.is_some())
}

async fn create(client: &mut Client) -> Result<(), Error> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false).start().await?;
    transaction.execute_typed("SELECT pg_advisory_xact_lock($1)", &[(&CREATING, Type::INT8)]).await?;
    // Another controller may have been first.
    if exists(transaction.client()).await? {
        return transaction.commit().await;
    }
    create_schema(&transaction).await?;
    transaction.batch_execute(SCHEMA).await?;
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
