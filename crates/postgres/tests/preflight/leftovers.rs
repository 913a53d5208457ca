//! What is there already: contents, schemas, streams, transactions.

use std::time::Duration;

use cutover_core::Side::{Source, Target};
use cutover_postgres::{
    connect::{Purpose, connect},
    gate,
    preflight::Severity::{Error, Info, Warning},
};
use cutover_testkit::eventually;

use crate::support::{Case, WAIT, matching, shared_pair};

#[tokio::test]
async fn b6_the_target_must_be_empty_or_ours() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "occupied").await;
    case.sql(Target, "CREATE TABLE public.orders (id int PRIMARY KEY); CREATE VIEW public.v AS SELECT 1 AS a").await;
    case.find("target_content", Error, Target, &["it holds 2 relations", "table public.orders", "view public.v"]).await;
    case.prepared = true;
    case.refute("target_content", Error, Target, &[]).await;
}

#[tokio::test]
async fn the_control_schema_must_be_free_or_this_plans() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "control").await;
    case.sql(Source, "CREATE SCHEMA cutover; CREATE TABLE cutover.mine (a int)").await;
    case.find_and_mend("control_schema", Error, Source, &["that cutover did not make", "postgres"]).await;
    let mut client = case.session(Target).await;
    gate::install(&mut client, "another", Target, 1).await.unwrap();
    case.find("control_schema", Error, Target, &["belongs to the cutover `another`"]).await;
    gate::remove(&mut client, "another", 1).await.unwrap();
    gate::install(&mut client, "control", Source, 1).await.unwrap();
    case.find("control_schema", Error, Target, &["as its source"]).await;
    gate::remove(&mut client, "control", 1).await.unwrap();
    gate::install(&mut client, "control", Target, 1).await.unwrap();
    case.find("control_schema", Info, Target, &["will be used again"]).await;
    case.prepared = true;
    case.refute("control_schema", Error, Target, &[]).await;
    case.find("control_schema", Error, Source, &["its gate is gone"]).await;
    case.refute("event_triggers", Info, Target, &[]).await;
}

#[tokio::test]
async fn replication_of_others_and_leftovers_are_told_apart() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "leftover").await;
    case.sql(Source, "SELECT pg_create_logical_replication_slot('cutover_leftover_forward', 'pgoutput')").await;
    case.sql(Source, "CREATE PUBLICATION cutover_leftover_forward; CREATE PUBLICATION of_others FOR ALL TABLES").await;
    case.sql(Source, "SELECT pg_create_logical_replication_slot('cdc_leftover', 'pgoutput')").await;
    for name in ["cutover_leftover_forward", "from_elsewhere"] {
        let subscription = format!(
            "CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 port=1 dbname=none' PUBLICATION p \
             WITH (connect = false, slot_name = NONE, enabled = false)"
        );
        case.sql(Target, &subscription).await;
    }
    let words = ["left over", "slot cutover_leftover_forward", "publication cutover_leftover_forward"];
    let finding = case.find_and_mend("replication", Error, Source, &words).await;
    assert!(!format!("{finding:?}").contains("cdc"), "{finding:?}");
    case.find_and_mend("replication", Error, Target, &["left over", "subscription cutover_leftover_forward"]).await;
    case.find("replication", Warning, Source, &["consumers of this database's changes", "cdc_leftover (pgoutput, inactive"]).await;
    case.find("replication", Info, Source, &["of_others"]).await;
    case.find("replication", Info, Target, &["disabled subscriptions", "from_elsewhere"]).await;
    case.sql(Target, "ALTER SUBSCRIPTION from_elsewhere SET (slot_name = 'absent'); ALTER SUBSCRIPTION from_elsewhere ENABLE").await;
    case.find_and_mend("replication", Error, Target, &["write past the gate", "from_elsewhere"]).await;
    case.sql(Target, "ALTER SUBSCRIPTION from_elsewhere SET (slot_name = NONE)").await;
    case.sql(Target, "DROP SUBSCRIPTION from_elsewhere").await;

    case.sql(Source, "SELECT pg_create_logical_replication_slot('cutover_leftover_forward', 'pgoutput')").await;
    case.prepared = true;
    case.refute("replication", Error, Source, &[]).await;
    case.sql(Source, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'leftover'").await;
}

/// What is left over at the target lies behind a closed gate, which refuses definitions too: the fix works as it is printed.
#[tokio::test]
async fn leftovers_behind_the_closed_gate_are_mended_as_printed() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "behind").await;
    let mut client = case.session(Target).await;
    for name in ["cutover_behind_forward", "from_afar"] {
        let subscription = format!(
            "CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 port=1 dbname=none' PUBLICATION p \
             WITH (connect = false, slot_name = 'absent', enabled = false)"
        );
        case.sql(Target, &subscription).await;
    }
    case.sql(Target, "ALTER SUBSCRIPTION from_afar ENABLE").await;
    gate::install(&mut client, "behind", Target, 1).await.unwrap();
    assert!(!gate::state(&client).await.unwrap().open);
    let finding = case.find_and_mend("replication", Error, Target, &["left over", "subscription cutover_behind_forward"]).await;
    assert_eq!(format!("{finding:?}").matches("let_pass('by hand')").count(), 1, "{finding:?}");
    case.find_and_mend("replication", Error, Target, &["write past the gate", "from_afar"]).await;
    let settings = case.find("durability", Warning, Target, &["fsync"]).await;
    assert!(!format!("{settings:?}").contains("let_pass"), "the gate is not asked for a setting: {settings:?}");
    case.sql(Source, "CREATE SCHEMA cutover").await;
    let finding = case.find("control_schema", Error, Source, &["that cutover did not make"]).await;
    assert!(!format!("{finding:?}").contains("let_pass"), "there is no gate here: {finding:?}");

    gate::open(&mut client, 1).await.unwrap();
    case.sql(Target, "ALTER SUBSCRIPTION from_afar ENABLE").await;
    case.authority = Some(Target);
    let finding = case.find_and_mend("replication", Error, Target, &["write past the gate", "from_afar"]).await;
    assert!(!format!("{finding:?}").contains("let_pass"), "an open gate wants no pass: {finding:?}");
    case.sql(Target, "ALTER SUBSCRIPTION from_afar SET (slot_name = NONE)").await;
    case.sql(Target, "DROP SUBSCRIPTION from_afar").await;
}

#[tokio::test]
async fn transactions_in_the_way_are_named_and_ended() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "waiting").await;
    case.sql(Source, "BEGIN; INSERT INTO public.kept (note) VALUES ('x'); PREPARE TRANSACTION 'it''s waiting'").await;
    case.find_and_mend("prepared_transactions", Error, Source, &["prepared transactions: 1", "it''s waiting", "postgres"]).await;
    case.find("prepared_transactions", Info, Source, &["max_prepared_transactions is 5"]).await;

    case.plan.pause.budget = Duration::from_millis(100);
    let writer = connect(&case.plan.source.url, &Purpose::new("slow-report")).await.unwrap();
    writer.batch_execute("BEGIN; INSERT INTO public.kept (note) VALUES ('x')").await.unwrap();
    let words = ["slow-report of postgres in waiting, idle in transaction, has written"];
    let found = eventually(WAIT, || async { matching(&case.check().await, "long_transactions", Warning, Source, &words).cloned() });
    let finding = found.await.unwrap();
    case.mend(&finding).await;
    eventually(WAIT, || async { writer.is_closed() }).await.unwrap();
    eventually(WAIT, || async { matching(&case.check().await, "long_transactions", Warning, Source, &words).is_none() }).await.unwrap();
}
