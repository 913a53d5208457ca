//! The stream of changes from one side to the other: publication and slot at its origin, subscription at its destination.
//!
//! Made early, switched on and off in the pause. Both directions at once would send every change round for ever, so
//! only one stream of a plan ever flows: `enable` is called for one after `disable` has seen the other's worker gone.

mod check;
mod publication;
mod slot;
mod statements;

use std::time::Duration;

use cutover_core::{Lsn, Stream};
use tokio::time::Instant;
use tokio_postgres::{Client, Transaction, error::SqlState};

use self::check::replicating;
pub(crate) use self::publication::{COLUMN_LISTS_SINCE, can_leave_out, published};
pub use self::{
    check::{check, holding_rows, unpublished},
    publication::{missing, publish},
    slot::{create_slot, drop_slot},
    statements::{sql_advance, sql_create_slot, sql_disable, sql_drop_slot, sql_enable, sql_publish, sql_subscribe},
};

use crate::{
    PgError, PgResult, gate,
    names::{Names, ident, literal},
};

/// Polls grow from the first to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Makes the subscription of a stream, disabled, on a slot that is made by others. One that exists is kept with its
/// progress; a disabled one that does not know every published table is made anew, because REFRESH wants it to run.
///
/// # Errors
/// The server's answer: also that it can't reach the origin.
pub async fn subscribe(
    origin: &Client,
    destination: &mut Client,
    names: &Names,
    stream: Stream,
    conninfo: &str,
    epoch: u64,
) -> PgResult<()> {
    let doing = format!("subscribing the {} to the {}", stream.destination(), stream.origin());
    let published = published(origin, &names.publication(stream)).await?.unwrap_or_default();
    let name = ident(&names.subscription(stream));
    let failed = |error| PgError::sql(&doing, error);
    let found = subscription(destination, names, stream).await?;
    let complete = replicating(destination, names, stream, &published).await?.is_empty();
    let transaction = gate::guarded(destination, epoch).await?;
    match found {
        None => transaction.batch_execute(&sql_subscribe(names, stream, conninfo)).await.map_err(failed)?,
        Some((_, enabled)) if enabled || complete => {
            let sql = format!("ALTER SUBSCRIPTION {name} CONNECTION {}", literal(conninfo));
            transaction.batch_execute(&sql).await.map_err(failed)?;
        }
        Some((oid, _)) => {
            let reached = progress(&transaction, oid).await?;
            let drop = format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}");
            let sql = format!("{drop}; {}", sql_subscribe(names, stream, conninfo));
            transaction.batch_execute(&sql).await.map_err(failed)?;
            take_up(&transaction, names, stream, reached).await?;
        }
    }
    gate::commit(transaction, &doing).await
}

/// How far a subscription has applied. Its slot may be told later, and would then send some of it again.
async fn progress(transaction: &Transaction<'_>, subscription: u32) -> PgResult<Option<String>> {
    if !may_advance_origin(transaction).await? {
        return Ok(None);
    }
    let sql = "SELECT remote_lsn::text FROM pg_catalog.pg_replication_origin_status WHERE external_id = $1";
    let row = transaction.query_opt(sql, &[&format!("pg_{subscription}")]).await;
    Ok(row.map_err(|error| PgError::sql("reading how far a subscription is", error))?.map(|row| row.get(0)))
}

/// A subscription that was made anew goes on where the old one was.
async fn take_up(transaction: &Transaction<'_>, names: &Names, stream: Stream, reached: Option<String>) -> PgResult<()> {
    let Some(reached) = reached else { return Ok(()) };
    let sql = "SELECT pg_catalog.pg_replication_origin_advance('pg_' || oid, $1::text::pg_catalog.pg_lsn) FROM pg_catalog.pg_subscription \
         WHERE subname = $2 AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    let done = transaction.execute(sql, &[&reached, &names.subscription(stream)]).await;
    done.map(drop).map_err(|error| PgError::sql("noting how far a subscription is", error))
}

/// OID and whether it is enabled.
async fn subscription(destination: &Client, names: &Names, stream: Stream) -> PgResult<Option<(u32, bool)>> {
    let sql = "SELECT oid, subenabled FROM pg_catalog.pg_subscription WHERE subname = $1 \
         AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    let row = destination
        .query_opt(sql, &[&names.subscription(stream)])
        .await
        .map_err(|error| PgError::sql("reading the subscription", error))?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Lets the stream flow, and sees it flow: the worker runs at the destination and reads the slot at the origin.
///
/// # Errors
/// [`PgError::TimedOut`].
pub async fn enable(
    origin: &Client,
    destination: &mut Client,
    names: &Names,
    stream: Stream,
    epoch: u64,
    deadline: Instant,
) -> PgResult<()> {
    let doing = format!("letting the {stream} stream flow");
    let transaction = gate::guarded(destination, epoch).await?;
    let sql = format!("{}; UPDATE cutover.flush SET worker_started_at = pg_catalog.clock_timestamp()", sql_enable(names, stream));
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(&doing, error))?;
    gate::commit(transaction, &doing).await?;
    let slot = names.slot(stream);
    let mut poll = POLL.0;
    let sql = "SELECT active, wal_status IS NOT DISTINCT FROM 'lost' FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    loop {
        let row = origin.query_opt(sql, &[&slot]).await.map_err(|error| PgError::sql(&doing, error))?;
        match row.map(|row| (row.get(0), row.get(1))) {
            Some((true, _)) => return Ok(()),
            Some((false, true)) => return Err(PgError::Mismatch(format!("the {}'s slot {slot} is lost", stream.origin()))),
            Some((false, false)) => wait(&mut poll, deadline, &format!("{doing}: nobody reads the slot {slot}")).await?,
            None => return Err(PgError::Mismatch(format!("the {} has no slot {slot}", stream.origin()))),
        }
    }
}

/// Waits until the destination would start a worker at once. Before PostgreSQL 16 its launcher starts one every
/// `wal_retrieve_retry_interval` only, whichever subscription it is for; inside a pause that would be the pause.
///
/// # Errors
/// [`PgError::TimedOut`].
pub async fn await_launcher(destination: &Client, deadline: Instant) -> PgResult<()> {
    let doing = "waiting for the launcher of apply workers";
    let sql = "SELECT CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 160000 THEN 0 ELSE GREATEST(0, EXTRACT(epoch FROM \
             f.worker_started_at + pg_catalog.current_setting('wal_retrieve_retry_interval')::interval - pg_catalog.clock_timestamp())) END::float8 \
         FROM cutover.flush f";
    let row = destination.query_one(sql, &[]).await.map_err(|error| PgError::sql(doing, error))?;
    let left = Duration::from_secs_f64(row.get::<_, Option<f64>>(0).unwrap_or_default().clamp(0.0, 3600.0));
    if Instant::now() + left > deadline {
        return Err(PgError::TimedOut { doing: doing.to_owned(), limit: left });
    }
    tokio::time::sleep(left).await;
    Ok(())
}

/// Stops the stream and sees its worker gone: a disabled subscription's worker can live on for a while and apply.
///
/// # Errors
/// [`PgError::TimedOut`].
pub async fn disable(destination: &mut Client, names: &Names, stream: Stream, epoch: u64, deadline: Instant) -> PgResult<()> {
    let Some((oid, _)) = subscription(destination, names, stream).await? else { return Ok(()) };
    let doing = format!("stopping the {stream} stream");
    let mut workers = workers(destination, oid, &[]).await?;
    let transaction = gate::guarded(destination, epoch).await?;
    transaction.batch_execute(&sql_disable(names, stream)).await.map_err(|error| PgError::sql(&doing, error))?;
    gate::commit(transaction, &doing).await?;
    let mut poll = POLL.0;
    loop {
        workers = self::workers(destination, oid, &workers).await?;
        if workers.is_empty() {
            return Ok(());
        }
        // Left to itself it notices within a second. What it was applying is rolled back, and comes again from the slot.
        end(destination, &workers, &doing).await?;
        wait(&mut poll, deadline, &doing).await?;
    }
}

/// Ends these processes where we may; where not, they end by themselves soon.
async fn end(client: &Client, processes: &[i32], doing: &str) -> PgResult<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(p) FROM pg_catalog.unnest($1::int4[]) p";
    match client.query(sql, &[&processes]).await {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        other => other.map(drop).map_err(|error| PgError::sql(doing, error)),
    }
}

/// The workers of a subscription that live: those that it has now, and of those that it had the ones whose process is
/// still there. A worker that is ending leaves the first list before it leaves the second.
async fn workers(destination: &Client, subscription: u32, had: &[i32]) -> PgResult<Vec<i32>> {
    let sql = "SELECT a.pid FROM pg_catalog.pg_stat_activity a \
         WHERE a.pid = ANY ($2::int4[]) OR a.pid IN (SELECT s.pid FROM pg_catalog.pg_stat_subscription s WHERE s.subid = $1)";
    let had = had.to_vec();
    let rows = destination.query(sql, &[&subscription, &had]).await.map_err(|error| PgError::sql("looking for workers", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Skips everything that the origin has written so far: what it applied itself must not come back. The subscription
/// must be disabled. The slot's position may be lost in a crash of the origin, so the destination notes it as well,
/// in a commit that is on disk: a worker asks for the later of both.
///
/// # Errors
/// [`PgError::Mismatch`] if the slot did not move.
pub async fn advance(
    origin: &mut Client,
    destination: &mut Client,
    names: &Names,
    stream: Stream,
    epoch: u64,
    deadline: Instant,
) -> PgResult<Lsn> {
    let doing = format!("advancing the {stream} stream");
    let slot = names.slot(stream);
    let (oid, enabled) = subscription(destination, names, stream)
        .await?
        .ok_or_else(|| PgError::Mismatch(format!("the {} has no subscription {}", stream.destination(), names.subscription(stream))))?;
    if enabled {
        return Err(PgError::Mismatch(format!("the {stream} stream flows; it can't be advanced")));
    }
    let failed = |error| PgError::sql(&doing, error);
    let transaction = gate::guarded(origin, epoch).await?;
    // A commit forces the log out up to here: a slot advances over what is flushed only.
    transaction.batch_execute(gate::FLUSH_SQL).await.map_err(failed)?;
    gate::commit(transaction, &doing).await?;
    let moved = tokio::time::timeout_at(deadline, origin.query_one(&sql_advance(names, stream), &[])).await;
    let moved = moved.map_err(|_| PgError::TimedOut { doing: doing.clone(), limit: Duration::ZERO })?.map_err(failed)?;
    let (reached, wanted): (String, String) = (moved.get(0), moved.get(1));
    let (reached, wanted): (Lsn, Lsn) = match (reached.parse(), wanted.parse()) {
        (Ok(reached), Ok(wanted)) => (reached, wanted),
        _ => return Err(PgError::Mismatch(format!("{slot} advanced to `{reached}`"))),
    };
    if reached < wanted {
        return Err(PgError::Mismatch(format!("{slot} advanced to {reached} only, not to {wanted}")));
    }
    let transaction = gate::guarded(destination, epoch).await?;
    if may_advance_origin(&transaction).await? {
        let sql = format!(
            "{}; SELECT pg_catalog.pg_replication_origin_advance('pg_{oid}', {}::pg_catalog.pg_lsn)",
            gate::FLUSH_SQL,
            literal(&reached.to_string())
        );
        transaction.batch_execute(&sql).await.map_err(failed)?;
    }
    gate::commit(transaction, &doing).await?;
    Ok(reached)
}

/// Whether we may read and note how far a subscription is.
async fn may_advance_origin(transaction: &Transaction<'_>) -> PgResult<bool> {
    let sql = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_replication_origin_advance(text, pg_catalog.pg_lsn)', 'EXECUTE')";
    let row = transaction.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading our privileges", error))?;
    Ok(row.get(0))
}

/// Removes a stream from both sides; whatever of it is missing already is skipped.
///
/// # Errors
/// The server's answer.
pub async fn drop_stream(
    origin: &mut Client,
    destination: &mut Client,
    names: &Names,
    stream: Stream,
    epoch: u64,
    deadline: Instant,
) -> PgResult<()> {
    if subscription(destination, names, stream).await?.is_some() {
        disable(destination, names, stream, epoch, deadline).await?;
        let doing = "dropping the subscription";
        let name = ident(&names.subscription(stream));
        let transaction = gate::guarded(destination, epoch).await?;
        let sql = format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}");
        transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
        gate::commit(transaction, doing).await?;
    }
    drop_slot(origin, names, stream, epoch).await?;
    let doing = "dropping the publication";
    let transaction = gate::guarded(origin, epoch).await?;
    let sql = format!("SET LOCAL client_min_messages = warning; DROP PUBLICATION IF EXISTS {}", ident(&names.publication(stream)));
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    gate::commit(transaction, doing).await
}

async fn wait(poll: &mut Duration, deadline: Instant, doing: &str) -> PgResult<()> {
    if Instant::now() >= deadline {
        return Err(PgError::TimedOut { doing: doing.to_owned(), limit: Duration::ZERO });
    }
    tokio::time::sleep(*poll).await;
    *poll = (*poll * 2).min(POLL.1);
    Ok(())
}
