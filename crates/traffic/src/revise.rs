//! Rewriting a file atomically, keeping its earlier revisions beside it.
//!
//! The file is replaced by a rename within its folder, so a reader sees either the whole old text or
//! the whole new one. Owner, group and mode stay; a symbolic link stays one. Before that the old text
//! is kept as `NAME.cutover-1`, what was there before becomes `NAME.cutover-2`, and so on up to
//! [`KEPT_REVISIONS`]; `mv NAME.cutover-1 NAME` goes back. Access lists and extended attributes are not carried over.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::{FileFault, TrafficError};

/// How many earlier revisions of a file are kept beside it.
pub const KEPT_REVISIONS: u32 = 5;

/// Two adapters may change two variables of one file at the same time.
static REWRITING: Mutex<()> = Mutex::new(());

/// Replaces the text of `path` by what `change` makes of it; `None` leaves it. Tells whether it was
/// replaced. Blocks.
pub(crate) fn edit(path: &Path, change: impl FnOnce(&str) -> Result<Option<String>, FileFault>) -> Result<bool, TrafficError> {
    let _guard = REWRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = &real(path)?;
    let old = read(path)?;
    let new = change(&old).map_err(|source| TrafficError::File { path: path.clone(), source })?;
    let Some(new) = new.filter(|new| *new != old) else { return Ok(false) };
    let metadata = fs::metadata(path).map_err(io_error("looking at", path))?;
    keep(path, &old, &metadata)?;
    replace(path, &new, &metadata)?;
    Ok(true)
}

/// The text of `path`. Blocks.
pub(crate) fn read(path: &Path) -> Result<String, TrafficError> {
    let bytes = fs::read(path).map_err(io_error("reading", path))?;
    String::from_utf8(bytes).map_err(|_| TrafficError::File { path: path.to_owned(), source: FileFault::NotText })
}

/// Whether [`edit`] would be allowed to replace `path`. Blocks.
pub(crate) fn writable(path: &Path) -> Result<(), TrafficError> {
    let path = &real(path)?;
    let metadata = fs::metadata(path).map_err(io_error("looking at", path))?;
    access(folder(path), AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|errno| io_error("writing into the folder of", path)(errno.into()))?;
    if !geteuid().is_root() && geteuid().as_raw() != metadata.uid() {
        let reason = io::Error::new(ErrorKind::PermissionDenied, "it belongs to somebody else, and would change its owner");
        return Err(io_error("replacing", path)(reason));
    }
    Ok(())
}

/// Where a symbolic link leads: the link itself must stay.
fn real(path: &Path) -> Result<PathBuf, TrafficError> {
    fs::canonicalize(path).map_err(io_error("finding", path))
}

fn keep(path: &Path, old: &str, metadata: &Metadata) -> Result<(), TrafficError> {
    for number in (1..KEPT_REVISIONS).rev() {
        let (from, to) = (revision(path, number), revision(path, number + 1));
        match fs::rename(&from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error("keeping a revision of", path)(error)),
            _ => {}
        }
    }
    replace(&revision(path, 1), old, metadata)
}

fn revision(path: &Path, number: u32) -> PathBuf {
    beside(path, "", &format!(".cutover-{number}"))
}

/// Puts `text` in the place of `path`, durably.
fn replace(path: &Path, text: &str, like: &Metadata) -> Result<(), TrafficError> {
    let new = beside(path, ".", ".cutover-new");
    let written = write(&new, text, like).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&new);
    }
    written.and_then(|()| File::open(folder(path))?.sync_all()).map_err(io_error("replacing", path))
}

fn write(new: &Path, text: &str, like: &Metadata) -> io::Result<()> {
    // What a crash left behind.
    if let Err(error) = fs::remove_file(new)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(text.as_bytes())?;
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    file.sync_all()
}

fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrafficError {
    let path = path.to_owned();
    move |source| TrafficError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set(path: &Path, text: &str) -> bool {
        edit(path, |_| Ok(Some(text.to_owned()))).unwrap()
    }

    #[test]
    fn b12_every_earlier_revision_is_kept_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.env");
        fs::write(&path, "0").unwrap();
        for text in ["1", "2", "3", "4", "5", "6", "7"] {
            assert!(set(&path, text));
        }
        assert!(!set(&path, "7"), "nothing changed, so nothing is written");
        let kept: Vec<_> = (1..=5).map(|n| fs::read_to_string(revision(&path, n)).unwrap()).collect();
        assert_eq!(kept, ["6", "5", "4", "3", "2"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6, "the file and its five revisions");
    }

    #[test]
    fn mode_owner_and_link_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real.ini"), folder.path().join("link.ini"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        let root = geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
        assert!(set(&link, "new"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        for file in [&path, &revision(&path, 1)] {
            let metadata = fs::metadata(file).unwrap();
            assert_eq!(metadata.mode() & 0o7777, 0o640);
            assert!(!root || (metadata.uid(), metadata.gid()) == (65534, 65534));
        }
    }

    #[test]
    fn what_a_crash_left_behind_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.env");
        fs::write(&path, "old").unwrap();
        fs::write(folder.path().join(".app.env.cutover-new"), "half").unwrap();
        assert!(set(&path, "new"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_refused_change_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.env");
        fs::write(&path, "old").unwrap();
        let error = edit(&path, |_| Err(FileFault::Missing("X".to_owned()))).unwrap_err();
        assert!(error.report().ends_with("it does not set `X`"), "{}", error.report());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn changes_of_one_file_at_once_do_not_lose_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("count");
        fs::write(&path, "").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| edit(&path, |old| Ok(Some(format!("{old}x")))).unwrap());
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "xxxxxxxx");
    }
}
