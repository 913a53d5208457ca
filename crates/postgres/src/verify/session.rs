//! A connection for reading: the same settings on both sides, and a limit for every statement.

use std::time::Duration;

use cutover_core::plan::DatabaseUrl;
use tokio::time::timeout;
use tokio_postgres::{Client, Row, types::ToSql};

use super::Role;
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
};

/// The longest that one statement may take, where nothing else is said.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// What the network is given on top before a statement counts as lost.
const NETWORK_MARGIN: Duration = Duration::from_secs(10);

/// Beyond what `connect` fixes: rows that a policy would hide are an error and not absent, `money` prints alike, no
/// plan is made without the key at hand, no time goes into compiling, and nothing that we write waits for a standby.
const SETTINGS: &str = "SET row_security = off; SET lc_monetary = 'C'; SET quote_all_identifiers = off; \
     SET plan_cache_mode = force_custom_plan; SET jit = off; SET max_parallel_workers_per_gather = 0; SET synchronous_commit = local";

/// A statement and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) params: Vec<Param>,
}

/// A parameter. Everything goes as text, and the statement casts it to the column's type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param {
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<i64>),
}

impl Param {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::Texts(texts) => texts,
            Self::Numbers(numbers) => numbers,
        }
    }
}

/// A connection that is made when it is needed and made anew after it broke.
pub(super) struct Session {
    role: Role,
    url: DatabaseUrl,
    application: String,
    limit: Duration,
    client: Option<Client>,
}

impl Session {
    pub(super) fn new(role: Role, url: &DatabaseUrl, application: &str) -> Self {
        Self { role, url: url.clone(), application: application.to_owned(), limit: STATEMENT_LIMIT, client: None }
    }

    /// The side that it reads.
    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// The open connection.
    pub(super) async fn client(&mut self) -> PgResult<&Client> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => self.open().await?,
        };
        Ok(self.client.insert(client))
    }

    /// Runs a query.
    pub(super) async fn query(&mut self, doing: &str, query: &Query) -> PgResult<Vec<Row>> {
        let params: Vec<_> = query.params.iter().map(Param::as_sql).collect();
        let limit = self.limit + NETWORK_MARGIN;
        let answer = timeout(limit, self.client().await?.query(&query.sql, &params)).await;
        self.answered(doing, limit, answer)
    }

    /// Runs statements without an answer.
    pub(super) async fn execute(&mut self, doing: &str, sql: &str) -> PgResult<()> {
        let limit = self.limit + NETWORK_MARGIN;
        let answer = timeout(limit, self.client().await?.batch_execute(sql)).await;
        self.answered(doing, limit, answer)
    }

    /// Gives every statement from now on as long as this.
    pub(super) async fn allow(&mut self, limit: Duration) -> PgResult<()> {
        if limit == self.limit {
            return Ok(());
        }
        self.execute("setting a time limit", &format!("SET statement_timeout = {}", limit.as_millis())).await?;
        self.limit = limit;
        Ok(())
    }

    /// Ends the connection, and with it whatever transaction was open.
    pub(super) fn close(&mut self) {
        self.client = None;
    }

    async fn open(&self) -> PgResult<Client> {
        let purpose = Purpose { statement_timeout: Some(self.limit), ..Purpose::new(&self.application) };
        let client = connect(&self.url, &purpose).await?;
        let read_only = if self.role == Role::Follower { "; SET default_transaction_read_only = on" } else { "" };
        let sql = format!("{SETTINGS}{read_only}");
        let set = client.batch_execute(&sql);
        let doing = || format!("preparing to read the {}", self.role);
        match timeout(STATEMENT_LIMIT, set).await {
            Ok(answer) => answer.map_err(|error| PgError::sql(doing(), error))?,
            Err(_) => return Err(PgError::TimedOut { doing: doing(), limit: STATEMENT_LIMIT }),
        }
        Ok(client)
    }

    fn answered<T>(
        &mut self,
        doing: &str,
        limit: Duration,
        answer: Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
    ) -> PgResult<T> {
        let doing = || format!("{doing} at the {}", self.role);
        match answer {
            Ok(answer) => answer.map_err(|error| PgError::sql(doing(), error)),
            Err(_) => {
                let error = PgError::TimedOut { doing: doing(), limit };
                self.client = None;
                Err(error)
            }
        }
    }
}

/// A connection to each side.
pub(super) struct Pair {
    pub(super) authority: Session,
    pub(super) follower: Session,
}

impl Pair {
    pub(super) fn new(authority: &DatabaseUrl, follower: &DatabaseUrl, application: &str) -> Self {
        Self {
            authority: Session::new(Role::Authority, authority, application),
            follower: Session::new(Role::Follower, follower, application),
        }
    }

    /// The connection to one side.
    pub(super) fn at(&mut self, role: Role) -> &mut Session {
        match role {
            Role::Authority => &mut self.authority,
            Role::Follower => &mut self.follower,
        }
    }

    /// Asks both sides at the same time.
    pub(super) async fn ask(&mut self, doing: &str, authority: &Query, follower: &Query) -> PgResult<(Vec<Row>, Vec<Row>)> {
        tokio::try_join!(self.authority.query(doing, authority), self.follower.query(doing, follower))
    }
}
