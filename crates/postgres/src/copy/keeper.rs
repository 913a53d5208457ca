//! Keepers: two sessions at the source that hold the copy's snapshot and outlive the driver.
//!
//! All rows must come from one snapshot, and a snapshot lives no longer than the transactions that hold it. A session
//! that runs a statement doesn't notice that its client is gone; so a keeper takes up the snapshot, exports it again and
//! stays inside one statement. The statement ends by itself when no driver has copied for a while: whoever copies holds
//! an advisory lock at the source, and the keeper tries that lock twice a second.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

use super::{Job, ledger, patient, table::Shared};
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    gate,
    names::literal,
};

/// How often it is looked whether both are there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One is enough; the other is there for when it is ended by somebody.
const KEEPERS: usize = 2;

/// The snapshot of a copy, and who keeps it.
#[derive(Debug)]
pub(super) struct Kept {
    /// What it sees.
    pub(super) visible: String,
    keepers: Mutex<Vec<Keeper>>,
}

/// A session at the source.
#[derive(Clone, Debug)]
struct Keeper {
    pid: i32,
    /// The name under which it exports the snapshot.
    snapshot: String,
}

impl Kept {
    /// Has a snapshot kept that one of these names stands for. `visible`, where it is known, is what it must see.
    pub(super) async fn new(job: &Job<'_>, names: &[String], visible: Option<&str>) -> PgResult<Self> {
        let (first, visible) = Keeper::start(job, names, visible).await?;
        let mut keepers = vec![first];
        while keepers.len() < KEEPERS {
            keepers.push(Keeper::start(job, names, Some(&visible)).await?.0);
        }
        Ok(Self { visible, keepers: Mutex::new(keepers) })
    }

    /// The names under which it can be taken up.
    pub(super) fn names(&self) -> Vec<String> {
        self.keepers().into_iter().map(|keeper| keeper.snapshot).collect()
    }

    fn keepers(&self) -> Vec<Keeper> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pids(&self) -> Vec<i32> {
        self.keepers().iter().map(|keeper| keeper.pid).collect()
    }

    /// Ends the keepers that are not ours: those of a driver before us.
    pub(super) async fn end_others(&self, origin: &Client, job: &Job<'_>) -> PgResult<()> {
        let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE application_name = $1 AND datname = pg_catalog.current_database() AND pid <> ALL ($2)";
        let ended = origin.execute(sql, &[&job.names.keeper(), &self.pids()]).await;
        ended.map(drop).map_err(|error| PgError::sql("ending an earlier driver's keepers", error))
    }

    /// Looks after the keepers: one that was ended is replaced. So is `origin`, the session whose lock tells them that
    /// somebody copies. Comes back only with what makes that impossible.
    pub(super) async fn look_after(&self, job: &Job<'_>, origin: &mut Client, shared: &Shared) -> PgError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = match self.look(job, origin, shared).await {
                Err(_) if origin.is_closed() => replace(job, origin, shared).await,
                looked => looked,
            };
            if let Err(error) = looked {
                return error;
            }
        }
    }

    async fn look(&self, job: &Job<'_>, origin: &Client, shared: &Shared) -> PgResult<()> {
        let sql = "SELECT pid FROM pg_catalog.pg_stat_activity \
             WHERE application_name = $1 AND datname = pg_catalog.current_database() AND pid = ANY ($2)";
        let rows = origin.query(sql, &[&job.names.keeper(), &self.pids()]).await;
        let rows = rows.map_err(|error| PgError::sql("looking after the snapshot", error))?;
        let there: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        let mut alive = self.keepers();
        alive.retain(|keeper| there.contains(&keeper.pid));
        if alive.len() == KEEPERS {
            return Ok(());
        }
        let names: Vec<String> = alive.iter().map(|keeper| keeper.snapshot.clone()).collect();
        alive.push(Keeper::start(job, &names, Some(&self.visible)).await?.0);
        tracing::info!(left = names.len(), "a session that kept the snapshot was ended; there is a new one");
        *self.keepers.lock().unwrap_or_else(PoisonError::into_inner) = alive;
        let mut target = super::table::open_target(shared).await?;
        ledger::set_snapshots(&mut target, job.epoch, &self.names()).await
    }
}

async fn replace(job: &Job<'_>, origin: &mut Client, shared: &Shared) -> PgResult<()> {
    *origin = connect(job.source, &Purpose::new(&shared.application)).await?;
    say_copying(origin).await
}

impl Keeper {
    async fn start(job: &Job<'_>, names: &[String], visible: Option<&str>) -> PgResult<(Self, String)> {
        let doing = "having the snapshot kept";
        let failed = |error| PgError::sql(doing, error);
        let client = connect(job.source, &patient(&job.names.keeper())).await?;
        // A server that is told to look would notice that nobody is there any more.
        let settings = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
             WHERE name IN ('client_connection_check_interval', 'transaction_timeout')";
        client.batch_execute(settings).await.map_err(failed)?;
        let visible = take_up(&client, names, visible, doing).await?;
        let row = client.query_one("SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_export_snapshot()", &[]).await.map_err(failed)?;
        let keeper = Self { pid: row.get(0), snapshot: row.get(1) };
        let stay = stay_sql(job.resume_within);
        tokio::spawn(async move {
            if let Err(error) = client.batch_execute(&stay).await {
                tracing::debug!(%error, "a session that kept the snapshot has ended");
            }
        });
        Ok((keeper, visible))
    }
}

/// The statement that a keeper stays in.
fn stay_sql(grace: Duration) -> String {
    let lock = gate::copy_lock();
    format!(
        "DO $$ DECLARE v_seen timestamptz := clock_timestamp(); BEGIN LOOP \
             IF pg_try_advisory_lock({lock}) THEN PERFORM pg_advisory_unlock({lock}); EXIT WHEN clock_timestamp() >= v_seen + interval '{} ms'; \
             ELSE v_seen := clock_timestamp(); END IF; \
             PERFORM pg_sleep(0.5); END LOOP; END $$",
        grace.as_millis()
    )
}

/// Tells the keepers, for as long as this session lives, that somebody copies.
pub(super) async fn say_copying(origin: &Client) -> PgResult<()> {
    let sql = format!("SELECT pg_catalog.pg_advisory_lock_shared({})", gate::copy_lock());
    origin.batch_execute(&sql).await.map_err(|error| PgError::sql("saying that we copy", error))
}

/// Begins a transaction that sees what the snapshot sees, under whichever of its names still stands for it. Says what it
/// sees. Row-level security that would hide rows from us is an error.
pub(super) async fn take_up(source: &Client, names: &[String], visible: Option<&str>, doing: &str) -> PgResult<String> {
    let failed = |error| PgError::sql(format!("{doing}: taking up the snapshot"), error);
    let mut why = "nobody keeps it any more".to_owned();
    for name in names {
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; SET LOCAL row_security = off; \
             SELECT pg_catalog.pg_current_snapshot()::text",
            literal(name)
        );
        match source.simple_query(&sql).await {
            Ok(answer) => {
                let seen = answer.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                match seen {
                    Some(seen) if visible.is_none_or(|visible| seen == visible) => return Ok(seen),
                    _ => why = format!("{name} is the name of another by now"),
                }
            }
            Err(error) if is_gone(&error) => why = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or(why),
            Err(error) => return Err(failed(error)),
        }
        source.batch_execute("ROLLBACK").await.map_err(failed)?;
    }
    Err(PgError::SnapshotLost(why))
}

/// What a server says of a snapshot that nobody exports.
fn is_gone(error: &tokio_postgres::Error) -> bool {
    const GONE: [SqlState; 3] = [SqlState::INVALID_PARAMETER_VALUE, SqlState::UNDEFINED_OBJECT, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE];
    error.code().is_some_and(|code| GONE.contains(code))
}
