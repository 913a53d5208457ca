//! Flags: the pause waits until their clients have heard, the opening until none is left at the old side.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cutover_journal::{Journal, open_sqlite};
use cutover_testkit::{Cluster, eventually};
use serde_json::{Value, json};
use tokio::{process::Child, sync::oneshot, task::JoinHandle};

use crate::{
    server::Server,
    serving::agent,
    world::{DATABASE, Said, World},
};

const SOON: Duration = Duration::from_secs(30);

/// A7, I5: the fence comes after the last acknowledgement, and a dead server costs no lease inside the pause. A16: one
/// live instance at the old side blocks the opening, until it is gone. The way back waits for nobody.
#[tokio::test]
async fn a7_a16_the_fence_waits_for_acknowledgements_and_the_opening_for_old_instances() {
    let world = world("lease = \"1s\"\nrollout = \"2s\"").await;
    world.cutover(&["run", "--until", "ready"]).await.code(3).says("no server is there");
    let mut dead = Fleet::start(&world).await;
    dead.joins("pod-9", at(&world.source), false).await;
    dead.dies().await;
    let mut fleet = Fleet::start(&world).await;
    fleet.joins("pooled", POOLED.to_owned(), false).await;
    fleet.joins("old", at(&world.source), false).await;
    let load = world.load(4).await;
    world.ready().await;

    world.cutover(&["run"]).await.code(7).says("old is connected to the source").says("stop the instances");
    let fenced = world.entries("fenced").await.remove(0);
    let (acknowledged, closed_ms) = (&fenced["acknowledged"], fenced["closed_after_ms"].as_u64().unwrap());
    assert_eq!((&acknowledged["servers"], &acknowledged["clients"]), (&1.into(), &2.into()), "{fenced:#}");
    let after_ms = acknowledged["after_ms"].as_u64().unwrap();
    assert!(after_ms <= closed_ms, "{fenced:#}");
    assert!(after_ms < 1_000, "the dead server cost its lease inside the pause: {fenced:#}");
    assert_eq!(world.phase().await, "opening");

    world.write_plan(&flags("lease = \"1s\""));
    let mut run = world.command(&["run", "--until", "ready"]).spawn().unwrap();
    journalled(&world, "driver_took_over", 2).await;
    assert!(run.try_wait().unwrap().is_none(), "the old instance is there still");
    fleet.leaves("old").await;
    ends(run).await.code(0);
    assert_eq!(world.entries("opened").await[0]["acknowledged"]["clients"], 1);
    load.wait_acknowledged(100, SOON).await.unwrap();

    fleet.joins("late", at(&world.target), false).await;
    world.cutover(&["rollback", "--reason", "to see that it waits for nobody"]).await.code(0);
    assert_eq!(world.authority().await, "source");
    let report = world.cutover(&["report", "--output", "json"]).await.code(0).json();
    assert_eq!(report["pauses"][0]["acknowledged"]["after_ms"], after_ms);
    assert_eq!((&report["pauses"][0]["gathered"]["clients"], &report["pauses"][1]["gathered"]), (&1.into(), &serde_json::Value::Null));
    world.cutover(&["report"]).await.code(0).says("clients of the flags acknowledged the hold after");
    world.judge(load).await;
}

/// A4: who does not acknowledge has the pause undone in time, and writes go on; then it does, and the switch goes through.
/// Ctrl-C in the opening leaves it where it is, and the next run goes on.
#[tokio::test]
async fn a4_a_client_that_does_not_acknowledge_has_the_pause_undone_in_time() {
    let world = world("lease = \"4s\"\n[pause]\nbudget = \"1s\"\nattempts = 2").await;
    let mut fleet = Fleet::start(&world).await;
    let load = world.load(4).await;
    world.ready().await;
    fleet.joins("deaf", POOLED.to_owned(), true).await;
    world.cutover(&["check"]).await.code(0).says("choose a lease of at most half of pause.budget");
    let began = Instant::now();
    world.cutover(&["run"]).await.code(5).says("deaf acts on epoch");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let undone = world.entries("undone").await;
    assert_eq!(undone.len(), 2, "each attempt");
    assert!(undone.iter().all(|undone| undone["pause_ms"].as_u64().unwrap() < 2_000), "{undone:#?}");
    assert!(world.entries("fenced").await.is_empty(), "the gate was never closed");
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(100, SOON).await.unwrap();

    fleet.leaves("deaf").await;
    fleet.joins("old", at(&world.source), false).await;
    let run = world.command(&["run"]).spawn().unwrap();
    journalled(&world, "committed", 1).await;
    let pid = run.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    ends(run).await.code(7).says("interrupted").says("goes on with the opening");
    assert_eq!(world.phase().await, "opening");
    fleet.leaves("old").await;
    fleet.joins("new", at(&world.target), false).await;
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    world.judge(load).await;
}

/// A4, A13, A16: an agent's clients are waited for as the server's own are, each of them; and an agent that dies is waited
/// for until its lease is over, and no longer.
#[tokio::test]
async fn a4_a16_the_clients_of_an_agent_are_waited_for_and_a_dead_agent_until_its_lease_is_over() {
    let world = world("lease = \"1500ms\"\n[pause]\nbudget = \"1s\"\nattempts = 1").await;
    let mut fleet = Fleet::start_with_agent(&world).await;
    let load = world.load(4).await;
    world.ready().await;
    fleet.joins("pooled", POOLED.to_owned(), false).await;
    fleet.joins("deaf", POOLED.to_owned(), true).await;
    world.cutover(&["run"]).await.code(5).says("deaf acts on epoch");
    assert!(world.entries("fenced").await.is_empty(), "the gate was never closed");
    load.wait_acknowledged(100, SOON).await.unwrap();

    fleet.leaves("deaf").await;
    fleet.joins("old", at(&world.source), false).await;
    let run = world.command(&["run"]).spawn().unwrap();
    journalled(&world, "committed", 1).await;
    let fenced = world.entries("fenced").await.remove(0);
    assert_eq!(fenced["acknowledged"]["clients"], 2, "{fenced:#}");
    let named = || async { world.cutover(&["status"]).await.code(0).out.contains("old is connected to the source") };
    eventually(SOON, named).await.unwrap();
    // Nobody can say any more that `old` is gone: its lease has to run out, with the agent's.
    fleet.agent.as_mut().unwrap().child.kill().await.unwrap();
    ends(run).await.code(0);
    assert_eq!(world.authority().await, "target");
    assert_eq!(world.entries("opened").await[0]["acknowledged"]["clients"], 0);
    world.judge(load).await;
}

async fn world(keys: &str) -> World {
    World::of(15, 15, &flags(keys)).await
}

fn flags(keys: &str) -> String {
    format!("[[traffic]]\nkind = \"flags\"\nthrough = [\"{POOLED}\"]\n{keys}")
}

pub(crate) async fn ends(child: Child) -> Said {
    Said::of(tokio::time::timeout(SOON * 2, child.wait_with_output()).await.expect("it did not end").unwrap())
}

/// `cutover serve`, and pods that ask it, or an agent of it, before they write.
struct Fleet {
    server: Server,
    agent: Option<Server>,
    pods: BTreeMap<&'static str, JoinHandle<()>>,
}

impl Fleet {
    async fn start(world: &World) -> Self {
        let server = Server::spawn(world.command(&["serve", "--listen", "127.0.0.1:0", "--output", "json"]), None).await;
        Self { server, agent: None, pods: BTreeMap::new() }
    }

    /// The same, with an agent that the pods ask.
    async fn start_with_agent(world: &World) -> Self {
        let mut fleet = Self::start(world).await;
        fleet.agent = Some(agent(world, &fleet.server.address).await);
        fleet
    }

    /// Whom the pods ask.
    fn asked(&self) -> &Server {
        self.agent.as_ref().unwrap_or(&self.server)
    }

    /// Starts a pod, and returns when it has been answered once. One that is `deaf` acknowledges nothing later.
    async fn joins(&mut self, name: &'static str, database: String, deaf: bool) {
        let (told, first) = tokio::sync::oneshot::channel();
        let (client, url) = (self.asked().client.clone(), format!("{}/v1/permits", self.asked().address));
        self.pods.insert(name, tokio::spawn(pod(client, url, name, database, deaf, told)));
        first.await.unwrap();
    }

    /// Ends a pod, which says so.
    async fn leaves(&mut self, name: &str) {
        let pod = self.pods.remove(name).unwrap();
        pod.abort();
        drop(pod.await);
        let goodbye = self.asked().client.delete(format!("{}/v1/permits/{name}", self.asked().address)).send().await.unwrap();
        assert_eq!(goodbye.status(), 204);
    }

    /// Ends the server without a word; its row stays.
    async fn dies(mut self) {
        self.server.child.kill().await.unwrap();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.pods.values().for_each(JoinHandle::abort);
    }
}

/// Asks on and on, as a client library does: each request is news, renewal and acknowledgement.
async fn pod(client: reqwest::Client, url: String, name: &'static str, database: String, deaf: bool, told: oneshot::Sender<()>) {
    let (mut told, mut acknowledged, mut revision) = (Some(told), None::<u64>, None::<u64>);
    loop {
        let mut asks = json!({ "instance": name, "incarnation": name, "database": database, "wait_ms": 200 });
        asks["acknowledged"] = json!(acknowledged);
        asks["revision"] = json!(revision);
        let asked = client.post(&url).header("content-type", "application/json").body(asks.to_string()).send().await;
        let Ok(answer) = asked else { return };
        let permit: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        revision = permit["revision"].as_u64();
        if !deaf || acknowledged.is_none() {
            acknowledged = permit["epoch"].as_u64();
        }
        if let Some(told) = told.take() {
            told.send(()).ok();
        }
    }
}

/// Waits until the journal has so many entries of a kind.
pub(crate) async fn journalled(world: &World, kind: &str, count: usize) {
    let journal = open_sqlite(&world.folder.path().join(".cutover/journal.db"), "bank").await.unwrap();
    let there = || async { journal.load().await.unwrap().iter().filter(|entry| entry.kind == kind).count() >= count };
    eventually(SOON, there).await.unwrap();
}

/// What a pod says that it is connected to.
fn at(cluster: &Cluster) -> String {
    format!("postgres://app@127.0.0.1:{}/{DATABASE}", cluster.port())
}

const POOLED: &str = "pool.internal:6432";
