//! Other set-ups than the documentation's: no superuser and passwords, several poolers, session pooling.

use std::time::Duration;

use cutover_testkit::{PoolMode, installs, pgbouncers};

use crate::{
    repair::{MEDDLED, REPAIR},
    world::{DATABASE, Making, PASSWORD, World},
};

const SOON: Duration = Duration::from_secs(60);

/// As on a managed service: a role that is no superuser, and passwords everywhere. What it lacks, `cutover check` says,
/// and its fixes are enough for the whole way there and back.
#[tokio::test]
async fn a_role_that_is_no_superuser_goes_there_and_back_with_what_check_asks_for() {
    let newest = installs().last().unwrap().major;
    let making = Making { source: 16, target: newest, passwords: true, user: "mover", ..Making::default() };
    let world = World::made(making).await;
    for cluster in [&world.source, &world.target] {
        // So that the target can be isolated by whoever is a member of its owner, and has its own leave only through PUBLIC.
        cluster.execute(DATABASE, "ALTER DATABASE bank OWNER TO app_owner; ALTER SCHEMA public OWNER TO postgres").await.unwrap();
        cluster.execute(DATABASE, &format!("CREATE ROLE mover LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
    }
    // In a schema that the target has already, where its owner may not create.
    let parked = "CREATE TABLE public.parked (id int PRIMARY KEY); ALTER TABLE public.parked OWNER TO app_owner";
    world.source.execute(DATABASE, parked).await.unwrap();
    let published = "CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION outbox FOR TABLE public.parked; ALTER PUBLICATION outbox OWNER TO app_owner";
    world.source.execute(DATABASE, published).await.unwrap();
    let mut rounds = 0;
    while mend(&world).await {
        rounds += 1;
        assert!(rounds < 6, "check asks for something that its fixes do not give");
    }
    world.cutover(&["check"]).await.code(0);
    assert_eq!(world.ask(&world.source, "SELECT rolsuper FROM pg_roles WHERE rolname = 'mover'").await, "false");

    let load = world.load(4).await;
    world.cutover(&["run", "--until", "ready"]).await.code(0).says("the target has no publication everything").says("42501");
    let carried = "SELECT string_agg(pubname || ' ' || tablename, ',') FROM pg_publication_tables WHERE pubname NOT LIKE 'cutover%'";
    assert_eq!(world.ask(&world.target, carried).await, "outbox parked");
    world.meddle(&world.target, MEDDLED).await;
    world.cutover(&REPAIR).await.code(0).says("rows repaired").says("0 still different");
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.meddle(&world.source, MEDDLED).await;
    world.cutover(&REPAIR).await.code(0).says("rows repaired").says("0 still different");
    world.cutover(&["rollback", "--reason", "and back"]).await.code(0);
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.cutover(&["run"]).await.code(0);
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
    let status = world.cutover(&["status", "--output", "json"]).await.code(0);
    assert!(!status.out.contains(PASSWORD), "a password is printed nowhere");
    world.cutover(&["complete"]).await.code(0);
    let archive = world.folder.path().join("old.dump");
    world.cutover(&["retire", "--archive", archive.to_str().unwrap(), "--confirm", "bank"]).await.code(0);
}

/// Runs the fixes of what blocks, as an administrator would. Says whether there were any.
async fn mend(world: &World) -> bool {
    let findings = world.cutover(&["check", "--output", "json"]).await.json();
    let mut mended = false;
    for finding in findings["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "error") {
        let sql = &finding["fix"]["sql"];
        let cluster = if sql["side"] == "target" { &world.target } else { &world.source };
        // What only could not be established yet has no fix of its own.
        let Some(text) = sql["text"].as_str() else { continue };
        cluster.execute(DATABASE, text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        mended = true;
    }
    mended
}

/// C49: several PgBouncers at once, of the version that Debian has and of a newer one.
#[tokio::test]
async fn c49_two_poolers_of_different_versions_are_switched_together() {
    let bouncers = pgbouncers();
    let world = World::made(Making { bouncers: bouncers.clone(), ..Making::default() }).await;
    let load = world.load(6).await;
    world.ready().await;
    for (at, verb) in [vec!["run"], vec!["rollback", "--reason", "back"], vec!["run"]].into_iter().enumerate() {
        world.cutover(&verb).await.code(0);
        load.wait_acknowledged(50, SOON).await.unwrap();
        // The clients of each in turn: all of them point at the new side.
        let others: Vec<_> = std::iter::once(&world.bouncer).chain(&world.others).collect();
        load.repoint(others[(at + 1) % others.len()].url("app", DATABASE));
        load.wait_acknowledged(100, SOON).await.unwrap();
    }
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

/// In session pooling a client keeps its server: it is made to reconnect, may see an error, and loses nothing.
#[tokio::test]
async fn c49_in_session_pooling_nothing_is_lost() {
    let world = World::made(Making { pooling: PoolMode::Session, ..Making::default() }).await;
    let load = world.load(6).await;
    world.ready().await;
    for verb in [vec!["run"], vec!["rollback", "--reason", "back"]] {
        world.cutover(&verb).await.code(0);
        load.wait_acknowledged(100, SOON).await.unwrap();
    }
    world.judge(load).await;
}
