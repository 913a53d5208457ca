//! Definitions: read from the source with `pg_dump`, written to the target in two sections, before and after the rows.

use std::path::PathBuf;

use cutover_core::plan::DatabaseUrl;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    gate,
    names::Names,
    tools::Tools,
};

/// What a user's database can hold that a dump should not carry over: ours.
const OURS: [&str; 3] = [" cutover_gate ", " cutover_ddl_gate ", " cutover_arm_new_table "];

/// The definitions of a database, in a file that goes with this value.
pub(crate) struct Dump {
    tools: Tools,
    folder: TempDir,
}

/// A section of a dump.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Section {
    /// Types, functions, tables.
    PreData,
    /// Indexes, constraints, triggers, policies.
    PostData,
}

impl Dump {
    /// Reads the definitions at `source`, so that they can be written to a server of major `writes`.
    pub(crate) async fn read(source: &DatabaseUrl, names: &Names, writes: u32, tools: &[PathBuf]) -> PgResult<Self> {
        let client = connect(source, &Purpose::new(&names.application("schema"))).await?;
        let tools = Tools::find(major(&client).await?, writes, tools).await?;
        let folder =
            TempDir::with_prefix("cutover-schema-").map_err(|source| PgError::Io { doing: "making a temporary folder".into(), source })?;
        let dump = Self { tools, folder };
        let file = dump.file("dump");
        let arguments =
            ["--format=custom", "--schema-only", "--no-publications", "--no-subscriptions", "--exclude-schema=cutover", "--file", &file];
        dump.tools.run("pg_dump", source, &arguments, None).await?;
        Ok(dump)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// One section as SQL, without what is ours.
    pub(crate) async fn sql(&self, section: Section) -> PgResult<String> {
        let (dump, list) = (self.file("dump"), self.file("list"));
        let entries = self.tools.run_offline("pg_restore", &["--list", &dump], None).await?;
        let wanted: Vec<&str> =
            std::str::from_utf8(&entries).unwrap_or_default().lines().filter(|line| !OURS.iter().any(|ours| line.contains(ours))).collect();
        tokio::fs::write(&list, wanted.join("\n")).await.map_err(|source| PgError::Io { doing: format!("writing {list}"), source })?;
        let section = match section {
            Section::PreData => "--section=pre-data",
            Section::PostData => "--section=post-data",
        };
        let sql = self.tools.run_offline("pg_restore", &[section, "--use-list", &list, "--file=-", &dump], None).await?;
        String::from_utf8(sql).map(|sql| understood(&sql)).map_err(|_| PgError::Mismatch("the dump is not UTF-8".to_owned()))
    }
}

/// Leaves out what only psql, or only a newer server, understands.
fn understood(sql: &str) -> String {
    let left_out = |line: &str| ["\\restrict", "\\unrestrict", "SET transaction_timeout"].iter().any(|start| line.starts_with(start));
    sql.lines().filter(|line| !left_out(line)).fold(String::with_capacity(sql.len()), |mut kept, line| {
        kept.push_str(line);
        kept.push('\n');
        kept
    })
}

/// The server's major version.
pub(crate) async fn major(client: &Client) -> PgResult<u32> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::integer / 10000";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading the server's version", error))?;
    Ok(u32::try_from(row.get::<_, i32>(0)).unwrap_or_default())
}

/// Gives the target the source's types, functions and tables, all or nothing. Done again, it begins anew: what an
/// earlier call made is dropped first, and nothing else.
///
/// # Errors
/// [`PgError::Refused`] if the target holds tables that we have not made.
pub async fn copy(source: &DatabaseUrl, target: &mut Client, names: &Names, epoch: u64, tools: &[PathBuf]) -> PgResult<()> {
    let doing = "copying the schema";
    let dump = Dump::read(source, names, major(target).await?, tools).await?;
    let sql = dump.sql(Section::PreData).await?;
    refuse_strange_tables(target).await?;
    let transaction = gate::guarded(target, epoch).await?;
    let failed = |error| PgError::sql(doing, error);
    transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = warning").await.map_err(failed)?;
    transaction.batch_execute(include_str!("sql/drop_copied.sql")).await.map_err(failed)?;
    transaction.batch_execute(&sql).await.map_err(failed)?;
    // The dump's text sets what it needs for the whole session; only the search path would matter to us.
    transaction.batch_execute("SET search_path = pg_catalog; UPDATE cutover.owner SET filled = true").await.map_err(failed)?;
    gate::commit(transaction, doing).await?;
    restore_session(target).await
}

/// A dump's text sets time-outs and more for the session; ours go on with what they were made with.
async fn restore_session(client: &Client) -> PgResult<()> {
    let sql = "RESET statement_timeout; RESET lock_timeout; RESET idle_in_transaction_session_timeout; RESET search_path; \
         RESET default_tablespace; RESET default_table_access_method; RESET check_function_bodies; RESET client_min_messages; \
         RESET row_security; RESET xmloption; RESET standard_conforming_strings";
    client.batch_execute(sql).await.map_err(|error| PgError::sql("restoring the session", error))
}

async fn refuse_strange_tables(target: &Client) -> PgResult<()> {
    let failed = |error| PgError::sql("looking whose tables the target holds", error);
    let filled: bool = target.query_one("SELECT filled FROM cutover.owner", &[]).await.map_err(failed)?.get(0);
    let tables = crate::catalogue::tables(target).await?;
    if filled || tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().take(10).map(|table| table.name.to_string()).collect();
    Err(PgError::Refused {
        what: format!("the target holds {} tables that this cutover did not make: {}", tables.len(), names.join(", ")),
        hint: Some("name an empty database as the target".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::understood;

    #[test]
    fn what_only_psql_understands_is_left_out() {
        let sql = "\\restrict abc\nSET transaction_timeout = 0;\nSET lock_timeout = 0;\nCREATE TABLE t ();\n\\unrestrict abc\n";
        assert_eq!(understood(sql), "SET lock_timeout = 0;\nCREATE TABLE t ();\n");
    }
}
