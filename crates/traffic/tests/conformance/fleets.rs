//! All adapters of a plan together.

use std::{path::Path, time::Duration};

use cutover_core::{Side, plan::Traffic};
use cutover_traffic::{Fleet, TrafficError, build};

use crate::suite::{endpoints, soon};

fn command(hold: &str, release: &str) -> Traffic {
    let observe = Some("cat at".to_owned());
    Traffic::Command { hold: Some(hold.to_owned()), release: release.to_owned(), observe, timeout: Duration::from_secs(20) }
}

fn fleet(plans: &[Traffic], folder: &Path) -> Fleet {
    Fleet::new(build(plans, folder).unwrap())
}

/// A command that ends only when `count` of its kind run at the same time.
fn together(name: &str, number: u32, count: u32) -> String {
    format!("touch {name}-{number}; until test $(ls {name}-* | wc -l) = {count}; do :; done")
}

#[tokio::test]
async fn all_are_held_and_released_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let plans: Vec<_> = (0..3).map(|number| command(&together("hold", number, 3), &together("release", number, 3))).collect();
    let fleet = fleet(&plans, folder.path());
    let [source, target] = endpoints();
    assert!(fleet.holds());
    fleet.hold(&source, soon()).await.unwrap();
    fleet.release(&target, soon()).await.unwrap();
}

#[tokio::test]
async fn when_one_does_not_hold_all_are_let_go_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let release = |number: u32| format!("echo $CUTOVER_SIDE > released-{number}; rm -f held-{number}");
    let fails = command("until test -e held-0; do :; done; exit 1", &release(1));
    let hangs = command("touch held-2; sleep 300", &release(2));
    let fleet = fleet(&[command("touch held-0", &release(0)), fails, hangs], folder.path());
    let error = fleet.hold(&endpoints()[0], soon()).await.unwrap_err();
    assert!(matches!(error, TrafficError::CommandFailed { .. }), "{error:?}");
    for number in 0..3 {
        let released = std::fs::read_to_string(folder.path().join(format!("released-{number}"))).unwrap();
        assert_eq!(released, "source\n");
        assert!(!folder.path().join(format!("held-{number}")).exists());
    }
}

#[tokio::test]
async fn one_that_can_not_be_released_does_not_keep_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let good = command("true", "echo $CUTOVER_SIDE > at");
    let bad = |code: u32| command("true", &format!("exit {code}"));
    let [source, target] = endpoints();
    let error = fleet(&[bad(3), good, bad(4)], folder.path()).release(&target, soon()).await.unwrap_err();
    let TrafficError::Several(errors) = &error else { panic!("{error:?}") };
    assert_eq!(errors.len(), 2);
    let fleet = fleet(&[command("true", "true")], folder.path());
    let seen = fleet.observe(&[source, target]).await;
    assert_eq!(seen[0].1.as_ref().unwrap().points_at, Some(Side::Target));
}

#[tokio::test]
async fn a_plan_without_traffic_has_nothing_to_do() {
    let fleet = Fleet::new(Vec::new());
    let [source, target] = endpoints();
    fleet.hold(&source, soon()).await.unwrap();
    fleet.release(&target, soon()).await.unwrap();
    assert!(!fleet.holds() && fleet.check(&[source, target]).await.is_empty());
}
