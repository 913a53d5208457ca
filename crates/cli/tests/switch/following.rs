//! What `cutover status` says of a stream that stumbles, in time and with the cause.

use std::time::Duration;

use cutover_testkit::eventually;

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(60);

/// The cause that the status shows, once it does.
async fn cause(world: &World) -> serde_json::Value {
    eventually(SOON, || async { Some(world.status().await["cause"].clone()).filter(|cause| !cause.is_null()) }).await.unwrap()
}

#[tokio::test]
async fn a_row_that_is_in_the_way_is_named_with_table_key_and_reason() {
    let world = World::new().await;
    world.ready().await;
    assert!(world.status().await["cause"].is_null(), "a stream that flows has no cause to show");
    let row = "INSERT INTO bank.accounts (id, holder, opening, balance) VALUES (777001, E'O''Hara\\\\', 1, 1)";
    world.meddle(&world.target, row).await;
    let client = world.source.client(DATABASE).await.unwrap();
    client.batch_execute(&format!("{row}; DELETE FROM bank.accounts WHERE id = 777001; {row}")).await.unwrap();

    let cause = cause(&world).await;
    assert_eq!(cause["table"], "bank.accounts", "{cause:#}");
    assert_eq!(cause["sql_state"], "23505", "{cause:#}");
    assert!(cause["change"].as_str().unwrap().contains("id = 777001"), "{cause:#}");
    assert!(cause["error"].as_str().unwrap().contains("accounts_pkey"), "{cause:#}");
    // Also while the worker, which the server starts again and again, lives for a moment.
    let target = world.target.client(DATABASE).await.unwrap();
    target.batch_execute("ALTER SYSTEM SET wal_retrieve_retry_interval = '10ms'").await.unwrap();
    target.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    for _ in 0..15 {
        world.cutover(&["status"]).await.code(0).says("worker failing").says("stands still").says("accounts_pkey");
    }
    // Nothing that looking did has stayed, and the switch is refused with the same words.
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM bank.accounts WHERE id = 777001").await, "1");
    let refused = world.cutover(&["run"]).await.says("accounts_pkey");
    assert!(matches!(refused.code, Some(1 | 3)), "{refused:?}");
    assert_eq!(world.authority().await, "source");

    world.meddle(&world.target, "DELETE FROM bank.accounts WHERE id = 777001").await;
    eventually(SOON, || async { world.status().await["stream"]["worker_running"] == true }).await.unwrap();
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
}

#[tokio::test]
async fn a_definition_made_at_the_source_only_is_noticed_before_and_after_it_stops_the_stream() {
    let world = World::new().await;
    world.ready().await;
    let client = world.source.client(DATABASE).await.unwrap();
    client.batch_execute("ALTER TABLE bank.events ADD COLUMN note text; CREATE SEQUENCE bank.more_numbers").await.unwrap();
    world.cutover(&["status"]).await.code(0).says("column bank.events.note was added").says("sequence bank.more_numbers was made");
    client.batch_execute("INSERT INTO bank.events (client, op, kind, note) VALUES (0, 1, 'k', 'n')").await.unwrap();
    let cause = cause(&world).await;
    assert_eq!((cause["table"].as_str(), cause["sql_state"].as_str()), (Some("bank.events"), Some("42703")), "{cause:#}");

    let target = world.target.client(DATABASE).await.unwrap();
    let refused = target.batch_execute("ALTER TABLE bank.events ADD COLUMN note text").await.unwrap_err();
    assert!(refused.as_db_error().unwrap().hint().unwrap().contains("cutover.let_pass"), "the way in is said: {refused:?}");
    target.batch_execute("SELECT cutover.let_pass('by hand')").await.unwrap();
    target.batch_execute("ALTER TABLE bank.events ADD COLUMN note text; CREATE SEQUENCE bank.more_numbers").await.unwrap();
    eventually(SOON, || async { world.status().await["stream"]["worker_running"] == true }).await.unwrap();
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM bank.events WHERE note = 'n'").await, "1");
}

/// A slot that may be lost is warned about before it is, and what a lost one means is said.
#[tokio::test]
async fn a_slot_in_danger_is_warned_about_and_a_lost_one_blocks() {
    let world = World::new().await;
    world.ready().await;
    world.cutover(&["status"]).await.code(0);
    let source = world.source.client(DATABASE).await.unwrap();
    let target = world.target.client(DATABASE).await.unwrap();
    target.batch_execute("SELECT cutover.let_pass('by hand')").await.unwrap();
    let name: String = target.query_one("SELECT subname::text FROM pg_subscription", &[]).await.unwrap().get(0);
    target.batch_execute(&format!("ALTER SUBSCRIPTION \"{name}\" DISABLE")).await.unwrap();
    let slot = "SELECT wal_status, active FROM pg_replication_slots WHERE slot_name LIKE 'cutover%'";
    eventually(SOON, || async { !source.query_one(slot, &[]).await.unwrap().get::<_, bool>(1) }).await.unwrap();
    source.batch_execute("ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'").await.unwrap();
    source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let warned = eventually(SOON, || async { world.status().await["stream"]["warnings"].to_string().contains("max_slot_wal_keep_size") });
    warned.await.unwrap();

    source.batch_execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").await.unwrap();
    source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let lost = eventually(SOON, || async {
        source.batch_execute("CREATE TABLE bank.filler AS SELECT 1; DROP TABLE bank.filler").await.unwrap();
        source.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        source.batch_execute("CHECKPOINT").await.unwrap();
        source.query_one(slot, &[]).await.unwrap().get::<_, Option<String>>(0).as_deref() == Some("lost")
    });
    lost.await.unwrap();
    world.cutover(&["status"]).await.code(0).says("the slot is lost");
    target.batch_execute(&format!("ALTER SUBSCRIPTION \"{name}\" ENABLE")).await.unwrap();
    let refused = world.cutover(&["run"]).await.says("lost");
    assert!(matches!(refused.code, Some(1 | 3)), "{refused:?}");
    assert_eq!(world.authority().await, "source");
    world.cutover(&["rollback", "--reason", "the copy must be made again", "--confirm", "bank"]).await.code(0).says("torn down");
}
