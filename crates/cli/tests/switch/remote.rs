//! `--server`: verbs that a server does, shown and answered as if they were done here.

use std::time::Duration;

use cutover_testkit::eventually;
use serde_json::{Value, json};

use crate::{
    repair::{MEDDLED, REPAIR},
    server::{LIMIT, Server, answer},
    serving::serve,
    world::{Said, World},
};

/// Runs the command by a server, from a folder without a plan.
async fn there(server: &Server, token: &str, arguments: &[&str]) -> Said {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(arguments).args(["--server", &server.address]).current_dir(elsewhere.path()).env("CUTOVER_TOKEN", token.trim());
    command.env_remove("CUTOVER_PLAN").stdin(std::process::Stdio::null()).kill_on_drop(true);
    Said::of(tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("it did not end").unwrap())
}

/// B20: `--server` has a server do it, and is answered as if it were done here: words, JSON, exit codes.
#[tokio::test]
async fn b20_the_command_line_drives_by_a_server() {
    let world = World::new().await;
    let made = world.cutover(&["token", "create", "ci", "--role", "operator"]).await.code(0);
    let viewer = world.cutover(&["token", "create", "wall", "--role", "viewer"]).await.code(0);
    let server = serve(&world, &[]).await;
    let call = async |token: &str, arguments: &[&str]| there(&server, token, arguments).await;
    call("wrong", &["status"]).await.code(1).says("401").says("hint");
    call(&viewer.out, &["run"]).await.code(1).says("403");
    call(&made.out, &["run", "--until", "ready", "--reason", "CHG-7"]).await.code(0).says("bank is ready");
    call(&made.out, &["run"]).await.code(0).says("the target is in charge since a pause of");
    let status = call(&viewer.out, &["status", "--output", "json"]).await.code(0).json();
    assert_eq!((&status["state"]["authority"], &status["version"]), (&json!("target"), &json!(1)), "{status:#}");
    let here = world.cutover(&["status"]).await.code(0);
    let said = call(&viewer.out, &["status"]).await.code(0);
    assert_eq!(here.out.lines().next(), said.out.lines().next(), "the same words");
    for verb in [&["check"][..], &["plan"], &["audit"], &["audit", "--verify"], &["report"]] {
        for output in ["human", "json"] {
            let arguments = [verb, &["--output", output]].concat();
            let (here, there) = (world.cutover(&arguments).await, call(&viewer.out, &arguments).await);
            assert_eq!((here.code, &here.out), (there.code, &there.out), "{arguments:?}: {} {}", here.err, there.err);
        }
    }
    call(&made.out, &["rollback", "--reason", " "]).await.code(2).says("--reason is empty");
    call(&made.out, &["rollback", "--reason", "and back", "--output", "json"]).await.code(0);
    call(&made.out, &["rollback", "--reason", "once more"]).await.code(1).says("the source is in charge");
    call(&made.out, &["complete"]).await.code(1);
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    assert!(audit["entries"].as_array().unwrap().iter().any(|entry| entry["actor"] == "ci" && entry["reason"] == "CHG-7"));

    world.write_plan("[tables]\nexclude = ['bank.audit_*']");
    let narrower = serve(&world, &[]).await;
    let (status, problem) = answer(narrower.post("/v1/check", "").bearer_auth(viewer.out.trim())).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("CONFLICT")), "its plan covers other tables: {problem}");
}

/// The old side is archived where the server is, once, and only where that was confirmed.
#[tokio::test]
async fn b20_a_cutover_is_retired_by_a_server() {
    let world = World::new().await;
    let operator = world.cutover(&["token", "create", "ci", "--role", "operator"]).await.code(0);
    let viewer = world.cutover(&["token", "create", "wall", "--role", "viewer"]).await.code(0);
    let archives = world.folder.path().join("kept");
    let server = serve(&world, &["--archives", archives.to_str().unwrap()]).await;
    let retire = async |token: &str, more: &[&str]| there(&server, token, &[&["retire", "--archive"], more].concat()).await;
    retire(&operator.out, &["final.dump", "--confirm", "bank"]).await.code(1).says("this cutover has not begun");
    for arguments in [&["run"][..], &["complete", "--reason", "it stays"]] {
        there(&server, &operator.out, arguments).await.code(0);
    }
    retire(&operator.out, &["final.dump"]).await.code(2).says("add --confirm bank");
    retire(&operator.out, &["final.dump", "--confirm", "shop"]).await.code(2).says("`shop` is not the plan's name");
    retire(&viewer.out, &["final.dump", "--confirm", "bank"]).await.code(1).says("403");
    for name in ["../final.dump", "/tmp/final.dump", ".final", "final.partial", "a b"] {
        retire(&operator.out, &[name, "--confirm", "bank"]).await.code(2).says("`archive` is no name of a file");
    }
    for (confirm, code) in [(json!(null), "UNCONFIRMED"), (json!("shop"), "UNCONFIRMED")] {
        let request = json!({ "archive": "final.dump", "confirm": confirm });
        let (status, problem) = answer(server.post("/v1/retire", request.to_string()).bearer_auth(operator.out.trim())).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!(code)), "{problem}");
    }
    std::fs::create_dir(&archives).unwrap();
    std::fs::write(archives.join("taken.dump"), "somebody's").unwrap();
    retire(&operator.out, &["taken.dump", "--confirm", "bank"]).await.code(1).says("exists already");
    assert_eq!(world.phase().await, "completed", "nothing was dropped");

    let said = retire(&operator.out, &["final.dump", "--confirm", "bank", "--reason", "CHG-9", "--output", "json"]).await.code(0);
    assert_eq!(said.json()["phase"], "retired", "the state, as the verb says it here");
    assert!(std::fs::read(archives.join("final.dump")).unwrap().starts_with(b"PGDMP"));
    let left: Vec<_> = std::fs::read_dir(&archives).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no part of an archive: {left:?}");
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    let archived = audit["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "archived").unwrap();
    assert_eq!((&archived["actor"], &archived["reason"]), (&json!("ci"), &json!("CHG-9")), "{archived}");
    assert!(archived["body"]["file"].as_str().unwrap().ends_with("kept/final.dump"), "{archived}");
    retire(&operator.out, &["again.dump", "--confirm", "bank"]).await.code(1).says("retired");
}

/// What a verification answers, without what differs from one to the next.
fn timeless(said: &Said) -> Value {
    let mut answer = said.json();
    for field in ["seconds", "rows_per_s", "lsn", "rechecked_rows"] {
        answer.as_object_mut().unwrap().remove(field);
    }
    for check in answer["checks"].as_array_mut().unwrap() {
        check.as_object_mut().unwrap().remove("ms");
    }
    answer
}

/// The same words, JSON and exit codes, also where rows differ, and what is mended is in the journal with who and why.
#[tokio::test]
async fn d19_both_sides_are_compared_and_mended_by_a_server() {
    let check = "[verify]\nredact = [\"*.holder\"]\n[[check]]\nname = 'nobody'\nsql = \"SELECT 1 FROM bank.accounts WHERE id = 777001\"\nexpect = 'empty'";
    let world = World::of(15, 15, check).await;
    let operator = world.cutover(&["token", "create", "ci", "--role", "operator"]).await.code(0);
    world.ready().await;
    let server = serve(&world, &[]).await;
    let call = async |arguments: &[&str]| there(&server, &operator.out, arguments).await;
    call(&["verify"]).await.code(0).says("0 differences").says("nobody: pass");
    let kept = world.entries("verified").await;
    assert!(kept.last().unwrap()["rows"].as_u64().unwrap() > 0, "for status and the next switch: {kept:?}");

    world.meddle(&world.target, MEDDLED).await;
    let unknown = ["verify", "--table", "bank.nothing"];
    let words = |said: &Said| said.err[said.err.find("error:").unwrap()..].to_owned();
    let (here, there) = (world.cutover(&unknown).await.code(1), call(&unknown).await.code(1));
    assert_eq!(words(&here), words(&there), "these are our own words, not a database's");
    for arguments in [&["verify"][..], &["verify", "--values"], &["verify", "--only-checks"], &["verify", "--table", "bank.accounts"]] {
        let (here, there) = (world.cutover(arguments).await.code(3), call(arguments).await.code(3));
        let lines =
            |said: &Said| said.out.lines().filter(|line| !line.contains(" ms") && !line.contains("rows/s")).collect::<Vec<_>>().join("\n");
        assert_eq!(lines(&here), lines(&there), "{arguments:?}");
        assert!(!there.out.contains("\"nobody\""), "the text of a redacted column is shown nowhere: {there:?}");
        let json = [arguments, &["--output", "json"]].concat();
        assert_eq!(timeless(&world.cutover(&json).await.code(3)), timeless(&call(&json).await.code(3)), "{arguments:?}");
    }
    call(&[&REPAIR[..], &["--max-repairs", "2"]].concat()).await.code(3).says("more than --max-repairs (2); none was repaired");
    assert!(world.entries("repair_started").await.is_empty(), "nothing was begun");
    let said = call(&[&REPAIR[..], &["--output", "json"]].concat()).await;
    assert_eq!(said.json()["repair"]["repaired"], 3, "{said:?}");
    assert_eq!(said.code, Some(0), "the check was asked once more, behind the repair: {said:?}");
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    let begun = audit["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "repair_started").unwrap();
    assert_eq!((&begun["actor"], &begun["reason"]), (&json!("ci"), &json!("somebody wrote there")), "{begun}");
    world.cutover(&["verify"]).await.code(0);
}

/// A verification takes hours where the data is large: it can be stopped, there is one of it, and going back need not wait for it.
#[tokio::test]
async fn one_verification_at_a_time_which_can_be_stopped_and_holds_nobody_up() {
    let world = World::new().await;
    world.ready().await;
    world.cutover(&["run"]).await.code(0);
    world.write_plan("[verify]\nmax_rate = 100\n");
    let mut server = serve(&world, &[]).await;
    let begin = async || answer(server.post("/v1/verify", "{\"reason\":\"CHG-3\"}")).await;
    let (status, begun) = begin().await;
    assert_eq!((status.as_u16(), &begun["verb"], &begun["reason"]), (202, &json!("verify"), &json!("CHG-3")), "{begun}");
    let (status, problem) = begin().await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("BUSY")), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("DELETE /v1/verify"), "{problem}");
    there(&server, "", &["verify"]).await.code(6).says("this server verifies already");
    there(&server, "", &["rollback", "--reason", "at once"]).await.code(0).says("the source is in charge since a pause of");
    // The sides have changed places: whatever it would have said of them says nothing.
    let ended = || async { Some(answer(server.get("/v1/verify")).await.1).filter(|now| !now["outcome"].is_null()) };
    let cut = eventually(LIMIT, ended).await.unwrap();
    assert_eq!((&cut["outcome"]["code"], &cut["found"]), (&json!(4), &Value::Null), "{cut}");
    assert!(cut["outcome"]["message"].as_str().unwrap().contains("verify again"), "{cut}");
    assert_eq!(begin().await.0.as_u16(), 202, "another one");

    let (status, _) = answer(server.client.delete(format!("{}/v1/verify", server.address))).await;
    assert_eq!(status.as_u16(), 202);
    let ended = eventually(LIMIT, ended).await.unwrap();
    assert_eq!((&ended["outcome"]["code"], &ended["found"]), (&json!(1), &Value::Null), "{ended}");
    assert!(ended["outcome"]["message"].as_str().unwrap().contains("interrupted"), "{ended}");

    assert_eq!(begin().await.0.as_u16(), 202, "another one");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.child.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(LIMIT, server.child.wait()).await.expect("it waits for the verification").unwrap();
    assert!(ended.success(), "{ended}");
}
