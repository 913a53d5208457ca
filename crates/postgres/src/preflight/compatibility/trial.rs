//! The strongest test of a statement: does the other side prepare it?
//!
//! A statement is only parsed and its names looked up, in a transaction that is read-only and rolled back; it is never
//! planned or run. What fails there is asked of the clients' own side as well: a statement that was normalised, or that
//! counts on what its session has set, may fail at both, and then nothing is known.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

use super::{
    super::{
        context::{Context, Examined},
        defaults::Scope,
        finding::Inconclusive,
    },
    statements::{Statement, Trial},
};
use crate::{
    PgError,
    names::{ident, literal},
};

/// Statements that are tried, the most frequent first.
const MOST: usize = 2000;

/// How long all of them may take together.
const BUDGET: Duration = Duration::from_secs(20);

/// How long one may take, and wait for a lock that somebody's definition holds.
const ONE: Duration = Duration::from_millis(500);

/// Tries statements at `there`, with those that fail asked at `here` as well.
pub(super) async fn run(
    context: &Context<'_>,
    here: &Examined<'_>,
    there: &Examined<'_>,
    statements: &mut [Statement],
) -> Result<(), Inconclusive> {
    let (ours, others) = (Roles::read(here).await?, Roles::read(there).await?);
    let until = Instant::now() + BUDGET;
    for statement in statements.iter_mut().filter(|statement| statement.text.is_query()).take(MOST) {
        if Instant::now() > until {
            break;
        }
        statement.trial = match prepare(context, there, &others, statement).await? {
            Answer::Takes => Trial::Works,
            Answer::Silent => Trial::Unknown,
            Answer::Refuses(why) => match prepare(context, here, &ours, statement).await? {
                Answer::Takes => Trial::Fails(why),
                Answer::Silent | Answer::Refuses(_) => Trial::Unknown,
            },
        };
    }
    Ok(())
}

/// What a server says to one statement.
enum Answer {
    Takes,
    /// With its words.
    Refuses(String),
    /// Nothing that it would say another time as well.
    Silent,
}

/// Whether the server may say something else another time.
fn passing(error: &tokio_postgres::Error) -> bool {
    let of_class = |code: &SqlState| ["40", "53", "55P03", "57", "58", "XX"].iter().any(|class| code.code().starts_with(class));
    error.code().is_none_or(of_class)
}

fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| format!("{} [{}]", said.message(), said.code().code()))
}

/// The roles of a side that we may become there.
struct Roles(Vec<String>);

impl Roles {
    async fn read(side: &Examined<'_>) -> Result<Self, Inconclusive> {
        // Since 16 a membership need not carry the right to become the role.
        let right = if side.facts.major >= 16 { "SET" } else { "MEMBER" };
        let sql = format!("SELECT rolname::text FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(oid, '{right}')");
        Ok(Self(side.lines("looking which roles we may become", &sql).await?))
    }
}

/// Prepares a statement as its role would.
async fn prepare(context: &Context<'_>, side: &Examined<'_>, roles: &Roles, statement: &Statement) -> Result<Answer, Inconclusive> {
    let client: &Client = side.client;
    let begun = client.batch_execute(&begin(context, side, roles, &statement.role)).await;
    let answer = match begun {
        Err(_) => Answer::Silent,
        Ok(()) => match client.prepare(&statement.sql).await {
            Ok(_) => Answer::Takes,
            Err(error) if passing(&error) => Answer::Silent,
            Err(error) => Answer::Refuses(said(&error)),
        },
    };
    let ended = client.batch_execute("ROLLBACK").await;
    ended.map(|()| answer).map_err(|error| Inconclusive::at(side.side, &PgError::sql("trying what clients say", error)))
}

fn begin(context: &Context<'_>, side: &Examined<'_>, roles: &Roles, role: &str) -> String {
    let limit = ONE.as_millis();
    let path = search_path(context, side, role);
    let (become_role, path) = if roles.0.iter().any(|known| known == role) {
        (format!("SET LOCAL ROLE {}; ", ident(role)), path)
    } else {
        (String::new(), path.replace("\"$user\"", &ident(role)))
    };
    format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; {become_role}\
         SELECT pg_catalog.set_config('search_path', {}, true)",
        literal(&path)
    )
}

/// Where the role's sessions look names up when they begin.
fn search_path(context: &Context<'_>, side: &Examined<'_>, role: &str) -> String {
    let database = &context.side(side.side).facts.database.name;
    let of = |wanted: &Scope| {
        let mut found = side.facts.defaults.iter().filter(|setting| setting.name == "search_path");
        found.find(|setting| setting.scope == *wanted).map(|setting| setting.value.clone())
    };
    let scopes = [
        Scope::RoleInDatabase(role.to_owned(), database.clone()),
        Scope::Role(role.to_owned()),
        Scope::Database(database.clone()),
        Scope::Everyone,
        Scope::Server,
    ];
    scopes.iter().find_map(of).unwrap_or_else(|| "\"$user\", public".to_owned())
}
