//! Flags by the OpenFeature Remote Evaluation Protocol.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::ground::{LIMIT, Server, answer};

const WRITES: &str = "/ofrep/v1/evaluate/flags/database-writes-enabled";

fn context(fields: Value) -> String {
    json!({ "context": fields }).to_string()
}

#[tokio::test]
async fn a3_the_flag_is_true_for_the_database_in_charge_and_for_no_other() {
    let server = Server::start(&[]).await;
    for (database, expected) in
        [("old.example", true), ("postgres://b:x@OLD.example:5432/shop", true), ("new.example:5433", false), ("elsewhere", false)]
    {
        let (status, body) = answer(server.post(WRITES, context(json!({ "targetingKey": "pod-1", "database": database })))).await;
        assert_eq!((status, &body["value"]), (StatusCode::OK, &json!(expected)), "{database}: {body}");
        assert_eq!(body["reason"], "TARGETING_MATCH", "clients keep what is STATIC");
        assert_eq!(body["variant"], if expected { "on" } else { "off" });
        let metadata = body["metadata"].as_object().unwrap();
        assert!(metadata.values().all(|value| value.is_string() || value.is_number()), "flat: {body}");
        for field in ["flagSetId", "version", "contextId", "epoch", "stage", "leaseExpiresAt"] {
            assert!(metadata.contains_key(field), "{field}: {body}");
        }
    }
}

#[tokio::test]
async fn a_body_may_be_missing_empty_or_without_a_context() {
    let server = Server::start(&[]).await;
    for body in ["", " ", "{}", "null", "{\"context\":null}", "{\"context\":{}}", "{\"context\":{\"database\":7,\"more\":{\"a\":[1]}}}"] {
        let (status, answer) = answer(server.post(WRITES, body)).await;
        assert_eq!((status, &answer["value"]), (StatusCode::OK, &json!(false)), "{body}: {answer}");
        assert_eq!(answer["metadata"]["why"], "the context names no `database`");
    }
    let (status, _) = answer(server.client.post(format!("{}{WRITES}", server.address))).await;
    assert_eq!(status, StatusCode::OK, "without a content type");
}

/// One client believes a value even in an error.
#[tokio::test]
async fn an_error_has_key_and_code_and_never_a_value() {
    let server = Server::start(&[]).await;
    let cases = [
        ("/ofrep/v1/evaluate/flags/no-such-flag", "{}", 404, "FLAG_NOT_FOUND", Some("no-such-flag")),
        ("/ofrep/v1/evaluate/flags/shop.stage%2Fx", "{}", 404, "FLAG_NOT_FOUND", Some("shop.stage/x")),
        (WRITES, "{\"context\":", 400, "PARSE_ERROR", Some("database-writes-enabled")),
        (WRITES, "\u{0}", 400, "PARSE_ERROR", Some("database-writes-enabled")),
        (WRITES, "{\"context\":[1]}", 400, "INVALID_CONTEXT", Some("database-writes-enabled")),
        (WRITES, "[]", 400, "INVALID_CONTEXT", Some("database-writes-enabled")),
        ("/ofrep/v1/evaluate/flags", "{", 400, "PARSE_ERROR", None),
    ];
    for (path, body, status, code, key) in cases {
        let (got, answer) = answer(server.post(path, body)).await;
        assert_eq!((got.as_u16(), answer["errorCode"].as_str()), (status, Some(code)), "{path} {body}: {answer}");
        assert_eq!(answer["key"].as_str(), key, "{answer}");
        assert!(answer.get("value").is_none() && !answer["errorDetails"].as_str().unwrap().is_empty(), "{answer}");
    }
    let (status, answer) = answer(server.post(WRITES, "x".repeat(70_000))).await;
    assert_eq!((status, answer["errorCode"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("GENERAL")), "{answer}");
}

#[tokio::test]
async fn all_flags_come_with_an_etag_that_changes_with_the_context() {
    let server = Server::start(&[]).await;
    let all = "/ofrep/v1/evaluate/flags";
    let old = context(json!({ "database": "old.example" }));
    let response = server.post(all, old.clone()).send().await.unwrap();
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let keys: Vec<&str> = body["flags"].as_array().unwrap().iter().map(|flag| flag["key"].as_str().unwrap()).collect();
    assert_eq!(
        keys,
        ["database-writes-enabled", "shop.write.allowed", "shop.write.permit", "shop.database.read", "shop.database.write", "shop.stage"]
    );
    for (path, expected) in [(all, 304), ("/ofrep/v1/evaluate/flags/", 304)] {
        let (status, _) = answer(server.post(path, old.clone()).header("if-none-match", format!("\"x\", W/{etag}"))).await;
        assert_eq!(status.as_u16(), expected, "{path}");
    }
    let (status, _) = answer(server.post(all, context(json!({ "database": "new.example" }))).header("if-none-match", &etag)).await;
    assert_eq!(status, StatusCode::OK, "another context, other values");
}

#[tokio::test]
async fn changes_are_told_at_an_address_with_a_ticket() {
    let server = Server::start(&[]).await;
    let (_, body) = answer(server.post("/ofrep/v1/evaluate/flags", "{}")).await;
    let stream = &body["eventStreams"][0];
    assert_eq!(stream["type"], "sse");
    let url = stream["url"].as_str().unwrap();
    assert!(url.starts_with(&server.address), "{url}");
    let mut response = server.client.get(url).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = tokio::time::timeout(LIMIT, response.chunk()).await.unwrap().unwrap().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(first.contains("id: 0") && first.contains("refetchEvaluation"), "{first}");
    let forged = format!("{}x", &url[..url.len() - 1]);
    assert_eq!(server.client.get(forged).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}
