//! The adapter for the user's commands.

use std::time::Duration;

use cutover_core::plan::Traffic;
use cutover_traffic::TrafficError;
use tokio::time::Instant;

use crate::suite::{adapter, conforms, endpoints, soon};

fn plan(hold: Option<&str>, release: &str, observe: Option<&str>) -> Traffic {
    Traffic::Command {
        hold: hold.map(ToOwned::to_owned),
        release: release.to_owned(),
        observe: observe.map(ToOwned::to_owned),
        timeout: Duration::from_secs(20),
    }
}

const RELEASE: &str = "echo $CUTOVER_SIDE $PGHOST > at; rm -f held";
const OBSERVE: &str = r#"read side host < at
    test "$host" = "$CUTOVER_SOURCE_HOST" -a $side = source -o "$host" = "$CUTOVER_TARGET_HOST" -a $side = target || exit 1
    test -e held && echo $side held || echo $side"#;

#[tokio::test]
async fn commands_conform() {
    for hold in [None, Some("test $CUTOVER_ACTION = hold && touch held")] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("at"), "source blue.example\n").unwrap();
        let adapter = adapter(plan(hold, RELEASE, Some(OBSERVE)), folder.path());
        conforms(adapter.as_ref(), &endpoints()).await;
    }
}

#[tokio::test]
async fn a_command_that_hangs_runs_into_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(plan(Some("sleep 300"), "sleep 300", None), folder.path());
    for hangs in [true, false] {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(200);
        let result = if hangs { adapter.hold(deadline).await } else { adapter.release(&endpoints()[0], deadline).await };
        assert!(matches!(result, Err(TrafficError::CommandTimedOut { .. })), "{result:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_command_that_fails_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(plan(None, "echo no such deployment >&2; exit 4", None), folder.path());
    let error = adapter.release(&endpoints()[1], soon()).await.unwrap_err();
    assert_eq!(error.report(), "the command for release ended with exit status: 4; it printed: no such deployment");
}
