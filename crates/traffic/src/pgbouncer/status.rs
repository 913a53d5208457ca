//! What a PgBouncer says of one of its databases.

use std::time::Duration;

use cutover_core::Side;
use tokio::time::Instant;

use super::{
    console::{Console, Row},
    ini::Backend,
};
use crate::{Endpoint, TrafficError};

/// How long the address of a name may take: a pause may be waiting for it. A name that takes longer
/// counts as another host, and is then written anew.
const LOOK_UP: Duration = Duration::from_millis(250);

/// How server connections are given to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// For as long as the client stays: PAUSE would wait for it to leave.
    Session,
    /// For a transaction or a statement.
    Transaction,
}

impl Pooling {
    /// The pooling that a `pool_mode` stands for; PgBouncer's default is session.
    pub(super) fn of(pool_mode: Option<&str>) -> Self {
        match pool_mode {
            Some(mode) if mode.eq_ignore_ascii_case("transaction") || mode.eq_ignore_ascii_case("statement") => Self::Transaction,
            _ => Self::Session,
        }
    }
}

/// A database of a PgBouncer at one moment.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// Where new server connections go.
    pub(super) backend: Backend,
    pub(super) paused: bool,
    pub(super) disabled: bool,
    /// Server connections that a client's statement or a test query is on.
    pub(super) busy: u32,
    /// Server connections of an earlier configuration that are not closed yet.
    pub(super) stale: u32,
    pub(super) clients: u32,
    pub(super) pooling: Pooling,
}

impl Status {
    /// Asks for it; absent where PgBouncer does not know the database.
    pub(super) async fn of(console: &Console, database: &str, deadline: Instant) -> Result<Option<Self>, TrafficError> {
        let databases = console.call("SHOW DATABASES", deadline).await?;
        let Some(row) = find(&databases, "name", database)? else { return Ok(None) };
        let pools = console.call("SHOW POOLS", deadline).await?;
        let servers = console.call("SHOW SERVERS", deadline).await?;
        let mut status = Self {
            backend: backend(row)?,
            paused: row.number("paused")? > 0,
            disabled: row.number("disabled")? > 0,
            busy: 0,
            stale: 0,
            clients: 0,
            pooling: Pooling::Session,
        };
        let mut in_use = Vec::new();
        for pool in pools.iter().filter(|pool| pool.text("database").is_ok_and(|name| name == database)) {
            let clients = pool.number("cl_active")? + pool.number("cl_waiting")?;
            status.clients += clients;
            status.busy += pool.number("sv_active")? + pool.number("sv_tested")?;
            status.busy += pool.number_if_any("sv_active_cancel") + pool.number_if_any("sv_being_canceled");
            if clients > 0 {
                in_use.push(Pooling::of(Some(pool.text("pool_mode")?)));
            }
        }
        for server in servers.iter().filter(|server| server.text("database").is_ok_and(|name| name == database)) {
            status.stale += u32::from(server.number("close_needed")? > 0);
        }
        status.pooling = pooling(console, row.text("pool_mode")?, &in_use, deadline).await?;
        Ok(Some(status))
    }

    /// Whether clients wait and nothing of theirs is under way.
    pub(super) fn held(&self) -> bool {
        self.paused && self.busy == 0
    }

    /// The same for a person.
    pub(super) fn describe(&self) -> String {
        let pooling = match self.pooling {
            Pooling::Session => "session pooling",
            Pooling::Transaction => "transaction pooling",
        };
        let state = match (self.paused, self.busy) {
            (true, 0) => "paused".to_owned(),
            (true, busy) => format!("pausing, {busy} server connections still in use"),
            (false, _) => "running".to_owned(),
        };
        let stale = if self.stale > 0 { format!(", {} of an earlier configuration", self.stale) } else { String::new() };
        format!("{}, {state}{stale}, {pooling}", self.backend)
    }
}

/// The value of a setting in SHOW CONFIG.
pub(super) async fn setting(console: &Console, key: &str, deadline: Instant) -> Result<Option<String>, TrafficError> {
    let rows = console.call("SHOW CONFIG", deadline).await?;
    find(&rows, "key", key)?.map(|row| row.text("value").map(ToOwned::to_owned)).transpose()
}

/// The side that `backend` leads to. Names that differ may still be one address.
pub(super) async fn points_at(backend: &Backend, endpoints: &[Endpoint; 2]) -> Option<Side> {
    for endpoint in endpoints {
        if leads_to(backend, endpoint).await {
            return Some(endpoint.side);
        }
    }
    None
}

/// Whether `backend` leads to `endpoint`.
pub(super) async fn leads_to(backend: &Backend, endpoint: &Endpoint) -> bool {
    let url = &endpoint.url;
    let host = backend.host.as_deref().unwrap_or_default();
    backend.port == url.port
        && backend.dbname == url.database
        && (host.eq_ignore_ascii_case(&url.host) || same_address(host, &url.host).await)
}

async fn same_address(one: &str, other: &str) -> bool {
    if one.is_empty() || one.starts_with('/') || other.starts_with('/') {
        return false;
    }
    let (one, other) = tokio::join!(addresses(one), addresses(other));
    one.iter().any(|address| other.contains(address))
}

async fn addresses(host: &str) -> Vec<std::net::IpAddr> {
    let lookup = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((host, 0)));
    match lookup.await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => Vec::new(),
    }
}

/// What clients have now; where there are none, what they would get.
async fn pooling(console: &Console, of_database: &str, in_use: &[Pooling], deadline: Instant) -> Result<Pooling, TrafficError> {
    if !in_use.is_empty() {
        let session = in_use.contains(&Pooling::Session);
        return Ok(if session { Pooling::Session } else { Pooling::Transaction });
    }
    if !of_database.is_empty() {
        return Ok(Pooling::of(Some(of_database)));
    }
    Ok(Pooling::of(setting(console, "pool_mode", deadline).await?.as_deref()))
}

fn backend(row: &Row) -> Result<Backend, TrafficError> {
    let port = row.text("port")?.parse().unwrap_or_default();
    let host = Some(row.text("host")?.to_owned()).filter(|host| !host.is_empty());
    Ok(Backend { host, port, dbname: row.text("database")?.to_owned() })
}

fn find<'a>(rows: &'a [Row], column: &str, value: &str) -> Result<Option<&'a Row>, TrafficError> {
    for row in rows {
        if row.text(column)? == value {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
