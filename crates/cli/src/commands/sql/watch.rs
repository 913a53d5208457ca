//! `cutover sql watch`: calls again and again what somebody has to call, where the server has no clock of its own.

use std::time::{Duration, Instant};

use cutover_core::plan::DatabaseUrl;
use cutover_postgres::{
    PgError, PgResult,
    connect::{Purpose, connect},
    shadow::{
        self,
        safety::{self, Checked},
    },
};
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::{
    args::{Global, Output, SqlWatch},
    output::{Failure, Paint, print_json, thousands, to_stderr, to_stdout},
    stop,
};

/// One call may take so long: a check compares samples of every table.
const LONGEST: Duration = Duration::from_secs(300);

/// After Ctrl-C, a call that is under way may end.
const GRACE: Duration = Duration::from_secs(10);

/// After a failure, until the next try; twice as long after each further one, and no longer than between two looks.
const REST: Duration = Duration::from_secs(1);

/// What one look came to.
#[derive(Serialize)]
struct Look {
    checked: Vec<Checked>,
    /// Rows that were queued, and are brought.
    brought: u64,
    /// Keys that are queued still.
    queued: u64,
}

pub(super) async fn run(global: &Global, args: &SqlWatch) -> Result<(), Failure> {
    let url = DatabaseUrl::parse(&args.there.url).map_err(Failure::usage)?;
    let schema = &args.there.schema.schema;
    let mut stop = stop::on_signal_saying("stopping: what is under way may end");
    let mut stopping = stop.clone();
    // What is wrong from the beginning is a mistake of whoever typed it; what goes wrong later passes.
    let (mut client, mut failures) = (Some(open(&url).await?), 0_u32);
    let mut is_first = true;
    loop {
        let begun = Instant::now();
        let work = async {
            let look = look(&url, &mut client, schema, args.every).await;
            if look.is_err() {
                client = None;
            }
            look
        };
        tokio::pin!(work);
        let looked = tokio::select! {
            looked = &mut work => looked,
            _ = stopping.wait_for(|stop| *stop) => match timeout(GRACE, work).await {
                Ok(looked) => looked,
                Err(_) => {
                    to_stderr("the call that is under way is left to the server");
                    return Ok(());
                }
            },
        };
        let rest = match looked {
            Ok(look) => {
                show(global, &look);
                failures = 0;
                args.every.saturating_sub(begun.elapsed())
            }
            Err(error) if is_first => return Err(error.into()),
            Err(error) => {
                to_stderr(&format!("{} {error}", Paint::stderr().yellow("warning:")));
                failures = failures.saturating_add(1).min(8);
                (REST * 2_u32.pow(failures - 1)).min(args.every)
            }
        };
        is_first = false;
        if super::stopped(&mut stop, rest).await {
            return Ok(());
        }
    }
}

async fn open(url: &DatabaseUrl) -> PgResult<Client> {
    let purpose = Purpose { statement_timeout: Some(LONGEST), ..Purpose::new(super::APPLICATION) };
    connect(url, &purpose).await
}

/// Checks, and brings what is queued: of each table until nothing can be brought, or it is time for the next look.
async fn look(url: &DatabaseUrl, client: &mut Option<Client>, schema: &str, every: Duration) -> PgResult<Look> {
    let begun = Instant::now();
    if client.as_ref().is_none_or(Client::is_closed) {
        *client = Some(open(url).await?);
    }
    let Some(client) = client else { return Err(PgError::Mismatch("there is no connection".to_owned())) };
    // A server that is gone without a word answers to no time-out of its own.
    let bounded = async {
        let checked = safety::check(client, schema).await?;
        let (mut brought, mut queued) = (0, 0);
        for table in shadow::tables(client, schema).await? {
            queued += loop {
                let (rows, left) = shadow::drain(client, schema, &table, super::AT_ONCE).await?;
                brought += rows;
                if rows == 0 || begun.elapsed() >= every {
                    break left;
                }
            };
        }
        Ok(Look { checked, brought, queued })
    };
    let limit = LONGEST + every;
    let too_slow = || PgError::TimedOut { doing: "checking the tables".to_owned(), limit };
    timeout(limit, bounded).await.unwrap_or_else(|_| Err(too_slow()))
}

/// A person is told what was done, and with `-v` also what was not.
fn show(global: &Global, look: &Look) {
    if global.output == Output::Json {
        return print_json(look);
    }
    let paint = Paint::stdout();
    let at = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    for checked in look.checked.iter().filter(|checked| checked.action != "none" || global.verbose > 0) {
        let action = match checked.action.as_str() {
            "rolled_back" | "failed" => paint.red(&checked.action),
            "held" => paint.yellow(&checked.action),
            other => other.to_owned(),
        };
        let reason = checked.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        to_stdout(&format!("{}  {}  {action}, {}{reason}", paint.dim(&at), paint.bold(&checked.table), checked.health));
    }
    if look.brought > 0 || global.verbose > 0 {
        to_stdout(&format!("{}  {} rows brought, {} keys queued", paint.dim(&at), thousands(look.brought), thousands(look.queued)));
    }
}
