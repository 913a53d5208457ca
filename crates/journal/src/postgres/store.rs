//! Reading and appending in a session.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, IsolationLevel, Row as SqlRow};

use super::connection::Deadline;
use crate::chain::{self, Checked, Head};
use crate::entry::{Entry, Position, Row, Snapshot};
use crate::error::{AppendError, JournalError};
use crate::hash::Hash;
use crate::limits::stored;

/// For each thing asked of the server that is small.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// For reading a whole journal; a little more than the server's own limit.
const READ_LIMIT: Duration = Duration::from_secs(35);

const ADD: &str = "
    WITH added AS (
        INSERT INTO cutover_journal.entry (plan, seq, epoch, at_ms, actor, reason, kind, body, prev_hash, hash)
        SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::bytea[])
    )
    UPDATE cutover_journal.head SET seq = $11, epoch = $12, hash = $13 WHERE plan = $1";

const AFTER: &str = "
    SELECT seq, epoch, at_ms, actor, reason, kind, body, prev_hash, hash
    FROM cutover_journal.entry WHERE plan = $1 AND seq > $2 ORDER BY seq";

/// Says so where the server itself gives up durability: no session can mend that.
pub(super) async fn warn_if_not_durable(client: &Client, location: &str) -> Result<(), JournalError> {
    let sql = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
    for row in Deadline::after(LIMIT).keep("read the server's settings", client.query_typed(sql, &[])).await? {
        let setting: String = row.try_get(0).map_err(cant("read the server's settings"))?;
        tracing::warn!(%location, %setting, "the server has this off: a crash of its host can lose the journal's newest entries");
    }
    Ok(())
}

/// Asks to be told of every append.
pub(super) async fn listen(client: &Client) -> Result<(), JournalError> {
    Deadline::after(LIMIT).keep("listen to the journal", client.batch_execute("LISTEN cutover_journal")).await
}

/// Whether the server is still there.
pub(super) async fn answers(client: &Client) -> bool {
    Deadline::after(LIMIT).keep("reach the journal's database", client.check_connection()).await.is_ok()
}

/// Begins a transaction to append in, each of whose statements sees what was committed before it.
pub(super) async fn begin(client: &Client) -> Result<(), JournalError> {
    let sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    Deadline::after(LIMIT).keep("begin to append to the journal", client.batch_execute(sql)).await
}

/// Locks the head row, once no other transaction is appending to the plan's journal. Within a transaction.
pub(super) async fn lock_head(client: &Client, plan: &str) -> Result<Head, JournalError> {
    let doing = "lock the journal's head";
    let deadline = Deadline::after(LIMIT);
    // A row that isn't there can't be locked. Another's that isn't committed yet is waited for.
    let make = "INSERT INTO cutover_journal.head (plan, seq, epoch, hash) VALUES ($1, 0, 0, $2) ON CONFLICT DO NOTHING";
    let origin = Hash::ORIGIN.as_bytes().as_slice();
    let lock = "SELECT seq, epoch, hash FROM cutover_journal.head WHERE plan = $1 FOR UPDATE";
    let made: [(&(dyn ToSql + Sync), Type); 2] = [(&plan, Type::TEXT), (&origin, Type::BYTEA)];
    let locked: [(&(dyn ToSql + Sync), Type); 1] = [(&plan, Type::TEXT)];
    // Sent in one go.
    let both = async { tokio::try_join!(biased; client.execute_typed(make, &made), client.query_typed_opt(lock, &locked)) };
    let (_, row) = deadline.keep(doing, both).await?;
    read_head(row.as_ref())
}

/// Compares, chains and writes, all within the transaction that was begun.
pub(super) async fn stage(client: &Client, plan: &str, expected: Position, drafts: Vec<Checked>) -> Result<Vec<Entry>, AppendError> {
    let head = lock_head(client, plan).await.map_err(failed)?;
    // A statement of its own, begun after the lock was given: so it sees what the last holder of the lock wrote.
    let newest = newest(client, plan).await.map_err(failed)?;
    chain::check_head(expected, head, newest)?;
    let entries = chain::chain(plan, head, drafts);
    if let Some(last) = entries.last() {
        let adding = add(client, plan, &entries, last);
        Deadline::after(LIMIT).keep("append to the journal", adding).await.map_err(failed)?;
    }
    Ok(entries)
}

/// Commits; after an error it isn't known whether it did.
pub(super) async fn commit(client: &Client) -> Result<(), JournalError> {
    Deadline::after(LIMIT).keep("commit to the journal", client.batch_execute("COMMIT")).await
}

/// Gives up the transaction.
pub(super) async fn roll_back(client: &Client) -> Result<(), JournalError> {
    Deadline::after(LIMIT).keep("give up appending to the journal", client.batch_execute("ROLLBACK")).await
}

/// Everything, as of one instant.
pub(super) async fn snapshot(client: &mut Client, plan: &str) -> Result<Snapshot, JournalError> {
    let doing = "read the journal";
    let deadline = Deadline::after(READ_LIMIT);
    let begin = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start();
    let transaction = deadline.keep(doing, begin).await?;
    let entries = after(transaction.client(), plan, 0).await?;
    let head = head(transaction.client(), plan).await?.published();
    deadline.keep(doing, transaction.commit()).await?;
    Ok(Snapshot { entries, head })
}

/// The head row.
pub(super) async fn head(client: &Client, plan: &str) -> Result<Head, JournalError> {
    let sql = "SELECT seq, epoch, hash FROM cutover_journal.head WHERE plan = $1";
    let row = Deadline::after(LIMIT).row("read the journal's head", client, sql, &[(&plan, Type::TEXT)]).await?;
    read_head(row.as_ref())
}

/// The entries after a sequence number.
pub(super) async fn after(client: &Client, plan: &str, seq: i64) -> Result<Vec<Entry>, JournalError> {
    let doing = "read the journal";
    let values: [(&(dyn ToSql + Sync), Type); 2] = [(&plan, Type::TEXT), (&seq, Type::INT8)];
    let rows = Deadline::after(READ_LIMIT).keep(doing, client.query_typed(AFTER, &values)).await?;
    rows.iter().map(|row| read_row(row).map_err(cant(doing))?.into_entry(plan)).collect()
}

/// Hash of the newest entry, whatever the head says.
async fn newest(client: &Client, plan: &str) -> Result<Option<Hash>, JournalError> {
    let doing = "read the newest entry";
    let sql = "SELECT seq, hash FROM cutover_journal.entry WHERE plan = $1 ORDER BY seq DESC LIMIT 1";
    let row = Deadline::after(LIMIT).row(doing, client, sql, &[(&plan, Type::TEXT)]).await?;
    let Some(row) = row else { return Ok(None) };
    let hash: &[u8] = row.try_get(1).map_err(cant(doing))?;
    Hash::from_stored(row.try_get(0).map_err(cant(doing))?, hash).map(Some)
}

async fn add(client: &Client, plan: &str, entries: &[Entry], last: &Entry) -> Result<u64, Error> {
    let seqs = numbers(entries, |entry| entry.seq);
    let epochs = numbers(entries, |entry| entry.epoch);
    let at_ms: Vec<i64> = entries.iter().map(|entry| entry.at_ms).collect();
    let actors = texts(entries, |entry| &entry.actor);
    let reasons = texts(entries, |entry| &entry.reason);
    let kinds = texts(entries, |entry| &entry.kind);
    let bodies = texts(entries, |entry| &entry.body_text);
    let prev_hashes = hashes(entries, |entry| &entry.prev_hash);
    let own_hashes = hashes(entries, |entry| &entry.hash);
    let values: [(&(dyn ToSql + Sync), Type); 13] = [
        (&plan, Type::TEXT),
        (&seqs, Type::INT8_ARRAY),
        (&epochs, Type::INT8_ARRAY),
        (&at_ms, Type::INT8_ARRAY),
        (&actors, Type::TEXT_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&bodies, Type::TEXT_ARRAY),
        (&prev_hashes, Type::BYTEA_ARRAY),
        (&own_hashes, Type::BYTEA_ARRAY),
        (&stored(last.seq), Type::INT8),
        (&stored(last.epoch), Type::INT8),
        (&last.hash.as_bytes().as_slice(), Type::BYTEA),
    ];
    client.execute_typed(ADD, &values).await
}

fn numbers(entries: &[Entry], number: impl Fn(&Entry) -> u64) -> Vec<i64> {
    entries.iter().map(|entry| stored(number(entry))).collect()
}

fn texts(entries: &[Entry], text: impl Fn(&Entry) -> &String) -> Vec<&str> {
    entries.iter().map(|entry| text(entry).as_str()).collect()
}

fn hashes(entries: &[Entry], hash: impl Fn(&Entry) -> &Hash) -> Vec<&[u8]> {
    entries.iter().map(|entry| hash(entry).as_bytes().as_slice()).collect()
}

fn read_head(row: Option<&SqlRow>) -> Result<Head, JournalError> {
    let Some(row) = row else { return Ok(Head::ORIGIN) };
    let failed = cant("read the journal's head");
    let hash: &[u8] = row.try_get(2).map_err(&failed)?;
    Head::from_row(row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?, hash)
}

fn read_row(row: &SqlRow) -> Result<Row, Error> {
    Ok(Row {
        seq: row.try_get(0)?,
        epoch: row.try_get(1)?,
        at_ms: row.try_get(2)?,
        actor: row.try_get(3)?,
        reason: row.try_get(4)?,
        kind: row.try_get(5)?,
        body_text: row.try_get(6)?,
        prev_hash: row.try_get(7)?,
        hash: row.try_get(8)?,
    })
}

fn failed(source: JournalError) -> AppendError {
    AppendError::Failed { source }
}

pub(super) fn cant(doing: &'static str) -> impl Fn(Error) -> JournalError {
    move |source| JournalError::Postgres { doing, source }
}
