//! One definition, in a transaction of its own.

use tokio_postgres::{Client, Transaction, error::SqlState};

use super::{definitions::Index, section::Entry};
use crate::{PgError, PgResult, gate};

/// Who builds: under which epoch, and as one of how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hands {
    pub(crate) epoch: u64,
    pub(crate) jobs: usize,
}

/// Locks are waited for; the server's own settings count where they give more than these. An index may be sorted by as
/// many processes as there are workers: the last ones are built while others have nothing left to do.
fn settings(jobs: usize) -> String {
    format!(
        "SET LOCAL lock_timeout = 0; SET LOCAL search_path = ''; \
         SELECT pg_catalog.set_config('maintenance_work_mem', greatest(256 * 1024, \
                 pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024)::text || 'kB', true), \
             pg_catalog.set_config('max_parallel_maintenance_workers', \
                 greatest({jobs}, pg_catalog.current_setting('max_parallel_maintenance_workers')::bigint)::text, true)"
    )
}

/// Builds indexes that are known not to be there, in a transaction of somebody else's.
pub(crate) async fn define_within(transaction: &Transaction<'_>, indexes: &[Index], hands: Hands) -> Result<(), tokio_postgres::Error> {
    if indexes.is_empty() {
        return Ok(());
    }
    let definitions: String = indexes.iter().map(|index| index.entry.sql.as_str()).collect();
    transaction.batch_execute(&format!("{}; {definitions}", settings(hands.jobs))).await
}

/// Builds an index, unless it is there.
pub(crate) async fn define_index(client: &mut Client, index: &Index, hands: Hands) -> PgResult<()> {
    define(client, &index.entry, hands).await
}

/// Runs a definition that the rows can do without, and says why if our role may not: a publication of all tables is a
/// superuser's to make.
pub(super) async fn define_if_allowed(client: &mut Client, entry: &Entry, hands: Hands) -> PgResult<Option<String>> {
    match define(client, entry, hands).await {
        Err(error) if entry.kind.starts_with("PUBLICATION") && error.sql_state() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Ok(Some(format!("the target has no {} {}: {error}", entry.kind.to_lowercase(), entry.name)))
        }
        done => done.map(|()| None),
    }
}

/// Runs a definition, unless what it makes is there.
async fn define(client: &mut Client, entry: &Entry, hands: Hands) -> PgResult<()> {
    let doing = format!("building {} {}", entry.kind.to_lowercase(), entry.name);
    let transaction = gate::guarded_lightly(client, hands.epoch).await?;
    let failed = |error| PgError::sql(&doing, error);
    transaction.batch_execute(&settings(hands.jobs)).await.map_err(failed)?;
    match transaction.batch_execute(&entry.sql).await {
        Ok(()) => gate::commit(transaction, &doing).await,
        Err(error) if exists_already(&error) => transaction.rollback().await.map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn exists_already(error: &tokio_postgres::Error) -> bool {
    // A function comes with the second section where it needs a key.
    let duplicates = [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_FUNCTION];
    let second_primary_key = error.code() == Some(&SqlState::INVALID_TABLE_DEFINITION)
        && error.as_db_error().is_some_and(|db| db.message().contains("multiple primary keys"));
    second_primary_key || error.code().is_some_and(|code| duplicates.contains(code))
}
