//! Operations that are told to a server that answers, does not, or does not want to hear of them.

use std::time::Duration;

use axum::http::StatusCode;
use cutover_client::{Client, Operation, OperationOutcome, Side};
use cutover_testkit::eventually;
use serde_json::{Value, json};

use crate::{LONG, SOON, server::Server};

fn record(client: &Client, name: &str) {
    let (took, outcome) = (Duration::from_micros(100), OperationOutcome::Ok);
    client.record(&Operation { unit: "images", name, store: Side::Source, took, outcome });
}

fn series(name: &str) -> Value {
    json!([{ "unit": "images", "operation": name, "store": "source", "outcome": "ok", "durations": [[100, 1]] }])
}

#[tokio::test]
async fn what_was_not_answered_is_told_again_as_it_was_and_the_next_behind_it() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    server.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    record(&client, "get");
    eventually(SOON, || async { server.told().len() == 1 }).await.unwrap();
    record(&client, "list");
    eventually(SOON, || async { server.told().len() >= 2 }).await.unwrap();
    server.refuse(None);
    eventually(SOON, || async { server.told().last().is_some_and(|last| last["series"] == series("list")) }).await.unwrap();
    let told = server.told();
    let (last, before) = told.split_last().unwrap();
    assert!(before.iter().all(|request| request["sequence"] == 1 && request["series"] == series("get")), "{told:?}");
    assert_eq!((&last["sequence"], &last["incarnation"]), (&json!(2), &before[0]["incarnation"]));
    client.close().await;
    assert_eq!(server.told().len(), told.len(), "there was nothing more to tell");
}

#[tokio::test]
async fn a_server_that_does_not_know_of_operations_is_told_once_how_many_it_missed() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    server.refuse(Some(StatusCode::NOT_FOUND));
    record(&client, "get");
    eventually(SOON, || async { server.told().len() == 1 }).await.unwrap();
    server.refuse(None);
    record(&client, "list");
    client.close().await;
    let told = server.told();
    assert_eq!(told.len(), 2, "it is left alone for a while: {told:?}");
    assert_eq!((&told[1]["lost"], &told[1]["series"]), (&json!(1), &series("list")));
}
