//! Bugs that others had at this, each by its name.

use std::time::Duration;

use cutover_testkit::{
    bank::{Load, LoadOptions, check_history},
    eventually,
};
use tokio_postgres::NoTls;

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(60);

/// vitess#16563: the position that the new side waits for was read before writes had stopped.
#[tokio::test]
async fn vitess_16563_the_position_is_read_behind_the_last_commit() {
    let world = World::of(15, 15, "[pause]\nbudget = \"20s\"").await;
    world.ready().await;
    let writer = world.source.client(DATABASE).await.unwrap();
    writer.batch_execute("SET synchronous_commit = off").await.unwrap();
    // Through the arming first: it waits for transactions that began before it.
    let stopped = world.cutover_stopped(&["run"], "armed").await;
    writer.batch_execute("BEGIN; INSERT INTO bank.events (client, op, kind) VALUES (0, 0, 'the last one')").await.unwrap();
    let resumed = tokio::spawn(stopped.resume());
    // The gate waits for us now; nobody passes it.
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually(SOON, || async { world.ask(&world.source, waiting).await != "0" }).await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    let committed: String = writer.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
    resumed.await.unwrap().code(0);

    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    let fenced = audit["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "fenced").unwrap().clone();
    let fence = fenced["body"]["fence"]["lsn"].as_str().unwrap();
    assert_eq!(world.ask(&world.source, &format!("SELECT '{fence}'::pg_lsn >= '{committed}'::pg_lsn")).await, "true");
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM bank.events WHERE kind = 'the last one'").await, "1");
}

/// vitess#6951: traffic was switched without waiting for the new side to catch up.
#[tokio::test]
async fn vitess_6951_no_switch_while_the_other_side_is_behind() {
    let world = World::of(15, 15, "[pause]\nbudget = \"1s\"\nattempts = 2").await;
    world.ready().await;
    let load = world.load(4).await;
    let holder = world.target.client(DATABASE).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE bank.accounts, bank.events IN EXCLUSIVE MODE").await.unwrap();
    load.wait_acknowledged(50, SOON).await.unwrap();
    world.cutover(&["run"]).await.code(5).says("undone");
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    world.write_plan("");
    world.cutover(&["run"]).await.code(0);
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

/// vitess#9400: the reverse stream was there, and did not work when it was needed.
#[tokio::test]
async fn vitess_9400_the_reverse_stream_flows_before_the_first_new_write() {
    let world = World::of(15, 15, "[pause]\nbudget = \"30s\"").await;
    world.ready().await;
    let stopped = world.cutover_stopped(&["run"], "drained").await;
    // Not yet committed, no client has written at the target; and the way back is read and applied.
    assert_eq!(world.ask(&world.target, "SELECT active FROM pg_replication_slots WHERE slot_name LIKE 'cutover%'").await, "true");
    let running = "SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL";
    assert_eq!(world.ask(&world.source, running).await, "1");
    let not_ready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
    assert_eq!(world.ask(&world.source, not_ready).await, "0");
    stopped.resume().await.code(0);
    let client = world.target.client(DATABASE).await.unwrap();
    for table in [
        "bank.events (client, op, kind) VALUES (0, 0, 'new')",
        "bank.ledger (region, client, op, account_id, amount) VALUES (15, 0, 0, 1, 1)",
    ] {
        client.batch_execute(&format!("INSERT INTO {table}")).await.unwrap();
    }
    let arrived = "SELECT (SELECT count(*) FROM bank.events WHERE kind = 'new') + (SELECT count(*) FROM bank.ledger_east WHERE client = 0 AND amount = 1)";
    eventually(SOON, || async { world.ask(&world.source, arrived).await == "2" }).await.unwrap();
    world.cutover(&["verify"]).await.code(0);
}

/// vitess#17326: a reverse that failed half-way left the tables denied at both sides.
#[tokio::test]
async fn vitess_17326_a_way_back_that_fails_half_way_leaves_the_new_side_open() {
    let world = World::of(15, 15, "[pause]\nbudget = \"3s\"\nattempts = 1").await;
    world.ready().await;
    world.cutover(&["run"]).await.code(0);
    let load = world.load(4).await;
    let stopped = world.cutover_stopped(&["rollback", "--reason", "too early"], "armed").await;
    let holder = world.source.client(DATABASE).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE cutover.marker IN ACCESS EXCLUSIVE MODE").await.unwrap();
    stopped.resume().await.code(5).says("undone");
    assert_eq!(world.authority().await, "target");
    load.wait_acknowledged(100, SOON).await.unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    world.write_plan("");
    world.cutover(&["rollback", "--reason", "now it can"]).await.code(0);
    assert_eq!(world.authority().await, "source");
    load.wait_acknowledged(50, SOON).await.unwrap();
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
}

/// `pg_easy_replicate`: the old primary took writes after the switch. And its #164: only one role was kept out.
#[tokio::test]
async fn pg_easy_replicate_164_the_old_side_refuses_every_role_and_every_way_of_asking() {
    let world = World::new().await;
    let admin = world.source.client(DATABASE).await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA bank TO clerk; GRANT ALL ON ALL TABLES IN SCHEMA bank TO clerk; \
             CREATE FUNCTION public.sneak() RETURNS void LANGUAGE sql SECURITY DEFINER AS \
                 'INSERT INTO bank.events (client, op, kind) VALUES (0, 0, ''definer'')'",
        )
        .await
        .unwrap();
    world.target.execute(DATABASE, "CREATE ROLE clerk LOGIN").await.unwrap();
    world.ready().await;
    // Sessions from before the switch are fenced as well as new ones.
    let mut sessions = Vec::new();
    for role in ["app", "clerk", "postgres"] {
        sessions.push((role, connect(&world, role).await));
    }
    world.cutover(&["run"]).await.code(0);
    for role in ["app", "clerk", "postgres"] {
        sessions.push((role, connect(&world, role).await));
    }
    let ways = [
        "INSERT INTO bank.events (client, op, kind) VALUES (0, 0, 'k')",
        "UPDATE bank.accounts SET balance = 0",
        "DELETE FROM bank.ledger_east",
        "UPDATE bank.ledger SET amount = 1 WHERE false",
        "SET default_transaction_read_only = off; DELETE FROM bank.orders",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; DELETE FROM bank.orders; COMMIT",
        "SELECT public.sneak()",
        "COPY bank.events (client, op, kind) FROM PROGRAM 'echo'",
    ];
    for (role, session) in &sessions {
        for way in ways {
            let refused = session.batch_execute(way).await.expect_err(way);
            let refused = refused.as_db_error().unwrap().clone();
            let privilege = *refused.code() == tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE && *role != "postgres";
            assert!(refused.message().contains("fenced") || privilege, "{role}: {way}: {refused:?}");
            session.batch_execute("ROLLBACK").await.unwrap();
        }
        assert!(session.query("SELECT * FROM bank.accounts LIMIT 1", &[]).await.is_ok(), "B15: {role} reads");
    }
}

async fn connect(world: &World, role: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&world.source.url(role, DATABASE), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// spirit#156: the last rows before the cutover were lost. Here clients write at the source without a pooler that holds
/// them, right up to the moment in which the database itself refuses.
#[tokio::test]
async fn spirit_156_the_last_rows_before_the_fence_are_at_the_new_side() {
    let world = World::new().await;
    world.ready().await;
    let options = LoadOptions { clients: 12, seed: world.seed, rate: None, ..LoadOptions::new(world.source.url("app", DATABASE)) };
    let load = Load::start(options).await.unwrap();
    load.wait_acknowledged(200, SOON).await.unwrap();
    world.cutover(&["run"]).await.code(0);
    eventually(SOON, || async { load.last_errors().iter().any(|error| error.contains("fenced")) }).await.unwrap();
    let history = load.stop().await;
    assert!(history.acknowledged.len() > 200 && !history.failed.is_empty());
    world.cutover(&["verify"]).await.code(0);
    let (here, there) = (world.target.url("postgres", DATABASE), world.source.url("postgres", DATABASE));
    let verdict = check_history(&here, Some(&there), &history).await.unwrap();
    assert!(verdict.is_clean(), "seed {:?}: {verdict:#?}", world.seed);
}
