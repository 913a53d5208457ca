//! What can stand in the way of a switch, and that it always ends with one writer and nothing lost.

use std::time::Duration;

use cutover_testkit::Cluster;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(30);

/// Invariant 8: a writer that is longer than the budget ends the pause, not the other way round.
#[tokio::test]
async fn a_transaction_longer_than_the_budget_ends_in_exit_code_5_and_writes_go_on() {
    let world = World::of(15, 15, "[pause]\nbudget = \"500ms\"\nattempts = 2").await;
    world.ready().await;
    let load = world.load(4).await;
    // Once there and back: the source's tables are armed, so the writer meets the gate and not the arming.
    world.cutover(&["run"]).await.code(0);
    world.cutover(&["rollback", "--reason", "armed now"]).await.code(0);
    let writer = world.source.client(DATABASE).await.unwrap();
    writer.batch_execute("BEGIN; UPDATE bank.accounts SET balance = balance WHERE false").await.unwrap();
    let busy = tokio::spawn(async move { writer.batch_execute("SELECT pg_sleep(12); COMMIT").await });
    world.cutover(&["run", "--reason", "too early"]).await.code(5).says("undone");
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    busy.await.unwrap().unwrap();
    world.cutover(&["run"]).await.code(0);
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

#[tokio::test]
async fn a_prepared_transaction_is_named_and_blocks() {
    let world = World::new().await;
    world.ready().await;
    let client = world.source.client(DATABASE).await.unwrap();
    client.batch_execute("BEGIN; UPDATE bank.accounts SET balance = balance WHERE id = 1; PREPARE TRANSACTION 'xa-7'").await.unwrap();
    let said = world.cutover(&["run"]).await.says("xa-7");
    assert!(matches!(said.code, Some(1 | 3)), "{said:?}");
    assert_eq!(world.authority().await, "source");
    client.batch_execute("ROLLBACK PREPARED 'xa-7'").await.unwrap();
    world.cutover(&["run"]).await.code(0);
}

/// A table or partition made after the copy is noticed, named, and keeps the switch from losing its rows.
#[tokio::test]
async fn a_new_partition_is_noticed_and_named() {
    let world = World::new().await;
    world.ready().await;
    let client = world.source.client(DATABASE).await.unwrap();
    client.batch_execute("CREATE TABLE bank.late (id int PRIMARY KEY); INSERT INTO bank.late VALUES (1)").await.unwrap();
    world.cutover(&["status"]).await.code(0).says("bank.late");
    let said = world.cutover(&["run"]).await.says("late");
    assert!(matches!(said.code, Some(1 | 3)), "{said:?}");
    assert_eq!(world.authority().await, "source");
    client.batch_execute("DROP TABLE bank.late").await.unwrap();
    world.cutover(&["run"]).await.code(0);
}

/// A marker that was visible did not survive a crash of the target; what is behind the flush does.
#[tokio::test]
async fn a_target_that_crashes_right_after_the_commit_point_has_everything() {
    let world = World::new().await;
    let load = world.load(6).await;
    world.ready().await;
    for failpoint in ["after:drained", "after:committed"] {
        world.cutover_killed(&["run"], Some(failpoint)).await.killed();
        world.target.crash().await.unwrap();
        world.target.start_again().await.unwrap();
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        load.wait_acknowledged(30, SOON).await.unwrap();
    }
    assert_eq!(world.authority().await, "target");
    world.judge(load).await;
}

#[tokio::test]
async fn a_source_that_crashes_inside_the_pause_is_still_fenced_or_undone() {
    let world = World::new().await;
    let load = world.load(6).await;
    world.ready().await;
    for failpoint in ["after:fencing_started", "after:fenced", "after:drained"] {
        world.cutover_killed(&["run"], Some(failpoint)).await.killed();
        world.source.crash().await.unwrap();
        world.source.start_again().await.unwrap();
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        assert_eq!(world.authority().await, "source", "{failpoint}");
        load.wait_acknowledged(30, SOON).await.unwrap();
    }
    world.cutover(&["run"]).await.code(0);
    world.judge(load).await;
}

/// The old side that fails over to a standby without the fence must not be committed away from.
#[tokio::test]
async fn a_driver_talks_only_to_the_servers_of_its_journal() {
    let world = World::new().await;
    world.ready().await;
    let stranger = Cluster::start(world.target.install(), cutover_testkit::ClusterOptions::named("stranger")).await.unwrap();
    stranger.create_database(DATABASE).await.unwrap();
    let plan = world.folder.path().join("cutover.toml");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace(&format!(":{}/", world.target.port()), &format!(":{}/", stranger.port()))).unwrap();
    world.cutover(&["run"]).await.code(1).says("is not the target of this cutover");
    std::fs::write(&plan, text).unwrap();
    world.cutover(&["run"]).await.code(0);
}

/// Before any switch, rollback removes what was made and leaves the source as it was.
#[tokio::test]
async fn a_rollback_before_any_switch_removes_everything() {
    let world = World::new().await;
    let load = world.load(2).await;
    world.ready().await;
    world.cutover(&["rollback", "--reason", "by mistake"]).await.code(1).says("nothing was done").says("--confirm bank");
    world.cutover(&["rollback", "--reason", "not this week", "--confirm", "bank"]).await.code(0).says("torn down");
    for cluster in [&world.source, &world.target] {
        for what in [
            "pg_replication_slots",
            "pg_publication",
            "pg_subscription",
            "pg_event_trigger",
            "pg_namespace WHERE nspname = 'cutover'",
            "pg_trigger WHERE tgname = 'cutover_gate'",
        ] {
            assert_eq!(world.ask(cluster, &format!("SELECT count(*) FROM {what}")).await, "0", "{what}");
        }
    }
    load.wait_acknowledged(20, SOON).await.unwrap();
    assert_eq!(load.stop().await.failed_requests(), 0);
    world.cutover(&["run"]).await.code(1).says("torn down");
}

/// flagger#1801: a state that waits never disables the way back.
#[tokio::test]
async fn flagger_1801_a_failed_smoke_test_leaves_the_way_back_open() {
    let world = World::of(15, 15, "[hooks]\nsmoke = \"echo it does not work >&2; exit 1\"").await;
    world.ready().await;
    world.cutover(&["run"]).await.code(1).says("it does not work");
    assert_eq!(world.authority().await, "target");
    let rows = "SELECT count(*) FROM bank.orders";
    world
        .target
        .client(DATABASE)
        .await
        .unwrap()
        .batch_execute("DELETE FROM bank.orders WHERE ctid IN (SELECT min(ctid) FROM bank.orders)")
        .await
        .unwrap();
    let taken = world.ask(&world.target, rows).await;
    world.cutover(&["rollback", "--reason", "the smoke test failed"]).await.code(1).says("it does not work");
    assert_eq!(world.authority().await, "source");
    world.cutover(&["status"]).await.code(0).says("--confirm bank: gives the copy up");
    world.cutover(&["rollback", "--reason", "here neither", "--confirm", "bank"]).await.code(0).says("torn down");
    assert_eq!(world.ask(&world.source, rows).await, taken, "what the target took is kept");
}

/// A table made at the target after the switch has nowhere to go on the way back: that is said, and its rows stay safe.
#[tokio::test]
async fn a_table_made_at_the_target_after_the_switch_is_not_left_behind() {
    let world = World::new().await;
    world.ready().await;
    world.cutover(&["run"]).await.code(0);
    let client = world.target.client(DATABASE).await.unwrap();
    client.batch_execute("CREATE TABLE bank.later (id int PRIMARY KEY); INSERT INTO bank.later VALUES (7)").await.unwrap();
    world.cutover(&["status"]).await.code(0).says("bank.later");
    world.cutover(&["rollback", "--reason", "back"]).await.code(1).says("later").says("would stay behind");
    assert_eq!(world.authority().await, "target");
    client.batch_execute("DELETE FROM bank.later").await.unwrap();
    world.cutover(&["rollback", "--reason", "back"]).await.code(0);
    assert_eq!(world.authority().await, "source");
}

/// Before the pause a switch may have to wait for long. It says at what; nothing is held meanwhile.
#[tokio::test]
async fn what_a_switch_waits_for_is_said_and_nothing_is_held_meanwhile() {
    let world = World::new().await;
    world.ready().await;
    let load = world.load(2).await;
    let writer = world.target.client(DATABASE).await.unwrap();
    writer.batch_execute("SELECT cutover.let_pass('by hand'); BEGIN; CREATE TABLE public.slow (id int)").await.unwrap();
    let mut child = world.command(&["run"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waiting = tokio::time::timeout(SOON, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("still at arm for") && line.contains("replication_slot") {
                return;
            }
        }
        panic!("it ended without a word");
    });
    waiting.await.expect("it says what it waits for");
    load.wait_acknowledged(20, SOON).await.unwrap();
    writer.batch_execute("ROLLBACK").await.unwrap();
    let drained = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    drained.await.unwrap();
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}
