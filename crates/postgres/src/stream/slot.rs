//! The slot: made at the present position, kept while it is healthy, dropped with whoever reads it.

use std::time::Duration;

use cutover_core::Stream;
use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

use super::{POLL, end, sql_create_slot, sql_drop_slot, wait};
use crate::{PgError, PgResult, copy, gate, names::Names};

/// Makes the slot of a stream at the origin's present position. One that exists and is healthy is kept.
///
/// # Errors
/// [`PgError::TimedOut`] naming the transactions that the slot has to wait for.
pub async fn create_slot(origin: &mut Client, names: &Names, stream: Stream, epoch: u64, deadline: Instant) -> PgResult<()> {
    let slot = names.slot(stream);
    let failed = |error| PgError::sql("making the slot", error);
    let sql = "SELECT wal_status IS DISTINCT FROM 'lost' FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    match origin.query_opt(sql, &[&slot]).await.map_err(failed)?.map(|row| row.get(0)) {
        Some(true) => return Ok(()),
        Some(false) => drop_slot(origin, names, stream, epoch).await?,
        None => {}
    }
    // A slot can't be made in a transaction that has written; the guard's lock is held by the one around it.
    gate::guard(origin, epoch).await?;
    let begun = Instant::now();
    let limit = deadline.saturating_duration_since(begun).max(Duration::from_millis(1));
    let transaction = origin.transaction().await.map_err(failed)?;
    // The server ends the wait itself: a session left waiting would answer nothing else.
    let limits = format!("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = {}", limit.as_millis());
    transaction.batch_execute(&limits).await.map_err(failed)?;
    let waited_for = match transaction.query(&sql_create_slot(names, stream), &[]).await {
        Ok(_) => return gate::commit(transaction, "making the slot").await,
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            transaction.rollback().await.map_err(failed)?;
            writing(origin).await?
        }
        Err(error) => return Err(failed(error)),
    };
    let waited_for = if waited_for.is_empty() { String::new() } else { format!(": {}", waited_for.join(", ")) };
    let doing = format!("making the slot {slot}, which waits for every transaction under way to end{waited_for};");
    Err(PgError::TimedOut { doing, limit: begun.elapsed() })
}

/// Transactions that write, in any database of the server: a slot waits for them all. The oldest five.
async fn writing(origin: &Client) -> PgResult<Vec<String>> {
    let sql = "SELECT pg_catalog.format('pid %s (%s, %s, %s, for %s s)', a.pid, a.usename, a.datname, COALESCE(NULLIF(a.application_name, ''), '?'), \
             EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::integer) \
         FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
         UNION ALL SELECT pg_catalog.format('prepared transaction %L (%s, %s)', p.gid, p.owner, p.database) FROM pg_catalog.pg_prepared_xacts p LIMIT 5";
    let rows = origin.query(sql, &[]).await.map_err(|error| PgError::sql("asking who writes", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Drops the slot of a stream, and whoever still reads it. A snapshot that was kept for a copy fits the forward slot and
/// nothing else: those who keep it are ended too.
///
/// # Errors
/// The server's answer.
pub async fn drop_slot(origin: &mut Client, names: &Names, stream: Stream, epoch: u64) -> PgResult<()> {
    let slot = names.slot(stream);
    let doing = "dropping the slot";
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut poll = POLL.0;
    loop {
        let transaction = gate::guarded(origin, epoch).await?;
        let sql = "SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL";
        let readers = transaction.query(sql, &[&slot]).await.map_err(|error| PgError::sql(doing, error))?;
        if readers.is_empty() {
            transaction.batch_execute(&sql_drop_slot(names, stream)).await.map_err(|error| PgError::sql(doing, error))?;
            gate::commit(transaction, doing).await?;
            return if stream == Stream::Forward { copy::end_keepers(origin, names).await } else { Ok(()) };
        }
        gate::commit(transaction, doing).await?;
        end(origin, &readers.iter().map(|row| row.get(0)).collect::<Vec<_>>(), doing).await?;
        wait(&mut poll, deadline, doing).await?;
    }
}
