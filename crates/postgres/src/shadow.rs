//! Shadow tables: what is installed in somebody's database so that a table moves to another shape from SQL alone, and the
//! calls of it that take long.
//!
//! The SQL is the product (`crates/postgres/sql`): everything here can be done with psql as well. An installation is the
//! upgrades in their order, each of which may be applied twice, and then the functions as they are now.

pub mod audit;
pub mod routes;
pub mod safety;

use std::time::Duration;

use tokio_postgres::{Client, error::SqlState};

use crate::{PgError, PgResult, names::ident};

/// The schema where nobody says another.
pub const SCHEMA: &str = "cutover";

/// The tables, by the version that brought them.
const UPGRADES: [&str; 4] = [
    include_str!("../sql/upgrades/001.sql"),
    include_str!("../sql/upgrades/002.sql"),
    include_str!("../sql/upgrades/003.sql"),
    include_str!("../sql/upgrades/004.sql"),
];

/// What is made anew with each installation.
const FUNCTIONS: [&str; 18] = [
    include_str!("../sql/functions/names.sql"),
    include_str!("../sql/functions/audit.sql"),
    include_str!("../sql/functions/shadow.sql"),
    include_str!("../sql/functions/dual_write.sql"),
    include_str!("../sql/functions/backfill.sql"),
    include_str!("../sql/functions/validation.sql"),
    include_str!("../sql/functions/operations.sql"),
    include_str!("../sql/functions/health.sql"),
    include_str!("../sql/functions/ladder.sql"),
    include_str!("../sql/functions/routing.sql"),
    include_str!("../sql/functions/hanging.sql"),
    include_str!("../sql/functions/swap.sql"),
    include_str!("../sql/functions/check_completion.sql"),
    include_str!("../sql/functions/completion.sql"),
    include_str!("../sql/functions/way_back.sql"),
    include_str!("../sql/functions/reports.sql"),
    include_str!("../sql/functions/self_test.sql"),
    include_str!("../sql/grants.sql"),
];

/// Whoever looks, applications, and whoever decides; roles of the whole server.
const ROLES: [&str; 3] = ["cutover_viewer", "cutover_app", "cutover_operator"];

/// How long an installation may wait for whoever uses the functions just now.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// The tables in their final state, to be read and compared with.
pub const TABLES_SQL: &str = include_str!("../sql/tables.sql");

/// What an installation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The version that is there now.
    pub version: u32,
    /// The one that was there before.
    pub before: Option<u32>,
}

/// A schema's name that the SQL can be written for.
///
/// # Errors
/// Why not.
pub fn schema_name(name: &str) -> Result<String, String> {
    let sound = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.len() <= 63
        && !name.starts_with("pg_");
    if sound { Ok(name.to_owned()) } else { Err(format!("`{name}`: lower-case letters, digits and _, at most 63, and not pg_…")) }
}

/// SQL of ours, for a schema of another name.
#[must_use]
pub fn in_schema(sql: &str, schema: &str) -> String {
    if schema == SCHEMA {
        return sql.to_owned();
    }
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(SCHEMA) {
        let (before, found) = rest.split_at(at);
        let behind = &found[SCHEMA.len()..];
        // `cutover.name`, `SCHEMA cutover` and `'cutover'::regnamespace`, and nothing that only begins so.
        let word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let ours = word
            && (behind.starts_with('.') && !behind.starts_with(". ")
                || before.ends_with("SCHEMA ")
                || behind.starts_with("'::regnamespace"));
        text.push_str(before);
        text.push_str(if ours { schema } else { SCHEMA });
        rest = behind;
    }
    text + rest
}

/// Everything that an installation executes, in one transaction.
#[must_use]
pub fn script(schema: &str) -> String {
    // Roles are the whole server's: somebody may make them for another database just now.
    let roles = ROLES.iter().map(|role| {
        format!(
            "DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role} NOLOGIN; END IF; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;\n"
        )
    });
    let begin = format!("SET LOCAL client_min_messages = warning;\nSET LOCAL lock_timeout = '{} ms';\n", LOCK_LIMIT.as_millis());
    let schema_sql = format!("CREATE SCHEMA IF NOT EXISTS {schema};\n");
    let version = format!(
        "INSERT INTO cutover.sql_installation (version) VALUES ({0}) \
         ON CONFLICT (singleton) DO UPDATE SET version = {0}, upgraded_at = pg_catalog.clock_timestamp();\n",
        UPGRADES.len()
    );
    let parts: String = UPGRADES.iter().chain(&FUNCTIONS).map(|part| format!("{part}\n")).collect();
    begin + &roles.collect::<String>() + &schema_sql + &in_schema(&(parts + &version), schema)
}

/// Installs it, or brings an older installation up to date. Where `short_names` is wanted, sessions that begin from now on find
/// its functions without the schema's name.
///
/// # Errors
/// [`PgError::Refused`] where the schema belongs to a switch, or a newer version is there; [`PgError::Sql`].
pub async fn install(client: &mut Client, schema: &str, short_names: bool) -> PgResult<Installed> {
    let failed = |error| PgError::sql("installing the functions for shadow tables", error);
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.batch_execute("SELECT pg_catalog.pg_advisory_xact_lock(1129665586)").await.map_err(failed)?;
    let there = "SELECT pg_catalog.to_regclass($1 || '.owner') IS NOT NULL, pg_catalog.to_regclass($1 || '.sql_installation') IS NOT NULL";
    let row = transaction.query_one(there, &[&schema]).await.map_err(failed)?;
    if row.get(0) {
        return Err(PgError::Refused {
            what: format!("the schema {schema} belongs to a switch that is under way here"),
            hint: Some("--schema gives it another name".to_owned()),
        });
    }
    let before = if row.get(1) {
        let version = format!("SELECT version FROM {}.sql_installation", ident(schema));
        let version: i32 = transaction.query_one(&version, &[]).await.map_err(failed)?.get(0);
        Some(version.unsigned_abs())
    } else {
        None
    };
    let newest = UPGRADES.len() as u32;
    if let Some(before) = before.filter(|before| *before > newest) {
        return Err(PgError::Refused {
            what: format!("version {before} is installed, and this cutover has version {newest}"),
            hint: Some("use a newer cutover".to_owned()),
        });
    }
    transaction.batch_execute(&script(schema)).await.map_err(failed)?;
    if short_names {
        transaction.batch_execute(&shorten(&transaction, schema).await?).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(Installed { version: newest, before })
}

/// How far a backfill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Rows of this step.
    pub rows: u64,
    /// Rows since it began.
    pub total: u64,
    /// Whether that was all.
    pub done: bool,
}

/// Brings the next rows of a table to its shadow. The server's own words are in the error where it refuses.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn backfill_step(client: &Client, schema: &str, table: &str, rows: u32) -> PgResult<Backfill> {
    let sql = format!("SELECT rows, total, done FROM {}.backfill_step($1, $2)", ident(schema));
    let row = client.query_one(&sql, &[&table, &rows.cast_signed()]).await.map_err(|error| PgError::sql("bringing rows", error))?;
    let count = |column| row.get::<_, i64>(column).unsigned_abs();
    Ok(Backfill { rows: count(0), total: count(1), done: row.get(2) })
}

/// About how many rows a table has, as the server's statistics say; none where they say nothing.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn estimate(client: &Client, schema: &str, table: &str) -> PgResult<Option<u64>> {
    let sql = format!("SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = {}.table_named($1)", ident(schema));
    let row = client.query_one(&sql, &[&table]).await.map_err(|error| PgError::sql("looking at the table", error))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).ok().filter(|rows| *rows > 0))
}

/// Tables with a shadow, by name.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn tables(client: &Client, schema: &str) -> PgResult<Vec<String>> {
    let sql = format!("SELECT table_name FROM {}.shadow_table ORDER BY table_name", ident(schema));
    let rows = client.query(&sql, &[]).await.map_err(|error| unreadable("listing the tables", schema, error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Why something of the schema can't be read.
fn unreadable(doing: &str, schema: &str, error: tokio_postgres::Error) -> PgError {
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => PgError::Refused {
            what: format!("shadow tables are not installed in the schema {schema}"),
            hint: Some("`cutover sql install` does it".to_owned()),
        },
        _ => PgError::sql(doing, error),
    }
}

/// Brings rows whose keys are queued; returns how many, and how many keys are queued now.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn drain(client: &Client, schema: &str, table: &str, rows: u32) -> PgResult<(u64, u64)> {
    let failed = |error| PgError::sql("bringing queued rows", error);
    let brought: i64 =
        client.query_one(&format!("SELECT {}.drain($1, $2)", ident(schema)), &[&table, &rows.cast_signed()]).await.map_err(failed)?.get(0);
    let left = format!("SELECT pg_catalog.count(*) FROM {}.dirty_key WHERE table_name = $1", ident(schema));
    let left: i64 = client.query_one(&left, &[&table]).await.map_err(failed)?.get(0);
    Ok((brought.unsigned_abs(), left.unsigned_abs()))
}

/// The statement that puts the schema behind whatever sessions of this database search already.
async fn shorten(transaction: &tokio_postgres::Transaction<'_>, schema: &str) -> PgResult<String> {
    let sql = "SELECT pg_catalog.quote_ident(pg_catalog.current_database()), \
               (SELECT pg_catalog.split_part(s.setting, '=', 2) FROM pg_catalog.pg_db_role_setting r, pg_catalog.unnest(r.setconfig) AS s (setting) \
                 WHERE r.setrole = 0 AND s.setting LIKE 'search_path=%' \
                   AND r.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))";
    let row = transaction.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading the search_path", error))?;
    let (database, set): (String, Option<String>) = (row.get(0), row.get(1));
    let path = set.unwrap_or_else(|| "\"$user\", public".to_owned());
    if path.split(',').any(|name| name.trim().trim_matches('"') == schema) {
        return Ok(String::new());
    }
    Ok(format!("ALTER DATABASE {database} SET search_path = {path}, {}", ident(schema)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_schema_is_meant_wherever_ours_is_and_nowhere_else() {
        let sql = "CREATE SCHEMA cutover; SELECT cutover.drain('a'), 'cutover'::regnamespace, cutover_row, x.cutover FROM \"mycutover.a\" -- cutover. It";
        let other = "CREATE SCHEMA other; SELECT other.drain('a'), 'other'::regnamespace, cutover_row, x.cutover FROM \"mycutover.a\" -- cutover. It";
        assert_eq!(in_schema(sql, "other"), other);
        assert_eq!(in_schema(sql, SCHEMA), sql);
        assert!(!script("other").contains(" cutover.") && !script("other").contains("SCHEMA cutover"));
    }

    #[test]
    fn a_schema_has_a_plain_name() {
        assert!(["cutover", "_a1"].iter().all(|name| schema_name(name).is_ok()));
        assert!(["", "A", "1a", "a-b", "a\"b", "pg_x", &"x".repeat(64)].iter().all(|name| schema_name(name).is_err()));
    }
}
