//! What the file adds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cutover_journal::{AppendError, Journal, JournalError, Position, open_sqlite};
use rusqlite::Connection;
use tempfile::tempdir;
use tokio::task::JoinSet;

use crate::backend::{Backend, draft, path_in};
use crate::child::Process;

#[tokio::test]
async fn i4_a_commit_that_failed_is_unknown_until_read_and_final_then() {
    let folder = tempdir().unwrap();
    let path = path_in(&folder);
    // 1 MiB: some fifteen appends.
    let mut process = Process::start_with_file_limit("fill", &path.display().to_string(), 2048);
    let said = process.says().await.unwrap();
    let [how, acknowledged, read] = said.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (acknowledged, read): (usize, usize) = (acknowledged.parse().unwrap(), read.parse().unwrap());
    assert_eq!(how, "unknown");
    assert!(acknowledged > 3, "{said}");
    assert!((acknowledged..=acknowledged + 1).contains(&read), "{said}");
    // Nothing that was read as not there comes back, and nothing that was there goes.
    let journal = open_sqlite(&path, "shop").await.unwrap();
    assert_eq!(journal.snapshot().await.unwrap().verify().unwrap().count, read);
    journal.append_if(Position { seq: read as u64, epoch: 0 }, vec![draft(0, 0)]).await.unwrap();
}

#[tokio::test]
async fn a_full_store_fails_for_certain() {
    let backend = Backend::sqlite();
    let journal = backend.open("shop").await;
    journal.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap();
    backend.refuse_kind("counted").await;
    let failed = journal.append_if(Position { seq: 1, epoch: 1 }, vec![draft(1, 2)]).await;
    assert!(matches!(failed, Err(AppendError::Failed { source: JournalError::Sqlite { .. } })), "{failed:?}");
}

#[tokio::test]
async fn a_writer_in_another_process_is_waited_for_but_not_for_ever() {
    let folder = tempdir().unwrap();
    let journal = open_sqlite(&path_in(&folder), "shop").await.unwrap();
    let other = Connection::open(path_in(&folder)).unwrap();

    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let failed = journal.append_if(Position::ORIGIN, vec![draft(1, 1)]).await;
    assert!(matches!(failed, Err(AppendError::Failed { .. })), "{failed:?}");
    assert!((4..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(journal.load().await.unwrap(), [], "reading needs not wait");

    let appending = tokio::spawn(async move { journal.append_if(Position::ORIGIN, vec![draft(1, 1)]).await });
    let patience = tokio::time::timeout(Duration::from_millis(200), async {
        while !appending.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert!(patience.await.is_err(), "it appended beside another writer");
    other.execute_batch("COMMIT").unwrap();
    appending.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_is_created_once_by_many() {
    let folder = tempdir().unwrap();
    let mut opening = JoinSet::new();
    for n in 0..8 {
        let path = path_in(&folder);
        opening.spawn(async move {
            let journal = open_sqlite(&path, &format!("plan-{n}")).await.unwrap();
            journal.append_if(Position::ORIGIN, vec![draft(1, n)]).await.unwrap();
        });
    }
    opening.join_all().await;
    let journal = open_sqlite(&path_in(&folder), "plan-3").await.unwrap();
    assert_eq!(journal.snapshot().await.unwrap().verify().unwrap().count, 1);
}

#[tokio::test]
async fn another_format_is_refused_and_left_alone() {
    let folder = tempdir().unwrap();
    open_sqlite(&path_in(&folder), "shop").await.unwrap();
    let set = |version: i64| Connection::open(path_in(&folder)).unwrap().pragma_update(None, "user_version", version).unwrap();
    for other in [3, 0] {
        set(other);
        let error = open_sqlite(&path_in(&folder), "shop").await.unwrap_err();
        assert!(matches!(error, JournalError::Format { found, known: 2, .. } if found == other), "{error:?}");
        assert!(error.to_string().contains("use the program that wrote it"), "{error}");
    }
    set(2);
    open_sqlite(&path_in(&folder), "shop").await.unwrap();
}

#[tokio::test]
async fn somebody_elses_file_is_refused_and_left_alone() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE orders (id INTEGER)").unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a database, but long enough to be looked at as one ".repeat(20)).unwrap();
    for path in [&database, &text] {
        let before = fs::read(path).unwrap();
        let error = open_sqlite(path, "shop").await.unwrap_err();
        assert!(matches!(error, JournalError::Foreign { .. }), "{error:?}");
        assert_eq!(fs::read(path).unwrap(), before);
    }
}

#[tokio::test]
async fn bad_places_and_names_give_clear_errors() {
    let folder = tempdir().unwrap();
    let missing = folder.path().join("missing/journal.db");
    let error = open_sqlite(&missing, "shop").await.unwrap_err();
    assert!(error.to_string().ends_with("/missing"), "{error}");
    assert!(open_sqlite(folder.path(), "shop").await.is_err());
    assert!(open_sqlite(Path::new(""), "shop").await.is_err());
    let error = open_sqlite(&path_in(&folder), "../shop").await.unwrap_err();
    assert!(matches!(error, JournalError::Refused(_)), "{error:?}");
    assert!(!path_in(&folder).exists());
}

#[tokio::test]
async fn i4_a_file_that_was_removed_takes_no_more_appends() {
    let backend = Backend::sqlite();
    let journal = backend.open("shop").await;
    let at = journal.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap()[0].position();
    fs::remove_file(backend.place()).unwrap();
    for _ in 0..2 {
        let failed = journal.append_if(at, vec![draft(1, 2)]).await;
        assert!(matches!(failed, Err(AppendError::Failed { source: JournalError::Replaced { .. } })), "{failed:?}");
        assert!(journal.load().await.is_err());
        // And so with another in its place.
        fs::write(backend.place(), "").unwrap();
    }
}

#[tokio::test]
async fn i9_a_lock_whose_file_is_gone_is_not_held() {
    let backend = Backend::sqlite();
    let journal = backend.open("shop").await;
    let hold = journal.drive("anna@here").await.unwrap();
    fs::remove_file(format!("{}.shop.lock", backend.place())).unwrap();
    assert!(!hold.is_held().await);
}

#[cfg(unix)]
#[tokio::test]
async fn i9_a_link_to_the_file_has_the_same_lock() {
    let folder = tempdir().unwrap();
    let journal = open_sqlite(&path_in(&folder), "shop").await.unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(path_in(&folder), &link).unwrap();
    let linked = open_sqlite(&link, "shop").await.unwrap();
    let _hold = journal.drive("anna@here").await.unwrap();
    assert!(linked.drive("carl@there").await.is_err());
    assert_eq!(linked.location(), journal.location());
}
