//! Reading and appending, on a thread that may block.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, named_params, params};

use super::connection;
use crate::chain::{self, Checked, Head};
use crate::entry::{Entry, Position, Row, Snapshot};
use crate::error::{AppendError, JournalError};
use crate::hash::Hash;
use crate::limits::stored;

/// The connection, or nothing: then the file is opened anew before it is used.
pub(super) type Slot = Option<Connection>;

/// A way to open the file.
type Open = fn(&Path) -> Result<Connection, JournalError>;

/// The file and what is kept in it.
pub(super) struct Store {
    path: PathBuf,
    plan: String,
    /// What the path meant when it was opened.
    identity: Option<Identity>,
}

impl Store {
    pub(super) fn open(path: &Path, plan: String) -> Result<(Self, Connection), JournalError> {
        let (connection, path) = connection::open_or_create(path)?;
        let identity = identity(&path)?;
        Ok((Self { path, plan, identity }, connection))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn plan(&self) -> &str {
        &self.plan
    }

    pub(super) fn append(&self, slot: &mut Slot, expected: Position, drafts: Vec<Checked>) -> Result<Vec<Entry>, AppendError> {
        let connection = self.connected(slot).map_err(failed)?;
        // Taking the write lock first makes the comparison and the appending one: nobody can come between.
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|source| failed(cant("begin to append to the journal")(source)))?;
        let head = read_head(&transaction, &self.plan).map_err(failed)?;
        let newest = read_newest(&transaction, &self.plan).map_err(failed)?;
        chain::check_head(expected, head, newest)?;
        let entries = chain::chain(&self.plan, head, drafts);
        write(&transaction, &entries).map_err(|source| failed(cant("append to the journal")(source)))?;
        if let Err(source) = transaction.commit() {
            *slot = None;
            return Err(AppendError::Unknown { source: cant("commit to the journal")(source) });
        }
        Ok(entries)
    }

    pub(super) fn snapshot(&self, slot: &mut Slot) -> Result<Snapshot, JournalError> {
        let connection = self.connected(slot)?;
        // One transaction, so that the head is of the same instant as the entries.
        let transaction = connection.transaction().map_err(cant("read the journal"))?;
        let entries = read_after(&transaction, &self.plan, 0)?;
        let head = read_head(&transaction, &self.plan)?.published();
        Ok(Snapshot { entries, head })
    }

    pub(super) fn head(&self, slot: &mut Slot) -> Result<Option<(Position, Hash)>, JournalError> {
        Ok(read_head(self.connected(slot)?, &self.plan)?.published())
    }

    pub(super) fn after(&self, slot: &mut Slot, seq: u64) -> Result<Vec<Entry>, JournalError> {
        // No entry has a number that SQLite can't hold.
        let Ok(seq) = i64::try_from(seq) else { return Ok(Vec::new()) };
        read_after(self.connected(slot)?, &self.plan, seq)
    }

    pub(super) fn connected<'a>(&self, slot: &'a mut Slot) -> Result<&'a mut Connection, JournalError> {
        self.connected_by(slot, connection::open_settled)
    }

    pub(super) fn connected_by<'a>(&self, slot: &'a mut Slot, open: Open) -> Result<&'a mut Connection, JournalError> {
        // Appending to a file that was removed would succeed, and be lost.
        if identity(&self.path)? != self.identity {
            return Err(JournalError::Replaced { path: self.path.clone() });
        }
        match slot {
            Some(connection) => Ok(connection),
            None => Ok(slot.insert(open(&self.path)?)),
        }
    }
}

fn read_head(connection: &Connection, plan: &str) -> Result<Head, JournalError> {
    let sql = "SELECT seq, epoch, hash FROM head WHERE plan = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(cant("read the journal's head"))?;
    let found = statement.query_row([plan], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?))).optional();
    match found.map_err(cant("read the journal's head"))? {
        Some((seq, epoch, hash)) => Head::from_row(seq, epoch, &hash),
        None => Ok(Head::ORIGIN),
    }
}

/// Hash of the newest entry, whatever the head says.
fn read_newest(connection: &Connection, plan: &str) -> Result<Option<Hash>, JournalError> {
    let sql = "SELECT seq, hash FROM entry WHERE plan = ?1 ORDER BY seq DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(cant("read the newest entry"))?;
    let found = statement.query_row([plan], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?))).optional();
    let newest = found.map_err(cant("read the newest entry"))?;
    newest.map(|(seq, hash)| Hash::from_stored(seq, &hash)).transpose()
}

fn read_after(connection: &Connection, plan: &str, seq: i64) -> Result<Vec<Entry>, JournalError> {
    let sql = "SELECT seq, epoch, at_ms, actor, reason, kind, body, prev_hash, hash FROM entry WHERE plan = ?1 AND seq > ?2 ORDER BY seq";
    let mut statement = connection.prepare_cached(sql).map_err(cant("read the journal"))?;
    let rows = statement.query_map(params![plan, seq], read_row).map_err(cant("read the journal"))?;
    rows.map(|row| row.map_err(cant("read the journal"))?.into_entry(plan)).collect()
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        seq: row.get(0)?,
        epoch: row.get(1)?,
        at_ms: row.get(2)?,
        actor: row.get(3)?,
        reason: row.get(4)?,
        kind: row.get(5)?,
        body_text: row.get(6)?,
        prev_hash: row.get(7)?,
        hash: row.get(8)?,
    })
}

fn write(transaction: &Transaction<'_>, entries: &[Entry]) -> rusqlite::Result<()> {
    for entry in entries {
        write_entry(transaction, entry)?;
    }
    entries.last().map_or(Ok(()), |last| write_head(transaction, last))
}

fn write_entry(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let sql = "INSERT INTO entry (plan, seq, epoch, at_ms, actor, reason, kind, body, prev_hash, hash) \
               VALUES (:plan, :seq, :epoch, :at_ms, :actor, :reason, :kind, :body, :prev_hash, :hash)";
    transaction.prepare_cached(sql)?.execute(named_params! {
        ":plan": entry.plan,
        ":seq": stored(entry.seq),
        ":epoch": stored(entry.epoch),
        ":at_ms": entry.at_ms,
        ":actor": entry.actor,
        ":reason": entry.reason,
        ":kind": entry.kind,
        ":body": entry.body_text,
        ":prev_hash": entry.prev_hash.as_bytes(),
        ":hash": entry.hash.as_bytes(),
    })?;
    Ok(())
}

fn write_head(transaction: &Transaction<'_>, newest: &Entry) -> rusqlite::Result<()> {
    let sql = "INSERT INTO head (plan, seq, epoch, hash) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (plan) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, hash = excluded.hash";
    let values = params![newest.plan, stored(newest.seq), stored(newest.epoch), newest.hash.as_bytes()];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn failed(source: JournalError) -> AppendError {
    AppendError::Failed { source }
}

pub(super) fn cant(doing: &'static str) -> impl Fn(rusqlite::Error) -> JournalError {
    move |source| JournalError::Sqlite { doing, source }
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// Which file the path means now; nothing where the system can't say.
pub(super) fn identity(path: &Path) -> Result<Option<Identity>, JournalError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(identity_of(&metadata)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(JournalError::Replaced { path: path.to_owned() }),
        Err(source) => Err(JournalError::File { doing: "find", path: path.to_owned(), source }),
    }
}

#[cfg(unix)]
pub(super) fn identity_of(metadata: &fs::Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(super) fn identity_of(_: &fs::Metadata) -> Option<Identity> {
    None
}
