//! What can be typed about shadow tables.

use std::time::Duration;

use clap::{Args, Subcommand};
use cutover_postgres::shadow::{SCHEMA, schema_name};

/// Shadow tables: a table moves to another shape inside its own database, driven from SQL.
#[derive(Debug, Subcommand)]
pub(crate) enum Sql {
    /// Install the functions for shadow tables, or bring an older installation up to date.
    #[command(after_help = "Examples:
  cutover sql install --url postgres://owner@db.example/shop
  cutover sql install --url postgres://owner@db.example/shop --schema moving --short-names
  cutover sql install --print | psql -1 …        # or read first what it does

It needs no superuser: the right to create a schema and, the first time, three roles. Installing again changes nothing.
docs/shadow-tables.md says how a table moves.")]
    Install(Install),
    /// Bring every row of a table to its shadow: in small transactions, beside those who write. Interrupted, it goes on where it was.
    #[command(after_help = "Examples:
  cutover sql backfill orders --url postgres://owner@db.example/shop
  cutover sql backfill orders --url postgres://owner@db.example/shop --max-rate 5000

The same in SQL: CALL cutover.backfill('orders', p_rows_per_second => 5000)")]
    Backfill(Backfill),
    /// Bring rows whose keys are queued: what was written under async dual writes, and what the shadow refused.
    #[command(after_help = "Examples:
  cutover sql drain --url postgres://owner@db.example/shop                    # until nothing is queued
  cutover sql drain orders --url postgres://owner@db.example/shop --follow    # and what comes after

The same in SQL: SELECT cutover.drain('orders'), again and again")]
    Drain(Drain),
    /// Where each table stands: stage, share of reads, health, queue, how long the stage has to last, and the next safe command.
    #[command(after_help = "Examples:
  cutover sql status --url postgres://viewer@db.example/shop
  cutover sql status --url postgres://viewer@db.example/shop --watch
  cutover sql status --url postgres://viewer@db.example/shop --output json | jq '.tables[] | select(.queued > 0)'

`cutover status --shadow-tables URL` shows the same below a switch.")]
    Status(SqlStatus),
    /// Check the tables again and again: roll back what is unhealthy, take the next step where that was allowed, bring what is queued.
    #[command(after_help = "Examples:
  cutover sql watch --url postgres://operator@db.example/shop
  cutover sql watch --url postgres://operator@db.example/shop --every 30s --output json >> checks.jsonl

For servers without pg_cron. The same in SQL, once a minute: SELECT * FROM cutover.run_automated_safety_check()")]
    Watch(SqlWatch),
}

/// Where the tables are.
#[derive(Args, Debug)]
pub(crate) struct There {
    /// The database, as a role that may do this.
    #[arg(long, value_name = "URL", env = "CUTOVER_SQL_URL", hide_env_values = true)]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) schema: Schema,
}

#[derive(Args, Debug)]
pub(crate) struct Schema {
    /// The schema that holds the functions.
    #[arg(long, value_name = "NAME", default_value = SCHEMA, value_parser = schema_name)]
    pub(crate) schema: String,
}

/// Shadow tables, for verbs that are about something else as well.
#[derive(Args, Debug)]
pub(crate) struct ShadowTables {
    /// A database with shadow tables. `${NAME}` in it stands for a variable of the environment, as in a plan.
    #[arg(long, value_name = "URL")]
    pub(crate) shadow_tables: Option<String>,
    /// With --shadow-tables: the schema that holds their functions.
    #[arg(long, value_name = "NAME", default_value = SCHEMA, value_parser = schema_name)]
    pub(crate) schema: String,
}

#[derive(Args, Debug)]
pub(crate) struct SqlStatus {
    #[command(flatten)]
    pub(crate) there: There,
    /// Look again every second until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SqlWatch {
    #[command(flatten)]
    pub(crate) there: There,
    /// Between two checks: 1s to 1h.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = every)]
    pub(crate) every: Duration,
}

/// More often would be a load, more seldom no watch.
pub(super) fn every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    if allowed.contains(&every) { Ok(every) } else { Err("has to be 1s to 1h".to_owned()) }
}

#[derive(Args, Debug)]
pub(crate) struct Install {
    /// The database, as the role that is to own the functions.
    #[arg(long, value_name = "URL", env = "CUTOVER_SQL_URL", hide_env_values = true, required_unless_present = "print")]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) schema: Schema,
    /// Have sessions that begin from now on find the functions by their names alone: puts the schema behind the database's
    /// search_path.
    #[arg(long, conflicts_with = "print")]
    pub(crate) short_names: bool,
    /// Print what would be executed, and connect to nothing.
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Backfill {
    /// The table: `orders`, or `schema.orders`.
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) there: There,
    /// Rows in one transaction.
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,
    /// At most so many rows a second.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_rate: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// Only this table.
    pub(crate) table: Option<String>,
    #[command(flatten)]
    pub(crate) there: There,
    /// Go on with what is queued later, until Ctrl-C.
    #[arg(long)]
    pub(crate) follow: bool,
    /// With --follow: between two looks at an empty queue.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub(crate) every: Duration,
}
