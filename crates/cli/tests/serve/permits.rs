//! The lease protocol.

use std::time::{Duration, Instant};

use cutover_testkit::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::ground::{LIMIT, Server, answer};

fn request(fields: Value) -> String {
    let mut request = json!({ "instance": "pod-1", "incarnation": "i-1", "database": "old.example" });
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request.to_string()
}

async fn gauge(server: &Server, name: &str) -> i64 {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("cutover_{name} "))).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_gets_a_lease_at_once_and_an_answer_without_news_when_its_wait_is_over() {
    let server = Server::start(&[]).await;
    let (status, permit) = answer(server.post("/v1/permits", request(json!({})))).await;
    assert_eq!(status, StatusCode::OK, "{permit}");
    assert_eq!((&permit["write"], &permit["authority"], &permit["writes"]), (&json!(true), &json!("source"), &json!("open")));
    let lease = permit["lease_ms"].as_u64().unwrap();
    assert!((1_000..=2_000).contains(&lease), "{permit}");

    let waits = request(json!({ "revision": permit["revision"], "acknowledged": permit["epoch"], "wait_ms": 300 }));
    let begun = Instant::now();
    let (_, again) = answer(server.post("/v1/permits", waits)).await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "there was no news");
    assert_eq!(again["revision"], permit["revision"]);
    let other = request(json!({ "revision": 99, "wait_ms": 60_000 }));
    answer(server.post("/v1/permits", other)).await;

    let target = request(json!({ "database": "new.example", "incarnation": "i-2" }));
    let (_, permit) = answer(server.post("/v1/permits", target)).await;
    assert_eq!((&permit["write"], permit["why"].as_str()), (&json!(false), Some("new.example is the target; the source is in charge")));
}

#[tokio::test]
async fn a_client_counts_until_its_lease_runs_out_or_it_says_goodbye() {
    let server = Server::start(&["--lease", "500ms"]).await;
    for incarnation in ["i-1", "i-2", "i-1"] {
        answer(server.post("/v1/permits", request(json!({ "incarnation": incarnation })))).await;
    }
    assert!(gauge(&server, "clients").await <= 2);
    eventually(LIMIT, || async { gauge(&server, "clients").await == 0 }).await.unwrap();
    answer(server.post("/v1/permits", request(json!({ "database": "new.example" })))).await;
    assert_eq!((gauge(&server, "clients").await, gauge(&server, "clients_astray").await), (1, 1), "A13: it is at the other database");
    let goodbye = server.client.delete(format!("{}/v1/permits/i-1", server.address)).send().await.unwrap();
    assert_eq!(goodbye.status(), StatusCode::NO_CONTENT);
    assert_eq!(gauge(&server, "clients").await, 0);
}

#[tokio::test]
async fn an_epoch_that_never_was_is_refused() {
    let server = Server::start(&[]).await;
    let (status, problem) = answer(server.post("/v1/permits", request(json!({ "acknowledged": 7 })))).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("CONFLICT")), "{problem}");
    assert!(problem["message"].as_str().unwrap().contains("epoch 7"), "{problem}");
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_by_name() {
    let server = Server::start(&[]).await;
    let cases = [
        ("{}".to_owned(), 400, "instance"),
        ("{".to_owned(), 400, "JSON"),
        (request(json!({ "instance": "" })), 400, "`instance`"),
        (request(json!({ "instance": "a\nb" })), 400, "`instance`"),
        (request(json!({ "incarnation": "x".repeat(65) })), 400, "`incarnation`"),
        (request(json!({ "database": "x".repeat(501) })), 400, "`database`"),
        (request(json!({ "acknowledged": -1 })), 400, "acknowledged"),
        (request(json!({ "wait_ms": 1e300 })), 400, "wait_ms"),
        ("9".repeat(70_000), 413, "64 kB"),
    ];
    for (body, expected, part) in cases {
        let (status, problem) = answer(server.post("/v1/permits", body.clone())).await;
        assert_eq!(status.as_u16(), expected, "{body:.80}: {problem}");
        let text = problem["message"].as_str().unwrap();
        assert!(text.contains(part) || part == "64 kB", "{body:.80}: {problem}");
        assert!(!problem["request_id"].as_str().unwrap().is_empty());
    }
}
