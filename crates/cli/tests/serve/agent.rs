//! An agent, between a server and those who ask.

use std::time::{Duration, Instant};

use cutover_client::{Client, Reason, Side};
use cutover_testkit::{Proxy, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::ground::{LIMIT, Server, agent, answer, call, folder, token};

const WRITES: &str = "/ofrep/v1/evaluate/flags/database-writes-enabled";

fn at(database: &str) -> String {
    json!({ "context": { "targetingKey": "pod-1", "database": database } }).to_string()
}

async fn enabled(agent: &crate::server::Server) -> bool {
    answer(agent.post(WRITES, at("old.example"))).await.1["value"] == true
}

/// The flags without what is of the moment.
fn settled(mut bulk: Value) -> Value {
    bulk.as_object_mut().unwrap().remove("eventStreams");
    let lists = bulk["flags"].as_array_mut().unwrap().iter_mut().map(|flag| &mut flag["metadata"]);
    lists.for_each(|metadata| drop(metadata.as_object_mut().unwrap().remove("leaseExpiresAt")));
    bulk["metadata"].as_object_mut().unwrap().remove("leaseExpiresAt");
    bulk
}

#[tokio::test]
async fn a2_an_agent_says_what_its_server_says_to_everybody() {
    let server = Server::start(&[]).await;
    let agent = agent(&server.address, &[]).await;
    eventually(LIMIT, || async { enabled(&agent).await }).await.unwrap();
    for context in [at("old.example"), at("new.example:5433/shop"), at("elsewhere"), "{}".to_owned(), String::new()] {
        let [one, other] = [&*server, &agent].map(|asked| asked.post("/ofrep/v1/evaluate/flags", context.clone()));
        let (one, other) = (answer(one).await, answer(other).await);
        assert_eq!((one.0, settled(one.1)), (other.0, settled(other.1)), "{context}");
    }
    let asks = json!({ "instance": "pod-1", "incarnation": "i-1", "database": "new.example" }).to_string();
    let [(_, one), (_, other)] = [answer(server.post("/v1/permits", &*asks)).await, answer(agent.post("/v1/permits", &*asks)).await];
    assert_eq!((&one["why"], &one["epoch"], &one["cutover"]), (&other["why"], &other["epoch"], &other["cutover"]));
    let (status, problem) = answer(agent.get("/v1/status")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")), "it drives nothing, and shows nothing");
    let (_, document) = answer(agent.get("/openapi.json")).await;
    assert!(document["paths"].get("/v1/permits").is_some() && document["paths"].get("/v1/run").is_none());
}

#[tokio::test]
async fn a4_an_agent_that_is_cut_off_refuses_writes_within_its_lease_and_leaves_reads_where_they_are() {
    let server = Server::start(&["--lease", "1s"]).await;
    let road = Proxy::start(server.address.trim_start_matches("http://")).await.unwrap();
    let upstream = format!("http://{}", road.address());
    let agent = agent(&upstream, &[]).await;
    let client = Client::builder(&agent.address).database("old.example").connect().await.unwrap();
    for stalled in [false, true] {
        drop(client.write_within(LIMIT).await.unwrap());
        assert!(enabled(&agent).await);
        let begun = Instant::now();
        if stalled {
            road.stall().await.unwrap();
        } else {
            road.cut().await;
        }
        eventually(LIMIT, || async { !enabled(&agent).await && !client.may_write() }).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "the lease plus one second: {took:?}");
        assert_eq!(answer(agent.get("/readyz")).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let (_, read) = answer(agent.post("/ofrep/v1/evaluate/flags/shop.database.read", "{}")).await;
        assert_eq!((&read["value"], &read["reason"]), (&json!("source"), &json!("UNKNOWN")), "{read}");
        assert!(matches!(client.write().unwrap_err().reason, Reason::CutOff { .. } | Reason::Held), "{:?}", client.write());
        assert_eq!(client.route().unwrap().authority, Side::Source);
        road.restore().await.unwrap();
        eventually(LIMIT, || async { enabled(&agent).await }).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_begins_without_its_server_and_outlives_it() {
    let folder = folder();
    let secret = token(folder.path(), "node-1", "client").await;
    std::fs::write(folder.path().join("token"), format!("{secret}\n")).unwrap();
    let path = folder.path().join("token");
    let file = ["--token-file", path.to_str().unwrap()];
    let nobody = Proxy::start("127.0.0.1:9").await.unwrap();
    let agent = agent(&format!("http://{}", nobody.address()), &file).await;
    let (status, refused) = answer(agent.post(WRITES, at("old.example"))).await;
    assert_eq!((status, &refused["value"], &refused["reason"]), (StatusCode::OK, &json!(false), &json!("UNKNOWN")), "{refused}");
    let (status, unknown) = answer(agent.post("/ofrep/v1/evaluate/flags/shop.stage", "{}")).await;
    assert_eq!((status, &unknown["errorCode"]), (StatusCode::NOT_FOUND, &json!("FLAG_NOT_FOUND")), "{unknown}");
    let asks = json!({ "instance": "pod-1", "incarnation": "i-1", "database": "old.example" }).to_string();
    let (status, problem) = answer(agent.post("/v1/permits", &*asks)).await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("UNAVAILABLE")), "{problem}");

    let mut server = Server::start_in(folder, &[], None).await;
    nobody.lead_to(server.address.trim_start_matches("http://")).await.unwrap();
    eventually(LIMIT, || async { enabled(&agent).await }).await.unwrap();
    let text = server.get("/metrics").bearer_auth("none").send().await.unwrap().status();
    assert_eq!(text, StatusCode::UNAUTHORIZED, "tokens are asked for, and the agent has one");

    server.server.child.kill().await.unwrap();
    eventually(LIMIT, || async { !enabled(&agent).await }).await.unwrap();
    let Server { folder, .. } = server;
    let next = Server::start_in(folder, &[], None).await;
    nobody.lead_to(next.address.trim_start_matches("http://")).await.unwrap();
    eventually(LIMIT, || async { enabled(&agent).await }).await.unwrap();
}

#[tokio::test]
async fn an_agent_says_what_is_wrong_before_it_listens_and_ends_where_another_cutover_begins() {
    let folder = folder();
    for (arguments, expected, part) in [
        (&["agent"][..], 2, "--server"),
        (&["agent", "--server", "cutover"], 1, "no address of a cutover server"),
        (&["agent", "--server", "http://a:hunter2@b"], 1, "by a token"),
        (&["agent", "--server", "http://127.0.0.1:9", "--listen", "0.0.0.0:0"], 1, "can be reached from outside"),
        (&["agent", "--server", "http://127.0.0.1:9", "--token-file", "nowhere"], 2, "can't read the token"),
        (&["agent", "--server", "http://127.0.0.1:9", "--name", "a\nb"], 1, "no name of an agent"),
        (&["agent", "--server", "https://127.0.0.1:9", "--ca", "cutover.toml"], 1, "there is none in what was given"),
    ] {
        let (code, out, err) = call(folder.path(), arguments).await;
        assert_eq!((code, out.as_str()), (expected, ""), "{err}");
        assert!(err.contains(part) && !err.contains("hunter2"), "{err}");
    }
    let server = Server::start_in(folder, &[], None).await;
    let road = Proxy::start(server.address.trim_start_matches("http://")).await.unwrap();
    let mut agent = agent(&format!("http://{}", road.address()), &[]).await;
    eventually(LIMIT, || async { enabled(&agent).await }).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let plan = std::fs::read_to_string(server.folder.path().join("cutover.toml")).unwrap();
    std::fs::write(other.path().join("cutover.toml"), plan.replace("\"shop\"", "\"stock\"")).unwrap();
    let another = Server::start_in(other, &[], None).await;
    road.lead_to(another.address.trim_start_matches("http://")).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, agent.child.wait()).await.expect("it goes on").unwrap();
    assert_eq!(ended.code(), Some(1), "its clients could not tell the epochs of the two apart");
}

#[tokio::test]
async fn a_report_of_an_agent_is_checked_and_shown() {
    let server = Server::start(&[]).await;
    let asks = |clients: Value| json!({ "instance": "node-1", "incarnation": "i-1", "beat": 1, "clients": clients }).to_string();
    let sum = json!({ "epoch": 0, "clients": 3, "behind": 0, "astray": 2, "unknown": 1, "names": ["old-pod is connected to the target"] });
    let (status, permit) = answer(server.post("/v1/agents", asks(sum.clone()))).await;
    assert_eq!(
        (status, &permit["cutover"], &permit["places"][0]["name"]),
        (StatusCode::OK, &json!("shop"), &json!("old.example:5432/shop"))
    );
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\ncutover_clients 3\n") && metrics.contains("\ncutover_clients_astray 2\n"), "{metrics}");
    for (field, value, expected) in [
        ("epoch", json!(9), 409),
        ("clients", json!(u64::MAX), 400),
        ("names", json!(["a\nb"]), 400),
        ("names", json!(vec!["a"; 11]), 400),
        ("behind", json!(-1), 400),
    ] {
        let mut wrong = sum.clone();
        wrong[field] = value;
        let (status, problem) = answer(server.post("/v1/agents", asks(wrong))).await;
        assert_eq!(status.as_u16(), expected, "{field}: {problem}");
    }
    let goodbye = server.client.delete(format!("{}/v1/agents/i-1", server.address)).send().await.unwrap();
    assert_eq!(goodbye.status(), StatusCode::NO_CONTENT);
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\ncutover_clients 0\n"), "{metrics}");
}

/// Ctrl-C has it say goodbye, so that nobody waits for its lease.
#[tokio::test]
async fn an_agent_that_ends_says_goodbye() {
    let server = Server::start(&["--lease", "30s"]).await;
    let mut agent = agent(&server.address, &[]).await;
    let client = Client::builder(&agent.address).database("old.example").connect().await.unwrap();
    let metrics = || async { server.get("/metrics").send().await.unwrap().text().await.unwrap() };
    eventually(LIMIT, || async { metrics().await.contains("\ncutover_clients 1\n") }).await.unwrap();
    client.close().await;
    let id = agent.child.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let ended = tokio::time::timeout(LIMIT, agent.child.wait()).await.expect("it does not end").unwrap();
    assert!(ended.success(), "{ended}");
    let metrics = metrics().await;
    assert!(metrics.contains("route=\"/v1/agents/{incarnation}\",status=\"204\"} 1\n"), "{metrics}");
}
