//! A throwaway PostgreSQL server.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use crate::{
    Auth, ClusterOptions, Error, Install, Result,
    connection::{connect, url},
    eventually,
    ports::free_port,
    process::{Home, locale},
    servers,
};

/// How long a server may take to be ready: it may have to recover first, beside many others on a small machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long an orderly shutdown may take, with its checkpoint and its standbys.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How often another port is tried when somebody took the one we found.
const PORTS_TRIED: usize = 10;

/// How to shut a server down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Break the sessions off, write a checkpoint, let the standbys and subscribers have everything.
    Fast,
    /// Break off everything; the next start recovers as if after a crash.
    Immediate,
}

/// A throwaway PostgreSQL server on 127.0.0.1, with the superuser `postgres`. It is gone when this is dropped, and
/// also when the process that owns it is killed.
pub struct Cluster {
    install: Install,
    options: ClusterOptions,
    port: AtomicU16,
    home: Home,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.home.name())
            .field("major", &self.install.major)
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes a new server and starts it; it takes connections when this returns.
    ///
    /// # Errors
    /// The programs fail, or the server is not ready within a minute.
    pub async fn start(install: &Install, options: ClusterOptions) -> Result<Self> {
        let cluster = Self::create(install, options)?;
        cluster.initdb().await?;
        cluster.first_start().await?;
        Ok(cluster)
    }

    /// A physical standby of this server, streaming from it: same data, same system identifier, read-only until
    /// [`Self::promote`].
    ///
    /// # Errors
    /// As [`Self::start`]; [`Error::NotInstalled`] without a `pg_basebackup` that is new enough.
    pub async fn basebackup_standby(&self, name: &str) -> Result<Self> {
        let standby = Self::create(&self.install, ClusterOptions { name: name.to_owned(), ..self.options.clone() })?;
        let mut command = standby.home.command(&self.basebackup_program()?);
        command.arg("-D").arg(standby.data()).args(["-R", "-X", "stream", "-c", "fast", "-d", &self.url("postgres", "replication")]);
        standby.home.run(command).await?;
        standby.first_start().await?;
        Ok(standby)
    }

    /// Makes a standby a primary, and waits until it is one.
    ///
    /// # Errors
    /// It is none, or can't be reached.
    pub async fn promote(&self) -> Result<()> {
        let client = self.client("postgres").await?;
        client.batch_execute("SELECT pg_promote(true, 60)").await.map_err(|source| Error::sql("promote", source))
    }

    /// What it runs.
    #[must_use]
    pub fn install(&self) -> &Install {
        &self.install
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.home.name()
    }

    /// Its port; it keeps it over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Its host: loopback.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The postmaster's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.home.pid()
    }

    /// A connection URL. It carries the password for the superuser of a cluster with passwords, so don't print it.
    #[must_use]
    pub fn url(&self, user: &str, db: &str) -> String {
        match &self.options.auth {
            Auth::Scram { password } if user == "postgres" => self.url_with_password(user, password, db),
            _ => url(user, None, self.port(), db),
        }
    }

    /// A connection URL with a password in it.
    #[must_use]
    pub fn url_with_password(&self, user: &str, password: &str, db: &str) -> String {
        url(user, Some(password), self.port(), db)
    }

    /// A session as the superuser.
    ///
    /// # Errors
    /// The server refuses, or does not answer within 10 s.
    pub async fn client(&self, db: &str) -> Result<Client> {
        connect(&self.url("postgres", db), &format!("connect to {}", self.home.name())).await
    }

    /// Executes statements as the superuser, in a session of their own.
    ///
    /// # Errors
    /// The server's.
    pub async fn execute(&self, db: &str, sql: &str) -> Result<()> {
        let client = self.client(db).await?;
        client.batch_execute(sql).await.map_err(|source| Error::sql(format!("execute on {}: {sql}", self.home.name()), source))
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// The server's.
    pub async fn create_database(&self, db: &str) -> Result<()> {
        self.execute("postgres", &format!("CREATE DATABASE \"{}\"", db.replace('"', "\"\""))).await
    }

    /// Shuts it down and waits for its end.
    ///
    /// # Errors
    /// It is not running, or still is after a minute.
    pub async fn stop(&self, how: Stop) -> Result<()> {
        self.home.signal(match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        })?;
        self.home.ended(STOP_LIMIT).await
    }

    /// Starts it again on the same port, with the same data.
    ///
    /// # Errors
    /// It is running, or is not ready within a minute.
    pub async fn start_again(&self) -> Result<()> {
        eventually(START_LIMIT, || async {
            match self.launch().await {
                // Somebody sits on our port, probably in passing.
                Err(error) if self.port_was_taken() => Err(error),
                done => Ok(done),
            }
        })
        .await?
    }

    /// Kills the server and every process of it at once, as a loss of power would; nothing is flushed or said.
    ///
    /// # Errors
    /// It is not running.
    pub async fn crash(&self) -> Result<()> {
        self.home.kill().await
    }

    /// Stops all its processes in their tracks. Connections stay, nothing answers.
    ///
    /// # Errors
    /// It is not running.
    pub async fn pause(&self) -> Result<()> {
        self.home.freeze().await.map(drop)
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// It is not running.
    pub fn unpause(&self) -> Result<()> {
        self.home.thaw()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.home.log_tail()
    }

    /// Its whole log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.home.log_file()
    }

    fn create(install: &Install, options: ClusterOptions) -> Result<Self> {
        let home = Home::create(&options.name, Signal::SIGQUIT)?;
        Ok(Self { install: install.clone(), options, port: AtomicU16::new(0), home })
    }

    async fn initdb(&self) -> Result<()> {
        let mut command = self.home.command(&self.install.bin.join("initdb"));
        command.arg("-D").arg(self.data()).args(["-U", "postgres", "-E", "UTF8", "--no-sync", &format!("--locale={}", locale())]);
        match &self.options.auth {
            Auth::Trust => command.args(["-A", "trust"]),
            Auth::Scram { password } => command.args(["-A", "scram-sha-256", "--pwfile"]).arg(self.home.write("password", password)?),
        };
        command.args(&self.options.initdb);
        self.home.run(command).await
    }

    /// Starts it on a port of its own.
    async fn first_start(&self) -> Result<()> {
        let mut tried = 0;
        loop {
            tried += 1;
            self.port.store(free_port()?, Ordering::Relaxed);
            self.configure()?;
            match self.launch().await {
                Err(_) if tried < PORTS_TRIED && self.port_was_taken() => {}
                done => return done,
            }
        }
    }

    /// Writes our settings after initdb's, or after those that a standby took over from its primary: the last wins.
    fn configure(&self) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let doing = || format!("write {}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io(doing(), source))?;
        let rest = text.split_once(OURS).map_or(text.as_str(), |(before, _)| before);
        std::fs::write(&path, format!("{rest}{OURS}{}", self.options.conf(self.port(), self.home.path())))
            .map_err(|source| Error::io(doing(), source))
    }

    /// Starts the server and waits until it takes connections.
    async fn launch(&self) -> Result<()> {
        if self.home.pid().is_some() {
            return Err(Error::Usage(format!("{} is running already", self.home.name())));
        }
        let mut command = self.home.command(&self.install.bin.join("postgres"));
        command.arg("-D").arg(self.data());
        self.home.spawn(command)?;
        let ready = eventually(START_LIMIT, || async {
            let pid = self.home.pid()?;
            ready(&self.data(), pid).then_some(())
        });
        tokio::select! {
            ready = ready => ready.map_err(|_| self.home.error("was not ready within a minute")),
            ended = self.home.ended(2 * START_LIMIT) => { ended?; Err(self.home.error("ended while starting")) }
        }
    }

    fn port_was_taken(&self) -> bool {
        self.home.pid().is_none() && self.home.log_of_this_run().contains("could not create any TCP/IP sockets")
    }

    /// A newer one can read an older server; the other way round it refuses.
    fn basebackup_program(&self) -> Result<PathBuf> {
        let folders = [Some(self.install.bin.clone()), servers::tools_for(self.install.major), servers::newest_tools().ok()];
        let programs = folders.into_iter().flatten().map(|folder| folder.join("pg_basebackup"));
        programs.into_iter().find(|program| program.is_file()).ok_or_else(|| Error::NotInstalled {
            what: format!("pg_basebackup {} or newer", self.install.major),
            hint: "run scripts/servers.sh".to_owned(),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.home.pid().is_none() {
            remove_shared_memory(&self.data());
        }
    }
}

/// Above our settings in postgresql.conf.
const OURS: &str = "\n# set by the testkit\n";

/// Whether the postmaster with this pid says it takes connections. (The file may be a dead predecessor's.)
fn ready(data: &Path, pid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.first().is_some_and(|line| *line == pid.to_string()) && lines.get(7).is_some_and(|line| *line == "ready")
}

/// A server that was killed leaves its small System V segment, of which a machine has few.
fn remove_shared_memory(data: &Path) {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { return };
    if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        // The system may have no such program, or the segment be gone: then there is nothing to do.
        let _ = std::process::Command::new("ipcrm")
            .args(["-m", id])
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
    }
}
