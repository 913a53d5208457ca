//! The servers' rows, asked of every backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover_journal::{JournalError, MOST_ACTOR_BYTES, MOST_BODY_BYTES, Position, Row};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::backend::{Backend, draft};

const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn a_server_s_row_reads_as_it_was_written_last(backend: Backend) {
    let (journal, other) = (backend.open("shop").await, backend.open("shop").await);
    assert_eq!(other.rows().await.unwrap(), []);
    journal.write_row("b", 1, 2_000, &json!({"epoch": 3})).await.unwrap();
    journal.write_row("a", u64::MAX, 0, &json!(["x", 0.1, "\0"])).await.unwrap();
    let rows = other.rows().await.unwrap();
    assert_eq!(said(&rows), [("a", u64::MAX, 0, &json!(["x", 0.1, "\0"])), ("b", 1, 2_000, &json!({"epoch": 3}))]);
    assert!(rows.iter().all(|row| row.written_at_ms > 1_700_000_000_000), "{rows:?}");

    for (beat, lease_ms) in [(2, 2_000), (3, 500), (4, 60_000)] {
        other.write_row("b", beat, lease_ms, &json!(beat)).await.unwrap();
        assert_eq!(said(&journal.rows().await.unwrap())[1], ("b", beat, lease_ms, &json!(beat)));
    }
    journal.remove_row("b").await.unwrap();
    journal.remove_row("b").await.unwrap();
    assert_eq!(other.rows().await.unwrap().len(), 1);
}

pub(crate) async fn rows_wake_at_once_and_give_up_in_time(backend: Backend) {
    let (writer, reader) = (backend.open("shop").await, backend.open("shop").await);
    let began = Instant::now();
    assert_eq!(reader.rows_changed(&[], Duration::from_millis(200)).await.unwrap(), []);
    assert!((200..2_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    for by in [Arc::clone(&reader), Arc::clone(&writer)] {
        let mut quickest = Duration::MAX;
        for beat in 0..20 {
            let known = by.rows().await.unwrap();
            let reader = Arc::clone(&by);
            let waiting = tokio::spawn(async move { (reader.rows_changed(&known, Duration::MAX).await, Instant::now()) });
            writer.write_row("a", beat, 1_000, &json!(null)).await.unwrap();
            let wrote = Instant::now();
            let (rows, woke) = tokio::time::timeout(SOON, waiting).await.expect("it never woke").unwrap();
            assert_eq!(said(&rows.unwrap()), [("a", beat, 1_000, &json!(null))]);
            quickest = quickest.min(woke.saturating_duration_since(wrote));
        }
        assert!(quickest < Duration::from_millis(10), "{quickest:?}");
        by.remove_row("a").await.unwrap();
        assert_eq!(by.rows_changed(&[], Duration::ZERO).await.unwrap(), []);
    }
}

pub(crate) async fn a_row_is_nobody_elses_and_no_part_of_the_chain(backend: Backend) {
    let (shop, bank) = (backend.open("shop").await, backend.open("bank").await);
    let mut writing = JoinSet::new();
    for server in 0..4 {
        let (journal, server) = (backend.open("shop").await, format!("server {server}"));
        writing.spawn(async move {
            for beat in 0..20 {
                journal.write_row(&server, beat, 1_000, &json!({})).await.unwrap();
            }
        });
    }
    let mut at = Position::ORIGIN;
    for n in 0..20 {
        at = shop.append_if(at, vec![draft(0, n)]).await.unwrap()[0].position();
    }
    writing.join_all().await;
    assert_eq!(shop.snapshot().await.unwrap().verify().unwrap().count, 20);
    let rows = shop.rows().await.unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.beat == 19), "{rows:?}");
    assert_eq!(bank.rows().await.unwrap(), []);
    bank.remove_row("server 1").await.unwrap();
    assert_eq!(shop.rows().await.unwrap().len(), 4);
}

pub(crate) async fn rows_of_a_day_ago_go_when_a_new_server_comes(backend: Backend) {
    let journal = backend.open("shop").await;
    for server in ["dead", "long dead"] {
        journal.write_row(server, 1, 1_000, &json!({})).await.unwrap();
    }
    let day_ms = 24 * 60 * 60 * 1_000;
    let age = |server: &str, by_ms: i64| format!("UPDATE {{server}} SET written_at_ms = written_at_ms - {by_ms} WHERE server = '{server}'");
    backend.execute(&age("dead", day_ms - 60_000)).await.unwrap();
    backend.execute(&age("long dead", day_ms)).await.unwrap();
    journal.write_row("dead", 1, 1_000, &json!({})).await.unwrap();
    assert_eq!(journal.rows().await.unwrap().len(), 2, "no new server");
    backend.execute(&age("dead", day_ms - 60_000)).await.unwrap();
    journal.write_row("new", 1, 1_000, &json!({})).await.unwrap();
    let rows = journal.rows().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.server.as_str()).collect::<Vec<_>>(), ["dead", "new"]);
}

pub(crate) async fn a_row_that_cant_be_stored_or_read_is_refused(backend: Backend) {
    let journal = backend.open("shop").await;
    let long = |bytes: usize| "x".repeat(bytes);
    let bad = [
        (String::new(), json!(1)),
        ("a\0".to_owned(), json!(1)),
        (long(MOST_ACTOR_BYTES + 1), json!(1)),
        (long(1), json!(long(MOST_BODY_BYTES))),
    ];
    for (server, body) in bad {
        let refused = journal.write_row(&server, 1, 1, &body).await;
        assert!(matches!(refused, Err(JournalError::Refused(_))), "{refused:?}");
    }
    journal.write_row(&long(MOST_ACTOR_BYTES), 1, u64::MAX, &json!(long(MOST_BODY_BYTES - 2))).await.unwrap();
    assert_eq!(journal.rows().await.unwrap().len(), 1);
    backend.execute("UPDATE {server} SET body = 'what?'").await.unwrap();
    let error = journal.rows().await.unwrap_err();
    assert!(matches!(error, JournalError::MalformedRow { .. }), "{error:?}");
}

pub(crate) async fn a_journal_of_the_first_format_gets_the_roster_and_keeps_its_entries(backend: Backend) {
    let old = backend.open("shop").await;
    old.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap();
    backend.set_format(1).await;
    backend.execute("DROP TABLE {server}").await.unwrap();
    let mut opening = JoinSet::new();
    for _ in 0..4 {
        let place = backend.place();
        opening.spawn(async move { crate::backend::open(&place, "shop").await });
    }
    for journal in opening.join_all().await {
        journal.write_row("a", 1, 1_000, &json!({})).await.unwrap();
    }
    assert_eq!(backend.open("shop").await.rows().await.unwrap().len(), 1);
    let at = Position { seq: 1, epoch: 1 };
    old.append_if(at, vec![draft(1, 2)]).await.expect("one who had it open goes on");
    assert_eq!(old.snapshot().await.unwrap().verify().unwrap().count, 2);
}

type Said<'a> = (&'a str, u64, u64, &'a Value);

/// The rows without their time.
fn said(rows: &[Row]) -> Vec<Said<'_>> {
    rows.iter().map(|row| (row.server.as_str(), row.beat, row.lease_ms, &row.body)).collect()
}
