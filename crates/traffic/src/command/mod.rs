//! The user's own commands: hold, release and observe for anything without an adapter, and hooks.
//!
//! A command is run by `sh -c` in the plan's folder, with no standard input, in a process group of its
//! own that is killed as a whole when its time is over. It inherits the environment, plus:
//!
//! | variable | in | value |
//! |---|---|---|
//! | `CUTOVER_ACTION` | all but hooks | `hold`, `release`, `observe` |
//! | `CUTOVER_SIDE` | release, hooks | the side in charge from now on: `source` or `target` |
//! | `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER`, `PGSSLMODE`, `PGSSLROOTCERT` | release, hooks | that side's address |
//! | `PGPASSWORD` | release, hooks | its password, if its URL carries one |
//! | `CUTOVER_SOURCE_HOST`, `…_PORT`, `…_DATABASE`, `CUTOVER_TARGET_…` | observe | both addresses |
//!
//! Where that side's address is given, inherited variables that would lead libpq elsewhere
//! (`PGHOSTADDR`, `PGSERVICE`, …) are taken out. Each command must do no harm when it is run twice.
//! `observe` prints `source` or `target`, followed by `held` while clients are made to wait.

mod process;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use cutover_core::Side;
use tokio::time::Instant;

pub use self::process::HookOutput;
use self::process::Process;
use crate::{Adapter, Endpoint, Observation, Problem, TrafficError};

/// Inherited variables that would point libpq at another server than the one meant.
const MISLEADING: [&str; 4] = ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS"];

/// How long `sh -n` and a command that only looks may take.
const LOOK: Duration = Duration::from_secs(5);

/// Runs one of the plan's hooks, such as `make db-migrate`, with `to`'s address in its environment.
/// `extra_env` comes on top and wins.
///
/// # Errors
/// When it can't be started, ends with another status than 0, or takes longer than `timeout`.
pub async fn run_hook(
    command: &str,
    to: &Endpoint,
    extra_env: &[(String, String)],
    timeout: Duration,
    cwd: &Path,
) -> Result<HookOutput, TrafficError> {
    let mut process = addressed(Process::new("hook", command, cwd), to);
    process.env.extend(extra_env.iter().cloned());
    process.run(timeout).await
}

/// The commands of a plan.
pub(crate) struct Commands {
    pub(crate) hold: Option<String>,
    pub(crate) release: String,
    pub(crate) observe: Option<String>,
}

/// Adapter for [`Commands`].
pub(crate) struct CommandAdapter {
    commands: Commands,
    timeout: Duration,
    folder: PathBuf,
}

impl CommandAdapter {
    pub(crate) fn new(commands: Commands, timeout: Duration, folder: PathBuf) -> Self {
        Self { commands, timeout, folder }
    }

    fn process<'a>(&'a self, action: &str, command: &'a str) -> Process<'a> {
        let mut process = Process::new(action, command, &self.folder);
        process.env.push(("CUTOVER_ACTION".to_owned(), action.to_owned()));
        process
    }

    /// The plan's time-out, or what is left until `deadline`.
    fn time(&self, deadline: Instant) -> Duration {
        self.timeout.min(deadline.saturating_duration_since(Instant::now()))
    }

    async fn syntax(&self, action: &str, command: &str) -> Option<Problem> {
        let script = format!("exec sh -n -c {}", quoted(command));
        let error = Process::new(&format!("the syntax check of {action}"), &script, &self.folder).run(LOOK).await.err()?;
        Some(Problem::error(error.report(), format!("correct the {action} command in the plan")))
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Commands { hold, release, observe } = &self.commands;
        [("hold", hold.as_deref()), ("release", Some(release.as_str())), ("observe", observe.as_deref())]
            .into_iter()
            .filter_map(|(action, command)| Some((action, command?)))
    }
}

#[async_trait]
impl Adapter for CommandAdapter {
    fn name(&self) -> String {
        format!("command {}", self.commands.release.split_whitespace().next().unwrap_or("(empty)"))
    }

    fn holds(&self) -> bool {
        self.commands.hold.is_some()
    }

    fn hold_calls(&self) -> Vec<String> {
        self.commands.hold.iter().map(|hold| format!("CUTOVER_ACTION=hold sh -c {}", quoted(hold))).collect()
    }

    fn release_calls(&self, to: &Endpoint) -> Vec<String> {
        let process = addressed(self.process("release", &self.commands.release), to);
        let shown = process.env.iter().map(|(name, value)| {
            let value = if name == "PGPASSWORD" { "***".to_owned() } else { word(value) };
            format!("{name}={value} ")
        });
        vec![format!("{}sh -c {}", shown.collect::<String>(), quoted(&self.commands.release))]
    }

    async fn observe(&self, endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError> {
        let Some(command) = &self.commands.observe else {
            let detail = "the plan has no observe command".to_owned();
            return Ok(Observation { points_at: None, held: false, clients: None, detail });
        };
        let mut process = self.process("observe", command);
        process.env.extend(endpoints.iter().flat_map(both_addresses));
        let output = process.run(self.timeout).await?;
        Ok(understood(output.stdout.trim()))
    }

    async fn check(&self, endpoints: &[Endpoint; 2]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (action, command) in self.all() {
            problems.extend(self.syntax(action, command).await);
        }
        if self.commands.hold.is_none() {
            problems.push(Problem::info("there is no hold command: during the pause the database itself refuses writes"));
        }
        if self.commands.observe.is_none() {
            let fix = "add an observe command that prints `source` or `target`";
            problems.push(Problem::warning("where traffic goes can't be checked", fix));
        } else if problems.iter().all(|problem| problem.severity < crate::Severity::Error) {
            problems.extend(direction(self.observe(endpoints).await));
        }
        problems
    }

    async fn hold(&self, deadline: Instant) -> Result<(), TrafficError> {
        let Some(command) = &self.commands.hold else { return Ok(()) };
        self.process("hold", command).run(self.time(deadline)).await.map(drop)
    }

    async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        let process = addressed(self.process("release", &self.commands.release), to);
        process.run(self.time(deadline)).await.map(drop)
    }
}

/// What traffic should look like before a cutover begins.
pub(crate) fn direction(observation: Result<Observation, TrafficError>) -> Option<Problem> {
    let observation = match observation {
        Ok(observation) => observation,
        Err(error) => return Some(Problem::from_error(&error)),
    };
    let detail = observation.detail;
    match observation.points_at {
        Some(Side::Source) => None,
        Some(Side::Target) => Some(Problem::warning(format!("traffic points at the target already ({detail})"), "")),
        None => {
            Some(Problem::error(format!("traffic points at neither side ({detail})"), "point it at the source, or correct the plan's URLs"))
        }
    }
}

/// Gives the process the address of `to`.
fn addressed<'a>(mut process: Process<'a>, to: &Endpoint) -> Process<'a> {
    let url = &to.url;
    process.remove = &MISLEADING;
    let mut set = |name: &str, value: &str| process.env.push((name.to_owned(), value.to_owned()));
    set("CUTOVER_SIDE", &to.side.to_string());
    set("PGHOST", &url.host);
    set("PGPORT", &url.port.to_string());
    set("PGDATABASE", &url.database);
    set("PGUSER", &url.user);
    set("PGSSLMODE", url.ssl_mode.name());
    if let Some(file) = &url.ssl_root_cert {
        set("PGSSLROOTCERT", file);
    }
    if let Some(password) = &url.password {
        set("PGPASSWORD", password.expose());
        process.secret = Some(password.clone());
    }
    process
}

fn both_addresses(endpoint: &Endpoint) -> [(String, String); 3] {
    let side = endpoint.side.to_string().to_uppercase();
    let url = &endpoint.url;
    [("HOST", url.host.clone()), ("PORT", url.port.to_string()), ("DATABASE", url.database.clone())]
        .map(|(name, value)| (format!("CUTOVER_{side}_{name}"), value))
}

fn understood(printed: &str) -> Observation {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let side = |word: &str| Side::BOTH.into_iter().find(|side| side.to_string() == word);
    let (points_at, held) = match words.as_slice() {
        [word] => (side(word), false),
        [word, "held"] => (side(word), true),
        _ => (None, false),
    };
    let detail = match points_at {
        Some(_) => format!("observe printed `{printed}`"),
        None => "observe did not print `source` or `target`".to_owned(),
    };
    Observation { points_at, held: held && points_at.is_some(), clients: None, detail }
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text`, quoted only where a shell needs it.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests;
