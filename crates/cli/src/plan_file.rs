//! Reading the plan file, and the environment that its strings may refer to.

use std::path::{Path, PathBuf};

use cutover_core::{
    Plan,
    plan::{DatabaseUrl, expand},
};
use cutover_engine::Cutover;

use crate::{
    args::{Global, PLAN},
    output::Failure,
};

/// Reads the plan and opens the cutover that it describes.
pub(crate) async fn open(global: &Global) -> Result<Cutover, Failure> {
    let (plan, text) = read(&global.plan)?;
    Ok(Cutover::open(plan, &text, &folder(&global.plan), tools()).await?)
}

/// More folders with PostgreSQL's client programs: those of `$CUTOVER_PG_BIN`, separated by colons, and those of `$PATH`.
pub(crate) fn tools() -> Vec<PathBuf> {
    ["CUTOVER_PG_BIN", "PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .flat_map(|folders| std::env::split_paths(&folders).collect::<Vec<_>>())
        .filter(|folder| folder.join("pg_dump").exists())
        .collect()
}

/// Reads and checks a plan. The text is that of its file.
pub(crate) fn read(path: &Path) -> Result<(Plan, String), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("can't read the plan {}: {error}", path.display()))
            .with_hint("`cutover init` writes one to start from; --plan names another file")
    })?;
    let plan = Plan::parse(&text, &variable).map_err(|error| {
        let failure = Failure::usage(format!("{}:{}:{}: {}", path.display(), error.line, error.column, error.message));
        match error.hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })?;
    Ok((plan, text))
}

/// The URL of a database as an option has it, in which `${NAME}` stands for a variable of the environment.
pub(crate) fn url(text: &str) -> Result<DatabaseUrl, Failure> {
    let text = expand(text, &variable).map_err(|(message, hint)| Failure::usage(message).with_hint(hint))?;
    DatabaseUrl::parse(&text).map_err(Failure::usage)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether there is no plan, and nobody has named one.
pub(crate) fn is_none(global: &Global) -> bool {
    global.plan == Path::new(PLAN) && !global.plan.exists()
}

/// The folder of our own files, beside the plan.
pub(crate) fn state(plan: &Path) -> PathBuf {
    folder(plan).join(cutover_engine::STATE)
}

/// The folder that relative paths in the plan start from.
pub(crate) fn folder(plan: &Path) -> PathBuf {
    match plan.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
