//! The armed gate: the refusal of writes by the database itself. Its design stands in `sql/gate.sql`.

mod access;
mod arm;
mod marker;

use std::time::Duration;

use cutover_core::{Side, plan::Filter};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Transaction};

pub(crate) use self::arm::arm_within;
pub use self::{
    access::{admit, end_other_drivers, isolate, let_pass, let_role_pass},
    arm::{arm, arm_sql, disarm, unarmed},
    marker::{FLUSH_SQL, await_marker, flush, marker_sql, write_marker},
};
use crate::{PgError, PgResult, coverage, names::literal};

/// What is installed in a user's database.
pub const GATE_SQL: &str = include_str!("../sql/gate.sql");

/// What is installed with it, for verification.
pub const LOOK_SQL: &str = include_str!("../sql/look.sql");

/// What is installed besides where event triggers may be made.
pub const DDL_GATE_SQL: &str = include_str!("../sql/ddl_gate.sql");

/// How long closing waits for one of the gate's locks before it looks who holds it. Writers that come meanwhile queue
/// behind it, so this bounds the stall of a failed attempt.
const CLOSE_LOCK_TIMEOUT: Duration = Duration::from_millis(150);

/// The advisory locks' class, as in `gate.sql`.
const LOCK_CLASS: i32 = 1_129_665_584;

/// The advisory lock that whoever copies holds at the source, shared, as the arguments of the server's functions. Those
/// who keep the snapshot of the copy stay for as long as somebody holds it.
pub(crate) fn copy_lock() -> String {
    format!("{LOCK_CLASS}, 1001")
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateState {
    /// The newest epoch that this database has seen.
    pub epoch: u64,
    /// Whether clients may write.
    pub open: bool,
}

/// Begins a transaction that a driver with an older epoch can't begin any more, and that is durable when it commits.
///
/// # Errors
/// [`PgError::Superseded`] if a newer driver has touched this database.
pub async fn guarded(client: &mut Client, epoch: u64) -> PgResult<Transaction<'_>> {
    begin(client, &guard_sql(epoch)).await
}

/// As [`guarded`], but its commit is not waited for to be on disk. That is for what is done anew where it is lost; the
/// caller has guarded before, and commits something durably behind it.
///
/// # Errors
/// As [`guarded`].
pub(crate) async fn guarded_lightly(client: &mut Client, epoch: u64) -> PgResult<Transaction<'_>> {
    begin(client, &format!("SET LOCAL synchronous_commit = off; SELECT cutover.guard({epoch})")).await
}

async fn begin<'a>(client: &'a mut Client, sql: &str) -> PgResult<Transaction<'a>> {
    let begun = |error| PgError::sql("beginning a guarded transaction", error);
    let transaction = client.transaction().await.map_err(begun)?;
    transaction.batch_execute(sql).await.map_err(begun)?;
    Ok(transaction)
}

/// Sees that no newer driver has touched this database, and lets no older one touch it from now on.
///
/// # Errors
/// As [`guarded`].
pub async fn guard(client: &mut Client, epoch: u64) -> PgResult<()> {
    let transaction = guarded(client, epoch).await?;
    commit(transaction, "looking for a newer driver").await
}

/// What every guarded transaction begins with.
#[must_use]
pub fn guard_sql(epoch: u64) -> String {
    format!("SET LOCAL synchronous_commit = on; SELECT cutover.guard({epoch})")
}

/// Commits a guarded transaction.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn commit(transaction: Transaction<'_>, doing: &str) -> PgResult<()> {
    transaction.commit().await.map_err(|error| PgError::sql(doing, error))
}

/// Installs the gate. A gate that exists keeps its state; a new one is open at the source, closed at the target.
///
/// # Errors
/// [`PgError::Refused`] if another plan's gate is installed here.
pub async fn install(client: &mut Client, plan: &str, side: Side, epoch: u64) -> PgResult<()> {
    refuse_stranger(client, plan, side).await?;
    let doing = "installing the gate";
    let failed = |error| PgError::sql(doing, error);
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.batch_execute("SET LOCAL synchronous_commit = on; SET LOCAL client_min_messages = warning").await.map_err(failed)?;
    transaction.batch_execute(GATE_SQL).await.map_err(failed)?;
    transaction.batch_execute(LOOK_SQL).await.map_err(failed)?;
    let own = format!(
        "INSERT INTO cutover.owner (plan, side) VALUES ({}, {}) ON CONFLICT DO NOTHING; \
         SELECT pg_catalog.setval('cutover.gate', {}) WHERE NOT (SELECT is_called FROM cutover.gate); SELECT cutover.guard({epoch})",
        literal(plan),
        literal(&side.to_string()),
        epoch * 2 + u64::from(side == Side::Source)
    );
    transaction.batch_execute(&own).await.map_err(failed)?;
    if may_create_event_triggers(&transaction).await? {
        transaction.batch_execute("SELECT cutover.let_pass('install')").await.map_err(failed)?;
        transaction.batch_execute(DDL_GATE_SQL).await.map_err(failed)?;
    }
    commit(transaction, doing).await
}

/// Tells a database what its cutover covers. Until then that is everything.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn cover(client: &mut Client, epoch: u64, filter: &Filter) -> PgResult<()> {
    let doing = "noting what the cutover covers";
    let transaction = guarded(client, epoch).await?;
    // Where the gate is closed already, definitions pass for those who have a pass.
    let sql = format!("SELECT cutover.let_pass('install'); {}", coverage::install_sql(filter));
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}

async fn may_create_event_triggers(transaction: &Transaction<'_>) -> PgResult<bool> {
    let sql = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = transaction.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading our own role", error))?;
    Ok(row.get(0))
}

async fn refuse_stranger(client: &Client, plan: &str, side: Side) -> PgResult<()> {
    let Some((found_plan, found_side)) = owner(client).await? else { return refuse_shadow_tables(client, side).await };
    if found_plan == plan && found_side == side.to_string() {
        return Ok(());
    }
    Err(PgError::Refused {
        what: format!("the {side} belongs to the cutover `{found_plan}` already (as its {found_side})"),
        hint: Some(format!(
            "finish that one first, with its own plan: `cutover retire`, or before any switch `cutover rollback --confirm {found_plan}`"
        )),
    })
}

/// What is kept about shadow tables would be dropped with the gate, and does not come along to the other side.
async fn refuse_shadow_tables(client: &Client, side: Side) -> PgResult<()> {
    let found = client.query_one("SELECT pg_catalog.to_regclass('cutover.sql_installation') IS NOT NULL", &[]).await;
    if !found.map_err(|error| PgError::sql("looking for shadow tables", error))?.get::<_, bool>(0) {
        return Ok(());
    }
    Err(PgError::Refused {
        what: format!("the schema cutover of the {side} belongs to shadow tables (`cutover sql install`)"),
        hint: Some(
            "finish with them first, then DROP SCHEMA cutover CASCADE; or have them installed in another schema with --schema".to_owned(),
        ),
    })
}

/// The plan and side that a database's control schema belongs to, if there is one.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn owner(client: &Client) -> PgResult<Option<(String, String)>> {
    let doing = |error| PgError::sql("looking for an installed gate", error);
    let row = client.query_one("SELECT pg_catalog.to_regclass('cutover.owner') IS NOT NULL", &[]).await.map_err(doing)?;
    if !row.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_opt("SELECT plan, side FROM cutover.owner", &[]).await.map_err(doing)?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Reads the gate.
///
/// # Errors
/// [`PgError::Mismatch`] if there is none.
pub async fn state(client: &Client) -> PgResult<GateState> {
    let sql = "SELECT pg_catalog.pg_sequence_last_value(pg_catalog.to_regclass('cutover.gate'))";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading the gate", error))?;
    let value: Option<i64> = row.get(0);
    let value = value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| PgError::Mismatch("there is no gate here".to_owned()))?;
    Ok(GateState { epoch: value >> 1, open: value & 1 == 1 })
}

/// Refuses while there is a prepared transaction: it could commit behind a closed gate.
///
/// # Errors
/// [`PgError::Refused`] naming them.
pub async fn refuse_prepared(client: &Client) -> PgResult<()> {
    let refused = client.batch_execute("SELECT cutover.refuse_prepared()").await;
    refused.map_err(|error| PgError::sql("looking for prepared transactions", error))
}

/// The statement that moves the gate.
#[must_use]
pub fn move_sql(epoch: u64, open: bool) -> String {
    format!("SELECT cutover.move_gate({epoch}, {open})")
}

/// Opens the gate.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn open(client: &mut Client, epoch: u64) -> PgResult<()> {
    move_gate(client, epoch, true).await
}

async fn move_gate(client: &mut Client, epoch: u64, open: bool) -> PgResult<()> {
    let doing = if open { "opening the gate" } else { "closing the gate" };
    let failed = |error| PgError::sql(doing, error);
    let transaction = client.transaction().await.map_err(failed)?;
    let sql = format!(
        "SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = {}; {}",
        CLOSE_LOCK_TIMEOUT.as_millis(),
        move_sql(epoch, open)
    );
    transaction.batch_execute(&sql).await.map_err(failed)?;
    commit(transaction, doing).await
}

/// Closes the gate: waits for every transaction that wrote, then refuses all others. On a time-out, sessions that hold
/// a lock and do nothing are ended, and it is tried again until the deadline.
///
/// # Errors
/// [`PgError::TimedOut`] naming who is in the way; [`PgError::Refused`] if a prepared transaction exists.
pub async fn close(client: &mut Client, epoch: u64, deadline: Instant) -> PgResult<()> {
    let begun = Instant::now();
    loop {
        match timeout_at(deadline, move_gate(client, epoch, false)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if error.is_lock_timeout() => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => break,
        }
        end_idle_writers(client).await?;
        if Instant::now() >= deadline {
            break;
        }
    }
    let writers = writers(client).await.unwrap_or_default();
    let doing = if writers.is_empty() { "closing the gate".to_owned() } else { format!("closing the gate behind {}", writers.join(", ")) };
    Err(PgError::TimedOut { doing, limit: deadline.saturating_duration_since(begun) })
}

/// A writer that is idle inside its transaction holds everyone up and has nothing acknowledged to lose.
async fn end_idle_writers(client: &Client) -> PgResult<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
         WHERE a.state IN ('idle in transaction', 'idle in transaction (aborted)') AND a.pid IN (SELECT l.pid FROM pg_catalog.pg_locks l \
             WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint < 16 AND l.objsubid = 2 AND l.granted)";
    match client.execute(sql, &[&i64::from(LOCK_CLASS)]).await {
        Ok(ended) => {
            if ended > 0 {
                tracing::warn!(ended, "ended sessions that were idle inside a writing transaction");
            }
            Ok(())
        }
        // Not our role's sessions, and we may not signal others: then they are waited for like any writer.
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        Err(error) => Err(PgError::sql("ending idle writers", error)),
    }
}

/// Who holds the gate: at most five, with what they do.
async fn writers(client: &Client) -> PgResult<Vec<String>> {
    let sql = "SELECT pg_catalog.format('pid %s (%s, %s, writing for %s s)', a.pid, a.usename, COALESCE(NULLIF(a.application_name, ''), '?'), \
             COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::integer::text, '?')) \
         FROM pg_catalog.pg_stat_activity a WHERE a.pid IN (SELECT l.pid FROM pg_catalog.pg_locks l \
             WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint < 16 AND l.objsubid = 2 AND l.granted) \
         AND a.pid <> pg_catalog.pg_backend_pid() ORDER BY a.xact_start LIMIT 5";
    let rows = client.query(sql, &[&i64::from(LOCK_CLASS)]).await.map_err(|error| PgError::sql("asking who writes", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Removes the control schema, with everything in it. Does nothing where there is none of this plan's.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn remove(client: &mut Client, plan: &str, epoch: u64) -> PgResult<()> {
    if owner(client).await?.is_none_or(|(found, _)| found != plan) {
        return Ok(());
    }
    let doing = "removing the gate";
    let transaction = guarded(client, epoch).await?;
    let sql = "SELECT cutover.let_pass('removing'); SET LOCAL client_min_messages = warning; \
         DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname IN ('cutover_ddl_gate', 'cutover_arm_new_table')) THEN \
             DROP EVENT TRIGGER IF EXISTS cutover_ddl_gate; DROP EVENT TRIGGER IF EXISTS cutover_arm_new_table; END IF; END $$; \
         DROP SCHEMA cutover CASCADE";
    transaction.batch_execute(sql).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}
