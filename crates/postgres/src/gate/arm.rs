//! Puts the gate before every table and partition, and takes it away again.

use tokio::time::Instant;
use tokio_postgres::{Client, Transaction};

use super::{commit, guarded};
use crate::{PgError, PgResult};

const UNARMED_SQL: &str = "SELECT table_name FROM cutover.unarmed_tables()";

/// The statement that puts the gate before a table.
#[must_use]
pub fn arm_sql(table: &str) -> String {
    format!(
        "DROP TRIGGER IF EXISTS cutover_gate ON {table}; CREATE TRIGGER cutover_gate BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE \
         ON {table} FOR EACH STATEMENT EXECUTE FUNCTION cutover.pass_gate()"
    )
}

/// Puts the gate before every table in the transaction that made them: nobody else can be using one.
pub(crate) async fn arm_within(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    let rows = transaction.query(UNARMED_SQL, &[]).await?;
    let sql: Vec<String> = rows.iter().map(|row| arm_sql(row.get(0))).collect();
    transaction.batch_execute(&sql.join(";")).await
}

/// Puts the gate before every table and partition that has none. Returns how many tables have one now.
///
/// Each table is a transaction of its own with a short wait for its lock, so that a long writer delays one table and
/// nobody queues behind us for long. A table's lock is granted when its writers from before the gate are gone, which
/// is what makes the gate complete.
///
/// # Errors
/// [`PgError::TimedOut`] naming the tables that could not be armed.
pub async fn arm(client: &mut Client, epoch: u64, deadline: Instant) -> PgResult<u32> {
    let begun = Instant::now();
    loop {
        let unarmed = unarmed(client).await?;
        if unarmed.is_empty() {
            return armed_count(client).await;
        }
        if Instant::now() >= deadline {
            let limit = deadline.saturating_duration_since(begun);
            return Err(PgError::TimedOut { doing: format!("putting the gate before {}", unarmed.join(", ")), limit });
        }
        for table in unarmed {
            match arm_table(client, epoch, &table).await {
                Err(error) if error.is_lock_timeout() => tracing::info!(table, "in use; its gate comes later"),
                other => other?,
            }
        }
    }
}

async fn arm_table(client: &mut Client, epoch: u64, table: &str) -> PgResult<()> {
    let doing = format!("putting the gate before {table}");
    let transaction = guarded(client, epoch).await?;
    let sql = format!("SET LOCAL lock_timeout = 500; SET LOCAL client_min_messages = warning; {}", arm_sql(table));
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(&doing, error))?;
    commit(transaction, &doing).await
}

/// The user's tables without a gate, quoted.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn unarmed(client: &Client) -> PgResult<Vec<String>> {
    let rows = client.query(UNARMED_SQL, &[]).await.map_err(|error| PgError::sql("looking for tables without a gate", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn armed(client: &Client) -> PgResult<Vec<String>> {
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_trigger t \
         JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE t.tgname = 'cutover_gate' ORDER BY 1";
    let rows = client.query(sql, &[]).await.map_err(|error| PgError::sql("looking for gates", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn armed_count(client: &Client) -> PgResult<u32> {
    Ok(u32::try_from(armed(client).await?.len()).unwrap_or(u32::MAX))
}

/// Takes the gate from every table again.
///
/// # Errors
/// [`PgError::TimedOut`] naming the tables that are in use all the time.
pub async fn disarm(client: &mut Client, epoch: u64, deadline: Instant) -> PgResult<()> {
    let begun = Instant::now();
    loop {
        let armed = armed(client).await?;
        if armed.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let limit = deadline.saturating_duration_since(begun);
            return Err(PgError::TimedOut { doing: format!("taking the gate from {}", armed.join(", ")), limit });
        }
        for table in armed {
            let doing = format!("taking the gate from {table}");
            let transaction = guarded(client, epoch).await?;
            let sql = format!("SET LOCAL lock_timeout = 500; DROP TRIGGER cutover_gate ON {table}");
            match transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(&doing, error)) {
                Err(error) if error.is_lock_timeout() => tracing::info!(table, "in use; its gate goes later"),
                Err(error) => return Err(error),
                Ok(()) => commit(transaction, &doing).await?,
            }
        }
    }
}
