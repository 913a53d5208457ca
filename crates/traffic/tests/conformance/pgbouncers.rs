//! PgBouncer itself, in every version at hand.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use cutover_core::Side;
use cutover_testkit::{PoolMode, Proxy, eventually};
use cutover_traffic::{Adapter, Fleet, Severity, TrafficError};
use tokio::{task::JoinHandle, time::Instant};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    rig::{Rig, versions},
    suite::{AMPLE, adapter, conforms, look, soon},
};

/// Clients of the load; more than the pool has server connections.
const WORKERS: usize = 20;

/// The first value that `sql` gives.
async fn value(client: &Client, sql: &str) -> String {
    let rows = client.simple_query(sql).await.unwrap();
    rows.iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        })
        .unwrap()
}

/// Clients that write through the pooler, one numbered row after the other.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
    workers: Vec<JoinHandle<(u32, Vec<String>)>>,
}

impl Load {
    async fn start(rig: &Rig) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let mut workers = Vec::new();
        for worker in 0..WORKERS {
            let client = rig.client().await;
            workers.push(tokio::spawn(write(worker, client, Arc::clone(&stop), Arc::clone(&acknowledged))));
        }
        let load = Self { stop, acknowledged, workers };
        load.goes_on().await;
        load
    }

    /// Waits for some more writes.
    async fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::SeqCst);
        eventually(AMPLE, async || self.acknowledged.load(Ordering::SeqCst) >= before + 200).await.unwrap();
    }

    /// The number of writes that were acknowledged, and the errors.
    async fn finish(self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut total = (0, Vec::new());
        for worker in self.workers {
            let (count, errors) = worker.await.unwrap();
            total.0 += count;
            total.1.extend(errors);
        }
        total
    }
}

async fn write(worker: usize, client: Client, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU32>) -> (u32, Vec<String>) {
    let (mut count, mut errors) = (0, Vec::new());
    while !stop.load(Ordering::SeqCst) && errors.is_empty() {
        // Every third write takes a transaction of several statements.
        let insert = format!("INSERT INTO hits VALUES ({worker}, {count})");
        let sql = if count % 3 == 0 { format!("BEGIN; {insert}; SELECT pg_sleep(0.002); COMMIT") } else { insert };
        match client.simple_query(&sql).await {
            Ok(_) => {
                count += 1;
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    (count, errors)
}

/// A server needs a moment to see that its clients are gone.
async fn nobody_is_at(rig: &Rig, side: Side) {
    eventually(AMPLE, async || sessions(rig, side).await == 0).await.unwrap();
}

/// Waits until the pooler is stopping, and waits itself for a client.
async fn pausing(adapter: &dyn Adapter, rig: &Rig) {
    eventually(AMPLE, async || look(adapter, &rig.endpoints()).await.detail.contains("pausing")).await.unwrap();
}

async fn hits(rig: &Rig, side: Side) -> u32 {
    value(&rig.at(side).await, "SELECT count(*) FROM hits").await.parse().unwrap()
}

/// Sessions of the pooler at `side`.
async fn sessions(rig: &Rig, side: Side) -> u32 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    value(&rig.at(side).await, sql).await.parse().unwrap()
}

#[tokio::test]
async fn c49_transaction_pooling_conforms() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        assert!(adapter.holds());
        conforms(adapter.as_ref(), &rig.endpoints()).await;
    }
}

#[tokio::test]
async fn c49_session_pooling_conforms() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Session).await;
        let adapter = rig.adapter();
        assert!(!adapter.holds());
        conforms(adapter.as_ref(), &rig.endpoints()).await;
        let problems = adapter.check(&rig.endpoints()).await;
        assert!(problems.iter().any(|problem| problem.message.contains("session pooling")), "{problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b23_b13_no_request_fails_and_none_reaches_the_old_server() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        let [source, target] = rig.endpoints();
        let load = Load::start(&rig).await;
        for (to, old) in [(&target, Side::Source), (&source, Side::Target), (&target, Side::Source)] {
            adapter.hold(soon()).await.unwrap();
            let (at_old, at_new) = (hits(&rig, old).await, hits(&rig, to.side).await);
            adapter.release(to, soon()).await.unwrap();
            nobody_is_at(&rig, old).await;
            load.goes_on().await;
            assert_eq!(hits(&rig, old).await, at_old, "nothing was written at the old server after the hold");
            assert!(hits(&rig, to.side).await > at_new);
        }
        let (acknowledged, errors) = load.finish().await;
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(hits(&rig, Side::Source).await + hits(&rig, Side::Target).await, acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b13_a_release_without_a_hold_leaves_nothing_at_the_old_server_either() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let load = Load::start(&rig).await;
        let busy = rig.client().await;
        busy.simple_query("BEGIN; INSERT INTO hits VALUES (-1, 1)").await.unwrap();
        let releasing = tokio::spawn({
            let (adapter, target) = (rig.adapter(), rig.endpoints()[1].clone());
            async move { adapter.release(&target, soon()).await }
        });
        pausing(rig.adapter().as_ref(), &rig).await;
        busy.simple_query("COMMIT").await.unwrap();
        releasing.await.unwrap().unwrap();
        let before = hits(&rig, Side::Source).await;
        nobody_is_at(&rig, Side::Source).await;
        load.goes_on().await;
        assert_eq!(hits(&rig, Side::Source).await, before);
        assert_eq!(load.finish().await.1, Vec::<String>::new());
    }
}

#[tokio::test]
async fn b13_in_session_pooling_clients_are_made_to_reconnect() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Session).await;
        let adapter = rig.adapter();
        let [source, target] = rig.endpoints();
        let client = rig.client().await;
        client.simple_query("INSERT INTO hits VALUES (1, 1)").await.unwrap();
        assert_eq!(sessions(&rig, Side::Source).await, 1);
        adapter.hold(soon()).await.unwrap();
        // An undone cutover does not cost anybody the connection.
        adapter.release(&source, soon()).await.unwrap();
        client.simple_query("INSERT INTO hits VALUES (1, 2)").await.unwrap();
        adapter.release(&target, soon()).await.unwrap();
        nobody_is_at(&rig, Side::Source).await;
        client.simple_query("INSERT INTO hits VALUES (1, 3)").await.unwrap_err();
        rig.client().await.simple_query("INSERT INTO hits VALUES (1, 3)").await.unwrap();
        assert_eq!((hits(&rig, Side::Source).await, hits(&rig, Side::Target).await), (2, 1));
    }
}

#[tokio::test]
async fn b10_a_hold_waits_for_transactions_under_way_and_nobody_fails() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter: Arc<dyn Adapter> = rig.adapter().into();
        let [busy, waiting] = [rig.client().await, rig.client().await];
        busy.simple_query("BEGIN; INSERT INTO hits VALUES (1, 1)").await.unwrap();
        let holding = tokio::spawn({
            let adapter = Arc::clone(&adapter);
            async move { adapter.hold(soon()).await }
        });
        pausing(adapter.as_ref(), &rig).await;
        let late = tokio::spawn(async move { waiting.simple_query("INSERT INTO hits VALUES (2, 1)").await });
        busy.simple_query("INSERT INTO hits VALUES (1, 2); COMMIT").await.unwrap();
        holding.await.unwrap().unwrap();
        adapter.release(&rig.endpoints()[1], soon()).await.unwrap();
        late.await.unwrap().unwrap();
        assert_eq!(hits(&rig, Side::Source).await + hits(&rig, Side::Target).await, 3);
    }
}

#[tokio::test]
async fn a_pause_that_does_not_come_back_is_given_up_and_clients_go_on() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        let [stuck, other] = [rig.client().await, rig.client().await];
        stuck.simple_query("BEGIN; INSERT INTO hits VALUES (1, 1)").await.unwrap();
        let begun = Instant::now();
        let error = adapter.hold(begun + Duration::from_millis(900)).await.unwrap_err();
        assert!(matches!(error, TrafficError::TimedOut { .. }), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(!look(adapter.as_ref(), &rig.endpoints()).await.held);
        other.simple_query("INSERT INTO hits VALUES (2, 1)").await.unwrap();
        stuck.simple_query("COMMIT").await.unwrap();
        adapter.hold(soon()).await.unwrap();
        adapter.release(&rig.endpoints()[0], soon()).await.unwrap();
        assert_eq!(hits(&rig, Side::Source).await, 2);
    }
}

#[tokio::test]
async fn a_release_does_not_wait_for_ever_for_a_client_at_the_old_server() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        let stuck = rig.client().await;
        stuck.simple_query("BEGIN; INSERT INTO hits VALUES (1, 1)").await.unwrap();
        adapter.release(&rig.endpoints()[1], Instant::now() + Duration::from_secs(3)).await.unwrap();
        nobody_is_at(&rig, Side::Source).await;
        stuck.simple_query("COMMIT").await.unwrap_err();
        rig.client().await.simple_query("INSERT INTO hits VALUES (1, 1)").await.unwrap();
        assert_eq!((hits(&rig, Side::Source).await, hits(&rig, Side::Target).await), (0, 1));
    }
}

#[tokio::test]
async fn a_reload_by_hand_leaves_no_old_session_after_a_release() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Session).await;
        let [_, target] = rig.endpoints();
        let client = rig.client().await;
        client.simple_query("SELECT 1").await.unwrap();
        let ini = fs::read_to_string(rig.config_file()).unwrap();
        let [from, to] = rig.endpoints().map(|endpoint| format!("port={} ", endpoint.url.port));
        fs::write(rig.config_file(), ini.replace(&from, &to)).unwrap();
        rig.bouncer.admin("RELOAD").await.unwrap();
        assert_eq!(sessions(&rig, Side::Source).await, 1, "the client stays at the old server");
        rig.adapter().release(&target, soon()).await.unwrap();
        nobody_is_at(&rig, Side::Source).await;
    }
}

#[tokio::test]
async fn what_is_held_is_observed_and_not_remembered() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        adapter.hold(soon()).await.unwrap();
        rig.restart().await;
        assert!(!look(adapter.as_ref(), &rig.endpoints()).await.held, "a restarted PgBouncer is not paused");
        adapter.hold(soon()).await.unwrap();
        assert!(look(adapter.as_ref(), &rig.endpoints()).await.held);
        // Another driver takes over.
        rig.adapter().release(&rig.endpoints()[1], soon()).await.unwrap();
        let now = look(adapter.as_ref(), &rig.endpoints()).await;
        assert_eq!((now.points_at, now.held), (Some(Side::Target), false));
        // And what was written outlives a restart.
        rig.restart().await;
        assert_eq!(look(adapter.as_ref(), &rig.endpoints()).await.points_at, Some(Side::Target));
    }
}

#[tokio::test]
async fn a_wrong_configuration_file_is_found_and_never_resumed_on() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.ini");
        fs::copy(rig.config_file(), &copy).unwrap();
        let wrong = adapter(rig.plan("admin", rig.bouncer.port(), copy), Path::new("/"));
        let [source, target] = rig.endpoints();
        let problems = wrong.check(&rig.endpoints()).await;
        let reads = format!("PgBouncer reads {}", rig.config_file().display());
        assert!(problems.iter().any(|problem| problem.severity == Severity::Error && problem.message.contains(&reads)), "{problems:?}");

        wrong.hold(soon()).await.unwrap();
        let error = wrong.release(&target, soon()).await.unwrap_err();
        assert!(matches!(error, TrafficError::NotApplied { .. }), "{error:?}");
        let now = look(wrong.as_ref(), &rig.endpoints()).await;
        assert_eq!((now.points_at, now.held), (Some(Side::Source), true), "clients are kept from the wrong side");
        wrong.release(&source, soon()).await.unwrap();
        assert!(!look(wrong.as_ref(), &rig.endpoints()).await.held);
    }
}

#[tokio::test]
async fn a_reload_that_fails_keeps_clients_waiting_until_it_is_mended() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        let good = fs::read_to_string(rig.config_file()).unwrap();
        // The reader stops here, before the entry.
        fs::write(rig.config_file(), good.replace("[databases]\n", "[databases]\nbroken = nonsense=1\n")).unwrap();
        let [_, target] = rig.endpoints();
        adapter.hold(soon()).await.unwrap();
        let error = adapter.release(&target, soon()).await.unwrap_err();
        assert!(matches!(error, TrafficError::NotApplied { .. } | TrafficError::Refused { .. }), "{error:?}");
        assert!(look(adapter.as_ref(), &rig.endpoints()).await.held);
        let mended = fs::read_to_string(rig.config_file()).unwrap().replace("nonsense=1", "host=x");
        fs::write(rig.config_file(), mended).unwrap();
        adapter.release(&target, soon()).await.unwrap();
        let now = look(adapter.as_ref(), &rig.endpoints()).await;
        assert_eq!((now.points_at, now.held), (Some(Side::Target), false));
    }
}

#[tokio::test]
async fn b12_the_file_keeps_everything_else_and_its_earlier_revision() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let before = fs::read_to_string(rig.config_file()).unwrap();
        let [from, to] = rig.endpoints().map(|endpoint| format!("port={} ", endpoint.url.port));
        rig.adapter().release(&rig.endpoints()[1], soon()).await.unwrap();
        assert_eq!(fs::read_to_string(rig.config_file()).unwrap(), before.replace(&from, &to));
        assert_eq!(fs::read_to_string(rig.config_file().with_file_name("pgbouncer.ini.cutover-1")).unwrap(), before);
        rig.adapter().release(&rig.endpoints()[0], soon()).await.unwrap();
        assert_eq!(fs::read_to_string(rig.config_file()).unwrap(), before);
    }
}

#[tokio::test]
async fn the_preflight_finds_missing_rights_and_entries() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let problems = adapter(rig.plan("stats", rig.bouncer.port(), rig.config_file()), Path::new("/")).check(&rig.endpoints()).await;
        assert!(problems.iter().any(|problem| problem.message.contains("may not PAUSE")), "{problems:?}");

        let ini = fs::read_to_string(rig.config_file()).unwrap();
        fs::write(rig.config_file(), ini.replace(&format!("{} =", rig.database), "* =")).unwrap();
        let problems = rig.adapter().check(&rig.endpoints()).await;
        assert!(problems.iter().any(|problem| problem.message.contains("only `*` covers it")), "{problems:?}");
        fs::write(rig.config_file(), ini.replace("host=127.0.0.1", "host=10.0.0.1")).unwrap();
        let problems = rig.adapter().check(&rig.endpoints()).await;
        assert!(problems.iter().any(|problem| problem.message.contains("and the running PgBouncer has")), "{problems:?}");
        fs::write(rig.config_file(), ini).unwrap();

        let problems = rig.adapter().check(&rig.endpoints()).await;
        let warned = problems.iter().any(|problem| problem.message.contains("prepared statements"));
        assert_eq!(warned, version.version < (1, 21), "{problems:?}");

        let mut elsewhere = rig.endpoints();
        elsewhere[0].url.port = 1;
        let problems = rig.adapter().check(&elsewhere).await;
        assert!(problems.iter().any(|problem| problem.message.contains("neither side")), "{problems:?}");
    }
}

#[tokio::test]
async fn a_name_of_the_same_address_is_the_same_server() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let named = rig.endpoints().map(|mut endpoint| {
            endpoint.url.host = "localhost".to_owned();
            endpoint
        });
        let before = fs::read_to_string(rig.config_file()).unwrap();
        let adapter = rig.adapter();
        assert_eq!(look(adapter.as_ref(), &named).await.points_at, Some(Side::Source));
        adapter.hold(soon()).await.unwrap();
        adapter.release(&named[0], soon()).await.unwrap();
        assert_eq!(fs::read_to_string(rig.config_file()).unwrap(), before, "nothing had to be written");
    }
}

#[tokio::test]
async fn a_pooler_paused_by_somebody_else_is_not_ours() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let adapter = rig.adapter();
        rig.bouncer.admin("PAUSE").await.unwrap();
        for result in [adapter.hold(soon()).await, adapter.release(&rig.endpoints()[1], soon()).await] {
            assert!(matches!(result, Err(TrafficError::PausedByOthers { .. })), "{result:?}");
        }
        rig.bouncer.admin("RESUME").await.unwrap();
        adapter.hold(soon()).await.unwrap();
        adapter.release(&rig.endpoints()[1], soon()).await.unwrap();
    }
}

#[tokio::test]
async fn a_console_that_hangs_runs_into_the_deadline_and_the_fleet_lets_go() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let proxy = Proxy::start(format!("127.0.0.1:{}", rig.bouncer.port())).await.unwrap();
        let hanging = || adapter(rig.plan("admin", proxy.port(), rig.config_file()), Path::new("/"));
        hanging().hold(soon()).await.unwrap();
        hanging().release(&rig.endpoints()[0], soon()).await.unwrap();
        proxy.stall().await.unwrap();
        let [source, target] = rig.endpoints();
        for release in [false, true] {
            let begun = Instant::now();
            let deadline = begun + Duration::from_millis(300);
            let result = if release { hanging().release(&target, deadline).await } else { hanging().hold(deadline).await };
            assert!(matches!(result, Err(TrafficError::TimedOut { .. })), "{result:?}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        let fleet = Fleet::new(vec![rig.adapter(), hanging()]);
        fleet.hold(&source, Instant::now() + Duration::from_millis(500)).await.unwrap_err();
        assert!(!look(rig.adapter().as_ref(), &rig.endpoints()).await.held, "the other one was let go");
    }
}

#[tokio::test]
async fn a_hold_that_can_neither_be_got_nor_undone_says_so() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let proxy = Proxy::start(format!("127.0.0.1:{}", rig.bouncer.port())).await.unwrap();
        let behind = adapter(rig.plan("admin", proxy.port(), rig.config_file()), Path::new("/"));
        let stuck = rig.client().await;
        stuck.simple_query("BEGIN; INSERT INTO hits VALUES (1, 1)").await.unwrap();
        let cut_off = async {
            pausing(rig.adapter().as_ref(), &rig).await;
            proxy.stall().await.unwrap();
        };
        let (result, ()) = tokio::join!(behind.hold(Instant::now() + Duration::from_secs(3)), cut_off);
        assert!(matches!(result, Err(TrafficError::StillHeld { .. })), "{result:?}");
        // What was left behind is cleared up as soon as the console can be reached again.
        proxy.restore().await.unwrap();
        behind.release(&rig.endpoints()[0], soon()).await.unwrap();
        rig.client().await.simple_query("INSERT INTO hits VALUES (2, 1)").await.unwrap();
        stuck.simple_query("COMMIT").await.unwrap();
        assert_eq!(hits(&rig, Side::Source).await, 2);
    }
}

#[tokio::test]
async fn a_hold_that_nobody_waits_for_any_more_is_cleared_up_by_a_release() {
    for version in versions() {
        let rig = Rig::new(&version, PoolMode::Transaction).await;
        let stuck = rig.client().await;
        stuck.simple_query("BEGIN; INSERT INTO hits VALUES (1, 1)").await.unwrap();
        let holding = tokio::spawn({
            let adapter = rig.adapter();
            async move { adapter.hold(soon()).await }
        });
        pausing(rig.adapter().as_ref(), &rig).await;
        holding.abort();
        assert!(holding.await.unwrap_err().is_cancelled());
        rig.adapter().release(&rig.endpoints()[0], soon()).await.unwrap();
        rig.client().await.simple_query("INSERT INTO hits VALUES (2, 1)").await.unwrap();
        stuck.simple_query("COMMIT").await.unwrap();
    }
}
