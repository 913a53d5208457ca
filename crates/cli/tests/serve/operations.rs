//! What applications tell of their reads and writes: from the SDK, over an agent or not, to the figures that a server shows.

use std::{sync::Arc, time::Duration};

use cutover_client::{Client, Operation, OperationOutcome, Side};
use cutover_testkit::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::ground::{Houses, LIMIT, Server, answer, folder, token};

/// Ten reads of one to ten milliseconds at the target, one of which falls back; and one at the source.
fn record(client: &Client) {
    let read = |store, ms, outcome| {
        client.record(&Operation { unit: "images", name: "get", store, took: Duration::from_millis(ms), outcome });
    };
    (1..=9).for_each(|ms| read(Side::Target, ms, OperationOutcome::Ok));
    read(Side::Target, 10, OperationOutcome::FellBack);
    read(Side::Source, 2, OperationOutcome::Ok);
}

async fn lately(server: &crate::server::Server) -> Value {
    answer(server.get("/v1/operations")).await.1
}

fn count(told: &Value) -> u64 {
    told["operations"].as_array().unwrap().iter().map(|sum| sum["count"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn d6_d13_operations_are_told_once_and_shown_by_store_with_a_fallback_as_an_error_of_the_new_one() {
    let houses = Houses::open(&[]).await;
    for (times, (name, address)) in houses.addresses().into_iter().enumerate() {
        let client = Client::builder(address).database("old.example").connect().await.unwrap();
        record(&client);
        // What was not told yet is told now.
        client.close().await;
        let wanted = 11 * (times as u64 + 1);
        eventually(LIMIT, || async { count(&lately(&houses.server).await) == wanted }).await.unwrap_or_else(|_| panic!("{name}"));
    }
    let told = lately(&houses.server).await;
    let [source, target] = told["operations"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&source["store"], &source["count"], &source["error_rate"]), (&json!("source"), &json!(2), &json!(0.0)));
    assert_eq!((&target["store"], &target["count"]), (&json!("target"), &json!(20)));
    assert_eq!((&target["error_rate"], &target["fallback_rate"], &target["mismatch_rate"]), (&json!(0.1), &json!(0.1), &Value::Null));
    for (percentile, ms) in [("p50_ms", 5.0), ("p95_ms", 10.0), ("p99_ms", 10.0)] {
        let told = target[percentile].as_f64().unwrap();
        assert!((told - ms).abs() <= ms / 100.0, "{percentile}: {told}");
    }
    let metrics = houses.server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let series = |outcome: &str| {
        format!("cutover_operation_seconds_count{{unit=\"images\",operation=\"get\",store=\"target\",outcome=\"{outcome}\"}}")
    };
    assert!(metrics.contains(&format!("{} 18\n", series("ok"))), "{metrics}");
    assert!(metrics.contains(&format!("{} 2\n", series("fell_back"))), "{metrics}");
    let within = "cutover_operation_seconds_bucket{le=\"0.005\",unit=\"images\",operation=\"get\",store=\"target\",outcome=\"ok\"} 8\n";
    assert!(metrics.contains(within), "1 to 4 ms of each; 5 ms is told as 5.02\n{metrics}");
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_not_counted_again_and_one_that_makes_no_sense_is_refused() {
    let houses = Houses::open(&[]).await;
    let series = |operation: &str, durations: Value| json!([{ "unit": "images", "operation": operation, "store": "target", "outcome": "ok", "durations": durations }]);
    let request =
        |sequence: u64, series: Value| json!({ "incarnation": "i-1", "sequence": sequence, "series": series, "lost": 1 }).to_string();
    for (name, address) in houses.addresses() {
        let house = if name == "server" { &*houses.server } else { &houses.agent };
        for sequence in [1, 1, 2, 1] {
            let (status, body) = answer(house.post("/v1/operations", request(sequence, series("get", json!([[1_000, 2]]))))).await;
            assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null), "{address}");
        }
        let many = |count: usize| Value::from(vec![json!([1, 1]); count]);
        let lists = json!(vec![series("get", json!([]))[0].clone(); 41]);
        for wrong in [
            "{".to_owned(),
            request(3, series("", json!([]))),
            request(3, series(&"x".repeat(101), json!([]))),
            request(3, series("get", many(1_001))),
            request(3, lists),
            request(3, series("get", json!([[-1, 2]]))),
            request(3, series("get", json!([]))).replace("target", "elsewhere"),
            request(3, series("get", json!([]))).replace("\"ok\"", "\"fine\""),
        ] {
            let (status, problem) = answer(house.post("/v1/operations", wrong.clone())).await;
            assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST")), "{wrong}");
        }
    }
    eventually(LIMIT, || async { count(&lately(&houses.server).await) == 8 }).await.unwrap();
    assert_eq!(lately(&houses.server).await["lost"], 4);
    for wrong in ["0", "3601", "-1", "a", "1.5"] {
        let (status, _) = answer(houses.server.get(&format!("/v1/operations?seconds={wrong}"))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn whoever_may_ask_for_a_lease_may_tell_and_whoever_may_look_sees() {
    let folder = folder();
    let [client, viewer] = [token(folder.path(), "shop", "client").await, token(folder.path(), "eye", "viewer").await];
    let server = Server::start_in(folder, &[], None).await;
    let body = json!({ "incarnation": "i", "sequence": 1, "series": [] }).to_string();
    let tell = |token: &str| server.post("/v1/operations", body.clone()).bearer_auth(token);
    let look = |token: &str| server.get("/v1/operations").bearer_auth(token);
    assert_eq!(answer(tell(&client)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(answer(look(&viewer)).await.0, StatusCode::OK);
    assert_eq!(answer(look(&client)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(answer(server.post("/v1/operations", body.clone())).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn threads_that_record_at_once_lose_nothing() {
    let server = Arc::new(Server::start(&[]).await);
    let client = Client::builder(&server.address).database("old.example").connect().await.unwrap();
    let each = 20_000;
    let record = |client: &Client| {
        for us in 0..each {
            let (took, outcome) = (Duration::from_micros(us), OperationOutcome::Ok);
            client.record(&Operation { unit: "images", name: "get", store: Side::Source, took, outcome });
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| record(&client)))));
    client.close().await;
    assert_eq!((count(&lately(&server).await), &lately(&server).await["lost"]), (4 * each, &json!(0)));
}
