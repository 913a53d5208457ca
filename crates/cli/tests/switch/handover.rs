//! A server that dies while it drives: another one goes on with it, within the lease, and nothing is done twice.

use std::time::{Duration, Instant};

use cutover_testkit::eventually;
use serde_json::{Value, json};

use crate::{
    server::{LIMIT, Server, answer},
    world::World,
};

async fn serve(world: &World) -> Server {
    let arguments = ["--output", "json", "serve", "--listen", "127.0.0.1:0", "--lease", "1s"];
    Server::spawn(world.command(&arguments), None).await
}

/// Waits until this server has driven to an end, and says how.
async fn outcome(server: &Server) -> Value {
    let ended = || async { Some(answer(server.get("/v1/drive")).await.1).filter(|drive| !drive["outcome"].is_null()) };
    eventually(Duration::from_secs(120), ended).await.unwrap()
}

async fn run(server: &Server, request: Value) {
    let (status, begun) = answer(server.post("/v1/run", request.to_string())).await;
    assert_eq!(status.as_u16(), 202, "{begun}");
}

/// Reads the stream of events until one of this kind has come.
async fn until(server: &Server, event: &str) {
    let mut events = server.get("/v1/events?after=0").send().await.unwrap();
    let mut text = String::new();
    while !text.contains(event) {
        let chunk = tokio::time::timeout(LIMIT, events.chunk()).await.expect("nothing is told").unwrap().expect("the stream ended");
        text += std::str::from_utf8(&chunk).unwrap();
    }
}

/// Of the entries that say that a preparation is done, each is there once.
async fn nothing_was_prepared_twice(world: &World) {
    let mut steps: Vec<String> = world.entries("prepared").await.iter().map(|entry| entry["step"].to_string()).collect();
    let all = steps.len();
    steps.sort();
    steps.dedup();
    assert_eq!(steps.len(), all, "{steps:?}");
}

/// In the copy: the next server goes on with what was asked of the first, for the same person and the same reason.
#[tokio::test]
async fn a_server_that_dies_in_the_copy_hands_over_within_the_lease() {
    let world = World::of(15, 15, "[copy]\nmax_rate = \"1MB\"\n").await;
    let (mut first, second) = (serve(&world).await, serve(&world).await);
    run(&first, json!({ "until": "ready", "reason": "CHG-9" })).await;
    until(&first, "event: progress").await;
    world.write_plan("");
    first.child.kill().await.unwrap();
    let died = Instant::now();
    let driven = eventually(LIMIT, || async { Some(answer(second.get("/v1/drive")).await).filter(|(status, _)| status.as_u16() == 200) });
    let (_, drive) = driven.await.unwrap();
    let took = died.elapsed();
    assert!(took < Duration::from_secs(3), "the lease, and some time to look: {took:?}");
    assert_eq!((&drive["verb"], &drive["reason"]), (&json!("run"), &json!("CHG-9")), "{drive}");
    assert_eq!(outcome(&second).await["outcome"]["code"], 0);
    assert_eq!(world.phase().await, "following");
    nothing_was_prepared_twice(&world).await;
}

/// In the pause, under load: what has begun is undone or finished by the next one, and the cutover ends as it was asked for.
#[tokio::test]
async fn a_server_that_dies_in_the_pause_hands_over_and_nothing_is_lost() {
    let world = World::new().await;
    let load = world.load(4).await;
    world.ready().await;
    for entry in ["fencing_started", "committed"] {
        let (mut first, second, third) = (serve(&world).await, serve(&world).await, serve(&world).await);
        run(&first, json!({ "reason": "CHG-10" })).await;
        until(&second, &format!("\"kind\":\"{entry}\"")).await;
        first.child.kill().await.unwrap();
        let switched = || async { world.status().await["state"]["authority"] == "target" && world.phase().await == "following" };
        eventually(Duration::from_secs(60), switched).await.unwrap();
        assert_eq!(world.authority().await, "target");
        drop((second, third));
        world.cutover(&["rollback", "--reason", "and once more"]).await.code(0);
    }
    nothing_was_prepared_twice(&world).await;
    world.judge(load).await;
}

/// What somebody asked to stop is not gone on with, and neither is what has ended.
#[tokio::test]
async fn what_was_stopped_or_has_ended_is_nobodys_to_go_on_with() {
    let world = World::of(15, 15, "[copy]\nmax_rate = \"1MB\"\n").await;
    let (mut first, second) = (serve(&world).await, serve(&world).await);
    run(&first, json!({ "until": "ready" })).await;
    until(&first, "event: progress").await;
    let (status, _) = answer(first.post("/v1/stop", "")).await;
    assert_eq!(status.as_u16(), 202);
    outcome(&first).await;
    first.child.kill().await.unwrap();
    let gone = || async {
        let metrics = second.get("/metrics").send().await.unwrap().status();
        let (status, _) = answer(second.get("/v1/drive")).await;
        assert_eq!((metrics.as_u16(), status.as_u16()), (200, 404), "it drives what nobody asked for");
    };
    // Longer than any lease: a server that would go on had gone on by then.
    let mut beat = tokio::time::interval(Duration::from_millis(250));
    for _ in 0..12 {
        beat.tick().await;
        gone().await;
    }
    let third = serve(&world).await;
    assert_eq!(answer(third.get("/v1/drive")).await.0.as_u16(), 404);
}
