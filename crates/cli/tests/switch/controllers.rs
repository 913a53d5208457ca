//! Several controllers share a journal in PostgreSQL: one drives, and one that lost the right can neither append nor act.

use std::time::Duration;

use cutover_testkit::{Cluster, ClusterOptions, Encryption, Proxy, install};

use crate::world::World;

const SOON: Duration = Duration::from_secs(60);

/// A third server with the journal, reached through a proxy.
pub(crate) struct Shared {
    cluster: Cluster,
    pub(crate) road: Proxy,
}

impl Shared {
    pub(crate) async fn new(world: &World, more: &str) -> Self {
        let cluster = Cluster::start(&install(15).unwrap(), ClusterOptions::named("journal")).await.unwrap();
        cluster.create_database("controllers").await.unwrap();
        let road = Proxy::start(format!("127.0.0.1:{}", cluster.port())).await.unwrap();
        world.write_plan(&format!("[journal]\nurl = \"{}\"\n{more}", road.url("postgres", "controllers")));
        Self { cluster, road }
    }

    /// Ends every session with the journal, as a fail-over of its server would.
    async fn end_sessions(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'controllers' AND pid <> pg_backend_pid()";
        self.cluster.execute("controllers", sql).await.unwrap();
    }
}

#[tokio::test]
async fn a_cutover_with_a_shared_journal_goes_there_and_back() {
    let world = World::new().await;
    let shared = Shared::new(&world, "").await;
    let load = world.load(4).await;
    world.ready().await;
    assert!(!world.folder.path().join(".cutover").exists(), "nothing of it lies beside the plan");
    let (one, other) = tokio::join!(world.cutover(&["run"]), world.cutover(&["run"]));
    let codes = [one.code, other.code];
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(6)), "{one:?} {other:?}");
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.cutover(&["rollback", "--reason", "and back"]).await.code(0);
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
    world.cutover(&["audit", "--verify"]).await.code(0).says("none changed or missing");
    let changed =
        "ALTER TABLE cutover_journal.entry DISABLE TRIGGER ALL; UPDATE cutover_journal.entry SET reason = 'nothing happened' WHERE seq = 3";
    shared.cluster.execute("controllers", changed).await.unwrap();
    world.cutover(&["audit", "--verify"]).await.code(3).says("entry 3");
}

/// Invariant 9: a driver that stood still while another took over wakes up, and harms nothing at any place.
#[tokio::test]
async fn a_zombie_that_wakes_up_can_neither_append_nor_act() {
    let world = World::new().await;
    let shared = Shared::new(&world, "[pause]\nbudget = \"60s\"\nattempts = 1").await;
    let load = world.load(4).await;
    world.ready().await;
    for (entry, authority) in
        [("armed", "source"), ("fencing_started", "source"), ("fenced", "source"), ("drained", "source"), ("committed", "target")]
    {
        let zombie = world.cutover_stopped(&["run"], entry).await;
        shared.end_sessions().await;
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        assert_eq!(world.authority().await, authority, "{entry}");
        zombie.resume().await.code(6);
        assert_eq!(world.authority().await, authority, "{entry}");
        load.wait_acknowledged(50, SOON).await.unwrap();
    }
    world.judge(load).await;
    world.cutover(&["audit", "--verify"]).await.code(0);
}

/// A short interruption of the journal in the pause costs nothing but its time.
#[tokio::test]
async fn a_journal_that_breaks_off_and_is_back_at_once_does_not_end_the_switch() {
    let world = World::new().await;
    let shared = Shared::new(&world, "[pause]\nbudget = \"20s\"\nattempts = 1").await;
    world.ready().await;
    for (entry, verb) in [("fenced", vec!["run"]), ("drained", vec!["rollback", "--reason", "back"])] {
        let stopped = world.cutover_stopped(&verb, entry).await;
        shared.end_sessions().await;
        stopped.resume().await.code(0);
    }
    assert_eq!(world.authority().await, "source");
}

/// Invariant 5: without the journal nothing is guessed, nothing is opened; a person is told what to look at.
#[tokio::test]
async fn a_journal_out_of_reach_before_the_commit_point_ends_in_exit_code_7() {
    let world = World::new().await;
    let shared = Shared::new(&world, "").await;
    let load = world.load(4).await;
    world.ready().await;
    let stopped = world.cutover_stopped(&["run"], "drained").await;
    shared.road.cut().await;
    stopped.resume().await.code(7).says("writes are held").says("cutover run");
    for side in [&world.source, &world.target] {
        let open = "SELECT last_value & 1 FROM cutover.gate";
        assert_eq!(world.ask(side, open).await, "0", "nothing was opened on a guess");
    }
    shared.road.restore().await.unwrap();
    world.cutover(&["run", "--until", "ready"]).await.code(0);
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.cutover(&["run"]).await.code(0);
    world.judge(load).await;
}

/// The journal's connection is encrypted as its URL says, and a server that can't prove who it is gets nothing.
#[tokio::test]
async fn a_shared_journal_is_reached_encrypted_and_its_certificate_is_checked() {
    let world = World::new().await;
    let cluster = Cluster::start(&install(15).unwrap(), ClusterOptions::named("journal")).await.unwrap();
    cluster.create_database("controllers").await.unwrap();
    let encryption = Encryption::switch_on(&cluster).await.unwrap();
    let plan = |parameters: String| {
        world.write_plan(&format!("[journal]\nurl = \"postgres://postgres@localhost:{}/controllers?{parameters}\"", cluster.port()));
    };
    for mode in ["verify-full", "verify-ca", "require"] {
        plan(format!("sslmode={mode}&sslrootcert={}", encryption.another_root_file().display()));
        let refused = world.cutover(&["audit"]).await;
        assert_eq!(refused.code, Some(1), "{mode}: {refused:?}");
    }
    assert_eq!(world.ask_at(&cluster, "controllers", "SELECT count(*) FROM pg_namespace WHERE nspname = 'cutover_journal'").await, "0");
    plan(format!("sslmode=verify-full&sslrootcert={}", encryption.root_file().display()));
    let stopped = world.cutover_stopped(&["run", "--until", "ready"], "created").await;
    let plain =
        "SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.application_name LIKE 'cutover%' AND NOT s.ssl";
    assert_eq!(world.ask_at(&cluster, "controllers", plain).await, "0", "both its sessions are encrypted");
    let encrypted =
        "SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.application_name LIKE 'cutover%' AND s.ssl";
    assert_eq!(world.ask_at(&cluster, "controllers", encrypted).await, "2");
    stopped.resume().await.code(0);
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
}
