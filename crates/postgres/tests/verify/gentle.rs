//! A verification that is held back: to a rate, and by how long the side in charge takes to answer.

use std::{sync::Arc, time::Duration};

use cutover_core::plan::DatabaseUrl;
use cutover_postgres::{
    limit::Limits,
    names::Names,
    verify::{Options, Progress, Sides, Verdict, verify},
};
use cutover_testkit::{Proxy, eventually};

use crate::ground::{CATCH_UP, Databases, ground, small_chunks};

const ROWS: u64 = 10_000;

async fn ready(name: &str) -> Databases {
    let databases = Databases::new(name).await;
    databases.both(&format!("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, {ROWS}); ANALYZE t")).await;
    databases
}

#[tokio::test(flavor = "multi_thread")]
async fn all_jobs_together_keep_to_the_plans_rows_a_second() {
    let databases = ready("paced").await;
    let limits = Limits { max_rate: Some(10_000), max_latency: None };
    let report = databases.verify(&Options { limits, chunk_rows: 200, ..small_chunks() }).await;
    assert_eq!((report.verdict(), report.rows), (Verdict::Equal, ROWS));
    // What may be owed at the end, and what the bucket holds at once, was not waited for.
    assert!(report.seconds > (ROWS - 200 * 4 - 1000) as f64 / 10_000.0, "{report:#?}");
}

/// It answers late: fewer rows are compared, and it is said why. It answers in time: more, until nothing holds them back.
#[tokio::test(flavor = "multi_thread")]
async fn a_side_in_charge_that_answers_late_is_read_more_slowly_until_it_answers_in_time() {
    let databases = ready("late").await;
    let road = Proxy::start(format!("127.0.0.1:{}", ground().await.authority.port())).await.unwrap();
    road.delay(Duration::from_millis(300));
    let url = DatabaseUrl::parse(&road.url("postgres", "late")).unwrap();
    let limits = Limits { max_rate: None, max_latency: Some(Duration::from_millis(250)) };
    let (options, progress) = (Options { limits, chunk_rows: 20, ..small_chunks() }, Arc::new(Progress::default()));
    let (seen, follower) = (Arc::clone(&progress), databases.follower_url.clone());
    let verifying = tokio::spawn(async move {
        let sides = Sides { authority: &url, follower: &follower, authority_side: cutover_core::Side::Source, following: None };
        verify(&sides, &Names::new("test"), &options, &seen).await
    });
    let held = eventually(CATCH_UP, || async { progress.held().filter(|held| !held.contains("rising")) }).await.unwrap();
    assert!(held.starts_with("held to 1000 rows/s: the side in charge answers in "), "{held}");
    road.delay(Duration::ZERO);
    eventually(CATCH_UP, || async { progress.held().is_none() }).await.unwrap();
    assert!(!verifying.is_finished(), "it recovered while it still compared: {:?}", progress.numbers());
    let report = tokio::time::timeout(CATCH_UP, verifying).await.unwrap().unwrap().unwrap();
    assert_eq!((report.verdict(), report.rows), (Verdict::Equal, ROWS));
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'late' AND application_name = 'cutover/test/verify'";
    eventually(CATCH_UP, || async { databases.authority.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) == 0 }).await.unwrap();
}
