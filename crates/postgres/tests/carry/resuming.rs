//! A copy that is broken off goes on where it stood, from the same snapshot; where that can't be, it begins anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cutover_core::{
    Side::{Source, Target},
    Snapshot, Stream,
};
use cutover_postgres::{
    PgResult,
    copy::{Copied, Job, Progress, copy_rows},
};
use cutover_testkit::eventually;
use tokio_postgres::Client;

use crate::{
    ground::{LIMIT, Pair, assert_says},
    splitting::{ROWS, TRANSACTIONS, all_but_one, in_parts, is_followed, ready, release, stand_at, take_away},
};

/// Each row with the transaction that brought it, but those of the part in the middle, at which the first copy stood.
const BROUGHT: &str = "SELECT string_agg(id || ' ' || xmin::text, ',' ORDER BY id) FROM big WHERE id NOT BETWEEN 4000 AND 6000";

/// What a copy came to: its report, what it told a person, and how many rows were there when it began.
struct Done {
    copied: PgResult<Copied>,
    notes: String,
    before: u64,
    snapshot: Option<Snapshot>,
}

async fn copy(job: Job<'_>) -> Done {
    let progress = Arc::new(Progress::default());
    let (mut before, mut snapshot) = (0, None);
    let copied = copy_rows(job, Arc::clone(&progress), async |told: Snapshot| {
        before = progress.snapshot().rows;
        snapshot = Some(told);
    });
    let copied = tokio::time::timeout(LIMIT, copied).await.unwrap();
    Done { copied, notes: progress.take_notes().join("; "), before, snapshot }
}

/// A copy of which one part is left, and whose driver is gone.
async fn broken_off(name: &str) -> Arc<Pair> {
    let pair = ready(name).await;
    let (holder, copying) = all_but_one(&pair).await;
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    release(&holder).await;
    take_away(&pair).await;
    pair
}

/// Sessions that keep the snapshot.
fn keepers(pair: &Pair) -> String {
    format!(
        "FROM pg_stat_activity WHERE application_name = '{}' AND datname = current_database() AND state = 'active'",
        pair.names.keeper()
    )
}

async fn wait_for_keepers(pair: &Pair, count: u32) {
    pair.wait_for(Source, &format!("SELECT count(*) = {count} {}", keepers(pair))).await;
}

/// Nothing is left of a copy but what it copied, and the stream carries the rest.
async fn ends_well(pair: &Pair) {
    wait_for_keepers(pair, 0).await;
    is_followed(pair).await;
}

/// B5: what was done is not done again, what was not is; from the snapshot of before, whatever was written since.
#[tokio::test]
async fn b5_a_copy_whose_driver_is_gone_goes_on_with_what_is_left() {
    let pair = broken_off("resumed").await;
    let brought: String = pair.one(Target, BROUGHT).await;
    let there: i64 = pair.one(Target, "SELECT count(*) FROM big").await;
    let lsn: String = pair.one(Target, "SELECT lsn::text FROM cutover.copy").await;
    pair.sql(Source, "UPDATE big SET v = 'later'; INSERT INTO big VALUES (0, 0, 'later'); DELETE FROM small").await;
    let done = copy(in_parts(&pair)).await;
    let copied = done.copied.unwrap();
    assert_eq!((copied.rows, copied.tables), (ROWS + 2, 3), "all in all, and none of those that came later");
    assert_eq!(done.before, there.cast_unsigned() + 2, "it counts from what was there");
    assert_says(&done.notes, &["goes on"]);
    assert_eq!(done.snapshot.unwrap().lsn.to_string(), lsn, "of the same position");
    assert_eq!(pair.one::<String>(Target, BROUGHT).await, brought, "no part that was done is done again");
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM big WHERE v = 'later'").await, 0);
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM cutover.copy_task WHERE NOT done").await, 0);
    ends_well(&pair).await;
}

/// The sessions end at one side or the other, as when a server's process is killed.
#[tokio::test]
async fn b5_a_copy_whose_sessions_are_ended_goes_on_with_what_is_left() {
    for side in [Source, Target] {
        let pair = ready(&format!("resumed_at_{side}")).await;
        let (holder, copying) = all_but_one(&pair).await;
        let brought: String = pair.one(Target, BROUGHT).await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}' AND datname = current_database()",
            pair.names.application("copy")
        );
        pair.sql(side, &end).await;
        release(&holder).await;
        assert!(copying.await.unwrap().unwrap_err().is_disconnect());
        take_away(&pair).await;
        assert_eq!(copy(in_parts(&pair)).await.copied.unwrap().rows, ROWS + 2);
        assert_eq!(pair.one::<String>(Target, BROUGHT).await, brought, "{side}");
        ends_well(&pair).await;
    }
}

/// A driver may be gone between the commit of a part and its answer, and the commit may still be under way when the
/// next one comes: it waits, and finds the part done.
#[tokio::test]
async fn a_part_that_was_committed_without_an_answer_is_not_copied_twice() {
    let pair = broken_off("answered_late").await;
    let late = pair.session(Target).await;
    late.batch_execute("BEGIN; SELECT FROM cutover.copy_task WHERE NOT done FOR UPDATE").await.unwrap();
    for id in missing(&pair).await {
        late.execute("INSERT INTO big VALUES ($1, $1, repeat('v', 100))", &[&id]).await.unwrap();
    }
    late.batch_execute("UPDATE cutover.copy_task SET done = true, rows = 1 WHERE NOT done").await.unwrap();
    let shared = Arc::clone(&pair);
    let copying = tokio::spawn(async move { copy(in_parts(&shared)).await });
    pair.wait_for(
        Target,
        &format!(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
            pair.names.application("copy")
        ),
    )
    .await;
    late.batch_execute("COMMIT").await.unwrap();
    copying.await.unwrap().copied.unwrap();
    assert_eq!(pair.assert_equal().await["\"public\".\"big\""], ROWS.cast_signed());
    ends_well(&pair).await;
}

/// Rows that the target lacks.
async fn missing(pair: &Pair) -> Vec<i32> {
    let there: Vec<i32> = pair.one(Target, "SELECT array_agg(id) FROM big").await;
    let there: std::collections::HashSet<i32> = there.into_iter().collect();
    (1..=i32::try_from(ROWS).unwrap()).filter(|id| !there.contains(id)).collect()
}

/// One is enough to go on with, and there are two again soon.
#[tokio::test]
async fn a_session_that_kept_the_snapshot_and_was_ended_is_replaced() {
    let pair = ready("keepers").await;
    let (holder, copying) = all_but_one(&pair).await;
    wait_for_keepers(&pair, 2).await;
    let names = "SELECT snapshots FROM cutover.copy";
    for _ in 0..3 {
        let before: Vec<String> = pair.one(Target, names).await;
        let oldest: i32 = pair.one(Source, &format!("SELECT pid {} ORDER BY backend_start LIMIT 1", keepers(&pair))).await;
        pair.sql(Source, &format!("SELECT pg_terminate_backend({oldest})")).await;
        eventually(LIMIT, || async { pair.one::<Vec<String>>(Target, names).await != before }).await.unwrap();
        wait_for_keepers(&pair, 2).await;
    }
    // None of the first is left. The next driver goes on with the last.
    copying.abort();
    drop(copying.await);
    release(&holder).await;
    take_away(&pair).await;
    let done = copy(in_parts(&pair)).await;
    assert_eq!(done.copied.unwrap().rows, ROWS + 2);
    assert_says(&done.notes, &["goes on"]);
    ends_well(&pair).await;
}

/// What can happen between two drivers, and what the second says of it.
const CHANGES: [(&str, &str, &str); 6] = [
    ("keepers", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'KEEPER'", "snapshot is gone"),
    ("slot_gone", "SELECT pg_drop_replication_slot('SLOT')", "is gone"),
    ("slot_moved", "SELECT pg_replication_slot_advance('SLOT', pg_current_wal_lsn())", "the rows are those of"),
    ("republished", "ALTER PUBLICATION PUBLICATION DROP TABLE small; ALTER PUBLICATION PUBLICATION ADD TABLE ONLY small", "publication"),
    ("made", "CREATE TABLE made (); ALTER PUBLICATION PUBLICATION ADD TABLE ONLY made", "publication"),
    ("altered", "ALTER TABLE big ALTER v TYPE varchar(200)", "\"public\".\"big\" was altered"),
];

/// A snapshot that is gone, or no longer that of the slot; changes that were not sent; definitions that it does not see:
/// no row may be missing because of it, so all are copied again.
#[tokio::test]
async fn a_copy_that_can_not_be_gone_on_with_begins_anew_and_says_why() {
    for (name, change, why) in CHANGES {
        let pair = broken_off(&format!("unfit_{name}")).await;
        let brought: String = pair.one(Target, BROUGHT).await;
        let change = change.replace("KEEPER", &pair.names.keeper()).replace("SLOT", &pair.names.slot(Stream::Forward));
        pair.sql(Source, "UPDATE big SET n = n + 1 WHERE id < 10").await;
        pair.sql(Source, &change.replace("PUBLICATION PUBLICATION", &format!("PUBLICATION {}", pair.names.publication(Stream::Forward))))
            .await;
        if name == "made" {
            pair.sql(Target, "CREATE TABLE made ()").await;
        }
        let done = copy(in_parts(&pair)).await;
        assert_says(&done.notes, &["can't be gone on with", why, "anew"]);
        assert_eq!((done.copied.unwrap().rows, done.before), (ROWS + 2, 0), "{name}");
        assert_ne!(pair.one::<String>(Target, BROUGHT).await, brought, "{name}");
        pair.assert_equal().await;
        ends_well(&pair).await;
    }
}

/// Somebody made the target's tables anew: what was marked done is not there.
#[tokio::test]
async fn a_copy_into_a_table_that_was_made_anew_begins_anew() {
    let pair = broken_off("remade").await;
    pair.sql(Target, "DROP TABLE small; CREATE TABLE small (id int)").await;
    let done = copy(in_parts(&pair)).await;
    assert_says(&done.notes, &["\"public\".\"small\" is another"]);
    assert_eq!(done.copied.unwrap().rows, ROWS + 2);
    pair.assert_equal().await;
    pair.drop_streams().await;
}

/// Rows that were moved to other pages between two drivers are found by the page nowhere or twice.
#[tokio::test]
async fn a_table_that_was_written_anew_between_two_drivers_is_copied_as_a_whole() {
    for (name, change, rows) in [("full", "VACUUM FULL big", ROWS), ("truncated", "TRUNCATE big", 0)] {
        let pair = broken_off(&format!("moved_{name}")).await;
        // Dead rows go, so that the others move.
        pair.sql(Source, "DELETE FROM big WHERE id % 2 = 0").await;
        pair.sql(Source, change).await;
        let done = copy(in_parts(&pair)).await;
        assert_eq!(done.copied.unwrap().rows, rows + 2, "{name}");
        assert!(pair.one::<i64>(Target, TRANSACTIONS).await <= 1, "as a whole");
        assert_eq!(pair.one::<i64>(Target, "SELECT sum(rows)::bigint FROM cutover.copy_task").await, rows.cast_signed() + 2);
        ends_well(&pair).await;
    }
}

/// What was finished and not yet journalled is finished.
#[tokio::test]
async fn a_copy_that_was_finished_is_not_done_again() {
    let pair = ready("finished_before").await;
    let first = copy(in_parts(&pair)).await.copied.unwrap();
    wait_for_keepers(&pair, 0).await;
    let brought: String = pair.one(Target, BROUGHT).await;
    let second = copy(in_parts(&pair)).await.copied.unwrap();
    assert_eq!((second.rows, second.bytes, second.tables), (first.rows, first.bytes, first.tables));
    assert_eq!(pair.one::<String>(Target, BROUGHT).await, brought);
    ends_well(&pair).await;
}

/// The source can't clean up dead rows while a snapshot is kept: for no longer than the plan says.
#[tokio::test]
async fn of_a_copy_that_is_left_for_good_nothing_remains_at_the_source() {
    const GRACE: Duration = Duration::from_secs(2);
    let pair = ready("left_for_good").await;
    let holder: Client = stand_at(&pair, "id = 5000").await;
    let (shared, progress) = (Arc::clone(&pair), Arc::new(Progress::default()));
    let counted = Arc::clone(&progress);
    let copying =
        tokio::spawn(async move { copy_rows(Job { resume_within: GRACE, ..in_parts(&shared) }, counted, async |_: Snapshot| {}).await });
    eventually(LIMIT, || async { progress.snapshot().tables_done == 2 }).await.unwrap();
    let began = Instant::now();
    eventually(LIMIT, || async { began.elapsed() > GRACE * 2 }).await.unwrap();
    wait_for_keepers(&pair, 2).await;
    copying.abort();
    drop(copying.await);
    wait_for_keepers(&pair, 0).await;
    let held =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()";
    assert_eq!(pair.one::<i64>(Source, held).await, 0);
    release(&holder).await;
    take_away(&pair).await;
    let done = copy(in_parts(&pair)).await;
    assert_says(&done.notes, &["`resume_within`", "anew"]);
    assert_eq!(done.copied.unwrap().rows, ROWS + 2);
    ends_well(&pair).await;
}

/// Giving the cutover up takes the slot away; the snapshot is worth nothing without it.
#[tokio::test]
async fn giving_up_ends_the_sessions_that_keep_the_snapshot() {
    let pair = broken_off("given_up").await;
    wait_for_keepers(&pair, 2).await;
    pair.drop_streams().await;
    wait_for_keepers(&pair, 0).await;
}
