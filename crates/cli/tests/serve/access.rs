//! Who may do what.

use cutover_testkit::eventually;
use reqwest::{RequestBuilder, StatusCode};

use crate::ground::{LIMIT, Server, answer, call, folder, token};

const FLAG: &str = "/ofrep/v1/evaluate/flags/database-writes-enabled";

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn each_role_may_do_what_is_its_own() {
    let folder = folder();
    let client = token(folder.path(), "checkout", "client").await;
    let viewer = token(folder.path(), "grafana", "viewer").await;
    let operator = token(folder.path(), "ci", "operator").await;
    let server = Server::start_in(folder, &[], None).await;
    let cases = [
        (None, [401; 3]),
        (Some("cutover_00"), [401; 3]),
        (Some(client.as_str()), [200, 403, 403]),
        (Some(&viewer), [200, 200, 403]),
        (Some(&operator), [200, 200, 400]),
    ];
    for (bearer, [flag, look, drive]) in cases {
        let with = |request: RequestBuilder| match bearer {
            Some(bearer) => request.bearer_auth(bearer),
            None => request,
        };
        assert_eq!(status(with(server.post(FLAG, "{}"))).await, flag, "{bearer:?}");
        assert_eq!(status(with(server.get("/v1/journal"))).await, look, "{bearer:?}");
        assert_eq!(status(with(server.get("/metrics"))).await, look, "{bearer:?}");
        let without_reason = server.post("/v1/rollback", "{\"reason\":\"\"}");
        assert_eq!(status(with(without_reason)).await, drive, "{bearer:?}");
        assert_eq!(status(with(server.get("/healthz"))).await, 200, "{bearer:?}");
        assert_eq!(status(with(server.get("/openapi.json"))).await, 200, "{bearer:?}");
    }
    assert_eq!(status(server.post(FLAG, "{}").header("x-api-key", &client)).await, 200);
    let (_, refused) = answer(server.get("/v1/journal").bearer_auth(&client)).await;
    assert_eq!(refused["code"], "FORBIDDEN");
    assert!(refused["message"].as_str().unwrap().contains("`checkout` is a client; this wants viewer"), "{refused}");
    let (_, refused) = answer(server.post(FLAG, "{}")).await;
    assert_eq!((refused["errorCode"].as_str(), refused.get("value")), (Some("GENERAL"), None), "OFREP's own form: {refused}");
}

#[tokio::test]
async fn a_token_that_is_made_or_revoked_counts_within_a_second_or_two() {
    let server = Server::start(&[]).await;
    assert_eq!(status(server.post(FLAG, "{}")).await, 200, "on this machine nobody is asked for a token while there is none");
    let made = token(server.folder.path(), "checkout", "client").await;
    eventually(LIMIT, || async { status(server.post(FLAG, "{}")).await == 401 }).await.unwrap();
    assert_eq!(status(server.post(FLAG, "{}").bearer_auth(&made)).await, 200);
    token(server.folder.path(), "other", "client").await;
    let (code, _, err) = call(server.folder.path(), &["token", "revoke", "checkout"]).await;
    assert_eq!(code, 0, "{err}");
    eventually(LIMIT, || async { status(server.post(FLAG, "{}").bearer_auth(&made)).await == 401 }).await.unwrap();
}

/// Whoever revokes the last token wants nobody in, rather than everybody.
#[tokio::test]
async fn a_server_that_had_tokens_is_never_open_again() {
    let folder = folder();
    token(folder.path(), "only", "client").await;
    let server = Server::start_in(folder, &[], None).await;
    call(server.folder.path(), &["token", "revoke", "only"]).await;
    tokio::fs::remove_file(server.folder.path().join(".cutover/tokens.json")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(status(server.post(FLAG, "{}")).await, 401);
    }
}

#[tokio::test]
async fn without_tokens_it_is_not_open_to_the_world() {
    let folder = folder();
    let (code, _, err) = call(folder.path(), &["serve", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("there is no token") && err.contains("cutover token create"), "{err}");
    let server = Server::start_in(folder, &["--listen", "0.0.0.0:0", "--without-tokens"], None).await;
    assert_eq!(status(server.post(FLAG, "{}")).await, 200, "told so, it is");
}

#[tokio::test]
async fn tokens_are_listed_without_their_text() {
    let folder = folder();
    let made = token(folder.path(), "checkout", "operator").await;
    let (code, _, err) = call(folder.path(), &["token", "create", "checkout", "--role", "client"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("has a token of this name"), "{err}");
    let (_, out, _) = call(folder.path(), &["token", "create", "short", "--role", "client", "--expires", "1ms", "--output", "json"]).await;
    assert!(out.contains("expires_at"), "{out}");
    let (_, out, _) = call(folder.path(), &["token", "list"]).await;
    assert!(out.contains("checkout") && out.contains("operator") && out.contains("expired"), "{out}");
    let (_, out, _) = call(folder.path(), &["token", "list", "--output", "json"]).await;
    assert!(!out.contains(&made) && !out.contains("sha256"), "{out}");
    let (code, _, err) = call(folder.path(), &["token", "revoke", "nobody"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("no token `nobody`"), "{err}");
}

#[tokio::test]
async fn it_speaks_tls_with_the_certificate_that_it_is_given() {
    let folder = folder();
    let files = cutover_testkit::Certificates::make(folder.path()).unwrap();
    let arguments = ["--tls-certificate", files.certificate.to_str().unwrap(), "--tls-key", files.key.to_str().unwrap()];
    let root = files.root.clone();
    let mut server = Server::start_in(folder, &arguments, Some(&root)).await;
    server.server.address = server.address.replace("127.0.0.1", "localhost");
    assert_eq!(status(server.post(FLAG, "{}")).await, 200);
    let plain = server.client.get(server.address.replace("https", "http")).send().await;
    assert!(plain.is_err() || plain.unwrap().status() == StatusCode::BAD_REQUEST, "nothing is answered in the clear");
    let other = folder_with("not a certificate");
    let (code, _, err) =
        call(other.path(), &["serve", "--listen", "127.0.0.1:0", "--tls-certificate", "x.pem", "--tls-key", "x.pem"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("TLS") && err.contains("x.pem"), "{err}");
}

fn folder_with(pem: &str) -> tempfile::TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("x.pem"), pem).unwrap();
    folder
}
