//! Why a stream stands still. The server tells only its log; so the slot is asked what it would send next, and the
//! destination what it makes of that, in a transaction that is rolled back.

use std::{fmt, time::Duration};

use cutover_core::{Lsn, Stream};
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

use super::pgoutput::{Change, Column, Decoder, Field, Kind, Message};
use crate::{
    PgError, PgResult,
    names::{Names, ident, literal},
};

/// Changes that are looked at: whole transactions until there are so many. The slot may begin with some that the
/// destination has applied already.
const CHANGES: u32 = 1_000;

/// How long one statement may take at either side.
const STATEMENT_LIMIT: &str = "5s";

/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// The change that can't be applied, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The table at the origin.
    pub table: String,
    /// What was done there, with the row's key.
    pub change: String,
    /// What the destination says to it.
    pub error: String,
    /// `SQLSTATE` of that.
    pub sql_state: String,
    /// Where the transaction committed at the origin.
    pub lsn: Lsn,
}

impl Cause {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let mend = match self.sql_state.as_str() {
            "23505" => "the destination holds a row that the stream did not bring (`cutover verify` shows it): remove it there",
            "42703" | "42P01" => "make the same table or column at the destination",
            _ => "mend it at the destination; never skip the transaction, that loses it",
        };
        format!("{mend}, in a session that begins with SELECT cutover.let_pass('by hand'); the stream then goes on by itself")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} can't be applied: {} (committed at {})", self.change, self.table, self.error, self.lsn)
    }
}

/// Looks for what a stream stumbles over. None if nothing of the next transactions is refused, or if it can't be told:
/// somebody reads the slot, or our role may not act as a replication worker.
///
/// Reads the transactions that are next, until they hold 1,000 changes; each statement is bounded, and nothing stays.
///
/// # Errors
/// The server's answer to something else.
pub async fn cause(origin: &Client, destination: &Client, names: &Names, stream: Stream) -> PgResult<Option<Cause>> {
    let applied = applied(destination, names, stream).await?;
    let Some(messages) = peek(origin, names, stream).await? else { return Ok(None) };
    let mut decoder = Decoder::default();
    let mut transaction = Lsn(0);
    let mut changes = Vec::new();
    for message in messages {
        match decoder.read(&message) {
            Some(Message::Begin { lsn, .. }) => transaction = lsn,
            Some(Message::Change(change)) if transaction > applied => changes.push((transaction, change)),
            _ => {}
        }
    }
    probe(destination, changes).await
}

/// How far the destination has come by its own account, which may be ahead of the slot's.
async fn applied(destination: &Client, names: &Names, stream: Stream) -> PgResult<Lsn> {
    let sql = "SELECT COALESCE(pg_catalog.pg_replication_origin_progress('pg_' || s.oid, false), '0/0')::text FROM pg_catalog.pg_subscription s \
         JOIN pg_catalog.pg_replication_origin o ON o.roname = 'pg_' || s.oid WHERE s.subname = $1";
    let doing = "reading how far was applied";
    match destination.query_opt(sql, &[&names.subscription(stream)]).await {
        Ok(Some(row)) => row.get::<_, String>(0).parse().map_err(|error| PgError::Mismatch(format!("{doing}: {error}"))),
        Ok(None) => Ok(Lsn(0)),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Lsn(0)),
        Err(error) => Err(PgError::sql(doing, error)),
    }
}

/// What the slot would send next. A worker that stumbles takes the slot for a moment each time it starts again.
async fn peek(origin: &Client, names: &Names, stream: Stream) -> PgResult<Option<Vec<Vec<u8>>>> {
    let sql = format!(
        "SELECT data FROM pg_catalog.pg_logical_slot_peek_binary_changes({}, NULL, {CHANGES}, 'proto_version', '1', 'publication_names', {})",
        literal(&names.slot(stream)),
        literal(&ident(&names.publication(stream)))
    );
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        match origin.query(&sql, &[]).await {
            Ok(rows) => return Ok(Some(rows.iter().map(|row| row.get(0)).collect())),
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) if matches!(error.code(), Some(&SqlState::OBJECT_IN_USE | &SqlState::INSUFFICIENT_PRIVILEGE)) => return Ok(None),
            Err(error) => return Err(PgError::sql("reading what the slot would send", error)),
        }
    }
}

/// Does the changes at the destination, one after the other, until one is refused; and takes all of it back.
async fn probe(destination: &Client, changes: Vec<(Lsn, Change)>) -> PgResult<Option<Cause>> {
    let failed = |error| PgError::sql("trying the changes at the destination", error);
    let begin = format!("BEGIN; SET LOCAL statement_timeout = '{STATEMENT_LIMIT}'; SET LOCAL lock_timeout = '200ms'");
    destination.batch_execute(&begin).await.map_err(failed)?;
    let found = first_refused(destination, changes).await;
    destination.batch_execute("ROLLBACK").await.map_err(failed)?;
    Ok(found)
}

async fn first_refused(destination: &Client, changes: Vec<(Lsn, Change)>) -> Option<Cause> {
    // As a replication worker does: no trigger of the user's fires, and the gate lets it pass.
    destination.batch_execute("SET LOCAL session_replication_role = replica").await.ok()?;
    for (lsn, change) in changes {
        let Some(sql) = statement(&change) else { continue };
        let Err(error) = destination.batch_execute(&sql).await else { continue };
        let answer = error.as_db_error()?;
        // Ours, not the worker's: it took too long, or somebody holds the row.
        if matches!(*answer.code(), SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE | SqlState::GENERATED_ALWAYS) {
            return None;
        }
        let detail = answer.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        return Some(Cause {
            table: format!("{}.{}", change.relation.schema, change.relation.name),
            change: describe(&change),
            error: format!("{}{detail}", answer.message()),
            sql_state: answer.code().code().to_owned(),
            lsn,
        });
    }
    None
}

/// The change as a statement; none where it would change nothing.
fn statement(change: &Change) -> Option<String> {
    let relation = &change.relation;
    let table = format!("{}.{}", ident(&relation.schema), ident(&relation.name));
    let new = change.new.as_deref().map(|fields| values(&relation.columns, fields));
    match change.kind {
        Kind::Insert => {
            let (columns, values): (Vec<_>, Vec<_>) = new?.into_iter().unzip();
            if columns.is_empty() {
                return Some(format!("INSERT INTO {table} DEFAULT VALUES"));
            }
            Some(format!("INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})", columns.join(", "), values.join(", ")))
        }
        Kind::Update => {
            let set: Vec<String> = new?.into_iter().map(|(column, value)| format!("{column} = {value}")).collect();
            Some(format!("UPDATE {table} SET {} WHERE {}", set.join(", "), identifying(change)?))
        }
        Kind::Delete => Some(format!("DELETE FROM {table} WHERE {}", identifying(change)?)),
    }
}

/// Quoted names and values of what was sent.
fn values(columns: &[Column], fields: &[Field]) -> Vec<(String, String)> {
    let sent = columns.iter().zip(fields).filter_map(|(column, field)| match field {
        Field::Null => Some((ident(&column.name), "NULL".to_owned())),
        Field::Text(text) => Some((ident(&column.name), literal(text))),
        Field::Unchanged => None,
    });
    sent.collect()
}

/// The condition that finds the row: its replica identity, as it was before.
fn identifying(change: &Change) -> Option<String> {
    let fields = change.old.as_deref().or(change.new.as_deref())?;
    let keys = change.relation.columns.iter().zip(fields).filter(|(column, _)| column.key);
    let conditions: Vec<String> = keys
        .filter_map(|(column, field)| match field {
            Field::Null => Some(format!("{} IS NULL", ident(&column.name))),
            Field::Text(text) => Some(format!("{} = {}", ident(&column.name), literal(text))),
            Field::Unchanged => None,
        })
        .collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}

fn describe(change: &Change) -> String {
    let verb = match change.kind {
        Kind::Insert => "an INSERT",
        Kind::Update => "an UPDATE",
        Kind::Delete => "a DELETE",
    };
    let fields = change.old.as_deref().or(change.new.as_deref()).unwrap_or_default();
    let keys = change.relation.columns.iter().zip(fields).filter(|(column, _)| column.key);
    let shown: Vec<String> = keys
        .map(|(column, field)| match field {
            Field::Text(text) => format!("{} = {}", column.name, text.chars().take(SHOWN).collect::<String>()),
            Field::Null | Field::Unchanged => format!("{} is null", column.name),
        })
        .collect();
    if shown.is_empty() { verb.to_owned() } else { format!("{verb} ({})", shown.join(", ")) }
}
