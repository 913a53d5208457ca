//! What a command sees, and how it ends.

use cutover_core::plan::DatabaseUrl;

use super::*;

fn target(url: &str) -> Endpoint {
    Endpoint { side: Side::Target, url: DatabaseUrl::parse(url).unwrap() }
}

fn here() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn b7_a_hook_gets_the_targets_address_in_its_environment() {
    let (folder, to) = (here(), target("postgres://app:pw@green.example:6000/orders?sslmode=require"));
    let script = r#"printf '%s ' "$PGHOST" "$PGPORT" "$PGDATABASE" "$PGUSER" "$PGSSLMODE" "$CUTOVER_SIDE" "$EXTRA" "$(pwd)"
        test -n "$PGPASSWORD" && test -z "$PGHOSTADDR$CUTOVER_ACTION""#;
    let extra = [("EXTRA".to_owned(), "more".to_owned())];
    let output = run_hook(script, &to, &extra, Duration::from_secs(20), folder.path()).await.unwrap();
    let cwd = folder.path().canonicalize().unwrap();
    assert_eq!(output.stdout, format!("green.example 6000 orders app require target more {} ", cwd.display()));
}

#[tokio::test]
async fn a_password_is_in_no_argument_and_in_no_output() {
    let (folder, to) = (here(), target("postgres://app:hunter2@h/d"));
    let script = "echo the password is $PGPASSWORD; tr '\\0' ' ' < /proc/$$/cmdline; exit 3";
    let error = run_hook(script, &to, &[], Duration::from_secs(20), folder.path()).await.unwrap_err();
    assert!(error.report().contains("the password is ***"), "{}", error.report());
    assert!(!format!("{error:?} {}", error.report()).contains("hunter2"));
    let commands = Commands { hold: None, release: "true".to_owned(), observe: None };
    let adapter = CommandAdapter::new(commands, Duration::from_secs(1), folder.path().to_owned());
    assert_eq!(
        adapter.release_calls(&to),
        [
            "CUTOVER_ACTION=release CUTOVER_SIDE=target PGHOST=h PGPORT=5432 PGDATABASE=d PGUSER=app PGSSLMODE=prefer PGPASSWORD=*** sh -c 'true'"
        ]
    );
}

#[tokio::test]
async fn a_time_out_kills_the_whole_group() {
    let (folder, to) = (here(), target("postgres://app@h/d"));
    let script = "sleep 300 & echo $! > child; echo begun; wait";
    let begun = Instant::now();
    let error = run_hook(script, &to, &[], Duration::from_millis(300), folder.path()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(error.is_time_out() && error.report().contains("begun"), "{}", error.report());
    let child: i32 = std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
    gone(child).await;
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_is_killed() {
    let (folder, to) = (here(), target("postgres://app@h/d"));
    let (path, pid) = (folder.path().to_owned(), folder.path().join("pid"));
    let task =
        tokio::spawn(async move { run_hook("echo $$ > part; mv part pid; sleep 300", &to, &[], Duration::from_secs(300), &path).await });
    let deadline = Instant::now() + Duration::from_secs(20);
    while !pid.exists() {
        assert!(Instant::now() < deadline, "the command never began");
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    gone(std::fs::read_to_string(pid).unwrap().trim().parse().unwrap()).await;
}

/// Waits until process `id` is gone, or a zombie that its parent did not bury yet.
async fn gone(id: i32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {id} lives on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_the_end_of_a_long_output_is_kept() {
    let (folder, to) = (here(), target("postgres://app@h/d"));
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; exit 1";
    let error = run_hook(script, &to, &[], Duration::from_secs(20), folder.path()).await.unwrap_err();
    let TrafficError::CommandFailed { output, status, .. } = error else { panic!("{error:?}") };
    assert_eq!(status.code(), Some(1));
    assert!(output.len() <= 4096 && output.contains("line 2999") && output.contains("oops") && !output.contains("line 1\n"));
}

#[tokio::test]
async fn a_child_left_in_the_background_does_not_delay_the_end() {
    let (folder, to) = (here(), target("postgres://app@h/d"));
    let begun = Instant::now();
    let output = run_hook("sleep 300 & echo $!", &to, &[], Duration::from_secs(200), folder.path()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let child: i32 = output.stdout.trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn observe_prints_a_side_and_whether_it_is_held() {
    for (printed, points_at, held) in [
        ("source", Some(Side::Source), false),
        ("target held", Some(Side::Target), true),
        ("held", None, false),
        ("", None, false),
        ("source target", None, false),
        ("the source", None, false),
    ] {
        let observation = understood(printed);
        assert_eq!((observation.points_at, observation.held), (points_at, held), "{printed}");
    }
}

#[tokio::test]
async fn a_shell_error_is_found_before_the_cutover() {
    let folder = here();
    let commands =
        Commands { hold: Some("echo 'open".to_owned()), release: "true".to_owned(), observe: Some("touch ran; echo source".to_owned()) };
    let adapter = CommandAdapter::new(commands, Duration::from_secs(10), folder.path().to_owned());
    let endpoints = [Endpoint { side: Side::Source, url: DatabaseUrl::parse("postgres://a@b/c").unwrap() }, target("postgres://a@g/c")];
    let problems = adapter.check(&endpoints).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("syntax check of hold"), "{problems:?}");
}
