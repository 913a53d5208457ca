//! The network breaks, servers fail over, the driver stands still at the worst moment: one writer, nothing lost.

use std::time::{Duration, Instant};

use cutover_testkit::{Cluster, eventually};

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(60);

/// The promoted standby is another timeline, never heard of the fence and has no slot: nothing is committed, the old
/// side takes writes again, and what is lost is said: the copy, not a write.
#[tokio::test]
async fn a_source_that_fails_over_to_a_standby_without_the_fence_keeps_the_writes() {
    let world = World::by_road("[pause]\nbudget = \"60s\"\nattempts = 1").await;
    world.ready().await;
    let standby = world.source.basebackup_standby("standby").await.unwrap();
    let here: String = world.ask(&world.source, "SELECT pg_current_wal_insert_lsn()").await;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{here}'::pg_lsn");
    eventually(SOON, || async { world.ask(&standby, &replayed).await == "true" }).await.unwrap();
    deafen(&standby).await;

    let stopped = world.cutover_stopped(&["run"], "drained").await;
    world.source.crash().await.unwrap();
    standby.promote().await.unwrap();
    world.roads[0].lead_to(format!("127.0.0.1:{}", standby.port())).await.unwrap();
    let said = stopped.resume().await.code(1).says("writes go on at the source");
    assert!(said.err.contains("slot"), "{said:?}");

    assert_eq!(world.authority().await, "source");
    eventually(SOON, || write_by_bouncer(&world)).await.unwrap();
    assert_eq!(world.ask(&standby, "SELECT count(*) FROM bank.events WHERE kind = 'by hand'").await, "1");
    world.cutover(&["run"]).await.code(1).says("could not be restored");
    world.cutover(&["rollback", "--reason", "the slot went with the old primary", "--confirm", "bank"]).await.code(0).says("torn down");
    write_by_bouncer(&world).await.unwrap();
}

/// A standby receives nothing more.
async fn deafen(standby: &Cluster) {
    let client = standby.client("postgres").await.unwrap();
    client.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
    eventually(SOON, || async { client.query_one(receivers, &[]).await.unwrap().get::<_, i64>(0) == 0 }).await.unwrap();
}

async fn write_by_bouncer(world: &World) -> Result<(), String> {
    let connected = tokio_postgres::connect(&world.bouncer.url("app", DATABASE), tokio_postgres::NoTls).await;
    let (client, connection) = connected.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let sql = "INSERT INTO bank.events (client, op, kind) VALUES (0, 0, 'by hand')";
    client.simple_query(sql).await.map(drop).map_err(|error| format!("{error:?}"))
}

/// A partition without a sign: the pause ends by its budget, and writes go on while the target is still away.
#[tokio::test]
async fn a_target_that_vanishes_in_the_pause_costs_no_more_than_the_budget() {
    let world = World::by_road("[pause]\nbudget = \"1s\"\nattempts = 1").await;
    world.ready().await;
    let load = world.load(4).await;
    let stopped = world.cutover_stopped(&["run"], "fencing_started").await;
    world.roads[1].stall().await.unwrap();
    let resumed = tokio::spawn(stopped.resume());
    load.wait_acknowledged(100, SOON).await.unwrap();
    assert!(!resumed.is_finished(), "the driver waits for the target, the clients do not");
    world.roads[1].restore().await.unwrap();
    resumed.await.unwrap().code(5).says("undone");
    assert_eq!(world.authority().await, "source");
    world.write_plan("");
    world.cutover(&["run"]).await.code(0);
    load.wait_acknowledged(50, SOON).await.unwrap();
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

/// The source can't be reached once it is fenced: nothing is committed, and it is opened again as soon as it is back.
#[tokio::test]
async fn a_source_that_vanishes_behind_its_fence_is_opened_when_it_is_back() {
    let world = World::by_road("[pause]\nbudget = \"1s\"\nattempts = 1").await;
    let load = world.load(4).await;
    world.ready().await;
    let stopped = world.cutover_stopped(&["run"], "fenced").await;
    world.roads[0].cut().await;
    let resumed = tokio::spawn(stopped.resume());
    eventually(SOON, || async { kinds(&world).await.iter().any(|kind| kind == "abandoned") }).await.unwrap();
    world.roads[0].restore().await.unwrap();
    resumed.await.unwrap().code(5).says("undone");
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.write_plan("");
    world.cutover(&["run"]).await.code(0);
    world.judge(load).await;
}

/// The kinds of the journal's entries.
async fn kinds(world: &World) -> Vec<String> {
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    audit["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
}

/// A driver that stands still for longer than the budget, then goes on: it undoes, because its time is over.
#[tokio::test]
async fn a_driver_that_was_stopped_inside_the_pause_undoes_when_it_goes_on() {
    let world = World::of(15, 15, "[pause]\nbudget = \"2s\"\nattempts = 1").await;
    world.ready().await;
    for entry in ["fenced", "drained"] {
        let stopped = world.cutover_stopped(&["run"], entry).await;
        let refused = eventually(SOON, || async { write_directly(&world).await.err() }).await.unwrap();
        assert!(refused.contains("fenced"), "{entry}: {refused}");
        let stood_since = Instant::now();
        eventually(SOON, || async { stood_since.elapsed() > Duration::from_secs(2) }).await.unwrap();
        stopped.resume().await.code(5).says("undone");
        assert_eq!(world.authority().await, "source", "{entry}");
        write_directly(&world).await.unwrap();
    }
    world.write_plan("");
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
}

async fn write_directly(world: &World) -> Result<(), String> {
    let client = world.source.client(DATABASE).await.map_err(|error| error.to_string())?;
    let sql = "INSERT INTO bank.events (client, op, kind) VALUES (0, 0, 'direct')";
    client.execute(sql, &[]).await.map(drop).map_err(|error| format!("{error:?}"))
}

/// A step that fails for good, at each place before the commit point that a user can break: undone, and as before.
#[tokio::test]
async fn what_fails_before_the_commit_point_is_undone_with_its_reason() {
    let world = World::of(15, 15, "[pause]\nbudget = \"2s\"\nattempts = 1").await;
    world.ready().await;
    let load = world.load(4).await;
    let source = world.source.client(DATABASE).await.unwrap();
    let target = world.target.client(DATABASE).await.unwrap();

    // Fence: a table without a gate, made between arming and closing.
    let stopped = world.cutover_stopped(&["run"], "fencing_started").await;
    source.batch_execute("CREATE TABLE bank.late (id int PRIMARY KEY)").await.unwrap();
    let said = stopped.resume().await.says("late");
    assert!(matches!(said.code, Some(1 | 5)), "{said:?}");
    assert_eq!(world.authority().await, "source");
    source.batch_execute("DROP TABLE bank.late").await.unwrap();

    // Drain: the marker can't be applied, because somebody holds the table.
    target.batch_execute("BEGIN; LOCK TABLE cutover.marker IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.cutover(&["run"]).await.code(5);
    target.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(world.authority().await, "source");

    // Drain: a sequence that is gone at the target.
    let stopped = world.cutover_stopped(&["run"], "fencing_started").await;
    target.batch_execute("SELECT cutover.let_pass('by hand')").await.unwrap();
    target.batch_execute("ALTER SEQUENCE bank.order_numbers RENAME TO other_numbers").await.unwrap();
    let said = stopped.resume().await.says("order_numbers");
    assert!(matches!(said.code, Some(1 | 5)), "{said:?}");
    target.batch_execute("ALTER SEQUENCE bank.other_numbers RENAME TO order_numbers").await.unwrap();
    assert_eq!(world.authority().await, "source");

    // Commit: somebody has opened the gate behind our back.
    let stopped = world.cutover_stopped(&["run"], "drained").await;
    source.batch_execute("SELECT setval('cutover.gate', (SELECT last_value | 1 FROM cutover.gate))").await.unwrap();
    stopped.resume().await.code(1).says("gate is open");
    assert_eq!(world.authority().await, "source");

    load.wait_acknowledged(50, SOON).await.unwrap();
    world.cutover(&["run"]).await.code(0);
    load.wait_acknowledged(50, SOON).await.unwrap();
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

/// After the commit point there is only forward: an opening that fails is tried until it can, and clients wait.
#[tokio::test]
async fn an_opening_that_fails_after_the_commit_point_is_tried_until_it_can() {
    let world = World::by_road("").await;
    let load = world.load(4).await;
    world.ready().await;

    // The new side can't be reached.
    let stopped = world.cutover_stopped(&["run"], "committed").await;
    world.roads[1].cut().await;
    let mut resumed = tokio::spawn(stopped.resume());
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut resumed).await.is_err(), "it neither gives up nor goes back");
    let refused = write_directly(&world).await.unwrap_err();
    assert!(refused.contains("fenced"), "the old side stays closed: {refused}");
    world.roads[1].restore().await.unwrap();
    resumed.await.unwrap().code(0);
    assert_eq!(world.authority().await, "target");
    load.wait_acknowledged(50, SOON).await.unwrap();

    // Its pooler is gone.
    let stopped = world.cutover_stopped(&["rollback", "--reason", "back"], "committed").await;
    world.bouncer.crash().await.unwrap();
    let mut resumed = tokio::spawn(stopped.resume());
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut resumed).await.is_err(), "it neither gives up nor goes back");
    world.bouncer.start_again().await.unwrap();
    resumed.await.unwrap().code(0);
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.judge(load).await;
}
