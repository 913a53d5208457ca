//! What a person or a script sees of the command: help, mistakes, exit codes, both streams.

#![cfg(test)]

use std::{path::Path, process::Command};

/// Exit code and both streams of one call, in a folder of its own.
fn call(folder: &Path, arguments: &[&str]) -> String {
    call_with(folder, arguments, &[])
}

fn call_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(arguments).current_dir(folder).env("COLUMNS", "100").env_remove("CUTOVER_PLAN").envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("exit code {}\n--- out\n{}--- err\n{}", output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn plan(folder: &Path, text: &str) {
    std::fs::write(folder.join("cutover.toml"), text).unwrap();
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A port that nobody listens on: bound, and let go.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_help_shows_the_usual_way_and_the_exit_codes() {
    insta::assert_snapshot!(call(folder().path(), &["--help"]));
}

#[test]
fn every_command_has_help_with_an_example() {
    for verb in [
        "check", "plan", "rehearse", "run", "status", "verify", "rollback", "complete", "retire", "audit", "report", "serve", "demo",
        "init",
    ] {
        let said = call(folder().path(), &[verb, "--help"]);
        assert!(said.starts_with("exit code 0"), "{said}");
        assert!(said.contains("Example") && said.contains(&format!("cutover {verb}")), "{said}");
    }
}

#[test]
fn without_a_plan_it_says_how_to_get_one() {
    insta::assert_snapshot!(call(folder().path(), &["check"]), @r"
    exit code 2
    --- out
    --- err
    error: can't read the plan cutover.toml: No such file or directory (os error 2)

    hint: `cutover init` writes one to start from; --plan names another file
    ");
}

#[test]
fn init_writes_a_plan_once() {
    let folder = folder();
    insta::assert_snapshot!(call(folder.path(), &["init"]), @r"
    exit code 0
    --- out
    --- err
    wrote cutover.toml: fill in both URLs, then `cutover check`
    ");
    let said = call(folder.path(), &["init"]);
    assert!(said.starts_with("exit code 2") && said.contains("exists already"), "{said}");
    let said = call(folder.path(), &["check"]);
    assert!(said.contains("cutover.toml:8:7: the environment has no variable `SOURCE_PASSWORD`"), "{said}");
}

#[test]
fn mistakes_in_the_plan_have_a_place_and_a_hint() {
    const HEAD: &str = "name = \"orders\"\nkind = \"switch\"\n[source]\nurl = \"postgres://a@h/orders\"\n[target]\n";
    let said = |rest: &str| {
        let folder = folder();
        plan(folder.path(), &format!("{HEAD}{rest}"));
        call(folder.path(), &["plan"])
    };
    insta::assert_snapshot!("unknown_key", said("urll = \"postgres://a@g/orders\"\n"));
    insta::assert_snapshot!("other_kind_of_database", said("url = \"mysql://a@g/orders\"\n"));
    insta::assert_snapshot!("the_same_database_twice", said("url = \"postgres://a@h/orders\"\n"));
    insta::assert_snapshot!("no_toml", said("url = postgres\n"));
    insta::assert_snapshot!("budget_of_nothing", said("url = \"postgres://a@g/orders\"\n[pause]\nbudget = \"0s\"\n"));
    insta::assert_snapshot!("unknown_traffic", said("url = \"postgres://a@g/orders\"\n[[traffic]]\nkind = \"haproxy\"\n"));
}

#[test]
fn a_server_that_is_not_there_is_named_and_no_password_is_printed() {
    let folder = folder();
    let port = closed_port();
    plan(
        folder.path(),
        &format!(
            "name = \"orders\"\nkind = \"switch\"\n[source]\nurl = \"postgres://a:${{SECRET}}@127.0.0.1:{port}/orders\"\n[target]\nurl = \"postgres://a:${{SECRET}}@127.0.0.1:{port}/other\"\n"
        ),
    );
    for arguments in [&["check"][..], &["run"], &["verify"], &["status"], &["status", "--output", "json"], &["plan"]] {
        let said = call_with(folder.path(), arguments, &[("SECRET", "sesame")]);
        assert!(!said.contains("sesame"), "{arguments:?}: {said}");
        assert!(arguments[0] == "plan" || said.contains(&format!("127.0.0.1:{port}")), "{arguments:?}: {said}");
    }
    let said = call_with(folder.path(), &["check", "--output", "json"], &[("SECRET", "sesame")]);
    let out = said.split("--- out\n").nth(1).unwrap().split("--- err").next().unwrap();
    let json: serde_json::Value = serde_json::from_str(out).expect("one JSON object on standard output, also for a failure");
    assert_eq!((json["version"].as_u64(), json["error"]["exit_code"].as_u64()), (Some(1), Some(1)), "{json}");
}

#[test]
fn what_can_not_be_meant_is_exit_code_2() {
    let folder = folder();
    for arguments in
        [&["rollback"][..], &["rollback", "--reason", " "], &["retire"], &["run", "--until", "tomorrow"], &["--output", "xml", "status"]]
    {
        assert!(call(folder.path(), arguments).starts_with("exit code 2"), "{arguments:?}");
    }
}

#[test]
fn completions_and_the_manual_come_from_the_same_definitions() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let said = call(folder.path(), &["completions", shell]);
        assert!(said.starts_with("exit code 0") && said.contains("rollback"), "{said}");
    }
    assert!(call(folder.path(), &["man"]).contains(".TH cutover"));
}
