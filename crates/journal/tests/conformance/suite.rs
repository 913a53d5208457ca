//! What every backend promises.

use std::time::{Duration, Instant};

use cutover_journal::{
    AppendError, Draft, DriveError, Entry, Hash, Invalid, MOST_ACTOR_BYTES, MOST_BODY_BYTES, MOST_DRAFTS, MOST_KIND_BYTES,
    MOST_REASON_BYTES, Position,
};
use cutover_testkit::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::backend::{Backend, draft};
use crate::child::Process;

const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn c35_an_entry_has_time_user_and_reason_and_reads_back_as_it_was(backend: Backend) {
    let journal = backend.open("shop").await;
    assert_eq!(journal.head().await.unwrap(), None);
    assert_eq!(journal.load().await.unwrap(), []);

    let first = journal.append_if(Position::ORIGIN, vec![draft(1, 1), draft(2, 2)]).await.unwrap();
    let second = journal.append_if(Position { seq: 2, epoch: 2 }, vec![draft(2, 3)]).await.unwrap();

    let reopened = backend.open("shop").await;
    let entries = reopened.load().await.unwrap();
    assert_eq!(entries, [first, second].concat());
    for (entry, n) in entries.iter().zip(1..) {
        let wrote = draft(entry.epoch, n);
        assert_eq!((entry.seq, entry.at_ms, &entry.actor, &entry.reason), (n, wrote.at_ms, &wrote.actor, &wrote.reason));
        assert_eq!((&entry.kind, &entry.body), (&wrote.kind, &wrote.body));
    }
    assert_eq!(entries[0].prev_hash, Hash::ORIGIN);
    assert_eq!(entries[1].prev_hash, entries[0].hash);
    let last = (entries[2].position(), entries[2].hash);
    assert_eq!(reopened.head().await.unwrap(), Some(last));
    let verified = reopened.snapshot().await.unwrap().verify().unwrap();
    assert_eq!((verified.count, verified.newest, verified.head), (3, last.0, last.1));
}

pub(crate) async fn c35_replaying_gives_what_the_live_run_saw(backend: Backend) {
    let bodies = [
        json!({"z": 1, "a": {"b": [null, true, -0.0, 1e300, 0.1, u64::MAX, i64::MIN]}}),
        json!("\u{0} NUL, \"quoted\", \\, 漢字, 🦀, \u{2028}"),
        json!(2.225_073_858_507_201e-308),
        json!(9_007_199_254_740_993_u64),
        json!(8.988_465_674_311_58e307),
        Value::Null,
        json!({}),
    ];
    let journal = backend.open("shop").await;
    let mut live = Vec::new();
    for (body, seq) in bodies.into_iter().zip(0..) {
        let odd = Draft { body, at_ms: i64::MIN, reason: String::new(), ..draft(0, 0) };
        live.extend(journal.append_if(Position { seq, epoch: 0 }, vec![odd]).await.unwrap());
    }
    let replayed = backend.open("shop").await.load().await.unwrap();
    assert_eq!(replayed, live);
    let texts = |entries: &[Entry]| entries.iter().map(|entry| entry.body.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&replayed), texts(&live));
    assert!(replayed[0].body_text().starts_with(r#"{"z":1,"a":"#), "the order of the keys is kept: {}", replayed[0].body_text());
    journal.snapshot().await.unwrap().verify().unwrap();
}

pub(crate) async fn i4_an_append_elsewhere_than_at_the_newest_entry_does_nothing(backend: Backend) {
    let journal = backend.open("shop").await;
    let at = |seq, epoch| Position { seq, epoch };
    let conflict = |appended: Result<Vec<_>, AppendError>| match appended {
        Err(AppendError::Conflict { newest }) => newest,
        other => panic!("no conflict: {other:?}"),
    };
    assert_eq!(conflict(journal.append_if(at(1, 0), vec![draft(0, 1)]).await), Position::ORIGIN);
    assert_eq!(journal.append_if(Position::ORIGIN, vec![]).await.unwrap(), []);

    journal.append_if(Position::ORIGIN, vec![draft(3, 1), draft(3, 2)]).await.unwrap();
    for wrong in [Position::ORIGIN, at(1, 3), at(3, 3), at(2, 2), at(2, 0)] {
        assert_eq!(conflict(journal.append_if(wrong, vec![draft(9, 9)]).await), at(2, 3), "{wrong}");
        assert_eq!(conflict(journal.append_if(wrong, vec![]).await), at(2, 3), "{wrong}");
    }
    assert_eq!(journal.append_if(at(2, 3), vec![]).await.unwrap(), []);
    assert_eq!(journal.load().await.unwrap().len(), 2);
    assert_eq!(journal.append_if(at(2, 3), vec![draft(3, 3)]).await.unwrap()[0].seq, 3);
}

pub(crate) async fn i4_an_append_is_all_or_nothing(backend: Backend) {
    let journal = backend.open("shop").await;
    journal.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap();
    backend.refuse_kind("bad").await;
    let bad = Draft { kind: "bad".to_owned(), ..draft(1, 3) };
    let at = Position { seq: 1, epoch: 1 };
    let halfway = journal.append_if(at, vec![draft(1, 2), bad, draft(1, 4)]).await;
    assert!(matches!(halfway, Err(AppendError::Failed { .. })), "{halfway:?}");
    assert_eq!(journal.load().await.unwrap().len(), 1);
    journal.append_if(at, vec![draft(1, 2), draft(1, 3)]).await.unwrap();
    assert_eq!(journal.snapshot().await.unwrap().verify().unwrap().count, 3);
}

pub(crate) async fn i4_what_is_read_after_a_dropped_append_is_final(backend: Backend) {
    let journal = backend.open("shop").await;
    let mut landed = 0;
    for wait_us in (0..3_000).step_by(60) {
        let newest = journal.load().await.unwrap().last().map_or(Position::ORIGIN, Entry::position);
        let appending = journal.append_if(newest, vec![draft(0, newest.seq)]);
        let _ = tokio::time::timeout(Duration::from_micros(wait_us), appending).await;
        let read = journal.load().await.unwrap().last().map_or(Position::ORIGIN, Entry::position);
        landed += read.seq - newest.seq;
        // Nobody else appends: a conflict would mean that the dropped one landed after it was read as not there.
        journal.append_if(read, vec![draft(0, read.seq)]).await.unwrap();
    }
    journal.snapshot().await.unwrap().verify().unwrap();
    println!("{landed} dropped appends landed");
}

pub(crate) async fn i4_what_was_acknowledged_outlives_kill_9(backend: Backend) {
    let mut before = 0;
    for _ in 0..4 {
        let mut process = Process::start("append", &backend.place());
        let mut acknowledged = before;
        while acknowledged < before + 25 {
            acknowledged = process.says().await.expect("it appends until it is killed").parse().unwrap();
        }
        process.kill_9().await;
        while let Some(said) = process.says().await {
            acknowledged = said.parse().unwrap();
        }
        let verified = backend.open("shop").await.snapshot().await.unwrap().verify().unwrap();
        // One more can have been under way.
        assert!((acknowledged..=acknowledged + 1).contains(&verified.newest.seq), "{acknowledged} acknowledged, {verified:?}");
        before = verified.newest.seq;
    }
}

pub(crate) async fn i3_an_epoch_never_falls(backend: Backend) {
    let journal = backend.open("shop").await;
    journal.append_if(Position::ORIGIN, vec![draft(5, 1)]).await.unwrap();
    let at = Position { seq: 1, epoch: 5 };
    let fallen = journal.append_if(at, vec![draft(4, 2)]).await;
    assert!(matches!(fallen, Err(AppendError::Regressed { epoch: 4, least: 5 })), "{fallen:?}");
    let fallen = journal.append_if(at, vec![draft(7, 2), draft(6, 3)]).await;
    assert!(matches!(fallen, Err(AppendError::Regressed { epoch: 6, least: 7 })), "{fallen:?}");
    assert_eq!(journal.load().await.unwrap().len(), 1);
    journal.append_if(at, vec![draft(5, 2), draft(8, 3)]).await.unwrap();
    assert_eq!(journal.head().await.unwrap().unwrap().0, Position { seq: 3, epoch: 8 });
}

pub(crate) async fn i9_of_many_racing_appenders_exactly_one_wins(backend: Backend) {
    let mut handles = Vec::new();
    for _ in 0..4 {
        handles.push(backend.open("shop").await);
    }
    let mut at = Position::ORIGIN;
    for round in 0..10 {
        let mut race = JoinSet::new();
        for racer in 0..16_usize {
            let journal = handles[racer % handles.len()].clone();
            race.spawn(async move { journal.append_if(at, vec![draft(round, racer as u64)]).await });
        }
        let (won, lost): (Vec<_>, Vec<_>) = race.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        at = won.into_iter().next().unwrap().unwrap()[0].position();
        for loser in lost {
            assert!(matches!(loser, Err(AppendError::Conflict { newest }) if newest == at), "{loser:?}");
        }
    }
    let snapshot = handles[0].snapshot().await.unwrap();
    assert_eq!(snapshot.verify().unwrap().count, 10);
}

pub(crate) async fn i9_one_drives_at_a_time(backend: Backend) {
    let (mine, other, unrelated) = (backend.open("shop").await, backend.open("shop").await, backend.open("bank").await);
    let hold = mine.drive("anna@here").await.unwrap();
    assert!(hold.is_held().await);
    let refused = [other.drive("carl@there").await, mine.drive("anna@here").await];
    for refused in refused {
        let Err(DriveError::Held { by, since_ms }) = refused else { panic!("two drive: {refused:?}") };
        assert_eq!(by, format!("anna@here (pid {})", std::process::id()));
        assert_eq!(since_ms, hold.since_ms());
    }
    let bank = unrelated.drive("carl@there").await.unwrap();
    hold.release().await;
    let hold = other.drive("carl@there").await.unwrap();
    assert!(hold.who().starts_with("carl@there"));
    drop(hold);
    let hold = eventually(SOON, || async { mine.drive("anna@here").await.ok() }).await.unwrap();
    assert!(hold.is_held().await && bank.is_held().await);
    assert!(matches!(mine.drive(" ").await, Err(DriveError::Failed { .. })));
}

pub(crate) async fn i9_a_killed_driver_frees_the_plan_at_once(backend: Backend) {
    let journal = backend.open("shop").await;
    let mut process = Process::start("drive", &backend.place());
    let who = process.says().await.unwrap();
    assert!(who.starts_with("berta@elsewhere (pid "), "{who}");
    let Err(DriveError::Held { by, .. }) = journal.drive("anna@here").await else { panic!("two drive") };
    assert_eq!(by, who);
    process.kill_9().await;
    let killed = Instant::now();
    let hold = eventually(SOON, || async { journal.drive("anna@here").await.ok() }).await.unwrap();
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    assert!(hold.is_held().await);
    let Err(DriveError::Held { by, .. }) = journal.drive("carl@there").await else { panic!("two drive") };
    assert_eq!(by, hold.who());
}

pub(crate) async fn tail_wakes_at_once_and_gives_up_in_time(backend: Backend) {
    let (writer, reader) = (backend.open("shop").await, backend.open("shop").await);
    let began = Instant::now();
    assert_eq!(reader.tail(0, Duration::from_millis(200)).await.unwrap(), []);
    assert!((200..2_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(reader.tail(u64::MAX, Duration::ZERO).await.unwrap(), []);

    let mut at = Position::ORIGIN;
    for from in [reader, writer.clone()] {
        let after = at.seq;
        let waiting = tokio::spawn(async move { (from.tail(after, Duration::MAX).await, Instant::now()) });
        // However far the other has come, it must see this.
        let appended = writer.append_if(at, vec![draft(0, at.seq), draft(0, at.seq + 1)]).await.unwrap();
        let done = Instant::now();
        at = appended[1].position();
        let (seen, woke) = tokio::time::timeout(SOON, waiting).await.expect("it never woke").unwrap();
        assert_eq!(seen.unwrap(), appended);
        let late = woke.saturating_duration_since(done);
        assert!(late < Duration::from_millis(500), "{late:?}");
    }
    assert_eq!(writer.tail(3, Duration::ZERO).await.unwrap().len(), 1);
}

pub(crate) async fn plans_share_a_store_and_nothing_else(backend: Backend) {
    let (shop, bank) = (backend.open("shop").await, backend.open("bank").await);
    shop.append_if(Position::ORIGIN, vec![draft(1, 1), draft(1, 2)]).await.unwrap();
    let waiting = bank.tail(0, Duration::from_millis(100)).await.unwrap();
    assert_eq!(waiting, []);
    bank.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap();
    assert_eq!(shop.load().await.unwrap().len(), 2);
    let entries = bank.load().await.unwrap();
    assert_eq!((entries.len(), entries[0].plan.as_str()), (1, "bank"));
    assert_ne!(entries[0].hash, shop.load().await.unwrap()[0].hash, "the same entry of another plan has another hash");
    shop.snapshot().await.unwrap().verify().unwrap();
    bank.snapshot().await.unwrap().verify().unwrap();
}

pub(crate) async fn what_cant_be_stored_is_refused(backend: Backend) {
    let journal = backend.open("shop").await;
    let long = |bytes: usize| "x".repeat(bytes);
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let longest = Draft {
        epoch: i64::MAX as u64,
        at_ms: i64::MAX,
        actor: long(MOST_ACTOR_BYTES),
        reason: long(MOST_REASON_BYTES),
        kind: long(MOST_KIND_BYTES),
        body: json!(long(MOST_BODY_BYTES - 2)),
    };
    let with = |change: fn(&mut Draft)| {
        let mut draft = longest.clone();
        change(&mut draft);
        vec![draft]
    };
    let bad = [
        with(|draft| draft.epoch += 1),
        with(|draft| draft.actor.push('x')),
        with(|draft| draft.reason.push('x')),
        with(|draft| draft.kind.push('x')),
        with(|draft| draft.body = json!("x".repeat(MOST_BODY_BYTES - 1))),
        with(|draft| draft.actor = " ".to_owned()),
        with(|draft| draft.kind.clear()),
        with(|draft| draft.reason = "\0".to_owned()),
        vec![Draft { body: nested, ..draft(0, 0) }],
        vec![draft(0, 0); MOST_DRAFTS + 1],
    ];
    for (drafts, n) in bad.into_iter().zip(0..) {
        let refused = journal.append_if(Position::ORIGIN, drafts).await;
        assert!(matches!(refused, Err(AppendError::Refused(_))), "{n}: {refused:?}");
    }
    let refused = journal.append_if(Position::ORIGIN, with(|draft| draft.actor.push('x'))).await.unwrap_err();
    assert_eq!(refused.to_string(), "the actor has 257 bytes, and at most 256 are allowed");
    assert_eq!(Invalid::Empty { field: "kind" }.to_string(), "the kind is empty");
    assert_eq!(journal.load().await.unwrap(), []);
    journal.append_if(Position::ORIGIN, vec![longest]).await.unwrap();
    journal.append_if(Position { seq: 1, epoch: i64::MAX as u64 }, vec![draft(i64::MAX as u64, 0); MOST_DRAFTS]).await.unwrap();
    journal.snapshot().await.unwrap().verify().unwrap();
}

pub(crate) async fn a_draft_is_recognised_in_its_entry(backend: Backend) {
    let journal = backend.open("shop").await;
    let wrote = Draft { body: json!({"share": 0.1 + 0.2, "n": 1}), ..draft(2, 1) };
    journal.append_if(Position::ORIGIN, vec![wrote.clone()]).await.unwrap();
    let entry = backend.open("shop").await.load().await.unwrap().remove(0);
    assert!(entry.is_from(&wrote));
    let others = [
        Draft { epoch: 3, ..wrote.clone() },
        Draft { at_ms: 0, ..wrote.clone() },
        Draft { actor: "berta".to_owned(), ..wrote.clone() },
        Draft { reason: String::new(), ..wrote.clone() },
        Draft { kind: "other".to_owned(), ..wrote.clone() },
        Draft { body: json!({"share": 0.3, "n": 1}), ..wrote.clone() },
    ];
    for other in others {
        assert!(!entry.is_from(&other), "{other:?}");
    }
}
