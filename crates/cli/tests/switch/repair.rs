//! `verify --repair` and `--values`: in both directions, under load, in the journal, and refused where they make no sense.

use crate::world::{DATABASE, World};

/// Missing, extra and changed: three rows, or more where rows hang together.
pub(crate) const MEDDLED: &str = "UPDATE bank.accounts SET holder = 'nobody' WHERE id = (SELECT min(id) FROM bank.accounts); \
     DELETE FROM bank.accounts WHERE id = (SELECT max(id) FROM bank.accounts); \
     INSERT INTO bank.accounts (id, holder, opening, balance) VALUES (777001, 'nobody', 4711.13, 4711.13)";

pub(crate) const REPAIR: [&str; 4] = ["verify", "--repair", "--reason", "somebody wrote there"];

#[tokio::test]
async fn d19_rows_are_repaired_under_load_in_both_directions_and_the_journal_says_who_and_why() {
    let world = World::of(15, 17, "").await;
    world.ready().await;
    let load = world.load(6).await;
    world.meddle(&world.target, MEDDLED).await;
    world.cutover(&["verify", "--table", "bank.accounts"]).await.code(3).says("777001");
    let said = world.cutover(&[&REPAIR[..], &["--output", "json"]].concat()).await.code(0);
    let repair = &said.json()["repair"];
    assert_eq!(repair["still_different"], serde_json::json!([]), "{said:?}");
    // A write of the application's may have made the changed row equal before we came.
    let count = |name: &str| repair[name].as_u64().unwrap();
    assert!((2..=3).contains(&(count("repaired") + count("equal_meanwhile"))), "{said:?}");
    assert!(world.status().await["verified"].is_null(), "what was repaired is not verified");
    assert_eq!(repair["tables"]["bank.accounts"], repair["repaired"], "at least what is missing and what is extra: {said:?}");
    world.cutover(&["verify"]).await.code(0);
    assert!(world.status().await["verified"]["rows"].as_u64().unwrap() > 0);
    world.cutover(&["audit"]).await.code(0).says("repair_started").says("\"still_different\":0").says("somebody wrote there");

    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    // Now the source follows.
    world.meddle(&world.source, &MEDDLED.replace("777001", "777002")).await;
    world.cutover(&REPAIR).await.code(0).says("rows differ").says("0 still different");
    world.cutover(&["audit", "--verify"]).await.code(0);
    world.judge(load).await;
    for cluster in [&world.source, &world.target] {
        let left = "(SELECT count(*) FROM cutover.look) + (SELECT count(*) FROM cutover.look_statement) \
             + (SELECT count(*) FROM cutover.look_row) + (SELECT count(*) FROM cutover.look_outcome)";
        assert_eq!(world.ask(cluster, left).await, "0");
    }
    world.cutover(&["rollback", "--reason", "test"]).await.code(0);
    world.cutover(&["rollback", "--reason", "test", "--confirm", "bank"]).await.code(0);
    for cluster in [&world.source, &world.target] {
        assert_eq!(world.ask(cluster, "SELECT to_regnamespace('cutover')").await, "", "nothing of ours is left");
    }
}

#[tokio::test]
async fn more_rows_than_allowed_and_what_is_typed_wrongly_change_nothing() {
    let world = World::of(15, 15, "[verify]\nredact = [\"*.holder\"]").await;
    world.cutover(&REPAIR).await.code(1);
    world.ready().await;
    world.meddle(&world.target, MEDDLED).await;
    world.cutover(&["verify", "--repair"]).await.code(2).says("--reason");
    world.cutover(&["verify", "--repair", "--reason", " "]).await.code(2).says("--reason is empty");
    let said = world.cutover(&[&REPAIR[..], &["--max-repairs", "2"]].concat()).await.code(3);
    said.says("more than --max-repairs (2); none was repaired").says("copied anew");
    // The text of a redacted column is shown nowhere.
    let said = world.cutover(&["verify", "--values"]).await.code(3).says("differs in holder").says("holder: (");
    assert!(!said.out.contains("nobody"), "{said:?}");
    let json = world.cutover(&["verify", "--values", "--output", "json"]).await.code(3).json();
    let values = json["differences"].as_array().unwrap().iter().find_map(|found| found["values"].as_array()).unwrap();
    assert_eq!(
        (&values[0]["column"], &values[0]["redacted"], &values[0]["follower"]["characters"]),
        (&"holder".into(), &true.into(), &6.into())
    );
    assert!(!world.cutover(&["audit"]).await.code(0).out.contains("repair"), "nothing was begun");
}

/// Without a stream there is nothing to repair through; before the first copy there is nothing to repair.
#[tokio::test]
async fn a_table_without_a_key_is_named_and_left_as_it_is() {
    let world = World::of(15, 15, "").await;
    world.source.execute(DATABASE, "CREATE TABLE bank.tally (n int); ALTER TABLE bank.tally REPLICA IDENTITY FULL").await.unwrap();
    world.ready().await;
    world.meddle(&world.target, "INSERT INTO bank.tally VALUES (7)").await;
    let said = world.cutover(&REPAIR).await.code(3);
    said.says("bank.tally").says("the table has no key to mend a row by").says("differ in 1 rows");
}
