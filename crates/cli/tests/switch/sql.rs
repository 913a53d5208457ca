//! `cutover sql`: shadow tables from the command line, which is no more than what psql can do, with progress and an end.

use std::{process::Stdio, time::Duration};

use cutover_testkit::{Cluster, ClusterOptions, eventually, install};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use crate::world::Said;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn signal(child: &Child, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), signal).unwrap();
}

/// A database with a table of so many rows, and the functions where they are wanted.
pub(crate) struct Shop(pub(crate) Cluster);

impl Shop {
    pub(crate) async fn open(rows: u32) -> Self {
        Self::on(15, rows).await
    }

    /// With its table on its way, at `test_1`.
    pub(crate) async fn moving(rows: u32) -> Self {
        let shop = Self::open(rows).await;
        shop.sql(&["install", "--short-names"]).await.code(0);
        shop.0.execute("shop", "SELECT create_shadow_table('orders'), enable_dual_write('orders')").await.unwrap();
        shop.sql(&["backfill", "orders"]).await.code(0);
        shop.0.execute("shop", "SELECT start_gradual_cutover('orders', 0)").await.unwrap();
        shop.0.execute("shop", "SELECT advance_cutover_stage('orders', true, 'it''s time — now')").await.unwrap();
        shop
    }

    pub(crate) async fn on(major: u32, rows: u32) -> Self {
        let server = Cluster::start(&install(major).unwrap(), ClusterOptions::named("sql").not_durable()).await.unwrap();
        server.create_database("shop").await.unwrap();
        let sql = format!(
            "CREATE TABLE orders (id int PRIMARY KEY, v int); INSERT INTO orders SELECT i, i FROM generate_series(1, {rows}) i; ANALYZE orders"
        );
        server.execute("shop", &sql).await.unwrap();
        Self(server)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.args(arguments).env("CUTOVER_SQL_URL", self.0.url("postgres", "shop"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub(crate) async fn sql(&self, arguments: &[&str]) -> Said {
        let output =
            tokio::time::timeout(LIMIT, self.command(&[&["sql"], arguments].concat()).output()).await.expect("it did not end").unwrap();
        Said::of(output)
    }

    /// Any verb, in a folder with no plan.
    pub(crate) async fn verb(&self, arguments: &[&str]) -> Said {
        let nowhere = tempfile::tempdir().unwrap();
        let mut command = self.command(arguments);
        let output = command.current_dir(nowhere.path()).env_remove("CUTOVER_PLAN").output();
        Said::of(tokio::time::timeout(LIMIT, output).await.expect("it did not end").unwrap())
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        self.0.client("shop").await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn a_table_is_filled_beside_those_who_write_and_again_from_where_it_was_stopped() {
    let shop = Shop::open(3_000).await;
    let script = shop.sql(&["install", "--print"]).await.code(0).out;
    assert!(script.contains("CREATE OR REPLACE FUNCTION cutover.create_shadow_table"), "{script}");
    shop.sql(&["backfill", "orders"]).await.code(1).says("cutover");
    let installed = shop.sql(&["install", "--short-names", "--output", "json"]).await.code(0).json();
    assert_eq!((&installed["schema"], &installed["before"]), (&"cutover".into(), &serde_json::Value::Null));
    shop.sql(&["install"]).await.code(0).says("was there already");
    shop.sql(&["backfill", "nothing"]).await.code(1).says("there is no table nothing");
    shop.sql(&["backfill", "orders"]).await.code(1).says("has no shadow table").says("hint: ");
    shop.0.execute("shop", "SELECT create_shadow_table('orders')").await.unwrap();
    shop.sql(&["backfill", "orders"]).await.code(1).says("enable_dual_write");
    shop.0.execute("shop", "SELECT enable_dual_write('orders')").await.unwrap();

    // Ctrl-C in the middle: three thousand rows at a hundred a second.
    let child = shop.command(&["sql", "backfill", "orders", "--batch", "50", "--max-rate", "100"]).spawn().unwrap();
    let some = || async { shop.text("SELECT backfill_rows::text FROM cutover.dual_write_config").await != "0" };
    eventually(LIMIT, some).await.unwrap();
    signal(&child, Signal::SIGINT);
    let stopped = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it does not stop").unwrap();
    Said::of(stopped).code(1).says("stopped after").says("goes on there");
    shop.0.execute("shop", "UPDATE orders SET v = -v WHERE id % 3 = 0").await.unwrap();
    let done = shop.sql(&["backfill", "orders", "--output", "json"]).await.code(0).json();
    assert_eq!(done["rows"], 3_000, "each once: {done}");
    assert_eq!(shop.text("SELECT verdict FROM validate_table_consistency('orders')").await, "same");
    shop.sql(&["backfill", "orders"]).await.code(0).says("every row was brought");
}

#[tokio::test]
async fn the_queue_is_drained_and_what_can_t_be_brought_is_told() {
    let shop = Shop::open(10).await;
    shop.sql(&["drain"]).await.code(1).says("cutover sql install");
    shop.sql(&["install", "--schema", "moving"]).await.code(0);
    shop.0.execute("shop", "SELECT moving.create_shadow_table('orders'), moving.enable_dual_write('orders', 'async')").await.unwrap();
    shop.sql(&["backfill", "orders", "--schema", "moving"]).await.code(0);
    shop.0.execute("shop", "UPDATE orders SET v = 0 WHERE id <= 3; ALTER TABLE orders_shadow ADD CHECK (id <> 2) NOT VALID").await.unwrap();
    let left = shop.sql(&["drain", "--schema", "moving"]).await.code(4);
    left.says("2 rows brought, 1 keys queued").says("SELECT why, count(*) FROM moving.dirty_key");
    shop.0.execute("shop", "ALTER TABLE orders_shadow DROP CONSTRAINT orders_shadow_id_check").await.unwrap();
    let done = shop.sql(&["drain", "orders", "--schema", "moving", "--output", "json"]).await.code(0).json();
    assert_eq!((&done["brought"], &done["queued"]), (&1.into(), &0.into()));

    let child = shop.command(&["sql", "drain", "--schema", "moving", "--follow", "--every", "20ms"]).spawn().unwrap();
    shop.0.execute("shop", "DELETE FROM orders WHERE id = 5").await.unwrap();
    let gone = || async { shop.text("SELECT count(*)::text FROM orders_shadow").await == "9" };
    eventually(LIMIT, gone).await.unwrap();
    signal(&child, Signal::SIGTERM);
    let stopped = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it does not stop").unwrap();
    Said::of(stopped).code(0).says("1 rows brought, 0 keys queued");
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_done() {
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        let output = command.arg("sql").args(arguments).env_remove("CUTOVER_SQL_URL").stdin(Stdio::null()).output();
        Said::of(tokio::time::timeout(LIMIT, output).await.expect("it did not end").unwrap())
    };
    run(&["install"]).await.code(2).says("--url");
    run(&["install", "--url", "mysql://a@b/c"]).await.code(2);
    run(&["install", "--print", "--schema", "Robert'); DROP"]).await.code(2).says("lower-case letters");
    run(&["backfill", "orders", "--url", "postgres://a@b/c", "--batch", "0"]).await.code(2).says("1..=100000");
    run(&["drain", "--url", "postgres://a@127.0.0.1:9/c"]).await.code(1).says("127.0.0.1");
    run(&["status", "--url", "postgres://a@127.0.0.1:9/c"]).await.code(1).says("127.0.0.1");
}
