//! The content of large objects: compared in chunks by their digests, and brought over chunk by chunk.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::PAGE_SQL;
use crate::{PgError, PgResult};

/// What is compared and written at once. Unit: bytes.
pub(super) const CHUNK: i64 = 1 << 20;

/// The digest of a chunk that holds nothing but zeros: the same as a hole.
const ZEROS: &str = "b6d81b360a5672d80c27430f39153e2c";

/// A stretch of a large object, in chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) id: u32,
    pub(super) from: i64,
    pub(super) below: i64,
}

/// One chunk of one large object.
pub(super) type At = (u32, i64);

/// The chunks of some stretches that hold anything, with their digests.
pub(super) async fn digests(client: &Client, stretches: &[Stretch]) -> PgResult<BTreeMap<At, String>> {
    let sql = in_chunks("pg_catalog.md5(pg_catalog.lo_get(c.id, c.chunk * 1048576, 1048576))");
    let rows = ask(client, "comparing large objects", &sql, stretches).await?;
    let digests = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get::<_, String>(2)));
    Ok(digests.filter(|(_, digest)| digest != ZEROS).collect())
}

/// The chunks of some stretches that hold anything.
pub(super) async fn chunks(client: &Client, stretches: &[Stretch]) -> PgResult<BTreeSet<At>> {
    let rows = ask(client, "listing the pages of large objects", &in_chunks("NULL"), stretches).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn in_chunks(value: &str) -> String {
    format!(
        "SELECT c.id, c.chunk, {value} FROM ( \
             SELECT DISTINCT p.id, lo.pageno::bigint * {PAGE_SQL} / 1048576 AS chunk \
             FROM unnest($1::oid[], $2::bigint[], $3::bigint[]) AS p (id, first, below) \
             JOIN pg_catalog.pg_largeobject lo ON lo.loid = p.id \
                 AND lo.pageno >= p.first * (1048576 / {PAGE_SQL}) AND lo.pageno < p.below * (1048576 / {PAGE_SQL})) c"
    )
}

async fn ask(client: &Client, doing: &str, sql: &str, stretches: &[Stretch]) -> PgResult<Vec<tokio_postgres::Row>> {
    let ids: Vec<u32> = stretches.iter().map(|stretch| stretch.id).collect();
    let first: Vec<i64> = stretches.iter().map(|stretch| stretch.from).collect();
    let below: Vec<i64> = stretches.iter().map(|stretch| stretch.below).collect();
    client.query(sql, &[&ids, &first, &below]).await.map_err(|error| PgError::sql(doing, error))
}

/// Reads some chunks. One of an object that is gone meanwhile is left out, one behind its end is empty.
pub(super) async fn read(client: &Client, chunks: &[At]) -> PgResult<Vec<(At, Vec<u8>)>> {
    let sql = "SELECT p.id, p.chunk, pg_catalog.lo_get(p.id, p.chunk * 1048576, 1048576) \
         FROM unnest($1::oid[], $2::bigint[]) AS p (id, chunk) JOIN pg_catalog.pg_largeobject_metadata m ON m.oid = p.id";
    let (ids, numbers): (Vec<u32>, Vec<i64>) = chunks.iter().copied().unzip();
    let rows = client.query(sql, &[&ids, &numbers]).await.map_err(|error| PgError::sql("reading large objects", error))?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}

/// The sizes of some large objects, of those that hold anything.
pub(super) async fn sizes(client: &Client, ids: &[u32]) -> PgResult<BTreeMap<u32, i64>> {
    let sql = format!(
        "SELECT p.id, s.bytes FROM unnest($1::oid[]) AS p (id) CROSS JOIN LATERAL ( \
             SELECT lo.pageno::bigint * {PAGE_SQL} + pg_catalog.octet_length(lo.data) AS bytes FROM pg_catalog.pg_largeobject lo \
             WHERE lo.loid = p.id ORDER BY lo.pageno DESC LIMIT 1) s"
    );
    let rows = client.query(&sql, &[&ids]).await.map_err(|error| PgError::sql("reading the sizes of large objects", error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_as_large_as_the_statements_say() {
        for sql in [in_chunks("NULL"), in_chunks("1")] {
            assert!(sql.contains(&CHUNK.to_string()), "{sql}");
        }
    }
}
