//! The safety check of all tables, which somebody has to call again and again.

use serde::Serialize;
use tokio_postgres::{Client, error::SqlState};

use crate::{PgError, PgResult, names::ident};

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// Its name.
    pub table: String,
    /// `none`, `rolled_back`, `advanced`, `held` where the next step was refused, or `failed`.
    pub action: String,
    /// Why, or what was seen.
    pub reason: Option<String>,
    /// `healthy`, `degraded`, `unhealthy` or `inconclusive`.
    pub health: String,
}

/// Checks every table that is on its way, and does what follows: a table that is unhealthy is rolled back, one that may advance by
/// itself does.
///
/// # Errors
/// [`PgError::Refused`] where no such function is installed; [`PgError::Sql`].
pub async fn check(client: &Client, schema: &str) -> PgResult<Vec<Checked>> {
    let sql = format!("SELECT table_name, action_taken, reason, health_status FROM {}.run_automated_safety_check()", ident(schema));
    let rows = client.query(&sql, &[]).await.map_err(|error| match error.code() {
        Some(&SqlState::UNDEFINED_FUNCTION | &SqlState::INVALID_SCHEMA_NAME) => PgError::Refused {
            what: format!("there is no safety check in the schema {schema}"),
            hint: Some("`cutover sql install` installs it, and brings an older installation up to date".to_owned()),
        },
        _ => PgError::sql("checking the tables", error),
    })?;
    let checked = |row: &tokio_postgres::Row| Checked { table: row.get(0), action: row.get(1), reason: row.get(2), health: row.get(3) };
    Ok(rows.iter().map(checked).collect())
}
