//! The user's own checks on moving data: a follower that is behind, that stands still, and answers that come and go.

use std::time::Duration;

use cutover_core::plan::{Check, Expect};
use cutover_postgres::{
    names::Names,
    verify::{
        Options, Sides,
        user_check::{self, Report, Verdict},
    },
};
use cutover_testkit::eventually;
use tokio::sync::watch;

use crate::ground::{CATCH_UP, Databases, ground};

fn equal(sql: &str) -> Check {
    Check { name: "equal".to_owned(), sql: sql.to_owned(), expect: Expect::Equal, timeout: Duration::from_secs(10) }
}

async fn ask(sides: &Sides<'_>, sql: &str, options: &Options) -> Report {
    user_check::run(&equal(sql), sides, &Names::new("test"), options).await
}

/// One table with one row, followed.
async fn followed(name: &str) -> Databases {
    followed_in(Databases::new(name).await).await
}

async fn followed_in(mut databases: Databases) -> Databases {
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    databases.at_authority("INSERT INTO t VALUES (1, 0)").await;
    databases.follow().await;
    databases.caught_up().await;
    databases
}

#[tokio::test(flavor = "multi_thread")]
async fn b16_a_follower_that_is_behind_is_waited_for() {
    let databases = followed("check_behind").await;
    databases.at_follower("BEGIN; LOCK TABLE public.t IN EXCLUSIVE MODE").await;
    databases.at_authority("UPDATE t SET v = 1").await;
    let options = Options::default();
    let asking = async { ask(&databases.sides(), "SELECT v FROM public.t", &options).await };
    let releasing = async {
        let looks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%user_check' \
            AND query LIKE '%confirmed_flush_lsn%'";
        eventually(CATCH_UP, || async { databases.authority.query_one(looks, &[]).await.unwrap().get::<_, i64>(0) > 0 }).await.unwrap();
        databases.at_follower("ROLLBACK").await;
    };
    let (report, ()) = tokio::join!(asking, releasing);
    assert_eq!((report.verdict, report.tries), (Verdict::Pass, 1), "{report:#?}");
    databases.at_follower("UPDATE t SET v = 2").await;
    let report = ask(&databases.sides(), "SELECT v FROM public.t", &options).await;
    assert_eq!(report.verdict, Verdict::Fail, "{report:#?}");
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b16_a_follower_that_stands_still_is_inconclusive_even_if_it_would_answer_the_same() {
    let databases = followed("check_still").await;
    databases.at_follower("ALTER SUBSCRIPTION check_still DISABLE").await;
    let stopped = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'check_still' AND active";
    eventually(CATCH_UP, || async { databases.authority.query_one(stopped, &[]).await.unwrap().get::<_, i64>(0) == 0 }).await.unwrap();
    databases.at_authority("UPDATE t SET v = 0").await;
    let options = Options { patience: Duration::from_secs(1), ..Options::default() };
    let report = ask(&databases.sides(), "SELECT v FROM public.t", &options).await;
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report:#?}");
    assert!(report.why.contains("has not moved"), "{report:#?}");
    let text = report.to_string();
    assert!(text.contains("source: 1 row\n    0\n  target: not asked"), "{text}");
    databases.at_follower("ALTER SUBSCRIPTION check_still ENABLE").await;
    databases.caught_up().await;
    databases.end().await;
}

/// A number that goes up and down is often the same at both looks at the authority, and another one in between.
#[tokio::test(flavor = "multi_thread")]
async fn b16_an_answer_that_comes_and_goes_is_never_called_different() {
    let databases = followed("check_toggle").await;
    let (stop, stopped) = watch::channel(false);
    let toggling = async {
        while !*stopped.borrow() {
            databases.at_authority("UPDATE t SET v = 1 - v").await;
        }
    };
    let asking = async {
        for rechecks in (0..10).cycle().take(60) {
            let options = Options { rechecks, ..Options::default() };
            let report = ask(&databases.sides(), "SELECT v FROM public.t", &options).await;
            assert_ne!(report.verdict, Verdict::Fail, "{report:#?}");
        }
        stop.send(true).unwrap();
    };
    tokio::join!(toggling, asking);
    let report = ask(&databases.sides(), "SELECT v FROM public.t", &Options::default()).await;
    assert_eq!((report.verdict, report.tries), (Verdict::Pass, 1), "{report:#?}");
    databases.end().await;
}

/// A commit that waits for a synchronous standby is at the follower, and not yet visible at the authority.
#[tokio::test(flavor = "multi_thread")]
async fn b16_a_commit_that_the_follower_has_before_the_authority_shows_it_is_no_difference() {
    let databases = followed_in(Databases::alone("check_ahead").await).await;
    let standby = |name: &str| format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
    databases.at_authority(&standby("away")).await;
    databases.at_authority("SELECT pg_reload_conf()").await;
    let writer = databases.another_at_authority().await;
    let waiting = tokio::spawn(async move { writer.batch_execute("SET synchronous_commit = on; UPDATE t SET v = 1").await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually(CATCH_UP, || async { databases.authority.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1 }).await.unwrap();
    let applied = "SELECT v FROM public.t";
    eventually(CATCH_UP, || async { databases.follower.query_one(applied, &[]).await.unwrap().get::<_, i32>(0) == 1 }).await.unwrap();

    let options = Options { rechecks: 0, ..Options::default() };
    let report = ask(&databases.sides(), "SELECT v FROM public.t", &options).await;
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report:#?}");
    databases.at_authority(&standby("")).await;
    databases.at_authority("SELECT pg_reload_conf()").await;
    waiting.await.unwrap().unwrap();
    let report = ask(&databases.sides(), "SELECT v FROM public.t", &options).await;
    assert_eq!((report.verdict, report.tries), (Verdict::Pass, 1), "{report:#?}");
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_not_be_reached_is_inconclusive() {
    let databases = followed("check_away").await;
    let mut away = databases.follower_url.clone();
    away.port = databases.authority_url.port;
    away.database = "there_is_no_such_database".to_owned();
    let sides = Sides { follower: &away, ..databases.sides() };
    let report = ask(&sides, "SELECT v FROM public.t", &Options::default()).await;
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report:#?}");
    assert!(report.why.contains("can't connect"), "{report:#?}");
    databases.end().await;
}

/// Rows that a policy hides from our role would make two different sides look alike.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_hides_are_no_answer() {
    let databases = Databases::new("check_hidden").await;
    databases
        .both(
            "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON t USING (false); \
             DO $$ BEGIN CREATE ROLE onlooker LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
             GRANT USAGE ON SCHEMA public TO onlooker; GRANT SELECT ON t TO onlooker",
        )
        .await;
    databases.at_authority("INSERT INTO t VALUES (1)").await;
    let url =
        |cluster: &cutover_testkit::Cluster| cutover_core::plan::DatabaseUrl::parse(&cluster.url("onlooker", "check_hidden")).unwrap();
    let (authority, follower) = (url(&ground().await.authority), url(&ground().await.follower));
    let sides = Sides { authority: &authority, follower: &follower, ..databases.sides() };
    let report = ask(&sides, "SELECT count(*) FROM public.t", &Options::default()).await;
    assert_eq!(report.verdict, Verdict::Fail, "{report:#?}");
    assert!(report.why.contains("row-level security"), "{report:#?}");
}
