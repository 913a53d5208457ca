//! What comes after the rows: indexes and constraints in parallel, the rest in order, materialised views, statistics.

use std::path::PathBuf;

use cutover_core::plan::DatabaseUrl;
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

use crate::{
    PgError, PgResult, catalogue,
    connect::{Purpose, connect},
    coverage::Coverage,
    gate,
    names::{Names, ident},
    pool::{share_out, work_through},
    schema::{Dump, Section, major},
};

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub struct Built {
    /// Indexes and constraints that are indexes.
    pub indexes: usize,
    /// Foreign keys, triggers, policies, privileges and the like.
    pub others: usize,
    /// Materialised views that were refreshed.
    pub materialized_views: usize,
    /// How long it took.
    pub seconds: f64,
}

/// One definition of the dump's second section.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    kind: String,
    sql: String,
}

/// Builds everything. Done again, it leaves out what exists: each is a transaction of its own, so what exists is whole.
///
/// # Errors
/// The server's answer, with what was being built.
pub async fn build(
    source: &DatabaseUrl,
    target: &DatabaseUrl,
    names: &Names,
    epoch: u64,
    jobs: usize,
    tools: &[PathBuf],
) -> PgResult<Built> {
    let begun = Instant::now();
    let application = names.application("indexes");
    let mut client = connect(target, &Purpose::unbounded(&application)).await?;
    gate::guard(&mut client, epoch).await?;
    let dump = Dump::read(source, names, major(&client).await?, tools).await?;
    let (indexes, mut others): (Vec<Entry>, Vec<Entry>) =
        entries(&dump.sql(Section::PostData).await?).into_iter().partition(|entry| matches!(entry.kind.as_str(), "INDEX" | "CONSTRAINT"));
    others.extend(entries(&dump.sql(Section::Privileges).await?));
    let (index_count, other_count) = (indexes.len(), others.len());
    let open = {
        let (target, application) = (target.clone(), application.clone());
        move || builder(target.clone(), application.clone())
    };
    share_out(jobs, indexes, open.clone(), move |client, entry| define(client, entry, epoch)).await?;
    share_out(1, others, open, move |client, entry| define(client, entry, epoch)).await?;
    let views = refresh_views(source, client, names, epoch).await?;
    analyze(target, &application, jobs).await?;
    Ok(Built { indexes: index_count, others: other_count, materialized_views: views, seconds: begun.elapsed().as_secs_f64() })
}

/// A session that the target's gate lets pass, for all that it builds.
async fn builder(target: DatabaseUrl, application: String) -> PgResult<Client> {
    let client = connect(&target, &Purpose::unbounded(&application)).await?;
    gate::let_pass(&client, "indexes").await?;
    Ok(client)
}

async fn define(mut client: Client, entry: Entry, epoch: u64) -> PgResult<Client> {
    let doing = format!("building {} {}", entry.kind.to_lowercase(), entry.name);
    let transaction = gate::guarded(&mut client, epoch).await?;
    let settings = "SET LOCAL lock_timeout = 0; SET LOCAL maintenance_work_mem = '256MB'; SET LOCAL search_path = ''";
    let failed = |error| PgError::sql(&doing, error);
    transaction.batch_execute(settings).await.map_err(failed)?;
    match transaction.batch_execute(&entry.sql).await {
        Ok(()) => gate::commit(transaction, &doing).await?,
        Err(error) if exists_already(&error) => transaction.rollback().await.map_err(failed)?,
        Err(error) => return Err(failed(error)),
    }
    Ok(client)
}

fn exists_already(error: &tokio_postgres::Error) -> bool {
    // A function comes with the second section where it needs a key.
    let duplicates = [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_FUNCTION];
    let second_primary_key = error.code() == Some(&SqlState::INVALID_TABLE_DEFINITION)
        && error.as_db_error().is_some_and(|db| db.message().contains("multiple primary keys"));
    second_primary_key || error.code().is_some_and(|code| duplicates.contains(code))
}

/// Splits a section at the headers that `pg_restore` writes: `-- Name: …; Type: …; Schema: …; Owner: …`. The tablespace
/// is set before the header, and holds until another is. Inside quotes the same words are a user's text.
fn entries(sql: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut tablespace = String::new();
    let mut quote = None;
    for line in sql.lines() {
        let quoted = quote.is_some();
        quote = quote_after(quote, line);
        if let Some(entry) = entries.last_mut().filter(|_| quoted) {
            entry.sql.push_str(line);
            entry.sql.push('\n');
        } else if line.starts_with(TABLESPACE) {
            tablespace = format!("{}\n", line.replacen("SET ", "SET LOCAL ", 1));
        } else if let Some((name, kind)) = header(line) {
            entries.push(Entry { name: name.to_owned(), kind: kind.to_owned(), sql: tablespace.clone() });
        } else if let Some(entry) = entries.last_mut().filter(|entry| !line.starts_with("--") || entry.sql != tablespace) {
            entry.sql.push_str(line);
            entry.sql.push('\n');
        }
    }
    entries
}

/// The quote that is open behind a line. A doubled quote closes and opens again; the server doubles backslashes too, so
/// none hides a quote. A line that is a comment may hold anything.
fn quote_after(before: Option<char>, line: &str) -> Option<char> {
    if before.is_none() && line.starts_with("--") {
        return None;
    }
    line.chars().fold(before, |open, c| match (open, c) {
        (None, '\'' | '"') => Some(c),
        (Some(quote), _) if quote == c => None,
        _ => open,
    })
}

/// How a line begins that says where what follows is stored.
const TABLESPACE: &str = "SET default_tablespace = ";

fn header(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("-- Name: ")?.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    rest.contains("; Owner: ").then_some((name, kind))
}

/// Refreshes the views that hold rows at the source. One that reads another comes after it.
async fn refresh_views(source: &DatabaseUrl, mut target: Client, names: &Names, epoch: u64) -> PgResult<usize> {
    let doing = "refreshing the materialised views";
    let origin = connect(source, &Purpose::new(&names.application("indexes"))).await?;
    let covered = Coverage::installed(&origin).await?.inside();
    let sql = format!(
        "SELECT schemaname::text, matviewname::text FROM pg_catalog.pg_matviews m \
         JOIN pg_catalog.pg_class c ON c.relname = m.matviewname AND c.relkind = 'm' \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = m.schemaname WHERE ispopulated AND {covered} ORDER BY c.oid"
    );
    let rows = origin.query(&sql, &[]).await.map_err(|error| PgError::sql(doing, error))?;
    let mut left: Vec<String> = rows.iter().map(|row| format!("{}.{}", ident(row.get(0)), ident(row.get(1)))).collect();
    let count = left.len();
    gate::let_pass(&target, "indexes").await?;
    while !left.is_empty() {
        let before = left.len();
        let mut waiting = Vec::new();
        for view in left {
            let transaction = gate::guarded(&mut target, epoch).await?;
            match transaction.batch_execute(&format!("REFRESH MATERIALIZED VIEW {view}")).await {
                Ok(()) => gate::commit(transaction, doing).await?,
                // It reads one that holds nothing yet.
                Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => waiting.push(view),
                Err(error) => return Err(PgError::sql(format!("refreshing {view}"), error)),
            }
        }
        if waiting.len() == before {
            return Err(PgError::Mismatch(format!("these materialised views need each other: {}", waiting.join(", "))));
        }
        left = waiting;
    }
    Ok(count)
}

async fn analyze(target: &DatabaseUrl, application: &str, jobs: usize) -> PgResult<()> {
    let client = connect(target, &Purpose::new(application)).await?;
    let tables: Vec<String> = catalogue::tables(&client).await?.iter().map(|table| table.name.quoted()).collect();
    work_through(target, application, jobs, tables, |client, table: String| async move {
        match client.batch_execute(&format!("ANALYZE {table}")).await {
            // It runs what is in an index as the table's owner, who may have lost the right to it: so at the source too.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => tracing::warn!(%error, table, "has no statistics"),
            other => other.map_err(|error| PgError::sql(format!("analysing {table}"), error))?,
        }
        Ok(client)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_split_at_its_headers() {
        let sql = "SET x = 1;\n\nSET default_tablespace = '';\n\n--\n-- Name: t t_pkey; Type: CONSTRAINT; Schema: public; Owner: o\n--\n\nALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);\n\n\nSET default_tablespace = fast;\n\n\
                   --\n-- Name: i; Type: INDEX; Schema: public; Owner: o\n--\n\nCREATE INDEX i ON public.t USING btree (v);\n";
        let entries = entries(sql);
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["CONSTRAINT", "INDEX"]);
        assert!(entries[0].sql.contains("PRIMARY KEY (id);") && !entries[0].sql.contains("SET x"));
        assert!(entries[1].sql.contains("CREATE INDEX i"));
        assert!(entries[0].sql.starts_with("SET LOCAL default_tablespace = '';"), "{}", entries[0].sql);
        assert!(entries[1].sql.starts_with("SET LOCAL default_tablespace = fast;"), "{}", entries[1].sql);
    }

    #[test]
    fn a_text_that_says_the_same_words_stays_whole() {
        let forged = "it''s \\\\\n--\n-- Name: forged; Type: INDEX; Schema: s; Owner: o\n--\nSET default_tablespace = nowhere;\n-- x";
        let sql = format!(
            "--\n-- Name: it's \"odd; Type: INDEX; Schema: s; Owner: o\n--\n\nCREATE INDEX \"it's \"\"odd\" ON s.t (v) WHERE v <> E'{forged}';\n\n\n\
             --\n-- Name: INDEX i; Type: COMMENT; Schema: s; Owner: o\n--\n\nCOMMENT ON INDEX i IS '{forged}';\n\n\n\
             --\n-- Name: j; Type: INDEX; Schema: s; Owner: o\n--\n\nCREATE INDEX j ON s.t (v);\n"
        );
        let entries = entries(&sql);
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["INDEX", "COMMENT", "INDEX"]);
        assert!(entries[0].sql.contains(forged) && entries[1].sql.contains(forged));
        assert_eq!(entries[2].sql.trim(), "CREATE INDEX j ON s.t (v);");
    }
}
