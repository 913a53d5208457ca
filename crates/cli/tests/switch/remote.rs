//! `--server`: verbs that a server does, shown and answered as if they were done here.

use std::time::Duration;

use serde_json::json;

use crate::{
    server::{Server, answer},
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
    call(&made.out, &["run", "--until", "ready", "--reason", "CHG-7"]).await.code(0).says("[source]");
    call(&made.out, &["run"]).await.code(0).says("next: ");
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
