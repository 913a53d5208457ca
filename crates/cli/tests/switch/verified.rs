//! What a verification has established is kept: for whoever asks, for the next switch, and for one that was broken off.

use serde_json::Value;

use crate::world::{DATABASE, World};

/// Takes all rows of a table from the target, past the gate and unseen by the stream.
async fn lose(world: &World, table: &str) {
    let client = world.target.client(DATABASE).await.unwrap();
    client.batch_execute(&format!("SET session_replication_role = replica; DELETE FROM {table}")).await.unwrap();
}

#[tokio::test]
async fn a_verification_that_was_killed_goes_on_with_the_tables_that_were_not_finished() {
    let world = World::of(15, 15, "[verify]\njobs = 1\nmax_rate = 250").await;
    world.cutover_killed(&["run", "--until", "ready"], Some("after:tables_verified")).await.killed();
    let finished = world.entries("tables_verified").await.pop().unwrap()["tables"].as_array().unwrap().clone();
    assert!(!finished.is_empty());
    let whole = |table: &Value| format!("{}.{}", table["schema"].as_str().unwrap(), table["name"].as_str().unwrap());
    let done = finished.iter().find(|table| table["rows"].as_u64().unwrap() > 0).expect("one with rows is done");

    // It is not compared again, and the claim does not say so.
    lose(&world, &whole(done)).await;
    world.write_plan("");
    let said = world.cutover(&["run", "--until", "ready"]).await.code(0);
    assert!(said.err.contains(&format!("{} tables were verified before it was broken off", finished.len())), "{said:?}");
    let status = world.status().await;
    let verified = &status["verified"];
    assert_eq!(verified["lsn"], done["lsn"], "the claim begins where the first part began: {status:#}");
    let rows = "SELECT sum((xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %s', oid::regclass), false, true, '')))[1]::text::int) \
         FROM pg_class WHERE relkind = 'r' AND relnamespace = 'bank'::regnamespace";
    assert_eq!(verified["rows"].to_string(), world.ask(&world.source, rows).await);
    world.cutover(&["verify"]).await.code(3).says(&whole(done)).says("missing at the follower");
}

#[tokio::test]
async fn what_was_verified_last_is_shown_and_verified_again_when_it_is_too_old() {
    let world = World::new().await;
    world.cutover(&["run", "--until", "ready"]).await.code(0);
    let first = world.status().await["verified"].clone();
    assert!(first["rows"].as_u64().unwrap() > 500 && first["lsn"].as_str().unwrap().contains('/'), "{first:#}");
    world.cutover(&["status"]).await.code(0).says(&format!("rows up to {}, ", first["lsn"].as_str().unwrap()));
    world.cutover(&["verify"]).await.code(0);
    let second = world.status().await["verified"].clone();
    assert!(second["at_ms"].as_u64() > first["at_ms"].as_u64(), "the verb's is kept as well: {second:#}");
    world.cutover(&["verify", "--table", "bank.accounts"]).await.code(0);
    assert_eq!(world.status().await["verified"], second, "one table is not all of them");

    world.write_plan("[verify]\nmax_age = \"1ms\"");
    lose(&world, "bank.accounts").await;
    world
        .cutover(&["run"])
        .await
        .code(3)
        .says("once more before the switch")
        .says("the last verification is too old")
        .says("bank.accounts");
    assert_eq!(world.entries("switch_started").await.len(), 0);
    assert!(!world.entries("tables_verified").await.is_empty(), "the others are done with");
    assert_eq!(world.status().await["verified"], Value::Null, "it is known to differ");
    let client = world.target.client(DATABASE).await.unwrap();
    let rows = "SELECT string_agg(quote_literal(a::text) || '::bank.accounts', ',') FROM bank.accounts a";
    let rows = world.ask(&world.source, rows).await;
    client
        .batch_execute(&format!("SET session_replication_role = replica; INSERT INTO bank.accounts SELECT (unnest(ARRAY[{rows}])).*"))
        .await
        .unwrap();
    world.cutover(&["run"]).await.code(0).says("rows were found to differ, so both sides are compared again");
    assert_eq!(world.entries("verified").await.len(), 3);
    assert_eq!(world.status().await["verified"], Value::Null, "of the sides as they are now nothing is verified");
    world.cutover(&["rollback", "--reason", "back"]).await.code(0);
    world.write_plan("[verify]\nmax_age = \"1h\"");
    world
        .cutover(&["run"])
        .await
        .code(0)
        .says("verified: not since the last switch, repair or difference; once more before the switch")
        .says("the last verification is too old");
}
