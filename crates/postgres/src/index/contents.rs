//! What is made from the rows and no definition: the contents of materialised views, and statistics.

use cutover_core::plan::DatabaseUrl;
use tokio_postgres::{Client, error::SqlState};

use crate::{
    PgError, PgResult, catalogue,
    connect::{Purpose, connect},
    coverage::Coverage,
    gate,
    names::{Names, ident},
    pool::work_through,
};

/// Refreshes the views that hold rows at the source. One that reads another comes after it.
pub(super) async fn refresh_views(source: &DatabaseUrl, target: &mut Client, names: &Names, epoch: u64) -> PgResult<usize> {
    let doing = "refreshing the materialised views";
    let origin = connect(source, &Purpose::new(&names.application("indexes"))).await?;
    let covered = Coverage::installed(&origin).await?.inside();
    let sql = format!(
        "SELECT schemaname::text, matviewname::text FROM pg_catalog.pg_matviews m \
         JOIN pg_catalog.pg_class c ON c.relname = m.matviewname AND c.relkind = 'm' \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = m.schemaname WHERE ispopulated AND {covered} ORDER BY c.oid"
    );
    let rows = origin.query(&sql, &[]).await.map_err(|error| PgError::sql(doing, error))?;
    let mut left: Vec<String> = rows.iter().map(|row| format!("{}.{}", ident(row.get(0)), ident(row.get(1)))).collect();
    let count = left.len();
    gate::let_pass(target, "indexes").await?;
    while !left.is_empty() {
        let before = left.len();
        let mut waiting = Vec::new();
        for view in left {
            let transaction = gate::guarded(target, epoch).await?;
            match transaction.batch_execute(&format!("REFRESH MATERIALIZED VIEW {view}")).await {
                Ok(()) => gate::commit(transaction, doing).await?,
                // It reads one that holds nothing yet.
                Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => waiting.push(view),
                Err(error) => return Err(PgError::sql(format!("refreshing {view}"), error)),
            }
        }
        if waiting.len() == before {
            return Err(PgError::Mismatch(format!("these materialised views need each other: {}", waiting.join(", "))));
        }
        left = waiting;
    }
    Ok(count)
}

/// Gathers each table's statistics, without which the planner knows nothing of them.
pub(super) async fn analyze(target: &DatabaseUrl, application: &str, jobs: usize) -> PgResult<()> {
    let client = connect(target, &Purpose::new(application)).await?;
    let tables: Vec<String> = catalogue::tables(&client).await?.iter().map(|table| table.name.quoted()).collect();
    work_through(target, application, jobs, tables, |client, table: String| async move {
        // Statistics that are lost are gathered anew, by the server itself.
        let sql = format!("SET synchronous_commit = off; ANALYZE {table}");
        match client.batch_execute(&sql).await {
            // It runs what is in an index as the table's owner, who may have lost the right to it: so at the source too.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => tracing::warn!(%error, table, "has no statistics"),
            other => other.map_err(|error| PgError::sql(format!("analysing {table}"), error))?,
        }
        Ok(client)
    })
    .await
}
