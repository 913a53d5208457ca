//! What a database holds, by PostgreSQL's own programs and nothing of ours: to compare two sides by.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    hash::{DefaultHasher, Hash, Hasher},
    process::Stdio,
    time::Duration,
};

use tokio::io::AsyncWriteExt;

use crate::{Cluster, Error, Result, newest_tools};

/// How long one of PostgreSQL's programs may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// The user's tables that hold rows, quoted.
const TABLES: &str = "SELECT format('\"%s\".\"%s\"', replace(n.nspname, '\"', '\"\"'), replace(c.relname, '\"', '\"\"')) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'cutover') \
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Rows of its own.
    pub rows: usize,
    /// A hash of its sorted rows, as COPY writes them.
    pub hash: u64,
}

/// Runs a script with psql as the superuser, each statement on its own. It ends at the first error.
///
/// # Errors
/// What psql said.
pub async fn script(cluster: &Cluster, database: &str, sql: &str) -> Result<String> {
    let url = cluster.url("postgres", database);
    let output = run("psql", &["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-", &url], sql).await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// What each of the user's tables holds, by quoted name.
///
/// # Errors
/// What psql said.
pub async fn contents(cluster: &Cluster, database: &str) -> Result<BTreeMap<String, Contents>> {
    let doing = format!("list the tables of {}", cluster.name());
    let client = cluster.client(database).await?;
    let rows = client.query(TABLES, &[]).await.map_err(|source| Error::sql(doing, source))?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    // Nothing that COPY writes looks so: it escapes what is no text.
    let mark = "\u{1}next\u{1}";
    let copies = tables.iter().map(|table| format!("\\echo '{mark}'\nCOPY (SELECT * FROM ONLY {table}) TO STDOUT;\n"));
    let sql = format!("SET client_min_messages = error; SET extra_float_digits = 3; SET TimeZone = 'UTC';\n{}", copies.collect::<String>());
    let url = cluster.url("postgres", database);
    let output = run("psql", &["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-", &url], &sql).await?;
    let text = String::from_utf8_lossy(&output);
    let mark = format!("{mark}\n");
    let parts = text.split(mark.as_str()).skip(1).map(hashed);
    Ok(tables.into_iter().zip(parts).collect())
}

fn hashed(copied: &str) -> Contents {
    let mut lines: Vec<&str> = copied.lines().collect();
    lines.sort_unstable();
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    Contents { rows: lines.len(), hash: hasher.finish() }
}

/// Every definition as `pg_dump` writes it, sorted, without what is the cutover's. With `across`, what two majors spell
/// differently is left out: then the same definition at servers of different majors is the same text.
///
/// # Errors
/// What `pg_dump` said.
pub async fn definitions(cluster: &Cluster, database: &str, across: bool) -> Result<Vec<String>> {
    let url = cluster.url("postgres", database);
    let arguments =
        ["--schema-only", "--no-publications", "--no-subscriptions", "--exclude-schema=cutover", "--quote-all-identifiers", &url];
    let dump = run("pg_dump", &arguments, "").await?;
    let text = String::from_utf8_lossy(&dump);
    let ours = [" cutover_gate; Type: TRIGGER", "cutover_ddl_gate; Type: EVENT TRIGGER", "cutover_arm_new_table; Type: EVENT TRIGGER"];
    let theirs = |definition: &&str| !ours.iter().any(|ours| definition.lines().next().is_some_and(|header| header.contains(ours)));
    let mut definitions: Vec<String> =
        text.split("\n--\n-- Name: ").skip(1).filter(theirs).map(|definition| normal(definition, across)).collect();
    definitions.sort_unstable();
    Ok(definitions)
}

fn normal(definition: &str, across: bool) -> String {
    let wanted =
        |line: &&str| !line.is_empty() && !line.starts_with("\\unrestrict") && !line.starts_with("SET default_ta") && *line != "--";
    let text = definition.lines().filter(wanted).collect::<Vec<_>>().join("\n").replace("\n-- PostgreSQL database dump complete", "");
    if across { one_spelling(&text) } else { text }
}

/// From 16 on a view names the table of a column only where it must, and 18 shows the names of NOT NULL and quotes fewer
/// types.
fn one_spelling(text: &str) -> String {
    let text = text.replace("\"json\"", "json");
    if text.lines().next().is_some_and(|header| header.contains("VIEW; ")) {
        return without_qualifiers(&text);
    }
    let unnamed = |line: &str| match (line.split_once(" CONSTRAINT \""), line.rsplit_once("\" NOT NULL")) {
        (Some((before, _)), Some((_, after))) => format!("{before} NOT NULL{after}"),
        _ => line.to_owned(),
    };
    text.lines().map(unnamed).collect::<Vec<_>>().join("\n")
}

/// Leaves out each quoted name that a dot follows.
fn without_qualifiers(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut parts = text.split('"').enumerate().peekable();
    while let Some((at, part)) = parts.next() {
        if at % 2 == 0 {
            kept.push_str(part.strip_prefix('.').filter(|_| at > 0).unwrap_or(part));
        } else if !parts.peek().is_some_and(|(_, next)| next.starts_with('.')) {
            kept.push_str(&format!("\"{part}\""));
        }
    }
    kept
}

async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A], input: &str) -> Result<Vec<u8>> {
    let path = newest_tools()?.join(program);
    let mut command = tokio::process::Command::new(&path);
    command.args(arguments).env("PGOPTIONS", "-c statement_timeout=0").env("PGCLIENTENCODING", "UTF8");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| Error::Spawn { program: path, source })?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that has ended early says why itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let working = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output =
        tokio::time::timeout(PROGRAM_LIMIT, working).await.map_err(|_| Error::timed_out(format!("the end of {program}"), PROGRAM_LIMIT))?;
    let output = output.map_err(|source| Error::io(format!("run {program}"), source))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Program { program: program.to_owned(), output: said.chars().take(2000).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_another_order_are_the_same_contents() {
        assert_eq!(hashed("a\t1\nb\t2\n"), hashed("b\t2\na\t1\n"));
        assert_ne!(hashed("a\t1\n"), hashed("a\t1\na\t1\n"));
        assert_ne!(hashed("a\t1\nb\n"), hashed("a\nb\t1\n"));
    }

    #[test]
    fn two_majors_spell_alike_and_a_difference_stays_one() {
        let old = "v; Type: VIEW; Schema: s\nCREATE VIEW \"s\".\"v\" AS\n SELECT \"t\".\"id\" FROM \"s\".\"t\"";
        let new = "v; Type: VIEW; Schema: s\nCREATE VIEW \"s\".\"v\" AS\n SELECT \"id\" FROM \"s\".\"t\"";
        assert_eq!(normal(old, true), normal(new, true));
        assert_ne!(normal(old, false), normal(new, false));
        assert_ne!(normal(old, true), normal(&new.replace("id", "it"), true));
        assert_eq!(one_spelling("t\n\"a\" int CONSTRAINT \"x_a_not_null\" NOT NULL,"), "t\n\"a\" int NOT NULL,");
    }
}
