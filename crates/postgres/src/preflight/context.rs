//! What the checks work on: the plan, and both sides with the facts that several checks need.

use cutover_core::{Plan, Side, Stream};
use tokio_postgres::{Client, Row, types::ToSql};

use super::{
    Standing,
    facts::{ApplicationRole, SideFacts, application_roles},
    finding::Inconclusive,
    text,
};
use crate::{PgError, PgResult, coverage::Coverage, names::Names};

/// One run of the checks.
pub(super) struct Context<'a> {
    /// The plan.
    pub(super) plan: &'a Plan,
    /// What the plan covers.
    pub(super) coverage: Coverage,
    /// Names of what the cutover makes.
    pub(super) names: Names,
    /// Whether a copy has begun, so that what bears our names is ours.
    pub(super) prepared: bool,
    /// The side in charge, once both have the whole schema.
    pub(super) authority: Option<Side>,
    pub(super) source: Examined<'a>,
    pub(super) target: Examined<'a>,
    application_roles: Result<Vec<ApplicationRole>, Inconclusive>,
}

/// A side, a session there, and what was read at once.
pub(super) struct Examined<'a> {
    pub(super) side: Side,
    pub(super) client: &'a Client,
    pub(super) facts: SideFacts,
    /// A condition on `pg_class c` joined with `pg_namespace n`: a relation of the user's that the cutover covers.
    pub(super) covered: String,
}

impl<'a> Context<'a> {
    pub(super) async fn read(plan: &'a Plan, source: &'a Client, target: &'a Client, standing: Standing) -> PgResult<Self> {
        let coverage = Coverage::of(&plan.tables.filter);
        let source = Examined::read(Side::Source, source, &coverage).await?;
        let target = Examined::read(Side::Target, target, &coverage).await?;
        let application_roles = application_roles(source.client, source.facts.major, &plan.application_roles)
            .await
            .map_err(|error| Inconclusive::at(Side::Source, &error));
        let prepared = standing != Standing::New;
        let authority = match standing {
            Standing::Complete { authority } => Some(authority),
            Standing::New | Standing::Begun => None,
        };
        Ok(Self { plan, coverage, names: Names::new(&plan.name), prepared, authority, source, target, application_roles })
    }

    pub(super) fn side(&self, side: Side) -> &Examined<'a> {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    pub(super) fn sides(&self) -> [&Examined<'a>; 2] {
        [&self.source, &self.target]
    }

    /// The application's roles at the source.
    pub(super) fn application_roles(&self) -> Result<&[ApplicationRole], Inconclusive> {
        self.application_roles.as_deref().map_err(Clone::clone)
    }

    /// What moves, and how large it is, as the beginning of a sentence.
    pub(super) fn size(&self) -> Result<String, Inconclusive> {
        let what = if self.plan.tables.filter.is_all() { "the database" } else { "what the plan covers" };
        Ok(format!("{what} has {}", text::bytes(self.source.facts.bytes()?)))
    }

    /// The streams that this plan has.
    pub(super) fn streams(&self) -> Vec<Stream> {
        if self.plan.switch.reverse { vec![Stream::Forward, Stream::Reverse] } else { vec![Stream::Forward] }
    }

    /// The sides whose changes are published.
    pub(super) fn origins(&self) -> Vec<&Examined<'a>> {
        self.streams().into_iter().map(|stream| self.side(stream.origin())).collect()
    }

    /// The sides where the other's changes are applied.
    pub(super) fn destinations(&self) -> Vec<&Examined<'a>> {
        self.streams().into_iter().map(|stream| self.side(stream.destination())).collect()
    }
}

impl<'a> Examined<'a> {
    async fn read(side: Side, client: &'a Client, coverage: &Coverage) -> PgResult<Self> {
        Ok(Self { side, client, facts: SideFacts::read(side, client, coverage).await?, covered: coverage.inside() })
    }

    /// Runs a query.
    pub(super) async fn query(&self, doing: &str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Inconclusive> {
        self.client.query(sql, values).await.map_err(|error| Inconclusive::at(self.side, &PgError::sql(doing, error)))
    }

    /// Runs a query that answers with one column of text.
    pub(super) async fn lines(&self, doing: &str, sql: &str) -> Result<Vec<String>, Inconclusive> {
        Ok(self.query(doing, sql, &[]).await?.iter().map(|row| row.get(0)).collect())
    }
}
