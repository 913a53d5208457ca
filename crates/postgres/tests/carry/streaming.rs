//! The stream: what it carries, when it flows, and what it says of itself where it does not.

use cutover_core::{
    Side::{Source, Target},
    Stream::{self, Forward, Reverse},
};
use cutover_postgres::{PgError, PgResult, gate, stream};
use cutover_testkit::{Cluster, ClusterOptions, install};
use tokio::time::Instant;

use crate::ground::{EPOCH, LIMIT, Pair, assert_says, soon};

/// A small table, carried over and followed.
async fn following(name: &str) -> Pair {
    let pair = Pair::new(name).await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await;
    pair.carry().await;
    pair.follow(Forward).await;
    pair
}

async fn make_slot(pair: &Pair, stream: Stream) -> PgResult<()> {
    stream::create_slot(&mut pair.driver(stream.origin()).await, &pair.names, stream, EPOCH, soon()).await
}

/// The way back, made and not enabled.
async fn way_back(pair: &Pair) {
    pair.publish(Reverse).await;
    make_slot(pair, Reverse).await.unwrap();
    pair.try_subscribe(Reverse, EPOCH).await.unwrap();
}

async fn advance(pair: &Pair, stream: Stream) -> PgResult<cutover_core::Lsn> {
    let (mut origin, mut destination) = pair.drivers(stream).await;
    stream::advance(&mut origin, &mut destination, &pair.names, stream, EPOCH, soon()).await
}

#[tokio::test]
async fn what_is_published_is_what_holds_rows() {
    let pair = Pair::new("published").await;
    let sql = "
        CREATE TABLE parts (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);
        CREATE TABLE parts_1_rest PARTITION OF parts_1 DEFAULT; CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
        CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
        CREATE SCHEMA \"O'dd\"; CREATE TABLE \"O'dd\".\"A \"\"table\"\", really\" (id int PRIMARY KEY);
        CREATE UNLOGGED TABLE unlogged (id int); CREATE VIEW shown AS SELECT 1; CREATE MATERIALIZED VIEW held AS SELECT 1; CREATE SEQUENCE counted;
        CREATE EXTENSION hstore; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (id int) SERVER s;
        CREATE TABLE of_an_extension (id int); ALTER EXTENSION hstore ADD TABLE of_an_extension; CREATE TEMPORARY TABLE passing (id int);
    ";
    pair.sql(Source, sql).await;
    pair.install().await;
    let added = pair.publish(Forward).await;
    let expected = [
        "\"O'dd\".\"A \"\"table\"\", really\"",
        "\"public\".\"child\"",
        "\"public\".\"parent\"",
        "\"public\".\"parts_1_rest\"",
        "\"public\".\"parts_rest\"",
        "\"cutover\".\"marker\"",
        "\"cutover\".\"look\"",
    ];
    assert_eq!(added, expected.map(|table| format!("added {table}")));
    assert_eq!(pair.publish(Forward).await, [""; 0], "it is as it should be");

    pair.sql(
        Source,
        "CREATE TABLE late (id int PRIMARY KEY); CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20); DROP TABLE child",
    )
    .await;
    pair.sql(Source, &format!("ALTER PUBLICATION {} ADD TABLE cutover.flush", pair.names.publication(Forward))).await;
    let changes = ["added \"public\".\"late\"", "added \"public\".\"parts_2\"", "dropped \"cutover\".\"flush\""];
    assert_eq!(pair.publish(Forward).await, changes);
    let kinds = format!(
        "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot AND NOT puballtables FROM pg_publication WHERE pubname = '{}'",
        pair.names.publication(Forward)
    );
    assert!(pair.one::<bool>(Source, &kinds).await);
    pair.drop_streams().await;
    assert_eq!(pair.one::<i64>(Source, "SELECT count(*) FROM pg_publication").await, 0);
}

/// Changes of a stream that is stopped wait in its slot; a worker that lives on after DISABLE would apply them.
#[tokio::test]
async fn nothing_is_applied_once_a_stream_is_disabled() {
    let pair = following("disabled").await;
    for round in 0..3 {
        pair.sql(Source, &format!("INSERT INTO t SELECT {round} * 1000 + n, repeat('x', 1000) FROM generate_series(10, 500) n")).await;
        pair.disable(Forward).await;
        let workers =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'logical replication%'";
        assert_eq!(pair.one::<i64>(Target, workers).await, 0);
        let there: i64 = pair.one(Target, "SELECT count(*) FROM t").await;
        pair.sql(Source, &format!("INSERT INTO t VALUES (-{round} - 1, 'later')")).await;
        pair.wait_for(Source, &format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'", pair.names.slot(Forward)))
            .await;
        assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM t").await, there);
        // Again: it is disabled already.
        pair.disable(Forward).await;
        pair.try_enable(Forward, EPOCH).await.unwrap();
        pair.caught_up(Forward).await;
        pair.assert_equal().await;
    }
    pair.try_enable(Forward, EPOCH).await.unwrap();
    pair.drop_streams().await;
    pair.drop_streams().await;
    for side in [Source, Target] {
        let left = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication) \
             + (SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database())";
        assert_eq!(pair.one::<i64>(side, left).await, 0, "{side}");
    }
    pair.disable(Forward).await;
}

/// A worker that waits for a lock does not hear that it is disabled; it would apply when it gets the lock.
#[tokio::test]
async fn a_worker_that_is_stuck_is_ended_before_the_stream_counts_as_stopped() {
    let pair = following("stuck").await;
    let obstacle = pair.session(Target).await;
    obstacle.batch_execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    pair.sql(Source, "INSERT INTO t VALUES (2, 'b')").await;
    let workers = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'logical replication%'";
    pair.wait_for(Target, &format!("SELECT bool_or(wait_event_type = 'Lock') {workers}")).await;
    pair.disable(Forward).await;
    assert_eq!(pair.one::<i64>(Target, &format!("SELECT count(*) {workers}")).await, 0);
    obstacle.batch_execute("COMMIT").await.unwrap();
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM t").await, 1);
    pair.try_enable(Forward, EPOCH).await.unwrap();
    pair.caught_up(Forward).await;
    assert_eq!(pair.assert_equal().await["\"public\".\"t\""], 2, "what it was applying came again");
    pair.drop_streams().await;
}

/// vitess#9400 and "slot not advanced": what the forward stream applied at the target is in the reverse slot too.
#[tokio::test]
async fn slot_not_advanced_the_reverse_stream_repeats_nothing_that_came_from_the_source() {
    let pair = following("advanced").await;
    way_back(&pair).await;
    pair.sql(Source, "INSERT INTO t SELECT n, 'b' FROM generate_series(2, 40) n; UPDATE t SET v = 'c'; DELETE FROM t WHERE id = 40").await;
    pair.caught_up(Forward).await;
    let pending = format!(
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('{}', NULL, NULL, 'proto_version', '1', 'publication_names', '{}') \
         WHERE get_byte(data, 0) IN (73, 85, 68)",
        pair.names.slot(Reverse),
        pair.names.publication(Reverse)
    );
    assert!(pair.one::<i64>(Target, &pending).await > 39 + 40, "it would all be repeated");
    pair.disable(Forward).await;
    let reached = advance(&pair, Reverse).await.unwrap();
    assert_eq!(pair.one::<i64>(Target, &pending).await, 0);
    let noted = "SELECT max(remote_lsn)::text FROM pg_replication_origin_status";
    assert_eq!(
        pair.one::<String>(Source, &format!("{noted} WHERE remote_lsn = '{reached}'")).await,
        reached.to_string(),
        "the source has noted it"
    );
    // What the application writes at the target now arrives, and nothing jams.
    pair.try_enable(Reverse, EPOCH).await.unwrap();
    pair.sql(Target, "INSERT INTO t VALUES (1000, 'after the switch'); UPDATE t SET v = 'd' WHERE id = 1; DELETE FROM t WHERE id = 2")
        .await;
    pair.caught_up(Reverse).await;
    assert_eq!(pair.assert_equal().await["\"public\".\"t\""], 39);
    let errors = "SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats s WHERE subname LIKE '%advanced_reverse'";
    assert_eq!(pair.one::<i64>(Source, errors).await, 0);
    assert_eq!(pair.check(Reverse).await, [""; 0]);
    let error = advance(&pair, Reverse).await.unwrap_err();
    assert_says(&error.to_string(), &["reverse stream flows"]);
    // And back again: each direction is left off and taken up where it was.
    pair.disable(Reverse).await;
    advance(&pair, Forward).await.unwrap();
    pair.try_enable(Forward, EPOCH).await.unwrap();
    pair.sql(Source, "INSERT INTO t VALUES (1001, 'back')").await;
    pair.caught_up(Forward).await;
    assert_eq!(pair.assert_equal().await["\"public\".\"t\""], 40);
    pair.drop_streams().await;
}

#[tokio::test]
async fn check_names_what_is_not_carried() {
    let pair = following("checked").await;
    assert_eq!(pair.check(Forward).await, [""; 0]);
    let check = async |words: &[&str]| {
        let problems = pair.check(Forward).await;
        assert_says(&problems.join("\n"), words);
        assert_eq!(problems.len(), 1, "{problems:#?}");
    };
    let both = "CREATE TABLE late (id int PRIMARY KEY)";
    pair.sql(Source, both).await;
    pair.sql(Target, both).await;
    check(&["\"public\".\"late\" is not published at the source"]).await;
    pair.publish(Forward).await;
    check(&["the target does not replicate \"public\".\"late\"", "not refreshed"]).await;
    // A stream that flows keeps its subscription; one that is disabled is made anew.
    pair.try_subscribe(Forward, EPOCH).await.unwrap();
    check(&["not refreshed"]).await;
    pair.disable(Forward).await;
    pair.try_subscribe(Forward, EPOCH).await.unwrap();
    check(&["nobody reads the slot", &pair.names.slot(Forward), "at the target does not run"]).await;
    pair.try_enable(Forward, EPOCH).await.unwrap();
    pair.sql(Source, "INSERT INTO late VALUES (1); INSERT INTO t VALUES (2, 'kept its place')").await;
    pair.caught_up(Forward).await;
    pair.assert_equal().await;
    assert_eq!(pair.check(Forward).await, [""; 0]);

    let state = |state: char| format!("UPDATE pg_subscription_rel SET srsubstate = '{state}' WHERE srrelid = 'late'::regclass");
    pair.disable(Forward).await;
    pair.sql(Target, &state('d')).await;
    let problems = pair.check(Forward).await;
    assert_says(&problems.join("\n"), &["\"public\".\"late\" is in state `d` at the target, not `r`", "nobody reads"]);
    pair.sql(Target, &state('r')).await;
    pair.try_enable(Forward, EPOCH).await.unwrap();

    pair.sql(Source, &format!("ALTER PUBLICATION {} ADD TABLE cutover.flush", pair.names.publication(Forward))).await;
    assert_says(&pair.check(Forward).await.join("\n"), &["\"cutover\".\"flush\" is published and should not be"]);
    pair.publish(Forward).await;
    pair.sql(Source, "CREATE SEQUENCE numbers").await;
    check(&["the target has no sequence public.numbers"]).await;
    pair.sql(Target, "CREATE SEQUENCE numbers").await;

    stream::drop_slot(&mut pair.driver(Source).await, &pair.names, Forward, EPOCH).await.unwrap();
    check(&["the source has no slot", &pair.names.slot(Forward)]).await;
    let error = pair.try_enable(Forward, EPOCH).await.unwrap_err();
    assert_says(&error.to_string(), &["the source has no slot"]);
    pair.drop_streams().await;
}

/// What a subscription applied is told to its slot a moment later; one that is made anew in between must not repeat it.
#[tokio::test]
async fn a_subscription_that_is_made_anew_goes_on_where_it_was() {
    let pair = following("made_anew").await;
    // As after a crash of the source, which writes down a slot's position now and then only.
    let (slot, behind) = (pair.names.slot(Forward), "cutover_made_anew_behind");
    pair.sql(Source, &format!("SELECT pg_copy_logical_replication_slot('{slot}', '{behind}')")).await;
    pair.sql(Source, "INSERT INTO t SELECT n, 'once' FROM generate_series(10, 60) n").await;
    pair.caught_up(Forward).await;
    pair.disable(Forward).await;
    pair.wait_for(Source, &format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
    let set_back = [
        "pg_drop_replication_slot('{slot}')",
        "pg_copy_logical_replication_slot('{behind}', '{slot}')",
        "pg_drop_replication_slot('{behind}')",
    ];
    for call in set_back {
        pair.sql(Source, &format!("SELECT {}", call.replace("{slot}", &slot).replace("{behind}", behind))).await;
    }
    let late = "CREATE TABLE late (id int PRIMARY KEY)";
    pair.sql(Source, late).await;
    pair.sql(Target, late).await;
    pair.publish(Forward).await;
    pair.follow(Forward).await;
    pair.sql(Source, "INSERT INTO late VALUES (1)").await;
    pair.caught_up(Forward).await;
    pair.assert_equal().await;
    let errors = "SELECT apply_error_count FROM pg_stat_subscription_stats WHERE subname = 'cutover_made_anew_forward'";
    assert_eq!(pair.one::<i64>(Target, errors).await, 0);
    pair.drop_streams().await;
}

#[tokio::test]
async fn tables_made_since_the_last_look_are_found_by_one_query() {
    let pair = following("made_since").await;
    way_back(&pair).await;
    let driver = pair.driver(Target).await;
    assert_eq!(stream::unpublished(&driver, &pair.names, Reverse).await.unwrap(), [""; 0]);
    pair.sql(Target, "CREATE TABLE full_one (id int PRIMARY KEY); INSERT INTO full_one VALUES (1); CREATE TABLE \"empty, one\" (); CREATE UNLOGGED TABLE u (id int)").await;
    let made = stream::unpublished(&driver, &pair.names, Reverse).await.unwrap();
    assert_eq!(made, ["\"public\".\"empty, one\"", "\"public\".\"full_one\""]);
    assert_eq!(stream::holding_rows(&driver, made).await.unwrap(), ["\"public\".\"full_one\""]);
    let (origin, destination) = pair.drivers(Reverse).await;
    assert_eq!(stream::missing(&origin, &destination).await.unwrap(), ["\"public\".\"empty, one\"", "\"public\".\"full_one\""]);
    pair.drop_streams().await;
}

/// A policy that hides rows from us is not an empty table.
#[tokio::test]
async fn rows_that_are_hidden_from_us_are_not_taken_for_none() {
    let pair = Pair::new("hidden_rows").await;
    pair.sql(
        Source,
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON t USING (false)",
    )
    .await;
    pair.sql(
        Source,
        "DO $$ BEGIN CREATE ROLE st_reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT SELECT ON t TO st_reader",
    )
    .await;
    let reader = pair.session(Source).await;
    reader.batch_execute("SET SESSION AUTHORIZATION st_reader").await.unwrap();
    let error = stream::holding_rows(&reader, vec!["\"public\".\"t\"".to_owned()]).await.unwrap_err();
    assert_says(&error.to_string(), &["looking into \"public\".\"t\"", "row-level security", "42501"]);
    let setting: String = reader.query_one("SHOW row_security", &[]).await.unwrap().get(0);
    assert_eq!(setting, "on", "the session stays as it was");
}

/// The session of the driver must be of use after a time-out, and the time-out tell whom it waited for.
#[tokio::test]
async fn a_slot_that_waits_too_long_names_the_transaction_and_leaves_nothing() {
    let pair = Pair::new("waiting_slot").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.install().await;
    let slow = pair.session(Target).await;
    slow.batch_execute("SET application_name = 'nightly report'; BEGIN; CREATE TEMPORARY TABLE x (id int)").await.unwrap();
    let mut driver = pair.driver(Target).await;
    let deadline = Instant::now() + std::time::Duration::from_millis(600);
    let error = stream::create_slot(&mut driver, &pair.names, Reverse, EPOCH, deadline).await.unwrap_err();
    assert!(matches!(error, PgError::TimedOut { .. }), "{error}");
    assert_says(&error.to_string(), &[&pair.names.slot(Reverse), "nightly report", "waiting_slot", "postgres"]);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    let row = tokio::time::timeout(LIMIT, driver.query_one(slots, &[])).await.unwrap().unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "the session answers, and no half-made slot is left");
    slow.batch_execute("COMMIT").await.unwrap();
    stream::create_slot(&mut driver, &pair.names, Reverse, EPOCH, soon()).await.unwrap();
    let made = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
    let position: String = pair.one(Target, made).await;
    pair.sql(Target, "CREATE TABLE y (id int); INSERT INTO y VALUES (1)").await;
    stream::create_slot(&mut driver, &pair.names, Reverse, EPOCH, soon()).await.unwrap();
    assert_eq!(pair.one::<String>(Target, made).await, position, "a healthy slot is kept where it is");
    pair.drop_streams().await;
}

/// What is fenced out of a database does nothing there, by whatever door.
#[tokio::test]
async fn an_older_epoch_moves_no_stream() {
    let pair = following("superseded").await;
    way_back(&pair).await;
    let before = pair.check(Forward).await;
    for side in [Source, Target] {
        gate::guard(&mut pair.driver(side).await, EPOCH + 1).await.unwrap();
    }
    let superseded = |what: &str, result: PgResult<()>| assert!(matches!(result, Err(PgError::Superseded(_))), "{what}: {result:?}");
    for stream in [Forward, Reverse] {
        let (mut origin, mut destination) = pair.drivers(stream).await;
        superseded("publish", pair.try_publish(stream, EPOCH).await.map(drop));
        superseded("subscribe", pair.try_subscribe(stream, EPOCH).await);
        superseded("enable", pair.try_enable(stream, EPOCH).await);
        superseded("drop_slot", stream::drop_slot(&mut origin, &pair.names, stream, EPOCH).await);
        superseded("disable", stream::disable(&mut destination, &pair.names, stream, EPOCH, soon()).await);
        superseded("drop_stream", stream::drop_stream(&mut origin, &mut destination, &pair.names, stream, EPOCH, soon()).await);
    }
    superseded("advance", advance(&pair, Reverse).await.map(drop));
    superseded("copy_rows", pair.copy_rows().await.map(drop));
    superseded("indexes", pair.indexes().await.map(drop));
    let fresh = cutover_postgres::names::Names::new("another plan's");
    let mut driver = pair.driver(Target).await;
    superseded("create_slot", stream::create_slot(&mut driver, &fresh, Reverse, EPOCH, soon()).await);
    pair.sql(Source, "INSERT INTO t VALUES (2, 'b')").await;
    pair.wait_for(Target, "SELECT count(*) = 2 FROM t").await;
    assert_eq!(pair.check(Forward).await, before, "all is as it was");
    for stream in [Forward, Reverse] {
        let (mut origin, mut destination) = pair.drivers(stream).await;
        stream::drop_stream(&mut origin, &mut destination, &pair.names, stream, EPOCH + 1, soon()).await.unwrap();
    }
}

/// A slot whose log was removed is said to be lost; nothing flows from it any more, and a new one can be made.
#[tokio::test]
async fn a_slot_that_lost_its_log_is_called_lost() {
    let options = ClusterOptions::named("lossy").not_durable().set("max_slot_wal_keep_size", "1MB").set("min_wal_size", "32MB");
    let cluster = Cluster::start(&install(16).unwrap(), options.set("max_wal_size", "32MB").set("autovacuum", "off")).await.unwrap();
    cluster.create_database("lost").await.unwrap();
    let url = cutover_core::plan::DatabaseUrl::parse(&cluster.url("postgres", "lost")).unwrap();
    let mut driver = cutover_postgres::connect::connect(&url, &cutover_postgres::connect::Purpose::new("driver")).await.unwrap();
    let names = cutover_postgres::names::Names::new("lost");
    gate::install(&mut driver, "lost", Source, EPOCH).await.unwrap();
    let other = cluster.client("lost").await.unwrap();
    stream::publish(&mut driver, &other, &names, Forward, EPOCH).await.unwrap();
    stream::create_slot(&mut driver, &names, Forward, EPOCH, soon()).await.unwrap();
    let fill = "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 20)";
    for _ in 0..3 {
        other.batch_execute(&format!("{fill}; SELECT pg_switch_wal()")).await.unwrap();
        other.batch_execute("CHECKPOINT").await.unwrap();
    }
    let slot = names.slot(Forward);
    let problems = stream::check(&driver, &other, &names, Forward).await.unwrap().join("\n");
    assert_says(&problems, &[&format!("the slot {slot} is lost"), "the copy must be made again"]);
    let conninfo = url.conninfo();
    let mut subscriber = cluster.client("lost").await.unwrap();
    stream::subscribe(&driver, &mut subscriber, &names, Forward, &conninfo, EPOCH).await.unwrap();
    let error = stream::enable(&driver, &mut subscriber, &names, Forward, EPOCH, soon()).await.unwrap_err();
    assert_says(&error.to_string(), &["the source's slot", "is lost"]);
    stream::disable(&mut subscriber, &names, Forward, EPOCH, soon()).await.unwrap();
    stream::create_slot(&mut driver, &names, Forward, EPOCH, soon()).await.unwrap();
    let status: String = other.query_one("SELECT wal_status FROM pg_replication_slots", &[]).await.unwrap().get(0);
    assert_eq!(status, "reserved", "a lost slot is made anew");
    stream::drop_stream(&mut driver, &mut subscriber, &names, Forward, EPOCH, soon()).await.unwrap();
}
