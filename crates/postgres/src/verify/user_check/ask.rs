//! One query of the user's at one side: read-only, rolled back, bounded in time, rows and bytes.

use std::{pin::pin, time::Duration};

use cutover_core::{Side, plan::Check};
use futures_util::TryStreamExt as _;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, error::SqlState};

use super::{super::session::Session, report::Verdict};
use crate::{PgError, PgResult};

/// A row: its values as text, none for NULL.
pub(super) type Row = Vec<Option<String>>;

/// An answer, its rows in order of their text: two sides may sort differently.
pub(super) type Rows = Vec<Row>;

/// What a side answered, and when.
pub(super) struct Answered {
    pub(super) rows: Rows,
    /// The snapshot that it was answered from, as the server writes it: where two are the same, no transaction that writes
    /// ended between them.
    pub(super) snapshot: String,
}

/// Rows of an answer, at most.
const MOST_ROWS: usize = 1000;

/// Bytes of an answer, at most.
const MOST_BYTES: usize = 1 << 20;

/// What the network is given on top before an answer counts as lost.
const NETWORK_MARGIN: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) verdict: Verdict,
    pub(super) why: String,
    pub(super) hint: Option<String>,
}

/// Asks once, in a transaction of its own.
pub(super) async fn ask(session: &mut Session, check: &Check, side: Side) -> Result<Answered, Refused> {
    let answer = match session.client().await {
        Ok(client) => match timeout(check.timeout + NETWORK_MARGIN, read(client, check, side)).await {
            Ok(answer) => answer,
            Err(_) => Err(PgError::TimedOut { doing: doing(side), limit: check.timeout }),
        },
        Err(error) => Err(error),
    };
    if answer.is_err() {
        // Its transaction may be open still, and its answer under way.
        session.close();
    }
    answer.map_err(|error| Refused::by(&error, side, check))
}

/// All on one connection: one made anew in between would be outside the read-only transaction.
async fn read(client: &Client, check: &Check, side: Side) -> PgResult<Answered> {
    let failed = |error| PgError::sql(doing(side), error);
    client.batch_execute(&begin(check)).await.map_err(failed)?;
    // Once a snapshot is taken, PostgreSQL refuses to make the transaction writable, whatever the user's SQL says.
    let snapshot = client.query_one("SELECT pg_catalog.txid_current_snapshot()::text", &[]).await.map_err(failed)?;
    let snapshot = snapshot.try_get(0).map_err(failed)?;
    // The server prepares a single statement only, so what is run afterwards is one as well.
    let statement = client.prepare(&check.sql).await.map_err(failed)?;
    if statement.columns().is_empty() {
        return Err(refused(side, "it is no query: it answers with no columns", "a check is one query, such as SELECT or TABLE"));
    }
    let mut rows = Rows::new();
    let mut bytes = 0;
    let mut answer = pin!(client.simple_query_raw(&check.sql).await.map_err(failed)?);
    while let Some(message) = answer.try_next().await.map_err(failed)? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let row = values(&row).map_err(failed)?;
        bytes += row.iter().flatten().map(String::len).sum::<usize>();
        if rows.len() == MOST_ROWS || bytes > MOST_BYTES {
            let what = format!("it answers with more than {MOST_ROWS} rows or {} kB", MOST_BYTES / 1024);
            return Err(refused(side, &what, "let the server sum up: GROUP BY, count(*), or an md5 over string_agg(… ORDER BY …)"));
        }
        rows.push(row);
    }
    client.batch_execute("ROLLBACK").await.map_err(failed)?;
    rows.sort();
    Ok(Answered { rows, snapshot })
}

fn begin(check: &Check) -> String {
    format!("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {}", check.timeout.as_millis())
}

fn values(row: &SimpleQueryRow) -> Result<Row, tokio_postgres::Error> {
    (0..row.len()).map(|at| row.try_get(at).map(|value| value.map(str::to_owned))).collect()
}

fn doing(side: Side) -> String {
    format!("at the {side}")
}

fn refused(side: Side, what: &str, hint: &str) -> PgError {
    PgError::Refused { what: format!("at the {side}: {what}"), hint: Some(hint.to_owned()) }
}

impl Refused {
    /// Where the server might have answered at another time it is inconclusive; where the SQL is at fault it has failed.
    pub(super) fn by(error: &PgError, side: Side, check: &Check) -> Self {
        if matches!(error, PgError::TimedOut { .. }) || error.sql_state() == Some(&SqlState::QUERY_CANCELED) {
            let limit = humantime(check.timeout);
            return Self {
                verdict: Verdict::Inconclusive,
                why: format!("the {side} did not answer within the check's timeout of {limit}: {error}"),
                hint: Some("raise the check's `timeout`, or let it read less".to_owned()),
            };
        }
        let verdict = if passing(error) { Verdict::Inconclusive } else { Verdict::Fail };
        Self { verdict, why: error.to_string(), hint: hint(error) }
    }
}

/// Whether the same SQL may well be answered later: connections, locks, resources and the server's own trouble.
fn passing(error: &PgError) -> bool {
    let of_class = |code: &SqlState| ["08", "40", "53", "55P03", "57", "58", "XX"].iter().any(|class| code.code().starts_with(class));
    error.is_disconnect() || error.sql_state().is_some_and(of_class)
}

fn hint(error: &PgError) -> Option<String> {
    let code = error.sql_state();
    let is_one = |codes: &[SqlState]| code.is_some_and(|code| codes.contains(code));
    let said = if is_one(&[SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_FUNCTION, SqlState::UNDEFINED_OBJECT]) {
        "write the schema before each name: a check runs with search_path = pg_catalog"
    } else if is_one(&[SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::ACTIVE_SQL_TRANSACTION]) {
        "a check may only read; nothing was written"
    } else if is_one(&[SqlState::SYNTAX_ERROR]) {
        "a check is one query; several make several checks"
    } else {
        return error.hint().map(str::to_owned);
    };
    Some(said.to_owned())
}

/// `500 ms`, `30 s`.
fn humantime(limit: Duration) -> String {
    if limit.subsec_millis() == 0 { format!("{} s", limit.as_secs()) } else { format!("{} ms", limit.as_millis()) }
}
