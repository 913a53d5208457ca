//! The marker behind the last commit, and the commit that makes it durable where it was applied.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::{commit, guarded};
use crate::{PgError, PgResult, names::literal};

/// Writes a marker behind everything that was committed, synchronously.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn write_marker(client: &mut Client, epoch: u64, id: &str) -> PgResult<()> {
    let doing = "writing the marker";
    let transaction = guarded(client, epoch).await?;
    let sql = marker_sql(id);
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}

/// The statement that writes a marker; older ones are swept out an hour later.
#[must_use]
pub fn marker_sql(id: &str) -> String {
    format!(
        "DELETE FROM cutover.marker WHERE written_at < pg_catalog.clock_timestamp() - interval '1 hour'; \
         INSERT INTO cutover.marker (id) VALUES ({}) ON CONFLICT (id) DO UPDATE SET written_at = EXCLUDED.written_at",
        literal(id)
    )
}

/// Whether a marker has arrived.
const MARKER_ARRIVED_SQL: &str = "SELECT EXISTS (SELECT FROM cutover.marker WHERE id = $1)";

/// Waits until a marker is applied here. The stream applies in the order of commits, so everything before it is too.
///
/// # Errors
/// [`PgError::TimedOut`].
pub async fn await_marker(client: &Client, id: &str, deadline: Instant) -> PgResult<()> {
    let begun = Instant::now();
    let arrived = client.prepare(MARKER_ARRIVED_SQL).await.map_err(|error| PgError::sql("looking for the marker", error))?;
    let mut pause = Duration::from_millis(1);
    loop {
        let row = client.query_one(&arrived, &[&id]).await.map_err(|error| PgError::sql("looking for the marker", error))?;
        if row.get(0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let limit = deadline.saturating_duration_since(begun);
            return Err(PgError::TimedOut { doing: format!("waiting for the marker {id} to be applied"), limit });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(8));
    }
}

/// What makes everything committed so far durable: a commit that waits for the log to be on disk.
pub const FLUSH_SQL: &str = "UPDATE cutover.flush SET times = times + 1";

/// Commits once, synchronously. What was committed before it, asynchronously, is on disk afterwards too.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn flush(client: &mut Client, epoch: u64) -> PgResult<()> {
    let doing = "making what was committed durable";
    let transaction = guarded(client, epoch).await?;
    transaction.batch_execute(FLUSH_SQL).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}
