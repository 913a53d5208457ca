//! The preflight of a PgBouncer.

use std::path::Path;

use tokio::time::Instant;

use super::{
    Entry, PgBouncer, Pooling,
    console::{Console, says},
    points_at,
    status::{Status, setting},
};
use crate::{Endpoint, Problem, TrafficError, revise};

/// A database that nobody has: asking to RESUME it shows the rights and changes nothing.
const NOBODYS: &str = "cutover probes its rights";

/// Looks at the file, at the running PgBouncer, and at whether they agree.
pub(super) async fn check(adapter: &PgBouncer, endpoints: &[Endpoint; 2], deadline: Instant) -> Vec<Problem> {
    let mut problems = Vec::new();
    let entry = match entry(adapter, deadline).await {
        Ok(entry) => Some(entry),
        Err(error) => {
            problems.push(Problem::from_error(&error));
            None
        }
    };
    if let Err(error) = running(adapter, entry.as_ref(), endpoints, deadline, &mut problems).await {
        problems.push(Problem::from_error(&error));
    }
    problems
}

async fn entry(adapter: &PgBouncer, deadline: Instant) -> Result<Entry, TrafficError> {
    let entry = adapter.entry(deadline).await?;
    let path = entry.path.clone();
    adapter.blocking("look at its configuration file", deadline, move || revise::writable(&path)).await?;
    Ok(entry)
}

async fn running(
    adapter: &PgBouncer,
    entry: Option<&Entry>,
    endpoints: &[Endpoint; 2],
    deadline: Instant,
    problems: &mut Vec<Problem>,
) -> Result<(), TrafficError> {
    let console = adapter.console(deadline).await?;
    problems.extend(rights(adapter, &console, deadline).await?);
    problems.extend(same_file(adapter, &console, deadline).await?);
    let status = adapter.status(&console, deadline).await?;
    problems.extend(entry.and_then(|entry| agrees(entry, &status)));
    problems.extend(state(adapter, &status));
    problems.extend(direction(&status, endpoints).await);
    problems.extend(waiting(&console, &status, deadline).await?);
    problems.extend(prepared(&console, &status, deadline).await?);
    let version = console.call("SHOW VERSION", deadline).await?;
    let version = version.first().map(|row| row.text("version")).transpose()?.unwrap_or("PgBouncer of unknown version");
    problems.push(Problem::info(format!("{version}: {}", status.describe())));
    Ok(())
}

async fn rights(adapter: &PgBouncer, console: &Console, deadline: Instant) -> Result<Option<Problem>, TrafficError> {
    match console.call(&format!("RESUME \"{NOBODYS}\""), deadline).await {
        Err(error) if says(&error, "admin access needed") => Ok(Some(Problem::error(
            format!("`{}` may not PAUSE, RELOAD and RESUME", adapter.admin.user),
            format!("add `{}` to admin_users in {} and RELOAD", adapter.admin.user, adapter.config_file.display()),
        ))),
        Err(error) if !says(&error, "no such database") => Err(error),
        _ => Ok(None),
    }
}

/// Whether PgBouncer reads the file that the plan names.
async fn same_file(adapter: &PgBouncer, console: &Console, deadline: Instant) -> Result<Option<Problem>, TrafficError> {
    let Some(theirs) = setting(console, "conffile", deadline).await? else { return Ok(None) };
    let ours = adapter.config_file.clone();
    let read = theirs.clone();
    let same = adapter.blocking("look at its configuration file", deadline, move || Ok(is_same(&ours, Path::new(&read)))).await?;
    let ours = adapter.config_file.display();
    Ok(match same {
        Some(true) => None,
        Some(false) => Some(Problem::error(
            format!("PgBouncer reads {theirs}, and the plan's config_file is {ours}"),
            format!("set config_file = \"{theirs}\" in the plan"),
        )),
        None => Some(Problem::warning(
            format!("PgBouncer reads {theirs}, which can't be compared with the plan's {ours} from here"),
            "make sure that they are one file; a release that is not applied keeps clients waiting",
        )),
    })
}

/// Whether both are one file, where that can be told: a relative name starts from a folder we don't
/// know, and a PgBouncer in a container sees other paths.
fn is_same(ours: &Path, theirs: &Path) -> Option<bool> {
    if theirs.is_relative() {
        return if ours.file_name() == theirs.file_name() { None } else { Some(false) };
    }
    match (ours.canonicalize(), theirs.canonicalize()) {
        (Ok(ours), Ok(theirs)) => Some(ours == theirs),
        _ => None,
    }
}

fn agrees(entry: &Entry, status: &Status) -> Option<Problem> {
    (entry.backend != status.backend).then(|| {
        Problem::error(
            format!("{} says {}, and the running PgBouncer has {}", entry.path.display(), entry.backend, status.backend),
            "RELOAD it, and make sure that this is the file it reads",
        )
    })
}

fn state(adapter: &PgBouncer, status: &Status) -> Option<Problem> {
    let database = &adapter.database;
    if status.disabled {
        return Some(Problem::error(format!("`{database}` is disabled: it takes no clients"), format!("ENABLE \"{database}\"")));
    }
    status.paused.then(|| Problem::warning(format!("`{database}` is paused: its clients wait"), format!("RESUME \"{database}\"")))
}

async fn direction(status: &Status, endpoints: &[Endpoint; 2]) -> Option<Problem> {
    let observation = crate::Observation {
        points_at: points_at(&status.backend, endpoints).await,
        held: status.held(),
        clients: Some(status.clients),
        detail: status.describe(),
    };
    crate::command::direction(Ok(observation))
}

/// What clients get to feel of the pause.
async fn waiting(console: &Console, status: &Status, deadline: Instant) -> Result<Option<Problem>, TrafficError> {
    if status.pooling == Pooling::Session {
        let message = "session pooling: clients don't wait during the pause, writes fail, and their connections are dropped at the release";
        return Ok(Some(Problem::warning(message, "set pool_mode = transaction, if the application allows it")));
    }
    let timeout = setting(console, "query_wait_timeout", deadline).await?;
    Ok(match timeout.as_deref().and_then(|seconds| seconds.parse::<f64>().ok()) {
        Some(seconds) if seconds > 0.0 && seconds < 10.0 => Some(Problem::warning(
            format!("query_wait_timeout is {seconds} s: clients that wait longer are dropped"),
            "set query_wait_timeout well above the pause budget",
        )),
        _ => None,
    })
}

/// What becomes of prepared statements: without its help they are lost with the server connection.
async fn prepared(console: &Console, status: &Status, deadline: Instant) -> Result<Option<Problem>, TrafficError> {
    let kept = setting(console, "max_prepared_statements", deadline).await?.is_some_and(|kept| kept != "0");
    Ok((!kept && status.pooling == Pooling::Transaction).then(|| {
        Problem::warning(
            "prepared statements of clients don't outlive a change of server here: clients that use them will fail",
            "where clients use them, set max_prepared_statements (PgBouncer 1.21 and later)",
        )
    }))
}
