//! What every adapter must do.

use std::{path::Path, time::Duration};

use cutover_core::{
    Side,
    plan::{DatabaseUrl, Traffic},
};
use cutover_traffic::{Adapter, Endpoint, Observation, Severity, build};
use tokio::time::Instant;

/// Long enough for a busy machine; nothing here waits for it to pass.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

pub(crate) fn soon() -> Instant {
    Instant::now() + AMPLE
}

pub(crate) fn endpoint(side: Side, url: &str) -> Endpoint {
    Endpoint { side, url: DatabaseUrl::parse(url).unwrap() }
}

/// Two databases that nobody connects to.
pub(crate) fn endpoints() -> [Endpoint; 2] {
    [
        endpoint(Side::Source, "postgres://app:hunter2@blue.example:5432/orders"),
        endpoint(Side::Target, "postgres://app:hunter2@green.example:6000/orders2"),
    ]
}

pub(crate) fn adapter(plan: Traffic, folder: &Path) -> Box<dyn Adapter> {
    build(&[plan], folder).unwrap().remove(0)
}

pub(crate) async fn look(adapter: &dyn Adapter, endpoints: &[Endpoint; 2]) -> Observation {
    adapter.observe(endpoints).await.unwrap()
}

/// Runs the suite on an adapter that points at the source and is not held.
pub(crate) async fn conforms(adapter: &dyn Adapter, endpoints: &[Endpoint; 2]) {
    let [source, target] = endpoints;
    expect(adapter, endpoints, Side::Source, false).await;
    no_errors(adapter, endpoints).await;

    held(adapter, endpoints).await;
    adapter.release(target, soon()).await.unwrap();
    expect(adapter, endpoints, Side::Target, false).await;
    adapter.release(target, soon()).await.unwrap();
    expect(adapter, endpoints, Side::Target, false).await;

    held(adapter, endpoints).await;
    adapter.release(source, soon()).await.unwrap();
    expect(adapter, endpoints, Side::Source, false).await;

    // A cutover that was undone before anything was repointed.
    held(adapter, endpoints).await;
    adapter.release(source, soon()).await.unwrap();
    expect(adapter, endpoints, Side::Source, false).await;

    // Nobody held it: somebody let it go, or it was restarted.
    adapter.release(target, soon()).await.unwrap();
    expect(adapter, endpoints, Side::Target, false).await;
    adapter.release(source, soon()).await.unwrap();
    expect(adapter, endpoints, Side::Source, false).await;

    no_errors(adapter, endpoints).await;
    shows_no_secret(adapter, endpoints).await;
}

/// Holds twice, and looks whether it is held where it can be.
async fn held(adapter: &dyn Adapter, endpoints: &[Endpoint; 2]) {
    let before = look(adapter, endpoints).await.points_at;
    for _ in 0..2 {
        adapter.hold(soon()).await.unwrap();
        let now = look(adapter, endpoints).await;
        assert_eq!((now.held, now.points_at), (adapter.holds(), before), "{now:?}");
    }
}

async fn expect(adapter: &dyn Adapter, endpoints: &[Endpoint; 2], points_at: Side, held: bool) {
    let now = look(adapter, endpoints).await;
    assert_eq!((now.points_at, now.held), (Some(points_at), held), "{now:?}");
}

async fn no_errors(adapter: &dyn Adapter, endpoints: &[Endpoint; 2]) {
    let problems = adapter.check(endpoints).await;
    assert!(problems.iter().all(|problem| problem.severity < Severity::Error), "{problems:?}");
}

async fn shows_no_secret(adapter: &dyn Adapter, endpoints: &[Endpoint; 2]) {
    let shown = format!(
        "{} {:?} {:?} {:?} {:?}",
        adapter.name(),
        adapter.hold_calls(),
        adapter.release_calls(&endpoints[1]),
        adapter.check(endpoints).await,
        look(adapter, endpoints).await,
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(adapter.hold_calls().is_empty(), !adapter.holds(), "{shown}");
    assert!(!adapter.release_calls(&endpoints[1]).is_empty(), "{shown}");
}
