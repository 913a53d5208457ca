//! `cutover sql`: shadow tables, which live in the database itself. What is done here can be done with psql as well.

pub(crate) mod audit;
pub(crate) mod status;
mod watch;

use std::time::{Duration, Instant};

use cutover_core::plan::DatabaseUrl;
use cutover_engine::{Notice, Progress, Report, shadow::watch::AT_ONCE};
use cutover_postgres::{
    connect::{Purpose, connect},
    shadow,
};
use tokio::sync::watch::Receiver;
use tokio_postgres::{Client, error::SqlState};

use crate::{
    args::{Backfill, Drain, Global, Install, Output, Remote, ShadowTables, Sql, There},
    listen::Listener,
    output::{Failure, print_json, thousands, to_stderr, to_stdout},
    plan_file, stop,
};

/// What the server's views show us as.
const APPLICATION: &str = "cutover sql";

/// Where somebody else is at it: until the next try.
const REST: Duration = Duration::from_millis(200);

/// The exit code for what is left and can't be brought.
const INCONCLUSIVE: u8 = 4;

pub(crate) async fn run(global: &Global, args: &Sql) -> Result<(), Failure> {
    match args {
        Sql::Install(args) => install(global, args).await,
        Sql::Backfill(args) => backfill(global, args).await,
        Sql::Drain(args) => drain(global, args).await,
        Sql::Status(args) => status::run(global, args).await,
        Sql::Watch(args) => Box::pin(watch::run(global, args)).await,
    }
}

async fn install(global: &Global, args: &Install) -> Result<(), Failure> {
    let schema = &args.schema.schema;
    let Some(url) = args.url.as_ref().filter(|_| !args.print) else {
        to_stdout(&shadow::script(schema));
        return Ok(());
    };
    let mut client = client(url).await?;
    let done = shadow::install(&mut client, schema, args.short_names).await.map_err(|error| match error.sql_state() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Failure::from(error).with_hint(
            "the role needs CREATE on the database; roles cutover_viewer, cutover_app and cutover_operator can be made beforehand by whoever may",
        ),
        _ => error.into(),
    })?;
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "schema": schema, "version": done.version, "before": done.before })),
        Output::Human => to_stdout(&match done.before {
            None => format!("installed in the schema {schema}: version {}", done.version),
            Some(before) if before == done.version => format!("version {before} was there already; its functions are made anew"),
            Some(before) => format!("brought from version {before} to {}", done.version),
        }),
    }
    to_stderr("next: GRANT cutover_operator TO the owner of a table, then as that owner SELECT cutover.create_shadow_table('…')");
    Ok(())
}

async fn backfill(global: &Global, args: &Backfill) -> Result<(), Failure> {
    let There { url, schema } = &args.there;
    let (client, schema) = (client(url).await?, &schema.schema);
    let total = shadow::estimate(&client, schema, &args.table).await?;
    let (listener, mut stop) =
        (Listener::new(global.verbose), stop::on_signal_saying("stopping: what was brought stays, and the next run goes on there"));
    let (began, mut here) = (Instant::now(), 0);
    let done = loop {
        let step = shadow::backfill_step(&client, schema, &args.table, args.batch).await?;
        here += step.rows;
        let seconds = began.elapsed().as_secs_f64();
        listener.notice(&Notice::Progress(progress(step.total, total.unwrap_or(step.total), here as f64 / seconds.max(0.001))));
        if step.done {
            break step;
        }
        let ahead = args.max_rate.map(|rate| Duration::from_secs_f64(here as f64 / f64::from(rate)).saturating_sub(began.elapsed()));
        let rest = if step.rows == 0 { REST } else { ahead.unwrap_or_default() };
        if stopped(&mut stop, rest).await {
            listener.end_bar();
            return Err(Failure::new(format!("stopped after {} rows", thousands(step.total))).with_hint("run it again: it goes on there"));
        }
    };
    listener.end_bar();
    match global.output {
        Output::Json => {
            print_json(&serde_json::json!({ "table": args.table, "rows": done.total, "seconds": began.elapsed().as_secs_f64() }));
        }
        Output::Human => to_stdout(&format!("{}: every row was brought, {} in all", args.table, thousands(done.total))),
    }
    Ok(())
}

async fn drain(global: &Global, args: &Drain) -> Result<(), Failure> {
    let There { url, schema } = &args.there;
    let (client, schema) = (client(url).await?, &schema.schema);
    let mut stop = stop::on_signal_saying("stopping: what is queued stays queued");
    let mut sum = 0;
    let left = loop {
        let tables = match &args.table {
            Some(table) => vec![table.clone()],
            None => shadow::tables(&client, schema).await?,
        };
        let (mut brought, mut left) = (0, 0);
        for table in &tables {
            let (rows, queued) = shadow::drain(&client, schema, table, AT_ONCE).await?;
            brought += rows;
            left += queued;
        }
        sum += brought;
        if brought == 0 && !args.follow || stopped(&mut stop, if brought == 0 { args.every } else { Duration::ZERO }).await {
            break left;
        }
    };
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "brought": sum, "queued": left })),
        Output::Human => to_stdout(&format!("{} rows brought, {} keys queued", thousands(sum), thousands(left))),
    }
    if left > 0 && !args.follow {
        let why = format!("{} keys can't be brought now", thousands(left));
        let hint = format!("SELECT why, count(*) FROM {schema}.dirty_key GROUP BY why: the shadow refuses them, or they are being written");
        return Err(Failure::new(why).with_code(INCONCLUSIVE).with_hint(hint));
    }
    Ok(())
}

/// The database that is named with other verbs, if one is.
pub(super) fn named(shadow: &ShadowTables, remote: &Remote) -> Result<Option<DatabaseUrl>, Failure> {
    let Some(url) = &shadow.shadow_tables else { return Ok(None) };
    if remote.server.is_some() {
        return Err(
            Failure::usage("--shadow-tables and --server can't be meant both").with_hint("a server is told of them when it is started")
        );
    }
    plan_file::url(url).map(Some)
}

async fn client(url: &str) -> Result<Client, Failure> {
    connected(&DatabaseUrl::parse(url).map_err(Failure::usage)?).await
}

async fn connected(url: &DatabaseUrl) -> Result<Client, Failure> {
    Ok(connect(url, &Purpose::new(APPLICATION)).await?)
}

/// Rests, and says whether somebody wants us to stop.
async fn stopped(stop: &mut Receiver<bool>, rest: Duration) -> bool {
    *stop.borrow() || tokio::time::timeout(rest, stop.wait_for(|stop| *stop)).await.is_ok()
}

fn progress(done: u64, total: u64, per_second: f64) -> Progress {
    let left = total.saturating_sub(done) as f64 / per_second.max(0.001);
    let eta_seconds = (per_second > 0.0 && total > done).then_some(left);
    Progress {
        what: "backfill",
        done,
        total: total.max(done),
        unit: "rows",
        per_second,
        eta_seconds,
        detail: "as the statistics say".to_owned(),
    }
}
