//! `--server` for the verbs that look: the same words, JSON and exit codes as here, and nothing for those who may not.

use std::path::Path;

use cutover_core::Event;
use cutover_journal::{Draft, Journal, Position, open_sqlite};
use cutover_testkit::eventually;
use serde_json::{Value, json};

use crate::ground::{LIMIT, Server, answer, call, command, folder, token};

/// The verbs that need no database.
const VERBS: [&[&str]; 4] = [&["plan"], &["audit"], &["audit", "--verify"], &["report"]];

/// Asks a server, from a folder without a plan.
async fn there(server: &str, token: &str, arguments: &[&str]) -> (i32, String, String) {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = command(elsewhere.path(), &[arguments, &["--server", server]].concat());
    let output = command.env("CUTOVER_TOKEN", token).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn of(event: &Event, epoch: u64) -> Draft {
    let (actor, reason, kind) = ("anna@bastion".to_owned(), "CHG-7".to_owned(), event.kind().to_owned());
    Draft { epoch, at_ms: 1_700_000_000_000, actor, reason, kind, body: serde_json::to_value(event).unwrap() }
}

/// A journal that takes several answers to tell.
async fn long_journal(folder: &Path) -> u64 {
    let state = folder.join(".cutover");
    std::fs::create_dir_all(&state).unwrap();
    let journal = open_sqlite(&state.join("journal.db"), "shop").await.unwrap();
    let server = |address: &str, number: &str| json!({ "system_identifier": number, "database": "shop", "timeline": 1, "major": 15, "address": address });
    let created = json!({
        "event": "created", "plan": { "name": "shop", "digest": "d", "revision": 1 }, "shape": { "reverse": true, "migrate": false, "smoke": false },
        "source": server("old.example:5432", "1"), "target": server("new.example:5433", "2"),
    });
    let mut drafts = vec![of(&serde_json::from_value(created).unwrap(), 1)];
    drafts.extend((2..=1_200).map(|epoch| of(&Event::DriverTookOver { driver: "anna".to_owned() }, epoch)));
    let mut position = Position::ORIGIN;
    for some in drafts.chunks(100) {
        position = journal.append_if(position, some.to_vec()).await.unwrap().last().unwrap().position();
    }
    position.seq
}

#[tokio::test]
async fn b20_what_looks_says_the_same_by_a_server() {
    let folder = folder();
    let newest = long_journal(folder.path()).await;
    let server = Server::start_in(folder, &[], None).await;
    for verb in VERBS {
        for output in ["human", "json"] {
            let arguments = [verb, &["--output", output]].concat();
            let (here, there) = (call(server.folder.path(), &arguments).await, there(&server.address, "", &arguments).await);
            assert_eq!((here.0, &here.1), (there.0, &there.1), "{arguments:?}: {}{}", here.2, there.2);
            assert_eq!(here.0, 0, "{}", here.2);
        }
    }
    let (_, out, _) = there(&server.address, "", &["audit", "--output", "json"]).await;
    let audit: Value = serde_json::from_str(&out).unwrap();
    let numbers: Vec<u64> = audit["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=newest).collect::<Vec<_>>(), "each entry once, in order, of a journal longer than one answer");
}

#[tokio::test]
async fn what_ends_here_with_an_exit_code_ends_with_it_by_a_server() {
    let folder = folder();
    let tables = "[tables]\nexclude = ['public.audit_*']\n";
    let plan = std::fs::read_to_string(folder.path().join("cutover.toml")).unwrap();
    std::fs::write(folder.path().join("cutover.toml"), plan + tables).unwrap();
    let server = Server::start_in(folder, &[], None).await;
    for (verb, code, said) in [("report", 1, "this cutover has not begun"), ("check", 1, "error: "), ("plan", 0, "")] {
        let (here, there) = (call(server.folder.path(), &[verb]).await, there(&server.address, "", &[verb]).await);
        assert_eq!((here.0, there.0), (code, code), "{verb}: {}{}", here.2, there.2);
        assert!(here.2.contains(said) && there.2.contains(said), "{verb}: {}{}", here.2, there.2);
    }
    let (_, text, _) = there(&server.address, "", &["plan"]).await;
    assert!(text.contains("names and sizes can't be told: the server's log says why"), "{text}");
    let (_, json, _) = there(&server.address, "", &["plan", "--output", "json"]).await;
    let (_, local, _) = call(server.folder.path(), &["plan", "--output", "json"]).await;
    assert_eq!(json, local);
    assert!(json.contains("\"left_out\":null") && !json.contains("hunter2"), "{json}");
}

/// Changes every reason behind the journal's back, as soon as its file has all of it.
fn change(file: &Path) -> bool {
    if file.with_extension("db-wal").exists() {
        return false;
    }
    let mut bytes = std::fs::read(file).unwrap();
    let places: Vec<usize> = bytes.windows(5).enumerate().filter(|(_, bytes)| bytes == b"CHG-7").map(|(at, _)| at).collect();
    places.iter().for_each(|at| bytes[at + 4] = b'8');
    std::fs::write(file, bytes).is_ok() && !places.is_empty()
}

#[tokio::test]
async fn a_journal_that_was_changed_is_exit_code_3_by_a_server_too() {
    let folder = folder();
    long_journal(folder.path()).await;
    let file = folder.path().join(".cutover/journal.db");
    eventually(LIMIT, || async { change(&file) }).await.unwrap();
    let server = Server::start_in(folder, &[], None).await;
    let (here, there) =
        (call(server.folder.path(), &["audit", "--verify"]).await, there(&server.address, "", &["audit", "--verify"]).await);
    assert_eq!((here.0, there.0), (3, 3), "{}{}", here.2, there.2);
    assert!(there.2.contains("the journal was changed"), "{}", there.2);
    assert_eq!(here.1, there.1);
}

#[tokio::test]
async fn who_may_not_look_and_who_is_not_there_are_told_apart() {
    let folder = folder();
    let client = token(folder.path(), "checkout", "client").await;
    let viewer = token(folder.path(), "wall", "viewer").await;
    let server = Server::start_in(folder, &[], None).await;
    for verb in [&["check"][..], &["plan"], &["audit"], &["report"]] {
        let (code, out, err) = there(&server.address, &client, verb).await;
        assert!(code == 1 && out.is_empty() && err.contains("403"), "{verb:?}: {code} {out} {err}");
        let (code, _, err) = there(&server.address, "", verb).await;
        assert!(code == 1 && err.contains("401") && err.contains("hint"), "{verb:?}: {err}");
        let (code, out, _) = there("http://127.0.0.1:9", &viewer, &[verb, &["--output", "json"]].concat()).await;
        let said: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &said["error"]["exit_code"]), (1, &json!(1)), "{out}");
        assert!(said["error"]["hint"].as_str().unwrap().contains("is `cutover serve` running there"), "{out}");
    }
    assert_eq!(there(&server.address, &viewer, &["plan"]).await.0, 0);
}

#[tokio::test]
async fn a_verification_that_can_not_be_meant_is_refused_with_a_hint() {
    let folder = folder();
    let viewer = token(folder.path(), "wall", "viewer").await;
    let operator = token(folder.path(), "ci", "operator").await;
    let server = Server::start_in(folder, &[], None).await;
    for request in [server.get("/v1/verify"), server.client.delete(format!("{}/v1/verify", server.address))] {
        let (status, problem) = answer(request.bearer_auth(&operator)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("NOT_FOUND")), "{problem}");
    }
    let (status, problem) = answer(server.get("/v1/verify").bearer_auth(&viewer)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("FORBIDDEN")), "rows of the databases: {problem}");
    let (status, _) = answer(server.post("/v1/verify", "{}").bearer_auth(&viewer)).await;
    assert_eq!(status.as_u16(), 403);
    for (request, part) in [
        (json!({ "tables": [".a"] }), "names no table"),
        (json!({ "only_checks": true, "tables": ["a"] }), "`only_checks`"),
        (json!({ "only_checks": true }), "no checks"),
        (json!({ "repair": 0, "reason": "x" }), "`repair`"),
        (json!({ "repair": 10_001, "reason": "x" }), "`repair`"),
        (json!({ "repair": 5, "reason": " " }), "`reason`"),
        (json!({ "reason": "a\nb" }), "`reason`"),
    ] {
        let (status, problem) = answer(server.post("/v1/verify", request.to_string()).bearer_auth(&operator)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("BAD_REQUEST")), "{request}: {problem}");
        assert!(problem["message"].as_str().unwrap().contains(part) && problem["hint"].is_string() | (part == "`reason`"), "{problem}");
    }
    for (arguments, code) in [
        (&["verify"][..], 1),
        (&["verify", "--only-checks"], 2),
        (&["verify", "--table", ".a"], 2),
        (&["verify", "--repair", "--reason", " "], 2),
    ] {
        let (here, there) = (call(server.folder.path(), arguments).await, there(&server.address, &operator, arguments).await);
        assert_eq!((here.0, there.0), (code, code), "{arguments:?}: {}{}", here.2, there.2);
        assert!(!there.2.contains("old.example"), "what a database's library says stays inside: {}", there.2);
    }
}
