//! Tables, sequences, triggers: what replicates and what does not.

use std::time::Duration;

use cutover_core::{
    Side::{self, Source, Target},
    plan::{DatabaseUrl, LargeObjects},
};
use cutover_postgres::preflight::Severity::{Error, Info, Warning};
use cutover_testkit::installs;

use crate::support::{Case, shared_pair, start_pair};

#[tokio::test]
async fn tables_without_an_identity_are_named_and_mended() {
    let pair = shared_pair().await;
    let case = Case::with_table(pair, "identity").await;
    for sql in [
        "CREATE TABLE public.keyless (a int)",
        "CREATE TABLE public.nothing (a int PRIMARY KEY); ALTER TABLE public.nothing REPLICA IDENTITY NOTHING",
        "CREATE TABLE public.unique_one (a int NOT NULL UNIQUE, j json)",
        "CREATE TABLE public.late (a int PRIMARY KEY DEFERRABLE)",
        "CREATE TABLE public.parent (a int) PARTITION BY LIST (a); CREATE TABLE public.leaf PARTITION OF public.parent FOR VALUES IN (1)",
        "CREATE TABLE public.whole (a int, v varchar(3), r int4range, n name, d numeric[]); ALTER TABLE public.whole REPLICA IDENTITY FULL",
    ] {
        case.sql(Source, sql).await;
    }
    let finding = case
        .find_and_mend(
            "replica_identity",
            Error,
            Source,
            &[
                "5 tables",
                "public.keyless: no primary key",
                "public.nothing: REPLICA IDENTITY NOTHING",
                "public.unique_one",
                "public.late: its primary key is deferrable",
                "public.leaf",
            ],
        )
        .await;
    assert!(!format!("{finding:?}").contains("public.parent"), "a partitioned table has no rows of its own");
    let fix = format!("{:?}", finding.fix);
    assert!(fix.contains("public.unique_one REPLICA IDENTITY USING INDEX unique_one_a_key"), "{fix}");
    case.refute("replica_identity", Error, Source, &[]).await;

    case.sql(Source, "CREATE TABLE public.doc (j json, p point); ALTER TABLE public.doc REPLICA IDENTITY FULL").await;
    let finding = case.find("replica_identity", Error, Source, &["no equality for j json, p point"]).await;
    assert!(format!("{:?}", finding.fix).contains("-- public.doc: add a key"), "{finding:?}");
    case.sql(Source, "DROP TABLE public.doc; INSERT INTO public.whole SELECT g FROM generate_series(1, 20000) g; ANALYZE public.whole")
        .await;
    case.find("replica_identity", Warning, Source, &["public.whole: about 20000 rows"]).await;
}

/// What the check calls usable and unusable is what the server itself lets through and refuses.
#[tokio::test]
async fn the_server_agrees_about_identities() {
    let cases = [
        ("kept", "CREATE TABLE public.t (a int PRIMARY KEY)", true),
        ("keyless", "CREATE TABLE public.t (a int)", false),
        ("late", "CREATE TABLE public.t (a int PRIMARY KEY DEFERRABLE)", false),
        ("whole", "CREATE TABLE public.t (a int); ALTER TABLE public.t REPLICA IDENTITY FULL", true),
        ("nothing", "CREATE TABLE public.t (a int PRIMARY KEY); ALTER TABLE public.t REPLICA IDENTITY NOTHING", false),
        ("by_index", "CREATE TABLE public.t (a int NOT NULL UNIQUE); ALTER TABLE public.t REPLICA IDENTITY USING INDEX t_a_key", true),
        (
            "whole_generated",
            "CREATE TABLE public.t (a int, g int GENERATED ALWAYS AS (a + 1) STORED); ALTER TABLE public.t REPLICA IDENTITY FULL",
            true,
        ),
    ];
    // The newest is the one with a rule of its own about generated columns.
    let newest = installs().pop().unwrap();
    let pair = start_pair(&newest, &newest, &|options| options).await;
    for (name, sql, usable) in cases {
        let usable = usable && !(name == "whole_generated" && newest.major >= 18);
        let case = Case::new(&pair, name).await;
        case.sql(Source, sql).await;
        let judged = !case.check().await.iter().any(|finding| finding.check == "replica_identity" && finding.severity == Error);
        assert_eq!(judged, usable, "{name}");
        case.sql(Source, "INSERT INTO public.t VALUES (1); CREATE PUBLICATION p FOR TABLE public.t").await;
        let updated = case.session(Source).await.execute("UPDATE public.t SET a = a + 1", &[]).await;
        assert_eq!(updated.is_ok(), usable, "{name}: {updated:?}");
    }
}

#[tokio::test]
async fn what_does_not_replicate_is_named() {
    let pair = shared_pair().await;
    let case = Case::with_table(pair, "unreplicated").await;
    for sql in [
        "CREATE UNLOGGED TABLE public.cache (id int PRIMARY KEY)",
        "SELECT lo_from_bytea(0, 'x')",
        "CREATE MATERIALIZED VIEW public.totals AS SELECT count(*) FROM public.kept",
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE public.remote (a int) SERVER away",
        "CREATE TABLE public.child (more int) INHERITS (public.kept)",
        "CREATE TABLE public.unchecked (k bigint REFERENCES public.kept, id int PRIMARY KEY); \
         ALTER TABLE public.unchecked DROP CONSTRAINT unchecked_k_fkey; \
         ALTER TABLE public.unchecked ADD CONSTRAINT later FOREIGN KEY (k) REFERENCES public.kept NOT VALID",
        "CREATE FUNCTION public.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'; \
         CREATE TABLE public.computed (id int PRIMARY KEY, d int GENERATED ALWAYS AS (public.twice(id)) STORED)",
    ] {
        case.sql(Source, sql).await;
    }
    case.find_and_mend("unlogged", Error, Source, &["1 unlogged table", "public.cache"]).await;
    case.find("large_objects", Error, Source, &["large objects: 1", "1 of postgres"]).await;
    case.sql(Source, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata").await;
    case.refute("large_objects", Error, Source, &[]).await;
    case.find("not_moved", Info, Source, &["public.totals"]).await;
    case.find("not_moved", Info, Source, &["public.remote"]).await;
    case.find("partitions", Info, Source, &["public.child inherits from public.kept"]).await;
    case.find_and_mend("foreign_keys", Info, Source, &["public.unchecked: later refers to public.kept"]).await;
    case.find("generated", Warning, Source, &["public.computed.d calls public.twice(integer)"]).await;
}

#[tokio::test]
async fn large_objects_that_go_along_are_counted_and_want_superusers() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "large_copied").await;
    case.plan.copy.large_objects = LargeObjects::Copy;
    case.refute("large_objects", Info, Source, &[]).await;
    case.sql(Source, "SELECT lo_from_bytea(0, 'x'), lo_create(0)").await;
    case.find("large_objects", Info, Source, &["large objects: 2", "inside the pause", "of its 3000 ms"]).await;
    case.refute("large_objects", Error, Source, &[]).await;

    case.sql(Target, "SELECT lo_create(0)").await;
    case.find("large_objects", Error, Target, &["large objects: 1", "overwritten or removed", "1 of postgres"]).await;
    case.prepared = true;
    case.refute("large_objects", Error, Target, &[]).await;

    case.plan.pause.budget = Duration::from_micros(1);
    case.find("large_objects", Warning, Source, &["large objects: 2"]).await;

    case.sql(Source, "CREATE ROLE large_mover LOGIN REPLICATION").await;
    case.plan.source.url.user = "large_mover".to_owned();
    case.find("large_objects", Error, Source, &["large_mover is no superuser"]).await;
}

#[tokio::test]
async fn triggers_that_fire_on_apply_are_found_at_both_sides() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "firing").await;
    let sql = "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TABLE public.audited (id int PRIMARY KEY); \
         CREATE TRIGGER plain BEFORE INSERT ON public.audited FOR EACH ROW EXECUTE FUNCTION public.f(); \
         CREATE TRIGGER \"Always\" BEFORE INSERT ON public.audited FOR EACH ROW EXECUTE FUNCTION public.f(); \
         CREATE TRIGGER replica BEFORE INSERT ON public.audited FOR EACH ROW EXECUTE FUNCTION public.f(); \
         ALTER TABLE public.audited ENABLE ALWAYS TRIGGER \"Always\"; ALTER TABLE public.audited ENABLE REPLICA TRIGGER replica; \
         CREATE RULE r AS ON DELETE TO public.audited DO ALSO NOTHING; ALTER TABLE public.audited ENABLE ALWAYS RULE r";
    case.sql(Source, sql).await;
    case.sql(Target, sql).await;
    case.prepared = true;
    let words = ["public.audited: trigger \"Always\" is ENABLE ALWAYS", "trigger replica is ENABLE REPLICA", "rule r is ENABLE ALWAYS"];
    for side in Side::BOTH {
        let finding = case.find_and_mend("triggers", Error, side, &words).await;
        assert!(!finding.evidence.iter().any(|line| line.contains("plain")), "{finding:?}");
        let enabled = "SELECT string_agg(tgname || tgenabled::text, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal";
        let row = case.session(side).await.query_one(enabled, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "AlwaysO,plainO,replicaD", "the fix makes no trigger fire that did not");
    }
}

#[tokio::test]
async fn sequences_near_their_end_are_counted() {
    let pair = shared_pair().await;
    let case = Case::with_table(pair, "ending").await;
    let headroom = case.plan.switch.sequence_headroom;
    case.sql(Source, "CREATE TABLE public.old (id serial PRIMARY KEY); ALTER SEQUENCE public.old_id_seq AS bigint").await;
    case.sql(Source, &format!("SELECT setval('public.old_id_seq', {})", i64::from(i32::MAX) - i64::from(headroom))).await;
    case.sql(Source, "CREATE SEQUENCE public.down INCREMENT -1 MINVALUE -9 MAXVALUE -1").await;
    case.sql(Source, "CREATE SEQUENCE public.ring MAXVALUE 9 CYCLE").await;
    let left = format!("public.old_id_seq of public.old.id: at {}, {headroom} values left", i64::from(i32::MAX) - i64::from(headroom));
    case.find("sequences", Error, Source, &[&left, "public.down: at -1, 9 values left"]).await;
    case.find("sequences", Warning, Source, &["start over", "public.ring: from 1 to 9"]).await;
    case.sql(Source, "ALTER TABLE public.old ALTER id TYPE bigint; DROP SEQUENCE public.down").await;
    case.refute("sequences", Error, Source, &[]).await;
}

#[tokio::test]
async fn b6_row_security_that_stops_us_is_found() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "secured").await;
    case.sql(Source, "CREATE ROLE secured_owner; CREATE ROLE secured_mover LOGIN REPLICATION IN ROLE secured_owner").await;
    case.sql(Source, "CREATE TABLE public.secret (id int PRIMARY KEY); ALTER TABLE public.secret OWNER TO secured_owner").await;
    case.sql(Source, "ALTER TABLE public.secret ENABLE ROW LEVEL SECURITY").await;
    case.refute("row_security", Error, Source, &[]).await;
    case.sql(Source, "ALTER TABLE public.secret FORCE ROW LEVEL SECURITY").await;
    if pair.target.install().major >= 16 {
        case.find_and_mend("row_security", Error, Source, &["forced on the owner", "public.secret"]).await;
        case.sql(Source, "ALTER TABLE public.secret FORCE ROW LEVEL SECURITY").await;
    }
    case.plan.source.url = DatabaseUrl::parse(&pair.source.url("secured_mover", "secured")).unwrap();
    case.find_and_mend("row_security", Error, Source, &["policies apply to our role \"secured_mover\"", "public.secret"]).await;
}

#[tokio::test]
async fn a_partition_that_is_half_detached_is_found_and_detached() {
    let pair = shared_pair().await;
    let case = Case::with_table(pair, "detaching").await;
    let sql = "CREATE TABLE public.log (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE public.log_1 PARTITION OF public.log FOR VALUES FROM (0) TO (10)";
    case.sql(Source, sql).await;
    let reader = case.session(Source).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM public.log").await.unwrap();
    // It marks the partition, waits for the reader, and gives up.
    let detaching = case.session(Source).await;
    detaching.batch_execute("SET statement_timeout = '300ms'").await.unwrap();
    assert!(detaching.batch_execute("ALTER TABLE public.log DETACH PARTITION public.log_1 CONCURRENTLY").await.is_err());
    reader.batch_execute("COMMIT").await.unwrap();
    case.find_and_mend("partitions", Error, Source, &["interrupted", "public.log_1 of public.log"]).await;
}
