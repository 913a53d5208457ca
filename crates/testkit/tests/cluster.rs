//! Throwaway PostgreSQL servers: they start, crash, come back, and never outlive their owner.

#![cfg(test)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use cutover_testkit::{Auth, Cluster, ClusterOptions, Install, Stop, eventually, install};

const SOON: Duration = Duration::from_secs(30);

/// Makes this test binary a program that owns a server until it is killed.
const OWNER: &str = "CUTOVER_TESTKIT_OWNER";

fn debian() -> Install {
    install(15).unwrap()
}

async fn start(options: ClusterOptions) -> Cluster {
    Cluster::start(&debian(), options).await.unwrap()
}

async fn count(cluster: &Cluster, sql: &str) -> i64 {
    cluster.client("postgres").await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

#[tokio::test]
async fn a_crash_keeps_what_was_committed_and_loses_what_was_not() {
    let cluster = start(ClusterOptions::named("crash")).await;
    let client = cluster.client("postgres").await.unwrap();
    client.batch_execute("CREATE TABLE t(i int); INSERT INTO t VALUES (1)").await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let port = cluster.port();

    cluster.crash().await.unwrap();
    assert_eq!(cluster.pid(), None);
    assert!(!lives(u32::try_from(backend).unwrap()), "the backends die with the server");
    assert!(client.batch_execute("COMMIT").await.is_err());
    assert!(cluster.client("postgres").await.is_err());
    assert!(cluster.crash().await.unwrap_err().hint().is_some(), "a server that is down can't crash");

    cluster.start_again().await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(count(&cluster, "SELECT sum(i) FROM t").await, 1);
    assert!(cluster.log_tail().contains("ready to accept connections"), "{}", cluster.log_tail());
    assert!(cluster.start_again().await.is_err(), "it runs already");

    cluster.stop(Stop::Fast).await.unwrap();
    cluster.start_again().await.unwrap();
    cluster.stop(Stop::Immediate).await.unwrap();
    cluster.start_again().await.unwrap();
    assert_eq!(count(&cluster, "SELECT sum(i) FROM t").await, 1);
}

#[tokio::test]
async fn a_paused_server_says_nothing_and_then_goes_on() {
    let cluster = start(ClusterOptions::named("pause").not_durable()).await;
    let client = cluster.client("postgres").await.unwrap();
    cluster.pause().await.unwrap();
    let mut answer = Box::pin(client.simple_query("SELECT 1"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut answer).await.is_err(), "a paused server answered");
    cluster.unpause().unwrap();
    answer.await.unwrap();

    // Also while paused it goes when its owner lets it go.
    cluster.pause().await.unwrap();
    let pid = cluster.pid().unwrap();
    drop(cluster);
    assert!(!lives(pid));
}

#[tokio::test]
async fn drop_takes_the_server_and_its_folder_away_even_in_a_panic() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let task = tokio::spawn(async move {
        let cluster = start(ClusterOptions::named("drop").not_durable()).await;
        sender.send((cluster.pid().unwrap(), cluster.data())).unwrap();
        panic!("as a failing test would");
    });
    assert!(task.await.unwrap_err().is_panic());
    let (pid, data) = receiver.recv().unwrap();
    assert!(!lives(pid));
    assert!(!data.exists());
}

#[tokio::test]
async fn settings_and_passwords_are_as_asked() {
    let options = ClusterOptions {
        auth: Auth::Scram { password: "s3cr/t".to_owned() },
        initdb: vec!["--data-checksums".to_owned()],
        ..ClusterOptions::named("scram").set("max_connections", 33).set("application_name", "it's")
    };
    assert!(!format!("{options:?}").contains("s3cr"));
    let cluster = start(options).await;
    assert!(!format!("{cluster:?}").contains("s3cr"));
    let client = cluster.client("postgres").await.unwrap();
    for (setting, value) in [("max_connections", "33"), ("data_checksums", "on"), ("wal_level", "logical"), ("fsync", "on")] {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{setting}");
    }
    cluster.execute("postgres", "CREATE ROLE app LOGIN PASSWORD 'p'").await.unwrap();
    let connect = async |url: String| tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok();
    assert!(connect(cluster.url_with_password("app", "p", "postgres")).await);
    assert!(!connect(cluster.url_with_password("app", "wrong", "postgres")).await);
    assert!(!connect(cluster.url("app", "postgres")).await);
}

#[tokio::test]
async fn a_standby_follows_and_can_be_promoted() {
    let primary = start(ClusterOptions::named("primary").not_durable()).await;
    primary.create_database("odd \"name\"").await.unwrap();
    primary.execute("postgres", "CREATE TABLE t AS SELECT 1 AS i").await.unwrap();
    let standby = primary.basebackup_standby("standby").await.unwrap();
    assert_ne!(standby.port(), primary.port());
    primary.execute("postgres", "INSERT INTO t VALUES (2)").await.unwrap();
    eventually(SOON, || async { count(&standby, "SELECT count(*) FROM t").await == 2 }).await.unwrap();
    assert!(standby.execute("postgres", "INSERT INTO t VALUES (3)").await.is_err());
    standby.promote().await.unwrap();
    standby.execute("postgres", "INSERT INTO t VALUES (3)").await.unwrap();
    let identity = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(count(&primary, identity).await, count(&standby, identity).await);
}

#[tokio::test]
async fn the_watchdog_ends_a_server_whose_owner_was_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_of_a_server", "--nocapture", "--ignored"])
        .env(OWNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find_map(|line| line.split_once("server ").map(|(_, rest)| rest.to_owned())).unwrap();
    let (pid, data) = line.split_once(' ').unwrap();
    let (pid, data): (u32, &Path) = (pid.parse().unwrap(), Path::new(data));
    assert!(lives(pid) && data.exists());

    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually(SOON, || async { !lives(pid) }).await.unwrap();
    eventually(SOON, || async { !data.parent().unwrap().exists() }).await.unwrap();
}

/// Not a test of its own: see above.
#[tokio::test]
#[ignore = "run by the_watchdog_ends_a_server_whose_owner_was_killed"]
async fn owner_of_a_server() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let cluster = start(ClusterOptions::named("owned").not_durable()).await;
    println!("\nserver {} {}", cluster.pid().unwrap(), cluster.data().display());
    std::io::stdout().flush().unwrap();
    // Until the end of standard input, which only comes with the end of this process.
    let _ = std::io::stdin().read_line(&mut String::new());
}
