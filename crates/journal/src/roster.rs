//! The roster: what each server that gives leases has last written down, beside the journal and no part of it.
//!
//! A row may be lost, and is then written again, except in one way: while leases that a server gave are alive, a driver
//! must never find *no* row of it, because it would take nobody for everybody. An older row does no harm: it says that
//! less was acknowledged, and the driver waits. So a server's first row, and one that allows longer leases, is as
//! durable as an entry. In SQLite the rows after it are not synced; in PostgreSQL all are, as an unlogged table would be
//! empty after a crash, and a failover must not lose it either.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::JournalError;
use crate::limits::{self, Invalid, stored};

/// A row that is older is cleared away when a new server comes: its leases, of a minute at most, are long over.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// What one server has last written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name, which no other server of the plan has.
    pub server: String,
    /// Changes each time that it writes.
    pub beat: u64,
    /// No lease that it has given lasts longer than this after it wrote. Unit: milliseconds.
    pub lease_ms: u64,
    /// What it says, opaque to the journal.
    pub body: Value,
    /// When it wrote, in milliseconds since 1970 (UTC) by the clock of the store. For people: no decision rests on it.
    pub written_at_ms: i64,
}

/// A row on its way into a store.
pub(crate) struct Draft {
    pub(crate) server: String,
    pub(crate) beat: i64,
    pub(crate) lease_ms: i64,
    pub(crate) body_text: String,
}

/// A row of a store, before it is known to be one.
pub(crate) struct Stored {
    pub(crate) server: String,
    pub(crate) beat: i64,
    pub(crate) lease_ms: i64,
    pub(crate) body_text: String,
    pub(crate) written_at_ms: i64,
}

/// Checks a row before a store is bothered with it.
pub(crate) fn check(server: &str, beat: u64, lease_ms: u64, body: &Value) -> Result<Draft, Invalid> {
    limits::server(server)?;
    let body_text = body.to_string();
    limits::body(&body_text)?;
    // A beat is only ever compared, so it is kept bit by bit.
    Ok(Draft { server: server.to_owned(), beat: beat.cast_signed(), lease_ms: stored(lease_ms), body_text })
}

impl Stored {
    pub(crate) fn into_row(self) -> Result<Row, JournalError> {
        let malformed = |what| JournalError::MalformedRow { server: self.server.clone(), what };
        Ok(Row {
            beat: self.beat.cast_unsigned(),
            lease_ms: u64::try_from(self.lease_ms).map_err(|_| malformed("its lease is negative"))?,
            body: serde_json::from_str(&self.body_text).map_err(|_| malformed("its body is not JSON"))?,
            written_at_ms: self.written_at_ms,
            server: self.server,
        })
    }
}

/// Milliseconds since 1970 (UTC) by this host's clock, before which a row is stale.
pub(crate) fn stale_before_ms(now_ms: i64) -> i64 {
    now_ms.saturating_sub(millis(STALE))
}

/// Milliseconds since 1970 (UTC) by this host's clock.
pub(crate) fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
