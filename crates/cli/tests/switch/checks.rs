//! The plan's own checks: asked read-only at both sides, on demand and before each switch to the target.

use std::time::Duration;

use serde_json::Value;

use crate::world::{DATABASE, World};

/// One section of a plan.
fn check(name: &str, sql: &str, more: &str) -> String {
    format!("[[check]]\nname = \"{name}\"\nsql = '''{sql}'''\n{more}\n")
}

/// No transfer changes it.
const BALANCES: &str = "SELECT count(*), sum(balance) FROM bank.accounts";

/// Rows that do not belong together.
const ORPHANS: &str = "SELECT t.id FROM bank.transfers t LEFT JOIN bank.accounts a ON a.id = t.debit WHERE a.id IS NULL";

/// It grows many times within the time that it takes to ask.
const MOVING: &str = "SELECT count(*) FROM bank.events, pg_catalog.pg_sleep(0.2)";

/// What the checks came to, by name.
async fn asked(world: &World, code: i32) -> Vec<Value> {
    let said = world.cutover(&["verify", "--only-checks", "--output", "json"]).await.code(code);
    let answer = said.json();
    assert_eq!(answer["version"], 1);
    assert!(answer.get("rows").is_none(), "no table was compared: {answer:#}");
    answer["checks"].as_array().unwrap().clone()
}

#[tokio::test]
async fn b16_checks_pass_under_load_after_the_tables_and_before_a_switch() {
    let checks = [
        check("ledger balances", BALANCES, ""),
        check("no orphans", ORPHANS, "expect = \"empty\""),
        check("books are even", "SELECT coalesce(sum(amount), 0) = 0 FROM bank.ledger;", "expect = \"value\"\nvalue = \"t\""),
    ];
    let world = World::of(15, 17, &checks.concat()).await;
    let load = world.load(6).await;
    world.ready().await;
    for report in asked(&world, 0).await {
        assert_eq!((&report["verdict"], &report["why"]), (&"pass".into(), &"".into()), "{report:#}");
        let sides = [&report["answers"][0]["side"], &report["answers"][1]["side"]];
        assert_eq!(sides, ["source", "target"], "{report:#}");
    }
    let both = world.cutover(&["verify", "--output", "json"]).await.code(0).json();
    assert_eq!((both["checks"].as_array().unwrap().len(), both["differences_total"].as_u64()), (3, Some(0)), "{both:#}");
    let one = world.cutover(&["verify", "--table", "bank.accounts"]).await.code(0);
    assert!(!one.out.contains("ledger balances"), "who asks for a table gets that table: {one:?}");
    world.cutover(&["plan"]).await.code(0).says("ledger balances").says("the same rows at both sides").says(ORPHANS);

    world.cutover(&["run"]).await.code(0).says("ledger balances: pass").says("no orphans: pass").says("books are even: pass");
    assert_eq!(world.authority().await, "target");
    // Now the target is measured by itself, and the source follows.
    asked(&world, 0).await;
    world.judge(load).await;
}

#[tokio::test]
async fn b16_a_difference_at_the_follower_is_shown_and_keeps_the_switch_from_beginning() {
    let world = World::of(15, 15, &check("ledger balances", BALANCES, "")).await;
    world.ready().await;
    let load = world.load(4).await;
    let right = world.ask(&world.source, "SELECT count(*) || ' | ' || sum(balance) FROM bank.accounts").await;
    world
        .meddle(&world.target, "INSERT INTO bank.accounts (id, holder, opening, balance) VALUES (777001, 'nobody', 4711.13, 4711.13)")
        .await;
    let wrong = world.ask(&world.target, "SELECT count(*) || ' | ' || sum(balance) FROM bank.accounts").await;
    let reports = asked(&world, 3).await;
    assert_eq!(reports[0]["verdict"], "fail", "{reports:#?}");
    let said = world.cutover(&["run"]).await.code(3).says("ledger balances: fail").says("answer differently");
    for lines in [format!("source: 1 row\n      {right}\n"), format!("target: 1 row\n      {wrong}\n")] {
        assert!(said.err.contains(&lines), "{lines}: {said:?}");
    }
    assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), ("source", "following"));
    let audit = world.cutover(&["audit"]).await.code(0);
    assert!(!audit.out.contains("switch_started"), "nothing was begun: {audit:?}");

    let history = load.stop().await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
    world.meddle(&world.target, "DELETE FROM bank.accounts WHERE id = 777001").await;
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
}

#[tokio::test]
async fn b16_a_fixed_expectation_holds_at_both_sides_or_fails_and_says_where() {
    let orphans = "SELECT id FROM bank.accounts WHERE holder = 'nobody'";
    let checks = [
        check("no nobody", orphans, "expect = \"empty\""),
        check("nobody is counted", &format!("SELECT count(*) FROM ({orphans}) AS n"), "expect = \"value\"\nvalue = \"0\""),
        check("null is no text", "SELECT NULL::text", "expect = \"value\"\nvalue = \"\""),
        check("one row", "VALUES (0), (0)", "expect = \"value\"\nvalue = \"0\""),
        check("one column", "SELECT 0, 0", "expect = \"value\"\nvalue = \"0\""),
        check("any order", "SELECT id, holder, balance FROM bank.accounts WHERE id < 500", ""),
    ];
    let world = World::of(15, 15, &checks.concat()).await;
    world.ready().await;
    let verdicts = |reports: &[Value]| reports.iter().map(|report| report["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(verdicts(&asked(&world, 3).await), ["pass", "pass", "fail", "fail", "fail", "pass"]);

    // Each row moves to the table's end at one side only: another order, the same rows.
    world.meddle(&world.target, "UPDATE bank.accounts SET holder = holder WHERE id < 20").await;
    world
        .meddle(&world.target, "UPDATE bank.accounts SET holder = 'nobody' WHERE id = 501 OR id = (SELECT max(id) FROM bank.accounts)")
        .await;
    let reports = asked(&world, 3).await;
    assert_eq!(verdicts(&reports), ["fail", "fail", "fail", "fail", "fail", "pass"], "{reports:#?}");
    assert_eq!(reports[0]["why"], "no row was expected, and not answered by the target");
    assert_eq!(reports[1]["why"], "exactly `0` was expected, and not answered by the target");
    assert_eq!((&reports[1]["answers"][0]["rows"][0][0], &reports[1]["tries"]), (&"0".into(), &1.into()));
    assert!(reports[1]["answers"][1]["rows_total"] == 1 && reports[1]["answers"][1]["rows"][0][0] != "0", "{reports:#?}");
}

/// What is no single query, or writes by whatever way, fails, and nothing is written at either side.
#[tokio::test]
async fn a_check_that_writes_is_refused_and_writes_nothing() {
    let insert = "INSERT INTO bank.events (client, op, kind) VALUES (0, 0, 'by a check') RETURNING id";
    let sneaky = "SELECT pg_catalog.set_config('transaction_read_only', 'off', true), bank.sneak()";
    let cases = [
        (insert, "cannot execute INSERT in a read-only transaction"),
        ("WITH gone AS (DELETE FROM bank.events RETURNING 1) SELECT count(*) FROM gone", "cannot execute"),
        ("SELECT bank.write()", "cannot execute INSERT in a read-only transaction"),
        ("SELECT bank.sneak()", "read-write mode must be set before any query"),
        (sneaky, "read-write mode must be set before any query"),
        ("SELECT nextval('bank.order_numbers')", "cannot execute nextval() in a read-only transaction"),
        ("DELETE FROM bank.events", "answers with no columns"),
        ("COMMIT", "answers with no columns"),
        ("DO 'BEGIN PERFORM bank.sneak(); END'", "answers with no columns"),
        ("SELECT 1; DELETE FROM bank.events", "cannot insert multiple commands"),
        ("COMMIT; DELETE FROM bank.events", "cannot insert multiple commands"),
        ("SELECT 1 FROM accounts", "\"accounts\" does not exist"),
        ("-- nothing", "answers with no columns"),
    ];
    let checks: Vec<_> = cases.iter().enumerate().map(|(at, (sql, _))| check(&format!("check {at}"), sql, "")).collect();
    let world = World::of(15, 15, &checks.concat()).await;
    let client = world.source.client(DATABASE).await.unwrap();
    let function = |name: &str, first: &str| {
        let insert = insert.replace(" RETURNING id", "");
        format!("CREATE FUNCTION bank.{name}() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {first} {insert}; RETURN 1; END $$")
    };
    client
        .batch_execute(&format!(
            "{}; {}; INSERT INTO bank.events (client, op, kind) VALUES (0, 0, 'there')",
            function("write", ""),
            function("sneak", "SET transaction_read_only = off;")
        ))
        .await
        .unwrap();
    world.ready().await;
    let rows = "SELECT count(*) || ' ' || max(id) FROM bank.events";
    let before = (world.ask(&world.source, rows).await, world.ask(&world.source, "SELECT last_value FROM bank.order_numbers").await);
    let reports = asked(&world, 3).await;
    for (report, (sql, why)) in reports.iter().zip(cases) {
        assert_eq!(report["verdict"], "fail", "{sql}: {report:#}");
        assert!(report["why"].as_str().unwrap().contains(why), "{sql}: {report:#}");
        assert!(report["hint"].is_string(), "{sql}: {report:#}");
    }
    let after = (world.ask(&world.source, rows).await, world.ask(&world.source, "SELECT last_value FROM bank.order_numbers").await);
    assert_eq!(before, after);
    assert_eq!(world.ask(&world.target, rows).await, after.0);
    world.cutover(&["run"]).await.code(3).says("check 0: fail").says("nothing was written");
    assert_eq!(world.authority().await, "source");
}

#[tokio::test]
async fn an_answer_that_moves_all_the_time_is_inconclusive_until_it_stands_still() {
    let world = World::of(15, 15, &format!("[verify]\nrechecks = 2\n{}", check("events", MOVING, ""))).await;
    world.ready().await;
    let load = world.load(6).await;
    let reports = asked(&world, 4).await;
    assert_eq!((&reports[0]["verdict"], &reports[0]["tries"]), (&"inconclusive".into(), &3.into()), "{reports:#?}");
    world
        .cutover(&["run"])
        .await
        .code(4)
        .says("events: inconclusive")
        .says("the source's answer moved, or came and went, in each of 3 tries");
    assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), ("source", "following"));
    load.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
    world.judge(load).await;
    world.cutover(&["run"]).await.code(0).says("events: pass");
    assert_eq!(world.authority().await, "target");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_or_is_too_large_is_given_up_and_says_so() {
    let checks = [
        check("slow", "SELECT pg_catalog.pg_sleep(60)", "timeout = \"300ms\""),
        check("many rows", "SELECT * FROM pg_catalog.generate_series(1, 1001)", ""),
        check("as many as may be", "SELECT * FROM pg_catalog.generate_series(1, 1000)", ""),
        check("many bytes", "SELECT pg_catalog.repeat('x', 600000) FROM pg_catalog.generate_series(1, 2)", ""),
    ];
    let world = World::of(15, 15, &checks.concat()).await;
    world.ready().await;
    let reports = asked(&world, 3).await;
    let verdicts: Vec<_> = reports.iter().map(|report| report["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["inconclusive", "fail", "pass", "fail"], "{reports:#?}");
    assert!(reports[0]["why"].as_str().unwrap().contains("the source did not answer within the check's timeout of 300 ms"), "{reports:#?}");
    assert!(reports[0]["ms"].as_u64().unwrap() < 20_000, "{reports:#?}");
    assert!(reports[1]["why"].as_str().unwrap().contains("more than 1000 rows"), "{reports:#?}");
    assert!(reports[1]["hint"].as_str().unwrap().contains("GROUP BY"), "{reports:#?}");
    assert_eq!((&reports[2]["answers"][1]["rows_total"], reports[2]["answers"][1]["rows"].as_array().unwrap().len()), (&1000.into(), 20));

    world.write_plan(&checks[0]);
    world.cutover(&["run"]).await.code(4).says("slow: inconclusive").says("raise the check's `timeout`");
    assert_eq!(world.authority().await, "source");
    world.write_plan("");
    world.cutover(&["verify", "--only-checks"]).await.code(2).says("the plan has no checks");
    world.cutover(&["run"]).await.code(0);
}
