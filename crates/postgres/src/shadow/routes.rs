//! Where every table with a shadow stands, as whoever serves or shows it asks: one bounded query, and for what costs more, another.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::{Client, Row, error::SqlState};

use super::unreadable;
use crate::{
    PgError, PgResult,
    names::{ident, literal},
};

/// More tables than this are neither served nor shown.
pub const MOST_TABLES: usize = 500;

/// Queued keys are counted up to here.
const MOST_QUEUED: i64 = 100_000;

/// A table that has a shadow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// As the functions know it: without `public`, else with its schema.
    pub table: String,
    /// Where it stands; `disabled` as long as nobody has started it.
    pub stage: String,
    /// The share of reads that goes to the shadow by the stage. Unit: percent.
    pub read_percentage: f64,
    /// Grows with each change of the stage.
    pub epoch: i64,
    /// `healthy`, `degraded`, `unhealthy` or `unknown`. One that is unhealthy is read at the primary, whatever the stage says.
    pub health: String,
    /// What sets its buckets apart; none as long as nobody has started it.
    pub salt: Option<String>,
    /// Until the stage may be left; 0 where it may. Unit: seconds.
    pub dwell_left_s: u64,
    /// The stage behind this one; none behind the last that can be reached.
    pub next_stage: Option<String>,
    /// Whether what is written goes to the shadow as well.
    pub dual_write: bool,
    /// Whether every row was brought.
    pub backfilled: bool,
    /// Whether it was stopped by hand; then it does not begin again before dual writes were enabled anew.
    pub emergency_stop: bool,
    /// Checks of its health that have failed in a row; none of an older installation.
    pub consecutive_failures: Option<i64>,
}

/// All that is shown of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Where it stands.
    #[serde(flatten)]
    pub table: Table,
    /// What was measured of it.
    #[serde(flatten)]
    pub measures: Measures,
    /// The next safe command.
    pub next: String,
}

impl Table {
    /// The share of reads that goes to the shadow. Unit: basis points.
    #[must_use]
    pub fn target_reads(&self) -> u16 {
        // Two decimals, from 0 to 100: the column's own limits.
        if self.health == "unhealthy" { 0 } else { (self.read_percentage * 100.0).round().clamp(0.0, 10_000.0) as u16 }
    }
}

/// What was measured of a table. What nobody has measured is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measures {
    /// Keys whose row in the shadow may be another; counted up to 100,000.
    pub queued: Option<u64>,
    /// Operations at the shadow that failed. Unit: percent.
    pub error_rate_percent: Option<f64>,
    /// How much slower the shadow is than the primary. Unit: percent.
    pub latency_increase_percent: Option<f64>,
    /// Rows that were the same at the last comparison. Unit: percent.
    pub validation_score: Option<f64>,
    /// What to do, in words of the functions.
    pub recommendations: Option<String>,
    /// Until the next step may be taken, what was not recorded meanwhile included. Unit: minutes, rounded up.
    #[serde(skip)]
    eligible_in_minutes: Option<u32>,
}

/// All that is shown of every table.
///
/// # Errors
/// As [`tables`].
pub async fn shown(client: &Client, schema: &str) -> PgResult<Vec<Shown>> {
    let (tables, _) = tables(client, schema).await?;
    let mut measures = measures(client, schema).await?;
    let show = |table: Table| Shown::of(schema, measures.remove(&table.table).unwrap_or_default(), table);
    Ok(tables.into_iter().map(show).collect())
}

/// Has the connection hear of each change of a stage.
///
/// # Errors
/// [`PgError::Refused`] of a standby, which hears of no change and may be behind by any time; [`PgError::Sql`].
pub async fn listen(client: &Client) -> PgResult<()> {
    client.batch_execute("LISTEN cutover_route").await.map_err(|error| match error.code() {
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => PgError::Refused {
            what: "this server is a standby: where reads go can be seen there late, and nobody can say how late".to_owned(),
            hint: Some("name the primary".to_owned()),
        },
        _ => PgError::sql("listening for changes", error),
    })
}

/// Every table with a shadow, by name; and whether there are more than are told.
///
/// # Errors
/// [`PgError::Refused`] where nothing is installed; [`PgError::Sql`].
pub async fn tables(client: &Client, schema: &str) -> PgResult<(Vec<Table>, bool)> {
    let sql = format!(
        "SELECT t.table_name, coalesce(c.cutover_stage::text, 'disabled'), coalesce(c.read_percentage, 0)::double precision, coalesce(c.epoch, 0), \
                coalesce(c.health_status, 'unknown'), c.salt, \
                greatest(0, coalesce(ceil(extract(epoch FROM c.next_stage_eligible_at - clock_timestamp())), 0))::bigint, \
                (SELECT r.stage::text FROM {0}.ladder_rung r WHERE r.ladder = coalesce(c.ladder, 'default') \
                    AND r.place > (SELECT h.place FROM {0}.ladder_rung h WHERE h.ladder = r.ladder AND h.stage = coalesce(c.cutover_stage, 'disabled')) \
                    AND (r.stage <> 'completed' OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = 'complete_cutover' \
                         AND p.pronamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $2))) \
                  ORDER BY r.place LIMIT 1), \
                coalesce(w.enabled, false), w.backfilled_at IS NOT NULL, coalesce(w.emergency_stop, false), \
                (to_jsonb(c) ->> 'consecutive_failures')::bigint \
           FROM {0}.shadow_table t LEFT JOIN {0}.traffic_routing_config c USING (table_name) LEFT JOIN {0}.dual_write_config w USING (table_name) \
          ORDER BY t.table_name LIMIT $1",
        ident(schema)
    );
    let limit = MOST_TABLES as i64 + 1;
    let rows = client.query(&sql, &[&limit, &schema]).await.map_err(|error| unreadable("reading where the tables stand", schema, error))?;
    Ok((rows.iter().take(MOST_TABLES).map(table).collect(), rows.len() > MOST_TABLES))
}

/// What was measured of each table, by name. Costs more than [`tables`]. An older installation measures less.
///
/// # Errors
/// As [`tables`].
pub async fn measures(client: &Client, schema: &str) -> PgResult<BTreeMap<String, Measures>> {
    let failed = |error| unreadable("reading what was measured", schema, error);
    let schema = ident(schema);
    let dashboard = format!("SELECT to_regprocedure('{}.get_cutover_status_dashboard()') IS NOT NULL", schema.replace('\'', "''"));
    let limit = MOST_TABLES as i64;
    let sql = if client.query_one(&dashboard, &[]).await.map_err(failed)?.get(0) {
        format!(
            "SELECT table_name, queued, error_rate_percent::double precision, latency_increase_percent::double precision, \
                    validation_score::double precision, nullif(recommendations, ''), next_eligible_in_minutes \
               FROM {schema}.get_cutover_status_dashboard() ORDER BY table_name LIMIT $1"
        )
    } else {
        format!(
            "SELECT t.table_name, (SELECT count(*) FROM (SELECT FROM {schema}.dirty_key k WHERE k.table_name = t.table_name LIMIT {MOST_QUEUED}) q), \
                    NULL::double precision, NULL::double precision, NULL::double precision, NULL::text, NULL::integer \
               FROM {schema}.shadow_table t ORDER BY t.table_name LIMIT $1"
        )
    };
    Ok(client.query(&sql, &[&limit]).await.map_err(failed)?.iter().map(measured).collect())
}

impl Shown {
    /// What was measured beside where a table of this schema stands, and what can be done next.
    #[must_use]
    pub fn of(schema: &str, measures: Measures, table: Table) -> Self {
        // What is measured says more where something was not recorded: then the stage has to last so much longer.
        let longer = measures.eligible_in_minutes.map(|minutes| u64::from(minutes) * 60).filter(|left| *left >= table.dwell_left_s + 60);
        let table = Table { dwell_left_s: longer.unwrap_or(table.dwell_left_s), ..table };
        Self { next: next(schema, &table, &measures), table, measures }
    }
}

/// What can be done next without harm, as a command or in words.
fn next(schema: &str, table: &Table, measures: &Measures) -> String {
    let call = |function: &str, more: &str| format!("SELECT {schema}.{function}({}{more})", literal(&table.table));
    let cli = |verb: &str| {
        let schema = if schema == super::SCHEMA { String::new() } else { format!(" --schema {schema}") };
        format!("cutover sql {verb} {}{schema}", table.table)
    };
    match (table.stage.as_str(), table.next_stage.as_deref()) {
        ("completed", _) => format!("nothing, or to end the way back {}", call("drop_shadow_table", ", true")),
        _ if !table.dual_write || table.emergency_stop => call("enable_dual_write", ""),
        _ if !table.backfilled => cli("backfill"),
        ("disabled", _) => call("start_gradual_cutover", ""),
        _ if table.health == "unhealthy" => format!("its reads go to the primary: mend it, or {}", call("emergency_rollback", ", 'why'")),
        _ if measures.queued.is_some_and(|queued| queued > 0) => cli("drain"),
        (_, None) => "nothing: no stage is left".to_owned(),
        (_, Some(next)) if table.dwell_left_s > 0 => format!("wait: {next} may begin in {} s", table.dwell_left_s),
        (_, Some("completed")) => call("complete_cutover", ", true"),
        (_, Some(_)) => call("advance_cutover_stage", ""),
    }
}

fn table(row: &Row) -> Table {
    Table {
        table: row.get(0),
        stage: row.get(1),
        read_percentage: row.get(2),
        epoch: row.get(3),
        health: row.get(4),
        salt: row.get(5),
        dwell_left_s: row.get::<_, i64>(6).unsigned_abs(),
        next_stage: row.get(7),
        dual_write: row.get(8),
        backfilled: row.get(9),
        emergency_stop: row.get(10),
        consecutive_failures: row.get(11),
    }
}

fn measured(row: &Row) -> (String, Measures) {
    let measures = Measures {
        queued: row.get::<_, Option<i64>>(1).map(i64::unsigned_abs),
        error_rate_percent: row.get(2),
        latency_increase_percent: row.get(3),
        validation_score: row.get(4),
        recommendations: row.get(5),
        eligible_in_minutes: row.get::<_, Option<i32>>(6).and_then(|minutes| u32::try_from(minutes).ok()),
    };
    (row.get(0), measures)
}
