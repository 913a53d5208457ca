//! Whoever changes the store behind the journal's back is found out.

use cutover_journal::{AppendError, Journal, JournalError, Position, Tampered, Tampering};

use crate::backend::{Backend, draft};

pub(crate) async fn c35_a_changed_body_is_found(backend: Backend) {
    filled(&backend).await;
    backend.tamper(r#"UPDATE {entry} SET body = '{"n":7}' WHERE plan = 'shop' AND seq = 3"#).await;
    assert_eq!(found(&backend).await, Tampered { seq: 3, what: Tampering::Changed });
    // Changed back to the same JSON in other words, it still is not what was appended.
    backend.execute(r#"UPDATE {entry} SET body = '{ "n":3}' WHERE plan = 'shop' AND seq = 3"#).await.unwrap();
    assert_eq!(found(&backend).await, Tampered { seq: 3, what: Tampering::Changed });
    backend.execute(r#"UPDATE {entry} SET body = '{"n":3}' WHERE plan = 'shop' AND seq = 3"#).await.unwrap();
    backend.open("shop").await.snapshot().await.unwrap().verify().unwrap();
}

pub(crate) async fn c35_a_body_that_is_no_json_is_found(backend: Backend) {
    filled(&backend).await;
    backend.tamper("UPDATE {entry} SET body = 'what?' WHERE plan = 'shop' AND seq = 4").await;
    let error = backend.open("shop").await.snapshot().await.unwrap_err();
    assert!(matches!(error, JournalError::NotJson { seq: 4, .. }), "{error:?}");
}

pub(crate) async fn c35_a_changed_actor_is_found(backend: Backend) {
    filled(&backend).await;
    backend.tamper("UPDATE {entry} SET actor = 'nobody' WHERE plan = 'shop' AND seq = 5").await;
    assert_eq!(found(&backend).await, Tampered { seq: 5, what: Tampering::Changed });
    let message = found(&backend).await.to_string();
    assert_eq!(message, "the journal was tampered with or damaged at entry 5: its content is not what was appended");
}

pub(crate) async fn c35_a_removed_entry_is_found(backend: Backend) {
    filled(&backend).await;
    backend.tamper("DELETE FROM {entry} WHERE plan = 'shop' AND seq = 2").await;
    assert_eq!(found(&backend).await, Tampered { seq: 2, what: Tampering::Missing });
    // The gap closed, the chain shows it.
    backend.execute("UPDATE {entry} SET seq = 2 WHERE plan = 'shop' AND seq = 3").await.unwrap();
    assert_eq!(found(&backend).await, Tampered { seq: 2, what: Tampering::Unlinked });
}

pub(crate) async fn c35_removed_newest_entries_are_found(backend: Backend) {
    filled(&backend).await;
    backend.tamper("DELETE FROM {entry} WHERE plan = 'shop' AND seq > 3").await;
    assert_eq!(found(&backend).await, Tampered { seq: 4, what: Tampering::Cut });
    backend.execute("UPDATE {head} SET seq = 3 WHERE plan = 'shop'").await.unwrap();
    assert_eq!(found(&backend).await, Tampered { seq: 3, what: Tampering::HeadDiffers });
    backend.execute("DELETE FROM {head} WHERE plan = 'shop'").await.unwrap();
    assert_eq!(found(&backend).await, Tampered { seq: 3, what: Tampering::HeadDiffers });
}

pub(crate) async fn c35_swapped_entries_are_found(backend: Backend) {
    filled(&backend).await;
    let swap = "UPDATE {entry} SET seq = 99 WHERE plan = 'shop' AND seq = 2;
                UPDATE {entry} SET seq = 2 WHERE plan = 'shop' AND seq = 3;
                UPDATE {entry} SET seq = 3 WHERE plan = 'shop' AND seq = 99;";
    backend.tamper(swap).await;
    assert_eq!(found(&backend).await, Tampered { seq: 2, what: Tampering::Unlinked });
}

pub(crate) async fn c35_a_forged_newest_entry_is_found(backend: Backend) {
    filled(&backend).await;
    backend.tamper(FORGE).await;
    assert_eq!(found(&backend).await, Tampered { seq: 6, what: Tampering::Unlinked });
}

pub(crate) async fn c35_nothing_is_appended_to_a_journal_whose_end_was_changed(backend: Backend) {
    let journal = filled(&backend).await;
    backend.tamper("DELETE FROM {entry} WHERE plan = 'shop' AND seq = 5").await;
    let refused = journal.append_if(Position { seq: 5, epoch: 1 }, vec![draft(1, 6)]).await;
    let Err(AppendError::Failed { source: JournalError::Tampered(tampered) }) = refused else { panic!("{refused:?}") };
    assert_eq!(tampered, Tampered { seq: 5, what: Tampering::HeadDiffers });
    assert_eq!(journal.load().await.unwrap().len(), 4);
}

pub(crate) async fn c35_honest_hands_cant_change_or_remove_entries(backend: Backend) {
    filled(&backend).await;
    let mut attempts = vec![
        "UPDATE {entry} SET actor = 'nobody'",
        "UPDATE {entry} SET plan = 'bank' WHERE seq = 5",
        "DELETE FROM {entry} WHERE seq = 5",
        "DELETE FROM {entry}",
        "UPDATE {head} SET seq = 4",
        "UPDATE {head} SET plan = 'bank', seq = 9",
        "UPDATE {head} SET seq = 9, epoch = 0",
        "DELETE FROM {head}",
    ];
    match &backend {
        Backend::Sqlite { .. } => attempts.extend(["INSERT OR REPLACE INTO {entry} SELECT * FROM {entry} WHERE seq = 2", FORGE_GAP]),
        Backend::Postgres { .. } => attempts.extend([
            "TRUNCATE {entry}",
            "TRUNCATE {head}",
            "SET session_replication_role = replica; DELETE FROM {entry}",
            "INSERT INTO {entry} SELECT * FROM {entry} WHERE seq = 2 ON CONFLICT (plan, seq) DO UPDATE SET actor = 'nobody'",
        ]),
    }
    for attempt in attempts {
        let refused = backend.execute(attempt).await.expect_err(attempt);
        assert!(refused.contains("journal"), "{attempt}: {refused}");
    }
    assert_eq!(backend.open("shop").await.snapshot().await.unwrap().verify().unwrap().count, 5);
}

const FORGE: &str =
    "INSERT INTO {entry} SELECT plan, 6, epoch, at_ms, actor, reason, kind, body, prev_hash, hash FROM {entry} WHERE seq = 5";
const FORGE_GAP: &str =
    "INSERT INTO {entry} SELECT plan, 9, epoch, at_ms, actor, reason, kind, body, prev_hash, hash FROM {entry} WHERE seq = 5";

/// A journal with five entries.
async fn filled(backend: &Backend) -> std::sync::Arc<dyn Journal> {
    let journal = backend.open("shop").await;
    journal.append_if(Position::ORIGIN, (1..=5).map(|n| draft(1, n)).collect()).await.unwrap();
    journal
}

/// What somebody who opens it afterwards finds.
async fn found(backend: &Backend) -> Tampered {
    backend.open("shop").await.snapshot().await.unwrap().verify().unwrap_err()
}
