//! Facts that several checks need, read once for each side.

use cutover_core::Side;
use tokio_postgres::Client;

use super::{
    defaults::{self, SessionDefault},
    finding::Inconclusive,
    settings::{Setting, Settings},
};
use crate::{
    PgError, PgResult,
    catalogue::{self, Sequence, Table, USER_RELATION},
    coverage::Coverage,
    gate,
};

/// The settings that checks look at.
const WATCHED: &[&str] = &[
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "client_encoding",
    "DateStyle",
    "default_text_search_config",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
    "idle_replication_slot_timeout",
    "idle_session_timeout",
    "IntervalStyle",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "max_active_replication_origins",
    "max_connections",
    "max_locks_per_transaction",
    "max_logical_replication_workers",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "max_worker_processes",
    "password_encryption",
    "row_security",
    "search_path",
    "session_replication_role",
    "shared_preload_libraries",
    "ssl",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "synchronous_standby_names",
    "TimeZone",
    "transaction_timeout",
    "transform_null_equals",
    "wal_level",
    "wal_receiver_timeout",
    "wal_sender_timeout",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// What is known of one side.
pub(super) struct SideFacts {
    /// Major version, e.g. 15.
    pub(super) major: u32,
    /// Version as the server prints it.
    pub(super) version: String,
    /// Whether it is a standby.
    pub(super) in_recovery: bool,
    pub(super) role: Role,
    pub(super) database: Database,
    pub(super) settings: Settings,
    /// What sessions begin with; complete only where `sees_server_defaults`.
    pub(super) defaults: Vec<SessionDefault>,
    /// Whether the server's configuration file could be read.
    pub(super) sees_server_defaults: bool,
    /// Whether our gate is there and closed, so that it refuses definitions and writes.
    pub(super) fenced: bool,
    bytes: Result<i64, Inconclusive>,
    tables: Result<Vec<Table>, Inconclusive>,
    sequences: Result<Vec<Sequence>, Inconclusive>,
}

/// Our role at a side.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) superuser: bool,
    pub(super) bypasses_row_security: bool,
    /// Sees all sessions and all numbers.
    pub(super) monitors: bool,
    /// May end other roles' sessions.
    pub(super) signals: bool,
}

/// The database that moves, or into which it moves.
pub(super) struct Database {
    pub(super) name: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    /// `c` libc, `i` ICU, `b` the server's own.
    pub(super) provider: String,
    /// The provider's locale, where that is not `collate`.
    pub(super) locale: Option<String>,
    /// Version of the collation when the database was made, and now.
    pub(super) collation_versions: Option<(String, String)>,
    pub(super) owned_by_us: bool,
    pub(super) owner: String,
}

/// A login role that the application uses.
pub(super) struct ApplicationRole {
    pub(super) name: String,
    pub(super) superuser: bool,
    /// Roles whose tables it may change, itself included.
    pub(super) owner_of: Vec<String>,
    /// Tables of those.
    pub(super) owned_tables: i64,
    /// Whether it may switch triggers off for itself.
    pub(super) may_skip_triggers: bool,
}

impl SideFacts {
    pub(super) async fn read(side: Side, client: &Client, coverage: &Coverage) -> PgResult<Self> {
        let failed = |error| PgError::sql(format!("asking the {side} what it is"), error);
        let sql = "SELECT pg_catalog.current_setting('server_version_num')::integer / 10000, \
             pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery()";
        let row = client.query_one(sql, &[]).await.map_err(failed)?;
        let major = u32::try_from(row.get::<_, i32>(0)).unwrap_or_default();
        let (defaults, sees_server_defaults) = defaults::read(client, WATCHED).await?;
        Ok(Self {
            major,
            version: row.get(1),
            in_recovery: row.get(2),
            role: role(client).await?,
            database: database(client, major).await?,
            settings: settings(client).await?,
            defaults,
            sees_server_defaults,
            fenced: fenced(client).await?,
            bytes: bytes(client, coverage).await.map_err(|error| Inconclusive::at(side, &error)),
            tables: catalogue::tables_in(client, coverage).await.map_err(|error| Inconclusive::at(side, &error)),
            sequences: catalogue::sequences_in(client, coverage).await.map_err(|error| Inconclusive::at(side, &error)),
        })
    }

    /// Size of the database, without what is left out of the cutover. Unit: bytes.
    pub(super) fn bytes(&self) -> Result<i64, Inconclusive> {
        self.bytes.clone()
    }

    /// The user's tables that are covered.
    pub(super) fn tables(&self) -> Result<&[Table], Inconclusive> {
        self.tables.as_deref().map_err(Clone::clone)
    }

    /// The user's sequences that are covered.
    pub(super) fn sequences(&self) -> Result<&[Sequence], Inconclusive> {
        self.sequences.as_deref().map_err(Clone::clone)
    }
}

async fn role(client: &Client) -> PgResult<Role> {
    let sql = "SELECT rolname::text, rolsuper, rolbypassrls, pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'), \
             pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading our own role", error))?;
    let superuser = row.get(1);
    Ok(Role { name: row.get(0), superuser, bypasses_row_security: superuser || row.get(2), monitors: row.get(3), signals: row.get(4) })
}

async fn database(client: &Client, major: u32) -> PgResult<Database> {
    let (provider, locale, versions) = match major {
        17.. => ("datlocprovider::text", "datlocale", "datcollversion, pg_catalog.pg_database_collation_actual_version(oid)"),
        15..17 => ("datlocprovider::text", "daticulocale", "datcollversion, pg_catalog.pg_database_collation_actual_version(oid)"),
        _ => ("'c'", "NULL::text", "NULL::text, NULL::text"),
    };
    let sql = format!(
        "SELECT datname::text, pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, {provider}, {locale}, \
             pg_catalog.pg_has_role(datdba, 'USAGE'), pg_catalog.pg_get_userbyid(datdba)::text, {versions} \
         FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
    );
    let row = client.query_one(&sql, &[]).await.map_err(|error| PgError::sql("reading the database's own entry", error))?;
    let versions: (Option<String>, Option<String>) = (row.get(8), row.get(9));
    Ok(Database {
        name: row.get(0),
        encoding: row.get(1),
        collate: row.get(2),
        ctype: row.get(3),
        provider: row.get(4),
        locale: row.get(5),
        owned_by_us: row.get(6),
        owner: row.get(7),
        collation_versions: versions.0.zip(versions.1),
    })
}

async fn fenced(client: &Client) -> PgResult<bool> {
    Ok(gate::owner(client).await?.is_some() && !gate::state(client).await?.open)
}

async fn bytes(client: &Client, coverage: &Coverage) -> PgResult<i64> {
    let sql = format!(
        "SELECT pg_catalog.pg_database_size(pg_catalog.current_database()) - \
             (SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint FROM pg_catalog.pg_class c \
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND {})",
        coverage.outside()
    );
    Ok(client.query_one(&sql, &[]).await.map_err(|error| PgError::sql("asking how large the database is", error))?.get(0))
}

async fn settings(client: &Client) -> PgResult<Settings> {
    let sql = "SELECT name, setting, unit, boot_val FROM pg_catalog.pg_settings WHERE name = ANY ($1::text[])";
    let rows = client.query(sql, &[&WATCHED]).await.map_err(|error| PgError::sql("reading the settings", error))?;
    Ok(rows.iter().map(|row| (row.get(0), Setting { value: row.get(1), unit: row.get(2), built_in: row.get(3) })).collect())
}

/// The application's roles at the source: those that the plan names; else every login role but ours that has sessions
/// here, owns something, or was granted something.
pub(super) async fn application_roles(client: &Client, major: u32, named: &[String]) -> PgResult<Vec<ApplicationRole>> {
    // The right to set one parameter came with 15.
    let may_skip = if major >= 15 { "pg_catalog.has_parameter_privilege(r.oid, 'session_replication_role', 'SET')" } else { "r.rolsuper" };
    let sql = format!(
        "WITH relation AS MATERIALIZED (SELECT c.relowner, c.relacl, c.relkind FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {USER_RELATION}), \
         owner AS MATERIALIZED (SELECT relowner AS oid, count(*) FILTER (WHERE relkind IN ('r', 'p')) AS tables FROM relation GROUP BY relowner), \
         user_of AS MATERIALIZED (SELECT oid FROM owner \
             UNION SELECT x.grantee FROM relation, pg_catalog.aclexplode(relacl) x WHERE x.grantee <> 0 \
             UNION SELECT usesysid FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND usesysid IS NOT NULL \
                 AND COALESCE(application_name, '') NOT LIKE 'cutover/%') \
         SELECT r.rolname::text, r.rolsuper, {may_skip}, \
             ARRAY(SELECT pg_catalog.pg_get_userbyid(o.oid)::text FROM owner o WHERE {holds_owner} AND o.tables > 0 ORDER BY 1), \
             (SELECT COALESCE(pg_catalog.sum(o.tables), 0)::bigint FROM owner o WHERE {holds_owner}) \
         FROM pg_catalog.pg_roles r WHERE CASE WHEN pg_catalog.cardinality($1::text[]) > 0 THEN r.rolname = ANY ($1::text[]) \
             ELSE r.rolcanlogin AND r.rolname <> current_user AND EXISTS (SELECT FROM user_of u \
                 WHERE u.oid = r.oid OR NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, u.oid, 'MEMBER')) END \
         ORDER BY r.rolname",
        // A superuser counts as a member of everything; its own tables are what matters here.
        holds_owner = "(o.oid = r.oid OR NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER'))",
    );
    let rows = client.query(&sql, &[&named]).await.map_err(|error| PgError::sql("looking for the application's roles", error))?;
    let role = |row: &tokio_postgres::Row| ApplicationRole {
        name: row.get(0),
        superuser: row.get(1),
        may_skip_triggers: row.get(2),
        owner_of: row.get(3),
        owned_tables: row.get(4),
    };
    Ok(rows.iter().map(role).collect())
}
