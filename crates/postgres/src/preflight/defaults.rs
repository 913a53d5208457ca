//! Settings that sessions begin with: those of roles and databases, and the server's own.

use tokio_postgres::Client;

use crate::{
    PgError, PgResult,
    names::{ident, literal},
};

/// Settings whose value is a list of names.
const LISTS: [&str; 4] = ["search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"];

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The server's configuration.
    Server,
    /// `ALTER ROLE ALL`.
    Everyone,
    /// `ALTER DATABASE`.
    Database(String),
    /// `ALTER ROLE`.
    Role(String),
    /// `ALTER ROLE … IN DATABASE …`.
    RoleInDatabase(String, String),
}

/// A setting that sessions of a scope begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionDefault {
    pub(super) scope: Scope,
    pub(super) name: String,
    pub(super) value: String,
}

impl SessionDefault {
    /// The statement that sets it.
    pub(super) fn set_sql(&self) -> String {
        // The value of a list is kept with its quotes already.
        let is_list = LISTS.contains(&self.name.as_str()) && !self.value.is_empty();
        let value = if is_list { self.value.clone() } else { literal(&self.value) };
        format!("{} SET {} = {value};", self.subject(), self.quoted_name())
    }

    /// The statements after which it is `harmless`: what a role or database was given is taken back; in the server's
    /// configuration, which may say so in several places, the last word is said.
    pub(super) fn mend_sql(&self, harmless: &str) -> Vec<String> {
        match self.scope {
            Scope::Server => {
                let set = Self { value: harmless.to_owned(), ..self.clone() }.set_sql();
                vec![set, "SELECT pg_catalog.pg_reload_conf();".to_owned()]
            }
            _ => vec![format!("{} RESET {};", self.subject(), self.quoted_name())],
        }
    }

    /// For evidence. A setting of the user's own may hold a secret, so only the server's own show their value.
    pub(super) fn describe(&self) -> String {
        let value = if self.is_custom() { "…" } else { &self.value };
        format!("{} = {value} ({})", self.name, self.subject())
    }

    /// Whether an extension or the user made it up.
    pub(super) fn is_custom(&self) -> bool {
        self.name.contains('.')
    }

    fn quoted_name(&self) -> String {
        self.name.split('.').map(ident).collect::<Vec<_>>().join(".")
    }

    fn subject(&self) -> String {
        match &self.scope {
            Scope::Server => "ALTER SYSTEM".to_owned(),
            Scope::Everyone => "ALTER ROLE ALL".to_owned(),
            Scope::Database(database) => format!("ALTER DATABASE {}", ident(database)),
            Scope::Role(role) => format!("ALTER ROLE {}", ident(role)),
            Scope::RoleInDatabase(role, database) => format!("ALTER ROLE {} IN DATABASE {}", ident(role), ident(database)),
        }
    }
}

/// Reads them. Our own session can't tell: it sets its own on connecting. The server's file can only be read with a
/// privilege; `false` as the second part says that it could not.
pub(super) async fn read(client: &Client, watched: &[&str]) -> PgResult<(Vec<SessionDefault>, bool)> {
    let failed = |error| PgError::sql("reading the settings of roles and databases", error);
    let sql = "SELECT r.rolname::text, d.datname::text, pg_catalog.split_part(c, '=', 1), pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) \
         FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
         LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c \
         WHERE s.setdatabase = 0 OR d.datname = pg_catalog.current_database() ORDER BY 1, 2, 3";
    let rows = client.query(sql, &[]).await.map_err(failed)?;
    let mut defaults: Vec<SessionDefault> =
        rows.iter().map(|row| SessionDefault { scope: scope(row.get(0), row.get(1)), name: row.get(2), value: row.get(3) }).collect();
    let may = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')";
    let readable: bool = client.query_one(may, &[]).await.map_err(failed)?.get(0);
    if readable {
        // The last entry for a name is the one that counts.
        // The file keeps the letters that somebody wrote: `timezone` is `TimeZone`.
        let sql = "SELECT DISTINCT ON (pg_catalog.lower(name)) name, setting FROM pg_catalog.pg_show_all_file_settings() \
             WHERE error IS NULL AND pg_catalog.lower(name) IN (SELECT pg_catalog.lower(w) FROM pg_catalog.unnest($1::text[]) w) \
             ORDER BY pg_catalog.lower(name), seqno DESC";
        let rows = client.query(sql, &[&watched]).await.map_err(failed)?;
        defaults.extend(rows.iter().map(|row| SessionDefault { scope: Scope::Server, name: row.get(0), value: row.get(1) }));
    }
    Ok((defaults, readable))
}

fn scope(role: Option<String>, database: Option<String>) -> Scope {
    match (role, database) {
        (None, None) => Scope::Everyone,
        (None, Some(database)) => Scope::Database(database),
        (Some(role), None) => Scope::Role(role),
        (Some(role), Some(database)) => Scope::RoleInDatabase(role, database),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_the_statement_that_made_it() {
        let setting =
            SessionDefault { scope: scope(Some("a\"b".into()), Some("d".into())), name: "lock_timeout".into(), value: "5s".into() };
        assert_eq!(setting.set_sql(), r#"ALTER ROLE "a""b" IN DATABASE "d" SET "lock_timeout" = '5s';"#);
        assert_eq!(setting.mend_sql("0"), [r#"ALTER ROLE "a""b" IN DATABASE "d" RESET "lock_timeout";"#]);
        let everyones = SessionDefault { scope: Scope::Everyone, ..setting.clone() };
        assert_eq!(everyones.mend_sql("0"), [r#"ALTER ROLE ALL RESET "lock_timeout";"#]);
        let servers = SessionDefault { scope: Scope::Server, ..setting };
        assert_eq!(servers.mend_sql("0")[0], r#"ALTER SYSTEM SET "lock_timeout" = '0';"#);
    }

    #[test]
    fn a_list_stays_a_list() {
        let setting = SessionDefault { scope: Scope::Database("d".into()), name: "search_path".into(), value: "\"$user\", public".into() };
        assert_eq!(setting.set_sql(), r#"ALTER DATABASE "d" SET "search_path" = "$user", public;"#);
    }

    #[test]
    fn a_secret_among_the_settings_is_not_shown() {
        let setting = SessionDefault { scope: Scope::Database("d".into()), name: "app.jwt_secret".into(), value: "hunter2".into() };
        assert!(!setting.describe().contains("hunter2"));
    }
}
