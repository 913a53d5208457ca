//! The right to drive, as a lock of the operating system on a file beside the journal.
//!
//! The lock belongs to the open file, so the system frees it however the process ends. The lock file stays where it
//! is: removing it would let two processes lock two files of the same name. Who holds it is said in a second file,
//! since some systems don't let others read a locked one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::connection::beside;
use super::store::{identity, identity_of};
use crate::error::{DriveError, JournalError};
use crate::hold::Hold;

/// How long a holder may take to give its name after it locked.
const NAMING: Duration = Duration::from_millis(500);
/// Between two looks for the name.
const LOOK: Duration = Duration::from_millis(10);

/// The lock, until it is dropped.
pub(crate) struct FileHold {
    lock: File,
    lock_path: PathBuf,
    holder_path: PathBuf,
}

/// What the holder file says.
#[derive(Serialize, Deserialize)]
struct Holder {
    by: String,
    since_ms: i64,
}

/// Takes the lock of the plan, or says who has it.
pub(super) fn take(journal: &Path, plan: &str, by: String) -> Result<Hold, DriveError> {
    let lock_path = beside(journal, &format!(".{plan}.lock"));
    let holder_path = beside(journal, &format!(".{plan}.holder"));
    let Some(lock) = try_lock(&lock_path)? else {
        return Err(held(&holder_path));
    };
    let hold = FileHold { lock, lock_path, holder_path };
    if !hold.is_held() {
        return Err(JournalError::Replaced { path: hold.lock_path.clone() }.into());
    }
    let holder = Holder { by, since_ms: now_ms() };
    write_holder(&hold.holder_path, &holder)?;
    Ok(Hold::by_file(holder.by, holder.since_ms, hold))
}

impl FileHold {
    /// Whether the path still means the file that is locked. Removed or replaced, others could lock a new one.
    pub(crate) fn is_held(&self) -> bool {
        let locked = self.lock.metadata().ok().map(|metadata| identity_of(&metadata));
        locked.is_some() && locked == identity(&self.lock_path).ok()
    }
}

impl Drop for FileHold {
    fn drop(&mut self) {
        // The name goes first: afterwards it could be the next holder's.
        if let Err(error) = fs::remove_file(&self.holder_path) {
            tracing::debug!(path = %self.holder_path.display(), %error, "could not remove the holder file");
        }
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(path = %self.lock_path.display(), %error, "could not unlock; closing the file does it");
        }
    }
}

fn try_lock(path: &Path) -> Result<Option<File>, JournalError> {
    let failed = |source| JournalError::File { doing: "lock", path: path.to_owned(), source };
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Who has the lock. The name can be missing for a moment, as it is written after locking.
fn held(holder_path: &Path) -> DriveError {
    let deadline = Instant::now() + NAMING;
    loop {
        if let Ok(Holder { by, since_ms }) = read_holder(holder_path) {
            return DriveError::Held { by, since_ms };
        }
        if Instant::now() >= deadline {
            return DriveError::Held { by: "a process that gave no name".to_owned(), since_ms: now_ms() };
        }
        thread::sleep(LOOK);
    }
}

fn read_holder(path: &Path) -> io::Result<Holder> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Written aside and moved into place, so that nobody reads half of it.
fn write_holder(path: &Path, holder: &Holder) -> Result<(), JournalError> {
    let aside = beside(path, ".new");
    let written = || fs::write(&aside, serde_json::to_vec(holder)?).and_then(|()| fs::rename(&aside, path));
    written().map_err(|source| JournalError::File { doing: "write", path: path.to_owned(), source })
}

/// Milliseconds since 1970 (UTC), for the message only.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
