//! Roles: what ours may do, what the application's can do, and what the target lacks.

use cutover_core::{
    Side::{self, Source, Target},
    plan::{Database, DatabaseUrl},
};
use cutover_postgres::{
    connect::{Purpose, connect},
    preflight::{
        Fix,
        Severity::{Error, Info, Warning},
    },
};
use cutover_testkit::Cluster;

use crate::support::{Case, errors, shared_pair};

/// A role that may do nothing is told exactly what it lacks, and has it after the fixes: nothing more is found.
#[tokio::test]
async fn every_missing_privilege_is_named_and_granted_by_the_fixes() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "forbidden").await;
    case.sql(Source, "CREATE ROLE fb_owner; CREATE ROLE fb_mover LOGIN; CREATE SCHEMA closed; CREATE TABLE closed.t (id serial PRIMARY KEY); ALTER TABLE closed.t OWNER TO fb_owner; ALTER TABLE public.kept OWNER TO fb_owner").await;
    case.sql(Target, "CREATE ROLE fb_owner; CREATE ROLE fb_mover LOGIN").await;
    for side in Side::BOTH {
        case.sql(side, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await;
    }
    let mover = |cluster: &Cluster| DatabaseUrl::parse(&cluster.url_with_password("fb_mover", "hunter2", "forbidden")).unwrap();
    case.plan.source = Database { url: mover(&pair.source), peer_url: mover(&pair.source) };
    case.plan.target = Database { url: mover(&pair.target), peer_url: mover(&pair.target) };

    for side in Side::BOTH {
        case.find("privileges", Error, side, &["fb_mover", "may not create the schema"]).await;
        case.find("privileges", Error, side, &["fb_mover", "lacks REPLICATION"]).await;
        case.find("privileges", Warning, side, &["does not see what other roles' sessions do"]).await;
        case.find("privileges", Warning, side, &["may not end other roles' sessions"]).await;
        case.find("subscribing", Error, side, &["may not create a subscription"]).await;
        case.find("servers", Error, side, &["the server's identity can't be read"]).await;
    }
    case.find("ownership", Error, Source, &["does not own 4 relations", "closed.t belongs to fb_owner"]).await;
    case.find("privileges", Error, Source, &["may not use every schema", "closed"]).await;

    // What can't be read is said to be unknown, until it can.
    case.find("sequences", Error, Source, &["could not be established", "permission denied"]).await;
    for _ in 0..4 {
        for finding in errors(&case.check().await).into_iter().filter(|finding| matches!(finding.fix, Some(Fix::Sql { .. }))) {
            case.mend(finding).await;
        }
    }
    let findings = case.check().await;
    assert!(errors(&findings).is_empty(), "{:#?}", errors(&findings));
    assert!(!format!("{findings:?}").contains("hunter2"));
}

/// A subscription of a role that is no superuser has to log in with a password.
#[tokio::test]
async fn a_password_that_a_subscription_needs_is_asked_for() {
    let pair = shared_pair().await;
    if pair.target.install().major < 16 {
        return;
    }
    let mut case = Case::with_table(pair, "password").await;
    case.sql(Target, "CREATE ROLE pw_mover LOGIN REPLICATION IN ROLE pg_create_subscription").await;
    case.plan.target.url = DatabaseUrl::parse(&pair.target.url("pw_mover", "password")).unwrap();
    case.find("subscribing", Error, Target, &["must log in with a password", "needed by the forward stream"]).await;
    case.plan.source.peer_url = DatabaseUrl::parse(&pair.source.url_with_password("postgres", "hunter2", "password")).unwrap();
    case.refute("subscribing", Error, Target, &["must log in with a password"]).await;
}

#[tokio::test]
async fn roles_that_the_target_lacks_are_made_by_the_fix() {
    let pair = shared_pair().await;
    let case = Case::with_table(pair, "missing_roles").await;
    for sql in [
        "CREATE ROLE mr_group NOLOGIN; CREATE ROLE \"mr App\" LOGIN PASSWORD 'hunter2' IN ROLE mr_group, pg_monitor; CREATE ROLE mr_owner NOLOGIN NOINHERIT",
        "GRANT SELECT ON public.kept TO \"mr App\"; CREATE TABLE public.owned (id int PRIMARY KEY); ALTER TABLE public.owned OWNER TO mr_owner",
    ] {
        case.sql(Source, sql).await;
    }
    let finding = case
        .find_and_mend("roles", Error, Target, &["3 roles missing", "mr App (LOGIN)", "mr_group (NOLOGIN)", "mr_owner (NOLOGIN NOINHERIT)"])
        .await;
    assert!(!format!("{finding:?}").contains("hunter2"));
    case.refute("roles", Warning, Target, &["lack memberships"]).await;
    let finding = case.find("roles", Warning, Target, &["password at the source", "mr App"]).await;
    assert!(!format!("{finding:?}").contains("SCRAM"));
    case.sql(Target, "ALTER ROLE \"mr App\" NOLOGIN; REVOKE pg_monitor FROM \"mr App\"").await;
    case.find_and_mend("roles", Warning, Target, &["mr App: LOGIN"]).await;
    case.find_and_mend("roles", Warning, Target, &["mr App is a member of pg_monitor"]).await;
}

#[tokio::test]
async fn settings_of_roles_and_databases_are_found() {
    let pair = shared_pair().await;
    let case = Case::with_table(pair, "role_settings").await;
    case.sql(Source, "CREATE ROLE rs_app LOGIN; GRANT INSERT ON public.kept TO rs_app").await;
    case.sql(Target, "CREATE ROLE rs_app LOGIN").await;
    for sql in [
        "ALTER DATABASE role_settings SET search_path = \"$user\", kept, public",
        "ALTER DATABASE role_settings SET app.jwt_secret = 'hunter2'",
        "ALTER ROLE rs_app SET work_mem = '7MB'",
        "ALTER ROLE rs_app IN DATABASE role_settings SET synchronous_commit = off",
        "ALTER ROLE rs_app IN DATABASE role_settings SET session_replication_role = replica",
    ] {
        case.sql(Source, sql).await;
    }
    case.find_and_mend(
        "defaults",
        Error,
        Source,
        &["session_replication_role = replica (ALTER ROLE \"rs_app\" IN DATABASE \"role_settings\")"],
    )
    .await;
    case.find_and_mend("durability", Warning, Source, &["synchronous_commit = off", "rs_app"]).await;
    let finding =
        case.find("defaults", Warning, Target, &["that the target lacks", "work_mem = 7MB", "search_path", "app.jwt_secret"]).await;
    assert!(!format!("{finding:?}").contains("hunter2"), "{finding:?}");
    case.mend(&finding).await;
    let finding = case.find("defaults", Warning, Target, &["that the target lacks"]).await;
    assert_eq!(finding.evidence.len(), 1, "only the secret is left to a person: {finding:?}");
    let row = case.session(Target).await.query_one("SELECT current_setting('search_path')", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "\"$user\", kept, public");

    case.sql(Target, "ALTER DATABASE role_settings SET default_transaction_read_only = on").await;
    case.find_and_mend("defaults", Error, Target, &["begin read-only"]).await;

    // Our own role: what our sessions set themselves does not matter, the others do.
    case.sql(
        Source,
        "ALTER DATABASE role_settings SET statement_timeout = '1s'; ALTER DATABASE role_settings SET idle_session_timeout = '1min'",
    )
    .await;
    case.refute("role_timeouts", Error, Source, &["statement_timeout"]).await;
    case.find("role_timeouts", Error, Source, &["idle_session_timeout is 60 s"]).await;
}

#[tokio::test]
async fn b10_who_can_pass_the_gate_and_who_is_connected_is_listed() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "passing").await;
    for sql in [
        "CREATE ROLE pa_super LOGIN SUPERUSER; CREATE ROLE pa_owner LOGIN; CREATE ROLE pa_setter LOGIN; CREATE ROLE pa_plain LOGIN",
        "GRANT SET ON PARAMETER session_replication_role TO pa_setter",
        "ALTER TABLE public.kept OWNER TO pa_owner; GRANT INSERT ON public.kept TO pa_setter, pa_plain",
    ] {
        case.sql(Source, sql).await;
    }
    case.sql(
        Target,
        "CREATE ROLE pa_super LOGIN SUPERUSER; CREATE ROLE pa_owner LOGIN; CREATE ROLE pa_setter LOGIN; CREATE ROLE pa_plain LOGIN",
    )
    .await;
    let url = pair.source.url("pa_super", "passing");
    let purpose = Purpose::new("PgBouncer 1.25");
    let _pooler = connect(&DatabaseUrl::parse(&url).unwrap(), &purpose).await.unwrap();
    let _job = connect(&DatabaseUrl::parse(&pair.source.url("pa_plain", "passing")).unwrap(), &Purpose::new("nightly-job")).await.unwrap();

    case.find("application_roles", Warning, Source, &["superusers", "pa_super"]).await;
    case.find("application_roles", Warning, Source, &["that own tables", "pa_owner: 1 tables of pa_owner"]).await;
    let finding = case.find_and_mend("application_roles", Warning, Source, &["may set session_replication_role", "pa_setter"]).await;
    assert!(!format!("{finding:?}").contains("pa_plain"), "{finding:?}");
    case.find("isolation", Warning, Target, &["can't be shut out", "pa_super"]).await;
    case.find("isolation", Info, Target, &["can connect to the target now", "pa_plain"]).await;
    case.find("clients", Info, Source, &["PgBouncer 1.25 as pa_super from 127.0.0.1: 1 (idle)", "nightly-job as pa_plain"]).await;
    case.find("clients", Info, Source, &["a pooler stands before the source", "PgBouncer 1.25"]).await;
    let own = case.check().await.iter().flat_map(|finding| finding.evidence.clone()).any(|line| line.contains("cutover/test"));
    assert!(!own, "our own sessions are no clients");

    case.plan.application_roles = vec!["pa_owner".into(), "pa_gone".into()];
    case.find("application_roles", Error, Source, &["does not have", "pa_gone"]).await;
    case.find("clients", Warning, Source, &["not among application_roles", "nightly-job as pa_plain"]).await;
    case.plan.application_roles = vec!["pa_plain".into()];
    case.sql(Target, "REVOKE CONNECT ON DATABASE passing FROM PUBLIC").await;
    case.find_and_mend("isolation", Warning, Target, &["may not connect to the target", "pa_plain"]).await;
}
