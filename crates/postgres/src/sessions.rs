//! Who else is connected.

use serde::Serialize;
use tokio_postgres::Client;

use crate::{PgError, PgResult};

/// Sessions of one application under one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clients {
    /// Role.
    pub role: String,
    /// `application_name`.
    pub application: String,
    /// Sessions.
    pub sessions: i64,
}

/// B10: who is connected to this database, the busiest fifty of them; we ourselves are left out.
///
/// Without `pg_monitor` the kind of somebody else's session is hidden: then whoever replicates is told by other views.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn clients(client: &Client) -> PgResult<Vec<Clients>> {
    let sql = "SELECT usename::text, application_name, pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() \
           AND (backend_type = 'client backend' OR backend_type IS NULL AND usename IS NOT NULL AND pid NOT IN ( \
               SELECT s.pid FROM pg_catalog.pg_stat_subscription s WHERE s.pid IS NOT NULL \
               UNION ALL SELECT r.pid FROM pg_catalog.pg_stat_replication r WHERE r.pid IS NOT NULL)) \
           AND NOT pg_catalog.starts_with(application_name, 'cutover/') GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 50";
    let rows = client.query(sql, &[]).await.map_err(|error| PgError::sql("asking who is connected", error))?;
    let status = |row: &tokio_postgres::Row| Clients {
        role: row.get::<_, Option<String>>(0).unwrap_or_default(),
        application: row.get::<_, Option<String>>(1).unwrap_or_default(),
        sessions: row.get(2),
    };
    Ok(rows.iter().map(status).collect())
}
