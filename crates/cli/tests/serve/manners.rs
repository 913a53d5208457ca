//! How it behaves towards anybody: forms of refusals, slow clients, its end.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::ground::{LIMIT, Server, answer, call, folder};

#[tokio::test]
async fn every_refusal_has_a_code_and_names_the_request() {
    let server = Server::start(&[]).await;
    let cases = [
        (server.get("/"), 404, "NOT_FOUND"),
        (server.get("/v1/permits"), 405, "METHOD_NOT_ALLOWED"),
        (server.get("/v1/journal?after=x"), 400, "BAD_REQUEST"),
        (server.client.post(format!("{}/v1/permits", server.address)).body("{}"), 415, "UNSUPPORTED_MEDIA_TYPE"),
    ];
    for (request, status, code) in cases {
        let response = request.header("x-request-id", "mine-1").send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "mine-1");
        assert_eq!(response.headers()["content-type"], "application/json");
        let got = response.status().as_u16();
        let problem: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!((got, problem["code"].as_str(), problem["request_id"].as_str()), (status, Some(code), Some("mine-1")), "{problem}");
    }
    let response = server.get("/healthz").header("x-request-id", "not\u{e9} fit").send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"].len(), 16, "a name of its own instead");
}

#[tokio::test]
async fn what_the_command_line_tells_is_told_here_too() {
    let server = Server::start(&[]).await;
    let (status, steps) = answer(server.get("/v1/steps")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(steps["steps"].as_array().unwrap().len() > 5);
    assert!(!steps.to_string().contains("hunter2"), "no secret leaves");
    let (_, journal) = answer(server.get("/v1/journal?after=0&limit=10")).await;
    assert_eq!((&journal["newest"], &journal["entries"]), (&json!(0), &json!([])), "{journal}");
    let (_, status) = answer(server.get("/v1/status")).await;
    assert_eq!(status["phase"], "not begun", "{status}");
    let (status, problem) = answer(server.post("/v1/check", "")).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("UNAVAILABLE")), "the databases are nowhere");
    assert!(!problem.to_string().contains("example"), "what the database's library says stays inside: {problem}");
}

/// A request's head that comes byte by byte holds nobody up, and is given up.
#[tokio::test]
async fn a_slow_client_is_given_up() {
    let server = Server::start(&[]).await;
    let mut slow = TcpStream::connect(server.address.trim_start_matches("http://")).await.unwrap();
    slow.write_all(b"POST /v1/permits HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    let begun = Instant::now();
    assert_eq!(answer(server.get("/healthz")).await.0, StatusCode::OK);
    let mut rest = Vec::new();
    // Answered or not, the connection ends.
    tokio::time::timeout(LIMIT, slow.read_to_end(&mut rest)).await.expect("it is still open").unwrap();
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn it_ends_in_an_orderly_way_and_lets_nobody_wait() {
    let mut server = Server::start(&["--lease", "60s"]).await;
    let request = json!({ "instance": "a", "incarnation": "b", "revision": 0, "wait_ms": 25_000 });
    let waiting = tokio::spawn(answer(server.post("/v1/permits", request.to_string())));
    // It has arrived once it is counted.
    cutover_testkit::eventually(LIMIT, || async {
        server.get("/metrics").send().await.unwrap().text().await.unwrap().contains("cutover_clients 1")
    })
    .await
    .unwrap();
    let begun = Instant::now();
    kill(Pid::from_raw(i32::try_from(server.child.id().unwrap()).unwrap()), Signal::SIGTERM).unwrap();
    let (status, permit) = waiting.await.unwrap();
    assert_eq!((status, &permit["revision"]), (StatusCode::OK, &json!(0)), "it is told what holds");
    let ended = tokio::time::timeout(LIMIT, server.server.child.wait()).await.unwrap().unwrap();
    assert!(ended.success() && begun.elapsed() < Duration::from_secs(10), "{ended} after {:?}", begun.elapsed());
}

#[tokio::test]
async fn an_address_that_is_taken_is_said() {
    let server = Server::start(&[]).await;
    let folder = folder();
    let (code, _, err) = call(folder.path(), &["serve", "--listen", server.address.trim_start_matches("http://")]).await;
    assert_eq!(code, 1);
    assert!(err.contains("can't listen at") && err.contains("hint:"), "{err}");
    let (code, _, err) = call(folder.path(), &["serve", "--lease", "1ms"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("200ms to 60s"), "{err}");
}
