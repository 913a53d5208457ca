//! The replication protocol's stream of changes, read by us: the client library knows no copy-both mode.
//!
//! Source: PostgreSQL's documentation, "Streaming Replication Protocol". Nothing is ever reported as flushed: a reader
//! that keeps nothing must not count as a synchronous standby.

use std::time::Duration;

use cutover_core::{Lsn, plan::DatabaseUrl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    time::{Instant, sleep, timeout},
};
use tokio_postgres::error::SqlState;

use crate::{
    PgError, PgResult,
    connect::{Purpose, Socket, connect_for_replication},
    names::{ident, literal},
};

/// How long the server may take to begin.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a session of an earlier driver may linger with a slot of this name.
const LINGER: Duration = Duration::from_secs(10);

/// Between two looks whether it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What goes to the buffer at once.
const BUFFER_BYTES: usize = 1 << 16;

/// Seconds from 1970 to PostgreSQL's own epoch.
const SECONDS_TO_2000: u64 = 946_684_800;

/// Copies a slot, for the session that runs this only.
pub(crate) fn sql_copy(slot: &str, copy: &str) -> String {
    format!("SELECT pg_catalog.pg_copy_logical_replication_slot({}, {}, true, 'pgoutput')", literal(slot), literal(copy))
}

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent<'a> {
    /// A message of the output plugin. All that committed before this position came before it.
    Message(Lsn, &'a [u8]),
    /// Everything that committed before this position was sent.
    Position(Lsn),
}

/// Which changes are read.
pub(crate) struct Source<'a> {
    pub(crate) url: &'a DatabaseUrl,
    pub(crate) application: &'a str,
    /// A slot of the same database: reading begins at its position, at once. Its own reader is not disturbed.
    pub(crate) like: &'a str,
    /// The temporary slot, which goes with the session.
    pub(crate) slot: &'a str,
    pub(crate) publication: &'a str,
}

/// A session that reads changes. Dropping it ends the session, and with it the slot.
pub(crate) struct Feed {
    socket: BufReader<Box<dyn Socket>>,
    body: Vec<u8>,
    /// The position that the server was told last.
    told: Lsn,
    newest: Lsn,
}

impl Feed {
    /// Copies the slot, for this session only, and begins to read. A slot made anew would have to wait for every
    /// transaction under way on the whole server; a copy does not.
    pub(crate) async fn start(source: &Source<'_>) -> PgResult<Self> {
        let doing = format!("making the temporary slot {}", source.slot);
        let copy = sql_copy(source.like, source.slot);
        let purpose = Purpose { replication: true, ..Purpose::new(source.application) };
        let until = Instant::now() + LINGER;
        let socket = loop {
            match connect_for_replication(source.url, &purpose, &doing, &copy).await {
                Err(error) if error.sql_state() == Some(&SqlState::DUPLICATE_OBJECT) && Instant::now() < until => sleep(LOOK_EVERY).await,
                other => break other?,
            }
        };
        let mut feed = Self { socket: BufReader::with_capacity(BUFFER_BYTES, socket), body: Vec::new(), told: Lsn(0), newest: Lsn(0) };
        let start = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})",
            ident(source.slot),
            literal(&ident(source.publication))
        );
        match timeout(START_LIMIT, feed.begin(&start)).await {
            Ok(begun) => begun.map(|()| feed),
            Err(_) => Err(PgError::TimedOut { doing: "beginning to read changes".to_owned(), limit: START_LIMIT }),
        }
    }

    async fn begin(&mut self, start: &str) -> PgResult<()> {
        let mut query = start.as_bytes().to_vec();
        query.push(0);
        self.send(b'Q', &query).await?;
        loop {
            match self.receive().await? {
                b'W' => return Ok(()),
                b'N' | b'S' => {}
                tag => return Err(unexpected(tag)),
            }
        }
    }

    /// The next thing that the server sends, for as long as that takes. It must not be given up in the middle.
    pub(crate) async fn next(&mut self) -> PgResult<Sent<'_>> {
        loop {
            match self.receive().await? {
                b'd' => {}
                b'N' | b'S' => continue,
                tag => return Err(unexpected(tag)),
            }
            let position = |at: usize| self.body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            match (self.body.first(), position(1)) {
                (Some(b'w'), Some(lsn)) if self.body.len() >= 25 => {
                    // The position of a message about a transaction is not always given.
                    self.newest = self.newest.max(Lsn(lsn));
                    return Ok(Sent::Message(self.newest, &self.body[25..]));
                }
                (Some(b'k'), Some(lsn)) => {
                    self.newest = self.newest.max(Lsn(lsn));
                    if self.newest > self.told || self.body.get(17) == Some(&1) {
                        self.tell().await?;
                    }
                    return Ok(Sent::Position(self.newest));
                }
                _ => return Err(PgError::Mismatch("the stream of changes holds what is none".to_owned())),
            }
        }
    }

    /// Says how far was read.
    async fn tell(&mut self) -> PgResult<()> {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let clock = since_1970.saturating_sub(Duration::from_secs(SECONDS_TO_2000)).as_micros();
        let mut status = vec![b'r'];
        for number in [self.newest.0, 0, 0, u64::try_from(clock).unwrap_or_default()] {
            status.extend_from_slice(&number.to_be_bytes());
        }
        status.push(0);
        self.told = self.newest;
        self.send(b'd', &status).await
    }

    async fn send(&mut self, tag: u8, body: &[u8]) -> PgResult<()> {
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        let mut message = vec![tag];
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        self.socket.write_all(&message).await.map_err(broken)?;
        self.socket.flush().await.map_err(broken)
    }

    /// Reads one message; the server's own words where it is an error.
    async fn receive(&mut self) -> PgResult<u8> {
        let tag = self.socket.read_u8().await.map_err(broken)?;
        let length = self.socket.read_u32().await.map_err(broken)?;
        let length = length.checked_sub(4).ok_or_else(|| unexpected(tag))?;
        self.body.resize(length as usize, 0);
        self.socket.read_exact(&mut self.body).await.map_err(broken)?;
        if tag == b'E' { Err(refused(&self.body)) } else { Ok(tag) }
    }
}

fn broken(source: std::io::Error) -> PgError {
    PgError::Io { doing: "reading changes".to_owned(), source }
}

fn unexpected(tag: u8) -> PgError {
    PgError::Mismatch(format!("the stream of changes ended with a message of kind `{}`", char::from(tag)))
}

/// Fields of an error: a letter and a text each.
fn refused(body: &[u8]) -> PgError {
    let fields: Vec<_> = body.split(|byte| *byte == 0).filter_map(|field| field.split_first()).collect();
    let field = |letter: u8| {
        let found = fields.iter().find(|(kind, _)| **kind == letter);
        found.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    };
    PgError::Refused { what: format!("reading changes: {} [{}]", field(b'M'), field(b'C')), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_in_the_servers_words() {
        let error = refused(b"SERROR\0C53400\0Mall replication slots are in use\0Hfree one\0\0");
        assert_eq!(error.to_string(), "reading changes: all replication slots are in use [53400]");
    }
}
