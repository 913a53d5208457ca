//! Where shadow tables stand, and what was decided about them, as it is shown.

use std::process::Stdio;

use cutover_testkit::Stop;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{
    sql::{LIMIT, Shop, signal},
    world::Said,
};

/// Databases that are nowhere.
pub(crate) const PLAN: &str = "name = \"big\"\nkind = \"switch\"\n[source]\nurl = \"postgres://a:b@old.example/shop\"\n\
     [target]\nurl = \"postgres://a:b@new.example/shop\"\n";

const AUDIT: [&str; 4] = ["audit", "--shadow-tables", "${CUTOVER_SQL_URL}", "--verify"];

/// What somebody does who has every right, with the trigger that is in front of it out of the way.
async fn tamper(shop: &Shop, sql: &str) {
    shop.0.execute("shop", &format!("ALTER TABLE cutover.audit_log DISABLE TRIGGER keep_audit; {sql}")).await.unwrap();
}

/// The audit, verified, in JSON.
async fn verified(shop: &Shop, code: i32) -> Value {
    shop.verb(&[&AUDIT[..], &["--output", "json"]].concat()).await.code(code).json()
}

#[tokio::test]
async fn c35_the_audit_is_recomputed_here_and_says_where_the_tables_are() {
    let shop = Shop::moving(10).await;
    let read = shop.verb(&AUDIT[..3]).await.code(0);
    read.says("advance_cutover_stage").says("\"it's time — now\"").says("\"to\":\"test_1\"");
    let json = verified(&shop, 0).await;
    let entries = json["entries"].as_array().unwrap();
    assert!(entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).is_sorted(), "{json}");
    assert_eq!((&json["version"], &json["chain"]["intact"]), (&1.into(), &true.into()), "{json}");
    let head = "SELECT encode(sha256(convert_to('6:orders,64:' || hash, 'UTF8')), 'hex') FROM cutover.audit_log ORDER BY seq DESC LIMIT 1";
    assert_eq!(json["chain"]["head"], shop.text(head).await);
    let orders = &json["tables"][0];
    assert_eq!((&orders["table"], &orders["said"], &orders["differs"]), (&"orders".into(), &orders["is"], &false.into()), "{json}");
    assert_eq!((&orders["is"]["stage"], &orders["is"]["epoch"]), (&"test_1".into(), &2.into()), "{json}");
    shop.verb(&AUDIT).await.code(0).says("none changed or missing; 1 tables where they say; head ");

    // Somebody moves a table by hand, or takes off the newest of what the audit says.
    shop.0.execute("shop", "UPDATE cutover.traffic_routing_config SET read_percentage = 100").await.unwrap();
    let json = verified(&shop, 3).await;
    assert_eq!((&json["chain"]["intact"], &json["tables"][0]["differs"]), (&true.into(), &true.into()), "{json}");
    let differs = shop.verb(&AUDIT).await.code(3).says("not where the audit says: orders").says("hint: ");
    differs.says("orders: by the audit at test_1, 1 % of reads, epoch 2; it is at test_1, 100 % of reads, epoch 2");
    shop.0.execute("shop", "UPDATE cutover.traffic_routing_config SET read_percentage = 1").await.unwrap();
    shop.verb(&AUDIT).await.code(0);
    tamper(&shop, "DELETE FROM cutover.audit_log WHERE seq = (SELECT max(seq) FROM cutover.audit_log)").await;
    shop.verb(&AUDIT).await.code(3).says("by the audit at dual_write, 0 % of reads, epoch 1; it is at test_1");
}

/// Whatever is changed, and also where the function that checks it was made to say that all is well.
#[tokio::test]
async fn an_audit_that_was_changed_is_told_whatever_its_own_functions_say() {
    let shop = Shop::moving(3).await;
    let lie = "CREATE OR REPLACE FUNCTION cutover.verify_audit() RETURNS TABLE (seq bigint, problem text) LANGUAGE sql AS \
        $f$SELECT 1::bigint, 'none' WHERE false$f$; CREATE TABLE kept AS SELECT * FROM cutover.audit_log";
    shop.0.execute("shop", lie).await.unwrap();
    for change in [
        "actor = 'nobody'",
        "reason = coalesce(reason, '') || ' '",
        "detail = detail || '{\"more\": 1}'",
        "at = at + interval '1 second'",
        "action = 'another', previous_hash = previous_hash || ''",
        "table_name = NULL",
        "client = 'elsewhere'",
        "hash = repeat('0', 64)",
    ] {
        tamper(&shop, &format!("UPDATE cutover.audit_log SET {change} WHERE seq = 3")).await;
        let json = verified(&shop, 3).await;
        assert_eq!(json["chain"]["what"], "entry 3: it was changed after it was written", "{change}");
        assert_eq!((&json["chain"]["intact"], &json["chain"]["head"]), (&false.into(), &Value::Null), "{change}");
        tamper(&shop, "DELETE FROM cutover.audit_log; INSERT INTO cutover.audit_log OVERRIDING SYSTEM VALUE SELECT * FROM kept").await;
        shop.verb(&AUDIT).await.code(0);
    }
    tamper(&shop, "DELETE FROM cutover.audit_log WHERE seq = 2").await;
    shop.verb(&AUDIT).await.code(3).says("the audit was changed: entry 3: an entry in front of it is missing, or another").says("hint: ");
    // A hash that was computed anew is one that the next entry does not know.
    tamper(&shop, "INSERT INTO cutover.audit_log OVERRIDING SYSTEM VALUE SELECT * FROM kept WHERE seq = 2").await;
    tamper(&shop, "UPDATE cutover.audit_log SET actor = 'nobody' WHERE seq = 2").await;
    tamper(&shop, "UPDATE cutover.audit_log l SET hash = cutover.audit_hash(l) WHERE seq = 2").await;
    shop.verb(&AUDIT).await.code(3).says("entry 3: an entry in front of it is missing, or another");
}

/// To the end, back, to the end again, and without a way back: at each step the entries bring the table to where it is.
#[tokio::test]
async fn c35_the_audit_leads_to_where_a_table_is_on_its_whole_way() {
    let shop = Shop::moving(3).await;
    let climb = "SELECT advance_cutover_stage('orders', true, 'test')";
    let complete = "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now(); SELECT complete_cutover('orders', true)";
    let back = "SELECT emergency_rollback('orders', 'test')";
    let begin = "SELECT start_gradual_cutover('orders', 0)";
    let up = format!("{climb}; {climb}; {climb}");
    let stages = [
        (up.as_str(), "full_100"),
        (complete, "completed"),
        (back, "disabled"),
        ("SELECT reset_cutover_state('orders', true)", "disabled"),
        (begin, "dual_write"),
        (climb, "test_1"),
        (&up, "full_100"),
        (complete, "completed"),
    ];
    for (step, stage) in stages {
        for statement in step.split("; ") {
            if statement.contains("complete") || stage == "full_100" {
                record(&shop, 0).await;
            }
            shop.0.execute("shop", statement).await.unwrap();
        }
        let json = verified(&shop, 0).await;
        assert_eq!(json["tables"][0]["said"]["stage"], stage, "{step}: {}", json["tables"]);
        shop.sql(&["status"]).await.code(0).says(&format!("orders  {stage}"));
    }
    shop.sql(&["status"]).await.code(0).says("drop_shadow_table('orders', true)");
    shop.0.execute("shop", "SELECT drop_shadow_table('orders', true)").await.unwrap();
    assert_eq!(verified(&shop, 0).await["tables"], serde_json::json!([]));
    shop.sql(&["status"]).await.code(0).says("no table has a shadow");
}

/// Each table has a chain of its own; and a number that was given in vain is no gap in any.
#[tokio::test]
async fn the_chains_of_several_tables_are_told_apart() {
    let shop = Shop::moving(3).await;
    let more = "CREATE TABLE carts (id int PRIMARY KEY); INSERT INTO carts VALUES (1); SELECT create_shadow_table('carts'); SELECT set_metrics_retention('7 days')";
    shop.0.execute("shop", more).await.unwrap();
    shop.0.execute("shop", "BEGIN; SELECT emergency_rollback('orders', 'in vain'); ROLLBACK").await.unwrap();
    shop.0.execute("shop", "SELECT emergency_rollback('orders', 'test'); SELECT enable_dual_write('carts')").await.unwrap();
    let json = verified(&shop, 0).await;
    let last = json["entries"].as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();
    assert!(last > json["entries"].as_array().unwrap().len() as u64, "there is a gap: {json}");
    let head = json["chain"]["head"].clone();
    tamper(&shop, "DELETE FROM cutover.audit_log WHERE table_name = 'carts' AND action = 'enable_dual_write'").await;
    // Of what was taken off the end and brought no table anywhere, only the head that was kept tells.
    assert_ne!(verified(&shop, 0).await["chain"]["head"], head);
    tamper(&shop, "DELETE FROM cutover.audit_log WHERE table_name = 'orders' AND action = 'backfilled'").await;
    shop.verb(&AUDIT).await.code(3).says("an entry in front of it is missing, or another");
}

/// More entries than are read at once; and on the oldest server, whose times are floats.
#[tokio::test]
async fn an_audit_of_many_entries_is_read_page_by_page_on_the_oldest_server_as_well() {
    for major in [13, 18] {
        let shop = Shop::on(major, 1).await;
        shop.sql(&["install"]).await.code(0);
        let many = "DO $$ BEGIN FOR i IN 1..1200 LOOP PERFORM cutover.append_audit('noted', NULL, 'entry ' || i, '{\"a\": [1, \"é\"]}'); \
            END LOOP; END $$";
        shop.0.execute("shop", many).await.unwrap();
        let json = verified(&shop, 0).await;
        assert_eq!(
            (json["entries"].as_array().unwrap().len(), &json["chain"]["intact"]),
            (1_200, &true.into()),
            "{major}: {}",
            json["chain"]
        );
    }
}

#[tokio::test]
async fn every_table_is_shown_with_the_next_safe_command() {
    let shop = Shop::open(10).await;
    let status = async || shop.sql(&["status"]).await.code(0);
    shop.sql(&["status"]).await.code(1).says("cutover sql install");
    shop.sql(&["install", "--short-names"]).await.code(0);
    status().await.says("no table has a shadow");
    shop.0.execute("shop", "SELECT create_shadow_table('orders')").await.unwrap();
    status().await.says("not written twice").says("next: SELECT cutover.enable_dual_write('orders')");
    // Each command that is named is the one that brings it on.
    shop.0.execute("shop", "SELECT enable_dual_write('orders')").await.unwrap();
    status().await.says("next: cutover sql backfill orders");
    shop.sql(&["backfill", "orders"]).await.code(0);
    status().await.says("next: SELECT cutover.start_gradual_cutover('orders')");
    shop.0.execute("shop", "SELECT start_gradual_cutover('orders', 1)").await.unwrap();
    status().await.says("dual_write").says("to stay").says("wait: test_1 may begin in");
    shop.0.execute("shop", "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now()").await.unwrap();
    status().await.says("next: SELECT cutover.advance_cutover_stage('orders')");
    shop.0.execute("shop", "SELECT advance_cutover_stage('orders', true, 'test')").await.unwrap();
    let refuse = "ALTER TABLE orders_shadow ADD CHECK (id <> 2 OR v <> 0) NOT VALID; UPDATE orders SET v = 0 WHERE id = 2";
    shop.0.execute("shop", refuse).await.unwrap();
    let json = shop.sql(&["status", "--output", "json"]).await.code(0).json();
    let orders = &json["tables"][0];
    assert_eq!((&orders["stage"], &orders["read_percentage"], &orders["queued"]), (&"test_1".into(), &1.0.into(), &1.into()), "{json}");
    assert_eq!(
        (&orders["next"], &orders["epoch"], &orders["health"]),
        (&"cutover sql drain orders".into(), &2.into(), &"unknown".into()),
        "{json}"
    );
    shop.0.execute("shop", "UPDATE cutover.traffic_routing_config SET health_status = 'unhealthy'").await.unwrap();
    let unhealthy = shop.verb(&["status", "--shadow-tables", "${CUTOVER_SQL_URL}"]).await.code(0);
    unhealthy.says("    0 % of reads, unhealthy, ").says("SELECT cutover.emergency_rollback('orders', 'why')");
}

/// What was installed by an older version, without what is measured since.
#[tokio::test]
async fn an_older_installation_is_shown_as_far_as_it_goes() {
    let shop = Shop::moving(2).await;
    let older = "DROP FUNCTION cutover.get_cutover_status_dashboard(); ALTER TABLE cutover.traffic_routing_config DROP COLUMN consecutive_failures CASCADE; \
        INSERT INTO cutover.dirty_key (table_name, key, why) VALUES ('orders', '[\"1\"]', 'test')";
    shop.0.execute("shop", older).await.unwrap();
    let json = shop.sql(&["status", "--output", "json"]).await.code(0).json();
    let orders = &json["tables"][0];
    assert_eq!((&orders["stage"], &orders["queued"], &orders["error_rate_percent"]), (&"test_1".into(), &1.into(), &Value::Null), "{json}");
    assert_eq!(orders["consecutive_failures"], Value::Null, "{json}");
}

/// What the database itself measured, as its dashboard has it.
#[tokio::test]
async fn what_was_measured_is_shown_as_the_dashboard_has_it() {
    let shop = Shop::moving(10).await;
    record(&shop, 2).await;
    shop.0.execute("shop", "SELECT perform_cutover_health_check('orders')").await.unwrap();
    let json = shop.sql(&["status", "--output", "json"]).await.code(0).json();
    let orders = &json["tables"][0];
    assert_eq!((&orders["error_rate_percent"], &orders["validation_score"]), (&2.0.into(), &100.0.into()), "{json}");
    assert!(orders["recommendations"].as_str().is_some_and(|advice| !advice.is_empty()), "{json}");
    assert_eq!((&orders["consecutive_failures"], &orders["emergency_stop"]), (&1.into(), &false.into()), "{json}");
    shop.sql(&["status"]).await.code(0).says("errors 2 %").says("same 100 %");
    shop.0.execute("shop", "SELECT emergency_stop_all_cutover('test')").await.unwrap();
    shop.sql(&["status"]).await.code(0).says("emergency stop").says("next: SELECT cutover.enable_dual_write('orders')");
}

/// A hundred reads at each side, of which so many have failed at the shadow.
pub(crate) async fn record(shop: &Shop, failed: u32) {
    let sql = format!(
        "SELECT record_cutover_operation('orders', 'read', 10, true, false), record_cutover_operation('orders', 'read', 10, i > {failed}, true) \
         FROM generate_series(1, 100) i"
    );
    shop.0.execute("shop", &sql).await.unwrap();
}

#[tokio::test]
async fn watched_tables_are_rolled_back_when_they_are_unhealthy_and_their_queue_is_drained() {
    let shop = Shop::moving(10).await;
    let mut child = shop.command(&["sql", "watch", "--every", "1s", "--output", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("nothing is told").unwrap().expect("it ended");
        serde_json::from_str(&line).unwrap()
    };
    let first = next().await;
    assert_eq!((&first["checked"][0]["table"], &first["checked"][0]["action"]), (&"orders".into(), &"none".into()), "{first}");
    // The server goes away and comes back: it goes on.
    shop.0.stop(Stop::Immediate).await.unwrap();
    shop.0.start_again().await.unwrap();
    let busy = "BEGIN; SELECT * FROM orders_shadow FOR UPDATE; UPDATE orders SET v = 7 WHERE id = 3; COMMIT; \
        INSERT INTO cutover.dirty_key (table_name, key, why) VALUES ('orders', '[\"4\"]', 'test')";
    shop.0.execute("shop", busy).await.unwrap();
    while next().await["brought"] != 1 {}
    record(&shop, 50).await;
    let told = loop {
        let told = next().await;
        if told["checked"][0]["action"] == "rolled_back" {
            break told;
        }
    };
    assert_eq!(told["checked"][0]["health"], "unhealthy", "{told}");
    assert_eq!(shop.text("SELECT cutover_stage::text FROM cutover.traffic_routing_config").await, "disabled");
    signal(&child, Signal::SIGTERM);
    assert_eq!(tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(0));
    shop.verb(&["audit", "--shadow-tables", "${CUTOVER_SQL_URL}"]).await.code(0).says("\"automatic: ");
}

#[tokio::test]
async fn a_watch_that_can_t_begin_says_why() {
    let shop = Shop::open(1).await;
    shop.sql(&["watch"]).await.code(1).says("there is no safety check in the schema cutover").says("cutover sql install");
    shop.sql(&["watch", "--url", "postgres://a@127.0.0.1:9/c"]).await.code(1).says("127.0.0.1:9");
    shop.sql(&["watch", "--every", "1ms"]).await.code(2).says("1s to 1h");
    shop.sql(&["install"]).await.code(0);
    shop.0.execute("shop", "CREATE ROLE stranger LOGIN").await.unwrap();
    shop.sql(&["watch", "--url", &shop.0.url("stranger", "shop")]).await.code(1).says("permission denied");
}

#[tokio::test]
async fn a_watched_status_tells_a_rollback_and_ends_with_ctrl_c() {
    let shop = Shop::moving(1).await;
    let mut child = shop.command(&["sql", "status", "--watch", "--output", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for stage in ["test_1", "disabled"] {
        let told = async { while !lines.next_line().await.unwrap().expect("it ended").contains(&format!("\"stage\":\"{stage}\"")) {} };
        tokio::time::timeout(LIMIT, told).await.expect("it is not told");
        shop.0.execute("shop", "SELECT emergency_rollback('orders', 'it is watched')").await.unwrap();
    }
    signal(&child, Signal::SIGINT);
    assert_eq!(tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

/// What is known of the switch is told whatever becomes of the tables.
#[tokio::test]
async fn tables_are_shown_below_a_switch_and_one_that_can_t_be_asked_hides_nothing() {
    let shop = Shop::moving(1).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cutover.toml"), PLAN).unwrap();
    let status = async |url: &str, more: &[&str]| {
        let arguments = [&["status", "--shadow-tables", url], more].concat();
        let output = shop.command(&arguments).current_dir(folder.path()).env_remove("CUTOVER_PLAN").output();
        Said::of(tokio::time::timeout(LIMIT, output).await.expect("it did not end").unwrap())
    };
    let url = shop.0.url("postgres", "shop");
    status(&url, &[]).await.code(0).says("not begun").says("orders  test_1");
    let json = status(&url, &["--output", "json"]).await.code(0).json();
    assert_eq!((&json["phase"], &json["shadow_tables"][0]["stage"]), (&"not begun".into(), &"test_1".into()), "{json}");
    let gone = status("postgres://a@127.0.0.1:9/c", &["--output", "json"]).await.code(1).says("127.0.0.1:9");
    assert_eq!(gone.json()["phase"], "not begun");
}

#[tokio::test]
async fn mistakes_in_the_option_are_told() {
    let run = async |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cutover")).args(arguments).stdin(Stdio::null()).output();
        Said::of(tokio::time::timeout(LIMIT, output).await.expect("it did not end").unwrap())
    };
    for verb in ["audit", "status"] {
        run(&[verb, "--shadow-tables", "${NOT_THERE}"]).await.code(2).says("no variable `NOT_THERE`");
        run(&[verb, "--shadow-tables", "mysql://a@b/c"]).await.code(2).says("expected `postgres`");
        run(&[verb, "--shadow-tables", "postgres://a@127.0.0.1:9/c"]).await.code(1).says("127.0.0.1");
        run(&[verb, "--shadow-tables", "postgres://a@b/c", "--server", "http://127.0.0.1:9"]).await.code(2).says("--server");
    }
}
