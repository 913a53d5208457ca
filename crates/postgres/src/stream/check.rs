//! What keeps a stream from carrying everything.

use std::collections::{BTreeSet, HashSet};

use cutover_core::Stream;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::publication::{published, unwanted, wanted_tables};
use crate::{
    PgError, PgResult,
    catalogue::{self, QualifiedName},
    names::{Names, ident},
};

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
        wanted.iter().filter(|table| !present.contains(*table)).map(|table| format!("{table} is not published at the {}", stream.origin())),
    );
    problems.extend(
        unwanted(present.iter(), &wanted)
            .iter()
            .map(|table| format!("{table} is published and should not be: rename it back if it had another name")),
    );
    problems.extend(replicating(destination, names, stream, &present).await?);
    problems.extend(flowing(origin, names, stream).await?);
    if stream == Stream::Forward {
        let here = catalogue::sequences(origin).await?;
        let there = catalogue::sequences(destination).await?;
        let there: HashSet<&QualifiedName> = there.iter().map(|sequence| &sequence.name).collect();
        let lacking = here.iter().filter(|sequence| !there.contains(&sequence.name));
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
        // Both in one message, which is one transaction: a policy that hides rows from us must be an error, not a no.
        let sql = format!("SET LOCAL row_security = off; SELECT FROM ONLY {table} LIMIT 1");
        let answer = client.simple_query(&sql).await.map_err(|error| PgError::sql(format!("looking into {table}"), error))?;
        if answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))) {
            holding.push(table);
        }
    }
    Ok(holding)
}

/// Every published table must be in state `r` at the destination.
pub(super) async fn replicating(
    destination: &Client,
    names: &Names,
    stream: Stream,
    published: &BTreeSet<String>,
) -> PgResult<Vec<String>> {
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
