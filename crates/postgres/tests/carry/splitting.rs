//! The copy of large tables in parts: several workers at one table, and what comes between its parts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use cutover_core::{
    Side::{Source, Target},
    Snapshot, Stream,
};
use cutover_postgres::{
    PgError, PgResult,
    copy::{Copied, Job, Progress, copy_rows},
    gate,
};
use cutover_testkit::{
    eventually, installs,
    schemas::{EDGES, KINDS, OWN, OWN_ROWS, SHAPES},
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, error::SqlState};

use crate::ground::{EPOCH, LIMIT, Pair, assert_says};

/// Four pages.
const FEW_PAGES: u64 = 4 * 8192;

/// One large table of some forty parts, and two of a page and of none.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text);
    CREATE TABLE small (id int PRIMARY KEY); CREATE TABLE nothing (id int PRIMARY KEY, v text);
    INSERT INTO big SELECT i, i, repeat('v', 100) FROM generate_series(1, 10000) i; INSERT INTO small VALUES (1), (2);
";
pub(crate) const ROWS: u64 = 10_000;

/// How often a table was written to at the target: once for each part that holds rows.
pub(crate) const TRANSACTIONS: &str = "SELECT count(DISTINCT xmin::text) FROM big";

/// Locks of this database alone: other tests use the same server.
pub(crate) const HERE: &str = "database = (SELECT oid FROM pg_database WHERE datname = current_database())";

pub(crate) async fn ready(name: &str) -> Arc<Pair> {
    let pair = Pair::new(name).await;
    pair.sql(Source, SCHEMA).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    Arc::new(pair)
}

pub(crate) fn in_parts(pair: &Pair) -> Job<'_> {
    Job { part_bytes: FEW_PAGES, ..pair.job() }
}

/// All workers are needed to the end of the one large table, and all of it arrives. The planner's numbers are of when
/// it was small, so nearly all rows lie behind the last page that it knows of.
#[tokio::test]
async fn a_large_table_is_copied_in_many_parts_and_small_ones_as_a_whole() {
    let pair = Pair::new("in_parts").await;
    pair.sql(Source, &SCHEMA.replace("INSERT INTO big", "INSERT INTO big SELECT -1; ANALYZE; INSERT INTO big")).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    assert_eq!(pair.one::<i32>(Source, "SELECT relpages FROM pg_class WHERE relname = 'big'").await, 1);
    let progress = Arc::new(Progress::default());
    let copied = copy_rows(in_parts(&pair), Arc::clone(&progress), async |_: Snapshot| {}).await.unwrap();
    assert_eq!((copied.rows, copied.tables), (ROWS + 1 + 2, 3));
    let end = progress.snapshot();
    assert_eq!((end.rows, end.tables, end.tables_done, end.bytes), (copied.rows, 3, 3, copied.bytes));
    assert_eq!((end.bytes_total, end.eta_seconds), (end.bytes, Some(0.0)), "what was expected made way for what was sent: {end:?}");
    let bytes: i64 = pair.one(Source, "SELECT pg_table_size('big')").await;
    let parts = bytes.cast_unsigned().div_ceil(FEW_PAGES).cast_signed();
    assert!(parts > 30, "{parts}");
    assert_eq!(pair.one::<i64>(Target, TRANSACTIONS).await, parts);
    assert_eq!(pair.one::<i64>(Target, "SELECT count(DISTINCT xmin::text) FROM small").await, 1);
    pair.assert_equal().await;
    // With one worker, parts gain nothing. Without its slot the copy begins anew.
    pair.drop_streams().await;
    pair.publish(Stream::Forward).await;
    copy_rows(Job { jobs: 1, ..in_parts(&pair) }, Arc::default(), async |_: Snapshot| {}).await.unwrap();
    assert_eq!(pair.one::<i64>(Target, TRANSACTIONS).await, 1);
    pair.assert_equal().await;
    pair.drop_streams().await;
}

/// Up to 13 a range of pages is found by reading the whole table, so it is cut by key, as the statistics know it.
#[tokio::test]
async fn every_server_splits_by_pages_or_by_key() {
    for install in installs().iter().filter(|install| (13..18).contains(&install.major)) {
        let pair = Pair::between(install.major, 18, &format!("split_on_{}", install.major)).await;
        pair.sql(Source, SCHEMA).await;
        pair.schema().await;
        pair.publish(Stream::Forward).await;
        let copied = copy_rows(in_parts(&pair), Arc::default(), async |_: Snapshot| {}).await.unwrap();
        assert_eq!(copied.rows, ROWS + 2);
        let transactions: i64 = pair.one(Target, TRANSACTIONS).await;
        assert_eq!(transactions > 30, install.major >= 14, "PostgreSQL {}: {transactions}", install.major);
        assert!(transactions > 30 || transactions == 1, "nothing is known of where to cut");
        pair.assert_equal().await;
        pair.drop_streams().await;
        assert!(Duration::from_secs_f64(copied.seconds) < LIMIT);
    }
}

/// What lies out of line, in one page, in none, in partitions, in children, behind dropped columns, without any column.
#[tokio::test]
async fn every_type_and_shape_arrives_equal_from_parts_of_one_page() {
    let pair = Pair::new("pages of everything").await;
    for sql in [OWN, KINDS, EDGES, OWN_ROWS, SHAPES] {
        pair.sql(Source, sql).await;
    }
    let more = "INSERT INTO bare SELECT FROM generate_series(1, 3000); INSERT INTO hollow SELECT FROM generate_series(1, 3000);
        INSERT INTO measured SELECT n % 40 - 5, (ARRAY['a', 'b', NULL])[n % 3 + 1], n FROM generate_series(1, 9000) n;
        INSERT INTO child SELECT n, 'c', n FROM generate_series(10, 3000) n; INSERT INTO parent SELECT n, 'p' FROM generate_series(10, 3000) n;
        CREATE TABLE toasted (id int PRIMARY KEY, noise text, zeros text, gone text); ALTER TABLE toasted ALTER noise SET STORAGE EXTERNAL;
        INSERT INTO toasted SELECT n, (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 3000) i), repeat('x', n * 10000), repeat(md5(n::text), 500)
            FROM generate_series(1, 150) n;
        INSERT INTO toasted SELECT n, 'short' FROM generate_series(200, 2000) n;
        UPDATE toasted SET noise = NULL WHERE id < 20; UPDATE toasted SET zeros = zeros || id WHERE id BETWEEN 20 AND 40; ALTER TABLE toasted DROP gone;
        CREATE TABLE bloated (id int PRIMARY KEY, v text); INSERT INTO bloated SELECT n, repeat('b', 1000) FROM generate_series(1, 500) n; DELETE FROM bloated WHERE id <> 250";
    pair.sql(Source, more).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    let copied = copy_rows(Job { part_bytes: 8192, ..pair.job() }, Arc::default(), async |_: Snapshot| {}).await.unwrap();
    pair.indexes().await.unwrap();
    pair.sql(Target, "INSERT INTO volatile VALUES (1)").await;
    let rows = pair.assert_equal().await;
    assert_eq!(copied.rows, rows.values().sum::<i64>().cast_unsigned() - 1, "all but the unlogged one");
    let row_count = |table: &str| rows[&format!("\"public\".\"{table}\"")];
    assert_eq!((row_count("bare"), row_count("hollow"), row_count("nothing"), row_count("bloated")), (3007, 3005, 0, 1));
    for split in ["bare", "toasted", "measured_2_a_1", "child"] {
        let transactions = format!("SELECT count(DISTINCT xmin::text) > 1 FROM ONLY {split}");
        assert!(pair.one::<bool>(Target, &transactions).await, "{split} was copied in parts");
    }
    pair.drop_streams().await;
}

/// Clients that move rows about: updates that leave their page, inserts into pages that VACUUM cleared, deletes, and
/// VACUUM itself, over and over until they are told to stop.
struct Stir {
    stop: Arc<AtomicBool>,
    times: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Stir {
    async fn start(pair: &Pair) -> Self {
        let (stop, times) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for writer in 0..3 {
            let client = pair.session(Source).await;
            let (stop, times) = (Arc::clone(&stop), Arc::clone(&times));
            tasks.push(tokio::spawn(async move {
                for n in (writer..).step_by(3).take_while(|_| !stop.load(Relaxed)) {
                    match client.batch_execute(&change(n)).await {
                        // The clients take rows in no common order, so now and then one gives way.
                        Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
                        done => done.unwrap(),
                    }
                    times.fetch_add(1, Relaxed);
                }
            }));
        }
        let (client, stopped) = (pair.session(Source).await, Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            while !stopped.load(Relaxed) {
                client.batch_execute("VACUUM big").await.unwrap();
            }
        }));
        Self { stop, times, tasks }
    }

    /// Waits for so many more changes.
    async fn more(&self, count: u64) {
        let wanted = self.times.load(Relaxed) + count;
        eventually(LIMIT, || async { self.times.load(Relaxed) >= wanted }).await.unwrap();
    }

    async fn stop(self) {
        self.stop.store(true, Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn change(n: i32) -> String {
    let id = n * 37 % 10_000 + 1;
    format!(
        "UPDATE big SET n = n + 1, v = repeat('u', {n} % 300) WHERE id BETWEEN {id} AND {id} + 5; DELETE FROM big WHERE id = {id} + 7; \
         INSERT INTO big VALUES (20000 + {n}, {n}, repeat('i', {n} % 200)); UPDATE big SET id = -id WHERE id = {id} + 9"
    )
}

const CONTENTS: &str = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) || count(*) FROM big t";

/// The parts together are the snapshot, no row more and no row less; and with the stream behind it, everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_the_snapshot_while_rows_move_and_vacuum_runs() {
    for (source, target) in [(15, 18), (17, 18)] {
        let pair = Pair::between(source, target, &format!("stirred_{source}")).await;
        pair.sql(Source, SCHEMA).await;
        // What VACUUM can cut off at the end, and fill anew at the beginning.
        pair.sql(Source, "DELETE FROM big WHERE id > 8000 OR id BETWEEN 100 AND 900").await;
        pair.schema().await;
        pair.publish(Stream::Forward).await;
        let stir = Stir::start(&pair).await;
        stir.more(20).await;
        let mut seen = String::new();
        let mut times = 0;
        let copied = copy_rows(in_parts(&pair), Arc::default(), async |snapshot: Snapshot| {
            let reader = pair.session(Source).await;
            let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{}'", snapshot.snapshot);
            reader.batch_execute(&sql).await.unwrap();
            seen = reader.query_one(CONTENTS, &[]).await.unwrap().get(0);
            drop(reader);
            stir.more(50).await;
            times = stir.times.load(Relaxed);
        });
        let copied = copied.await.unwrap();
        assert!(stir.times.load(Relaxed) > times, "it was written to while it was copied");
        assert_eq!(pair.one::<String>(Target, CONTENTS).await, seen, "{source} to {target}: the parts are the snapshot");
        assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM big").await, copied.rows.cast_signed() - 2);
        assert!(pair.one::<i64>(Target, TRANSACTIONS).await > 20, "in parts");
        pair.indexes().await.unwrap();
        pair.follow(Stream::Forward).await;
        stir.more(20).await;
        stir.stop().await;
        pair.caught_up(Stream::Forward).await;
        pair.assert_equal().await;
        pair.drop_streams().await;
    }
}

/// Rows at which a part stands still at the target, until [`release`].
pub(crate) async fn stand_at(pair: &Pair, rows: &str) -> Client {
    let holder = pair.session(Target).await;
    let sql = format!(
        "CREATE FUNCTION stand() RETURNS boolean LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN true; END $$; \
         ALTER TABLE big ADD CONSTRAINT stands CHECK (NOT ({rows}) OR stand()); SELECT pg_advisory_lock(42)"
    );
    holder.batch_execute(&sql).await.unwrap();
    holder
}

pub(crate) async fn release(holder: &Client) {
    holder.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
}

pub(crate) async fn take_away(pair: &Pair) {
    pair.sql(Target, "ALTER TABLE big DROP CONSTRAINT stands; DROP FUNCTION stand()").await;
}

pub(crate) type Copying = JoinHandle<PgResult<Copied>>;

/// A copy in parts of which `standing` parts stand still.
pub(crate) async fn begun(pair: &Arc<Pair>, standing: i64) -> (Copying, Arc<Progress>) {
    let (shared, progress) = (Arc::clone(pair), Arc::new(Progress::default()));
    let counted = Arc::clone(&progress);
    let copying = tokio::spawn(async move { copy_rows(in_parts(&shared), counted, async |_: Snapshot| {}).await });
    let stand = format!("SELECT count(*) = {standing} FROM pg_locks WHERE {HERE} AND locktype = 'advisory' AND objid = 42 AND NOT granted");
    pair.wait_for(Target, &stand).await;
    (copying, progress)
}

/// A copy of which the part in the middle alone is not done.
pub(crate) async fn all_but_one(pair: &Arc<Pair>) -> (Client, Copying) {
    let holder = stand_at(pair, "id = 5000").await;
    let (copying, progress) = begun(pair, 1).await;
    // A part holds some two hundred rows.
    eventually(LIMIT, || async { progress.snapshot().tables_done == 2 && progress.snapshot().rows + 300 > ROWS }).await.unwrap();
    let stands = progress.snapshot();
    let there: i64 = pair.one(Target, "SELECT count(*) FROM big").await;
    assert!(there > 9000 && there < 10_000, "all parts but one are there: {there}");
    assert_eq!((stands.rows, stands.tables), (there.cast_unsigned() + 2, 3), "a table with a part left is not done: {stands:?}");
    assert!(stands.bytes < stands.bytes_total && stands.eta_seconds != Some(0.0), "{stands:?}");
    (holder, copying)
}

/// The copy done again begins with the truncation: whole, and nothing twice.
async fn again(pair: &Pair) {
    take_away(pair).await;
    assert_eq!(copy_rows(in_parts(pair), Arc::default(), async |_: Snapshot| {}).await.unwrap().rows, ROWS + 2);
    assert_eq!(pair.assert_equal().await["\"public\".\"big\""], ROWS.cast_signed());
    is_followed(pair).await;
}

/// No session of the copy is left, and the stream carries what comes after it.
pub(crate) async fn is_followed(pair: &Pair) {
    pair.wait_for_none("copy").await;
    pair.indexes().await.unwrap();
    pair.follow(Stream::Forward).await;
    pair.sql(Source, "DELETE FROM big WHERE id % 3 = 0; UPDATE big SET n = -n WHERE id % 5 = 0; INSERT INTO big VALUES (-1)").await;
    pair.caught_up(Stream::Forward).await;
    pair.assert_equal().await;
    pair.drop_streams().await;
}

#[tokio::test]
async fn a_copy_dropped_between_the_truncation_and_the_last_part_is_done_again() {
    let pair = ready("parts_dropped").await;
    let (holder, copying) = all_but_one(&pair).await;
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    release(&holder).await;
    again(&pair).await;
}

/// The truncation itself waits for whoever reads the table. Given up there, it must not come true later.
#[tokio::test]
async fn a_truncation_that_was_given_up_while_it_waited_empties_nothing_later() {
    let pair = ready("truncation_given_up").await;
    stand_at(&pair, "false").await;
    let reader = pair.session(Target).await;
    reader.batch_execute("BEGIN; SELECT FROM big").await.unwrap();
    let shared = Arc::clone(&pair);
    let copying = tokio::spawn(async move { copy_rows(in_parts(&shared), Arc::default(), async |_: Snapshot| {}).await });
    pair.wait_for(Target, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE {HERE} AND relation = 'big'::regclass AND NOT granted)"))
        .await;
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    reader.batch_execute("COMMIT").await.unwrap();
    again(&pair).await;
}

#[tokio::test]
async fn a_part_whose_session_is_ended_fails_by_name_and_the_copy_is_done_again() {
    for side in [Source, Target] {
        let pair = ready(&format!("part_ended_at_{side}")).await;
        let (holder, copying) = all_but_one(&pair).await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}' AND datname = current_database()",
            pair.names.application("copy")
        );
        pair.sql(side, &end).await;
        release(&holder).await;
        let error = copying.await.unwrap().unwrap_err();
        assert_says(&error.to_string(), &["copying public.big"]);
        assert!(error.is_disconnect(), "{error}");
        again(&pair).await;
    }
}

/// Each part asks for the epoch: a driver that was superseded adds no rows to what the new one has emptied.
#[tokio::test]
async fn a_driver_with_an_older_epoch_copies_no_further_part() {
    let pair = ready("parts_superseded").await;
    let holder = stand_at(&pair, "id % 500 = 0").await;
    let (copying, _) = begun(&pair, 3).await;
    let mut newer = pair.driver(Target).await;
    let waits = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE {HERE} AND locktype = 'advisory' AND objid = 1000 AND NOT granted)");
    let (taken_over, ()) = tokio::join!(gate::guard(&mut newer, EPOCH + 1), async {
        pair.wait_for(Target, &waits).await;
        release(&holder).await;
    });
    taken_over.unwrap();
    let error = copying.await.unwrap().unwrap_err();
    assert!(matches!(error, PgError::Superseded(_)), "{error}");
    let there: i64 = pair.one(Target, "SELECT count(*) FROM big").await;
    assert!(there < 5000, "only what was under way: {there}");
    pair.wait_for_none("copy").await;
    take_away(&pair).await;
    let newer = Job { epoch: EPOCH + 1, ..in_parts(&pair) };
    assert_eq!(copy_rows(newer, Arc::default(), async |_: Snapshot| {}).await.unwrap().rows, ROWS + 2);
    pair.assert_equal().await;
    let (mut origin, mut destination) = pair.drivers(Stream::Forward).await;
    let soon = crate::ground::soon();
    cutover_postgres::stream::drop_stream(&mut origin, &mut destination, &pair.names, Stream::Forward, EPOCH + 1, soon).await.unwrap();
}
