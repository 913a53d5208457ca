//! The adapter `flags` over a journal in a file, whose rows the test writes as a server would.

use cutover_core::{Event, Identity, PlanRef, Preparation, Shape, Side, apply, plan::DatabaseUrl};
use cutover_journal::{Draft, Position, open_sqlite};
use cutover_traffic::{Endpoint, Severity, TrafficError};
use serde_json::{Value, json};

use super::*;

const LEASE_MS: u64 = 300;
const BUDGET: Duration = Duration::from_secs(3);

struct Ground {
    _folder: tempfile::TempDir,
    journal: Arc<dyn Journal>,
    flags: Flags,
    epoch: u64,
}

impl Ground {
    /// A switch whose pause has just begun.
    async fn fencing() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal: Arc<dyn Journal> = Arc::new(open_sqlite(&folder.path().join("journal.db"), "shop").await.unwrap());
        let epoch = append(&*journal, &until_fencing()).await;
        let settings = FlagSettings { lease: Duration::from_millis(LEASE_MS), rollout: BUDGET, budget: BUDGET };
        let flags = Flags::new(settings, Box::new(Roster(Arc::clone(&journal))));
        Self { _folder: folder, journal, flags, epoch }
    }

    async fn says(&self, server: &str, beat: u64, report: Value) {
        self.journal.write_row(server, beat, LEASE_MS, &report).await.unwrap();
    }

    fn report(&self, behind: u64) -> Value {
        json!({"epoch": self.epoch, "clients": 5, "behind": behind, "astray": 1, "unknown": 1, "names": ["pod-1 is lost"]})
    }
}

fn soon() -> Instant {
    Instant::now() + BUDGET
}

#[tokio::test]
async fn a7_holding_waits_for_the_last_acknowledgement() {
    let ground = Ground::fencing().await;
    ground.says("a", 1, ground.report(2)).await;
    let late = ground.flags.hold(Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(&late, TrafficError::Unheard { left: 2, names, .. } if names == "pod-1 is lost"), "{late}");
    let (held, ()) = tokio::join!(ground.flags.hold(soon()), ground.says("a", 2, ground.report(0)));
    held.unwrap();
    let waited = ground.flags.take_held().unwrap();
    assert_eq!((waited.servers, waited.clients), (1, 5));
    assert!(ground.flags.take_held().is_none());
}

#[tokio::test]
async fn a_server_that_is_known_to_be_dead_costs_no_lease() {
    let ground = Ground::fencing().await;
    ground.says("dead", 1, json!({"epoch": 1, "clients": 5, "behind": 0, "astray": 0, "names": []})).await;
    assert_eq!(ground.flags.meet(soon()).await.unwrap().servers, 0);
    ground.flags.hold(soon()).await.unwrap();
    let waited = ground.flags.take_held().unwrap();
    assert!(waited.servers == 0 && waited.waited < Duration::from_millis(LEASE_MS), "{waited:?}");
}

#[tokio::test]
async fn a_row_that_cant_be_read_is_waited_for_until_it_is_silent() {
    let ground = Ground::fencing().await;
    ground.says("newer", 1, json!({"epoch": "four"})).await;
    let late = ground.flags.hold(Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert!(late.to_string().contains("newer acts on epoch 0"), "{late}");
    ground.says("newer", 2, json!(null)).await;
    ground.flags.hold(soon()).await.unwrap();
    assert!(ground.flags.take_held().unwrap().waited >= Duration::from_millis(LEASE_MS));
}

#[tokio::test]
async fn a13_gathering_waits_for_strays_and_says_who_is_left() {
    let ground = Ground::fencing().await;
    ground.says("a", 0, ground.report(0)).await;
    let stray = async {
        for beat in 1..u64::MAX {
            ground.says("a", beat, ground.report(0)).await;
            drop(ground.journal.tail(u64::MAX, Duration::from_millis(LEASE_MS / 3)).await);
        }
    };
    let left = tokio::select! {
        left = ground.flags.gather(|_| ()) => left.unwrap_err(),
        () = stray => unreachable!(),
    };
    assert!(matches!(&left, TrafficError::Astray { left: 1, .. }), "{left}");
    assert!(left.to_string().contains("pod-1 is lost"), "{left}");
}

#[tokio::test]
async fn preflight_wants_a_server_and_warns_of_clients_that_nobody_knows() {
    let ground = Ground::fencing().await;
    let url = DatabaseUrl::parse("postgres://a@b/c").unwrap();
    let endpoints = Side::BOTH.map(|side| Endpoint { side, url: url.clone() });
    let problems = ground.flags.check(&endpoints).await;
    assert!(problems.len() == 1 && problems[0].severity == Severity::Error, "{problems:?}");
    ground.says("a", 1, ground.report(0)).await;
    let (problems, ()) = tokio::join!(ground.flags.check(&endpoints), async {
        drop(ground.journal.tail(u64::MAX, Duration::from_millis(LEASE_MS / 3)).await);
        ground.says("a", 2, ground.report(0)).await;
    });
    assert_eq!(problems.iter().map(|problem| problem.severity).collect::<Vec<_>>(), [Severity::Info, Severity::Warning], "{problems:?}");
    assert!(problems[1].message.contains("pod-1 is lost"), "{problems:?}");
    let seen = ground.flags.observe(&endpoints).await.unwrap();
    assert_eq!((seen.points_at, seen.held, seen.clients), (Some(Side::Source), true, Some(5)));
}

fn until_fencing() -> Vec<Event> {
    let identity = |name: &str| Identity {
        system_identifier: name.to_owned(),
        database: "shop".to_owned(),
        timeline: 1,
        major: 15,
        address: name.to_owned(),
    };
    let created = Event::Created {
        plan: PlanRef { name: "shop".to_owned(), digest: String::new(), revision: 1 },
        shape: Shape { reverse: true, migrate: false, smoke: false },
        source: identity("old"),
        target: identity("new"),
        filter: Box::default(),
    };
    let steps = Preparation::ALL.into_iter().filter(|step| *step != Preparation::Migrate);
    let prepared = steps.map(|step| Event::Prepared { step, facts: std::collections::BTreeMap::new() });
    let switch = [Event::SwitchStarted { to: Side::Target, attempt: 1 }, Event::Armed { tables: 1 }, Event::FencingStarted];
    std::iter::once(created).chain(prepared).chain(switch).collect()
}

/// Appends the events; the epoch that they come to.
async fn append(journal: &dyn Journal, events: &[Event]) -> u64 {
    let mut state = None;
    let mut drafts = Vec::new();
    for event in events {
        let after = apply(state, event).unwrap();
        let (actor, kind) = ("anna".to_owned(), event.kind().to_owned());
        let body = serde_json::to_value(event).unwrap();
        drafts.push(Draft { epoch: after.epoch, at_ms: 0, actor, reason: String::new(), kind, body });
        state = Some(after);
    }
    journal.append_if(Position::ORIGIN, drafts).await.unwrap();
    state.unwrap().epoch
}
