//! A plan that leaves tables out: what is covered loses nothing, what is not is left alone.

use std::time::Duration;

use cutover_testkit::{bank::Load, eventually};
use tokio_postgres::Client;

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(60);

const EXCLUDE: &str = "[tables]\nexclude = ['bank.audit_*', 'billing.*', 'public.\"Tmp.1\"']";

/// Tables that stay: one that is large and has a sequence, a schema with a view, one with an odd name and no key.
const LEFT_OUT: &str = "CREATE TABLE bank.audit_log (id bigserial PRIMARY KEY, note text);
    INSERT INTO bank.audit_log (note) SELECT repeat('x', 500) FROM generate_series(1, 2000);
    CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int PRIMARY KEY, paid boolean) PARTITION BY RANGE (id);
    CREATE TABLE billing.invoices_1 PARTITION OF billing.invoices FOR VALUES FROM (0) TO (1000);
    CREATE VIEW billing.open AS SELECT id FROM billing.invoices WHERE NOT paid;
    CREATE STATISTICS billing.related ON id, paid FROM billing.invoices_1;
    INSERT INTO billing.invoices VALUES (1, false);
    CREATE TABLE public.\"Tmp.1\" (v text); INSERT INTO public.\"Tmp.1\" VALUES ('stays');
    GRANT USAGE ON SCHEMA billing TO app; GRANT ALL ON bank.audit_log, bank.audit_log_id_seq, billing.invoices TO app";

/// Clients write to what is left out at the source, whoever is in charge of the rest.
async fn write_outside(source: &Client) {
    let sql = "INSERT INTO bank.audit_log (note) VALUES ('more'); UPDATE billing.invoices SET paid = true WHERE id = 1; INSERT INTO public.\"Tmp.1\" VALUES ('too')";
    source.batch_execute(sql).await.unwrap();
}

async fn more_writes(load: &Load) {
    load.wait_acknowledged(150, SOON).await.unwrap();
}

#[tokio::test]
async fn a_switch_and_the_way_back_cover_what_the_plan_covers_and_leave_the_rest_alone() {
    let world = World::of(15, 17, EXCLUDE).await;
    let source = world.source.client(DATABASE).await.unwrap();
    source.batch_execute(LEFT_OUT).await.unwrap();
    world.cutover(&["check"]).await.code(0).says("leaves out 5 relations").says("bank.audit_log: table");
    world.cutover(&["plan"]).await.code(0).says("left out:").says("bank.audit_log (").says("billing.open");
    let load = world.load(6).await;
    world.ready().await;

    let there = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname = 'billing' OR relname ~ '^(audit_log|Tmp)'";
    assert_eq!(world.ask(&world.target, there).await, "0", "neither table nor sequence nor statistics are at the target");
    let outside = "(tgrelid::regclass::text ~ 'audit_log|billing|Tmp')";
    assert_eq!(world.ask(&world.source, &format!("SELECT count(*) FROM pg_trigger WHERE {outside}")).await, "0");
    assert_eq!(
        world.ask(&world.source, "SELECT count(*) FROM pg_publication_tables WHERE tablename ~ 'audit_log|invoices|Tmp'").await,
        "0"
    );
    let status = world.status().await;
    let names: Vec<&str> = status["left_out"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "audit_log", "the largest first: {names:?}");
    assert!(["invoices", "invoices_1", "open", "Tmp.1", "audit_log_id_seq"].iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!((&status["drift"], &status["warnings"]), (&serde_json::json!([]), &serde_json::json!([])), "{status:#}");
    let audit = world.cutover(&["audit", "--output", "json"]).await.code(0).json();
    let created = &audit["entries"][0]["body"]["filter"]["exclude"];
    assert_eq!(created, &serde_json::json!(["bank.audit_*", "billing.*", "public.\"Tmp.1\""]));
    assert!(audit["entries"].to_string().contains("\"relations_left_out\":6"), "{audit:#}");

    write_outside(&source).await;
    world.cutover(&["run"]).await.code(0).says("neither moved nor fenced: bank.audit_log (");
    assert_eq!(world.authority().await, "target");
    let refused = source.batch_execute("DELETE FROM bank.orders").await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("fenced"), "{refused:?}");
    // Nobody fences what is left out, and verification is not about it.
    write_outside(&source).await;
    more_writes(&load).await;
    let report = world.cutover(&["verify", "--output", "json"]).await.code(0).json();
    assert_eq!(report["differences_total"], 0, "{report:#}");
    world.cutover(&["verify", "--table", "bank.audit_log"]).await.code(1).says("neither side has a table bank.audit_log").says("[tables]");

    world.cutover(&["rollback", "--reason", "to see what stays"]).await.code(0);
    assert_eq!(world.authority().await, "source");
    write_outside(&source).await;
    more_writes(&load).await;
    world.cutover(&["run"]).await.code(0);
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
    let kept = "SELECT count(*) || ' ' || max(id) || ' ' || (SELECT count(*) FROM public.\"Tmp.1\") FROM bank.audit_log";
    assert_eq!(
        world.ask(&world.source, kept).await,
        "2003 2003 4",
        "every row is where it was written, and no value of the sequence was skipped"
    );
    assert_eq!(world.ask(&world.target, there).await, "0");
}

/// What the filter says holds for what is made later, and for what is given another name.
#[tokio::test]
async fn a_new_table_is_noticed_inside_the_filter_and_nobodys_business_outside() {
    let world = World::of(15, 15, "[tables]\ninclude = ['bank.*']\nexclude = ['bank.tmp_*']").await;
    let source = world.source.client(DATABASE).await.unwrap();
    let sql =
        "CREATE TABLE bank.tmp_0 (v int); CREATE TABLE public.report (v int); CREATE SEQUENCE public.reports; CREATE SEQUENCE bank.kept";
    source.batch_execute(sql).await.unwrap();
    world.ready().await;
    assert_eq!(
        world.ask(&world.target, "SELECT to_regclass('public.reports') IS NULL AND to_regclass('bank.kept') IS NOT NULL").await,
        "true"
    );
    let armed = |table: &str| format!("SELECT count(*) FROM pg_trigger WHERE tgname = 'cutover_gate' AND tgrelid = '{table}'::regclass");

    source
        .batch_execute("CREATE TABLE bank.tmp_1 (v int); CREATE TABLE public.later AS SELECT 1 AS v; CREATE SEQUENCE public.more")
        .await
        .unwrap();
    for table in ["bank.tmp_1", "public.later"] {
        assert_eq!(world.ask(&world.source, &armed(table)).await, "0", "{table}");
    }
    assert_eq!(world.status().await["drift"], serde_json::json!([]));

    source.batch_execute("CREATE TABLE bank.extra (id int PRIMARY KEY)").await.unwrap();
    assert_eq!(world.ask(&world.source, &armed("bank.extra")).await, "1");
    world.cutover(&["status"]).await.code(0).says("table bank.extra was made");
    world.cutover(&["run"]).await.code(1).says("\"bank\".\"extra\" is at the source only");
    assert_eq!(world.authority().await, "source");
    // Another name does not make it go away: what moves and what does not was decided.
    source.batch_execute("DROP TABLE bank.extra; ALTER TABLE bank.events RENAME TO tmp_events").await.unwrap();
    world.cutover(&["run"]).await.code(1).says("tmp_events").says("rename it back");
    assert_eq!(world.authority().await, "source");
    source.batch_execute("ALTER TABLE bank.tmp_events RENAME TO events").await.unwrap();
    world.cutover(&["run"]).await.code(0);

    // At the target, where it is made now, the same.
    let target = world.target.client(DATABASE).await.unwrap();
    target.batch_execute("CREATE TABLE bank.tmp_2 AS SELECT 1 AS v; CREATE TABLE bank.extra (id int PRIMARY KEY)").await.unwrap();
    assert_eq!(world.ask(&world.target, &armed("bank.tmp_2")).await, "0");
    assert_eq!(world.ask(&world.target, &armed("bank.extra")).await, "1");
    world.cutover(&["rollback", "--reason", "back"]).await.code(0);
    assert_eq!(world.authority().await, "source");
}

#[tokio::test]
async fn what_a_cutover_covers_can_not_change_under_way() {
    let world = World::of(15, 15, EXCLUDE).await;
    let source = world.source.client(DATABASE).await.unwrap();
    source.batch_execute(LEFT_OUT).await.unwrap();
    world.ready().await;
    for other in ["", "[tables]\nexclude = ['bank.audit_*', 'billing.*']", &format!("{EXCLUDE}\ndefinitions = true")] {
        world.write_plan(other);
        for arguments in [&["run"][..], &["run", "--until", "ready"], &["check"]] {
            world
                .cutover(arguments)
                .await
                .code(1)
                .says("the plan's [tables] has changed since the cutover began")
                .says("put [tables] back");
        }
        world.cutover(&["status"]).await.code(0).says("[tables] has changed").says("left out 5 relations");
        assert_eq!(world.authority().await, "source");
    }
    let entries = world.cutover(&["audit"]).await.code(0).out;
    assert!(!entries.contains("plan_revised") && !entries.contains("switch_started"), "{entries}");
    // Spelled otherwise, it is the same; and the rest of the plan may change.
    world.write_plan(
        &format!("{EXCLUDE}\n[verify]\njobs = 1\n[[table]]\nname = \"bank.orders\"\nchunk_rows = 10").replace("billing.*", "\"billing\".*"),
    );
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
    world.cutover(&["audit"]).await.code(0).says("plan_revised");
}

/// With `definitions` the target has what is left out, without rows, and what needs it works; constraints to rows that
/// do not move are left out where the plan says so.
#[tokio::test]
async fn definitions_and_foreign_keys_across_the_border_are_as_the_plan_says() {
    let filter = "[tables]\nexclude = ['public.region', 'public.log', 'public.\"odd log\"']";
    let world = World::of(15, 16, filter).await;
    let source = world.source.client(DATABASE).await.unwrap();
    source
        .batch_execute(
            "CREATE TABLE public.region (id int PRIMARY KEY); INSERT INTO public.region VALUES (1);
             CREATE TABLE public.shop (id int PRIMARY KEY, region int CONSTRAINT \"to region\" REFERENCES public.region);
             INSERT INTO public.shop VALUES (1, 1), (2, 1); CREATE VIEW public.regions AS SELECT id FROM public.region;
             CREATE TABLE public.log (id serial PRIMARY KEY, shop int REFERENCES public.shop); INSERT INTO public.log (shop) VALUES (1);
             CREATE TABLE public.\"odd log\" (v int); CREATE STATISTICS public.odd ON id, region FROM public.shop;
             CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.log (shop) VALUES (NEW.id); RETURN NULL; END $$;
             CREATE TRIGGER note AFTER INSERT ON public.shop FOR EACH ROW EXECUTE FUNCTION public.note()",
        )
        .await
        .unwrap();
    let said =
        world.cutover(&["check"]).await.code(3).says("can't be built at the target").says("view public.regions needs table public.region");
    assert!(said.out.contains("its trigger runs public.note()"), "{said:?}");
    world.cutover(&["run", "--until", "ready"]).await.code(3).says("view public.regions");

    world.write_plan(&format!("{filter}\ndefinitions = true\ncut_foreign_keys = true"));
    world.ready().await;
    let rows = "SELECT (SELECT count(*) FROM public.region) || ' ' || (SELECT count(*) FROM public.log) || ' ' || (SELECT count(*) FROM public.shop)";
    assert_eq!(world.ask(&world.target, rows).await, "0 0 2");
    let keys = "SELECT string_agg(conname, ', ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace";
    assert_eq!(world.ask(&world.target, keys).await, "log_shop_fkey");
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM pg_statistic_ext").await, "1");
    source.batch_execute("INSERT INTO public.shop VALUES (3, 1)").await.unwrap();
    world.cutover(&["run"]).await.code(0);
    let target = world.target.client(DATABASE).await.unwrap();
    target.batch_execute("INSERT INTO public.shop VALUES (4, 1)").await.unwrap();
    assert_eq!(world.ask(&world.target, rows).await, "0 1 4", "its trigger wrote at the target, and from the source came no row");
    world.cutover(&["verify"]).await.code(0);
    world.cutover(&["rollback", "--reason", "back"]).await.code(0);
    let at_source = eventually(SOON, || async { world.ask(&world.source, rows).await == "1 2 4" }).await;
    assert!(at_source.is_ok(), "{}", world.ask(&world.source, rows).await);
}
