//! A copy that is broken off or fails, and one that tells how far it is.

use std::{sync::Arc, time::Duration};

use cutover_core::{
    Side::{self, Source, Target},
    Snapshot, Stream,
};
use cutover_postgres::copy::{Copied, Progress, ProgressSnapshot, copy_rows};
use cutover_testkit::eventually;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::ground::{LIMIT, Pair, assert_says};

/// Tables of a few hundred rows; one more is the largest, so that it is copied among the first.
const SCHEMA: &str = "
    DO $$ BEGIN FOR n IN 1..6 LOOP
        EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', n);
        EXECUTE format('INSERT INTO t%s SELECT i, repeat(''v'', i) FROM generate_series(1, 100 * %s) i', n, n);
    END LOOP; END $$;
    CREATE TABLE huge (id int PRIMARY KEY, v text); ALTER TABLE huge ALTER v SET STORAGE EXTERNAL;
    INSERT INTO huge SELECT n, repeat(md5(n::text), 1000) FROM generate_series(1, 100) n;
";
const ROWS: u64 = 2100 + 100;

async fn ready(name: &str) -> Arc<Pair> {
    let pair = Pair::new(name).await;
    pair.sql(Source, SCHEMA).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    Arc::new(pair)
}

type Copying = JoinHandle<cutover_postgres::PgResult<Copied>>;

/// A copy that stands at the table `huge`, with all others done.
async fn half_way(pair: &Arc<Pair>) -> (Client, Copying, Arc<Progress>) {
    let obstacle = pair.session(Source).await;
    let progress = Arc::new(Progress::default());
    let (locked, shared, counted) = (Arc::new(tokio::sync::Mutex::new(Some(obstacle))), Arc::clone(pair), Arc::clone(&progress));
    let holder = Arc::clone(&locked);
    let copying = tokio::spawn(async move {
        copy_rows(shared.job(), counted, async |_: Snapshot| {
            let holder = holder.lock().await;
            holder.as_ref().unwrap().batch_execute("BEGIN; LOCK TABLE huge IN ACCESS EXCLUSIVE MODE").await.unwrap();
        })
        .await
    });
    eventually(LIMIT, || async { progress.snapshot().tables_done == 6 }).await.unwrap();
    let obstacle = locked.lock().await.take().unwrap();
    (obstacle, copying, progress)
}

/// The copy done again is whole, and of the first attempt nothing is left.
async fn again(pair: &Pair) {
    assert_eq!(pair.copy_rows().await.unwrap().rows, ROWS);
    assert_eq!(pair.assert_equal().await.values().sum::<i64>(), i64::try_from(ROWS).unwrap());
    pair.wait_for_none("copy").await;
    let slots = format!("SELECT string_agg(slot_name || active, ',') FROM pg_replication_slots WHERE database = '{}'", pair.database);
    assert_eq!(pair.one::<String>(Source, &slots).await, format!("{}false", pair.names.slot(Stream::Forward)));
    for side in Side::BOTH {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        assert_eq!(pair.one::<i64>(side, locks).await, 0, "a lock is left at the {side}");
    }
    pair.indexes().await.unwrap();
    pair.follow(Stream::Forward).await;
    pair.sql(Source, "INSERT INTO t1 VALUES (-1, 'later'); DELETE FROM huge WHERE id > 50").await;
    pair.caught_up(Stream::Forward).await;
    assert_eq!(pair.assert_equal().await["\"public\".\"huge\""], 50);
    pair.drop_streams().await;
}

#[tokio::test]
async fn a_copy_dropped_half_way_is_done_again() {
    let pair = ready("dropped_half_way").await;
    let (obstacle, copying, _) = half_way(&pair).await;
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    // At the target its sessions end at once; at the source one notices when it gets its lock.
    obstacle.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM huge").await, 0, "a table is copied as a whole or not at all");
    again(&pair).await;
}

#[tokio::test]
async fn a_copy_whose_sessions_are_ended_fails_and_is_done_again() {
    for side in Side::BOTH {
        let pair = ready(&format!("ended_at_{side}")).await;
        let (obstacle, copying, _) = half_way(&pair).await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}' AND datname = current_database()",
            pair.names.application("copy")
        );
        pair.sql(side, &end).await;
        obstacle.batch_execute("ROLLBACK").await.unwrap();
        let error = copying.await.unwrap().unwrap_err();
        assert_says(&error.to_string(), &["copying public.huge"]);
        assert!(error.is_disconnect(), "{error}");
        again(&pair).await;
    }
}

/// The first failure is told, with the table; the other workers do not go on behind it.
#[tokio::test]
async fn the_first_failure_names_its_table_and_ends_the_others() {
    let pair = ready("failing").await;
    pair.sql(Target, "ALTER TABLE t3 ADD CONSTRAINT by_hand CHECK (id <> 250)").await;
    let obstacle = pair.session(Source).await;
    let copy = copy_rows(pair.job(), Arc::new(Progress::default()), async |_: Snapshot| {
        obstacle.batch_execute("BEGIN; LOCK TABLE huge IN ACCESS EXCLUSIVE MODE").await.unwrap();
    });
    let error = tokio::time::timeout(LIMIT, copy).await.unwrap().unwrap_err();
    assert_says(&error.to_string(), &["copying public.t3", "by_hand", "23514"]);
    obstacle.batch_execute("ROLLBACK").await.unwrap();
    pair.wait_for_none("copy").await;
    for table in ["huge", "t3"] {
        assert_eq!(pair.one::<i64>(Target, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    pair.sql(Target, "ALTER TABLE t3 DROP CONSTRAINT by_hand").await;
    again(&pair).await;
}

#[tokio::test]
async fn a_table_that_the_target_lacks_or_that_has_another_shape_is_named() {
    let pair = ready("other_shape").await;
    for (change, words) in
        [("ALTER TABLE t2 DROP COLUMN v", ["copying public.t2", "42703"]), ("DROP TABLE t2", ["copying public.t2", "42P01"])]
    {
        pair.sql(Target, change).await;
        assert_says(&pair.copy_rows().await.unwrap_err().to_string(), &words);
    }
    pair.drop_streams().await;
}

#[tokio::test]
async fn progress_grows_and_ends_with_nothing_left() {
    let pair = ready("progress").await;
    let progress = Arc::new(Progress::default());
    assert_eq!(progress.snapshot(), ProgressSnapshot::default(), "nothing is known before");
    let (obstacle, copying, progress) = half_way(&pair).await;
    let stands = progress.snapshot();
    assert_eq!((stands.tables, stands.tables_done, stands.rows), (7, 6, 2100));
    assert!(stands.bytes > 0 && stands.bytes < stands.bytes_total, "{stands:?}");
    assert!(stands.bytes_total > 3_000_000, "the table that is left counts with its size: {stands:?}");
    assert!(stands.eta_seconds.is_none_or(|eta| eta > 0.0), "{stands:?}");
    obstacle.batch_execute("ROLLBACK").await.unwrap();
    let mut seen = vec![stands];
    eventually(LIMIT, || {
        seen.push(progress.snapshot());
        let done = copying.is_finished();
        async move { done }
    })
    .await
    .unwrap();
    let copied = copying.await.unwrap().unwrap();
    seen.push(progress.snapshot());
    for pair in seen.windows(2) {
        let [before, after] = pair else { continue };
        assert!(before.bytes <= after.bytes && before.rows <= after.rows && before.tables_done <= after.tables_done, "{pair:?}");
        assert!(after.bytes <= after.bytes_total && after.bytes_per_second >= 0.0 && after.bytes_per_second.is_finite(), "{pair:?}");
    }
    let end = seen.last().unwrap();
    assert_eq!((end.rows, end.bytes, end.tables_done), (copied.rows, copied.bytes, copied.tables));
    assert_eq!((end.rows, end.bytes_total, end.eta_seconds), (ROWS, end.bytes, Some(0.0)), "all is done: {end:?}");
    assert!(copied.seconds > 0.0 && copied.rows_per_s > 0.0, "{copied:?}");
    assert!(Duration::from_secs_f64(copied.seconds) < LIMIT);
    pair.drop_streams().await;
}
