//! The stream of changes from one side to the other: publication and slot at its origin, subscription at its destination.
//!
//! Made early, switched on and off in the pause. Both directions at once would send every change round for ever, so
//! only one stream of a plan ever flows: `enable` is called for one after `disable` has seen the other's worker gone.

use std::time::Duration;

use cutover_core::{Lsn, Stream};
use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

use crate::{
    PgError, PgResult, catalogue, gate,
    names::{Names, ident, literal},
};

/// Polls grow from the first to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Tables that one statement adds to a publication.
const TABLES_AT_ONCE: usize = 500;

/// Makes the publication equal the catalogue: every table that holds rows, and the marker. Returns what was changed.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn publish(origin: &mut Client, destination: &Client, names: &Names, stream: Stream, epoch: u64) -> PgResult<Vec<String>> {
    let doing = "publishing the tables";
    let publication = names.publication(stream);
    let wanted = wanted_tables(origin, destination, stream).await?;
    let present = published(origin, &publication).await?;
    let transaction = gate::guarded(origin, epoch).await?;
    let failed = |error| PgError::sql(doing, error);
    let missing: Vec<String> =
        wanted.iter().filter(|table| present.as_ref().is_none_or(|present| !present.contains(table))).cloned().collect();
    let extra: Vec<String> = present.iter().flatten().filter(|table| !wanted.contains(table)).cloned().collect();
    if present.is_none() {
        transaction.batch_execute(&sql_publish(names, stream)).await.map_err(failed)?;
    }
    for part in missing.chunks(TABLES_AT_ONCE) {
        let sql = format!("ALTER PUBLICATION {} ADD TABLE {}", ident(&publication), only(part));
        transaction.batch_execute(&sql).await.map_err(failed)?;
    }
    for part in extra.chunks(TABLES_AT_ONCE) {
        let sql = format!("ALTER PUBLICATION {} DROP TABLE {}", ident(&publication), only(part));
        transaction.batch_execute(&sql).await.map_err(failed)?;
    }
    gate::commit(transaction, doing).await?;
    let changes = missing.iter().map(|table| format!("added {table}")).chain(extra.iter().map(|table| format!("dropped {table}")));
    Ok(changes.collect())
}

fn only(tables: &[String]) -> String {
    tables.iter().map(|table| format!("ONLY {table}")).collect::<Vec<_>>().join(", ")
}

/// The tables that must be published, quoted: partitions by themselves, so that both sides are told alike. A table that
/// a migration made at the target only has nowhere to go on the way back.
async fn wanted_tables(origin: &Client, destination: &Client, stream: Stream) -> PgResult<Vec<String>> {
    let mut tables = row_tables(origin).await?;
    if stream == Stream::Reverse {
        let there = row_tables(destination).await?;
        tables.retain(|table| there.contains(table));
    }
    tables.push("\"cutover\".\"marker\"".to_owned());
    Ok(tables)
}

/// Tables of the origin, quoted, that the destination lacks.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn missing(origin: &Client, destination: &Client) -> PgResult<Vec<String>> {
    let there = row_tables(destination).await?;
    Ok(row_tables(origin).await?.into_iter().filter(|table| !there.contains(table)).collect())
}

async fn row_tables(client: &Client) -> PgResult<Vec<String>> {
    let tables = catalogue::tables(client).await?;
    Ok(tables.iter().filter(|table| table.holds_rows() && table.persistence == "p").map(|table| table.name.quoted()).collect())
}

/// The tables of a publication, quoted; none where it does not exist.
async fn published(client: &Client, publication: &str) -> PgResult<Option<Vec<String>>> {
    let failed = |error| PgError::sql("reading the publication", error);
    if client.query_opt("SELECT FROM pg_catalog.pg_publication WHERE pubname = $1", &[&publication]).await.map_err(failed)?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_publication p \
         JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1";
    let rows = client.query(sql, &[&publication]).await.map_err(failed)?;
    Ok(Some(rows.iter().map(|row| format!("{}.{}", ident(row.get(0)), ident(row.get(1)))).collect()))
}

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
    let begun = Instant::now();
    let transaction = gate::guarded(origin, epoch).await?;
    gate::commit(transaction, "making the slot").await?;
    let sql = sql_create_slot(names, stream);
    let make = origin.query(&sql, &[]);
    match tokio::time::timeout_at(deadline, make).await {
        Ok(made) => made.map(drop).map_err(failed),
        Err(_) => Err(PgError::TimedOut {
            doing: format!("making the slot {slot}, which waits for every transaction under way to end"),
            limit: begun.elapsed(),
        }),
    }
}

/// Drops the slot of a stream, and whoever still reads it.
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
        let sql = "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL";
        let readers = transaction.query(sql, &[&slot]).await.map_err(|error| PgError::sql(doing, error))?;
        if readers.is_empty() {
            transaction.batch_execute(&sql_drop_slot(names, stream)).await.map_err(|error| PgError::sql(doing, error))?;
            return gate::commit(transaction, doing).await;
        }
        gate::commit(transaction, doing).await?;
        wait(&mut poll, deadline, doing).await?;
    }
}

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
    let sql = match subscription(destination, names, stream).await? {
        None => sql_subscribe(names, stream, conninfo),
        Some((_, enabled)) if enabled || replicating(destination, names, stream, &published).await?.is_empty() => {
            format!("ALTER SUBSCRIPTION {name} CONNECTION {}", literal(conninfo))
        }
        Some(_) => format!(
            "ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}; {}",
            sql_subscribe(names, stream, conninfo)
        ),
    };
    let transaction = gate::guarded(destination, epoch).await?;
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(&doing, error))?;
    gate::commit(transaction, &doing).await
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
        let sql = "SELECT pg_catalog.pg_terminate_backend(p) FROM pg_catalog.unnest($1::int4[]) p";
        match destination.query(sql, &[&workers]).await {
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            other => drop(other.map_err(|error| PgError::sql(&doing, error))?),
        }
        wait(&mut poll, deadline, &doing).await?;
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

async fn may_advance_origin(transaction: &tokio_postgres::Transaction<'_>) -> PgResult<bool> {
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

/// What keeps a stream from carrying everything: a table that is not published or not replicating, an unhealthy slot,
/// a worker that does not run, a sequence that the other side lacks. Empty where nothing does.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn check(origin: &Client, destination: &Client, names: &Names, stream: Stream) -> PgResult<Vec<String>> {
    let mut problems = Vec::new();
    let publication = names.publication(stream);
    let wanted = wanted_tables(origin, destination, stream).await?;
    let present = published(origin, &publication).await?.unwrap_or_default();
    problems.extend(
        wanted.iter().filter(|table| !present.contains(table)).map(|table| format!("{table} is not published at the {}", stream.origin())),
    );
    problems.extend(present.iter().filter(|table| !wanted.contains(table)).map(|table| format!("{table} is published and should not be")));
    problems.extend(replicating(destination, names, stream, &present).await?);
    problems.extend(flowing(origin, names, stream).await?);
    if stream == Stream::Forward {
        let here = catalogue::sequences(origin).await?;
        let there = catalogue::sequences(destination).await?;
        let lacking = here.iter().filter(|sequence| !there.iter().any(|other| other.name == sequence.name));
        problems.extend(lacking.map(|sequence| format!("the {} has no sequence {}", stream.destination(), sequence.name)));
    }
    Ok(problems)
}

/// Tables behind the gate that hold rows and are not published: made since the stream was last checked. One cheap query,
/// so that it can be asked inside the pause, behind the closed gate.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn unpublished(origin: &Client, names: &Names, stream: Stream) -> PgResult<Vec<String>> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_trigger t \
         JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE t.tgname = 'cutover_gate' AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT EXISTS ( \
             SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid \
             WHERE r.prrelid = c.oid AND p.pubname = $1) ORDER BY 1, 2 LIMIT 20";
    let rows = origin
        .query(sql, &[&names.publication(stream)])
        .await
        .map_err(|error| PgError::sql("looking for tables that are not published", error))?;
    Ok(rows.iter().map(|row| format!("{}.{}", ident(row.get(0)), ident(row.get(1)))).collect())
}

/// Of these tables, quoted, those that hold a row.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn holding_rows(client: &Client, tables: Vec<String>) -> PgResult<Vec<String>> {
    let mut holding = Vec::new();
    for table in tables {
        let sql = format!("SELECT EXISTS (SELECT FROM ONLY {table})");
        let row = client.query_one(&sql, &[]).await.map_err(|error| PgError::sql(format!("looking into {table}"), error))?;
        if row.get(0) {
            holding.push(table);
        }
    }
    Ok(holding)
}

/// Every published table must be in state `r` at the destination.
async fn replicating(destination: &Client, names: &Names, stream: Stream, published: &[String]) -> PgResult<Vec<String>> {
    let sql = "SELECT n.nspname::text, c.relname::text, r.srsubstate::text FROM pg_catalog.pg_subscription s \
         JOIN pg_catalog.pg_subscription_rel r ON r.srsubid = s.oid JOIN pg_catalog.pg_class c ON c.oid = r.srrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE s.subname = $1";
    let rows = destination
        .query(sql, &[&names.subscription(stream)])
        .await
        .map_err(|error| PgError::sql("reading the subscription's tables", error))?;
    let states: std::collections::BTreeMap<String, String> =
        rows.iter().map(|row| (format!("{}.{}", ident(row.get(0)), ident(row.get(1))), row.get(2))).collect();
    let problem = |table: &String| match states.get(table).map(String::as_str) {
        Some("r") => None,
        Some(state) => Some(format!("{table} is in state `{state}` at the {}, not `r`", stream.destination())),
        None => Some(format!("the {} does not replicate {table}: its subscription was not refreshed", stream.destination())),
    };
    Ok(published.iter().filter_map(problem).collect())
}

async fn flowing(origin: &Client, names: &Names, stream: Stream) -> PgResult<Vec<String>> {
    let slot = names.slot(stream);
    let sql = "SELECT active, COALESCE(wal_status, '') FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let row = origin.query_opt(sql, &[&slot]).await.map_err(|error| PgError::sql("reading the slot", error))?;
    Ok(match row.map(|row| (row.get::<_, bool>(0), row.get::<_, String>(1))) {
        None => vec![format!("the {} has no slot {slot}", stream.origin())],
        Some((_, status)) if status == "lost" => vec![format!("the slot {slot} is lost: its log was removed; the copy must be made again")],
        Some((false, _)) => vec![format!("nobody reads the slot {slot}: the apply worker at the {} does not run", stream.destination())],
        Some((true, _)) => vec![],
    })
}

async fn wait(poll: &mut Duration, deadline: Instant, doing: &str) -> PgResult<()> {
    if Instant::now() >= deadline {
        return Err(PgError::TimedOut { doing: doing.to_owned(), limit: Duration::ZERO });
    }
    tokio::time::sleep(*poll).await;
    *poll = (*poll * 2).min(POLL.1);
    Ok(())
}

/// Makes an empty publication.
#[must_use]
pub fn sql_publish(names: &Names, stream: Stream) -> String {
    format!(
        "CREATE PUBLICATION {} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)",
        ident(&names.publication(stream))
    )
}

/// Makes a slot.
#[must_use]
pub fn sql_create_slot(names: &Names, stream: Stream) -> String {
    format!("SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput')", literal(&names.slot(stream)))
}

/// Drops a slot if it is there.
#[must_use]
pub fn sql_drop_slot(names: &Names, stream: Stream) -> String {
    let slot = literal(&names.slot(stream));
    format!("SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}")
}

/// Makes a subscription, disabled, with every table of the publication in state `r`.
#[must_use]
pub fn sql_subscribe(names: &Names, stream: Stream, conninfo: &str) -> String {
    format!(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {} \
         WITH (connect = true, enabled = false, create_slot = false, slot_name = {}, copy_data = false)",
        ident(&names.subscription(stream)),
        literal(conninfo),
        ident(&names.publication(stream)),
        literal(&names.slot(stream))
    )
}

/// Lets a subscription run.
#[must_use]
pub fn sql_enable(names: &Names, stream: Stream) -> String {
    format!("ALTER SUBSCRIPTION {} ENABLE", ident(&names.subscription(stream)))
}

/// Stops a subscription.
#[must_use]
pub fn sql_disable(names: &Names, stream: Stream) -> String {
    format!("ALTER SUBSCRIPTION {} DISABLE", ident(&names.subscription(stream)))
}

/// Moves a slot past everything written so far.
#[must_use]
pub fn sql_advance(names: &Names, stream: Stream) -> String {
    let slot = literal(&names.slot(stream));
    format!(
        "SELECT a.end_lsn::text, w.lsn::text FROM (SELECT pg_catalog.pg_current_wal_flush_lsn() AS lsn) w \
         CROSS JOIN LATERAL pg_catalog.pg_replication_slot_advance({slot}, w.lsn) a"
    )
}
