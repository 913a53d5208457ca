//! Removing clones, and finding those that a killed rehearsal left.

use std::time::Duration;

use cutover_core::{Stream, plan::DatabaseUrl};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::{MARK, Made, Marker, PREFIX, marker};
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    gate,
    names::{Names, ident, literal},
};

/// What our sessions at a server's own database are called.
const APPLICATION: &str = "cutover/rehearse";

/// How long a database may keep us from dropping it: workers need a moment to end.
const DROP_LIMIT: Duration = Duration::from_secs(30);

/// Between two tries to drop a database.
const RETRY: Duration = Duration::from_millis(200);

/// A database with a rehearsal's name that is still there.
#[derive(Clone, Debug, Serialize)]
pub struct Leftover {
    /// Its name.
    pub database: String,
    /// Its marker; without one it is not ours to remove.
    pub marker: Option<Marker>,
    /// Whether the rehearsal that made it has a session there.
    pub in_use: bool,
}

/// Every database of a server that is called or marked as a clone.
///
/// # Errors
/// The server's answer.
pub async fn leftovers(server: &DatabaseUrl) -> PgResult<Vec<Leftover>> {
    let client = connect(server, &Purpose::new(APPLICATION)).await?;
    let sql = "SELECT d.datname::text, COALESCE(pg_catalog.shobj_description(d.oid, 'pg_database'), ''), \
             EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datname = d.datname AND a.backend_type = 'client backend' \
                 AND pg_catalog.starts_with(a.application_name, $1)) \
         FROM pg_catalog.pg_database d WHERE pg_catalog.starts_with(d.datname::text, $1) \
             OR pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $2) ORDER BY 1";
    let rows = client.query(sql, &[&PREFIX, &MARK]).await.map_err(|error| PgError::sql("looking for clones", error))?;
    let leftover = |row: &tokio_postgres::Row| {
        // A database that was renamed after it was made is somebody's now.
        let (database, comment): (String, String) = (row.get(0), row.get(1));
        let marker = Marker::read(&comment).filter(|marker| marker.database() == database);
        Leftover { database, marker, in_use: row.get(2) }
    };
    Ok(rows.iter().map(leftover).collect())
}

/// Removes clones with all that hangs on them: subscriptions, slots, the roles that were made for them. One that is gone
/// already is no error. All are taken off their streams before the first is dropped: a stream's worker would come back.
///
/// # Errors
/// [`PgError::Refused`] where a database does not carry this marker; the server's answer.
pub async fn remove(clones: &[(DatabaseUrl, Marker)]) -> PgResult<()> {
    let mut failed = None;
    for (server, marked) in clones {
        failed = failed.or(take_off_streams(server, marked).await.err());
    }
    // What can go goes, whatever the others say.
    for (server, marked) in clones {
        failed = failed.or(drop_clone(server, marked).await.err());
    }
    failed.map_or(Ok(()), Err)
}

/// What a cutover has left in a database: streams, gates, its schema. In words.
///
/// # Errors
/// [`PgError::Refused`] where the database is not ours; the server's answer.
pub async fn left_behind(clone: &Made, names: &Names) -> PgResult<Vec<String>> {
    let client = clone.session(Some(Duration::from_secs(30))).await?;
    let streams = [Stream::Forward, Stream::Reverse].map(|stream| names.slot(stream));
    let sql = "SELECT 'the slot ' || slot_name FROM pg_catalog.pg_replication_slots WHERE slot_name::text = ANY ($1) \
             AND database = pg_catalog.current_database() \
         UNION ALL SELECT 'the publication ' || pubname FROM pg_catalog.pg_publication WHERE pubname::text = ANY ($1) \
         UNION ALL SELECT 'the subscription ' || s.subname FROM pg_catalog.pg_subscription s \
             JOIN pg_catalog.pg_database d ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database() WHERE s.subname::text = ANY ($1) \
         UNION ALL SELECT 'the schema ' || nspname FROM pg_catalog.pg_namespace WHERE nspname = 'cutover' \
         UNION ALL SELECT 'a gate before ' || tgrelid::regclass::text FROM pg_catalog.pg_trigger WHERE tgname = 'cutover_gate' \
         UNION ALL SELECT 'the event trigger ' || evtname FROM pg_catalog.pg_event_trigger WHERE evtname IN ('cutover_ddl_gate', 'cutover_arm_new_table')";
    let rows = client.query(sql, &[&streams.as_slice()]).await.map_err(|error| PgError::sql("looking for what was left behind", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whether the database is there; one with another marker or none is refused.
async fn still_ours(client: &Client, marked: &Marker) -> PgResult<bool> {
    let name = marked.database();
    let sql = "SELECT FROM pg_catalog.pg_database WHERE datname = $1";
    if client.query_opt(sql, &[&name]).await.map_err(|error| PgError::sql("looking for a clone", error))?.is_none() {
        return Ok(false);
    }
    if marker(client, &name).await?.as_ref() == Some(marked) {
        return Ok(true);
    }
    Err(PgError::Refused {
        what: format!("the database {name} does not carry the marker of the rehearsal {}: it is not removed", marked.id),
        hint: Some("look at it, and drop it by hand if it is a clone: its comment says what made it".to_owned()),
    })
}

async fn take_off_streams(server: &DatabaseUrl, marked: &Marker) -> PgResult<()> {
    let client = connect(server, &Purpose::new(APPLICATION)).await?;
    if still_ours(&client, marked).await? { drop_subscriptions(server, marked).await } else { Ok(()) }
}

async fn drop_clone(server: &DatabaseUrl, marked: &Marker) -> PgResult<()> {
    let client = connect(server, &Purpose::new(APPLICATION)).await?;
    drop_database(&client, marked).await?;
    drop_roles(&client, marked).await
}

async fn drop_subscriptions(server: &DatabaseUrl, marked: &Marker) -> PgResult<()> {
    let url = DatabaseUrl { database: marked.database(), ..server.clone() };
    let client = connect(&url, &Purpose::new(&marked.application())).await?;
    let sql = "SELECT s.subname::text FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = pg_catalog.current_database()";
    let failed = |error| PgError::sql("dropping a clone's subscriptions", error);
    // A rehearsal that stopped half-way left a closed gate.
    if gate::owner(&client).await?.is_some() {
        gate::let_pass(&client, "rehearsal").await?;
    }
    for name in client.query(sql, &[]).await.map_err(failed)?.iter().map(|row| ident(row.get(0))) {
        let statements = [
            format!("ALTER SUBSCRIPTION {name} DISABLE"),
            format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {name}"),
        ];
        for statement in statements {
            client.batch_execute(&statement).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Its marker is looked at right before. `FORCE` ends whoever is still connected, but no sender of a stream.
async fn drop_database(client: &Client, marked: &Marker) -> PgResult<()> {
    let name = marked.database();
    let deadline = Instant::now() + DROP_LIMIT;
    while still_ours(client, marked).await? {
        let senders =
            "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots WHERE database = $1 AND active";
        let dropping = |error| PgError::sql(format!("dropping the clone {name}"), error);
        client.execute(senders, &[&name]).await.map_err(dropping)?;
        match client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", ident(&name))).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(dropping(error)),
            Err(error) => tracing::debug!(%error, "a clone can't be dropped yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Roles that were made for the clone. One that something else hangs on by now stays.
async fn drop_roles(client: &Client, marked: &Marker) -> PgResult<()> {
    let sql = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE pg_catalog.shobj_description(oid, 'pg_authid') = $1";
    let rows = client.query(sql, &[&role_mark(marked)]).await.map_err(|error| PgError::sql("looking for a clone's roles", error))?;
    for name in rows.iter().map(|row| row.get::<_, String>(0)) {
        if let Err(error) = client.batch_execute(&format!("DROP ROLE {}", ident(&name))).await {
            tracing::warn!(role = name, error = %PgError::sql("dropping a role", error), "a role that was made for a clone stays");
        }
    }
    Ok(())
}

/// The comment on a role that was made for a clone.
pub(super) fn role_mark(marked: &Marker) -> String {
    format!("{MARK}{}", marked.id)
}

/// Marks a role as made for a clone.
pub(super) fn mark_role_sql(role: &str, marked: &Marker) -> String {
    format!("COMMENT ON ROLE {} IS {}", ident(role), literal(&role_mark(marked)))
}
