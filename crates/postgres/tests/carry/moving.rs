//! The copy of a database that is written to all along: whatever was committed at the source is at the target.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use cutover_core::{
    Side::{Source, Target},
    Snapshot, Stream,
};
use cutover_postgres::copy::{Progress, copy_rows};
use cutover_testkit::eventually;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::ground::{LIMIT, Pair, assert_says};

const SCHEMA: &str = "
    CREATE TABLE entries (writer int, n int, note text, PRIMARY KEY (writer, n));
    CREATE TABLE balances (id int PRIMARY KEY, amount bigint NOT NULL, bulk text);
    CREATE TABLE parts (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (500);
    CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
    CREATE TABLE emptied (id int PRIMARY KEY);
    INSERT INTO balances SELECT n, 1000, (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 200) i) FROM generate_series(1, 200) n;
    INSERT INTO parts SELECT n, n FROM generate_series(1, 1000) n;
    INSERT INTO emptied SELECT generate_series(1, 100);
";

/// Clients that write until they are told to stop. Each then says what was committed for it.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<(i32, i32)>>>,
}

impl Writers {
    async fn start(pair: &Pair, count: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for writer in 0..count {
            tasks.push(tokio::spawn(write(pair.session(Source).await, writer, Arc::clone(&stop))));
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> Vec<(i32, i32)> {
        self.stop.store(true, Relaxed);
        let mut committed = Vec::new();
        for task in self.tasks {
            committed.extend(task.await.unwrap());
        }
        committed
    }
}

/// Short transactions of many kinds, some of them rolled back in part or as a whole.
async fn write(client: Client, writer: i32, stop: Arc<AtomicBool>) -> Vec<(i32, i32)> {
    let mut committed = Vec::new();
    for n in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let (one, other, part) = ((n * 7 + writer) % 200 + 1, (n * 13 + writer * 31) % 200 + 1, n * 17 % 300 * 3 + writer + 1);
        let end = if n % 10 == 9 { "ROLLBACK" } else { "COMMIT" };
        let sql = format!(
            "BEGIN; INSERT INTO entries VALUES ({writer}, {n}, 'short'); SAVEPOINT s; INSERT INTO entries VALUES ({writer}, -1, 'never'); ROLLBACK TO s; \
             UPDATE balances SET amount = amount - 1 WHERE id = LEAST({one}, {other}); UPDATE balances SET amount = amount + 1 WHERE id = GREATEST({one}, {other}); \
             UPDATE parts SET at = 1000 - at WHERE id = {part}; DELETE FROM entries WHERE writer = {writer} AND n = {n} - 50; {end}"
        );
        client.batch_execute(&sql).await.unwrap();
        if end == "COMMIT" {
            committed.push((writer, n));
        }
    }
    // Those that it took back itself.
    let newest = committed.last().map_or(0, |(_, n)| *n);
    let survives = |n: i32| n + 50 > newest || (n + 50) % 10 == 9;
    committed.into_iter().filter(|(_, n)| survives(*n)).collect()
}

async fn entries(pair: &Pair, side: cutover_core::Side) -> BTreeSet<(i32, i32)> {
    let rows = pair.session(side).await.query("SELECT writer, n FROM entries", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A transaction of its own writer number, begun and left open.
async fn begin(pair: &Pair, writer: i32, first: &str) -> Client {
    let client = pair.session(Source).await;
    client.batch_execute(&format!("BEGIN; {first}; SELECT set_config('test.writer', '{writer}', true)")).await.unwrap();
    client
}

/// Writes and commits what [`begin`] began. The entries are numbered from 0.
async fn finish(client: &Client, entries: i32) {
    let sql = format!(
        "INSERT INTO entries SELECT current_setting('test.writer')::int, n, 'slow' FROM generate_series(1, {entries} - 1) n; \
         INSERT INTO entries VALUES (current_setting('test.writer')::int, 0, 'slow'); COMMIT"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// What success is reported of must be there: also what was under way when the slot was made, whenever it committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgcopydb_1049_1050_every_commit_around_the_slot_and_the_copy_arrives() {
    let pair = Pair::new("around_the_slot").await;
    pair.sql(Source, SCHEMA).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    let writers = Writers::start(&pair, 3).await;
    // 100: wrote before the slot, commits while the slot waits for it. 101: had a snapshot only, writes after the slot.
    let before = begin(&pair, 100, "INSERT INTO entries VALUES (100, 100, 'before the slot')").await;
    let reading = begin(&pair, 101, "SELECT count(*) FROM balances").await;
    let slot_waits = format!(
        "SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_locks l ON l.pid = s.active_pid AND NOT l.granted WHERE s.slot_name = '{}')",
        pair.names.slot(Stream::Forward)
    );
    let commit_before = async {
        pair.wait_for(Source, &slot_waits).await;
        // 102: begins and writes while the slot is being made.
        let amid = begin(&pair, 102, "INSERT INTO entries VALUES (102, 100, 'amid')").await;
        finish(&before, 100).await;
        amid
    };
    // 103: begins with the snapshot, and commits when the stream flows already.
    let progress = Arc::new(Progress::default());
    let mut across = None;
    let copy = copy_rows(pair.job(), progress, async |_: Snapshot| {
        across = Some(begin(&pair, 103, "INSERT INTO entries VALUES (103, 100, 'across')").await);
        finish(&reading, 100).await;
        pair.sql(Source, "TRUNCATE emptied; INSERT INTO emptied SELECT generate_series(50, 60)").await;
    });
    let ending = async {
        let amid = commit_before.await;
        eventually(LIMIT, || async { pair.one::<bool>(Source, "SELECT EXISTS (SELECT FROM entries WHERE writer = 100)").await })
            .await
            .unwrap();
        finish(&amid, 100).await;
    };
    let (copied, ()) = tokio::join!(copy, ending);
    assert!(copied.unwrap().rows > 1300);
    pair.indexes().await.unwrap();
    pair.follow(Stream::Forward).await;
    finish(&across.unwrap(), 100).await;
    pair.caught_up(Stream::Forward).await;
    let mut committed: BTreeSet<_> = writers.stop().await.into_iter().collect();
    assert!(committed.len() > 30, "the writers wrote: {}", committed.len());
    for slow in 100..104 {
        committed.extend((0..100).map(|n| (slow, n)));
    }
    committed.extend([(100, 100), (102, 100), (103, 100)]);
    pair.caught_up(Stream::Forward).await;
    let (here, there) = (entries(&pair, Source).await, entries(&pair, Target).await);
    let lost: Vec<_> = committed.difference(&there).collect();
    assert!(lost.is_empty(), "committed and not at the target: {lost:?}");
    assert_eq!(here, committed, "the source holds what was committed");
    let rows = pair.assert_equal().await;
    assert_eq!((rows["\"public\".\"balances\""], rows["\"public\".\"emptied\""]), (200, 11));
    assert_eq!(pair.check(Stream::Forward).await, [""; 0]);
    pair.drop_streams().await;
}

/// Longer than our usual wait for a lock: the slot waits for as long as the slowest transaction takes.
#[tokio::test]
async fn a_transaction_longer_than_a_lock_time_out_delays_the_copy_and_does_not_fail_it() {
    let pair = Pair::new("long_transaction").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    let slow = pair.session(Source).await;
    slow.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    let waited = format!(
        "SELECT COALESCE(clock_timestamp() - query_start > interval '5.5 s', false) FROM pg_stat_activity WHERE application_name = '{}' AND backend_type = 'walsender'",
        pair.names.application("copy")
    );
    let end = async {
        let watch = pair.session(Source).await;
        eventually(LIMIT, || async {
            watch.query_opt(&waited, &[]).await.unwrap().is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true))
        })
        .await
        .unwrap();
        slow.batch_execute("COMMIT").await.unwrap();
    };
    let (copied, ()) = tokio::join!(pair.copy_rows(), end);
    assert_eq!(copied.unwrap().rows, 2);
    assert_eq!(pair.assert_equal().await["\"public\".\"t\""], 2);
    pair.drop_streams().await;
}

/// A table that is made while the slot waits is in the snapshot and in no publication: later changes would be lost.
#[tokio::test]
async fn a_table_made_after_publishing_is_named_before_a_row_is_copied() {
    let pair = Pair::new("made_meanwhile").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    pair.sql(Source, "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)").await;
    let error = pair.copy_rows().await.unwrap_err().to_string();
    assert_says(&error, &["\"public\".\"late\"", "copy anew"]);
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM t").await, 0);
    pair.drop_streams().await;
}

/// ALTER TABLE writes a table anew, and an older snapshot then sees no row of it: that must not pass for an empty table.
#[tokio::test]
async fn a_table_rewritten_under_the_snapshot_is_an_error_and_never_an_empty_copy() {
    let pair = Pair::new("rewritten").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'v' FROM generate_series(1, 50) n; CREATE TABLE u (LIKE t INCLUDING ALL); INSERT INTO u TABLE t").await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    for change in ["ALTER TABLE t ALTER v TYPE text COLLATE \"C\" USING upper(v)", "DROP TABLE t; CREATE TABLE t (id int, v text)"] {
        let copy = copy_rows(pair.job(), Arc::new(Progress::default()), async |_: Snapshot| pair.sql(Source, change).await);
        assert_says(&copy.await.unwrap_err().to_string(), &["public.t", "copy anew"]);
        pair.publish(Stream::Forward).await;
    }
    // These keep the rows in sight.
    for harmless in ["VACUUM (FULL) u", "ALTER TABLE u ALTER v SET STATISTICS 7"] {
        // Without its slot a copy begins anew, whatever was done.
        pair.drop_streams().await;
        pair.publish(Stream::Forward).await;
        let copy = copy_rows(pair.job(), Arc::new(Progress::default()), async |_: Snapshot| pair.sql(Source, harmless).await);
        assert_eq!(copy.await.unwrap().rows, 50, "{harmless}");
    }
    pair.drop_streams().await;
}
