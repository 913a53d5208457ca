//! flagd's stock providers through a real switch: they are told like everybody, and their rules are waited for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover_testkit::{Cluster, Proxy};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    flags::{ends, journalled},
    server::Server,
    serving::agent,
    stock::{ALL, Provider, Stock, Way},
    world::{DATABASE, World},
};

const SOON: Duration = Duration::from_secs(30);

const PLAN: &str = "[[traffic]]\nkind = \"flags\"\nlease = \"4s\"\n[pause]\nbudget = \"9s\"\n";

/// What an instance that is connected to one side was told that it may write: when it asked, and when it was told. Unit:
/// milliseconds since 1970.
type Yes = (i64, i64);

/// A1, A4, A7: two generations of instances, whose providers ask the server or evaluate what it or an agent tells them.
#[tokio::test]
async fn a4_flagds_providers_allow_no_write_at_the_wrong_database_and_the_fence_waits_for_their_rules() {
    let world = World::of(15, 15, PLAN).await;
    let load = world.load(4).await;
    let server = Server::spawn(world.command(&["serve", "--listen", "127.0.0.1:0", "--output", "json"]), None).await;
    let agent = agent(&world, &server.address).await;
    world.ready().await;

    let (done, end) = watch::channel(false);
    let mut instances = Vec::new();
    let road = Proxy::start(server.address.trim_start_matches("http://")).await.unwrap();
    let by_road = format!("http://{}", road.address());
    let flagd = ALL.into_iter().filter(|stock| stock.way != Way::Ofrep);
    for (stock, house) in flagd.zip([&server.address, &agent.address, &agent.address, &by_road]) {
        for at in [&world.source, &world.target] {
            let mut provider = stock.start(house, None, None).await;
            let old = at.port() == world.source.port();
            assert_eq!(told(&mut provider, &address(at)).await, json!(old), "{stock:?} at {house}");
            instances.push(Instance { stock, old, yes: instance(stock.way, provider, address(at), end.clone()) });
        }
    }
    let run = world.command(&["run"]).spawn().unwrap();
    // From here on those by the road hear nothing more, as the server can't know: they have the rules of before the hold.
    journalled(&world, "armed", 1).await;
    road.stall().await.unwrap();
    journalled(&world, "fenced", 1).await;
    road.restore().await.unwrap();
    ends(run).await.code(0);
    done.send_replace(true);

    let entries = world.cutover(&["audit", "--output", "json"]).await.code(0).json()["entries"].clone();
    let when = |kind: &str| entries.as_array().unwrap().iter().find(|entry| entry["kind"] == kind).unwrap()["at_ms"].as_i64().unwrap();
    let (held, fenced, committed) = (when("fencing_started"), when("fenced"), when("committed"));
    let waited_ms = world.entries("fenced").await[0]["acknowledged"]["after_ms"].as_i64().unwrap();
    let mut last_yes = i64::MIN;
    for Instance { stock, old, yes } in instances {
        let yes: Vec<Yes> = tokio::time::timeout(SOON, yes).await.expect("it is never told what it waits for").unwrap();
        if old {
            let last = yes.iter().map(|(asked, _)| *asked).max().unwrap();
            assert!(last < fenced, "{stock:?}: a yes at {last}, fenced at {fenced}");
            last_yes = last.max(last_yes);
        } else {
            assert!(
                !yes.is_empty() && yes.iter().all(|(_, told)| *told > committed),
                "{stock:?}: {:?}, committed at {committed}",
                yes.first()
            );
        }
    }
    println!("held for {waited_ms} ms; the last yes came {} ms after the hold", last_yes - held);
    assert!(last_yes > held, "nobody acted on an old rule any more, so that the waiting proves nothing");
    assert!(waited_ms < 4_000 + 1_000, "a lease, and no more: {waited_ms} ms");
    world.judge(load).await;
}

struct Instance {
    stock: Stock,
    old: bool,
    yes: JoinHandle<Vec<Yes>>,
}

/// Asks on and on. One at the old side that asks the server is there for the server, so it ends once it is told no, as pods
/// that are replaced do; one that goes by rules stays.
fn instance(way: Way, mut provider: Provider, database: String, mut end: watch::Receiver<bool>) -> JoinHandle<Vec<Yes>> {
    tokio::spawn(async move {
        let mut yes = Vec::new();
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        loop {
            beat.tick().await;
            let asked = now_ms();
            let now = told(&mut provider, &database).await == true;
            if now {
                yes.push((asked, now_ms()));
            }
            let replaced = way == Way::Rpc && !now && !yes.is_empty();
            if replaced || (*end.borrow_and_update() && !yes.is_empty()) {
                return yes;
            }
        }
    })
}

async fn told(provider: &mut Provider, database: &str) -> Value {
    let context = json!({ "targetingKey": "pod", "instance": format!("pod-at-{database}"), "database": database });
    provider.asked(&[("database-writes-enabled", json!(false), context)]).await[0]["value"].clone()
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn address(cluster: &Cluster) -> String {
    format!("127.0.0.1:{}/{DATABASE}", cluster.port())
}
