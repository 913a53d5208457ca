//! What every adapter can do, and how a plan's adapters are built.

use std::{future::Future, path::Path};

use async_trait::async_trait;
use cutover_core::{
    Side,
    plan::{DatabaseUrl, Traffic},
};
use tokio::time::Instant;

use crate::{
    Flags, TrafficError,
    command::{CommandAdapter, Commands},
    file::FileAdapter,
    pgbouncer::PgBouncer,
};

/// A database that can be in charge, as the application's traffic is to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which side it is.
    pub side: Side,
    /// Where it is.
    pub url: DatabaseUrl,
}

/// Where traffic goes at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The side it is pointed at; absent where it is neither of the two, or can't be told.
    pub points_at: Option<Side>,
    /// Whether clients are made to wait and none of their statements is under way.
    pub held: bool,
    /// Clients connected, where that can be told.
    pub clients: Option<u32>,
    /// The same for a person, with what `points_at` leaves out. Holds no secret.
    pub detail: String,
}

/// How much a [`Problem`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// The cutover can go on, less smoothly.
    Warning,
    /// The cutover would fail.
    Error,
}

/// A finding of the preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with the evidence.
    pub message: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

impl Problem {
    pub(crate) fn error(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), fix: fix.into() }
    }

    pub(crate) fn warning(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, message: message.into(), fix: fix.into() }
    }

    pub(crate) fn info(message: impl Into<String>) -> Self {
        Self { severity: Severity::Info, message: message.into(), fix: String::new() }
    }

    pub(crate) fn from_error(error: &TrafficError) -> Self {
        Self::error(error.report(), error.hint().unwrap_or_default())
    }
}

/// One place that decides where the application's traffic goes.
///
/// Every call can be repeated, and can be dropped half-way: what it left behind is cleared up by the
/// next [`release`](Self::release). No call outlives its deadline by more than a quarter of a second,
/// the time allowed to undo what ran out of time.
#[async_trait]
pub trait Adapter: Send + Sync {
    /// What it is, for a person: `pgbouncer 127.0.0.1:6432/orders`.
    fn name(&self) -> String;

    /// Whether [`hold`](Self::hold) makes clients wait. Where it does not, hold is a no-op and only the
    /// database's fence keeps writes out.
    fn holds(&self) -> bool;

    /// The calls that `hold` makes, as a person would type them. No secrets.
    fn hold_calls(&self) -> Vec<String>;

    /// The calls that `release` makes, as a person would type them. No secrets.
    fn release_calls(&self, to: &Endpoint) -> Vec<String>;

    /// Looks where traffic goes now. Changes nothing.
    ///
    /// # Errors
    /// When it can't be found out.
    async fn observe(&self, endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError>;

    /// The preflight: everything that would keep the other calls from working. Changes nothing.
    async fn check(&self, endpoints: &[Endpoint; 2]) -> Vec<Problem>;

    /// Makes clients wait, and waits until no statement of theirs is under way.
    ///
    /// # Errors
    /// When that was not possible before `deadline`: clients then go on as before, unless the error is
    /// [`TrafficError::StillHeld`].
    async fn hold(&self, deadline: Instant) -> Result<(), TrafficError>;

    /// Points traffic at `to`, if it is not yet, and lets it go on. Where the adapter [`holds`](Self::holds),
    /// no client's statement is sent to the other side any more when it returns.
    ///
    /// # Errors
    /// When that was not possible before `deadline`. Traffic is never let go on to another side.
    async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError>;

    /// The same as [`Flags`], if it is: instances ask them, and so can be waited for.
    fn flags(&self) -> Option<&Flags> {
        None
    }
}

/// Builds the adapters of a plan, in its order. `folder` is the plan file's, which relative paths start from. Flags are
/// not among them: they want to know the route, see [`Flags::new`] and [`services`](crate::services).
///
/// # Errors
/// What the plan asks for and no adapter can do, such as an unknown placeholder.
pub fn build(plans: &[Traffic], folder: &Path) -> Result<Vec<Box<dyn Adapter>>, TrafficError> {
    plans.iter().filter_map(|plan| build_one(plan, folder).transpose()).collect()
}

fn build_one(plan: &Traffic, folder: &Path) -> Result<Option<Box<dyn Adapter>>, TrafficError> {
    Ok(Some(match plan {
        Traffic::PgBouncer { admin_url, database, config_file } => {
            Box::new(PgBouncer::new(admin_url.clone(), database.clone(), folder.join(config_file))?)
        }
        Traffic::File { path, format, variable, value } => Box::new(FileAdapter::new(folder.join(path), *format, variable.clone(), value)?),
        Traffic::Command { hold, release, observe, timeout } => Box::new(CommandAdapter::new(
            Commands { hold: hold.clone(), release: release.clone(), observe: observe.clone() },
            *timeout,
            folder.to_path_buf(),
        )),
        Traffic::Flags { .. } | Traffic::Service(_) => return Ok(None),
    }))
}

/// Waits for `work` until `deadline`.
pub(crate) async fn within<T>(
    deadline: Instant,
    adapter: &str,
    call: &str,
    work: impl Future<Output = Result<T, TrafficError>>,
) -> Result<T, TrafficError> {
    let begun = Instant::now();
    tokio::time::timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_| Err(TrafficError::TimedOut { adapter: adapter.to_owned(), call: call.to_owned(), waited: begun.elapsed() }))
}
