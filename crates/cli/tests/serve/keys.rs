//! Reads that are split by key: an agent answers for a server that says so, and for one that is too old to.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, routing::post};
use cutover_client::{Client, Side};
use cutover_testkit::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::ground::{LIMIT, Server, agent, answer};

/// What the server that an agent asks says to it.
struct Upstream {
    says: Arc<Mutex<Value>>,
    address: String,
    task: JoinHandle<()>,
}

impl Upstream {
    async fn start() -> Self {
        let says = json!({ "cutover": "shop", "revision": 1, "epoch": 1, "authority": "source", "writes": "open", "places": [], "lease_ms": 60_000 });
        let says = Arc::new(Mutex::new(says));
        let told = says.clone();
        let agents = post(|| async move { Json(told.lock().unwrap().clone()) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/agents", agents);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { says, address, task }
    }

    /// From now on says this as well.
    fn say(&self, more: &Value) {
        let mut says = self.says.lock().unwrap();
        let revision = says["revision"].as_u64().unwrap() + 1;
        for (key, value) in more.as_object().unwrap() {
            says[key] = value.clone();
        }
        (says["revision"], says["epoch"]) = (json!(revision), json!(revision));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(agent: &crate::server::Server, unit: &str, context: Value) -> (StatusCode, Value) {
    let path = format!("/ofrep/v1/evaluate/flags/shop.{unit}.read");
    answer(agent.post(&path, json!({ "context": context }).to_string())).await
}

#[tokio::test]
async fn an_agent_and_the_sdk_behind_it_send_each_key_where_the_published_vectors_say() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.address, &[]).await;
    eventually(LIMIT, || async { read(&agent, "database", json!({})).await.1["value"] == "source" }).await.unwrap();
    upstream.say(&json!({ "authority": "target" }));
    eventually(LIMIT, || async { read(&agent, "database", json!({})).await.1["value"] == "target" }).await.unwrap();
    assert_eq!(read(&agent, "orders", json!({})).await.0, StatusCode::NOT_FOUND, "an older server names no units");

    upstream.say(
        &json!({ "authority": "source", "units": [{ "name": "orders", "target_reads": 2500 }, { "name": "all", "target_reads": 10_000 }] }),
    );
    eventually(LIMIT, || async { read(&agent, "all", json!({})).await.1["value"] == "target" }).await.unwrap();
    let client = Client::builder(&agent.address).connect().await.unwrap();
    let vectors = include_str!("../../../../docs/bucketing-vectors.csv").lines().filter_map(|line| line.strip_prefix("shop.orders,"));
    let mut sides = [0, 0];
    for (key, bucket) in vectors.map(|vector| vector.rsplit_once(',').unwrap()) {
        let expected = if bucket.parse::<u16>().unwrap() < 2500 { Side::Target } else { Side::Source };
        assert_eq!(client.read_from("orders", key), Some(expected), "{key:?}");
        // To OpenFeature an empty key is none.
        if !key.is_empty() {
            let (status, told) = read(&agent, "orders", json!({ "targetingKey": key, "instance": "pod-1" })).await;
            let expected = json!(expected.to_string());
            assert_eq!((status, &told["value"], &told["reason"]), (StatusCode::OK, &expected, &json!("SPLIT")), "{key:?}: {told}");
        }
        sides[usize::from(expected == Side::Target)] += 1;
    }
    assert!(sides.iter().all(|many| *many > 5), "{sides:?}");

    let (status, none) = read(&agent, "orders", json!({ "instance": "pod-1" })).await;
    assert_eq!((status, &none["errorCode"], none.get("value")), (StatusCode::BAD_REQUEST, &json!("TARGETING_KEY_MISSING"), None), "{none}");
    let (status, bulk) = answer(agent.post("/ofrep/v1/evaluate/flags", "{}")).await;
    let keys: Vec<_> = bulk["flags"].as_array().unwrap().iter().map(|flag| flag["key"].as_str().unwrap()).collect();
    assert!(status == StatusCode::OK && keys.contains(&"shop.all.read") && !keys.contains(&"shop.orders.read"), "{keys:?}");
}

#[tokio::test]
async fn in_a_switch_a_lease_names_the_database_whose_reads_go_to_one_side_whoever_asks() {
    let server = Server::start(&[]).await;
    let asks = json!({ "instance": "pod-1", "incarnation": "i-1", "database": "old.example" }).to_string();
    let (_, permit) = answer(server.post("/v1/permits", &*asks)).await;
    assert_eq!(permit["units"], json!([{ "name": "database", "target_reads": 0 }]), "{permit}");
    for context in [json!({}), json!({ "targetingKey": "customer-17" })] {
        let (status, told) = read(&server, "database", context).await;
        assert_eq!((status, &told["value"], &told["reason"]), (StatusCode::OK, &json!("source"), &json!("TARGETING_MATCH")), "{told}");
    }
    let client = Client::builder(&server.address).connect().await.unwrap();
    assert_eq!(client.read_from("database", "customer-17"), Some(Side::Source));
}
