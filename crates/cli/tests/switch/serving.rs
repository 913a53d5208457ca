//! What `cutover serve` tells of a real switch, while it happens.

use std::time::{Duration, Instant};

use cutover_client::{Client, Reason, Side, Writes};
use cutover_testkit::{Cluster, eventually};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    controllers::Shared,
    server::{LIMIT, Server, answer},
    world::{DATABASE, World},
};

const FLAG: &str = "/ofrep/v1/evaluate/flags/database-writes-enabled";

pub(crate) async fn serve(world: &World, more: &[&str]) -> Server {
    let arguments = [&["--output", "json", "serve", "--listen", "127.0.0.1:0"], more].concat();
    Server::spawn(world.command(&arguments), None).await
}

/// An agent of a server, once it has its lease.
pub(crate) async fn agent(world: &World, upstream: &str) -> Server {
    let arguments = ["--output", "json", "agent", "--server", upstream, "--name", "node-1", "--listen", "127.0.0.1:0"];
    let agent = Server::spawn(world.command(&arguments), None).await;
    eventually(LIMIT, || async { agent.get("/readyz").send().await.unwrap().status() == 200 }).await.unwrap();
    agent
}

fn address(cluster: &Cluster) -> String {
    format!("127.0.0.1:{}/{DATABASE}", cluster.port())
}

/// Whether a stock client that is connected to this database is told to write.
async fn enabled(server: &Server, database: &str) -> bool {
    let context = json!({ "context": { "targetingKey": "stock", "database": database } });
    answer(server.post(FLAG, context.to_string())).await.1["value"] == true
}

/// An instance that keeps its lease until it sees this stage with open writes, and everything that it was told.
fn instance(server: &Server, name: &'static str, database: String, until: &'static str) -> JoinHandle<Vec<Value>> {
    let (client, url) = (server.client.clone(), format!("{}/v1/permits", server.address));
    tokio::spawn(async move {
        let mut told: Vec<Value> = Vec::new();
        loop {
            let mut request = json!({ "instance": name, "incarnation": name, "database": database, "wait_ms": 500 });
            if let Some(last) = told.last() {
                request["acknowledged"] = last["epoch"].clone();
                request["revision"] = last["revision"].clone();
            }
            let request = client.post(&url).header("content-type", "application/json").body(request.to_string());
            let (status, permit) = answer(request).await;
            assert_eq!(status, 200, "{permit}");
            let done = permit["stage"] == until && permit["writes"] == "open";
            if told.last().is_none_or(|last| last["revision"] != permit["revision"]) {
                told.push(permit);
            }
            if done {
                return told;
            }
        }
    })
}

/// A1, A4, A7, A16: two generations of instances, one on each database, through a switch under load.
#[tokio::test]
async fn a4_every_instance_hears_of_each_change_and_only_those_at_the_side_in_charge_may_write() {
    let world = World::new().await;
    let load = world.load(4).await;
    world.ready().await;
    let mut server = serve(&world, &[]).await;
    let (old, new) = (address(&world.source), address(&world.target));
    assert!(enabled(&server, &old).await && !enabled(&server, &new).await);
    let instances = [instance(&server, "old-pod", old.clone(), "target"), instance(&server, "new-pod", new.clone(), "target")];
    let mut events = server.get("/v1/events?after=0").send().await.unwrap();
    world.cutover(&["run"]).await.code(0);
    let mut all = Vec::new();
    for instance in instances {
        let told = tokio::time::timeout(LIMIT, instance).await.expect("it has not heard of the opening").unwrap();
        for pair in told.windows(2) {
            assert!(
                pair[0]["revision"].as_u64() < pair[1]["revision"].as_u64() && pair[0]["epoch"].as_u64() <= pair[1]["epoch"].as_u64(),
                "{pair:#?}"
            );
        }
        assert!(told.iter().any(|permit| permit["writes"] == "held"), "the pause was heard of: {told:#?}");
        all.push(told);
    }
    let at_target = |permit: &&Value| permit["authority"] == "target" || permit["writes"] == "held";
    assert!(all[0].iter().filter(at_target).all(|permit| permit["write"] == false), "A1: an old pod never writes again: {:#?}", all[0]);
    assert!(
        all[1].iter().all(|permit| permit["write"] == (permit["authority"] == "target" && permit["writes"] == "open")),
        "{:#?}",
        all[1]
    );
    assert!(!enabled(&server, &old).await && enabled(&server, &new).await);

    let newest = world.cutover(&["audit", "--output", "json"]).await.code(0).json()["entries"].as_array().unwrap().len();
    let mut text = String::new();
    while !text.contains(&format!("id: {newest}\n")) {
        let chunk = tokio::time::timeout(LIMIT, events.chunk()).await.expect("an entry is missing").unwrap().expect("the stream ended");
        text += std::str::from_utf8(&chunk).unwrap();
    }
    let ids: Vec<usize> = text.split("\n\n").filter(|event| event.contains("event: entry")).map(id).collect();
    assert_eq!(ids, (1..=newest).collect::<Vec<_>>(), "each entry once, in order");
    let (_, status) = answer(server.get("/v1/status")).await;
    assert_eq!((&status["state"]["authority"], &status["state"]["phase"]), (&json!("target"), &json!("following")), "{status:#}");
    let (_, audit) = answer(server.get("/v1/journal/audit")).await;
    assert_eq!(audit["intact"], true, "{audit}");

    world.cutover(&["rollback", "--reason", "and back"]).await.code(0);
    eventually(LIMIT, || async { enabled(&server, &old).await && !enabled(&server, &new).await }).await.unwrap();
    server.child.kill().await.unwrap();
    let another = serve(&world, &[]).await;
    assert!(enabled(&another, &old).await && !enabled(&another, &new).await, "the journal is all that it needs");
    world.judge(load).await;
}

/// The epochs under which a process with the SDK wrote, until it sees this side in charge and writes open.
fn writer(client: Client, until: Side) -> JoinHandle<Vec<u64>> {
    let mut beat = tokio::time::interval(Duration::from_millis(1));
    tokio::spawn(async move {
        let mut epochs = Vec::new();
        loop {
            beat.tick().await;
            epochs.extend(client.write().ok().map(|guard| guard.epoch()));
            epochs.dedup();
            if client.route().is_some_and(|route| route.authority == until && route.writes == Writes::Open) {
                return epochs;
            }
        }
    })
}

/// A1, A4, A16: the same with the SDK, which keeps the leases and tells when its writes have ended.
#[tokio::test]
async fn a1_a_process_with_the_sdk_writes_only_while_its_database_is_in_charge() {
    let world = World::new().await;
    world.ready().await;
    let server = serve(&world, &[]).await;
    let connect = |cluster| Client::builder(&server.address).database(address(cluster)).connect();
    let (old, new) = (connect(&world.source).await.unwrap(), connect(&world.target).await.unwrap());
    assert!(old.may_write() && !new.may_write());
    let writers = [writer(old.clone(), Side::Target), writer(new.clone(), Side::Target)];
    world.cutover(&["run"]).await.code(0);
    let mut epochs = Vec::new();
    for writer in writers {
        epochs.push(tokio::time::timeout(LIMIT, writer).await.expect("it has not heard of the opening").unwrap());
    }
    assert!(!epochs[0].is_empty(), "it wrote before the switch");
    let opened = new.write_within(LIMIT).await.unwrap();
    assert!(epochs[0].iter().all(|epoch| *epoch < opened.epoch()), "{epochs:?}");
    assert!(epochs[1].iter().all(|epoch| epochs[0].iter().all(|before| before < epoch)), "{epochs:?}");
    assert!(matches!(old.write().unwrap_err().reason, Reason::WrongDatabase { .. }));
    drop(opened);
    old.close().await;
    new.close().await;
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\ncutover_clients 0\n"), "both have said goodbye: {text}");
}

fn id(event: &str) -> usize {
    event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().parse().unwrap()
}

/// Drives over HTTP until it has ended, and says how.
async fn drive(server: &Server, verb: &str, request: Value) -> Value {
    let (status, begun) = answer(server.post(&format!("/v1/{verb}"), request.to_string())).await;
    assert_eq!(status.as_u16(), 202, "{begun}");
    assert_eq!((&begun["verb"], &begun["outcome"]), (&json!(verb), &Value::Null), "{begun}");
    ended(server).await
}

async fn ended(server: &Server) -> Value {
    let driven = || async { Some(answer(server.get("/v1/drive")).await.1).filter(|drive| !drive["outcome"].is_null()) };
    eventually(Duration::from_secs(120), driven).await.unwrap()
}

/// B20, C: the whole cutover over HTTP, there and back, under load; and whoever looks on sees it.
#[tokio::test]
async fn b14_a_cutover_is_driven_over_http_there_and_back_and_whoever_looks_sees_it() {
    let world = World::new().await;
    let load = world.load(4).await;
    let server = serve(&world, &[]).await;
    let (status, problem) = answer(server.get("/v1/drive")).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (404, Some("NOT_FOUND")), "{problem}");
    let (_, findings) = answer(server.post("/v1/check", "")).await;
    assert_eq!(findings["blocking"], 0, "{findings}");
    let mut events = server.get("/v1/events?after=0").send().await.unwrap();

    let (status, _) = answer(server.post("/v1/run", json!({ "until": "ready", "reason": "CHG-7" }).to_string())).await;
    assert_eq!(status.as_u16(), 202);
    let (status, problem) = answer(server.post("/v1/run", "{}")).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("BUSY")), "one at a time: {problem}");
    let ready = ended(&server).await;
    assert_eq!((&ready["outcome"]["code"], &ready["reason"]), (&json!(0), &json!("CHG-7")), "{ready}");
    assert_eq!(drive(&server, "run", json!({})).await["outcome"]["code"], 0);
    assert_eq!(world.authority().await, "target");
    for (request, expected, part) in
        [(json!({ "reason": " " }), 400, "`reason`"), (json!({ "reason": "x", "confirm": "y" }), 409, "`confirm`")]
    {
        let (status, problem) = answer(server.post("/v1/rollback", request.to_string())).await;
        assert_eq!(status.as_u16(), expected, "{problem}");
        assert!(problem["message"].as_str().unwrap().contains(part), "{problem}");
    }
    assert_eq!(drive(&server, "rollback", json!({ "reason": "and back" })).await["outcome"]["code"], 0);
    assert_eq!(world.authority().await, "source");
    let refused = drive(&server, "rollback", json!({ "reason": "once more" })).await;
    assert_eq!(refused["outcome"]["code"], 1, "{refused}");
    assert!(refused["outcome"]["message"].as_str().unwrap().contains("the source is in charge"), "{refused}");

    let mut text = String::new();
    while text.matches("event: outcome").count() < 4 {
        let chunk = tokio::time::timeout(LIMIT, events.chunk()).await.expect("an outcome is missing").unwrap().expect("the stream ended");
        text += std::str::from_utf8(&chunk).unwrap();
    }
    for kind in ["entry", "route", "step", "progress", "outcome"] {
        assert!(text.contains(&format!("event: {kind}\n")), "no {kind}");
    }
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    let begun = audit["entries"].as_array().unwrap().iter().find(|entry| entry["reason"] == "CHG-7").unwrap();
    assert_eq!(begun["actor"], "anybody", "the token's name, where there is one");
    world.judge(load).await;
}

/// Whatever the document allows is answered as the document says, and nothing ends in a defect of ours.
#[tokio::test]
async fn the_openapi_document_is_kept() {
    let world = World::new().await;
    let made = world.cutover(&["token", "create", "schemathesis", "--role", "admin"]).await.code(0);
    let server = serve(&world, &[]).await;
    let mut command = tokio::process::Command::new("python3");
    command.args(["-m", "schemathesis.cli", "run", &format!("{}/openapi.json", server.address)]);
    command.args([
        "--header",
        &format!("Authorization: Bearer {}", made.out.trim()),
        "--seed",
        &format!("{}", world.seed.value() % 1_000_000),
    ]);
    // To be more lenient than the document is no defect: a number that is none to serde is one to JSON.
    command.args(["--exclude-checks", "negative_data_rejection,positive_data_acceptance"]);
    // Streams never end.
    command.args(["--exclude-path-regex", "/events", "--max-examples", "15", "--request-timeout", "30", "--no-color"]);
    command
        .env("PYTHONPATH", cutover_testkit::providers().unwrap().join("schemathesis"))
        .current_dir(world.folder.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(240), command.output()).await.expect("it did not end").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    answer(server.post("/v1/stop", "").bearer_auth(made.out.trim())).await;
}

/// A server that is told to end in the middle of a preparation stops it first, and the next one goes on.
#[tokio::test]
async fn a_server_that_ends_stops_what_it_drives_and_another_goes_on() {
    let world = World::of(15, 15, "[copy]\nmax_rate = \"1MB\"\n").await;
    let mut server = serve(&world, &[]).await;
    let mut events = server.get("/v1/events").send().await.unwrap();
    let (status, _) = answer(server.post("/v1/run", json!({ "until": "ready" }).to_string())).await;
    assert_eq!(status.as_u16(), 202);
    let mut text = String::new();
    while !text.contains("event: progress") {
        let chunk = tokio::time::timeout(LIMIT, events.chunk()).await.expect("nothing is told").unwrap().expect("the stream ended");
        text += std::str::from_utf8(&chunk).unwrap();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.child.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(LIMIT, server.child.wait()).await.expect("it does not end").unwrap();
    assert!(ended.success(), "{ended}");
    world.write_plan("");
    let another = serve(&world, &[]).await;
    assert_eq!(drive(&another, "run", json!({ "until": "ready" })).await["outcome"]["code"], 0);
    assert_eq!(world.phase().await, "following");
}

/// Resolution 3: a server that is cut off from the journal can't know whether writes were closed, so it refuses them; and
/// reads stay where they were.
#[tokio::test]
async fn a_server_that_is_cut_off_from_the_journal_refuses_writes_within_its_lease() {
    let world = World::new().await;
    let Shared { road, .. } = &Shared::new(&world, "").await;
    world.ready().await;
    let server = serve(&world, &["--lease", "1s"]).await;
    let old = address(&world.source);
    assert!(enabled(&server, &old).await);
    for stalled in [false, true] {
        let begun = Instant::now();
        if stalled {
            road.stall().await.unwrap();
        } else {
            road.cut().await;
        }
        eventually(LIMIT, || async { !enabled(&server, &old).await }).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "the lease plus one second: {took:?}");
        let (status, problem) = answer(server.get("/readyz")).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (503, Some("UNAVAILABLE")), "{problem}");
        let (_, read) = answer(server.post("/ofrep/v1/evaluate/flags/bank.database.read", "{}")).await;
        assert_eq!((&read["value"], &read["reason"]), (&json!("source"), &json!("UNKNOWN")), "{read}");
        let request = json!({ "instance": "a", "incarnation": "b", "database": old });
        let (_, permit) = answer(server.post("/v1/permits", request.to_string())).await;
        assert_eq!((&permit["write"], &permit["lease_ms"]), (&json!(false), &json!(0)), "{permit}");
        road.restore().await.unwrap();
        eventually(LIMIT, || async { enabled(&server, &old).await }).await.unwrap();
        assert_eq!(answer(server.get("/readyz")).await.0.as_u16(), 200);
    }
}

/// Such a server answers at once, and lends nothing: who asks again at once makes a loop of it, and all agents do it together.
#[tokio::test]
async fn an_agent_of_a_server_that_is_cut_off_from_the_journal_does_not_ask_without_rest() {
    let world = World::new().await;
    let Shared { road, .. } = &Shared::new(&world, "").await;
    world.ready().await;
    let server = serve(&world, &["--lease", "1s"]).await;
    let agent = agent(&world, &server.address).await;
    let old = address(&world.source);
    eventually(LIMIT, || async { enabled(&agent, &old).await }).await.unwrap();
    road.cut().await;
    eventually(LIMIT, || async { !enabled(&server, &old).await && !enabled(&agent, &old).await }).await.unwrap();
    let (before, begun) = (asked_by_agents(&server).await, Instant::now());
    // However slow the machine is, it can only ask less often.
    let many = 40;
    eventually(LIMIT, || async { asked_by_agents(&server).await >= before + many }).await.expect("it has given up");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_500), "{many} requests in {took:?}");
    assert!(!enabled(&agent, &old).await, "all of that was without a lease");
    road.restore().await.unwrap();
    eventually(LIMIT, || async { enabled(&agent, &old).await }).await.unwrap();
}

/// How many requests of agents the server has answered.
async fn asked_by_agents(server: &Server) -> u64 {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = "cutover_http_requests_total{route=\"/v1/agents\",status=\"200\"} ";
    text.lines().find_map(|found| found.strip_prefix(line)).expect("no agent has asked").parse().unwrap()
}
