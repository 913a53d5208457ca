//! The rows that change while a switch is prepared: gathered from the stream, and compared by their keys.

use std::time::Duration;

use cutover_core::{
    Side::{Source, Target},
    Stream::Forward,
};
use cutover_postgres::{
    PgError, PgResult, gate,
    verify::{Changes, Compared, MOST_IN_PAUSE, Options, Sides},
};
use cutover_testkit::eventually;
use tokio::time::Instant;

use crate::ground::{EPOCH, Pair, soon};

/// Tables of every kind of key.
const TABLES: &str = "
    CREATE TABLE plain (id int PRIMARY KEY, v text);
    CREATE TABLE pair (a int, b text, v text, PRIMARY KEY (b, a));
    CREATE TABLE \"Odd \"\"name\" (\"The Key\" text PRIMARY KEY, v text);
    CREATE TABLE parts (id int, at int, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE whole (id int PRIMARY KEY, v text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE indexed (v text, id int NOT NULL);
    CREATE UNIQUE INDEX indexed_id ON indexed (id);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_id;
    CREATE TABLE keyless (v text);
    ALTER TABLE keyless REPLICA IDENTITY FULL;";

const ROWS: &str = "
    INSERT INTO plain SELECT i, 'v' FROM generate_series(-50, 50) i;
    INSERT INTO pair SELECT i, 'x,\"' || i, 'v' FROM generate_series(1, 50) i;
    INSERT INTO \"Odd \"\"name\" SELECT '{' || i || '\\, NULL', 'v' FROM generate_series(1, 50) i;
    INSERT INTO parts SELECT i, i % 20, 'v' FROM generate_series(1, 50) i;
    INSERT INTO whole SELECT i, 'v' FROM generate_series(1, 50) i;
    INSERT INTO indexed SELECT 'v', i FROM generate_series(1, 50) i;
    INSERT INTO keyless SELECT 'v' || i FROM generate_series(1, 50) i;";

/// Copied and followed.
async fn following(database: &str) -> Pair {
    let pair = Pair::new(database).await;
    pair.sql(Source, TABLES).await;
    pair.sql(Source, ROWS).await;
    pair.carry().await;
    pair.follow(Forward).await;
    pair.caught_up(Forward).await;
    pair
}

async fn watch(pair: &Pair) -> Changes {
    let sides = Sides { authority: &pair.source_url, follower: &pair.target_url, authority_side: Source, following: None };
    let options = Options { patience: Duration::from_secs(10), ..Options::default() };
    Changes::begin(&sides, &pair.names, Forward, &options).await.unwrap()
}

/// What the pause does: a marker, applied, and then the comparison.
async fn compare(pair: &Pair, changes: &mut Changes) -> PgResult<Compared> {
    let (mut origin, destination) = pair.drivers(Forward).await;
    let marker = format!("{:?}", Instant::now());
    gate::write_marker(&mut origin, EPOCH, &marker).await.unwrap();
    gate::await_marker(&destination, &marker, soon()).await.unwrap();
    changes.compare(&marker, soon()).await
}

/// As nobody should: past the gate, and unseen by the stream.
async fn meddle(pair: &Pair, sql: &str) {
    pair.sql(Target, &format!("SET session_replication_role = replica; {sql}")).await;
}

fn lines(compared: &Compared) -> Vec<String> {
    assert_eq!((compared.differences_total, &compared.unsettled), (compared.differences.len() as u64, &Vec::new()), "{compared:#?}");
    let mut lines: Vec<_> = compared.differences.iter().map(ToString::to_string).collect();
    lines.sort_unstable();
    lines
}

async fn slots(pair: &Pair) -> i64 {
    pair.one(Source, &format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'", pair.names.changed_slot())).await
}

/// One row of each table, of its own key.
const TOUCH: &str = "
    UPDATE plain SET v = 'w' WHERE id = -7; UPDATE pair SET v = 'w' WHERE a = 7; UPDATE \"Odd \"\"name\" SET v = 'w' WHERE \"The Key\" LIKE '{7\\\\%';
    UPDATE parts SET v = 'w' WHERE id IN (7, 17); UPDATE whole SET v = 'w' WHERE id = 7; UPDATE indexed SET v = 'w' WHERE id = 7;";

/// An UPDATE of a row that is missing there is skipped without a word.
const LOSE: &str = "
    DELETE FROM plain WHERE id = -7; DELETE FROM pair WHERE a = 7; DELETE FROM \"Odd \"\"name\" WHERE \"The Key\" LIKE '{7\\\\%';
    DELETE FROM parts WHERE id IN (7, 17); DELETE FROM whole WHERE id = 7; DELETE FROM indexed WHERE id = 7;";

fn lost() -> Vec<String> {
    let missing = |row: &str| format!("public.{row}: missing at the follower");
    [
        "Odd \"name (The Key {7\\, NULL)",
        "indexed (id 7)",
        "pair (b x,\"7, a 7)",
        "parts_1 (at 7, id 7)",
        "parts_2 (at 17, id 17)",
        "plain (id -7)",
        "whole (id 7)",
    ]
    .map(missing)
    .to_vec()
}

#[tokio::test]
async fn b16_a_row_of_any_key_that_is_touched_and_lost_at_the_follower_is_named() {
    let pair = following("changing_kinds").await;
    let mut changes = watch(&pair).await;
    pair.sql(Source, TOUCH).await;
    let compared = changes.settle(soon()).await.unwrap();
    assert_eq!((lines(&compared), compared.keys), (Vec::new(), 7), "{compared:#?}");

    meddle(&pair, LOSE).await;
    let untouched = changes.settle(soon()).await.unwrap();
    assert_eq!((lines(&untouched), untouched.keys), (Vec::new(), 0), "what nobody touched is the verification's to find");
    pair.sql(Source, TOUCH).await;
    assert_eq!(lines(&changes.settle(soon()).await.unwrap()), lost(), "before the pause");
    assert_eq!(lines(&compare(&pair, &mut changes).await.unwrap()), lost(), "and in it, because nobody mended them");

    drop(changes);
    let mut at_once = watch(&pair).await;
    pair.sql(Source, TOUCH).await;
    let compared = compare(&pair, &mut at_once).await.unwrap();
    assert_eq!((lines(&compared), compared.tables), (lost(), 0), "in the pause alone");
    pair.drop_streams().await;
}

#[tokio::test]
async fn b16_inserts_deletes_and_new_keys_are_compared_under_both_keys() {
    let pair = following("changing_changes").await;
    let mut changes = watch(&pair).await;
    let sql = "INSERT INTO plain VALUES (1001, 'new'), (1002, NULL); DELETE FROM pair WHERE a IN (1, 2); \
         UPDATE plain SET id = id + 2000 WHERE id IN (1, 2); UPDATE parts SET at = 15 WHERE id = 3; DELETE FROM whole WHERE id = 9; \
         INSERT INTO keyless VALUES ('new')";
    pair.sql(Source, sql).await;
    let compared = compare(&pair, &mut changes).await.unwrap();
    assert_eq!(lines(&compared), Vec::<String>::new());
    assert_eq!((compared.keys, compared.tables), (2 + 2 + 4 + 2 + 1, 1), "{compared:#?}");
    assert!(compared.unchecked.is_empty(), "{compared:#?}");
    let again = compare(&pair, &mut changes).await.unwrap();
    assert_eq!((again.keys, again.tables), (0, 0), "each is compared once");

    pair.sql(Source, &sql.replace("1001", "1003").replace("1002", "1004").replace("(1, 2)", "(4, 5)").replace("id = 9", "id = 8")).await;
    pair.caught_up(Forward).await;
    meddle(
        &pair,
        "INSERT INTO plain VALUES (4, 'old'); UPDATE plain SET v = 'broken' WHERE id = 1003; DELETE FROM plain WHERE id = 2005; \
         INSERT INTO pair VALUES (4, 'x,\"4', 'v'); INSERT INTO whole VALUES (8, 'v'); DELETE FROM keyless WHERE v = 'new'",
    )
    .await;
    let compared = compare(&pair, &mut changes).await.unwrap();
    let mut found = lines(&compared);
    let keyless: Vec<_> = found.iter().filter(|line| line.starts_with("public.keyless")).cloned().collect();
    assert!(keyless[0].ends_with("2 times at the authority, 0 times at the follower") && keyless.len() == 1, "{keyless:?}");
    found.retain(|line| !line.starts_with("public.keyless"));
    let expected = [
        "public.pair (b x,\"4, a 4): at the follower only",
        "public.plain (id 1003): differs in v",
        "public.plain (id 2005): missing at the follower",
        "public.plain (id 4): at the follower only",
        "public.whole (id 8): at the follower only",
    ];
    assert_eq!(found, expected);
    pair.drop_streams().await;
}

#[tokio::test]
async fn b16_an_emptied_table_is_compared_as_a_whole() {
    let pair = following("changing_truncate").await;
    let mut changes = watch(&pair).await;
    pair.sql(Source, "TRUNCATE plain, parts_1; INSERT INTO plain VALUES (1, 'after')").await;
    let compared = compare(&pair, &mut changes).await.unwrap();
    assert_eq!((lines(&compared), compared.tables), (Vec::new(), 2), "{compared:#?}");
    pair.sql(Source, "TRUNCATE plain").await;
    pair.caught_up(Forward).await;
    meddle(&pair, "INSERT INTO plain VALUES (5, 'left over')").await;
    let left_over = ["public.plain (id 5): at the follower only"];
    assert_eq!(lines(&changes.settle(soon()).await.unwrap()), left_over, "before the pause");
    drop(changes);
    let mut changes = watch(&pair).await;
    pair.sql(Source, "TRUNCATE plain").await;
    pair.caught_up(Forward).await;
    meddle(&pair, "INSERT INTO plain VALUES (5, 'left over')").await;
    assert_eq!(lines(&compare(&pair, &mut changes).await.unwrap()), left_over, "in the pause");
    pair.drop_streams().await;
}

/// A burst that does not fit into the pause ends it; before the pause any number is compared.
#[tokio::test]
async fn b16_more_than_fits_into_a_pause_is_compared_before_it() {
    let pair = following("changing_bound").await;
    let mut changes = watch(&pair).await;
    let many = MOST_IN_PAUSE * 4;
    pair.sql(Source, &format!("INSERT INTO plain SELECT i, repeat('x', 300) FROM generate_series(100, {}) i", 99 + many)).await;
    match compare(&pair, &mut changes).await {
        Err(PgError::TimedOut { doing, .. }) => assert!(doing.contains(&format!("{MOST_IN_PAUSE} fit into a pause")), "{doing}"),
        other => panic!("{other:?}"),
    }
    let compared = changes.settle(soon()).await.unwrap();
    assert_eq!((lines(&compared), compared.keys), (Vec::new(), many as u64));
    assert_eq!(compare(&pair, &mut changes).await.unwrap().keys, 0);
    pair.drop_streams().await;
}

/// Nothing is held while it waits for the stream, rows change all the time, and none of them is called different.
#[tokio::test]
async fn b16_rows_that_change_all_the_time_are_never_called_different() {
    let pair = following("changing_hot").await;
    let mut changes = watch(&pair).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (client, stop) = (pair.session(Source).await, stop.clone());
        writers.push(tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                count += 1;
                let sql = format!(
                    "UPDATE plain SET v = v || '{writer}' WHERE id = {0}; DELETE FROM whole WHERE id = {0}; INSERT INTO whole VALUES ({0}, '{writer}') \
                     ON CONFLICT DO NOTHING; UPDATE pair SET v = '{count}' WHERE a = {0}",
                    1 + count % 10
                );
                client.batch_execute(&sql).await.unwrap();
            }
        }));
    }
    let mut keys = 0;
    for _ in 0..15 {
        let compared = changes.settle(soon()).await.unwrap();
        assert_eq!(lines(&compared), Vec::<String>::new());
        keys += compared.keys;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(keys > 100, "{keys}");
    assert_eq!(lines(&compare(&pair, &mut changes).await.unwrap()), Vec::<String>::new());
    pair.drop_streams().await;
}

#[tokio::test]
async fn the_temporary_slot_waits_for_no_transaction_and_goes_with_its_session() {
    let pair = following("changing_slot").await;
    let writer = pair.session(Source).await;
    writer.batch_execute("BEGIN; UPDATE plain SET v = 'slow' WHERE id = 1").await.unwrap();
    let first = watch(&pair).await;
    assert_eq!(slots(&pair).await, 1);
    let sides = Sides { authority: &pair.source_url, follower: &pair.target_url, authority_side: Source, following: None };
    let options = Options::default();
    let second = Changes::begin(&sides, &pair.names, Forward, &options);
    let mut second = std::pin::pin!(second);
    // Its name is taken until the first session is gone.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(early.is_err());
    drop(first);
    let mut second = second.await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(second.settle(soon()).await.unwrap().keys, 1, "it committed after we began");
    assert!(second.follows(Forward));
    pair.sql(
        Source,
        &format!("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'", pair.names.changed_slot()),
    )
    .await;
    eventually(Duration::from_secs(10), || async { !second.follows(Forward) }).await.unwrap();
    assert!(second.settle(soon()).await.unwrap_err().is_disconnect());
    drop(second);
    eventually(Duration::from_secs(10), || async { slots(&pair).await == 0 }).await.unwrap();
    pair.drop_streams().await;
}
