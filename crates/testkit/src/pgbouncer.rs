//! A throwaway `PgBouncer`.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    Cluster, Error, PgBouncerInstall, Result,
    connection::{connect, url},
    eventually,
    ports::free_port,
    process::Home,
};

/// How long it may take to start or to end.
const LIMIT: Duration = Duration::from_secs(20);

/// How often another port is tried when somebody took the one we found.
const PORTS_TRIED: usize = 10;

/// Since which version it can prepare statements over a change of server.
const PREPARES_SINCE: (u32, u32) = (1, 21);

/// Since which version it ends at once on SIGQUIT; before, it does so on SIGTERM.
const QUITS_SINCE: (u32, u32) = (1, 23);

/// One database that clients of the `PgBouncer` see: one line of its `[databases]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Db {
    /// What clients call it.
    pub name: String,
    /// The server's host.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// What the server calls it.
    pub dbname: String,
}

impl Db {
    /// A database of a cluster, under its own name.
    #[must_use]
    pub fn on(cluster: &Cluster, dbname: &str) -> Self {
        Self { name: dbname.to_owned(), host: cluster.host().to_owned(), port: cluster.port(), dbname: dbname.to_owned() }
    }
}

/// For how long a client keeps its server connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// For one transaction.
    #[default]
    Transaction,
    /// Until it goes.
    Session,
}

/// What to start.
#[derive(Clone)]
pub struct PgBouncerOptions {
    /// What errors call it.
    pub name: String,
    /// The databases it serves.
    pub databases: Vec<Db>,
    /// For how long a client keeps its server connection.
    pub pool_mode: PoolMode,
    /// Server connections per database and user.
    pub pool_size: u32,
    /// Who may connect, with the password to use towards the server (empty for none). The bouncer itself asks for none.
    pub users: Vec<(String, String)>,
    /// Added to the `[pgbouncer]` section after the defaults, so these win.
    pub settings: Vec<(String, String)>,
}

impl PgBouncerOptions {
    /// Transaction pooling of these databases, for the users `postgres`, `app_owner` and `app`.
    #[must_use]
    pub fn new(databases: Vec<Db>) -> Self {
        let users = ["postgres", "app_owner", "app"].map(|name| (name.to_owned(), String::new())).to_vec();
        Self { name: "pgbouncer".to_owned(), databases, pool_mode: PoolMode::default(), pool_size: 20, users, settings: Vec::new() }
    }
}

impl fmt::Debug for PgBouncerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBouncerOptions")
            .field("name", &self.name)
            .field("databases", &self.databases)
            .field("pool_mode", &self.pool_mode)
            .finish_non_exhaustive()
    }
}

/// A throwaway `PgBouncer` on 127.0.0.1, with the administrator `admin`. It is gone when this is dropped, and also
/// when the process that owns it is killed.
pub struct PgBouncer {
    install: PgBouncerInstall,
    options: PgBouncerOptions,
    port: AtomicU16,
    home: Home,
}

impl fmt::Debug for PgBouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBouncer").field("version", &self.install.version).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl PgBouncer {
    /// Starts one; it takes connections when this returns.
    ///
    /// # Errors
    /// The program fails, or is not ready within 20 s.
    pub async fn start(install: &PgBouncerInstall, options: PgBouncerOptions) -> Result<Self> {
        // It has no children and keeps nothing: a kill is as tidy as anything.
        let home = Home::create(&options.name, Signal::SIGKILL)?;
        let bouncer = Self { install: install.clone(), options, port: AtomicU16::new(0), home };
        bouncer.first_start().await?;
        Ok(bouncer)
    }

    /// What it runs.
    #[must_use]
    pub fn install(&self) -> &PgBouncerInstall {
        &self.install
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

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.home.pid()
    }

    /// A URL for applications.
    #[must_use]
    pub fn url(&self, user: &str, db: &str) -> String {
        url(user, None, self.port(), db)
    }

    /// The URL of its administration console.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url("admin", "pgbouncer")
    }

    /// Its `pgbouncer.ini`: one line `name = host=… port=… dbname=…` per database. Rewrite it, then `RELOAD`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("pgbouncer.ini")
    }

    /// Runs a command such as `PAUSE orders` in its administration console.
    ///
    /// # Errors
    /// It refuses, or can't be reached.
    pub async fn admin(&self, command: &str) -> Result<()> {
        let client = connect(&self.admin_url(), "connect to PgBouncer's console").await?;
        client.simple_query(command).await.map(drop).map_err(|source| Error::sql(format!("PgBouncer: {command}"), source))
    }

    /// Ends it at once; clients are broken off.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub async fn stop(&self) -> Result<()> {
        self.home.signal(if self.install.version >= QUITS_SINCE { Signal::SIGQUIT } else { Signal::SIGTERM })?;
        self.home.ended(LIMIT).await
    }

    /// Starts it again on the same port, with its configuration as it is now.
    ///
    /// # Errors
    /// It is running, or is not ready within 20 s.
    pub async fn start_again(&self) -> Result<()> {
        eventually(LIMIT, || async {
            match self.launch().await {
                Err(error) if self.port_was_taken() => Err(error),
                done => Ok(done),
            }
        })
        .await?
    }

    /// Kills it.
    ///
    /// # Errors
    /// It is not running.
    pub async fn crash(&self) -> Result<()> {
        self.home.kill().await
    }

    /// Stops it in its tracks: connections stay, nothing answers.
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

    fn configure(&self) -> Result<()> {
        let given = self.options.users.iter().map(|(name, password)| (name.as_str(), password.as_str()));
        let own = ["admin", "stats"].into_iter().filter(|own| !self.options.users.iter().any(|(name, _)| name == own));
        let users = given.chain(own.map(|own| (own, "")));
        let quote = |text: &str| text.replace('"', "\"\"");
        let list: String = users.map(|(name, password)| format!("\"{}\" \"{}\"\n", quote(name), quote(password))).collect();
        self.home.write("users.txt", &list)?;
        self.home.write("pgbouncer.ini", &self.ini()).map(drop)
    }

    fn ini(&self) -> String {
        let mut ini = "[databases]\n".to_owned();
        for Db { name, host, port, dbname } in &self.options.databases {
            let _ = writeln!(ini, "{name} = host={host} port={port} dbname={dbname}");
        }
        ini.push_str("\n[pgbouncer]\n");
        let given = self.options.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in self.settings().into_iter().chain(given) {
            let _ = writeln!(ini, "{name} = {value}");
        }
        ini
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let pool_mode = match self.options.pool_mode {
            PoolMode::Transaction => "transaction",
            PoolMode::Session => "session",
        };
        let mut settings = vec![
            ("listen_addr", "127.0.0.1".to_owned()),
            ("listen_port", self.port().to_string()),
            // Without a socket it gives up if the port is taken, instead of going on with the socket alone.
            ("unix_socket_dir", String::new()),
            ("auth_type", "trust".to_owned()),
            ("auth_file", self.home.path().join("users.txt").display().to_string()),
            ("admin_users", "admin".to_owned()),
            ("stats_users", "stats".to_owned()),
            ("pool_mode", pool_mode.to_owned()),
            ("default_pool_size", self.options.pool_size.to_string()),
            ("max_client_conn", "1000".to_owned()),
            ("ignore_startup_parameters", "extra_float_digits,options".to_owned()),
            // The default, 15 s, is far longer than a server of ours needs to come back.
            ("server_login_retry", "1".to_owned()),
        ];
        if self.install.version >= PREPARES_SINCE {
            settings.push(("max_prepared_statements", "100".to_owned()));
        }
        settings
    }

    async fn launch(&self) -> Result<()> {
        if self.home.pid().is_some() {
            return Err(Error::Usage(format!("{} is running already", self.home.name())));
        }
        let mut command = self.home.command(&self.install.program);
        command.arg(self.config_file());
        self.home.spawn(command)?;
        let ready = eventually(LIMIT, || async { self.home.log_of_this_run().contains("process up") });
        tokio::select! {
            ready = ready => ready.map_err(|_| self.home.error("was not ready in time")),
            ended = self.home.ended(2 * LIMIT) => { ended?; Err(self.home.error("ended while starting")) }
        }
    }

    fn port_was_taken(&self) -> bool {
        let log = self.home.log_of_this_run();
        self.home.pid().is_none()
            && (log.contains("cannot listen") || log.contains("Address already in use") || log.contains("nowhere to listen"))
    }
}
