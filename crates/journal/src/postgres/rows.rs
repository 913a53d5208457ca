//! The servers' rows, in a session.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row as SqlRow};

use super::connection::Deadline;
use super::store::{LIMIT, cant};
use crate::error::JournalError;
use crate::roster::{self, Draft, Row, Stored};

/// The notification is the transaction's, so whoever it wakes sees the row.
const WRITE: &str = "
    WITH written AS (
        INSERT INTO cutover_journal.server AS s (plan, server, beat, lease_ms, body, written_at_ms)
        VALUES ($1, $2, $3, $4, $5, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
        ON CONFLICT (plan, server) DO UPDATE
        SET beat = excluded.beat, lease_ms = excluded.lease_ms, body = excluded.body, written_at_ms = excluded.written_at_ms
        RETURNING plan, written_at_ms
    )
    SELECT pg_notify('cutover_journal', plan)::text, written_at_ms,
           EXISTS (SELECT FROM cutover_journal.server WHERE plan = $1 AND server = $2)
    FROM written";

const READ: &str = "
    SELECT server, beat, lease_ms, body, written_at_ms FROM cutover_journal.server WHERE plan = $1 ORDER BY server";

const REMOVE: &str = "
    WITH removed AS (DELETE FROM cutover_journal.server WHERE plan = $1 AND server = $2 RETURNING plan)
    SELECT pg_notify('cutover_journal', plan)::text FROM removed";

/// Writes the server's row; with its first one, it clears away those of long ago.
pub(super) async fn write(client: &Client, plan: &str, draft: &Draft) -> Result<(), JournalError> {
    let doing = "write the server's row";
    let values: [(&(dyn ToSql + Sync), Type); 5] = [
        (&plan, Type::TEXT),
        (&draft.server, Type::TEXT),
        (&draft.beat, Type::INT8),
        (&draft.lease_ms, Type::INT8),
        (&draft.body_text, Type::TEXT),
    ];
    let Some(row) = Deadline::after(LIMIT).row(doing, client, WRITE, &values).await? else { return Ok(()) };
    // The statement sees the table as it was before it.
    let was_there: bool = row.try_get(2).map_err(cant(doing))?;
    if !was_there {
        clear(client, plan, row.try_get(1).map_err(cant(doing))?).await;
    }
    Ok(())
}

pub(super) async fn read(client: &Client, plan: &str) -> Result<Vec<Row>, JournalError> {
    let doing = "read the servers' rows";
    let rows = Deadline::after(LIMIT).keep(doing, client.query_typed(READ, &[(&plan, Type::TEXT)])).await?;
    rows.iter().map(|row| read_one(row).map_err(cant(doing))?.into_row()).collect()
}

pub(super) async fn remove(client: &Client, plan: &str, server: &str) -> Result<(), JournalError> {
    let values: [(&(dyn ToSql + Sync), Type); 2] = [(&plan, Type::TEXT), (&server, Type::TEXT)];
    Deadline::after(LIMIT).row("remove the server's row", client, REMOVE, &values).await.map(drop)
}

/// A role that was let in may lack the right to; then the old rows stay, and do no harm.
async fn clear(client: &Client, plan: &str, now_ms: i64) {
    let sql = "DELETE FROM cutover_journal.server WHERE plan = $1 AND written_at_ms < $2";
    let stale = roster::stale_before_ms(now_ms);
    let values: [(&(dyn ToSql + Sync), Type); 2] = [(&plan, Type::TEXT), (&stale, Type::INT8)];
    if let Err(error) = Deadline::after(LIMIT).keep("clear away old rows of servers", client.execute_typed(sql, &values)).await {
        tracing::debug!(%error, "old rows of servers stay");
    }
}

fn read_one(row: &SqlRow) -> Result<Stored, Error> {
    let (server, beat, lease_ms, body_text) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    Ok(Stored { server, beat, lease_ms, body_text, written_at_ms: row.try_get(4)? })
}
