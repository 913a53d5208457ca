//! Flags: the pause waits until their clients have heard, the opening until none is left at the old side.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cutover_core::{
    Event, Side, State, apply,
    clients::{Clients, Place, Renewal},
};
use cutover_journal::{Journal, SqliteJournal, open_sqlite};
use cutover_testkit::eventually;
use tokio::{process::Child, task::JoinHandle};

use crate::world::{Said, World};

const SOON: Duration = Duration::from_secs(30);

/// How often a server writes down what it knows, and so how late its clients acknowledge.
const TICK: Duration = Duration::from_millis(60);

/// A7, I5: the fence comes after the last acknowledgement, and a dead server costs no lease inside the pause. A16: one
/// live instance at the old side blocks the opening, until it is gone. The way back waits for nobody.
#[tokio::test]
async fn a7_a16_the_fence_waits_for_acknowledgements_and_the_opening_for_old_instances() {
    let world = world("lease = \"1s\"\nrollout = \"2s\"").await;
    world.cutover(&["run", "--until", "ready"]).await.code(3).says("no server is there");
    let dead = Server::start(&world, "dead", [("pod-9", Place::At(Side::Source), true)]).await;
    dead.dies().await;
    let server = Server::start(&world, "live", [("pooled", Place::Through, true), ("old", Place::At(Side::Source), true)]).await;
    let load = world.load(4).await;
    world.ready().await;

    world.cutover(&["run"]).await.code(7).says("old is connected to the source").says("stop the instances");
    let fenced = world.entries("fenced").await.remove(0);
    let (acknowledged, closed_ms) = (&fenced["acknowledged"], fenced["closed_after_ms"].as_u64().unwrap());
    assert_eq!((&acknowledged["servers"], &acknowledged["clients"]), (&1.into(), &2.into()), "{fenced:#}");
    let after_ms = acknowledged["after_ms"].as_u64().unwrap();
    assert!(after_ms >= whole_ms(TICK / 2) && after_ms <= closed_ms, "acknowledged before it could be: {fenced:#}");
    assert!(after_ms < 1_000, "the dead server cost its lease inside the pause: {fenced:#}");
    assert_eq!(world.phase().await, "opening");

    world.write_plan(&flags("lease = \"1s\""));
    let mut run = world.command(&["run", "--until", "ready"]).spawn().unwrap();
    server.hears(&world, "driver_took_over", 2).await;
    assert!(run.try_wait().unwrap().is_none(), "the old instance is there still");
    server.leaves("old");
    ends(run).await.code(0);
    assert_eq!(world.entries("opened").await[0]["acknowledged"]["clients"], 1);
    load.wait_acknowledged(100, SOON).await.unwrap();

    server.joins("late", Place::At(Side::Target));
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
    let world = world("lease = \"30s\"\n[pause]\nbudget = \"1s\"\nattempts = 2").await;
    let server = Server::start(&world, "live", [("deaf", Place::Through, false)]).await;
    let load = world.load(4).await;
    world.ready().await;
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

    server.joins("deaf", Place::At(Side::Source));
    let run = world.command(&["run"]).spawn().unwrap();
    server.hears(&world, "committed", 1).await;
    let pid = run.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    ends(run).await.code(7).says("interrupted").says("goes on with the opening");
    assert_eq!(world.phase().await, "opening");
    server.joins("deaf", Place::At(Side::Target));
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    world.judge(load).await;
}

async fn world(keys: &str) -> World {
    World::of(15, 15, &flags(keys)).await
}

fn flags(keys: &str) -> String {
    format!("[[traffic]]\nkind = \"flags\"\n{keys}")
}

async fn ends(child: Child) -> Said {
    Said::of(tokio::time::timeout(SOON * 2, child.wait_with_output()).await.expect("it did not end").unwrap())
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

#[derive(Clone, Copy)]
struct Client {
    place: Place,
    /// Whether it acknowledges what it is told.
    listens: bool,
}

type Instances = Arc<Mutex<BTreeMap<&'static str, Client>>>;

/// A server that gives leases, as a driver sees one: it writes down what its clients have acknowledged.
struct Server {
    clients: Instances,
    task: JoinHandle<()>,
}

impl Server {
    async fn start<const N: usize>(world: &World, name: &'static str, clients: [(&'static str, Place, bool); N]) -> Self {
        let journal = journal(world).await;
        let clients = clients.map(|(name, place, listens)| (name, Client { place, listens }));
        let clients: Instances = Arc::new(Mutex::new(clients.into()));
        let task = tokio::spawn(serve(journal, name, Arc::clone(&clients)));
        let journal = self::journal(world).await;
        eventually(SOON, || async { journal.rows().await.unwrap().iter().any(|row| row.server == name) }).await.unwrap();
        Self { clients, task }
    }

    /// Ends without a word; its row stays.
    async fn dies(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }

    fn joins(&self, name: &'static str, place: Place) {
        self.clients.lock().unwrap().insert(name, Client { place, listens: true });
    }

    fn leaves(&self, name: &str) {
        self.clients.lock().unwrap().remove(name).unwrap();
    }

    /// Waits until the journal has so many entries of a kind and the server has written down that it knows.
    async fn hears(&self, world: &World, kind: &str, count: usize) {
        let journal = journal(world).await;
        let heard = eventually(SOON, || async {
            let entries = journal.load().await.unwrap();
            let newest = entries.last().map_or(0, |entry| entry.epoch);
            let rows = journal.rows().await.unwrap();
            let there = entries.iter().filter(|entry| entry.kind == kind).count() >= count;
            there && rows.iter().any(|row| row.server == "live" && row.body["epoch"] == newest)
        });
        heard.await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn journal(world: &World) -> SqliteJournal {
    let folder = world.folder.path().join(".cutover");
    std::fs::create_dir_all(&folder).unwrap();
    open_sqlite(&folder.join("journal.db"), "bank").await.unwrap()
}

/// Writes its row first, then reads the journal: so either it knows of an entry, or whoever appended it knows of the row.
async fn serve(journal: SqliteJournal, name: &str, instances: Instances) {
    let (mut state, mut seq, mut told) = (None::<State>, 0, 0);
    for beat in 0.. {
        let route = state.as_ref().map(State::route).unwrap_or_default();
        let mut clients = Clients::default();
        for (name, client) in instances.lock().unwrap().iter() {
            let acknowledged = Some(if client.listens { told } else { 0 });
            let renewal = Renewal { key: name, name, place: Some(client.place), acknowledged, until_ms: 1 };
            clients.renew(&renewal, route.epoch).unwrap();
        }
        let report = serde_json::to_value(clients.report(0, route.epoch, route.authority)).unwrap();
        journal.write_row(name, beat, 1_000, &report).await.unwrap();
        told = route.epoch;
        let began = Instant::now();
        for entry in journal.tail(seq, TICK).await.unwrap() {
            seq = entry.seq;
            let event: Event = serde_json::from_value(entry.body).unwrap();
            state = Some(apply(state, &event).unwrap());
        }
        // A client takes as long to acknowledge whenever it is told.
        let rest = TICK.saturating_sub(began.elapsed());
        drop(tokio::time::timeout(rest, std::future::pending::<()>()).await);
    }
}
