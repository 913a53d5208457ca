//! There, back with what the target took, there again, and the end.

use std::time::Duration;

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(30);

/// B1, B11, B17, B23: nobody notices, nothing is lost, and the way back keeps the writes that the target took.
#[tokio::test]
async fn b17_b23_a_switch_under_load_and_the_way_back_lose_nothing() {
    let world = World::new().await;
    let load = world.load(10).await;
    world.ready().await;
    assert_eq!(world.authority().await, "source");
    for (verb, authority) in
        [(vec!["run"], "target"), (vec!["rollback", "--reason", "to see that it can"], "source"), (vec!["run"], "target")]
    {
        world.cutover(&verb).await.code(0);
        assert_eq!(world.authority().await, authority);
        load.wait_acknowledged(200, SOON).await.unwrap();
    }
    let (history, verdict) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "B23: {:?}", history.errors);
    assert!(verdict.acknowledged_writes > 600);
    let audit = world.cutover(&["audit", "--verify"]).await.code(0).says("none changed or missing");
    assert!(audit.out.contains("to see that it can"), "C35: the reason is in the journal");
    let report = world.cutover(&["report", "--output", "json"]).await.code(0).json();
    let pauses = report["pauses"].as_array().unwrap();
    assert_eq!(pauses.len(), 3, "A14: each downtime is shown: {report:#}");
    assert!(pauses.iter().all(|pause| pause["pause_ms"].as_u64().unwrap() > 0 && pause["undone"] == false));
}

/// B3, B4, B5, B6, B15, B18, B19: what stands in the journal, who can connect, and how it ends.
#[tokio::test]
async fn b19_the_end_needs_an_archive_and_the_old_side_stays_fenced() {
    let world = World::new().await;
    world.ready().await;
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    let snapshot = audit["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "snapshot_taken").unwrap().clone();
    assert!(!snapshot["body"]["snapshot"].as_str().unwrap().is_empty(), "B3");
    assert!(snapshot["body"]["lsn"].as_str().unwrap().contains('/'), "B4");
    let refused = tokio_postgres::connect(&world.target.url("app", DATABASE), tokio_postgres::NoTls).await.map(drop).unwrap_err();
    assert!(format!("{refused:?}").contains("permission denied"), "B6: {refused:?}");

    world.cutover(&["complete"]).await.code(1).says("not possible while the cutover is following");
    world.cutover(&["run"]).await.code(0);
    tokio_postgres::connect(&world.target.url("app", DATABASE), tokio_postgres::NoTls).await.map(drop).unwrap();
    let client = world.source.client(DATABASE).await.unwrap();
    client.query("SELECT * FROM bank.accounts LIMIT 1", &[]).await.unwrap();
    let refused = client.execute("DELETE FROM bank.orders", &[]).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("fenced"), "B15: {refused:?}");

    let archive = world.folder.path().join("final.dump");
    let file = archive.to_str().unwrap();
    world.cutover(&["retire", "--archive", file, "--confirm", "bank"]).await.code(1).says("retiring is not possible");
    world.cutover(&["complete", "--reason", "it stays"]).await.code(0).says("the target is the new source");
    world.cutover(&["retire", "--archive", file]).await.code(2).says("--confirm bank");
    world.cutover(&["retire", "--archive", file, "--confirm", "blank"]).await.code(2);
    world.cutover(&["retire", "--archive", "/nonexistent/final.dump", "--confirm", "bank"]).await.code(1);
    assert_eq!(world.phase().await, "completed", "B19: without an archive nothing is dropped");
    world.cutover(&["retire", "--archive", file, "--confirm", "bank"]).await.code(0);
    assert!(std::fs::metadata(&archive).unwrap().len() > 1000);
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM pg_replication_slots").await, "0");
    assert_eq!(world.ask(&world.source, "SELECT count(*) FROM pg_subscription").await, "0");
    world.cutover(&["rollback", "--reason", "too late"]).await.code(1).says("retired");
    assert!(client.execute("DELETE FROM bank.orders", &[]).await.is_err(), "the old side stays fenced");
}

/// Sequences are carried over, also those that nobody owns (pgstream#1203: sequences stuck).
#[tokio::test]
async fn pgstream_1203_sequences_that_nobody_owns_are_carried_over() {
    let world = World::new().await;
    let client = world.source.client(DATABASE).await.unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE public.lonely INCREMENT 7 START 1000; SELECT nextval('public.lonely') FROM generate_series(1, 50); \
             CREATE SEQUENCE public.down INCREMENT -1; SELECT nextval('public.down') FROM generate_series(1, 5); \
             CREATE SEQUENCE public.unused; CREATE SEQUENCE public.bounded MAXVALUE 20000 CYCLE; SELECT setval('public.bounded', 100)",
        )
        .await
        .unwrap();
    world.ready().await;
    client.batch_execute("SELECT nextval('public.lonely')").await.unwrap();
    let before: i64 = world.ask(&world.source, "SELECT last_value FROM public.lonely").await.parse().unwrap();
    world.cutover(&["run"]).await.code(0);
    let next: i64 = world.ask(&world.target, "SELECT nextval('public.lonely')").await.parse().unwrap();
    assert!(next > before && (next - 1000) % 7 == 0, "{before} then {next}");
    let down: i64 = world.ask(&world.target, "SELECT nextval('public.down')").await.parse().unwrap();
    assert!(down < -5, "{down}");
    assert_eq!(world.ask(&world.target, "SELECT nextval('public.bounded') > 100").await, "true");
    world.ask(&world.target, "SELECT nextval('public.lonely')").await;
    let at_target: i64 = world.ask(&world.target, "SELECT last_value FROM public.lonely").await.parse().unwrap();
    world.cutover(&["rollback", "--reason", "both ways"]).await.code(0);
    let back: i64 = world.ask(&world.source, "SELECT nextval('public.lonely')").await.parse().unwrap();
    assert!(back > at_target, "{at_target} then {back}");
}

/// B7: the migration hook gets the target's address and may write and define behind the closed gate.
#[tokio::test]
async fn b7_the_migration_hook_runs_against_the_target() {
    let psql = cutover_testkit::newest_tools().unwrap().join("psql");
    let hook = format!(
        "[hooks]\nmigrate = \"{0} -v ON_ERROR_STOP=1 -c 'CREATE TABLE bank.migrated (port int PRIMARY KEY)' -c \\\"INSERT INTO bank.migrated VALUES ($PGPORT)\\\"\"\nsmoke = \"test $({0} -Atc 'SELECT 1') = 1\"",
        psql.display()
    );
    let world = World::of(15, 15, &hook).await;
    world.ready().await;
    assert_eq!(world.ask(&world.target, "SELECT port FROM bank.migrated").await, world.target.port().to_string());
    world.cutover(&["audit"]).await.code(0).says("migrate");
}

/// A switch to a newer major, and back.
#[tokio::test]
async fn a_switch_from_15_to_17_and_back() {
    to_a_newer_major_and_back(15, 17).await;
}

#[tokio::test]
async fn a_switch_from_16_to_18_and_back() {
    to_a_newer_major_and_back(16, 18).await;
}

#[tokio::test]
async fn a_switch_from_the_oldest_at_hand_to_the_newest_and_back() {
    let installs = cutover_testkit::installs();
    to_a_newer_major_and_back(installs[0].major, installs[installs.len() - 1].major).await;
}

async fn to_a_newer_major_and_back(source: u32, target: u32) {
    let world = World::of(source, target, "").await;
    let load = world.load(5).await;
    world.ready().await;
    world.cutover(&["run"]).await.code(0);
    load.wait_acknowledged(100, SOON).await.unwrap();
    world.cutover(&["rollback", "--reason", "and back"]).await.code(0);
    load.wait_acknowledged(100, SOON).await.unwrap();
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}
