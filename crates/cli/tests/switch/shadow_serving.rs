//! `cutover serve --shadow-tables`: every application is told where to read a table that moves, as its own database says it.

use std::{
    ops::Deref,
    time::{Duration, Instant},
};

use cutover_client::{Client, Side};
use cutover_testkit::{Proxy, Stop, eventually};
use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    server::{LIMIT, Server, answer},
    sql::Shop,
    sql_looks::{PLAN, record},
    stock::{ALL, Way},
};

const READ: &str = "/ofrep/v1/evaluate/flags/shop.orders.read";

/// A server, and the folder where it was started.
struct House {
    server: Server,
    _folder: tempfile::TempDir,
}

/// A server of a shop's tables; with a plan of a switch where there is one.
async fn serve(shop: &Shop, url: &str, plan: Option<&str>, more: &[&str]) -> House {
    let folder = tempfile::tempdir().unwrap();
    plan.inspect(|plan| std::fs::write(folder.path().join("cutover.toml"), plan).unwrap());
    let arguments = ["--output", "json", "serve", "--listen", "127.0.0.1:0", "--shadow-tables", "${TABLES}"];
    let mut command = shop.command(&[&arguments, more].concat());
    command.current_dir(folder.path()).env_remove("CUTOVER_PLAN").env("TABLES", url);
    let server = Server::spawn(command, None).await;
    House { server, _folder: folder }
}

impl Deref for House {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// As a role that may look and nothing else.
async fn viewer(shop: &Shop) -> String {
    shop.0.execute("shop", "CREATE ROLE viewer LOGIN IN ROLE cutover_viewer").await.unwrap();
    shop.0.url("viewer", "shop")
}

async fn agent(shop: &Shop, upstream: &str) -> Server {
    let arguments = ["--output", "json", "agent", "--server", upstream, "--name", "node-1", "--listen", "127.0.0.1:0"];
    let agent = Server::spawn(shop.command(&arguments), None).await;
    ready(&agent).await;
    agent
}

async fn ready(house: &Server) {
    eventually(LIMIT, || async { house.get("/readyz").send().await.unwrap().status() == 200 }).await.unwrap();
}

/// Where this key reads: value and reason.
async fn told(house: &Server, flag: &str, key: &str) -> (Value, Value) {
    let (status, body) = answer(house.post(flag, json!({ "context": { "targetingKey": key, "instance": "test" } }).to_string())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    (body["value"].clone(), body["reason"].clone())
}

/// Waits until a key is told to read there, for this reason.
async fn comes_to(house: &Server, flag: &str, key: &str, value: &str, reason: &str) {
    let there = || async { told(house, flag, key).await == (value.into(), reason.into()) };
    if eventually(LIMIT, there).await.is_err() {
        panic!("{key} is told {:?}, not {value} for {reason}", told(house, flag, key).await);
    }
}

#[tokio::test]
async fn every_key_is_told_what_its_database_would_say_through_the_server_an_agent_and_the_sdk() {
    let shop = Shop::moving(3).await;
    let step = "SELECT advance_cutover_stage('orders', true, 'test')";
    shop.0.execute("shop", step).await.unwrap();
    let server = serve(&shop, &viewer(&shop).await, Some(PLAN), &[]).await;
    let agent = agent(&shop, &server.address).await;
    // The buckets are those of the tables' database, whatever the cutover is called.
    let flag = "/ofrep/v1/evaluate/flags/big.orders.read";
    let client = Client::builder(&agent.address).connect().await.unwrap();
    let (status, missing) = answer(server.post(flag, "{}")).await;
    assert_eq!((status, &missing["errorCode"]), (StatusCode::BAD_REQUEST, &"TARGETING_KEY_MISSING".into()), "{missing}");
    for stage in ["test_10", "half_50"] {
        let sql = "SELECT string_agg(CASE WHEN should_route_to_shadow('orders', 'read', 'user-' || i) THEN 't' ELSE 's' END, '' ORDER BY i) FROM generate_series(1, 10000) i";
        let expected: Vec<Side> = shop.text(sql).await.chars().map(|side| if side == 't' { Side::Target } else { Side::Source }).collect();
        let share = expected.iter().filter(|side| **side == Side::Target).count();
        assert!((800..5_500).contains(&share), "{stage}: {share}");
        let known = || async { answer(agent.post(flag, r#"{"context":{"targetingKey":"a"}}"#)).await.1["metadata"]["stage"] == stage };
        eventually(LIMIT, known).await.unwrap();
        for (house, every) in [(&*server, 1), (&agent, 10)] {
            let asked =
                stream::iter((1..=10_000_usize).step_by(every)).map(|i| async move { (i, told(house, flag, &format!("user-{i}")).await) });
            let mut answers = asked.buffer_unordered(16);
            while let Some((i, (value, reason))) = answers.next().await {
                assert_eq!((value, reason), (expected[i - 1].to_string().into(), "SPLIT".into()), "{stage}: user-{i}");
            }
        }
        eventually(LIMIT, || async { client.read_from("orders", "user-1") == Some(expected[0]) }).await.unwrap();
        let sides = (1..=10_000).map(|i| client.read_from("orders", &format!("user-{i}")).unwrap());
        assert!(sides.eq(expected), "{stage}: the SDK");
        shop.0.execute("shop", step).await.unwrap();
    }
    comes_to(&agent, flag, "anybody", "target", "TARGETING_MATCH").await;
}

#[tokio::test]
async fn a_change_is_told_to_those_who_listen_within_a_second() {
    let shop = Shop::moving(1).await;
    let server = serve(&shop, &viewer(&shop).await, None, &["--lease", "20s"]).await;
    let agent = agent(&shop, &server.address).await;
    for house in [&*server, &agent] {
        comes_to(house, READ, "anybody", "source", "SPLIT").await;
        let (_, bulk) = answer(house.post("/ofrep/v1/evaluate/flags", "{}")).await;
        let mut stream = house.client.get(bulk["eventStreams"][0]["url"].as_str().unwrap()).send().await.unwrap();
        let mut hears = async || {
            let chunk = tokio::time::timeout(LIMIT, stream.chunk()).await.unwrap().unwrap().unwrap();
            assert!(String::from_utf8(chunk.to_vec()).unwrap().contains("refetchEvaluation"));
        };
        hears().await;
        let etag = house.post("/ofrep/v1/evaluate/flags", "{}").send().await.unwrap().headers()["etag"].clone();
        let again = house.post("/ofrep/v1/evaluate/flags", "{}").header("if-none-match", etag.clone());
        assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
        // A rollback, which the lease alone would tell five seconds later.
        let begun = Instant::now();
        shop.0.execute("shop", "SELECT emergency_rollback('orders', 'test')").await.unwrap();
        hears().await;
        assert_eq!(told(house, READ, "anybody").await, ("source".into(), "TARGETING_MATCH".into()));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        let again = house.post("/ofrep/v1/evaluate/flags", "{}").header("if-none-match", etag);
        assert_eq!(again.send().await.unwrap().status(), StatusCode::OK);
        let climb = "SELECT start_gradual_cutover('orders', 0); SELECT advance_cutover_stage('orders', true, 'test')";
        shop.0.execute("shop", climb).await.unwrap();
    }
}

/// Cut off, crashed, and a connection that swallows everything: reads stay where they were, and that is said.
#[tokio::test]
async fn while_the_database_is_out_of_reach_reads_stay_and_are_told_as_not_sure() {
    let shop = Shop::moving(1).await;
    for _ in 0..3 {
        shop.0.execute("shop", "SELECT advance_cutover_stage('orders', true, 'test')").await.unwrap();
    }
    let url = viewer(&shop).await;
    let road = Proxy::start(format!("127.0.0.1:{}", shop.0.port())).await.unwrap();
    let server = serve(&shop, &road.url("viewer", "shop"), None, &["--lease", "1s"]).await;
    let beside = serve(&shop, &url, Some(PLAN), &["--lease", "1s"]).await;
    let agent = agent(&shop, &server.address).await;
    for house in [&*server, &agent] {
        comes_to(house, READ, "anybody", "target", "TARGETING_MATCH").await;
    }
    let shown = shop.verb(&["status", "--server", &server.address]).await.code(0);
    shown.says("shadow tables at 127.0.0.1:").says("orders  full_100").says("100 % of reads");
    road.stall().await.unwrap();
    for house in [&*server, &agent] {
        comes_to(house, READ, "anybody", "target", "UNKNOWN").await;
        eventually(LIMIT, || async { house.get("/readyz").send().await.unwrap().status() == 503 }).await.unwrap();
    }
    let (_, look) = answer(server.get("/v1/shadow-tables")).await;
    assert_eq!((&look["stale"], &look["tables"][0]["stage"]), (&true.into(), &"full_100".into()), "{look}");
    road.restore().await.unwrap();
    for house in [&*server, &agent] {
        comes_to(house, READ, "anybody", "target", "TARGETING_MATCH").await;
        ready(house).await;
    }
    // Beside a switch: that one is as sure as before.
    let read = "/ofrep/v1/evaluate/flags/big.orders.read";
    comes_to(&beside, read, "anybody", "target", "TARGETING_MATCH").await;
    shop.0.stop(Stop::Immediate).await.unwrap();
    comes_to(&beside, read, "anybody", "target", "UNKNOWN").await;
    assert_eq!(told(&beside, "/ofrep/v1/evaluate/flags/big.database.read", "anybody").await, ("source".into(), "TARGETING_MATCH".into()));
    ready(&beside).await;
    shop.0.start_again().await.unwrap();
    shop.0.execute("shop", "SELECT emergency_rollback('orders', 'while nobody heard of it')").await.unwrap();
    for (house, flag) in [(&*server, READ), (&agent, READ), (&*beside, read)] {
        comes_to(house, flag, "anybody", "source", "TARGETING_MATCH").await;
    }
}

/// Beside a switch: its stream of events tells of the tables as well.
#[tokio::test]
async fn whoever_follows_the_events_of_a_switch_is_told_where_the_tables_go() {
    let shop = Shop::moving(1).await;
    let server = serve(&shop, &viewer(&shop).await, Some(PLAN), &[]).await;
    comes_to(&server, "/ofrep/v1/evaluate/flags/big.orders.read", "anybody", "source", "SPLIT").await;
    let mut stream = server.client.get(format!("{}/v1/events", server.address)).send().await.unwrap();
    shop.0.execute("shop", "SELECT emergency_rollback('orders', 'test')").await.unwrap();
    let mut told = String::new();
    while !told.contains("\n\n") {
        let chunk = tokio::time::timeout(LIMIT, stream.chunk()).await.unwrap().unwrap().unwrap();
        told += std::str::from_utf8(&chunk).unwrap();
    }
    assert!(told.contains("event: shadow_table") && told.contains("\"stage\":\"disabled\""), "{told}");
}

/// Every stock provider. One that evaluates rules itself is told where all go, and no share: then the application's own default counts.
#[tokio::test]
async fn stock_providers_are_told_where_a_table_is_read_and_flagds_in_process_are_told_no_share() {
    let shop = Shop::moving(1).await;
    let server = serve(&shop, &viewer(&shop).await, None, &["--lease", "4s"]).await;
    shop.0
        .execute("shop", "SELECT advance_cutover_stage('orders', true, 'test'), advance_cutover_stage('orders', true, 'test')")
        .await
        .unwrap();
    comes_to(&server, READ, "user-1", "source", "SPLIT").await;
    let sql =
        "SELECT string_agg('user-' || i, ',') FROM generate_series(1, 20) i WHERE should_route_to_shadow('orders', 'read', 'user-' || i)";
    let there: Vec<String> = shop.text(sql).await.split(',').map(str::to_owned).collect();
    let keys: Vec<String> = (1..=20).map(|i| format!("user-{i}")).collect();
    let ask: Vec<_> =
        keys.iter().map(|key| ("shop.orders.read", json!("default"), json!({ "targetingKey": key, "instance": "pod" }))).collect();
    let mut providers = Vec::new();
    for stock in ALL {
        let mut provider = stock.start(&server.address, None, None).await;
        let told = provider.asked(&ask).await;
        for (key, told) in keys.iter().zip(&told) {
            let side = if there.contains(key) { "target" } else { "source" };
            let expected = if stock.way == Way::InProcess { "default" } else { side };
            assert_eq!(told["value"], expected, "{stock:?}: {key}: {told}");
        }
        providers.push((stock, provider));
    }
    for (step, side) in [("advance_cutover_stage('orders', true, 'test')", "target"), ("emergency_rollback('orders', 'test')", "source")] {
        shop.0.execute("shop", &format!("SELECT {step}")).await.unwrap();
        let begun = Instant::now();
        for (stock, provider) in &mut providers {
            while provider.asked(&ask[..1]).await[0]["value"] != side {
                assert!(begun.elapsed() < LIMIT, "{stock:?} is not told {side}");
            }
        }
    }
}

/// C42; and one that is unhealthy is read at the primary, as its database does.
#[tokio::test]
async fn c42_the_tables_are_shown_and_measured_beside_a_switch() {
    let shop = Shop::moving(2).await;
    let server = serve(&shop, &viewer(&shop).await, Some(PLAN), &[]).await;
    let refuse = "ALTER TABLE orders_shadow ADD CHECK (v <> 0) NOT VALID; UPDATE orders SET v = 0";
    shop.0.execute("shop", refuse).await.unwrap();
    let queued = || async { answer(server.get("/v1/shadow-tables")).await.1["tables"][0]["queued"] == 2 };
    eventually(LIMIT, queued).await.unwrap();
    let (_, status) = answer(server.get("/v1/status")).await;
    let orders = &status["shadow_tables"]["tables"][0];
    assert_eq!(
        (&status["phase"], &orders["stage"], &orders["next"]),
        (&"not begun".into(), &"test_1".into(), &"cutover sql drain orders".into())
    );
    let (_, text) = answer(server.get("/v1/status/text")).await;
    assert!(text.as_str().unwrap().contains("shadow tables at 127.0.0.1:"), "{text}");
    assert!(text.as_str().unwrap().contains("1 % of reads, health unknown, 2 keys queued"), "{text}");
    let metrics = async || server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let told = metrics().await;
    for line in [
        "cutover_shadow_reads_ratio{table=\"orders\"} 0.01",
        "cutover_shadow_queued_keys{table=\"orders\"} 2.0",
        "cutover_shadow_stage{table=\"orders\",stage=\"test_1\"} 1",
        "cutover_shadow_health{table=\"orders\",health=\"unknown\"} 1",
        "cutover_shadow_epoch{table=\"orders\"} 2.0",
        "cutover_shadow_age_seconds 0.",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(!told.contains("cutover_shadow_consistency_ratio{"), "what nobody has measured has no series: {told}");
    shop.0.execute("shop", "ALTER TABLE orders_shadow DROP CONSTRAINT orders_shadow_v_check; SELECT drain('orders')").await.unwrap();
    record(&shop, 2).await;
    shop.0.execute("shop", "SELECT perform_cutover_health_check('orders')").await.unwrap();
    let measured = || async {
        let told = metrics().await;
        [
            "errors_ratio{table=\"orders\"} 0.02",
            "latency_increase_ratio{table=\"orders\"} 0.0",
            "consistency_ratio{table=\"orders\"} ",
            "failed_checks{table=\"orders\"} 1.0",
        ]
        .iter()
        .all(|line| told.contains(&format!("cutover_shadow_{line}")))
    };
    if eventually(LIMIT, measured).await.is_err() {
        panic!("{}", metrics().await);
    }
    for _ in 0..3 {
        shop.0.execute("shop", "SELECT advance_cutover_stage('orders', true, 'test')").await.unwrap();
    }
    let flag = "/ofrep/v1/evaluate/flags/big.orders.read";
    comes_to(&server, flag, "anybody", "target", "TARGETING_MATCH").await;
    shop.0.execute("shop", "UPDATE cutover.traffic_routing_config SET health_status = 'unhealthy'").await.unwrap();
    comes_to(&server, flag, "anybody", "source", "TARGETING_MATCH").await;
    assert!(metrics().await.contains("cutover_shadow_reads_ratio{table=\"orders\"} 0.0"));
}

#[tokio::test]
async fn a_server_of_tables_that_can_t_be_asked_is_told_at_once_and_beside_a_switch_it_is_waited_for() {
    let shop = Shop::open(1).await;
    shop.verb(&["serve", "--shadow-tables", "${CUTOVER_SQL_URL}"]).await.code(1).says("cutover sql install");
    shop.verb(&["serve", "--shadow-tables", "postgres://a@127.0.0.1:9/c"]).await.code(1).says("127.0.0.1:9");
    let standby = shop.0.basebackup_standby("standby").await.unwrap();
    shop.verb(&["serve", "--shadow-tables", &standby.url("postgres", "shop")]).await.code(1).says("is a standby").says("name the primary");
    // Who names a plan means it.
    shop.verb(&["serve", "--plan", "other.toml", "--shadow-tables", "${CUTOVER_SQL_URL}"])
        .await
        .code(2)
        .says("can't read the plan other.toml");
    let server = serve(&shop, &shop.0.url("postgres", "shop"), Some(PLAN), &["--schema", "moving"]).await;
    ready(&server).await;
    let (status, _) = answer(server.post("/ofrep/v1/evaluate/flags/big.orders.read", "{}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, text) = answer(server.get("/v1/status/text")).await;
    assert!(text.as_str().unwrap().contains("has not answered yet"), "{text}");
    shop.sql(&["install", "--schema", "moving"]).await.code(0);
    shop.0.execute("shop", "SELECT moving.create_shadow_table('orders')").await.unwrap();
    let found = || async { answer(server.post("/ofrep/v1/evaluate/flags/big.orders.read", "{}")).await.0 == StatusCode::OK };
    eventually(LIMIT, found).await.unwrap();
    assert_eq!(told(&server, "/ofrep/v1/evaluate/flags/big.orders.read", "anybody").await.0, "source");
}

/// Names that are as long as can be, so that whatever an answer is limited by holds them.
#[tokio::test]
async fn as_many_tables_as_are_served_fit_into_every_answer() {
    let shop = Shop::open(1).await;
    shop.sql(&["install", "--short-names"]).await.code(0);
    let many = "INSERT INTO cutover.shadow_table (table_name, primary_table, shadow_table, key_columns, shadow_key_columns, up, down, refresh_function, next_keys_function, compare_function, created_by) \
        SELECT rpad('a', 63, 'b') || '.' || lpad(i::text, 63, 'c'), i::oid, (i + 10000)::oid, '{}', '{}', '{}', '{}', '', '', '', '' FROM generate_series(1, 501) i; \
        INSERT INTO cutover.traffic_routing_config (table_name, salt, updated_by, read_percentage, cutover_stage) \
        SELECT table_name, 'shop.' || table_name, '', 50, 'half_50' FROM cutover.shadow_table ON CONFLICT (table_name) DO UPDATE SET read_percentage = 50";
    shop.0.execute("shop", many).await.unwrap();
    let server = serve(&shop, &viewer(&shop).await, None, &[]).await;
    let agent = agent(&shop, &server.address).await;
    let client = Client::builder(&agent.address).connect().await.unwrap();
    let last = format!("{:b<63}.{:c>63}", "a", 500);
    for house in [&*server, &agent] {
        let flag = format!("/ofrep/v1/evaluate/flags/shop.{last}.read");
        comes_to(house, &flag, "user-1", &client.read_from(&last, "user-1").unwrap().to_string(), "SPLIT").await;
    }
    let (_, look) = answer(server.get("/v1/shadow-tables")).await;
    assert_eq!((&look["more"], look["tables"].as_array().unwrap().len()), (&true.into(), 500));
    let (_, bulk) = answer(agent.post("/ofrep/v1/evaluate/flags", r#"{"context":{"targetingKey":"a"}}"#)).await;
    assert!(bulk["flags"].as_array().unwrap().len() > 500);
}

/// C21: a server that is told to looks after the tables, where nobody else does: it brings what is queued, and rolls back what fails.
#[tokio::test]
async fn c21_a_server_that_looks_after_the_tables_brings_what_is_queued_and_rolls_back() {
    let shop = Shop::moving(20).await;
    shop.0.execute("shop", "CREATE ROLE keeper LOGIN IN ROLE cutover_operator; SELECT enable_dual_write('orders', 'async')").await.unwrap();
    let server = serve(&shop, &shop.0.url("keeper", "shop"), None, &["--watch-tables", "1s"]).await;
    ready(&server).await;
    shop.0.execute("shop", "UPDATE orders SET v = v + 1").await.unwrap();
    let table = || async { answer(server.get("/v1/shadow-tables")).await.1["tables"][0].clone() };
    let client = shop.0.client("shop").await.unwrap();
    let brought = || async {
        let told = client.query_one("SELECT verdict FROM validate_table_consistency('orders')", &[]).await.unwrap();
        told.get::<_, String>(0) == "same"
    };
    eventually(LIMIT, brought).await.unwrap();
    let fails = "SELECT record_cutover_operation('orders', 'read', 10, i > 50, true), record_cutover_operation('orders', 'read', 10) FROM generate_series(1, 200) i";
    shop.0.execute("shop", fails).await.unwrap();
    if eventually(LIMIT, || async { table().await["stage"] == "disabled" }).await.is_err() {
        panic!("{:?}", table().await);
    }
}
