//! Verification while both sides move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cutover_core::Lsn;
use cutover_postgres::verify::{Options, Report, Verdict};
use cutover_testkit::{Seed, eventually};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::ground::{Databases, ground, line, lines, small_chunks};

/// Cold rows are never written, hot ones all the time; keys of `queue` come and go, and `tally` has no key.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE cold (id int PRIMARY KEY, v text);
    CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL, filler text);
    CREATE TABLE queue (id int PRIMARY KEY, n int);
    CREATE TABLE tally (v text, n int);
    ALTER TABLE tally REPLICA IDENTITY FULL;
";
pub(crate) const ROWS: &str = "
    INSERT INTO cold SELECT i, 'v' || i FROM generate_series(-2000, 3000) i;
    INSERT INTO hot SELECT i, 0, repeat('x', 100) FROM generate_series(-100, 400) i;
    INSERT INTO tally SELECT 'v' || i, 0 FROM generate_series(1, 20) i;
";

/// Numbers that jump about, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 % sides.unsigned_abs()).unwrap()
    }
}

/// An application that writes until it is told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    rows: Arc<AtomicU64>,
    began: Instant,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) async fn start(database: &str, seed: Seed) -> Self {
        let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = Vec::new();
        for writer in 0..3 {
            let client = ground().await.authority.client(database).await.unwrap();
            let dice = Dice(seed.derive(writer).value() | 1);
            writers.push(tokio::spawn(write(client, dice, writer, stop.clone(), rows.clone())));
        }
        let load = Self { stop, rows, began: Instant::now(), writers };
        eventually(Duration::from_secs(10), || async { load.rows.load(Relaxed) > 500 }).await.unwrap();
        load
    }

    /// Ends it; rows written per second.
    pub(crate) async fn end(self) -> f64 {
        self.stop.store(true, Relaxed);
        let rate = self.rows.load(Relaxed) as f64 / self.began.elapsed().as_secs_f64();
        for writer in self.writers {
            writer.await.unwrap();
        }
        rate
    }
}

async fn write(client: Client, mut dice: Dice, writer: u64, stop: Arc<AtomicBool>, rows: Arc<AtomicU64>) {
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    // In the order of keys, so that writers do not deadlock.
    let update =
        "UPDATE hot SET n = n + 1 FROM (SELECT id FROM hot WHERE id BETWEEN $1 AND $1 + 4 ORDER BY id FOR UPDATE) l WHERE hot.id = l.id";
    let update = client.prepare(update).await.unwrap();
    let one = client.prepare("UPDATE hot SET n = 1 - n % 2 WHERE id = $1").await.unwrap();
    let insert = client.prepare("INSERT INTO queue VALUES ($1, $2) ON CONFLICT DO NOTHING").await.unwrap();
    let delete = client.prepare("DELETE FROM queue WHERE id = $1").await.unwrap();
    let count = client.prepare("UPDATE tally SET n = n + 1 WHERE v = $1").await.unwrap();
    let toggle = client.prepare("UPDATE tally SET n = 1 - n WHERE v = 'v2'").await.unwrap();
    while !stop.load(Relaxed) {
        let key = |roll: i64| i32::try_from(roll).unwrap();
        let mut done = client.execute(&update, &[&key(dice.roll(495) - 100)]).await.unwrap();
        // One row is the hottest, and has but two values.
        done += client.execute(&one, &[&0]).await.unwrap();
        let job = key(dice.roll(40) - 20);
        done += client.execute(&insert, &[&job, &key(dice.roll(3))]).await.unwrap();
        done += client.execute(&delete, &[&key(dice.roll(40) - 20)]).await.unwrap();
        if writer == 0 {
            done += client.execute(&count, &[&format!("v{}", dice.roll(18) + 3)]).await.unwrap();
            done += client.execute(&toggle, &[]).await.unwrap();
        }
        rows.fetch_add(done, Relaxed);
    }
}

pub(crate) fn options() -> Options {
    Options { jobs: 2, chunk_rows: 200, patience: Duration::from_secs(20), ..Options::default() }
}

/// What was found; only rows of these tables may be left unsettled.
#[track_caller]
fn found(report: &Report, moving: &[&str]) -> Vec<String> {
    for unsettled in &report.unsettled {
        assert!(moving.contains(&unsettled.table.name.as_str()), "{unsettled:?}");
    }
    let mut lines: Vec<_> = report.differences.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn d19_under_load_nothing_false_is_found_and_everything_true_is() {
    let mut databases = Databases::new("moving").await;
    databases.both(SCHEMA).await;
    databases.at_authority(ROWS).await;
    databases.follow().await;
    // Only in a table without a key there are rows that come and go too fast to be decided.
    under_load(databases, &["tally"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d19_where_the_stream_carries_no_looks_only_what_moves_all_the_time_is_left_unsettled() {
    let mut databases = Databases::new("moving_unlooked").await;
    databases.both(SCHEMA).await;
    databases.at_authority(ROWS).await;
    databases.follow_without_looks().await;
    under_load(databases, &["hot", "queue", "tally"]).await;
}

async fn under_load(databases: Databases, moving: &[&str]) {
    let seed = Seed::from_env_or_random();
    let load = Load::start(&databases.name, seed).await;
    let mut rechecked = 0;
    for round in 0..6 {
        let report = databases.verify(&options()).await;
        eprintln!(
            "round {round}: {} rows, {} re-checked, {} unsettled, {:.1} s",
            report.rows, report.rechecked_rows, report.unsettled_total, report.seconds
        );
        assert_eq!(found(&report, moving), [""; 0], "round {round}: {report:#?}");
        rechecked += report.rechecked_rows;
    }
    assert!(rechecked > 0, "the load did not make a single row differ at the first look, so nothing was tested");

    databases
        .at_follower(
            "UPDATE cold SET v = 'planted' WHERE id = 0; DELETE FROM cold WHERE id = 3000; INSERT INTO cold VALUES (-2001, 'planted'); \
             DELETE FROM hot WHERE id IN (0, 7); DELETE FROM tally WHERE v = 'v1'; INSERT INTO tally VALUES ('planted', 0); \
             INSERT INTO queue VALUES (100, 0); INSERT INTO hot VALUES (-101, 0)",
        )
        .await;
    let expected = [
        "cold id=-2001 extra",
        "cold id=0 differs in v",
        "cold id=3000 missing",
        "hot id=-101 extra",
        "hot id=0 missing",
        "hot id=7 missing",
        "queue id=100 extra",
        "tally * 0 times, 1 times",
        "tally * 1 times, 0 times",
    ];
    for round in 0..3 {
        let report = databases.verify(&options()).await;
        let found = found(&report, moving);
        assert!(found.iter().all(|line| expected.contains(&line.as_str())), "round {round}: {report:#?}");
        let left = |line: &&str| report.unsettled.iter().any(|unsettled| line.starts_with(&format!("{} ", unsettled.table.name)));
        let lacking: Vec<_> = expected.into_iter().filter(|line| !found.iter().any(|found| found == line)).collect();
        assert!(lacking.iter().all(left), "round {round}: {lacking:?} in {report:#?}");
        assert_eq!(report.verdict(), Verdict::Different);
    }
    let rate = load.end().await;
    eprintln!("{rate:.0} rows written per second");
    assert!(rate > 1000.0, "{rate:.0} rows per second are too few to prove anything");
    databases.caught_up().await;
    assert_eq!(lines(&databases.verify(&options()).await), expected, "and at rest it is the same");
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stopped_is_never_called_equal() {
    let mut databases = Databases::new("stopped").await;
    databases.both(SCHEMA).await;
    databases.at_authority(ROWS).await;
    databases.follow().await;
    databases.caught_up().await;
    databases.at_follower("ALTER SUBSCRIPTION stopped DISABLE").await;
    let load = Load::start(&databases.name, Seed::from_env_or_random()).await;
    let report = databases.verify(&Options { patience: Duration::from_secs(1), ..options() }).await;
    assert_eq!(report.verdict(), Verdict::Inconclusive, "{report:#?}");
    assert!(report.unsettled.iter().all(|unsettled| unsettled.why.contains("has not moved")), "{report:#?}");
    for table in ["hot", "tally"] {
        assert!(report.unsettled.iter().any(|unsettled| unsettled.table.name == table), "{table}: {report:#?}");
    }
    assert!(report.seconds < 20.0, "a follower that stopped is waited for once, not {} s", report.seconds);
    load.end().await;
    databases.at_follower("ALTER SUBSCRIPTION stopped ENABLE").await;
    databases.caught_up().await;
    let report = databases.verify(&options()).await;
    assert_eq!((lines(&report), report.verdict()), (Vec::new(), Verdict::Equal));
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_under_way_is_inconclusive() {
    let mut databases = Databases::new("copying").await;
    databases.both("CREATE TABLE done (id int PRIMARY KEY); CREATE TABLE under_way (id int PRIMARY KEY)").await;
    databases.at_authority("INSERT INTO done VALUES (1); INSERT INTO under_way VALUES (1)").await;
    databases.follow().await;
    databases.at_follower("UPDATE pg_subscription_rel SET srsubstate = 'd' WHERE srrelid = 'under_way'::regclass").await;
    let report = databases.verify(&small_chunks()).await;
    assert_eq!((report.verdict(), report.unsettled_total), (Verdict::Inconclusive, 1), "{report:#?}");
    assert_eq!(report.unsettled[0].table.name, "under_way");
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_claims_a_row_does_not_hide_or_invent_a_difference() {
    let mut databases = Databases::new("claimed").await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    databases.at_authority("INSERT INTO t SELECT i, 0 FROM generate_series(1, 60) i").await;
    databases.follow().await;
    databases.caught_up().await;
    databases.at_follower("UPDATE t SET v = 1 WHERE id IN (5, 40); DELETE FROM t WHERE id = 6; INSERT INTO t VALUES (0, 0)").await;
    // An open transaction holds a row that differs, a lock that is long gone has left its mark on another.
    databases.at_authority("BEGIN; SELECT FROM t WHERE id = 6 FOR KEY SHARE; ROLLBACK").await;
    databases.at_authority("BEGIN; UPDATE t SET v = 2 WHERE id = 5; INSERT INTO t VALUES (61, 0)").await;
    let report = databases.verify(&options()).await;
    let found: Vec<_> = report.differences.iter().map(line).collect();
    assert_eq!(found, ["t id=0 extra", "t id=40 differs in v", "t id=6 missing"]);
    let unsettled: Vec<_> = report.unsettled.iter().map(|unsettled| unsettled.key[0].1.as_str()).collect();
    assert_eq!(unsettled, ["5"], "the row that is held can't be decided: {report:#?}");
    databases.at_authority("ROLLBACK").await;
    let report = databases.verify(&options()).await;
    assert_eq!(lines(&report), ["t id=0 extra", "t id=40 differs in v", "t id=5 differs in v", "t id=6 missing"]);
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_authority_does_not_keep_a_difference_waiting() {
    let mut databases = Databases::new("idle").await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    databases.at_authority("INSERT INTO t SELECT i, 0 FROM generate_series(1, 60) i").await;
    databases.follow().await;
    databases.caught_up().await;
    databases.at_follower("UPDATE t SET v = 1 WHERE id = 30").await;
    // The position behind the last record is past the head of a page that is not written yet: it is never confirmed.
    fill_page(&databases.authority).await;
    let report = databases.verify(&Options { patience: Duration::from_secs(5), ..small_chunks() }).await;
    assert_eq!(lines(&report), ["t id=30 differs in v"]);
    // A commit that is not flushed yet is not confirmed either.
    databases.at_authority("SET synchronous_commit = off; UPDATE t SET v = 2 WHERE id = 31; RESET synchronous_commit").await;
    let report = databases.verify(&Options { patience: Duration::from_secs(5), ..small_chunks() }).await;
    assert_eq!(lines(&report), ["t id=30 differs in v"]);
    databases.end().await;
}

/// Writes log until the next record would begin right behind the head of a page.
async fn fill_page(client: &Client) {
    const PAGE: i32 = 8192;
    const HEAD: i32 = 24;
    // What a message takes beside its text differs by version, so several sizes are tried.
    for besides in (40..90).cycle().take(500) {
        let at = offset(client).await;
        if at == HEAD {
            return;
        }
        let left = PAGE - at - besides;
        let length = if left > 300 { left } else { 1000 };
        client.batch_execute(&format!("SELECT pg_logical_emit_message(false, 'p', repeat('x', {length}))")).await.unwrap();
    }
    panic!("no record ended at the end of a page");
}

async fn offset(client: &Client) -> i32 {
    let lsn: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
    i32::try_from(lsn.parse::<Lsn>().unwrap().0 % 8192).unwrap()
}
