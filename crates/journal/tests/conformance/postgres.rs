//! What the server adds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover_journal::{AppendError, DriveError, Hash, Journal, JournalError, Position, open_postgres};
use cutover_testkit::{Cluster, ClusterOptions, eventually, installs};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::backend::{Backend, draft};
use crate::commit_proxy::{CommitProxy, Fate};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_commit_whose_answer_is_lost_is_unknown_and_is_read_as_it_ended() {
    let (cluster, database) = fresh().await;
    let proxy = CommitProxy::start(cluster.port()).await;
    let journal = open_postgres(&through(&proxy, &database), None, "shop").await.unwrap();
    let mut at = Position::ORIGIN;
    for (fate, landed) in [(Fate::Lost, false), (Fate::Unanswered, true), (Fate::Unanswered, true), (Fate::Lost, false)] {
        proxy.next(fate);
        let wrote = draft(1, at.seq);
        let unknown = journal.append_if(at, vec![wrote.clone()]).await;
        assert!(matches!(unknown, Err(AppendError::Unknown { .. })), "{unknown:?}");
        let entries = journal.load().await.unwrap();
        assert_eq!(entries.last().is_some_and(|last| last.seq == at.seq + 1 && last.is_from(&wrote)), landed, "{fate:?}");
        at = entries.last().map_or(at, cutover_journal::Entry::position);
    }
    assert_eq!(journal.snapshot().await.unwrap().verify().unwrap().count, 2);
    journal.append_if(at, vec![draft(1, 3)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_reading_waits_for_a_commit_that_may_still_land() {
    let (cluster, database) = fresh().await;
    let proxy = CommitProxy::start(cluster.port()).await;
    let journal = Arc::new(open_postgres(&through(&proxy, &database), None, "shop").await.unwrap());
    // The first entry is the hardest: there is no head row to lock yet.
    for seq in 0..2 {
        proxy.next(Fate::Late);
        let at = Position { seq, epoch: seq.min(1) };
        let wrote = draft(1, seq);
        let unknown = journal.append_if(at, vec![wrote.clone()]).await;
        assert!(matches!(unknown, Err(AppendError::Unknown { .. })), "{unknown:?}");
        let reader = Arc::clone(&journal);
        let reading = tokio::spawn(async move { reader.load().await });
        somebody_waits_for_a_lock(cluster, &database).await;
        assert!(!reading.is_finished());
        proxy.release();
        let entries = tokio::time::timeout(SOON, reading).await.unwrap().unwrap().unwrap();
        assert!(entries.last().unwrap().is_from(&wrote));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_new_driver_reads_only_when_the_old_ones_last_commit_has_ended() {
    let (cluster, database) = fresh().await;
    let proxy = CommitProxy::start(cluster.port()).await;
    let old = open_postgres(&through(&proxy, &database), None, "shop").await.unwrap();
    let at = old.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap()[0].position();
    proxy.next(Fate::Late);
    old.append_if(at, vec![draft(1, 2)]).await.unwrap_err();

    let new = Arc::new(open_postgres(&cluster.url("postgres", &database), None, "shop").await.unwrap());
    assert_eq!(new.load().await.unwrap().len(), 1, "one who only looks needs not wait");
    let _hold = new.drive("anna@here").await.unwrap();
    let reader = Arc::clone(&new);
    let reading = tokio::spawn(async move { reader.load().await });
    somebody_waits_for_a_lock(cluster, &database).await;
    proxy.release();
    assert_eq!(reading.await.unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn a_lost_session_is_made_anew() {
    let (cluster, database) = fresh().await;
    let journal = Arc::new(open_postgres(&cluster.url("postgres", &database), None, "shop").await.unwrap());
    let mut at = Position::ORIGIN;
    for n in 0..5 {
        end_sessions(cluster, &database, "cutover journal").await;
        at = journal.append_if(at, vec![draft(1, n)]).await.unwrap()[0].position();
        end_sessions(cluster, &database, "cutover journal").await;
        assert_eq!(journal.load().await.unwrap().len() as u64, n + 1);
    }
    let other = open(cluster, &database).await;
    end_sessions(cluster, &database, "cutover journal").await;
    let appended = other.append_if(at, vec![draft(1, 5)]).await.unwrap();
    assert_eq!(journal.tail(5, SOON).await.unwrap(), appended);
}

#[tokio::test]
async fn i9_a_driver_whose_session_ended_learns_it_and_others_may_drive() {
    let (cluster, database) = fresh().await;
    let (one, other) = (open(cluster, &database).await, open(cluster, &database).await);
    let hold = one.drive("anna@here").await.unwrap();
    assert!(hold.is_held().await);
    end_sessions(cluster, &database, "cutover drive shop").await;
    let next = eventually(SOON, || async { other.drive("carl@there").await.ok() }).await.unwrap();
    assert!(!hold.is_held().await);
    drop(hold);
    assert!(next.is_held().await);
    // A lock without a name, as of a driver that has just locked.
    cluster.execute(&database, "DELETE FROM cutover_journal.driver").await.unwrap();
    let Err(DriveError::Held { by, .. }) = one.drive("anna@here").await else { panic!("two drive") };
    assert!(by.starts_with("a session that gave no name (backend "), "{by}");
}

#[tokio::test]
async fn a_role_that_may_create_is_enough_and_one_that_was_let_in_too() {
    let (cluster, database) = fresh().await;
    let roles = format!(
        "CREATE ROLE owner_{database} LOGIN; CREATE ROLE guest_{database} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC;
         GRANT CREATE ON DATABASE {database} TO owner_{database};"
    );
    cluster.execute(&database, &roles).await.unwrap();
    let owner = open_postgres(&cluster.url(&format!("owner_{database}"), &database), None, "shop").await.unwrap();
    let at = owner.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap()[0].position();
    let _hold = owner.drive("anna@here").await.unwrap();

    let guest_url = cluster.url(&format!("guest_{database}"), &database);
    let error = open_postgres(&guest_url, None, "shop").await.unwrap_err();
    assert!(matches!(error, JournalError::Postgres { .. }), "{error:?}");
    let grants = format!(
        "GRANT USAGE ON SCHEMA cutover_journal TO guest_{database};
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA cutover_journal TO guest_{database};"
    );
    cluster.execute(&database, &grants).await.unwrap();
    let guest = open_postgres(&guest_url, None, "shop").await.unwrap();
    guest.append_if(at, vec![draft(1, 2)]).await.unwrap();
    assert_eq!(owner.snapshot().await.unwrap().verify().unwrap().count, 2);
    let Err(DriveError::Held { by, .. }) = guest.drive("gast@there").await else { panic!("two drive") };
    assert!(by.starts_with("anna@here"), "{by}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_created_once_by_many() {
    let (cluster, database) = fresh().await;
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let url = cluster.url("postgres", &database);
        opening.spawn(async move { open_postgres(&url, None, "shop").await.map(drop) });
    }
    for opened in opening.join_all().await {
        opened.unwrap();
    }
}

#[tokio::test]
async fn another_format_is_refused() {
    let (cluster, database) = fresh().await;
    open(cluster, &database).await;
    cluster.execute(&database, "UPDATE cutover_journal.format SET version = 3").await.unwrap();
    let error = open_postgres(&cluster.url("postgres", &database), None, "shop").await.unwrap_err();
    assert!(matches!(error, JournalError::Format { found: 3, known: 2, .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("/{database} has format 3")), "{error}");
}

#[tokio::test]
async fn a_row_outlives_a_crash_of_the_server() {
    let install = installs().into_iter().next().expect("no PostgreSQL is installed");
    let cluster = Cluster::start(&install, ClusterOptions::named("crash")).await.unwrap();
    let journal = open(&cluster, "postgres").await;
    journal.write_row("a", 1, 1_000, &json!({"epoch": 4})).await.unwrap();
    cluster.crash().await.unwrap();
    cluster.start_again().await.unwrap();
    let rows = eventually(SOON, || async { journal.rows().await.ok() }).await.unwrap();
    assert_eq!((rows.len(), rows[0].beat), (1, 1), "none would mean that nobody has a lease");
}

#[tokio::test]
async fn a_role_that_may_not_delete_writes_its_row_beside_old_ones() {
    let (cluster, database) = fresh().await;
    let owner = open(cluster, &database).await;
    owner.write_row("old", 1, 1_000, &json!({})).await.unwrap();
    let grants = format!(
        "UPDATE cutover_journal.server SET written_at_ms = 0; CREATE ROLE server_{database} LOGIN;
         GRANT USAGE ON SCHEMA cutover_journal TO server_{database};
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA cutover_journal TO server_{database};"
    );
    cluster.execute(&database, &grants).await.unwrap();
    let server = open_postgres(&cluster.url(&format!("server_{database}"), &database), None, "shop").await.unwrap();
    server.write_row("new", 1, 1_000, &json!({})).await.unwrap();
    assert_eq!(server.rows().await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_appender_that_hangs_is_waited_for_but_not_for_ever() {
    let (cluster, database) = fresh().await;
    let journal = open(cluster, &database).await;
    let at = journal.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap()[0].position();
    let other = cluster.client(&database).await.unwrap();
    other.batch_execute("BEGIN; SELECT FROM cutover_journal.head FOR UPDATE").await.unwrap();
    let began = Instant::now();
    let failed = journal.append_if(at, vec![draft(1, 2)]).await;
    assert!(matches!(failed, Err(AppendError::Failed { .. })), "{failed:?}");
    assert!((4..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    other.batch_execute("ROLLBACK").await.unwrap();
    journal.append_if(at, vec![draft(1, 2)]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgresql://anna:sesame@127.0.0.1:{}/x?sslmode=disable", listener.local_addr().unwrap().port());
    let began = Instant::now();
    let error = open_postgres(&url, None, "shop").await.unwrap_err();
    assert!(matches!(error, JournalError::TimedOut { .. }), "{error:?}");
    assert!((9..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(!format!("{error} {error:?}").contains("sesame"));
}

#[tokio::test]
async fn i4_a_standby_or_read_only_server_is_no_journal() {
    let (cluster, database) = fresh().await;
    cluster.execute(&database, &format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).await.unwrap();
    let error = open_postgres(&cluster.url("postgres", &database), None, "shop").await.unwrap_err();
    assert!(matches!(error, JournalError::Postgres { .. }), "{error:?}");
}

#[tokio::test]
async fn a_reused_schema_keeps_other_settings_out() {
    let (cluster, database) = fresh().await;
    let settings = format!(
        "ALTER DATABASE {database} SET default_transaction_isolation = 'serializable';
         ALTER DATABASE {database} SET bytea_output = 'escape';
         ALTER DATABASE {database} SET search_path = '';
         ALTER DATABASE {database} SET synchronous_commit = off;"
    );
    cluster.execute(&database, &settings).await.unwrap();
    let (one, other) = (open(cluster, &database).await, open(cluster, &database).await);
    let at = one.append_if(Position::ORIGIN, vec![draft(1, 1)]).await.unwrap()[0].position();
    let at = other.append_if(at, vec![draft(1, 2)]).await.unwrap()[0].position();
    one.append_if(at, vec![draft(1, 3)]).await.unwrap();
    let verified = other.snapshot().await.unwrap().verify().unwrap();
    assert_eq!(verified.count, 3);
    assert_ne!(verified.head, Hash::ORIGIN);
}

async fn fresh() -> (&'static Cluster, String) {
    let Backend::Postgres { cluster, database } = Backend::postgres().await else { unreachable!() };
    (cluster, database)
}

async fn open(cluster: &Cluster, database: &str) -> impl Journal {
    open_postgres(&cluster.url("postgres", database), None, "shop").await.unwrap()
}

fn through(proxy: &CommitProxy, database: &str) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/{database}?sslmode=disable", proxy.port())
}

async fn somebody_waits_for_a_lock(cluster: &Cluster, database: &str) {
    let client = cluster.client(database).await.unwrap();
    let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(SOON, || async { !client.query(sql, &[]).await.unwrap().is_empty() }).await.unwrap();
}

async fn end_sessions(cluster: &Cluster, database: &str, application: &str) {
    let client = cluster.client(database).await.unwrap();
    let sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1";
    let ended: Vec<i32> = client.query(sessions, &[&application]).await.unwrap().iter().map(|row| row.get(0)).collect();
    client.query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", &[&ended]).await.unwrap();
    assert!(!ended.is_empty(), "there is no session of {application}");
    let left = "SELECT FROM pg_stat_activity WHERE pid = ANY ($1)";
    eventually(SOON, || async { client.query(left, &[&ended]).await.unwrap().is_empty() }).await.unwrap();
}
