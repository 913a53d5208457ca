//! How the stream is doing: how far behind, whether it stumbles and over what, whether its slot is in danger.

mod cause;
mod drift;
pub(crate) mod pgoutput;

use std::time::Duration;

use cutover_core::{Lsn, Stream};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, Row};

pub use self::{
    cause::{Cause, cause},
    drift::{Drift, drift},
};
use crate::{PgError, PgResult, catalogue, names::Names};

/// A slot that may keep this little more is in danger.
const SAFE_WAL_BYTES: i64 = 256 << 20;

/// A worker that has lived so long did not stumble over what it was sent first.
const SETTLED_SECONDS: f64 = 1.0;

/// A stream, as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    /// Which.
    pub stream: Stream,
    /// How much of the origin's log the destination has not confirmed. Unit: bytes.
    pub lag_bytes: u64,
    /// How old the newest report of the destination's worker is that covers everything it was sent, in seconds; none
    /// while it does not run.
    pub lag_seconds: Option<f64>,
    /// Whether the apply worker runs and reads the slot.
    pub worker_running: bool,
    /// How long it has been running, where our role may know. Unit: seconds.
    pub worker_seconds: Option<f64>,
    /// Failed attempts to apply, since the statistics began (PostgreSQL 15 and newer).
    pub apply_errors: Option<i64>,
    /// How much log the slot keeps at the origin. Unit: bytes.
    pub retained_bytes: u64,
    /// The slot's state, as the server says it.
    pub slot: String,
    /// What a person should look at.
    pub warnings: Vec<String>,
}

impl StreamStatus {
    /// Whether its worker may be one that stumbles: it does not run, or has only just begun, with something left to
    /// apply. A server starts such a worker again and again, and each time it lives for a moment.
    #[must_use]
    pub fn may_stumble(&self) -> bool {
        !self.worker_running || (self.lag_bytes > 0 && self.worker_seconds.is_some_and(|seconds| seconds < SETTLED_SECONDS))
    }
}

/// Looks at a stream.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn status(origin: &Client, destination: &Client, names: &Names, stream: Stream) -> PgResult<StreamStatus> {
    let slot = slot(origin, names, stream).await?;
    let worker = worker(destination, names, stream).await?;
    let apply_errors = apply_errors(destination, names, stream).await?;
    let mut warnings = Vec::new();
    let Some(slot) = slot else {
        warnings.push(format!(
            "the {} has no slot {}: nothing is kept for the {}",
            stream.origin(),
            names.slot(stream),
            stream.destination()
        ));
        return Ok(StreamStatus {
            stream,
            lag_bytes: 0,
            lag_seconds: worker.lag_seconds,
            worker_running: worker.running,
            worker_seconds: worker.seconds,
            apply_errors,
            retained_bytes: 0,
            slot: "missing".to_owned(),
            warnings,
        });
    };
    if !worker.running {
        warnings.push(format!("the apply worker at the {} does not run", stream.destination()));
    }
    if let Some(errors) = apply_errors.filter(|errors| *errors > 0 && !slot.active) {
        warnings.push(format!("applying failed {errors} times at the {}, and the worker does not read", stream.destination()));
    }
    match slot.wal_status.as_str() {
        "lost" => warnings.push("the slot is lost: log that it needs was removed; the copy must be made again".to_owned()),
        "unreserved" => warnings.push("the slot is about to be lost: raise max_slot_wal_keep_size at once".to_owned()),
        _ => {
            if let Some(safe) = slot.safe_wal_bytes.filter(|safe| *safe < SAFE_WAL_BYTES) {
                warnings.push(format!("the slot will be lost after {safe} more bytes of log: raise max_slot_wal_keep_size"));
            }
        }
    }
    Ok(StreamStatus {
        stream,
        lag_bytes: slot.lag_bytes,
        lag_seconds: worker.lag_seconds,
        worker_running: worker.running && slot.active,
        worker_seconds: worker.seconds,
        apply_errors,
        retained_bytes: slot.retained_bytes,
        slot: slot.wal_status,
        warnings,
    })
}

struct Slot {
    active: bool,
    wal_status: String,
    lag_bytes: u64,
    retained_bytes: u64,
    safe_wal_bytes: Option<i64>,
}

async fn slot(origin: &Client, names: &Names, stream: Stream) -> PgResult<Option<Slot>> {
    let sql = "SELECT active, COALESCE(wal_status, 'unknown'), \
         GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), confirmed_flush_lsn), 0)::bigint, \
         GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), restart_lsn), 0)::bigint, safe_wal_size \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let row = origin.query_opt(sql, &[&names.slot(stream)]).await.map_err(|error| PgError::sql("reading the slot", error))?;
    let bytes = |value: Option<i64>| u64::try_from(value.unwrap_or_default()).unwrap_or_default();
    Ok(row.map(|row| Slot {
        active: row.get(0),
        wal_status: row.get(1),
        lag_bytes: bytes(row.get(2)),
        retained_bytes: bytes(row.get(3)),
        safe_wal_bytes: row.get(4),
    }))
}

#[derive(Default)]
struct Worker {
    running: bool,
    seconds: Option<f64>,
    lag_seconds: Option<f64>,
}

async fn worker(destination: &Client, names: &Names, stream: Stream) -> PgResult<Worker> {
    // One that is in the first view and not in the second has just begun, or ended in between.
    let sql = "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - s.latest_end_time)::float8, \
         CASE WHEN a.pid IS NULL THEN 0 ELSE EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.backend_start) END::float8 \
         FROM pg_catalog.pg_stat_subscription s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.pid \
         WHERE s.subname = $1 AND s.relid IS NULL AND s.pid IS NOT NULL ORDER BY s.pid LIMIT 1";
    let row = destination.query_opt(sql, &[&names.subscription(stream)]).await;
    let row = row.map_err(|error| PgError::sql("looking for the worker", error))?;
    let seconds = |row: &Row, column| row.get::<_, Option<f64>>(column).map(|seconds| seconds.max(0.0));
    Ok(row.map_or_else(Worker::default, |row| Worker { running: true, seconds: seconds(&row, 1), lag_seconds: seconds(&row, 0) }))
}

async fn apply_errors(destination: &Client, names: &Names, stream: Stream) -> PgResult<Option<i64>> {
    let failed = |error| PgError::sql("reading the subscription's statistics", error);
    let known = destination.query_one("SELECT pg_catalog.to_regclass('pg_catalog.pg_stat_subscription_stats') IS NOT NULL", &[]);
    if !known.await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = "SELECT apply_error_count FROM pg_catalog.pg_stat_subscription_stats WHERE subname = $1";
    let row = destination.query_opt(sql, &[&names.subscription(stream)]).await.map_err(failed)?;
    Ok(row.map(|row| row.get(0)))
}

/// How far a destination has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Still behind. Unit: bytes.
    pub lag_bytes: u64,
    /// Applied since we looked first. Unit: bytes.
    pub done_bytes: u64,
    /// To be applied in all, since we looked first. Unit: bytes.
    pub total_bytes: u64,
    /// Rate. Unit: bytes a second.
    pub bytes_per_second: f64,
    /// Seconds left at that rate.
    pub eta_seconds: Option<f64>,
}

/// A stream that does not flow for so long is asked for the cause. A worker that starts again, or is being started,
/// is back before.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until the destination is at most `limit` bytes of log behind.
///
/// # Errors
/// [`PgError::Mismatch`] if the slot is gone, [`PgError::Refused`] naming the change that can't be applied and why,
/// [`PgError::TimedOut`] saying how far it still is, and what is wrong with the stream if something is.
pub async fn catch_up(
    origin: &Client,
    destination: &Client,
    names: &Names,
    stream: Stream,
    limit: u64,
    deadline: Instant,
    mut tell: impl FnMut(Lag),
) -> PgResult<()> {
    let begun = Instant::now();
    let mut first: Option<(Lsn, u64)> = None;
    let mut flowing_at = begun;
    loop {
        let status = status(origin, destination, names, stream).await?;
        if status.slot == "lost" || status.slot == "missing" {
            return Err(PgError::Mismatch(status.warnings.join("; ")));
        }
        if status.lag_bytes <= limit && status.worker_running {
            return Ok(());
        }
        if status.worker_running {
            flowing_at = Instant::now();
        } else if flowing_at.elapsed() > PATIENCE {
            if let Some(cause) = cause(origin, destination, names, stream).await? {
                return Err(PgError::Refused { what: cause.to_string(), hint: Some(cause.hint()) });
            }
            flowing_at = Instant::now();
        }
        let here = catalogue::insert_lsn(origin).await?;
        let (since, lag_then) = *first.get_or_insert((here, status.lag_bytes));
        let total_bytes = lag_then + here.bytes_since(since);
        let done_bytes = total_bytes.saturating_sub(status.lag_bytes);
        let bytes_per_second = done_bytes as f64 / begun.elapsed().as_secs_f64().max(1e-3);
        let eta_seconds = (bytes_per_second > 0.0).then(|| status.lag_bytes as f64 / bytes_per_second);
        tell(Lag { lag_bytes: status.lag_bytes, done_bytes, total_bytes, bytes_per_second, eta_seconds });
        if Instant::now() >= deadline {
            let wrong = if status.warnings.is_empty() { String::new() } else { format!(": {}", status.warnings.join("; ")) };
            let doing = format!("waiting for the {}, still {} bytes behind{wrong},", stream.destination(), status.lag_bytes);
            return Err(PgError::TimedOut { doing, limit: begun.elapsed() });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
