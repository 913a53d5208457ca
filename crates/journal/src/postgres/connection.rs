//! The way to the server: the URL, the connection, and what a session is set to.

use std::future::{Future, poll_fn};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::JournalError;

/// How long connecting may take, with all that belongs to it.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the network may be silent before the peer counts as gone.
const SILENCE: Duration = Duration::from_secs(15);

/// What every session is set to. `synchronous_commit = on` makes a returned commit survive a power loss whatever the
/// server's default is (and waits for synchronous standbys, where there are any). The time-outs bound what a stuck
/// session can hold up; the keep-alives free the locks of one whose host has vanished.
const SESSION: &str = "
    SET synchronous_commit = on;
    SET statement_timeout = '30s';
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '20s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 2;
    SET search_path = pg_catalog, pg_temp;
    SET client_min_messages = warning;
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout';";

/// How the server is reached.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Way {
    /// Reads the URL. Without `tls` nothing is encrypted, and a URL that asks for it is refused.
    pub(super) fn new(url: &str, tls: Option<ClientConfig>) -> Result<Self, JournalError> {
        let config = config(url)?;
        if config.get_ssl_mode() == SslMode::Require && tls.is_none() {
            return Err(JournalError::TlsUnavailable);
        }
        Ok(Self { config, tls: tls.map(MakeRustlsConnect::new) })
    }
}

/// Reads the URL. What the journal needs is set whatever the URL says of it.
fn config(url: &str) -> Result<Config, JournalError> {
    let mut config: Config = url.parse().map_err(|_| JournalError::Url)?;
    config.connect_timeout(CONNECT).tcp_user_timeout(SILENCE);
    config.keepalives(true).keepalives_idle(SILENCE / 3).keepalives_interval(SILENCE / 3).keepalives_retries(2);
    // A standby can be behind; only the primary knows the newest entry.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    if config.get_application_name().is_none() {
        config.application_name("cutover journal");
    }
    Ok(config)
}

/// Where the server is, without the password.
pub(super) fn location(config: &Config) -> String {
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let hosts: Vec<_> = config.get_hosts().iter().map(host).collect();
    let ports: Vec<_> = config.get_ports().iter().map(u16::to_string).collect();
    let port = if ports.is_empty() { "5432".to_owned() } else { ports.join(",") };
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgresql://{user}@{}:{port}/{database}", hosts.join(","))
}

/// Connects and sets the session up. `notified` is marked changed at every notification that the session gets.
pub(super) async fn connect(way: &Way, notified: Option<watch::Sender<()>>) -> Result<Client, JournalError> {
    let deadline = Deadline::after(CONNECT);
    let client = deadline.keep("connect to the journal's database", dial(way, notified)).await?;
    deadline.keep("set up the session with the journal's database", client.batch_execute(SESSION)).await?;
    Ok(client)
}

/// The one place that opens a connection, and so the one that knows of TLS.
async fn dial(way: &Way, notified: Option<watch::Sender<()>>) -> Result<Client, Error> {
    match &way.tls {
        None => {
            let (client, connection) = way.config.connect(NoTls).await?;
            tokio::spawn(attend(connection, notified));
            Ok(client)
        }
        Some(tls) => {
            let (client, connection) = way.config.connect(tls.clone()).await?;
            tokio::spawn(attend(connection, notified));
            Ok(client)
        }
    }
}

/// Moves the connection's messages until it ends, which it does once its client is dropped.
async fn attend<S, T>(mut connection: Connection<S, T>, notified: Option<watch::Sender<()>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match (message, &notified) {
            (Ok(AsyncMessage::Notification(_)), Some(notified)) => notified.send_modify(|()| ()),
            (Ok(_), _) => {}
            (Err(error), _) => {
                tracing::debug!(%error, "the connection to the journal's database ended");
                break;
            }
        }
    }
    // Whoever waits for notifications must look at the connection again.
    if let Some(notified) = notified {
        notified.send_modify(|()| ());
    }
}

/// The latest instant for a piece of work, and how long that was from its beginning.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    pub(super) fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }

    /// The one row that the query gives, if any.
    pub(super) async fn row(
        &self,
        doing: &'static str,
        client: &Client,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Option<Row>, JournalError> {
        self.keep(doing, client.query_typed_opt(sql, values)).await
    }

    /// The work's result, if it comes in time.
    pub(super) async fn keep<T>(&self, doing: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, JournalError> {
        match timeout_at(self.at, work).await {
            Ok(result) => result.map_err(|source| JournalError::Postgres { doing, source }),
            Err(_) => Err(JournalError::TimedOut { doing, limit: self.limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_holds_the_password() {
        let config = config("postgresql://anna:pass%20word@db.example:5433/journal?sslmode=disable").unwrap();
        assert_eq!(location(&config), "postgresql://anna@db.example:5433/journal");
        for broken in ["postgresql://anna:sesame@db:port/x", "user=anna password=open sesame", "postgresql://a:sesame@h/d?sslmode=verify"] {
            let error = super::config(broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
        }
    }

    #[test]
    fn required_tls_is_never_left_out() {
        assert!(matches!(Way::new("postgresql://h/d?sslmode=require", None), Err(JournalError::TlsUnavailable)));
        assert!(Way::new("postgresql://h/d?sslmode=prefer", None).is_ok());
        assert!(Way::new("postgresql://h/d", None).is_ok());
    }

    #[tokio::test]
    async fn i4_a_session_commits_durably_whatever_the_servers_default_is() {
        let install = cutover_testkit::installs().pop().expect("no PostgreSQL is installed");
        let weak = cutover_testkit::ClusterOptions::named("weak").not_durable();
        let weak = weak.set("synchronous_commit", "off").set("statement_timeout", 0).set("idle_session_timeout", "1h");
        let cluster = cutover_testkit::Cluster::start(&install, weak).await.unwrap();
        let client = connect(&Way::new(&cluster.url("postgres", "postgres"), None).unwrap(), None).await.unwrap();
        let mut shown = Vec::new();
        for name in
            ["synchronous_commit", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
        {
            let row = client.query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
            shown.push(row.get::<_, String>(0));
        }
        assert_eq!(shown, ["on", "30s", "5s", "20s", "0"]);
    }
}
