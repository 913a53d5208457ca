//! A PgBouncer in front of the databases.
//!
//! | | transaction and statement pooling | session pooling |
//! |---|---|---|
//! | hold | `PAUSE`; given up with `RESUME` where it does not come back | nothing: PAUSE would wait for clients to leave |
//! | release | rewrite the entry, `RELOAD`, verify, `RESUME` | `KILL`, rewrite the entry, `RELOAD`, verify, `RESUME` |
//!
//! - Of the configuration file only host, port and dbname of the one entry are rewritten ([`ini`]).
//! - `RESUME` is never sent before `SHOW DATABASES` shows the address that was asked for: older versions
//!   answer `RELOAD` even where they could not read their file.
//! - A release that finds clients running and the address another one holds them first, so that no
//!   statement begun before it goes on at the old server; where they don't stop in half of the time, `KILL` ends them.
//! - A statement that `KILL` cuts off may still run to its end at the old server: that is why the database's fence,
//!   and not the pooler, decides what is written.
//! - A console that is dropped amid `PAUSE` leaves the database paused, so giving up is a `RESUME` of its own.
//! - `KILL` drops all connections of the database and leaves it paused; new clients wait for the `RESUME`.
//! - A PgBouncer that was restarted comes back unpaused: all state is observed, none remembered.

mod check;
mod console;
mod ini;
mod status;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use cutover_core::plan::{DatabaseUrl, SslMode};
use tokio::time::Instant;

use self::{
    console::{Console, name, says},
    ini::{Backend, Entry},
    status::{Pooling, Status, leads_to, points_at},
};
use crate::{Adapter, Endpoint, Observation, Problem, TrafficError, adapter::within};

/// How long looking may take.
const LOOK: Duration = Duration::from_secs(5);

/// How long a PAUSE is waited for at first; a time-out doubles it.
const FIRST_SHARE: Duration = Duration::from_millis(250);

/// How long clients go on between two attempts to pause, so that none of them starves.
const BREATH: Duration = Duration::from_millis(50);

/// How long giving up may take past the deadline.
const UNDO: Duration = Duration::from_millis(250);

/// Adapter for one database of a PgBouncer.
pub(crate) struct PgBouncer {
    label: String,
    admin: DatabaseUrl,
    database: String,
    config_file: PathBuf,
    /// Whether clients were last seen with session pooling.
    session: AtomicBool,
}

impl PgBouncer {
    pub(crate) fn new(admin: DatabaseUrl, database: String, config_file: PathBuf) -> Result<Self, TrafficError> {
        let label = format!("pgbouncer {}/{database}", admin.address());
        if !matches!(admin.ssl_mode, SslMode::Disable | SslMode::Prefer) {
            let reason = format!("its admin console is reached without TLS, and admin_url asks for sslmode={}", admin.ssl_mode.name());
            return Err(TrafficError::Plan { adapter: label, reason });
        }
        // Only a first guess, before PgBouncer itself was asked; `check` reports what is wrong with the file.
        let session = ini::find(&config_file, &database).is_ok_and(|entry| Pooling::of(entry.pool_mode.as_deref()) == Pooling::Session);
        Ok(Self { label, admin, database, config_file, session: AtomicBool::new(session) })
    }

    async fn console(&self, deadline: Instant) -> Result<Console, TrafficError> {
        Console::open(&self.label, &self.admin, deadline).await
    }

    async fn status(&self, console: &Console, deadline: Instant) -> Result<Status, TrafficError> {
        let status = Status::of(console, &self.database, deadline).await?.ok_or_else(|| TrafficError::Unexpected {
            adapter: self.label.clone(),
            call: "SHOW DATABASES".to_owned(),
            missing: format!("the database `{}`", self.database),
        })?;
        self.session.store(status.pooling == Pooling::Session, Ordering::Relaxed);
        Ok(status)
    }

    async fn look(&self, deadline: Instant) -> Result<Status, TrafficError> {
        self.status(&self.console(deadline).await?, deadline).await
    }

    async fn entry(&self, deadline: Instant) -> Result<Entry, TrafficError> {
        let (config, database) = (self.config_file.clone(), self.database.clone());
        self.blocking("read its configuration file", deadline, move || ini::find(&config, &database)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: &str,
        deadline: Instant,
        work: impl FnOnce() -> Result<T, TrafficError> + Send + 'static,
    ) -> Result<T, TrafficError> {
        let path = self.config_file.clone();
        within(deadline, &self.label, call, async move {
            let broken = |error: tokio::task::JoinError| TrafficError::Io { doing: "working on", path, source: error.into() };
            tokio::task::spawn_blocking(work).await.map_err(broken)?
        })
        .await
    }

    /// Pauses, with more and more time, until `deadline`. Clients go on when it fails.
    async fn pause(&self, deadline: Instant) -> Result<(), TrafficError> {
        let mut share = FIRST_SHARE;
        loop {
            // The connection is made first: what could not be asked for needs no undoing.
            let console = self.console(deadline).await?;
            let Err(error) = self.pause_once(&console, deadline.min(Instant::now() + share)).await else { return Ok(()) };
            drop(console);
            if matches!(error, TrafficError::PausedByOthers { .. }) {
                return Err(error);
            }
            self.give_up(deadline).await?;
            if !error.is_time_out() || Instant::now() + BREATH >= deadline {
                return Err(error);
            }
            tracing::info!(adapter = self.label, waited_ms = share.as_millis(), "PAUSE given up, will be tried again");
            tokio::time::sleep(BREATH).await;
            share *= 2;
        }
    }

    async fn pause_once(&self, console: &Console, deadline: Instant) -> Result<(), TrafficError> {
        let call = format!("PAUSE {}", name(&self.database));
        match console.wait(&call, deadline).await {
            // Pausing a paused database again is fine; this is the answer of a pooler paused as a whole.
            Err(error) if says(&error, "already suspended/paused") => Err(TrafficError::PausedByOthers { adapter: self.label.clone() }),
            other => other.map(drop),
        }
    }

    /// Lets clients go on, from another connection than the one whose PAUSE did not come back.
    async fn give_up(&self, deadline: Instant) -> Result<(), TrafficError> {
        let deadline = deadline.max(Instant::now() + UNDO);
        let resume = async { self.resume(&self.console(deadline).await?, deadline).await };
        resume.await.map_err(|source| TrafficError::StillHeld { adapter: self.label.clone(), source: Box::new(source) })
    }

    /// Lets clients go on, whether or not they were held.
    async fn resume(&self, console: &Console, deadline: Instant) -> Result<(), TrafficError> {
        match console.call(&format!("RESUME {}", name(&self.database)), deadline).await {
            Err(error) if !says(&error, "is not paused") => Err(error),
            _ => Ok(()),
        }
    }

    /// Sees to it that no server connection is in use, and none can be until RESUME.
    async fn stop(&self, console: &Console, status: &Status, deadline: Instant) -> Result<(), TrafficError> {
        if status.held() {
            return Ok(());
        }
        if status.pooling == Pooling::Transaction {
            let half = deadline.saturating_duration_since(Instant::now()) / 2;
            let waiting = self.console(deadline).await?;
            match self.pause_once(&waiting, Instant::now() + half).await {
                Err(error) if error.is_time_out() => {
                    tracing::warn!(adapter = self.label, "clients don't stop, so their connections are dropped");
                }
                other => return other,
            }
        }
        console.call(&format!("KILL {}", name(&self.database)), deadline).await.map(drop)
    }

    /// Points the configuration file and the running PgBouncer at `wanted`.
    async fn repoint(&self, console: &Console, entry: Entry, wanted: Backend, deadline: Instant) -> Result<(), TrafficError> {
        let (path, database, new) = (entry.path.clone(), self.database.clone(), wanted.clone());
        self.blocking("rewrite its configuration file", deadline, move || ini::rewrite(&entry, &database, &new)).await?;
        console.call("RELOAD", deadline).await?;
        let shown = self.status(console, deadline).await?.backend;
        if shown == wanted {
            return Ok(());
        }
        Err(TrafficError::NotApplied { adapter: self.label.clone(), path, wanted: wanted.to_string(), shown: shown.to_string() })
    }
}

#[async_trait]
impl Adapter for PgBouncer {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn holds(&self) -> bool {
        !self.session.load(Ordering::Relaxed)
    }

    fn hold_calls(&self) -> Vec<String> {
        if self.holds() { vec![format!("PAUSE {}", name(&self.database))] } else { Vec::new() }
    }

    fn release_calls(&self, to: &Endpoint) -> Vec<String> {
        let database = name(&self.database);
        let kill = (!self.holds()).then(|| format!("KILL {database}"));
        let rest = [
            format!("set {} of `{}` in {}", backend_of(to), self.database, self.config_file.display()),
            "RELOAD".to_owned(),
            "SHOW DATABASES -- must show that address".to_owned(),
            format!("RESUME {database}"),
        ];
        kill.into_iter().chain(rest).collect()
    }

    async fn observe(&self, endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError> {
        let status = self.look(Instant::now() + LOOK).await?;
        Ok(Observation {
            points_at: points_at(&status.backend, endpoints).await,
            held: status.held(),
            clients: Some(status.clients),
            detail: status.describe(),
        })
    }

    async fn check(&self, endpoints: &[Endpoint; 2]) -> Vec<Problem> {
        check::check(self, endpoints, Instant::now() + LOOK).await
    }

    async fn hold(&self, deadline: Instant) -> Result<(), TrafficError> {
        let status = self.look(deadline).await?;
        if status.pooling == Pooling::Session || status.held() {
            return Ok(());
        }
        self.pause(deadline).await
    }

    async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        let console = self.console(deadline).await?;
        let status = self.status(&console, deadline).await?;
        let entry = self.entry(deadline).await?;
        let there = leads_to(&status.backend, to).await;
        if !there || status.stale > 0 {
            self.stop(&console, &status, deadline).await?;
        }
        if !there || entry.backend != status.backend {
            self.repoint(&console, entry, backend_of(to), deadline).await?;
        }
        self.resume(&console, deadline).await?;
        // A PAUSE that was given up may have been on its way still.
        if self.status(&console, deadline).await?.paused { self.resume(&console, deadline).await } else { Ok(()) }
    }
}

/// What the entry must say to lead to `endpoint`.
fn backend_of(endpoint: &Endpoint) -> Backend {
    let url = &endpoint.url;
    Backend { host: Some(url.host.clone()), port: url.port, dbname: url.database.clone() }
}
