//! B2: what a migration took away and clients still use is told before the switch, which does not begin.

use std::time::Duration;

use cutover_testkit::{Cluster, installs};

use crate::world::{DATABASE, Making, World};

const SOON: Duration = Duration::from_secs(60);

/// What the application has besides the bank.
const SHOP: &str = "CREATE TABLE public.orders (id int PRIMARY KEY, code text, total int); INSERT INTO public.orders VALUES (1, 'a', 5); \
     CREATE TABLE public.quiet (id int PRIMARY KEY, old text); INSERT INTO public.quiet VALUES (1, 'b'); \
     CREATE VIEW public.overview AS SELECT id, code AS sku FROM public.orders; \
     GRANT ALL ON public.orders, public.quiet, public.overview TO app; CREATE EXTENSION pg_stat_statements";

/// From 15 to the newest at hand, with a migration, and more of a plan.
async fn migrated(migration: &str, more: &str) -> World {
    let psql = cutover_testkit::newest_tools().unwrap().join("psql");
    let hook = format!("[hooks]\nmigrate = \"{} -v ON_ERROR_STOP=1 -c '{migration}'\"\n{more}", psql.display());
    let target = installs().pop().unwrap().major;
    let settings = &[("shared_preload_libraries", "pg_stat_statements")];
    let world = World::made(Making { source: 15, target, more: &hook, settings, ..Making::default() }).await;
    world.source.execute(DATABASE, SHOP).await.unwrap();
    world
}

/// What clients of a side say.
async fn say(cluster: &Cluster, statements: &[&str]) {
    let client = cluster.client(DATABASE).await.unwrap();
    client.batch_execute("SET ROLE app").await.unwrap();
    for sql in statements {
        client.batch_execute(sql).await.unwrap();
    }
}

/// Defines at the target as nobody should: a superuser past the gate.
async fn define(world: &World, sql: &str) {
    let client = world.target.client(DATABASE).await.unwrap();
    client.batch_execute(&format!("SET session_replication_role = replica; {sql}")).await.unwrap();
}

#[tokio::test]
async fn b2_a_column_that_clients_use_and_a_migration_dropped_keeps_the_switch_from_beginning() {
    let world = migrated("ALTER VIEW public.overview RENAME COLUMN sku TO article", "").await;
    let load = world.load(4).await;
    say(&world.source, &["SELECT id, sku FROM overview WHERE id = 1", "SELECT id, sku FROM overview WHERE id = 2"]).await;
    let said = world.cutover(&["run", "--until", "ready"]).await.code(0);
    assert!(said.err.contains("column public.overview.sku is missing"), "it is told as soon as the migration is through: {said:?}");
    let words =
        ["column public.overview.sku is missing; article has the same type", "2 calls by app: SELECT id, sku FROM overview WHERE id = $1"];
    for verb in ["check", "run"] {
        let said = world.cutover(&[verb]).await.code(3);
        words.iter().for_each(|word| assert!(said.out.contains(word), "{word}: {said:?}"));
    }
    assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), ("source", "following"));
    assert!(!world.cutover(&["audit"]).await.code(0).out.contains("switch_started"), "nothing was begun");

    define(&world, "ALTER VIEW public.overview RENAME COLUMN article TO sku").await;
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    world.judge(load).await;
}

#[tokio::test]
async fn b2_a_dropped_column_of_a_table_is_told_after_the_migration_and_passes_only_with_a_reason() {
    let drops = "ALTER TABLE public.quiet DROP COLUMN old";
    let world = migrated(drops, "").await;
    let said = world.cutover(&["run", "--until", "ready"]).await.code(3);
    assert!(said.err.contains("column public.quiet.old is missing"), "{said:?}");
    world.cutover(&["check"]).await.code(3).says("column public.quiet.old is missing").says("counts only since").says("stops the stream");

    let plan = std::fs::read_to_string(world.folder.path().join("cutover.toml")).unwrap();
    let accept = "[[compatibility.accept]]\nname = \"public.quiet.old\"\nreason = \"nobody has read it for a year\"\n";
    std::fs::write(world.folder.path().join("cutover.toml"), format!("{plan}\n{accept}")).unwrap();
    world.cutover(&["check"]).await.code(0).says("accepted: column public.quiet.old is missing").says("nobody has read it for a year");
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
}

/// The usual migration: it only adds. What new clients write into the new column has nowhere to go on the way back, and
/// stops nothing.
#[tokio::test]
async fn b2_a_column_that_a_migration_added_is_told_on_the_way_back_and_stops_nothing() {
    let world = migrated("ALTER TABLE public.orders ADD COLUMN region text; ALTER TABLE bank.accounts ADD COLUMN seen text", "").await;
    let load = world.load(4).await;
    world.ready().await;
    world.cutover(&["run"]).await.code(0);
    load.wait_acknowledged(100, SOON).await.unwrap();
    say(&world.target, &["UPDATE public.orders SET region = 'north', total = 6 WHERE id = 1", "SELECT region FROM orders"]).await;
    let said = world.cutover(&["rollback", "--reason", "and back"]).await.code(0);
    assert!(said.err.contains("column public.orders.region is missing") && said.err.contains("SELECT region FROM orders"), "{said:?}");
    assert_eq!(world.authority().await, "source");
    assert_eq!(world.ask(&world.source, "SELECT total FROM public.orders").await, "6");
    world.judge(load).await;
}
