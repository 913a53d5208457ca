//! The driver dies at every journal entry, and somebody runs the command again.

use std::time::Duration;

use crate::world::World;

const SOON: Duration = Duration::from_secs(60);

/// Entries inside a switch, in order; each is died at, before and after it is durable.
const ENTRIES: [&str; 7] = ["switch_started", "armed", "fencing_started", "fenced", "drained", "committed", "opened"];

/// After these the switch is finished by whoever comes next; before, it is undone.
fn committed(failpoint: &str) -> bool {
    matches!(failpoint, "after:committed" | "before:opened" | "after:opened")
}

/// B17, B23, invariants 2, 4 and 8: killed with SIGKILL at every entry, in both directions, under load: undone before
/// the commit point, finished after it, and nothing that was acknowledged is lost.
#[tokio::test]
async fn a_driver_killed_at_any_entry_in_both_directions_loses_nothing() {
    let world = World::new().await;
    let load = world.load(6).await;
    world.ready().await;
    for entry in ENTRIES {
        for moment in ["before", "after"] {
            let failpoint = format!("{moment}:{entry}");
            for (verb, from, to) in [(vec!["run"], "source", "target"), (vec!["rollback", "--reason", "back"], "target", "source")] {
                world.cutover_killed(&verb, Some(&failpoint)).await.killed();
                // The next call, whatever it is for, first finishes or undoes what the dead one had begun.
                world.cutover(&["run", "--until", "ready"]).await.code(0);
                let expected = if committed(&failpoint) { to } else { from };
                assert_eq!(world.authority().await, expected, "{verb:?} killed {failpoint}");
                load.wait_acknowledged(20, SOON).await.unwrap();
                if expected != to {
                    world.cutover(&verb).await.code(0);
                    assert_eq!(world.authority().await, to);
                    load.wait_acknowledged(20, SOON).await.unwrap();
                }
            }
        }
    }
    world.judge(load).await;
    world.cutover(&["audit", "--verify"]).await.code(0);
}

/// B5: killed anywhere in the preparation, the copy ends right.
#[tokio::test]
async fn a_driver_killed_anywhere_in_the_preparation_goes_on() {
    let world = World::new().await;
    let load = world.load(4).await;
    let mut failpoints = vec![
        "before:created".to_owned(),
        "after:created".to_owned(),
        "before:snapshot_taken".to_owned(),
        "after:snapshot_taken".to_owned(),
    ];
    // Each step of the preparation is one such entry; dying before it means doing the step again.
    failpoints.extend(std::iter::repeat_n("before:prepared".to_owned(), 1));
    for failpoint in failpoints {
        world.cutover_killed(&["run", "--until", "ready"], Some(&failpoint)).await.killed();
    }
    // From here, each call finishes one step and dies right after saying so.
    for _ in 0..7 {
        let said = world.cutover_killed(&["run", "--until", "ready"], Some("after:prepared")).await;
        if said.code.is_some() {
            said.code(0);
            break;
        }
    }
    world.ready().await;
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.cutover(&["verify"]).await.code(0);
    world.cutover(&["run"]).await.code(0);
    world.judge(load).await;
}

/// Invariant 9: of two drivers one holds it, the other gets exit code 6 and harms nothing.
#[tokio::test]
async fn of_two_drivers_one_gets_exit_code_6() {
    let world = World::new().await;
    let load = world.load(4).await;
    world.ready().await;
    let (one, other) = tokio::join!(world.cutover(&["run"]), world.cutover(&["run"]));
    let codes = [one.code, other.code];
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(6)), "{one:?} {other:?}");
    assert_eq!(world.authority().await, "target");
    world.judge(load).await;
}

/// Ctrl-C before the commit point undoes, says so, and leaves nothing held.
#[tokio::test]
async fn ctrl_c_while_a_writer_holds_up_the_pause_undoes_it() {
    let world = World::of(15, 15, "[pause]\nbudget = \"30s\"").await;
    world.ready().await;
    let writer = world.source.client(crate::world::DATABASE).await.unwrap();
    writer.batch_execute("BEGIN; UPDATE bank.accounts SET balance = balance WHERE false").await.unwrap();
    let busy = tokio::spawn(async move { writer.batch_execute("SELECT pg_sleep(20); COMMIT").await });
    let child = world.command(&["run"]).spawn().unwrap();
    let pid = child.id().unwrap().to_string();
    let output = tokio::spawn(child.wait_with_output());
    cutover_testkit::eventually(SOON, || async { world.phase().await == "arming" || world.phase().await == "fencing" }).await.unwrap();
    tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
    let output = output.await.unwrap().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("interrupted") && text.contains("undone"), "{text}");
    assert_eq!(world.authority().await, "source");
    busy.abort();
}

/// Whoever types the same command again after a kill gets what he asked for, and no more than that.
#[tokio::test]
async fn a_way_back_that_was_killed_is_finished_by_the_same_command_and_by_run_and_no_more() {
    let world = World::new().await;
    let load = world.load(4).await;
    world.ready().await;
    for again in [vec!["rollback", "--reason", "back"], vec!["run"]] {
        world.cutover(&["run"]).await.code(0);
        world.cutover_killed(&["rollback", "--reason", "back"], Some("after:committed")).await.killed();
        world.cutover(&again).await.code(0);
        assert_eq!(world.authority().await, "source", "{again:?} finished the way back and did not leave again");
        assert_eq!(world.phase().await, "following", "{again:?} did not give the copy up");
        load.wait_acknowledged(20, SOON).await.unwrap();
    }
    world.cutover(&["rollback", "--reason", "twice"]).await.code(1).says("nothing was done");
    assert_eq!(world.phase().await, "following");
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}
