//! Stock OpenFeature providers, as their registries have them, ask the server.

use std::{path::Path, process::Stdio};

use cutover_testkit::providers;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStdin, Command},
};

use crate::ground::{LIMIT, Server, folder, token};

/// How to ask with a provider: a program, and where its packages are.
fn programs() -> [(&'static str, Command); 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/providers");
    let program = |program: &str, script: &str, packages: &str| {
        let mut command = Command::new(program);
        command.arg(here.join(script)).arg(providers().unwrap().join(packages)).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    [("Node.js", program("node", "ask.mjs", "node")), ("Python", program("python3", "ask.py", "python"))]
}

/// Asks for flags, each with its type, what the application falls back to, and a context.
async fn asked(mut command: Command, url: &str, token: Option<&str>, ask: &[(&str, Value, Value)]) -> Vec<Value> {
    let ask: Vec<Value> = ask
        .iter()
        .map(|(flag, fallback, context)| {
            let kind = if fallback.is_boolean() { "boolean" } else { "string" };
            json!({ "flag": flag, "type": kind, "fallback": fallback, "context": context })
        })
        .collect();
    let mut child = command.spawn().unwrap();
    let mut stdin: ChildStdin = child.stdin.take().unwrap();
    stdin.write_all(json!({ "url": url, "token": token, "ask": ask }).to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it did not end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn at(database: &str) -> Value {
    json!({ "targetingKey": "pod-1", "instance": "pod-1", "database": database })
}

const WRITES: &str = "database-writes-enabled";

#[tokio::test]
async fn a2_stock_providers_are_told_the_same_as_everybody() {
    let folder = folder();
    let bearer = token(folder.path(), "pods", "client").await;
    let server = Server::start_in(folder, &[], None).await;
    for (name, command) in programs() {
        // What the application falls back to is the opposite of what is expected, so that none goes for an answer.
        let ask = [
            (WRITES, json!(false), at("old.example")),
            (WRITES, json!(true), at("new.example")),
            (WRITES, json!(true), json!({})),
            ("shop.write.permit", json!("none"), at("old.example:5432/shop")),
            ("shop.database.read", json!("hold"), at("old.example")),
            ("shop.database.write", json!("hold"), at("new.example")),
            ("shop.stage", json!("hold"), at("old.example")),
        ];
        let told = asked(command, &server.address, Some(&bearer), &ask).await;
        let values: Vec<&Value> = told.iter().map(|told| &told["value"]).collect();
        let expected = [json!(true), json!(false), json!(false), json!("0"), json!("source"), json!("source"), json!("source")];
        assert_eq!(values, expected.iter().collect::<Vec<_>>(), "{name}: {told:#?}");
        assert!(told.iter().all(|told| told["reason"] == "TARGETING_MATCH" && told["error"].is_null()), "{name}: {told:#?}");
        assert_eq!((&told[0]["variant"], &told[0]["metadata"]["stage"]), (&json!("on"), &json!("source")), "{name}: {told:#?}");
        assert_eq!(told[1]["metadata"]["why"], "new.example is the target; the source is in charge", "{name}: {told:#?}");
    }
}

/// Whatever goes wrong, the application falls back to what is safe, as it says itself.
#[tokio::test]
async fn a4_stock_providers_fall_back_to_the_applications_default_on_any_error() {
    let folder = folder();
    let bearer = token(folder.path(), "pods", "client").await;
    let server = Server::start_in(folder, &[], None).await;
    let gone = "http://127.0.0.1:9";
    for (index, (url, token)) in
        [(server.address.as_str(), Some(bearer.as_str())), (&server.address, Some("wrong")), (gone, None)].into_iter().enumerate()
    {
        for (name, command) in programs() {
            let flag = if index == 0 { "no-such-flag" } else { WRITES };
            let told =
                asked(command, url, token, &[(flag, json!(false), at("old.example")), ("shop.stage", json!("hold"), at("old.example"))])
                    .await;
            assert_eq!(told[0]["value"], json!(false), "{name}: {told:#?}");
            let expected = if index == 0 { "FLAG_NOT_FOUND" } else { "GENERAL" };
            assert_eq!((&told[0]["error"], &told[0]["reason"]), (&json!(expected), &json!("ERROR")), "{name}: {told:#?}");
            assert_eq!(told[1]["value"], if index == 0 { json!("source") } else { json!("hold") }, "{name}: {told:#?}");
        }
    }
    for (name, command) in programs() {
        let told = asked(command, &server.address, Some(&bearer), &[(WRITES, json!("no"), at("old.example"))]).await;
        assert_eq!((&told[0]["value"], &told[0]["error"]), (&json!("no"), &json!("TYPE_MISMATCH")), "{name}: {told:#?}");
    }
}
