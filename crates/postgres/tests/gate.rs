//! The gate, on real servers: each fact that the fence rests on, by a test that would catch its opposite.

#![cfg(test)]

use std::time::Duration;

use cutover_core::{Side, plan::DatabaseUrl};
use cutover_postgres::{
    PgError,
    connect::{Purpose, connect},
    gate,
};
use cutover_testkit::{Cluster, ClusterOptions, install};
use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

struct Fenced {
    cluster: Cluster,
    driver: Client,
}

const DATABASE: &str = "orders";

impl Fenced {
    /// An armed source, and a driver.
    async fn new(name: &str) -> Self {
        let options = ClusterOptions::named(name).set("max_prepared_transactions", 5);
        let cluster = Cluster::start(&install(15).unwrap(), options).await.unwrap();
        cluster.create_database(DATABASE).await.unwrap();
        cluster
            .execute(
                DATABASE,
                "CREATE ROLE app LOGIN; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); \
                 CREATE TABLE p (id int, at int) PARTITION BY RANGE (at); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
                 GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT CREATE ON SCHEMA public TO app",
            )
            .await
            .unwrap();
        let mut driver = Self::connect(&cluster).await;
        gate::install(&mut driver, "orders", Side::Source, 1).await.unwrap();
        gate::let_pass(&driver, "driver").await.unwrap();
        assert_eq!(gate::arm(&mut driver, 1, soon(5000)).await.unwrap(), 3);
        Self { cluster, driver }
    }

    async fn connect(cluster: &Cluster) -> Client {
        let url = DatabaseUrl::parse(&cluster.url("postgres", DATABASE)).unwrap();
        connect(&url, &Purpose::new("cutover/orders/driver")).await.unwrap()
    }

    /// A session of the application's.
    async fn app(&self) -> Client {
        let url = DatabaseUrl::parse(&self.cluster.url("app", DATABASE)).unwrap();
        let client = connect(&url, &Purpose::new("app")).await.unwrap();
        client.batch_execute("SET search_path = public").await.unwrap();
        client
    }

    async fn execute(&self, sql: &str) {
        self.cluster.execute(DATABASE, sql).await.unwrap();
    }

    async fn close(&mut self, epoch: u64) {
        gate::close(&mut self.driver, epoch, soon(3000)).await.unwrap();
    }
}

fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Asserts that a statement is refused by the gate, with the code that drivers know for a read-only database.
async fn refused(client: &Client, sql: &str) {
    match client.batch_execute(sql).await {
        Ok(()) => panic!("let through: {sql}"),
        Err(error) => assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{sql}: {error:?}"),
    }
}

/// A1, B15: the database itself refuses every kind of write; reads go on.
#[tokio::test]
async fn b15_a_closed_gate_refuses_every_write_and_lets_reads_through() {
    let mut fenced = Fenced::new("kinds").await;
    let app = fenced.app().await;
    app.batch_execute("INSERT INTO t VALUES (2, 'b'); UPDATE t SET v = 'c'; DELETE FROM t WHERE id = 2").await.unwrap();
    fenced.close(1).await;
    for sql in [
        "INSERT INTO t VALUES (3, 'x')",
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'x'",
        "UPDATE t SET v = 'x'",
        "UPDATE t SET v = 'x' WHERE false",
        "DELETE FROM t",
        "TRUNCATE t",
        "WITH w AS (INSERT INTO t VALUES (9, 'x') RETURNING id) SELECT * FROM w",
        "INSERT INTO p VALUES (1, 1)",
        "INSERT INTO p1 VALUES (1, 1)",
        "MERGE INTO t USING (VALUES (7)) s(id) ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'm')",
        "CREATE TABLE sneaky (id int)",
    ] {
        refused(&app, sql).await;
    }
    let row = app.query_one("SELECT v FROM t WHERE id = 1", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "c");
    gate::open(&mut fenced.driver, 2).await.unwrap();
    app.batch_execute("INSERT INTO t VALUES (3, 'x')").await.unwrap();
}

/// A session that switched read-only off, or raised its own isolation, is fenced all the same.
#[tokio::test]
async fn a_session_with_read_only_switched_off_is_fenced() {
    let mut fenced = Fenced::new("optout").await;
    let app = fenced.app().await;
    app.batch_execute("SET default_transaction_read_only = off; BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; SELECT * FROM t")
        .await
        .unwrap();
    fenced.close(1).await;
    refused(&app, "UPDATE t SET v = 'x'").await;
}

/// A sequence is not MVCC: a transaction with a snapshot from before sees the gate closed. A flag in a table leaks here.
#[tokio::test]
async fn an_old_snapshot_does_not_leak_through_the_gate() {
    let mut fenced = Fenced::new("snapshots").await;
    let app = fenced.app().await;
    app.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").await.unwrap();
    fenced.close(1).await;
    refused(&app, "INSERT INTO t VALUES (5, 'late')").await;
}

/// vitess#9453: a transaction that wrote is waited for, and what it commits is before the fence.
#[tokio::test]
async fn vitess_9453_open_transactions_are_not_lost() {
    let mut fenced = Fenced::new("writers").await;
    let app = fenced.app().await;
    app.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'under way')").await.unwrap();
    // Busy, not idle: it must be waited for, not ended.
    let writer = tokio::spawn(async move { app.batch_execute("SELECT pg_sleep(0.4); COMMIT").await });
    fenced.close(1).await;
    writer.await.unwrap().unwrap();
    let count: i64 = fenced.driver.query_one("SELECT count(*) FROM public.t WHERE id = 2", &[]).await.unwrap().get(0);
    assert_eq!(count, 1, "it was acknowledged, so it is there, and the gate was closed after it");
}

#[tokio::test]
async fn a_writer_longer_than_the_budget_is_named_and_the_gate_stays_open() {
    let mut fenced = Fenced::new("slow").await;
    let (app, other) = (fenced.app().await, fenced.app().await);
    app.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'slow')").await.unwrap();
    let writer = tokio::spawn(async move { app.batch_execute("SELECT pg_sleep(2); COMMIT").await });
    let error = gate::close(&mut fenced.driver, 1, soon(600)).await.unwrap_err();
    assert!(matches!(&error, PgError::TimedOut { doing, .. } if doing.contains("(app, app")), "{error}");
    assert!(gate::state(&Fenced::connect(&fenced.cluster).await).await.unwrap().open);
    other.batch_execute("INSERT INTO t VALUES (3, 'goes on')").await.unwrap();
    writer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_writer_that_idles_in_its_transaction_is_ended() {
    let mut fenced = Fenced::new("idle").await;
    let app = fenced.app().await;
    app.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'forgotten')").await.unwrap();
    fenced.close(1).await;
    assert!(app.batch_execute("COMMIT").await.is_err(), "nothing was acknowledged, so nothing is lost");
}

#[tokio::test]
async fn a_prepared_transaction_keeps_the_gate_from_closing() {
    let mut fenced = Fenced::new("prepared").await;
    let app = fenced.app().await;
    app.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'later'); PREPARE TRANSACTION 'xa-1'").await.unwrap();
    let error = gate::close(&mut fenced.driver, 1, soon(1000)).await.unwrap_err();
    assert!(matches!(&error, PgError::Refused { what, .. } if what.contains("xa-1")), "{error}");
    app.batch_execute("COMMIT PREPARED 'xa-1'").await.unwrap();
    fenced.close(1).await;
}

/// Invariants 3 and 9: a driver that lost the cutover can neither move the gate nor do anything behind its guard.
#[tokio::test]
async fn a_driver_with_an_older_epoch_is_kept_out_by_the_database() {
    let mut fenced = Fenced::new("epochs").await;
    let mut zombie = Fenced::connect(&fenced.cluster).await;
    fenced.close(5).await;
    assert!(matches!(gate::open(&mut zombie, 4).await, Err(PgError::Superseded(_))));
    assert!(matches!(gate::guarded(&mut zombie, 4).await.map(drop), Err(PgError::Superseded(_))));
    assert!(matches!(gate::flush(&mut zombie, 4).await, Err(PgError::Superseded(_))));
    gate::flush(&mut fenced.driver, 7).await.unwrap();
    let noted = gate::GateState { epoch: 7, open: false };
    assert_eq!(gate::state(&fenced.driver).await.unwrap(), noted, "a newer epoch is noted, closed stays closed");
    assert!(matches!(gate::open(&mut zombie, 6).await, Err(PgError::Superseded(_))));
}

/// The fence is there after a crash, because it was committed synchronously.
#[tokio::test]
async fn a_closed_gate_survives_a_crash_of_the_server() {
    let mut fenced = Fenced::new("crash").await;
    fenced.close(3).await;
    fenced.cluster.crash().await.unwrap();
    fenced.cluster.start_again().await.unwrap();
    let driver = Fenced::connect(&fenced.cluster).await;
    assert_eq!(gate::state(&driver).await.unwrap(), gate::GateState { epoch: 3, open: false });
    refused(&fenced.app().await, "INSERT INTO t VALUES (4, 'x')").await;
}

/// A table or partition made after arming gets a gate at once where event triggers may be made.
#[tokio::test]
async fn a_partition_made_while_armed_is_fenced() {
    let mut fenced = Fenced::new("partitions").await;
    let app = fenced.app().await;
    fenced.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); GRANT ALL ON p2 TO app").await;
    app.batch_execute("INSERT INTO p2 VALUES (1, 11)").await.unwrap();
    assert!(gate::unarmed(&fenced.driver).await.unwrap().is_empty());
    fenced.close(1).await;
    refused(&app, "INSERT INTO p2 VALUES (2, 12)").await;
}

/// Where they may not be made, the catalogue tells.
#[tokio::test]
async fn a_table_without_a_gate_is_found_in_the_catalogue() {
    let mut fenced = Fenced::new("catalogue").await;
    fenced
        .execute("DROP EVENT TRIGGER cutover_arm_new_table; CREATE TABLE late (id int); ALTER TABLE t DISABLE TRIGGER cutover_gate")
        .await;
    assert_eq!(gate::unarmed(&fenced.driver).await.unwrap(), ["public.late", "public.t"]);
    assert_eq!(gate::arm(&mut fenced.driver, 1, soon(5000)).await.unwrap(), 4, "arming mends both");
}

#[tokio::test]
async fn arming_waits_its_turn_behind_a_long_writer() {
    let mut fenced = Fenced::new("queue").await;
    gate::disarm(&mut fenced.driver, 1, soon(5000)).await.unwrap();
    let (writer, other) = (fenced.app().await, fenced.app().await);
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (8, 'long')").await.unwrap();
    let error = gate::arm(&mut fenced.driver, 1, soon(700)).await.unwrap_err();
    assert!(matches!(&error, PgError::TimedOut { doing, .. } if doing.contains("public.t")), "{error}");
    other.batch_execute("INSERT INTO t VALUES (9, 'not held up')").await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(gate::arm(&mut fenced.driver, 1, soon(5000)).await.unwrap(), 3);
}

/// B6: before the switch the application's role can't connect; afterwards it can, as before.
#[tokio::test]
async fn b6_an_isolated_database_takes_no_clients_until_they_are_admitted() {
    let mut fenced = Fenced::new("isolated").await;
    let url = DatabaseUrl::parse(&fenced.cluster.url("app", DATABASE)).unwrap();
    assert!(gate::isolate(&mut fenced.driver, 1, &["postgres"]).await.unwrap());
    assert!(gate::isolate(&mut fenced.driver, 1, &["postgres"]).await.unwrap(), "twice is once");
    let error = connect(&url, &Purpose::new("app")).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
    gate::admit(&mut fenced.driver, 1).await.unwrap();
    gate::admit(&mut fenced.driver, 1).await.unwrap();
    connect(&url, &Purpose::new("app")).await.unwrap();
}

#[tokio::test]
async fn another_plan_s_gate_is_not_taken_over() {
    let mut fenced = Fenced::new("stranger").await;
    let error = gate::install(&mut fenced.driver, "another", Side::Source, 1).await.unwrap_err();
    assert!(error.to_string().contains("`orders`"), "{error}");
    gate::install(&mut fenced.driver, "orders", Side::Source, 2).await.unwrap();
    gate::disarm(&mut fenced.driver, 2, soon(5000)).await.unwrap();
    gate::remove(&mut fenced.driver, "orders", 2).await.unwrap();
    assert!(gate::owner(&fenced.driver).await.unwrap().is_none());
    fenced.app().await.batch_execute("INSERT INTO t VALUES (2, 'free')").await.unwrap();
}

/// B7: a migration hook's role may pass for a while, and nobody else.
#[tokio::test]
async fn b7_a_role_with_a_pass_may_migrate_behind_a_closed_gate() {
    let mut fenced = Fenced::new("migrate").await;
    fenced.close(1).await;
    let app = fenced.app().await;
    refused(&app, "CREATE TABLE n (id int)").await;
    gate::let_role_pass(&mut fenced.driver, 1, "app", "migrate", Some(Duration::from_secs(60))).await.unwrap();
    app.batch_execute("CREATE TABLE n (id int); INSERT INTO t VALUES (2, 'migrated')").await.unwrap();
    gate::let_role_pass(&mut fenced.driver, 1, "app", "migrate", None).await.unwrap();
    refused(&app, "INSERT INTO t VALUES (3, 'x')").await;
}
