//! What the clients of one side use and the other lacks: found in both catalogues, weighed by what the clients say.

use cutover_core::{
    Side::{self, Source, Target},
    plan::Accept,
};
use cutover_postgres::preflight::Severity::{Error, Info, Warning};
use cutover_testkit::{eventually, install, installs};
use tokio::sync::OnceCell;

use crate::support::{Case, Pair, WAIT, matching, start_pair};

const CHECK: &str = "compatibility";

const TABLES: &str = "CREATE TABLE public.orders (id int PRIMARY KEY, code text, total numeric, note varchar(20)); \
     CREATE TABLE public.items (id int PRIMARY KEY, code text); GRANT ALL ON ALL TABLES IN SCHEMA public TO app";

/// From 15 to the newest, both of which count what clients say.
async fn counting_pair() -> &'static Pair {
    static PAIR: OnceCell<Pair> = OnceCell::const_new();
    PAIR.get_or_init(|| async {
        let source = install(15).unwrap();
        let target = installs().pop().unwrap();
        let pair = start_pair(&source, &target, &|options| options.set("shared_preload_libraries", "pg_stat_statements")).await;
        for cluster in [&pair.source, &pair.target] {
            cluster.execute("postgres", "CREATE ROLE app LOGIN").await.unwrap();
        }
        pair
    })
    .await
}

/// A database on each side with the same tables, whose clients log in as `app`.
async fn case(name: &str) -> Case<'static> {
    let pair = counting_pair().await;
    let mut case = Case::new(pair, name).await;
    case.plan.application_roles = vec!["app".to_owned()];
    case.prepared = true;
    case.authority = Some(Source);
    for side in Side::BOTH {
        case.sql(side, &format!("CREATE EXTENSION pg_stat_statements; {TABLES}")).await;
    }
    case
}

/// What clients say, one statement after the other.
async fn say(case: &Case<'_>, side: Side, statements: &[&str]) {
    let client = case.session(side).await;
    client.batch_execute("SET ROLE app").await.unwrap();
    for sql in statements {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

#[tokio::test]
async fn b2_two_equal_schemas_of_two_majors_have_no_difference() {
    let case = case("equal").await;
    let schema = "CREATE TYPE public.mood AS ENUM ('calm', 'cross'); CREATE DOMAIN public.cents AS bigint NOT NULL DEFAULT 0 CHECK (VALUE >= 0); \
         CREATE TABLE public.wide (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m public.mood DEFAULT 'calm', c public.cents, \
             s text GENERATED ALWAYS AS ('x'::text || 'y') STORED, t timestamptz DEFAULT now() - interval '1 day', a text[] DEFAULT ARRAY['a', 'b'], \
             CHECK (c > 0 AND m IN ('calm', 'cross')), EXCLUDE USING btree (c WITH =)); \
         CREATE UNIQUE INDEX ON public.wide (lower(s)) WHERE c > 1; CREATE VIEW public.v AS SELECT *, total * 2 AS twice FROM public.orders; \
         CREATE FUNCTION public.f(a int, b text DEFAULT 'x') RETURNS TABLE (r int) LANGUAGE sql AS 'SELECT 1'; \
         CREATE PROCEDURE public.p() LANGUAGE sql AS 'SELECT 1'; CREATE TABLE public.parted (d date) PARTITION BY RANGE (d); \
         CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); \
         GRANT SELECT (id), INSERT ON public.wide TO app";
    for side in Side::BOTH {
        case.sql(side, schema).await;
    }
    say(&case, Source, &["INSERT INTO orders VALUES (1)", "SELECT o.* FROM orders o WHERE id = 1", "SELECT now() - interval '1 day'"])
        .await;
    case.find(
        CHECK,
        Info,
        Target,
        &["0 differences in what the target defines", "4 statements", "2 can be prepared there, 0 can't, 2 could not"],
    )
    .await;
    case.refute(CHECK, Warning, Target, &[]).await;
    case.refute(CHECK, Error, Target, &[]).await;
}

#[tokio::test]
async fn b2_a_dropped_column_is_an_error_where_a_client_names_it_and_else_a_warning() {
    let case = case("dropped").await;
    case.sql(Target, "ALTER TABLE public.orders DROP COLUMN code").await;
    // The same word, of another table; a string; and what no client said.
    say(&case, Source, &["SELECT i.code FROM orders o JOIN items i ON i.id = o.id", "SELECT id FROM orders WHERE note = 'code'"]).await;
    let finding = case.find(CHECK, Warning, Target, &["column public.orders.code is missing", "counts only since"]).await;
    assert_eq!(finding.evidence.iter().filter(|line| line.contains("by app")).count(), 0, "{finding:#?}");
    say(&case, Source, &["SELECT * FROM public.orders"]).await;
    case.find(CHECK, Warning, Target, &["public.orders.code is missing", "SELECT * FROM public.orders (takes all columns)"]).await;

    say(&case, Source, &["SELECT id, code FROM orders WHERE id = 7", "SELECT id, code FROM orders WHERE id = 8"]).await;
    let words = [
        "public.orders.code is missing",
        "2 calls by app: SELECT id, code FROM orders WHERE id = $1 (column \"code\" does not exist [42703])",
    ];
    case.find(CHECK, Error, Target, &words).await;
    case.sql(Target, "ALTER TABLE public.orders ADD COLUMN code text").await;
    case.refute(CHECK, Error, Target, &[]).await;
}

#[tokio::test]
async fn b2_a_write_to_a_table_with_a_dropped_column_would_stop_the_stream() {
    let case = case("stream").await;
    case.sql(Target, "ALTER TABLE public.orders DROP COLUMN code").await;
    say(&case, Source, &["UPDATE orders SET total = 1 WHERE id = 1"]).await;
    case.find(CHECK, Error, Target, &["public.orders.code is missing", "UPDATE orders SET total", "its row stops the stream"]).await;
}

#[tokio::test]
async fn b2_renamed_columns_and_tables_are_guessed_and_named_back() {
    let case = case("renamed").await;
    case.sql(Target, "ALTER TABLE public.orders RENAME COLUMN code TO sku; ALTER TABLE public.items RENAME TO parts").await;
    say(&case, Source, &["SELECT max(code) FROM orders", "EXPLAIN SELECT code FROM items"]).await;
    let words = ["column public.orders.code is missing; sku has the same type", "SELECT max(code) FROM orders"];
    case.find_and_mend(CHECK, Error, Target, &words).await;
    let words = ["table public.items is missing; public.parts has the same columns", "EXPLAIN SELECT code FROM items"];
    case.find_and_mend(CHECK, Error, Target, &words).await;
}

#[tokio::test]
async fn b2_an_insert_that_does_not_name_a_required_column_is_an_error() {
    let case = case("required").await;
    case.sql(Target, "ALTER TABLE public.orders ADD COLUMN region text NOT NULL; ALTER TABLE public.items ALTER COLUMN code SET NOT NULL")
        .await;
    let inserts = ["INSERT INTO orders (id, code) VALUES (1, 'a')", "INSERT INTO items (id, code) VALUES (1, 'a')"];
    say(&case, Source, &inserts).await;
    case.find(CHECK, Warning, Target, &["public.items.code takes no NULL", "INSERT INTO items"]).await;
    let words = ["column public.orders.region takes no NULL and has no default there", "INSERT INTO orders (id, code)"];
    case.find_and_mend(CHECK, Error, Target, &words).await;
    say(&case, Source, &["INSERT INTO items (id) VALUES (2)"]).await;
    case.find_and_mend(CHECK, Error, Target, &["public.items.code takes no NULL and has no default", "INSERT INTO items (id)"]).await;
}

#[tokio::test]
async fn b2_what_means_something_else_is_found_as_well() {
    let case = case("changed").await;
    case.sql(
        Source,
        "CREATE FUNCTION public.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE public.mood AS ENUM ('calm', 'cross'); \
         CREATE VIEW public.v AS SELECT 1 AS a; GRANT SELECT ON public.v TO app; CREATE SEQUENCE public.s; GRANT USAGE ON SEQUENCE public.s TO app",
    )
    .await;
    case.sql(
        Target,
        "CREATE FUNCTION public.f(a int) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'; CREATE TYPE public.mood AS ENUM ('calm'); \
         ALTER TABLE public.orders ALTER COLUMN total TYPE integer, ALTER COLUMN note TYPE text, ALTER COLUMN note SET DEFAULT 'none', \
             ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY; CREATE SEQUENCE public.s; \
         ALTER TABLE public.orders ADD CHECK (total > 0); CREATE UNIQUE INDEX items_once ON public.items (code); \
         ALTER TABLE public.items ENABLE ROW LEVEL SECURITY; REVOKE UPDATE ON public.items FROM app",
    )
    .await;
    let said = [
        "SELECT f(1)",
        "SELECT total FROM orders",
        "SELECT * FROM v",
        "INSERT INTO orders (id) VALUES (2)",
        "UPDATE items SET code = 'x'",
        "SELECT nextval('s')",
    ];
    say(&case, Source, &said).await;
    case.find(CHECK, Error, Target, &["function public.f(integer) returns integer and bigint there", "SELECT f($1)"]).await;
    case.find(CHECK, Error, Target, &["column public.orders.total is numeric and integer there", "SELECT total"]).await;
    case.find(CHECK, Error, Target, &["view public.v is missing", "SELECT * FROM v (relation \"v\" does not exist [42P01])"]).await;
    case.find_and_mend(CHECK, Error, Target, &["column public.orders.id is generated there", "INSERT INTO orders (id)"]).await;
    case.find_and_mend(CHECK, Error, Target, &["role app lacks UPDATE on public.items", "UPDATE items"]).await;
    case.find_and_mend(CHECK, Warning, Target, &["role app lacks USAGE on public.s"]).await;
    case.find_and_mend(CHECK, Warning, Target, &["type public.mood has no label cross"]).await;
    case.find_and_mend(
        CHECK,
        Warning,
        Target,
        &["the default of column public.orders.note is none and 'none'::text there", "INSERT INTO orders"],
    )
    .await;
    case.find_and_mend(
        CHECK,
        Warning,
        Target,
        &["CHECK public.orders.orders_total_check is there only", "INSERT INTO orders", "writes there"],
    )
    .await;
    case.find_and_mend(CHECK, Warning, Target, &["unique index public.items.items_once is there only", "UPDATE items"]).await;
    case.find_and_mend(CHECK, Error, Target, &["row security is enabled on public.items there only"]).await;
    case.refute(CHECK, Warning, Target, &["public.orders.note is character varying(20)"]).await;
}

#[tokio::test]
async fn b2_a_statement_that_the_newer_server_no_longer_takes_is_named() {
    let case = case("newer").await;
    if case.cluster(Target).install().major < 17 {
        return;
    }
    say(&case, Source, &["SELECT checkpoints_timed FROM pg_stat_bgwriter", "SELECT interval '1 day'"]).await;
    let words = ["1 statement that works at the source can't be prepared at the target", "checkpoints_timed"];
    let finding = case.find(CHECK, Error, Target, &words).await;
    assert_eq!(finding.evidence.len(), 1, "what fails at both sides tells nothing: {finding:#?}");
}

#[tokio::test]
async fn b2_what_is_accepted_with_a_reason_blocks_no_more() {
    let mut case = case("accepted").await;
    case.sql(Target, "ALTER TABLE public.orders DROP COLUMN code").await;
    say(&case, Source, &["SELECT code FROM orders"]).await;
    case.find(CHECK, Error, Target, &["public.orders.code is missing"]).await;
    let accept = |name: &str| Accept { name: name.to_owned(), reason: "the report is gone by then".to_owned() };
    case.plan.accept = vec![accept("public.orders.code"), accept("public.orders.cod")];
    case.find(CHECK, Info, Target, &["accepted: column public.orders.code is missing", "the report is gone by then"]).await;
    case.find(CHECK, Info, Target, &["names what does not differ", "public.orders.cod"]).await;
    case.refute(CHECK, Error, Target, &[]).await;
    case.find("columns", Warning, Target, &["accepted, and the stream still carries them", "public.orders.code"]).await;

    // Nobody can bear a stream that stops.
    say(&case, Source, &["UPDATE orders SET total = 1 WHERE id = 1"]).await;
    case.find(CHECK, Error, Target, &["public.orders.code is missing", "accepted (the report is gone by then), but", "UPDATE orders"])
        .await;
}

#[tokio::test]
async fn b2_after_the_switch_the_other_way_is_told_and_blocks_nobody() {
    let mut case = case("back").await;
    case.sql(Target, "ALTER TABLE public.orders ADD COLUMN region text; CREATE TABLE public.fresh (id int)").await;
    say(&case, Target, &["INSERT INTO orders (id, region) VALUES (1, 'north')"]).await;
    case.find(CHECK, Info, Target, &["0 differences"]).await;
    case.authority = Some(Target);
    case.find(CHECK, Warning, Source, &["column public.orders.region is missing", "INSERT INTO orders (id, region)"]).await;
    case.find(CHECK, Warning, Source, &["table public.fresh is missing"]).await;
    case.refute(CHECK, Error, Source, &[]).await;
}

#[tokio::test]
async fn what_clients_say_is_never_run_nor_shown_with_its_strings() {
    let case = case("harmless").await;
    let secret = "hunter2";
    case.sql(Source, "CREATE SEQUENCE public.s; GRANT ALL ON SEQUENCE public.s TO app; DROP TABLE public.items").await;
    case.sql(Target, "CREATE SEQUENCE public.s; GRANT ALL ON SEQUENCE public.s TO app; DROP TABLE public.orders").await;
    let utility = format!("DO $$ BEGIN PERFORM 1 FROM orders; PERFORM '{secret}'; END $$");
    let both = format!("PREPARE p AS SELECT '{secret}' FROM orders");
    say(&case, Source, &["SELECT nextval('public.s')", "DELETE FROM orders", &utility, &both, "INSERT INTO orders VALUES (1)"]).await;
    let findings = case.check().await;
    assert!(!format!("{findings:?}").contains(secret), "{findings:#?}");
    for (side, value) in [(Source, 1), (Target, 1)] {
        let client = case.session(side).await;
        let row = client.query_one("SELECT last_value, is_called FROM public.s", &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (value, side == Source), "{side}");
    }
}

#[tokio::test]
async fn without_pg_stat_statements_a_difference_is_a_warning() {
    let case = case("blind").await;
    case.sql(Source, "DROP EXTENSION pg_stat_statements").await;
    case.sql(Target, "ALTER TABLE public.orders DROP COLUMN code").await;
    case.find(CHECK, Warning, Target, &["public.orders.code is missing", "the source has no pg_stat_statements"]).await;
    case.refute(CHECK, Error, Target, &[]).await;
}

#[tokio::test]
async fn settings_that_clients_see_are_compared_and_mended() {
    let source = install(15).unwrap();
    let target = installs().pop().unwrap();
    let adjust = |options: cutover_testkit::ClusterOptions| match options.name.as_str() {
        "source" => options.set("work_mem", "64MB").set("statement_timeout", "30s").set("max_locks_per_transaction", 128),
        _ => options.set("timezone", "Europe/Berlin").set("bytea_output", "escape").set("lc_time", "C"),
    };
    let pair = start_pair(&source, &target, &adjust).await;
    let case = Case::with_table(&pair, "seen").await;
    let words = [
        "TimeZone is UTC at the source and Europe/Berlin at the target",
        "bytea_output is hex",
        "statement_timeout is 30s at the source and 0",
    ];
    case.find("settings", Warning, Target, &words).await;
    case.find("settings", Warning, Target, &["max_locks_per_transaction is 128 at the source and 64"]).await;
    let words = ["work_mem is 64 MB at the source and 4.0 MB"];
    let finding = case.find("settings", Warning, Target, &words).await;
    case.mend(&finding).await;
    eventually(WAIT, || async { matching(&case.check().await, "settings", Warning, Target, &words).is_none() }).await.unwrap();
    case.refute("settings", Warning, Target, &["does not encrypt"]).await;
}
