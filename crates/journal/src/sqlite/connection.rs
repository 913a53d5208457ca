//! Opening the file so that what it says was appended stays appended.
//!
//! The file is kept in WAL mode with `synchronous = FULL`: a commit is one write and one fsync of the WAL, and is
//! there after a power loss. The rollback journal (`DELETE`) needs three fsyncs, and even with `FULL` the last commit
//! can be undone by a power loss, since the removal of the rollback journal isn't synced (only `EXTRA` does that).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};

use crate::error::JournalError;

/// How long a writer waits for one in another process.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// The format this program reads and writes, in `user_version`.
const FORMAT: i64 = 2;
/// "CUTJ" in `application_id`: tells a journal from other SQLite files.
const APPLICATION: i64 = 0x4355_544A;
/// What each format adds to the one before it.
const FORMATS: [&str; 2] = [include_str!("schema.sql"), include_str!("roster.sql")];
/// Between two tries to enter WAL mode, for which SQLite doesn't wait by itself.
const RETRY: Duration = Duration::from_millis(5);

/// Opens the journal's file, and creates it if need be. Returns the file's true path too.
pub(super) fn open_or_create(path: &Path) -> Result<(Connection, PathBuf), JournalError> {
    let path = in_real_folder(path)?;
    let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
    // Before anything is changed: somebody else's database must stay as it is.
    let found = begin(&mut connection, TransactionBehavior::Deferred).and_then(|looking| format(&looking, &path))?;
    make_durable(&connection)?;
    if found < FORMATS.len() {
        upgrade(&mut connection, &path)?;
        sync_folder(&path)?;
    }
    let path = path.canonicalize().map_err(|source| JournalError::File { doing: "find", path, source })?;
    sync_recovered(&connection, &path)?;
    Ok((connection, path))
}

/// Opens the file again after a commit failed, and makes sure that what is read from now on is final: the failed
/// commit may lie in the WAL whole, and come to life when the file is next recovered. Emptying the WAL rules that out.
pub(super) fn open_settled(path: &Path) -> Result<Connection, JournalError> {
    let connection = connect(path, OpenFlags::empty())?;
    make_durable(&connection)?;
    sync_recovered(&connection, path)?;
    let doing = "settle the journal after a failed commit";
    let failed = |source| JournalError::Sqlite { doing, source };
    let blocked: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(failed)?;
    if blocked { Err(JournalError::TimedOut { doing, limit: BUSY }) } else { Ok(connection) }
}

/// Opens the file for the servers' rows. A commit is not synced by itself, only before it is moved into place, and with
/// the next append; see [`crate::roster`] for why that does. What others appended is not less durable for it.
pub(super) fn open_quick(path: &Path) -> Result<Connection, JournalError> {
    let connection = connect(path, OpenFlags::empty())?;
    make_durable(&connection)?;
    let eased = connection.execute_batch("PRAGMA synchronous = NORMAL");
    eased.map_err(|source| JournalError::Sqlite { doing: "open the journal's file for the servers' rows", source })?;
    Ok(connection)
}

/// The path with a folder that exists and has no links, so that the same file always has the same locks beside it.
fn in_real_folder(path: &Path) -> Result<PathBuf, JournalError> {
    let file = |path: &Path, source| JournalError::File { doing: "use", path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(|source| file(path, source))?;
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(file(path, std::io::ErrorKind::IsADirectory.into()));
    };
    let folder = folder.canonicalize().map_err(|source| file(folder, source))?;
    Ok(folder.join(name))
}

fn connect(path: &Path, more: OpenFlags) -> Result<Connection, JournalError> {
    let failed = |source| JournalError::Sqlite { doing: "open the journal's file", source };
    // Without SQLITE_OPEN_URI: a path is a path, whatever it begins with.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // Else each value that is bound has the statement planned anew, and whoever follows looks hundreds of times a second.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    Ok(connection)
}

fn begin(connection: &mut Connection, behavior: TransactionBehavior) -> Result<Transaction<'_>, JournalError> {
    let begun = connection.transaction_with_behavior(behavior);
    begun.map_err(|source| JournalError::Sqlite { doing: "begin to open the journal", source })
}

/// The format of the file, 0 if it holds nothing yet; an error if it holds anything but a journal of a known format.
/// In a transaction, since another process may be creating the journal between one look and the next.
fn format(connection: &Transaction<'_>, path: &Path) -> Result<usize, JournalError> {
    let location = || path.display().to_string();
    let read = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => JournalError::Foreign { location: location() },
        _ => JournalError::Sqlite { doing: "read the journal's format", source },
    };
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(read);
    match (number("PRAGMA application_id")?, number("PRAGMA user_version")?) {
        (APPLICATION, found @ 1..=FORMAT) => Ok(usize::try_from(found).unwrap_or_default()),
        (APPLICATION, found) => Err(JournalError::Format { location: location(), found, known: FORMAT }),
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => Ok(0),
        _ => Err(JournalError::Foreign { location: location() }),
    }
}

fn make_durable(connection: &Connection) -> Result<(), JournalError> {
    let mode = enter_wal_mode(connection)?;
    if mode != "wal" {
        return Err(JournalError::NotDurable { mode });
    }
    // On macOS only F_FULLFSYNC reaches the disk; elsewhere these two change nothing.
    let pragmas = "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; PRAGMA trusted_schema = OFF;";
    connection.execute_batch(pragmas).map_err(|source| JournalError::Sqlite { doing: "make the journal durable", source })
}

/// Several processes may open a new file at once, and SQLite doesn't wait for the change of mode.
fn enter_wal_mode(connection: &Connection) -> Result<String, JournalError> {
    let deadline = Instant::now() + BUSY;
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(source) if is_busy(&source) && Instant::now() < deadline => thread::sleep(RETRY),
            other => return other.map_err(|source| JournalError::Sqlite { doing: "set the journal's mode", source }),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Adds what the file's format lacks, in one transaction.
fn upgrade(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let failed = |source| JournalError::Sqlite { doing: "create the journal", source };
    let transaction = begin(connection, TransactionBehavior::Immediate)?;
    // Another process may have been first.
    let found = format(&transaction, path)?;
    for schema in &FORMATS[found..] {
        transaction.execute_batch(schema).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", FORMAT).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// A new file is there after a power loss only once its folder is synced.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let Some(folder) = path.parent().filter(|_| cfg!(unix)) else { return Ok(()) };
    let failed = |source| JournalError::File { doing: "sync", path: folder.to_owned(), source };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// A process that was killed between writing a commit and syncing it leaves a commit that the next one recovers and
/// takes for durable. So the WAL is synced before anybody acts on what it says. SQLite keeps its locks on the other
/// files, so opening and closing this one beside it does no harm.
fn sync_recovered(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    // The first read recovers.
    let read = connection.query_row("SELECT count(*) FROM head", [], |row| row.get::<_, i64>(0));
    read.map_err(|source| JournalError::Sqlite { doing: "recover the journal", source })?;
    let wal = beside(path, "-wal");
    if !fs::exists(&wal).unwrap_or(true) {
        return Ok(());
    }
    let synced = File::options().read(true).write(true).open(&wal).and_then(|file| file.sync_all());
    match synced {
        // The last other process to close the file has just put all of it into place and removed the WAL.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| JournalError::File { doing: "sync", path: wal, source }),
    }
}

/// A file beside the journal's.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i4_a_commit_is_synced_however_the_file_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (created, real) = open_or_create(&path).unwrap();
        let (opened, _) = open_or_create(&path).unwrap();
        for connection in [created, opened, open_settled(&real).unwrap()] {
            let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            // 2 is FULL: every commit syncs the WAL.
            assert_eq!([pragma("synchronous"), pragma("fullfsync"), pragma("checkpoint_fullfsync")], [2, 1, 1]);
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            assert_eq!(pragma("busy_timeout"), 5_000);
        }
        let quick = open_quick(&real).unwrap();
        // 1 is NORMAL: what a checkpoint moves is synced, a commit is not. 0 would put the entries at risk too.
        assert_eq!(quick.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap(), 1);
    }

    #[test]
    fn a_statement_that_is_kept_is_planned_once_whatever_is_bound() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, _) = open_or_create(&folder.path().join("journal.db")).unwrap();
        let after = "SELECT seq FROM entry WHERE plan = ?1 AND seq > ?2 ORDER BY seq";
        for seq in 0..10 {
            let found = connection.prepare_cached(after).and_then(|mut after| after.exists(rusqlite::params!["shop", seq]));
            assert!(!found.unwrap());
        }
        let after = connection.prepare_cached(after).unwrap();
        assert_eq!(after.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    #[test]
    fn i4_settling_empties_the_wal_or_says_that_it_cant() {
        let folder = tempfile::tempdir().unwrap();
        let (mut connection, path) = open_or_create(&folder.path().join("journal.db")).unwrap();
        connection.execute("INSERT INTO head VALUES ('a', 1, 1, zeroblob(32))", []).unwrap();
        let reading = connection.transaction().unwrap();
        reading.query_row("SELECT count(*) FROM head", [], |row| row.get::<_, i64>(0)).unwrap();
        let error = open_settled(&path).unwrap_err();
        assert!(matches!(error, JournalError::TimedOut { .. }), "{error:?}");
        drop(reading);
        let _settled = open_settled(&path).unwrap();
        assert_eq!(beside(&path, "-wal").metadata().unwrap().len(), 0);
    }
}
