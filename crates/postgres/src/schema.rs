//! Definitions: read from the source with `pg_dump`, written to the target in two sections, before and after the rows.

use std::{collections::HashSet, path::PathBuf};

use cutover_core::plan::DatabaseUrl;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::{
    PgError, PgResult, catalogue,
    connect::{Purpose, connect},
    coverage::{Coverage, dangling_definitions, left_out},
    gate,
    names::Names,
    stamp::stamp,
    tools::Tools,
};

/// What a dump should not carry over: triggers and publications of ours. A user's table may have the same name as one of
/// them, so they are told by what identifies them in a dump's list, catalogue and OID.
const OURS_SQL: &str = "SELECT pg_catalog.concat_ws(' ', tableoid::oid, oid) FROM pg_catalog.pg_trigger \
         WHERE tgfoid = pg_catalog.to_regprocedure('cutover.pass_gate()') \
     UNION ALL SELECT pg_catalog.concat_ws(' ', e.tableoid::oid, e.oid) FROM pg_catalog.pg_event_trigger e \
         JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid WHERE p.pronamespace = pg_catalog.to_regnamespace('cutover') \
     UNION ALL SELECT pg_catalog.concat_ws(' ', tableoid::oid, oid) FROM pg_catalog.pg_publication WHERE pubname ~ '^cutover_.*_(forward|reverse)$' \
     UNION ALL SELECT pg_catalog.concat_ws(' ', r.tableoid::oid, r.oid) FROM pg_catalog.pg_publication_rel r \
         JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname ~ '^cutover_.*_(forward|reverse)$'";

/// The definitions of a database, in a file that goes with this value.
#[derive(Debug)]
pub struct Dump {
    tools: Tools,
    folder: TempDir,
    /// The stamp of all definitions before they were read.
    pub(crate) stamp: String,
    /// Catalogue and OID of what is left out of its lists: what is ours, and what the target can't take because it reaches what is left out.
    without: HashSet<String>,
}

/// A section of a dump.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Section {
    /// Types, functions, tables.
    PreData,
    /// Indexes, constraints, triggers, policies.
    PostData,
    /// Who may do what with the first section's objects. It comes last: an index is built as its table's owner, who may
    /// have lost the right to a function of it since.
    Privileges,
}

impl Section {
    /// The arguments that select it. Privileges are of no section of their own; the list alone selects them. What has to
    /// be told apart says which object it is.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::PreData => &["--section=pre-data"],
            Self::PostData => &["--section=post-data", "--verbose"],
            Self::Privileges => &[],
        }
    }

    /// Whether it holds what this line lists: `215; 0 0 ACL public TABLE t owner`.
    fn holds(self, line: &str) -> bool {
        let kind = line.split_once("; ").and_then(|(_, rest)| rest.splitn(3, ' ').nth(2)).unwrap_or_default();
        match self {
            Self::PreData | Self::PostData => !kind.starts_with("ACL "),
            Self::Privileges => kind.starts_with("ACL "),
        }
    }
}

impl Dump {
    /// Reads the definitions at `source` that the cutover covers, so that they can be written to a server of major `writes`.
    ///
    /// # Errors
    /// [`PgError::Refused`] where no `pg_dump` fits, [`PgError::Tool`], or the server's answer.
    pub async fn read(source: &DatabaseUrl, names: &Names, writes: u32, tools: &[PathBuf]) -> PgResult<Self> {
        let client = connect(source, &Purpose::new(&names.application("schema"))).await?;
        let tools = Tools::find(major(&client).await?, writes, tools).await?;
        let left_out = left_out(&client, &Coverage::defined(&client).await?).await?;
        // Quoted, a name is no pattern.
        let excluded = left_out.iter().map(|left_out| format!("--exclude-table={}", left_out.name.quoted()));
        let mut dump = Self::of(source, &client, tools, excluded.collect()).await?;
        dump.without.extend(dangling_definitions(&client).await?);
        Ok(dump)
    }

    /// Reads the definitions that an exported snapshot sees, all but publications: nobody follows a clone. `client` is a session of the same database.
    pub(crate) async fn read_as(source: &DatabaseUrl, client: &Client, snapshot: &str, tools: Tools) -> PgResult<Self> {
        Self::of(source, client, tools, vec![format!("--snapshot={snapshot}"), "--no-publications".to_owned()]).await
    }

    async fn of(source: &DatabaseUrl, client: &Client, tools: Tools, more: Vec<String>) -> PgResult<Self> {
        let folder =
            TempDir::with_prefix("cutover-schema-").map_err(|source| PgError::Io { doing: "making a temporary folder".into(), source })?;
        let mut dump = Self { tools, folder, stamp: stamp(client).await?, without: HashSet::new() };
        let file = dump.file("dump");
        let mut arguments =
            vec!["--format=custom", "--encoding=UTF8", "--schema-only", "--no-subscriptions", "--exclude-schema=cutover", "--file", &file];
        arguments.extend(more.iter().map(String::as_str));
        dump.tools.run("pg_dump", source, &arguments, None).await?;
        // Afterwards: what the dump holds of ours was there then, or is still.
        let rows = client.query(OURS_SQL, &[]).await.map_err(|error| PgError::sql("looking for gates", error))?;
        dump.without = rows.iter().map(|row| row.get(0)).collect();
        Ok(dump)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// One section as SQL, without what is left out.
    pub(crate) async fn sql(&self, section: Section) -> PgResult<String> {
        let (dump, list) = (self.file("dump"), self.file("list"));
        let entries = self.tools.run_offline("pg_restore", &["--list", &dump], None).await?;
        let listed = std::str::from_utf8(&entries).map_err(|_| PgError::Mismatch("the dump's list is not UTF-8".to_owned()))?.lines();
        let wanted: Vec<&str> =
            listed.filter(|line| !identity(line).is_some_and(|id| self.without.contains(&id)) && section.holds(line)).collect();
        tokio::fs::write(&list, wanted.join("\n")).await.map_err(|source| PgError::Io { doing: format!("writing {list}"), source })?;
        let file = format!("--use-list={list}");
        let arguments: Vec<&str> = section.arguments().iter().copied().chain([file.as_str(), "--file=-", &dump]).collect();
        let sql = self.tools.run_offline("pg_restore", &arguments, None).await?;
        String::from_utf8(sql).map(|sql| understood(&sql)).map_err(|_| PgError::Mismatch("the dump is not UTF-8".to_owned()))
    }
}

/// Catalogue and OID of what this line lists: `1259 16390` of `216; 1259 16390 TABLE public t owner`.
fn identity(line: &str) -> Option<String> {
    let mut words = line.split_once("; ")?.1.splitn(3, ' ');
    Some(format!("{} {}", words.next()?, words.next()?))
}

/// Leaves out what only psql, or only a newer server, understands: that stands before the first definition and after the
/// last, and the same words inside a function's body stay. A schema may exist: an extension that lives in it keeps it.
fn understood(sql: &str) -> String {
    let key = sql.lines().find_map(|line| line.strip_prefix("\\restrict ")).map(|key| format!("\\unrestrict {key}"));
    let (mut defining, mut schema) = (false, false);
    let mut kept = String::with_capacity(sql.len());
    for line in sql.lines() {
        if line.starts_with("-- Name: ") {
            (defining, schema) = (true, line.contains("; Type: SCHEMA; "));
        }
        let preamble = !defining && ["\\restrict ", "SET transaction_timeout "].iter().any(|start| line.starts_with(start));
        if preamble || key.as_deref() == Some(line) {
            continue;
        }
        match line.strip_prefix("CREATE SCHEMA ") {
            Some(name) if schema => kept.extend(["CREATE SCHEMA IF NOT EXISTS ", name]),
            _ => kept.push_str(line),
        }
        kept.push('\n');
    }
    kept
}

/// The server's major version.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn major(client: &Client) -> PgResult<u32> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::integer / 10000";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading the server's version", error))?;
    Ok(u32::try_from(row.get::<_, i32>(0)).unwrap_or_default())
}

/// Gives the target the source's types, functions and tables, each with its gate, all or nothing. Done again, it begins anew: what an
/// earlier call made is dropped first, and nothing else.
///
/// # Errors
/// [`PgError::Refused`] if the target holds tables that we have not made.
pub async fn copy(dump: &Dump, target: &mut Client, epoch: u64) -> PgResult<()> {
    let doing = "copying the schema";
    let sql = dump.sql(Section::PreData).await?;
    refuse_strange_tables(target).await?;
    let transaction = gate::guarded(target, epoch).await?;
    let failed = |error| PgError::sql(doing, error);
    transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = warning").await.map_err(failed)?;
    transaction.batch_execute(include_str!("sql/drop_copied.sql")).await.map_err(failed)?;
    transaction.batch_execute(&ddl_gate("DISABLE")).await.map_err(failed)?;
    transaction.batch_execute(&sql).await.map_err(failed)?;
    gate::arm_within(&transaction).await.map_err(failed)?;
    transaction.batch_execute(&ddl_gate("ENABLE")).await.map_err(failed)?;
    // The dump's text sets what it needs for the whole session; only the search path would matter to us.
    transaction.batch_execute("SET search_path = pg_catalog; UPDATE cutover.owner SET filled = true").await.map_err(failed)?;
    gate::commit(transaction, doing).await?;
    restore_session(target).await
}

/// Has our event triggers not fire in this transaction, or fire again: nobody else sees that. There may be none; and they
/// belong to whoever was a superuser when they were made.
fn ddl_gate(verb: &str) -> String {
    format!(
        "DO $$ DECLARE v_name text; BEGIN \
             FOR v_name IN SELECT evtname FROM pg_catalog.pg_event_trigger WHERE evtname IN ('cutover_ddl_gate', 'cutover_arm_new_table') \
                 AND pg_catalog.pg_has_role(evtowner, 'USAGE') \
             LOOP EXECUTE pg_catalog.format('ALTER EVENT TRIGGER %I {verb}', v_name); END LOOP; END $$"
    )
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
    let tables = catalogue::tables_in(target, &Coverage::all()).await?;
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
    use super::{Section, identity, understood};

    #[test]
    fn what_only_psql_understands_is_left_out() {
        let sql = "\\restrict abc\nSET transaction_timeout = 0;\nSET lock_timeout = 0;\n-- Name: t; Type: TABLE\nCREATE TABLE t ();\n\\unrestrict abc\n";
        assert_eq!(understood(sql), "SET lock_timeout = 0;\n-- Name: t; Type: TABLE\nCREATE TABLE t ();\n");
    }

    #[test]
    fn a_body_that_says_the_same_words_stays_whole() {
        let sql = "\\restrict abc\n-- Name: f(); Type: FUNCTION\nCREATE FUNCTION f() AS $$\nSET transaction_timeout = 0;\n\\restrict b\n\\unrestrict b\n$$;\n";
        assert_eq!(understood(sql), sql.replace("\\restrict abc\n", ""));
    }

    #[test]
    fn privileges_come_last() {
        let lines =
            ["215; 0 0 ACL public TABLE acl owner", "216; 1259 16390 TABLE public ACL owner", "3402; 826 16500 DEFAULT ACL - x owner", ";"];
        let held = |section: Section| lines.map(|line| section.holds(line));
        assert_eq!(held(Section::Privileges), [true, false, false, false]);
        assert_eq!(held(Section::PreData), [false, true, true, true]);
    }

    #[test]
    fn a_line_of_the_list_says_which_object_it_is() {
        assert_eq!(identity("216; 1259 16390 TABLE public cutover_gate owner").as_deref(), Some("1259 16390"));
        assert_eq!(identity(";"), None);
    }

    #[test]
    fn a_schema_may_exist_already() {
        let sql = "-- Name: s; Type: SCHEMA; Schema: -; Owner: o\nCREATE SCHEMA s;\n-- Name: f; Type: FUNCTION; Schema: s; Owner: o\nCREATE SCHEMA s;\n";
        assert_eq!(understood(sql), sql.replacen("SCHEMA s;", "SCHEMA IF NOT EXISTS s;", 1));
    }
}
