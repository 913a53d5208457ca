//! What large objects will cost, asked beforehand.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::{PgError, PgResult};

/// Pages of the sample whose reading is timed: about 20 MB.
const SAMPLE: i64 = 10_000;

/// What is there, and how long a look at it would take.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Large objects.
    pub objects: u64,
    /// What they take on disk.
    pub bytes: u64,
    /// How long one look at all of them takes, by a sample.
    pub look: Duration,
}

/// Counts a side's large objects and times a part of a look at them.
///
/// # Errors
/// [`PgError::Sql`]: only a superuser may read them.
pub async fn cost(client: &Client) -> PgResult<Cost> {
    let failed = |error| PgError::sql("counting large objects", error);
    let sql = "SELECT count(*), pg_catalog.pg_relation_size('pg_catalog.pg_largeobject'), \
             pg_catalog.pg_relation_size('pg_catalog.pg_largeobject') / (pg_catalog.current_setting('block_size')::bigint / 4) \
         FROM pg_catalog.pg_largeobject_metadata";
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    let [objects, bytes, pages] = [0, 1, 2].map(|column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0));
    let begun = Instant::now();
    let sample = "SELECT count(*), max(octets) FROM (SELECT pg_catalog.octet_length(data) AS octets, xmin FROM pg_catalog.pg_largeobject LIMIT $1) s";
    let row = client.query_one(sample, &[&SAMPLE]).await.map_err(failed)?;
    let took = begun.elapsed();
    let read = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0).max(1);
    let look = took.mul_f64((pages.max(read) as f64 / read as f64).max(1.0));
    Ok(Cost { objects, bytes, look })
}
