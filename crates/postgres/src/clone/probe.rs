//! A table of the rehearsal's own, for writes that need to know nothing of the application.

use std::time::Duration;

use cutover_core::plan::DatabaseUrl;
use tokio_postgres::Client;

use super::Made;
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    names::literal,
};

/// The longest that one of these may take where nothing is held.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes the table at the clone that stands for the source. From there it moves like every other.
///
/// # Errors
/// [`PgError::Refused`] where the clone is not ours; the server's answer.
pub async fn install(clone: &Made) -> PgResult<()> {
    let client = clone.session(Some(LIMIT)).await?;
    client.batch_execute(include_str!("../sql/probe.sql")).await.map_err(|error| PgError::sql("making the table of the probe", error))
}

/// A session that writes as an application would, by whatever way `url` goes.
///
/// # Errors
/// [`PgError::Connect`].
pub async fn client(url: &DatabaseUrl) -> PgResult<Client> {
    connect(url, &Purpose::unbounded("probe")).await
}

/// Writes one row, its key drawn from a sequence. It is acknowledged when this returns.
///
/// # Errors
/// The server's answer: while a gate is closed, a refusal.
pub async fn write(client: &Client, tag: &str) -> PgResult<()> {
    let sql = format!("INSERT INTO cutover_rehearsal.probe (tag) VALUES ({})", literal(tag));
    client.batch_execute(&sql).await.map_err(|error| PgError::sql("writing a probe", error))
}

/// Of these rows, those that a clone does not hold.
///
/// # Errors
/// [`PgError::Refused`] where the clone is not ours; the server's answer.
pub async fn missing(clone: &Made, tags: &[String]) -> PgResult<Vec<String>> {
    let client = clone.session(Some(LIMIT)).await?;
    let sql = "SELECT t FROM pg_catalog.unnest($1::text[]) t WHERE NOT EXISTS (SELECT FROM cutover_rehearsal.probe p WHERE p.tag = t)";
    let rows = client.query(sql, &[&tags]).await.map_err(|error| PgError::sql("looking for the probe's rows", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
