//! The rows that change while a switch is prepared: compared before the pause and inside it, on the way there and back.

use std::time::Duration;

use cutover_testkit::{Cluster, eventually};

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(30);

/// Temporary slots at a server.
const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE temporary";

/// A row that the load never touches, so that nothing but the test changes it.
async fn lonely_row(world: &World) {
    let client = world.source.client(DATABASE).await.unwrap();
    client.batch_execute("CREATE TABLE bank.lonely (id int PRIMARY KEY, v int); INSERT INTO bank.lonely VALUES (7, 0)").await.unwrap();
    client.batch_execute("ALTER TABLE bank.lonely OWNER TO app_owner").await.unwrap();
}

/// Takes the row from the side that follows, past the gate and unseen by the stream.
async fn lose(cluster: &Cluster) {
    let client = cluster.client(DATABASE).await.unwrap();
    client.batch_execute("SET session_replication_role = replica; DELETE FROM bank.lonely").await.unwrap();
}

async fn touch(cluster: &Cluster) {
    let client = cluster.client(DATABASE).await.unwrap();
    client.batch_execute("UPDATE bank.lonely SET v = v + 1").await.unwrap();
}

async fn take_all_slots(world: &World, cluster: &Cluster) {
    let free = "SELECT setting::int - (SELECT count(*) FROM pg_replication_slots) FROM pg_settings WHERE name = 'max_replication_slots'";
    let free: u32 = world.ask(cluster, free).await.parse().unwrap();
    for number in 0..free {
        world.ask(cluster, &format!("SELECT (pg_create_physical_replication_slot('taken_{number}')).slot_name")).await;
    }
}

/// Touched before the pause, it is found before the pause: nothing is held at all.
#[tokio::test]
async fn b16_a_row_lost_after_the_verification_and_touched_during_the_switch_keeps_the_pause_from_beginning() {
    let world = World::new().await;
    lonely_row(&world).await;
    world.ready().await;
    let load = world.load(4).await;
    let driver = world.cutover_stopped(&["run"], "armed").await;
    lose(&world.target).await;
    touch(&world.source).await;
    driver.resume().await.code(3).says("bank.lonely (id 7): missing at the follower").says("writes go on at the old side");
    assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), ("source", "following"));
    assert_eq!(world.entries("fencing_started").await.len(), 0, "nothing was held");
    load.wait_acknowledged(20, SOON).await.unwrap();
    let history = load.stop().await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

/// Touched and lost at the last moment, it is found inside the pause, which is undone: there, and on the way back.
#[tokio::test]
async fn b16_a_row_lost_at_the_last_moment_undoes_the_pause_there_and_back() {
    let world = World::new().await;
    lonely_row(&world).await;
    world.ready().await;
    let load = world.load(4).await;
    let ways = [
        (vec!["run"], "source", &world.source, &world.target),
        (vec!["rollback", "--reason", "back"], "target", &world.target, &world.source),
    ];
    for (verb, side, authority, follower) in ways {
        let driver = world.cutover_stopped(&verb, "fencing_started").await;
        lose(follower).await;
        touch(authority).await;
        driver.resume().await.code(3).says("bank.lonely (id 7): missing at the follower").says("undone");
        assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), (side, "following"));
        let why = world.entries("abandoned").await.pop().unwrap();
        assert!(why["why"].as_str().unwrap().contains("bank.lonely (id 7)"), "{why:#}");
        assert_eq!(why["differences"], 1, "{why:#}");
        assert_eq!(world.status().await["verified"], serde_json::Value::Null, "what was verified holds no longer");
        if side == "source" {
            world.cutover(&verb).await.code(3).says("rows were found to differ, so both sides are compared again").says("bank.lonely");
        }
        load.wait_acknowledged(20, SOON).await.unwrap();

        let client = follower.client(DATABASE).await.unwrap();
        client.batch_execute("SET session_replication_role = replica; INSERT INTO bank.lonely VALUES (7, 0)").await.unwrap();
        touch(authority).await;
        world.cutover(&verb).await.code(0);
        load.wait_acknowledged(20, SOON).await.unwrap();
    }
    assert_eq!(world.authority().await, "source");
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

#[tokio::test]
async fn b16_twenty_switches_under_load_find_no_difference_that_is_none() {
    let world = World::of(15, 17, "").await;
    world.ready().await;
    let load = world.load(8).await;
    for _ in 0..10 {
        world.cutover(&["run"]).await.code(0).says("rows that had changed compared");
        world.cutover(&["rollback", "--reason", "and again"]).await.code(0).says("rows that had changed compared");
    }
    let drained = world.entries("drained").await;
    assert!(drained.len() >= 20, "{}", drained.len());
    let count = |name: &str| drained.iter().map(|entry| entry["changes"][name].as_u64().unwrap()).sum::<u64>();
    assert!(count("keys_before") > 0 && count("keys_in_pause") > 0, "{drained:#?}");
    for side in [&world.source, &world.target] {
        eventually(SOON, || async { world.ask(side, SLOTS).await == "0" }).await.unwrap();
    }
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

#[tokio::test]
async fn a_driver_killed_while_it_watches_leaves_no_slot() {
    let world = World::new().await;
    world.ready().await;
    for entry in ["armed", "fencing_started", "fenced"] {
        let driver = world.cutover_stopped(&["run"], entry).await;
        assert_eq!(world.ask(&world.source, SLOTS).await, "1", "{entry}");
        drop(driver);
        eventually(SOON, || async { world.ask(&world.source, SLOTS).await == "0" }).await.unwrap();
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        assert_eq!(world.authority().await, "source");
    }
    world.cutover(&["run"]).await.code(0);
}

#[tokio::test]
async fn without_a_free_slot_preflight_says_so_and_the_plan_may_do_without() {
    let world = World::new().await;
    world.ready().await;
    world.cutover(&["plan"]).await.code(0).says("pg_copy_logical_replication_slot('cutover_bank_forward', 'cutover_bank_changed', true");
    take_all_slots(&world, &world.source).await;
    world.cutover(&["run"]).await.code(3).says("1 more replication slots needed and 0 free").says("in_pause = \"off\"");
    assert_eq!(world.phase().await, "following");

    world.write_plan("[verify]\nin_pause = \"off\"");
    let plan = world.cutover(&["plan"]).await.code(0);
    assert!(!plan.out.contains("cutover_bank_changed"), "{plan:?}");
    world.cutover(&["run"]).await.code(0);
    let drained = world.entries("drained").await.pop().unwrap();
    assert!(drained.get("changes").is_none(), "{drained:#}");

    // The way back must not depend on a slot that is not there.
    take_all_slots(&world, &world.target).await;
    world.write_plan("");
    world.cutover(&["rollback", "--reason", "at once"]).await.code(0).says("can't be watched").says("all replication slots are in use");
    assert_eq!(world.authority().await, "source");
}
