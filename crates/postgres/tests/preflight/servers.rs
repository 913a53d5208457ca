//! Servers: their versions, identities, settings and room.

use cutover_core::{
    Side::{self, Source, Target},
    plan::{Database, DatabaseUrl},
};
use cutover_postgres::preflight::{
    Fix,
    Severity::{Error, Info, Warning},
};
use cutover_testkit::{ClusterOptions, Stop, eventually, installs};

use crate::support::{Case, WAIT, errors, matching, plan, shared_pair, start_pair};

/// Every query of every check runs on every major at hand, at both sides: one that a version does not understand would
/// be reported as not established.
#[tokio::test]
async fn b1_a_clean_pair_of_any_majors_gives_no_error() {
    let installs = installs();
    assert!(!installs.is_empty());
    for (at, source) in installs.iter().enumerate() {
        let target = installs.get(at + 1).unwrap_or(source);
        let pair = start_pair(source, target, &|options| options).await;
        let case = Case::with_table(&pair, "clean").await;
        for sql in [
            "CREATE TABLE public.part (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES FROM ('2020-01-01') TO ('2030-01-01')",
            "CREATE SCHEMA \"odd \"\"schema\"; CREATE TABLE \"odd \"\"schema\".\"Odd, table\" (id uuid PRIMARY KEY, v varchar(3)[] COLLATE \"C\")",
        ] {
            case.sql(Source, sql).await;
        }
        let findings = case.check().await;
        assert!(errors(&findings).is_empty(), "{} to {}: {:#?}", source.version, target.version, errors(&findings));
        let partitions = matching(&findings, "partitions", Info, Source, &["1 partitioned table with 1 partition", "public.part"]);
        assert!(partitions.is_some(), "{findings:#?}");
        assert!(matching(&findings, "peers", Info, Target, &["can't be told from here"]).is_some(), "{findings:#?}");
    }
}

#[tokio::test]
async fn a_newer_source_and_one_server_twice_are_refused() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "twice").await;
    if pair.target.install().major > pair.source.install().major {
        std::mem::swap(&mut case.plan.source, &mut case.plan.target);
        case.find("versions", Error, Target, &["older than the source's"]).await;
        case.plan.switch.allow_downgrade = true;
        case.find("versions", Warning, Target, &["the plan allows it"]).await;
        std::mem::swap(&mut case.plan.source, &mut case.plan.target);
    }
    pair.source.create_database("twice_too").await.unwrap();
    case.plan.target = Database {
        url: DatabaseUrl::parse(&pair.source.url("postgres", "twice_too")).unwrap(),
        peer_url: DatabaseUrl::parse(&pair.source.url("postgres", "twice_too")).unwrap(),
    };
    case.find("servers", Error, Target, &["the same server"]).await;
}

#[tokio::test]
async fn a_standby_is_refused() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "standby").await;
    let standby = pair.source.basebackup_standby("standby").await.unwrap();
    let url = standby.url("postgres", "standby");
    eventually(WAIT, || async { standby.client("standby").await.is_ok() }).await.unwrap();
    case.plan.source.url = DatabaseUrl::parse(&url).unwrap();
    case.find("servers", Error, Source, &["is a standby"]).await;
}

/// Servers configured against us; the fixes, and a restart, make them fit.
#[tokio::test]
async fn settings_of_the_servers_are_found_and_mended() {
    let newest = installs().pop().unwrap();
    let adjust = |options: ClusterOptions| {
        let options = options
            .set("wal_level", "replica")
            .set("max_replication_slots", 1)
            .set("max_wal_senders", 1)
            .set("max_logical_replication_workers", 0)
            .set("max_worker_processes", 1)
            .set("max_slot_wal_keep_size", "0")
            .set("wal_sender_timeout", 0)
            .set("wal_receiver_timeout", "2s")
            .set("synchronous_commit", "off")
            .set("default_transaction_read_only", "on");
        let options = if newest.major >= 18 { options.set("idle_replication_slot_timeout", "1h") } else { options };
        if newest.major >= 17 { options.set("transaction_timeout", "1h") } else { options }
    };
    let pair = start_pair(&newest, &newest, &adjust).await;
    for cluster in [&pair.source, &pair.target] {
        let client = cluster.client("postgres").await.unwrap();
        client.batch_execute("SET default_transaction_read_only = off").await.unwrap();
        client.batch_execute("CREATE DATABASE strict").await.unwrap();
        client.batch_execute("SELECT pg_create_physical_replication_slot('taken')").await.unwrap();
    }
    let source = pair.source.url("postgres", "strict");
    let plan = plan("strict", &source, &pair.target.url("postgres", "strict"));
    let case = Case { pair: &pair, database: "strict".into(), plan, prepared: false, authority: None };
    let mut expected = vec![
        ("wal_level", Error, "wal_level is replica"),
        ("capacity", Error, "2 more replication slots needed and 0 free: 1 of 1 are in use"),
        ("capacity", Error, "logical replication workers needed and 0 free: 0 of 0 are in use"),
        ("capacity", Error, "2 more worker processes needed and 1 free: 0 of 1 are in use"),
        ("wal_retention", Error, "slots may keep 0 B of log"),
        ("wal_retention", Warning, "wal_sender_timeout is off"),
        ("wal_retention", Warning, "wal_receiver_timeout is 2 s"),
        ("durability", Warning, "before they are on disk"),
        ("durability", Warning, "fsync and full_page_writes off"),
    ];
    if newest.major >= 18 {
        expected.push(("wal_retention", Error, "a slot that idles for 60 min"));
    }
    if newest.major >= 17 {
        expected.push(("role_timeouts", Error, "transaction_timeout is 60 min"));
    }
    let findings = case.check().await;
    for side in Side::BOTH {
        for (check, severity, words) in &expected {
            assert!(matching(&findings, check, *severity, side, &[words]).is_some(), "{check} {side} {words}: {findings:#?}");
        }
    }
    assert!(matching(&findings, "capacity", Error, Source, &["2 more WAL senders needed and 1 free"]).is_some(), "{findings:#?}");
    assert!(
        matching(&findings, "defaults", Error, Target, &["default_transaction_read_only = on (ALTER SYSTEM)"]).is_some(),
        "{findings:#?}"
    );
    let (read_only, others): (Vec<_>, Vec<_>) =
        findings.iter().filter(|finding| matches!(finding.fix, Some(Fix::Sql { .. }))).partition(|finding| finding.check == "defaults");
    for finding in read_only {
        case.mend(finding).await;
    }
    for side in Side::BOTH {
        eventually(WAIT, || async {
            case.session(side).await.batch_execute("CREATE TABLE IF NOT EXISTS public.writable (id int PRIMARY KEY)").await
        })
        .await
        .unwrap();
        case.sql(side, "DROP TABLE public.writable").await;
    }
    for finding in others {
        case.mend(finding).await;
    }
    for cluster in [&pair.source, &pair.target] {
        cluster.stop(Stop::Fast).await.unwrap();
        cluster.start_again().await.unwrap();
    }
    let findings = case.check().await;
    for side in Side::BOTH {
        for (check, severity, words) in &expected {
            assert!(matching(&findings, check, *severity, side, &[words]).is_none(), "{check} {side} {words}: {findings:#?}");
        }
    }
    assert!(errors(&findings).is_empty(), "{:#?}", errors(&findings));

    for (names, severity, words) in [("gone", Error, "no synchronous standby is connected"), ("*", Warning, "our stream too")] {
        let client = pair.target.client("postgres").await.unwrap();
        client.batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let found = || async { matching(&case.check().await, "durability", severity, Target, &[words]).is_some() };
        eventually(WAIT, found).await.unwrap();
    }
}

#[tokio::test]
async fn encodings_and_collations_are_compared() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "letters").await;
    let target = pair.target.client("postgres").await.unwrap();
    target.batch_execute("CREATE DATABASE letters_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await.unwrap();
    case.plan.target.url.database = "letters_latin".into();
    case.find("locale", Error, Target, &["encoding is UTF8, the target's LATIN1"]).await;
    case.find("locale", Warning, Target, &["sorts differently", "target: libc, collate C, ctype C"]).await;
    case.plan.target.url.database = "letters".into();
    case.sql(Source, "CREATE TABLE public.names (id int PRIMARY KEY, n text COLLATE \"en-x-icu\", c text COLLATE \"C\")").await;
    case.sql(Target, "DELETE FROM pg_catalog.pg_collation WHERE collname = 'en-x-icu'").await;
    let finding = case.find("locale", Error, Target, &["en-x-icu, e.g. for public.names.n"]).await;
    assert_eq!(finding.evidence.len(), 1, "{finding:?}");

    let source = pair.source.client("postgres").await.unwrap();
    source.batch_execute("CREATE DATABASE letters_icu LOCALE_PROVIDER icu ICU_LOCALE 'en' TEMPLATE template0").await.unwrap();
    source.batch_execute("UPDATE pg_catalog.pg_database SET datcollversion = '1.0' WHERE datname = 'letters_icu'").await.unwrap();
    case.plan.source.url.database = "letters_icu".into();
    case.database = "letters_icu".into();
    case.find_and_mend("locale", Warning, Source, &["was version 1.0 when the database was made"]).await;
    case.find("locale", Warning, Target, &["source: icu"]).await;
}

#[tokio::test]
async fn extensions_tablespaces_jobs_and_event_triggers_are_compared() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "equipment").await;
    case.sql(Source, "CREATE EXTENSION pageinspect").await;
    case.refute("extensions", Error, Target, &[]).await;
    case.sql(Target, "CREATE ROLE eq_mover LOGIN; GRANT CREATE ON DATABASE equipment TO eq_mover").await;
    case.plan.target.url = DatabaseUrl::parse(&pair.target.url("eq_mover", "equipment")).unwrap();
    case.find_and_mend("extensions", Error, Target, &["pageinspect has to be made by a superuser"]).await;
    case.sql(
        Source,
        "CREATE FUNCTION public.quiet(int) RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'; CREATE FOREIGN DATA WRAPPER equip_fdw",
    )
    .await;
    case.find("superuser_objects", Error, Target, &["function public.quiet(integer) in sql, leakproof", "foreign-data wrapper equip_fdw"])
        .await;
    case.plan.target.url = DatabaseUrl::parse(&pair.target.url("postgres", "equipment")).unwrap();
    if pair.target.install().major >= 17 {
        case.sql(Source, "CREATE EXTENSION adminpack").await;
        case.find("extensions", Error, Target, &["adminpack", "is not available at the target"]).await;
    }

    let client = case.session(Source).await;
    client.batch_execute("SET allow_in_place_tablespaces = on").await.unwrap();
    client.batch_execute("CREATE TABLESPACE eq_fast LOCATION ''").await.unwrap();
    client.batch_execute("CREATE TABLE public.fast (id int PRIMARY KEY) TABLESPACE eq_fast").await.unwrap();
    case.find("storage", Error, Target, &["eq_fast: 1 tables and indexes"]).await;
    case.find("storage", Info, Target, &["can't be told from here"]).await;

    case.sql(Source, "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text, command text, database text, username text, active boolean)").await;
    case.sql(Source, "INSERT INTO cron.job VALUES (7, '5 * * * *', 'SELECT ''hunter2''', 'equipment', 'postgres', true), (8, '@daily', '', 'other', 'x', true)").await;
    let finding = case.find_and_mend("jobs", Warning, Source, &["active jobs in cron.job", "job 7 of postgres at 5 * * * *"]).await;
    assert!(!format!("{finding:?}").contains("hunter2") && finding.evidence.len() == 1, "{finding:?}");

    let sql = "CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.e()";
    case.sql(Source, sql).await;
    case.sql(Target, sql).await;
    case.find("event_triggers", Info, Source, &["watch on ddl_command_end calls public.e()"]).await;
    case.find_and_mend("event_triggers", Warning, Target, &["watch on ddl_command_end calls public.e()"]).await;
}
