//! Who gets by: which roles may connect, which sessions and roles may write while the gate is closed.

use std::time::Duration;

use tokio_postgres::{Client, Transaction};

use super::{commit, guarded};
use crate::{PgError, PgResult, names::literal};

/// Takes the right to connect from everyone but `keep`, superusers excepted, and remembers it in the database itself.
/// Those of `keep` that had it through a group or through PUBLIC get it by name for as long.
/// Returns false where we may not, because the database is somebody else's.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn isolate(client: &mut Client, epoch: u64, keep: &[&str]) -> PgResult<bool> {
    let doing = "isolating the database";
    let transaction = guarded(client, epoch).await?;
    if !owns_database(&transaction).await? {
        return Ok(false);
    }
    let sql = "SELECT CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE r.rolname::text END \
         FROM pg_catalog.pg_database d \
         CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(d.datacl, pg_catalog.acldefault('d', d.datdba))) x \
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee \
         WHERE d.datname = pg_catalog.current_database() AND x.privilege_type = 'CONNECT' AND (x.grantee = 0 OR r.rolname <> ALL ($1::text[]))";
    let keep: Vec<&str> = keep.to_vec();
    for grantee in lacking_by_name(&transaction, &keep).await? {
        let sql = format!(
            "INSERT INTO cutover.admission VALUES ({}, true) ON CONFLICT DO NOTHING; {}",
            literal(&grantee),
            connect_sql("GRANT", "TO", &grantee)
        );
        transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    }
    let rows = transaction.query(sql, &[&keep]).await.map_err(|error| PgError::sql(doing, error))?;
    for grantee in rows.iter().map(|row| row.get::<_, String>(0)) {
        let sql = format!(
            "INSERT INTO cutover.admission VALUES ({}) ON CONFLICT DO NOTHING; {}",
            literal(&grantee),
            connect_sql("REVOKE", "FROM", &grantee)
        );
        transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    }
    commit(transaction, doing).await?;
    Ok(true)
}

/// Of some roles, those that are no superusers and have not been granted the right to connect by name.
async fn lacking_by_name(transaction: &Transaction<'_>, roles: &[&str]) -> PgResult<Vec<String>> {
    let sql = "SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[]) AND NOT r.rolsuper AND NOT EXISTS ( \
         SELECT FROM pg_catalog.pg_database d \
         CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(d.datacl, pg_catalog.acldefault('d', d.datdba))) x \
         WHERE d.datname = pg_catalog.current_database() AND x.privilege_type = 'CONNECT' AND x.grantee = r.oid)";
    let rows = transaction.query(sql, &[&roles]).await.map_err(|error| PgError::sql("asking who may connect by name", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn owns_database(transaction: &Transaction<'_>) -> PgResult<bool> {
    let sql =
        "SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    let row = transaction.query_one(sql, &[]).await.map_err(|error| PgError::sql("asking who owns the database", error))?;
    Ok(row.get(0))
}

/// Gives back the right to connect as it was before [`isolate`].
///
/// # Errors
/// [`PgError::Sql`].
pub async fn admit(client: &mut Client, epoch: u64) -> PgResult<()> {
    let doing = "letting clients connect again";
    let transaction = guarded(client, epoch).await?;
    let rows = transaction
        .query("DELETE FROM cutover.admission RETURNING grantee, granted", &[])
        .await
        .map_err(|error| PgError::sql(doing, error))?;
    for (grantee, granted) in rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, bool>(1))) {
        let (verb, preposition) = if granted { ("REVOKE", "FROM") } else { ("GRANT", "TO") };
        transaction.batch_execute(&connect_sql(verb, preposition, &grantee)).await.map_err(|error| PgError::sql(doing, error))?;
    }
    commit(transaction, doing).await
}

/// `GRANT` or `REVOKE CONNECT`, with the database's name filled in by the server.
fn connect_sql(verb: &str, preposition: &str, grantee: &str) -> String {
    let grantee = if grantee == "PUBLIC" { grantee.to_owned() } else { crate::names::ident(grantee) };
    let statement = format!("{verb} CONNECT ON DATABASE %I {preposition} {grantee}");
    format!("DO $do$ BEGIN EXECUTE pg_catalog.format({}, pg_catalog.current_database()); END $do$", literal(&statement))
}

/// Lets this session write and define while the gate is closed.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn let_pass(client: &Client, purpose: &str) -> PgResult<()> {
    let sql = format!("SELECT cutover.let_pass({})", literal(purpose));
    client.batch_execute(&sql).await.map_err(|error| PgError::sql("getting leave to pass the gate", error))
}

/// Lets a role write and define while the gate is closed, for a while: what a migration hook needs. `None` takes it back.
///
/// # Errors
/// [`PgError::Superseded`], or the server's answer.
pub async fn let_role_pass(client: &mut Client, epoch: u64, role: &str, purpose: &str, limit: Option<Duration>) -> PgResult<()> {
    let doing = "giving a role leave to pass the gate";
    let transaction = guarded(client, epoch).await?;
    let mut sql = format!("DELETE FROM cutover.pass_role WHERE role_name = {}", literal(role));
    if let Some(limit) = limit {
        sql += &format!(
            "; INSERT INTO cutover.pass_role VALUES ({}, {}, pg_catalog.clock_timestamp() + interval '{} seconds')",
            literal(role),
            literal(purpose),
            limit.as_secs() + 1
        );
    }
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}

/// Ends the sessions of drivers before us, which might still be copying. Theirs are all those whose `application_name`
/// begins so, but those whose `application_name` is in `keep`.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn end_other_drivers(client: &Client, application_prefix: &str, keep: &[String]) -> PgResult<u64> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE pg_catalog.starts_with(application_name, $1) AND datname = pg_catalog.current_database() \
           AND pid <> pg_catalog.pg_backend_pid() AND application_name <> ALL ($2)";
    client.execute(sql, &[&application_prefix, &keep]).await.map_err(|error| PgError::sql("ending an earlier driver's sessions", error))
}
