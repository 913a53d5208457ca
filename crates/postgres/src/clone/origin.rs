//! What a clone is filled with: the definitions and some rows of a real source, which is only read; or a file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cutover_core::plan::DatabaseUrl;
use serde::Serialize;
use tokio_postgres::Client;

use super::{Made, remove::mark_role_sql, sample};
use crate::{
    PgError, PgResult, catalogue,
    connect::{Purpose, connect},
    coverage::Coverage,
    names::ident,
    roles::with_wanted,
    schema::{Dump, Section, major},
    sequences,
    tools::Tools,
};

/// Where definitions and rows come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A database, which is read in one snapshot and never written to.
    Database {
        /// Where it is.
        url: DatabaseUrl,
        /// The most rows of each table: none for all of them.
        rows: Option<u32>,
    },
    /// A file of SQL, or an archive of `pg_dump`.
    File(PathBuf),
}

/// What was brought to a clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Brought {
    /// Tables that hold rows of their own.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// Roles that the servers lacked.
    pub roles: usize,
}

/// Roles that a file may want without anybody having named them.
const ROLES_TRIED: usize = 200;

/// Gives the first clone definitions and rows, and both clones' servers the roles that these need; `roles` are more of
/// them. `limit` is how long one statement may take.
///
/// # Errors
/// [`PgError::Refused`] where a clone is not ours; the servers' answers.
pub async fn restore(origin: &Origin, clones: [&Made; 2], roles: &[String], tools: &[PathBuf], limit: Duration) -> PgResult<Brought> {
    match origin {
        Origin::Database { url, rows } => from_database(url, *rows, clones, roles, tools, limit).await,
        Origin::File(file) => from_file(file, clones, roles, tools, limit).await,
    }
}

/// Runs a file of SQL at a clone, as `psql` does.
///
/// # Errors
/// [`PgError::Refused`] where the clone is not ours; [`PgError::Tool`] with what the server said, and where in the file.
pub async fn run_sql_file(clone: &Made, file: &Path, tools: &[PathBuf], limit: Duration) -> PgResult<()> {
    drop(clone.session(Some(limit)).await?);
    let tools = Tools::find(clone.major(), clone.major(), tools).await?;
    psql(&tools, clone, file, &[], limit).await
}

async fn from_database(
    url: &DatabaseUrl,
    limit_rows: Option<u32>,
    clones: [&Made; 2],
    roles: &[String],
    tools: &[PathBuf],
    limit: Duration,
) -> PgResult<Brought> {
    let [clone, _] = clones;
    let source = connect(url, &Purpose { statement_timeout: Some(limit), ..Purpose::new("cutover/rehearse") }).await?;
    let tools = Tools::find(major(&source).await?, clone.major(), tools).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off";
    let failed = |error| PgError::sql("reading the source", error);
    source.batch_execute(begin).await.map_err(failed)?;
    let snapshot: String = source.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await.map_err(failed)?.get(0);
    let mut brought = Brought { roles: copy_roles(&source, clones, roles).await?, ..Brought::default() };
    let dump = Dump::read_as(url, &source, &snapshot, tools).await?;

    apply(clone, &dump.sql(Section::PreData).await?, limit).await?;
    let tables = catalogue::tables_in(&source, &Coverage::all()).await?;
    brought.tables = tables.iter().filter(|table| table.holds_rows()).count();
    if limit_rows != Some(0) {
        let mut filled = clone.session(Some(limit)).await?;
        brought.rows = sample::bring(&source, &mut filled, &tables, limit_rows).await?;
        let values = catalogue::sequences(&source).await?;
        if let Some(sql) = sequences::set_sql(&values, 0) {
            filled.batch_execute(&sql).await.map_err(|error| PgError::sql("setting the clone's sequences", error))?;
        }
    }
    // The source is let go before the long work at the clone.
    source.batch_execute("COMMIT").await.map_err(failed)?;
    drop(source);
    for section in [Section::PostData, Section::Privileges] {
        apply(clone, &dump.sql(section).await?, limit).await?;
    }
    Ok(brought)
}

/// A dump's text sets its session up as it needs it, so it gets one of its own.
async fn apply(clone: &Made, sql: &str, limit: Duration) -> PgResult<()> {
    let client = clone.session(None).await?;
    let doing = "restoring the definitions";
    let work = client.batch_execute(sql);
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| PgError::sql(doing, error)),
        Err(_) => Err(PgError::TimedOut { doing: doing.to_owned(), limit }),
    }
}

async fn from_file(file: &Path, clones: [&Made; 2], roles: &[String], tools: &[PathBuf], limit: Duration) -> PgResult<Brought> {
    let [clone, _] = clones;
    let mut made = 0;
    for role in roles {
        made += make_role(clones, role, "LOGIN").await?;
    }
    let tools = Tools::find(clone.major(), clone.major(), tools).await?;
    // A dump names owners and grantees, and carries none of them.
    for _ in 0..ROLES_TRIED {
        let error = match load(&tools, clone, file, limit).await {
            Ok(()) => break,
            Err(error) => error,
        };
        match lacking_role(&error) {
            Some(role) if make_role(clones, &role, "NOLOGIN").await? > 0 => made += 1,
            _ => return Err(error),
        }
    }
    let tables = catalogue::tables_in(&clone.session(Some(limit)).await?, &Coverage::all()).await?;
    Ok(Brought { tables: tables.iter().filter(|table| table.holds_rows()).count(), rows: 0, roles: made })
}

/// All of the file or nothing, so that it can be tried again.
async fn load(tools: &Tools, clone: &Made, file: &Path, limit: Duration) -> PgResult<()> {
    drop(clone.session(Some(limit)).await?);
    if !is_archive(file)? {
        return psql(tools, clone, file, &["--single-transaction"], limit).await;
    }
    let name = file.to_string_lossy();
    let database = format!("--dbname={}", clone.url.database);
    let arguments = ["--exit-on-error", "--single-transaction", &database, &name];
    tools.run("pg_restore", &clone.url, &arguments, Some(limit)).await.map(drop)
}

async fn psql(tools: &Tools, clone: &Made, file: &Path, more: &[&str], limit: Duration) -> PgResult<()> {
    let name = file.to_string_lossy();
    let mut arguments = vec!["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file", &name];
    arguments.extend(more);
    tools.run("psql", &clone.url, &arguments, Some(limit)).await.map(drop)
}

/// An archive of `pg_dump --format=custom` begins so.
fn is_archive(file: &Path) -> PgResult<bool> {
    use std::io::Read as _;
    let mut start = [0; 5];
    let read = std::fs::File::open(file).and_then(|mut opened| opened.read(&mut start));
    let read = read.map_err(|source| PgError::Io { doing: format!("reading {}", file.display()), source })?;
    Ok(start[..read] == *b"PGDMP")
}

/// `ERROR:  role "app" does not exist`
fn lacking_role(error: &PgError) -> Option<String> {
    let PgError::Tool { stderr, .. } = error else { return None };
    let line = stderr.lines().find(|line| line.contains("ERROR:") && line.ends_with("\" does not exist"))?;
    let name = line.split_once("ERROR:  role \"")?.1.strip_suffix("\" does not exist")?;
    Some(name.to_owned())
}

/// Makes the roles that this database needs, without their passwords, where a server lacks them.
async fn copy_roles(source: &Client, clones: [&Made; 2], more: &[String]) -> PgResult<usize> {
    let sql = format!(
        "{} SELECT r.rolname::text, r.rolcanlogin, r.rolinherit, r.rolbypassrls, \
             ARRAY(SELECT DISTINCT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid \
                 WHERE m.member = r.oid ORDER BY 1) \
         FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' AND r.oid IN (SELECT oid FROM wanted) ORDER BY 1",
        with_wanted()
    );
    let rows = source.query(&sql, &[&more]).await.map_err(|error| PgError::sql("listing the source's roles", error))?;
    let mut made = 0;
    for row in &rows {
        let flag = |at: usize, yes: &'static str, no: &'static str| if row.get(at) { yes } else { no };
        let attributes = [flag(1, "LOGIN", "NOLOGIN"), flag(2, "INHERIT", "NOINHERIT"), flag(3, "BYPASSRLS", "NOBYPASSRLS")].join(" ");
        made += make_role(clones, row.get(0), &attributes).await?;
    }
    for (row, clone) in rows.iter().flat_map(|row| clones.map(|clone| (row, clone))) {
        let client = clone.session(Some(Duration::from_secs(30))).await?;
        for group in row.get::<_, Vec<String>>(4) {
            let sql = format!("GRANT {} TO {}", ident(&group), ident(row.get(0)));
            client.batch_execute(&sql).await.map_err(|error| PgError::sql("granting a membership", error))?;
        }
    }
    Ok(made)
}

/// Makes a role where it is missing, marked as ours. Returns whether one of the servers lacked it.
async fn make_role(clones: [&Made; 2], role: &str, attributes: &str) -> PgResult<usize> {
    let mut made = 0;
    for clone in clones {
        let client = clone.session(Some(Duration::from_secs(30))).await?;
        let failed = |error| PgError::sql(format!("making the role {role}"), error);
        if client.query_opt("SELECT FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role]).await.map_err(failed)?.is_none() {
            let sql = format!("CREATE ROLE {} {attributes}; {}", ident(role), mark_role_sql(role, clone.marker()));
            client.batch_execute(&sql).await.map_err(failed)?;
            made = 1;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_that_a_file_wants_is_read_from_the_servers_words() {
        let said = |stderr: &str| PgError::Tool { program: "psql".into(), stderr: stderr.into() };
        let role = |stderr: &str| lacking_role(&said(stderr));
        assert_eq!(role("psql:/s.sql:31: ERROR:  role \"odd \"one\" does not exist"), Some("odd \"one".to_owned()));
        let restore = "pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\nCommand was: ALTER TABLE";
        assert_eq!(role(restore), Some("app".to_owned()));
        assert_eq!(role("psql:/s.sql:31: ERROR:  relation \"app\" does not exist"), None);
        assert_eq!(lacking_role(&PgError::Mismatch("role \"app\" does not exist".into())), None);
    }
}
