//! A flag at Consul through a whole switch, with pods that watch its key as Consul's users do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use cutover_testkit::{Cluster, eventually};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    doubles::{
        Double, Fault, TOKEN,
        consul::{Kv, PATH},
    },
    world::{DATABASE, PASSWORD, World},
};

const SOON: Duration = Duration::from_secs(30);

/// A6, and document A's fatal step: the flag is closed in the pause, and opens to the pods of the new side only. The old
/// pod lives on and is not armed again, until the way back opens the old side to it, and only to it.
#[tokio::test]
async fn a6_the_flag_is_closed_in_the_pause_and_opens_to_pods_of_the_new_side_only() {
    let (world, consul) = world("settle = \"1s\"").await;
    world.source.execute(DATABASE, "CREATE TABLE public.visits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)").await.unwrap();
    world.source.execute(DATABASE, "GRANT INSERT ON public.visits TO app").await.unwrap();
    world.cutover(&["check"]).await.says("there is no key");
    consul.change(|kv| *kv = open_to(&world.source));
    world.cutover(&["check"]).await.code(0).says(&name(&world.source));
    let plan = world.cutover(&["plan"]).await.code(0).says("/v1/kv/shop/database-writes-enabled?cas=INDEX").says("1s");
    assert!(!plan.out.contains(PASSWORD) && !plan.out.contains(TOKEN), "{}", plan.out);

    let load = world.load(4).await;
    world.ready().await;
    let old = Pod::start(&world.source, &consul);
    let new = Pod::start(&world.target, &consul);
    old.writes_on().await;
    consul.take_history();
    world.cutover(&["run"]).await.code(0);
    let documents: Vec<Value> = consul.take_history().iter().map(Kv::document).collect();
    let said: Vec<_> = documents.iter().map(|document| (&document["enabled"], &document["databases"])).collect();
    let (source, target) = (json!([name(&world.source)]), json!([name(&world.target)]));
    assert_eq!(said, [(&json!(true), &source), (&json!(false), &json!([])), (&json!(true), &target)], "{documents:#?}");
    assert!(documents[1]["epoch"].as_u64() < documents[2]["epoch"].as_u64(), "{documents:#?}");
    new.writes_on().await;
    let wrote = old.wrote();
    load.wait_acknowledged(100, SOON).await.unwrap();
    new.writes_on().await;
    assert_eq!((old.wrote(), old.strayed(), new.strayed()), (wrote, 0, 0), "the old pod is not armed again");
    world.cutover(&["status"]).await.code(0).says(&format!("open to {}", name(&world.target)));

    world.cutover(&["rollback", "--reason", "to see whom it opens to"]).await.code(0);
    old.writes_on().await;
    assert_eq!(world.authority().await, "source");
    assert_eq!(consul.state().document()["databases"], source);
    assert_eq!((old.strayed(), new.strayed()), (0, 0));
    drop((old, new));
    world.judge(load).await;
}

/// A4, A14: a service that can't be written has the pause undone in time, and writes go on; so has a driver that dies
/// while the flag is closed. The next run opens it again, to the side that stayed in charge, and then switches.
#[tokio::test]
async fn a4_a6_a_service_that_fails_and_a_driver_that_dies_leave_the_flag_open_to_the_side_in_charge() {
    let (world, consul) = world("timeout = \"300ms\"\n[pause]\nbudget = \"1s\"\nattempts = 1").await;
    consul.change(|kv| *kv = open_to(&world.source));
    let load = world.load(4).await;
    world.ready().await;
    // It is written that writes are held; whether it is shown nobody says before the hold, which asks five times, is over.
    consul.fail_once_changed(Fault::Status(503, None));
    consul.take_requests();
    let recovers = async {
        let mut asked = 0;
        eventually(SOON, || {
            asked += consul.take_requests().iter().filter(|_| consul.state().document()["enabled"] == false).count();
            std::future::ready(asked > 8)
        })
        .await
        .unwrap();
        consul.fail_always(None);
    };
    let (run, ()) = tokio::join!(world.cutover(&["run"]), recovers);
    run.code(5);
    assert_eq!(world.authority().await, "source");
    assert!(world.entries("fenced").await.is_empty(), "the gate was never closed");
    let document = consul.state().document();
    assert_eq!((&document["enabled"], &document["databases"]), (&json!(true), &json!([name(&world.source)])));
    load.wait_acknowledged(100, SOON).await.unwrap();

    world.cutover_killed(&["run"], Some("after:fenced")).await.killed();
    assert_eq!(consul.state().document()["enabled"], false, "it died with the flag closed");
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    assert_eq!(consul.state().document()["databases"], json!([name(&world.target)]));
    world.judge(load).await;
}

/// Its key is not there yet.
async fn world(keys: &str) -> (World, Double<Kv>) {
    let consul = Double::start(Kv { value: None, index: 1 }).await;
    let key = PATH[2..].join("/");
    let more = format!("[[traffic]]\nkind = \"consul\"\nurl = \"{}\"\nkey = \"{key}\"\ntoken = \"{TOKEN}\"\n{keys}", consul.url);
    (World::of(15, 15, &more).await, consul)
}

fn open_to(cluster: &Cluster) -> Kv {
    Kv::of(&json!({ "enabled": true, "databases": [name(cluster)] }))
}

/// The name of a database by the plan.
fn name(cluster: &Cluster) -> String {
    format!("127.0.0.1:{}/{DATABASE}", cluster.port())
}

/// An instance connected to one side, which writes as long as the key says that it may.
struct Pod {
    wrote: Arc<AtomicU64>,
    strayed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Pod {
    fn start(cluster: &Cluster, consul: &Double<Kv>) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let (wrote, strayed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (may, allowed) = tokio::sync::watch::channel(false);
        let watch = tokio::spawn(watch(format!("{}/{}", consul.url, PATH.join("/")), name(cluster), may));
        let url = cluster.url("app", DATABASE);
        let write = tokio::spawn(write(url, allowed, Arc::clone(&wrote), Arc::clone(&strayed)));
        Self { wrote, strayed, tasks: vec![watch, write] }
    }

    fn wrote(&self) -> u64 {
        self.wrote.load(Ordering::SeqCst)
    }

    /// Writes that the other side's gate had to stop.
    fn strayed(&self) -> u64 {
        self.strayed.load(Ordering::SeqCst)
    }

    async fn writes_on(&self) {
        let before = self.wrote();
        eventually(SOON, || async { self.wrote() > before + 3 }).await.unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Blocking queries, one after the other: each comes back when the key has changed.
async fn watch(url: String, name: String, may: tokio::sync::watch::Sender<bool>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut index = 0;
    loop {
        let answer = client.get(format!("{url}?index={index}&wait=10s")).header("x-consul-token", TOKEN).send().await.unwrap();
        index = answer.headers()["x-consul-index"].to_str().unwrap().parse::<u64>().unwrap();
        let entry: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let value = BASE64_STANDARD.decode(entry[0]["Value"].as_str().unwrap()).unwrap();
        let document: Value = serde_json::from_slice(&value).unwrap();
        let named = document["databases"].as_array().unwrap().iter().any(|database| *database == name.as_str());
        may.send_replace(named && document["enabled"] == true);
    }
}

async fn write(url: String, mut may: tokio::sync::watch::Receiver<bool>, wrote: Arc<AtomicU64>, strayed: Arc<AtomicU64>) {
    let mut client = None;
    loop {
        may.wait_for(|may| *may).await.unwrap();
        if client.as_ref().is_none_or(tokio_postgres::Client::is_closed) {
            let (made, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            // Its errors reach the client.
            tokio::spawn(async move { drop(connection.await) });
            client = Some(made);
        }
        let written = client.as_ref().unwrap().batch_execute("INSERT INTO public.visits DEFAULT VALUES").await;
        let counts = if written.is_ok() { &wrote } else { &strayed };
        counts.fetch_add(1, Ordering::SeqCst);
    }
}
