//! A copy that is held back: to a rate, and by how long the source takes to answer.

use std::{sync::Arc, time::Duration};

use cutover_core::{
    Side::{Source, Target},
    Snapshot, Stream,
    plan::DatabaseUrl,
};
use cutover_postgres::{
    copy::{Job, Progress, copy_rows},
    limit::{Limiter, Limits},
};
use cutover_testkit::{Proxy, eventually};
use tokio_postgres::Client;

use crate::ground::{LIMIT, Pair};

/// So many bytes in four tables.
const BYTES: u64 = 12 << 20;

/// What no copy is held below. Unit: bytes a second.
const FLOOR: f64 = 1_048_576.0;

const SCHEMA: &str = "DO $$ BEGIN FOR n IN 1..4 LOOP
        EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', n);
        EXECUTE format('INSERT INTO t%s SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 3072) i', n);
    END LOOP; END $$";

async fn ready(name: &str) -> Pair {
    let pair = Pair::new(name).await;
    pair.sql(Source, SCHEMA).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    pair
}

#[tokio::test]
async fn all_workers_together_keep_to_the_plans_rate() {
    let pair = ready("rate").await;
    let rate = 4 << 20;
    let limiter = Arc::new(Limiter::new(Limits { max_rate: Some(rate), max_latency: None }));
    let progress = Arc::new(Progress::default());
    let copied = copy_rows(Job { limiter: &limiter, ..pair.job() }, Arc::clone(&progress), async |_: Snapshot| {}).await.unwrap();
    assert!(copied.bytes > BYTES, "{copied:?}");
    let reached = copied.bytes as f64 / copied.seconds;
    assert!(reached < rate as f64 * 1.1, "{reached}: {copied:?}");
    assert_eq!(limiter.throttle().map(|throttle| (throttle.rate, throttle.latency)), Some((rate as f64, None)));
    pair.assert_equal().await;
    pair.drop_streams().await;
}

/// The source answers late: less is sent, and it is said why. It answers in time: more, until nothing holds the copy back.
#[tokio::test]
async fn a_source_that_answers_late_is_read_more_slowly_until_it_answers_in_time() {
    let pair = Arc::new(ready("latency").await);
    let reader = not_yet_t4(&pair).await;
    let road = Arc::new(Proxy::start(format!("127.0.0.1:{}", pair.source_server.port())).await.unwrap());
    let limiter = Arc::new(Limiter::new(Limits { max_rate: None, max_latency: Some(Duration::from_millis(250)) }));
    let (shared, held, way) = (Arc::clone(&pair), Arc::clone(&limiter), Arc::clone(&road));
    let copying = tokio::spawn(async move {
        let url = DatabaseUrl::parse(&way.url("postgres", "latency")).unwrap();
        let job = Job { source: &url, limiter: &held, ..shared.job() };
        copy_rows(job, Arc::default(), async |_: Snapshot| way.delay(Duration::from_millis(300))).await
    });
    let lowest = || async { limiter.throttle().filter(|throttle| throttle.rate == FLOOR) };
    let seen = eventually(LIMIT, lowest).await.unwrap();
    assert!(seen.latency.is_some_and(|latency| latency >= Duration::from_millis(300)), "{seen:?}");
    road.delay(Duration::ZERO);
    eventually(LIMIT, || async { limiter.throttle().is_none() }).await.unwrap();
    assert!(!copying.is_finished(), "it recovered while it still copied");
    reader.batch_execute("COMMIT").await.unwrap();
    let copied = tokio::time::timeout(LIMIT, copying).await.unwrap().unwrap().unwrap();
    assert_eq!(copied.rows, 4 * 3072);
    pair.assert_equal().await;
    pair.wait_for_none("copy").await;
    pair.drop_streams().await;
}

/// Somebody ends the session that asks the source how fast it answers: no reason to end the copy, nor to stop asking.
#[tokio::test]
async fn a_copy_outlives_the_session_that_asks_for_latency_and_gets_another() {
    let mut pair = ready("asking").await;
    pair.limiter = Arc::new(Limiter::new(Limits { max_rate: None, max_latency: Some(LIMIT) }));
    let pair = Arc::new(pair);
    let reader = not_yet_t4(&pair).await;
    let shared = Arc::clone(&pair);
    let copying = tokio::spawn(async move { shared.copy_rows().await });
    let asking = format!(
        "FROM pg_stat_activity WHERE application_name = '{}' AND datname = current_database() AND query LIKE '%relpages FROM pg_catalog%'",
        pair.names.application("copy")
    );
    pair.wait_for(Source, &format!("SELECT count(*) = 1 {asking}")).await;
    let first: i32 = pair.one(Source, &format!("SELECT pid {asking}")).await;
    pair.sql(Source, &format!("SELECT pg_terminate_backend({first})")).await;
    pair.wait_for(Source, &format!("SELECT count(*) = 1 AND bool_and(pid <> {first}) {asking}")).await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, copying).await.unwrap().unwrap().unwrap().rows, 4 * 3072);
    pair.assert_equal().await;
    pair.wait_for_none("copy").await;
    pair.drop_streams().await;
}

/// A reader at the target for whom the copy waits before it empties the fourth table.
async fn not_yet_t4(pair: &Pair) -> Client {
    let reader = pair.session(Target).await;
    reader.batch_execute("BEGIN; SELECT FROM t4").await.unwrap();
    reader
}
