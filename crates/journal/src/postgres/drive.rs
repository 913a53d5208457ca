//! The right to drive, as an advisory lock of a session that is kept for it alone.
//!
//! The server frees the lock when the session ends: at once when the process does, and within the keep-alives' time
//! when its host vanishes.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::connection::{Deadline, Way, connect};
use crate::error::{DriveError, JournalError};
use crate::hold::Hold;

/// For taking the lock.
const LIMIT: Duration = Duration::from_secs(10);
/// For asking whether it is still there, and for releasing it.
const QUICK: Duration = Duration::from_secs(5);
/// How long a holder may take to give its name after it locked.
const NAMING: Duration = Duration::from_secs(1);
/// Between two looks for the name.
const LOOK: Duration = Duration::from_millis(20);

/// An advisory lock as `pg_locks` shows it: the key's upper half, then its lower half.
const LOCK_IS_THERE: &str = "l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
    AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 \
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const NAME: &str = "
    INSERT INTO cutover_journal.driver AS d (plan, who, pid, since_ms)
    VALUES ($1, $2, pg_backend_pid(), (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    ON CONFLICT (plan) DO UPDATE SET who = excluded.who, pid = excluded.pid, since_ms = excluded.since_ms
    RETURNING d.since_ms";

/// The lock, for as long as its session lives.
pub(crate) struct SessionHold {
    client: Client,
    key: i64,
}

/// Takes the lock of the plan, or says who has it.
pub(super) async fn take(way: &Way, plan: &str, who: String) -> Result<Hold, DriveError> {
    let mut way = way.clone();
    way.config.application_name(format!("cutover drive {plan}"));
    let client = connect(&way, None).await?;
    let key = key(plan);
    let deadline = Deadline::after(LIMIT);
    while !try_lock(&client, key, deadline).await? {
        if let Some(held) = holder(&client, plan, key).await? {
            return Err(held);
        }
        // It was released in between.
    }
    let row = deadline.row("say who drives", &client, NAME, &[(&plan, Type::TEXT), (&who, Type::TEXT)]).await?;
    let since_ms = row.map_or(Ok(0), |row| row.try_get(0)).map_err(cant("say who drives"))?;
    Ok(Hold::by_session(who, since_ms, SessionHold { client, key }))
}

impl SessionHold {
    /// Whether the session lives and still has the lock, as its server says within a time-out.
    pub(crate) async fn is_held(&self) -> bool {
        let sql = format!("SELECT FROM pg_locks l WHERE {LOCK_IS_THERE} AND l.pid = pg_backend_pid()");
        let found = Deadline::after(QUICK).row("look for the lock", &self.client, &sql, &[(&self.key, Type::INT8)]).await;
        matches!(found, Ok(Some(_)))
    }

    /// Releases it, and waits for that.
    pub(crate) async fn release(self) {
        let sql = "SELECT pg_advisory_unlock($1)";
        let released = Deadline::after(QUICK).row("release the lock", &self.client, sql, &[(&self.key, Type::INT8)]).await;
        if let Err(error) = released {
            tracing::debug!(%error, "ending the session releases it");
        }
    }
}

/// Plans have keys of their own, which nothing else is likely to use.
fn key(plan: &str) -> i64 {
    let digest = Sha256::new().chain_update("cutover-journal drive\0").chain_update(plan).finalize();
    digest.iter().take(8).fold(0, |key, byte| key << 8 | i64::from(*byte))
}

async fn try_lock(client: &Client, key: i64, deadline: Deadline) -> Result<bool, JournalError> {
    let doing = "take the lock of the plan";
    let row = deadline.row(doing, client, "SELECT pg_try_advisory_lock($1)", &[(&key, Type::INT8)]).await?;
    row.map_or(Ok(false), |row| row.try_get(0)).map_err(cant(doing))
}

/// Who has the lock; nothing when nobody has it any more. The name can be missing for a moment, as it is written
/// after locking, and the row can still be of the holder before.
async fn holder(client: &Client, plan: &str, key: i64) -> Result<Option<DriveError>, JournalError> {
    let sql = format!(
        "SELECT l.pid, d.who, d.since_ms, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM pg_locks l \
         LEFT JOIN cutover_journal.driver d ON d.plan = $2 AND d.pid = l.pid WHERE {LOCK_IS_THERE}"
    );
    let doing = "find out who drives";
    let naming = Deadline::after(NAMING);
    loop {
        let row = Deadline::after(LIMIT).row(doing, client, &sql, &[(&key, Type::INT8), (&plan, Type::TEXT)]).await?;
        let Some(row) = row else { return Ok(None) };
        let (held, named) = read_holder(&row).map_err(cant(doing))?;
        if named || naming.has_passed() {
            return Ok(Some(held));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Who has the lock, and whether the name is known.
fn read_holder(row: &Row) -> Result<(DriveError, bool), tokio_postgres::Error> {
    let who: Option<String> = row.try_get(1)?;
    let since_ms: Option<i64> = row.try_get(2)?;
    let named = who.is_some();
    let pid: i32 = row.try_get(0)?;
    let by = who.unwrap_or_else(|| format!("a session that gave no name (backend {pid})"));
    let now_ms: i64 = row.try_get(3)?;
    Ok((DriveError::Held { by, since_ms: since_ms.unwrap_or(now_ms) }, named))
}

fn cant(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> JournalError {
    move |source| JournalError::Postgres { doing, source }
}
