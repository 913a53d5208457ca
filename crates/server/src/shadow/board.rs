//! What is shown of tables with a shadow: where they stood when they were last asked for, and what was measured.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State};
use cutover_api::{Code, Problem};
use cutover_engine::{
    Status,
    shadow::{Measures, ShadowTables, Shown, Table},
};
use prometheus_client::collector::Collector;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::metrics::Gauges;
use crate::{
    front::{Front, whole_ms},
    problem::{NotAllowed, Refusal},
};

/// What was measured longer ago is not shown any more: no data is not good data.
const MEASURED_LATELY: Duration = Duration::from_secs(60);

/// How what is known is told to a person.
#[derive(Clone, Copy, Debug)]
pub struct Tell {
    /// Of a switch.
    pub status: fn(&Status) -> String,
    /// Of tables with a shadow.
    pub tables: fn(&[Shown]) -> String,
}

/// What is known of the tables, if the server was told of any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
pub(super) struct Known {
    source: Option<Source>,
    pub(super) tables: Vec<Table>,
    more: bool,
    pub(super) as_of: Option<Instant>,
    measures: BTreeMap<String, Measures>,
    measured_at: Option<Instant>,
}

#[derive(Debug)]
struct Source {
    place: String,
    schema: String,
    lease: Duration,
    tell: fn(&[Shown]) -> String,
}

/// Tables with a shadow.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Look {
    /// Where they are: `host:port/database`.
    database: String,
    /// Since they were last asked for. None: they never answered. Unit: milliseconds.
    age_ms: Option<u64>,
    /// Whether that is longer than the lease.
    stale: bool,
    /// Whether there are more tables than are told.
    more: bool,
    /// As `cutover sql status --output json` tells them.
    #[schema(value_type = Vec<Object>)]
    tables: Value,
}

/// Where every table with a shadow stands, as this server knows it.
#[utoipa::path(get, path = "/v1/shadow-tables", tag = "look", responses(
    (status = 200, description = "Where they stand", body = Look),
    NotAllowed,
    (status = 404, description = "This server was told of no database with such tables", body = Problem)
))]
pub(crate) async fn look(State(front): State<Front>) -> Result<Json<Look>, Refusal> {
    front.board.look()?.map(Json).ok_or_else(|| {
        Refusal::new(Code::NotFound, "this server was told of no database with shadow tables").hint("`cutover serve --shadow-tables URL`")
    })
}

impl Board {
    pub(crate) fn open(&self, tables: &ShadowTables, lease: Duration, tell: Tell) {
        let source = Source { place: tables.place(), schema: tables.schema().to_owned(), lease, tell: tell.tables };
        self.known().source = Some(source);
    }

    /// Takes up where the tables stand, and says which of them are somewhere else than before, or are healthy or not otherwise.
    pub(super) fn stand(&self, tables: Vec<Table>, more: bool, as_of: Instant) -> Vec<Table> {
        let mut known = self.known();
        let is_known = |table: &&Table| {
            let before = known.tables.binary_search_by(|before| before.table.cmp(&table.table)).ok().map(|at| &known.tables[at]);
            before.is_some_and(|before| (before.epoch, &before.stage, &before.health) == (table.epoch, &table.stage, &table.health))
        };
        let changed = tables.iter().filter(|table| !is_known(table)).cloned().collect();
        (known.tables, known.more, known.as_of) = (tables, more, Some(as_of));
        changed
    }

    pub(super) fn measured(&self, measures: BTreeMap<String, Measures>, at: Instant) {
        let mut known = self.known();
        (known.measures, known.measured_at) = (measures, Some(at));
    }

    /// For the metrics.
    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(Gauges(self.clone()))
    }

    /// What is known; none where the server was told of no database.
    pub(crate) fn look(&self) -> Result<Option<Look>, Refusal> {
        let known = self.known();
        let Some(source) = &known.source else { return Ok(None) };
        let tables = serde_json::to_value(known.shown()).map_err(|error| Refusal::internal(&error))?;
        let age_ms = known.as_of.map(|as_of| whole_ms(as_of.elapsed()));
        Ok(Some(Look { database: source.place.clone(), age_ms, stale: known.is_stale(), more: known.more, tables }))
    }

    /// The same for a person.
    pub(crate) fn text(&self) -> Option<String> {
        let known = self.known();
        let source = known.source.as_ref()?;
        let age = known.as_of.map(|as_of| as_of.elapsed().as_secs());
        let sure = match age {
            None => ", which has not answered yet".to_owned(),
            Some(age) if known.is_stale() => format!(", which has not answered for {age} s: reads stay where they were"),
            Some(_) => String::new(),
        };
        let tables = age.map(|_| format!("\n{}", (source.tell)(&known.shown()))).unwrap_or_default();
        Some(format!("shadow tables at {}{sure}{tables}", source.place))
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What was measured lately of a table.
    pub(super) fn measures(&self, table: &str) -> Measures {
        let is_late = self.measured_at.is_none_or(|at| at.elapsed() > MEASURED_LATELY);
        self.measures.get(table).filter(|_| !is_late).cloned().unwrap_or_default()
    }

    fn shown(&self) -> Vec<Shown> {
        let schema = self.source.as_ref().map_or("", |source| &source.schema);
        self.tables.iter().map(|table| Shown::of(schema, self.measures(&table.table), table.clone())).collect()
    }

    fn is_stale(&self) -> bool {
        let lease = self.source.as_ref().map_or(Duration::ZERO, |source| source.lease);
        self.as_of.is_none_or(|as_of| as_of.elapsed() > lease)
    }
}
