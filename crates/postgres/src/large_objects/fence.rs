//! The fence of large objects: who may call the functions that write them, and who was let in before that was taken away.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::{
    PgError, PgResult,
    gate::{commit, guarded, refuse_prepared},
};

/// What is installed where the plan copies large objects.
const LARGE_OBJECTS_SQL: &str = include_str!("../sql/large_objects.sql");

/// Takes the right to write large objects from everyone.
pub const FENCE_SQL: &str = "SELECT cutover.fence_large_objects()";

/// Gives it back.
pub const LIFT_SQL: &str = "SELECT cutover.lift_large_objects()";

/// How long a session may idle inside a transaction before it is ended.
const IDLE_LIMIT: Duration = Duration::from_millis(150);

/// The transactions under way in this database, of everyone but us: ours are those of a superuser, whom no right stops.
const OTHERS: &str = "FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
     LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid \
     WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND a.datname = pg_catalog.current_database() \
       AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type <> ALL (ARRAY['autovacuum worker', 'walsender']) \
       AND NOT (COALESCE(r.rolsuper, false) AND pg_catalog.starts_with(a.application_name, 'cutover/'))";

/// Installs what the fence and the copy need. Done again, it changes nothing.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub(super) async fn install(client: &mut Client, epoch: u64) -> PgResult<()> {
    install_and(client, epoch, "", "installing the fence of large objects").await
}

async fn install_and(client: &mut Client, epoch: u64, more: &str, doing: &str) -> PgResult<()> {
    let transaction = guarded(client, epoch).await?;
    let sql = format!("SET LOCAL client_min_messages = warning; SELECT cutover.let_pass('large objects'); {LARGE_OBJECTS_SQL}; {more}");
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}

/// Lets nobody write a large object any more, superusers excepted, and waits for everyone who may have written one or
/// still could: a transaction that is under way may not have noticed that the right is gone. One that begins later has.
///
/// # Errors
/// [`PgError::TimedOut`] naming who is in the way; [`PgError::Refused`] if a prepared transaction exists.
pub async fn fence(client: &mut Client, epoch: u64, deadline: Instant) -> PgResult<()> {
    install_and(client, epoch, FENCE_SQL, "fencing large objects").await?;
    await_others(client, deadline).await?;
    // It is no transaction under way, and can commit at any time.
    refuse_prepared(client).await
}

async fn await_others(client: &Client, deadline: Instant) -> PgResult<()> {
    let failed = |error| PgError::sql("looking for transactions under way", error);
    let begun = Instant::now();
    let rows = client.query(&format!("SELECT l.virtualxid {OTHERS}"), &[]).await.map_err(failed)?;
    let waited_for: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let still = format!(
        "SELECT pg_catalog.format('pid %s (%s, %s, %s)', a.pid, a.usename, COALESCE(NULLIF(a.application_name, ''), '?'), a.state) {OTHERS} \
         AND l.virtualxid = ANY ($1) LIMIT 5"
    );
    let mut rest = Duration::from_millis(1);
    loop {
        let rows = client.query(&still, &[&waited_for]).await.map_err(failed)?;
        if rows.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let others: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let limit = deadline.saturating_duration_since(begun);
            return Err(PgError::TimedOut { doing: format!("fencing large objects behind {}", others.join(", ")), limit });
        }
        if begun.elapsed() >= IDLE_LIMIT {
            end_idle(client, &waited_for).await?;
        }
        sleep(rest).await;
        rest = (rest * 2).min(Duration::from_millis(20));
    }
}

/// Whoever idles inside a transaction has nothing acknowledged to lose.
async fn end_idle(client: &Client, waited_for: &[String]) -> PgResult<()> {
    let sql = format!(
        "SELECT pg_catalog.pg_terminate_backend(a.pid) {OTHERS} AND l.virtualxid = ANY ($1) \
           AND a.state IN ('idle in transaction', 'idle in transaction (aborted)')"
    );
    let ended = client.execute(&sql, &[&waited_for]).await.map_err(|error| PgError::sql("ending idle transactions", error))?;
    if ended > 0 {
        tracing::warn!(ended, "ended sessions that were idle inside a transaction, which large objects can't be fenced behind");
    }
    Ok(())
}

/// Gives back the right to write large objects as it was. Does nothing where it was not taken.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn lift(client: &mut Client, epoch: u64) -> PgResult<()> {
    let doing = "letting clients write large objects again";
    let failed = |error| PgError::sql(doing, error);
    if !is_installed(client).await? {
        return Ok(());
    }
    let transaction = guarded(client, epoch).await?;
    transaction.batch_execute(&format!("SELECT cutover.let_pass('large objects'); {LIFT_SQL}")).await.map_err(failed)?;
    commit(transaction, doing).await
}

/// Whether a side has what [`install`] makes.
pub(super) async fn is_installed(client: &Client) -> PgResult<bool> {
    let sql = "SELECT pg_catalog.to_regprocedure('cutover.lift_large_objects()') IS NOT NULL";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("looking for the fence of large objects", error))?;
    Ok(row.get(0))
}

/// Who may write large objects all the same, superusers excepted. Nobody, behind the fence.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn writers(client: &Client) -> PgResult<Vec<String>> {
    let sql = "SELECT pg_catalog.format('%s may call %s', grantee, function) FROM cutover.large_object_writer ORDER BY 1";
    let rows = client.query(sql, &[]).await.map_err(|error| PgError::sql("asking who may write large objects", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
