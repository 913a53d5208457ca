//! Which server this is, by what cannot be mistaken for another.

use cutover_core::Identity;
use cutover_core::plan::DatabaseUrl;
use tokio_postgres::Client;

use crate::{PgError, PgResult};

/// The timeline is that of the log being written: `pg_control_checkpoint` lags behind a promotion until the next
/// checkpoint. A standby writes none and is refused elsewhere; there the checkpoint's must do.
const IDENTITY_SQL: &str = "SELECT s.system_identifier::text, pg_catalog.current_database()::text, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN c.timeline_id \
          ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer END, \
     pg_catalog.current_setting('server_version_num')::integer / 10000, pg_catalog.pg_is_in_recovery() \
     FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c";

/// Reads the identity of the server and database behind a connection.
///
/// # Errors
/// [`PgError::Refused`] for a standby: nothing can be written there.
pub async fn identity(client: &Client, url: &DatabaseUrl) -> PgResult<Identity> {
    let row = client.query_one(IDENTITY_SQL, &[]).await.map_err(|error| PgError::sql("reading the server's identity", error))?;
    if row.get::<_, bool>(4) {
        return Err(PgError::Refused {
            what: format!("{} is a standby (in recovery)", url.address()),
            hint: Some("name the primary in the plan".to_owned()),
        });
    }
    Ok(Identity {
        system_identifier: row.get(0),
        database: row.get(1),
        timeline: u32::try_from(row.get::<_, i32>(2)).unwrap_or_default(),
        major: u32::try_from(row.get::<_, i32>(3)).unwrap_or_default(),
        address: url.address(),
    })
}
