//! Columns that a stream can't put anywhere, found before its first row stops at one.

use cutover_core::{
    Side::{Source, Target},
    plan::{Accept, Filter, Pattern},
};
use cutover_postgres::preflight::Severity::{Error, Info, Warning};
use cutover_testkit::install;

use crate::support::{Case, shared_pair, start_pair};

const CHECK: &str = "columns";

const TABLES: &str = "CREATE TABLE public.orders (id int PRIMARY KEY, code text, \"Total\" numeric(10,2), twice int GENERATED ALWAYS AS (id * 2) STORED); \
     CREATE TABLE public.parts (id int, at int, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at); \
     CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (10); \
     CREATE TABLE public.logs (id int PRIMARY KEY, line text); ALTER TABLE public.logs REPLICA IDENTITY FULL";

/// Migrated, the source in charge.
async fn case(name: &str, migration: &str) -> Case<'static> {
    let mut case = Case::new(shared_pair().await, name).await;
    case.sql(Source, TABLES).await;
    case.sql(Target, TABLES).await;
    case.sql(Target, migration).await;
    case.prepared = true;
    case.authority = Some(Source);
    case
}

#[tokio::test]
async fn b2_a_column_that_the_stream_carries_and_a_migration_dropped_is_an_error_by_name() {
    let migration = "ALTER TABLE public.orders DROP COLUMN \"Total\", DROP COLUMN twice; ALTER TABLE public.parts DROP COLUMN note";
    let mut case = case("dropped_columns", migration).await;
    let finding = case.find(CHECK, Error, Target, &["stops the stream", "public.orders.Total", "public.parts_1.note"]).await;
    assert_eq!(finding.evidence.len(), 2, "neither what is computed nor a table without rows is carried: {finding:#?}");

    let accept = |name: &str| Accept { name: name.to_owned(), reason: "nobody writes there".to_owned() };
    case.plan.accept = vec![accept("public.orders.Total")];
    let finding = case.find(CHECK, Warning, Target, &["accepted, and the stream still carries them", "public.orders.Total"]).await;
    assert_eq!(finding.evidence.len(), 1, "{finding:#?}");
    case.refute(CHECK, Error, Target, &["public.orders.Total"]).await;
    case.plan.accept.clear();

    case.plan.tables.filter = Filter { exclude: vec![Pattern::parse("public.parts*").unwrap()], ..Filter::default() };
    case.find_and_mend(CHECK, Error, Target, &["public.orders.Total"]).await;
    let there =
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'public.orders'::regclass AND attname = 'Total'";
    let there: String = case.session(Target).await.query_one(there, &[]).await.unwrap().get(0);
    assert_eq!(there, "numeric(10,2)");
    case.refute(CHECK, Error, Target, &[]).await;

    // After the switch nothing goes that way.
    case.plan.tables.filter = Filter::default();
    case.authority = Some(Target);
    case.refute(CHECK, Error, Target, &[]).await;
    case.refute(CHECK, Warning, Target, &[]).await;
}

#[tokio::test]
async fn b2_a_renamed_column_wants_its_name_back_and_a_computed_one_its_values() {
    let case = case("renamed_columns", "ALTER TABLE public.orders RENAME COLUMN code TO sku").await;
    let finding = case.find(CHECK, Error, Target, &["public.orders.code"]).await;
    assert!(format!("{:?}", finding.fix).contains("rename back"), "an empty column beside it would be wrong: {finding:#?}");
    let computed = "ALTER TABLE public.orders RENAME COLUMN sku TO code; ALTER TABLE public.logs DROP COLUMN line, \
        ADD COLUMN line text GENERATED ALWAYS AS ('x') STORED";
    case.sql(Target, computed).await;
    case.find_and_mend(CHECK, Error, Target, &["public.logs.line, which is generated there"]).await;
    case.refute(CHECK, Error, Target, &[]).await;
}

/// A list of columns leaves out what a migration added; where there can be none, the way back would stop.
#[tokio::test]
async fn b17_a_way_back_that_would_stop_at_an_added_column_is_refused_beforehand() {
    let migration = "ALTER TABLE public.orders ADD COLUMN region text; ALTER TABLE public.logs ADD COLUMN host text, ADD COLUMN pid int";
    let mut case = case("added_columns", migration).await;
    let words = ["way back can't leave them out", "public.logs: host, pid, and its replica identity is the whole row"];
    let finding = case.find(CHECK, Error, Target, &words).await;
    assert_eq!(finding.evidence.len(), 1, "{finding:#?}");
    case.authority = Some(Target);
    case.find(CHECK, Warning, Target, &words).await;
    case.refute(CHECK, Error, Target, &[]).await;
    case.authority = Some(Source);
    case.plan.switch.reverse = false;
    case.refute(CHECK, Error, Target, &[]).await;
    case.plan.switch.reverse = true;
    case.find_and_mend(CHECK, Error, Target, &words).await;
    case.refute(CHECK, Info, Target, &[]).await;

    let other_key = "ALTER TABLE public.orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id, region)";
    case.sql(Target, other_key).await;
    let finding = case.find(CHECK, Error, Target, &["public.orders: region, and its replica identity needs them"]).await;
    assert!(format!("{:?}", finding.fix).contains("reverse = false"), "{finding:#?}");
}

#[tokio::test]
async fn b17_a_target_that_publishes_all_columns_can_t_leave_out_an_added_one() {
    let old = install(13).unwrap();
    let pair = start_pair(&old, &old, &|options| options).await;
    let mut case = Case::new(&pair, "old").await;
    case.sql(Source, TABLES).await;
    case.sql(Target, TABLES).await;
    case.prepared = true;
    case.authority = Some(Source);
    case.refute(CHECK, Error, Target, &[]).await;
    case.sql(Target, "ALTER TABLE public.orders ADD COLUMN region text").await;
    case.find(CHECK, Error, Target, &["public.orders: region, and PostgreSQL 13 publishes all columns"]).await;
}
