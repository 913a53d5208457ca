//! What applications record, and what becomes of it: every figure is a true one, and nothing grows for ever.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cutover_testkit::Seed;
use rand::RngExt;
use tokio::task::JoinSet;

use crate::ground::{Ground, MAJORS, number, refused, run, text};

/// Every figure of a store, in a row.
fn figures(store: &str) -> String {
    format!(
        "SELECT operation_type, operations, failed, round(average::numeric, 6), p50, p95, p99, longest
           FROM cutover.operation_figures('projects', '-infinity') WHERE store = '{store}' ORDER BY 1"
    )
}

/// What was recorded, as if it had been minutes ago.
const LONG_AGO: &str = "UPDATE cutover.operation_sample SET at = at - interval '10 minutes'; UPDATE cutover.dual_write_stats SET \"timestamp\" = \"timestamp\" - interval '10 minutes'";

/// C16, C17: against the server's own percentiles over the same latencies; rolled up or not, and some of both.
#[tokio::test]
async fn c16_c17_percentiles_are_those_of_every_latency_that_was_recorded() {
    let seed = Seed::from_env_or_random();
    for major in MAJORS {
        let ground = Ground::moving(major, "percentiles", 5, "sync").await;
        let mut random = seed.derive(u64::from(major)).rng();
        run(&ground.owner, "CREATE TABLE reference (operation text, ms int, success boolean)").await;
        let mut last = String::new();
        for round in 0..3 {
            let rows: Vec<String> = (0..random.random_range(300..700))
                .map(|_| {
                    let spread: f64 = random.random_range(0.0..9.0);
                    let operation = if random.random_bool(0.3) { "list" } else { "read" };
                    format!("('{operation}', {}, {})", spread.exp() as i32, random.random_bool(0.97))
                })
                .collect();
            run(&ground.owner, &format!("INSERT INTO reference VALUES {}", rows.join(","))).await;
            let record = format!(
                "SELECT cutover.record_cutover_operation('projects', operation, ms, success, true) FROM (VALUES {}) AS v (operation, ms, success)",
                rows.join(",")
            );
            run(&ground.owner, &record).await;
            let reference = "SELECT operation, count(*), count(*) FILTER (WHERE NOT success), round(avg(ms), 6),
                percentile_disc(0.5) WITHIN GROUP (ORDER BY ms), percentile_disc(0.95) WITHIN GROUP (ORDER BY ms),
                percentile_disc(0.99) WITHIN GROUP (ORDER BY ms), max(ms) FROM reference GROUP BY 1 ORDER BY 1";
            last = text(&ground.owner, reference).await;
            assert_eq!(text(&ground.owner, &figures("shadow")).await, last, "{major} {round}");
            run(&ground.admin, LONG_AGO).await;
            // Not all of it at once.
            run(&ground.owner, &format!("SELECT cutover.roll_up_operations({})", random.random_range(50..400))).await;
            assert_eq!(text(&ground.owner, &figures("shadow")).await, last, "{major} {round}");
        }
        while number(&ground.owner, "SELECT cutover.roll_up_operations()").await > 0 {}
        assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.operation_sample").await, 0);
        assert_eq!(text(&ground.owner, &figures("shadow")).await, last, "{major}");
        let sums = "SELECT sum(total_operations), sum(failed_operations), bool_and(total_operations = successful_operations + failed_operations), max(max_latency_ms),
            bool_and(p50_latency_ms <= p95_latency_ms AND p95_latency_ms <= p99_latency_ms AND measurement_period_start <= measurement_period_end AND operations_per_second > 0)
            FROM cutover.cutover_performance_metrics WHERE store = 'shadow'";
        let reference = "SELECT count(*), count(*) FILTER (WHERE NOT success), true, max(ms), true FROM reference";
        assert_eq!(text(&ground.owner, sums).await, text(&ground.owner, reference).await, "{major}");
    }
}

#[tokio::test]
async fn what_is_recorded_while_others_roll_up_counts_once() {
    let ground = Ground::moving(15, "counted_once", 5, "sync").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut rollers = JoinSet::new();
    for _ in 0..2 {
        let (client, stop) = (ground.another("owner").await, stop.clone());
        rollers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                run(&client, "SELECT cutover.roll_up_operations(50)").await;
            }
        });
    }
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let client = ground.another("postgres").await;
        writers.spawn(async move {
            for _ in 0..50 {
                run(&client, "INSERT INTO cutover.operation_sample SELECT 'projects', 0, 'disabled', 'read', true, true, i, now() - interval '2 minutes' FROM generate_series(1, 10) i").await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
        assert!(
            number(&ground.admin, "SELECT coalesce(sum(operations), 0)::bigint FROM cutover.measured('projects', '-infinity')").await
                <= 2_000
        );
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = rollers.join_next().await {
        done.unwrap();
    }
    assert_eq!(text(&ground.owner, &figures("shadow")).await, "read|2000|0|5.500000|5|10|10|10");
}

#[tokio::test]
async fn what_can_not_have_been_is_not_recorded_and_an_application_may_record_and_no_more() {
    let ground = Ground::moving(18, "recorded", 5, "sync").await;
    run(&ground.admin, "CREATE ROLE recorder LOGIN IN ROLE cutover_app").await;
    let app = ground.another("recorder").await;
    for (call, state) in [
        ("'projects', 'read', -1", "SC002"),
        ("'projects', 'read', NULL", "SC002"),
        ("'projects', '', 1", "SC002"),
        ("'projects', NULL, 1", "SC002"),
        ("'projects', repeat('x', 65), 1", "SC002"),
        ("'projects', 'read', 1, NULL", "SC002"),
        ("'nothing', 'read', 1", "SC001"),
    ] {
        assert_eq!(refused(&app, &format!("SELECT cutover.record_cutover_operation({call})")).await.0.code(), state, "{call}");
    }
    run(&app, "SELECT cutover.record_cutover_operation('projects', 'read', 0), cutover.record_cutover_operation('public.projects', 'read', 45, TRUE, FALSE)").await;
    run(&app, "SELECT cutover.should_route_to_shadow('projects')").await;
    for sql in [
        "SELECT * FROM cutover.operation_sample",
        "SELECT cutover.roll_up_operations()",
        "SELECT cutover.perform_cutover_health_check('projects')",
    ] {
        assert_eq!(refused(&app, sql).await.0.code(), "42501", "{sql}");
    }
    assert_eq!(text(&ground.owner, &figures("primary")).await, "read|2|0|22.500000|0|45|45|45");
    run(&ground.admin, "DROP ROLE recorder").await;
}

/// C45: as long as was configured, and no longer.
#[tokio::test]
async fn c45_measurements_are_kept_as_long_as_configured() {
    let ground = Ground::moving(13, "retention", 5, "sync").await;
    ground.feed().await;
    run(&ground.admin, LONG_AGO).await;
    run(&ground.owner, "SELECT cutover.drain('projects')").await;
    assert_eq!(
        text(&ground.owner, "SELECT count(*), (SELECT count(*) FROM cutover.dual_write_stats) FROM cutover.cutover_performance_metrics")
            .await,
        "3|0",
        "each drain rolls up"
    );
    assert_eq!(refused(&ground.owner, "SELECT cutover.set_metrics_retention('1 minute')").await.0.code(), "SC002");
    run(&ground.owner, "SELECT cutover.set_metrics_retention('2 hours'), cutover.roll_up_operations()").await;
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.cutover_performance_metrics").await, 3);
    run(
        &ground.admin,
        "UPDATE cutover.cutover_performance_metrics SET measurement_period_end = now() - interval '3 hours' WHERE store = 'shadow'",
    )
    .await;
    run(&ground.owner, "SELECT cutover.roll_up_operations()").await;
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.cutover_performance_metrics").await, 2);
    assert_eq!(number(&ground.owner, "SELECT cutover.prune_cutover_metrics('0')").await, 2);
}

#[tokio::test]
async fn where_nobody_looks_whoever_measures_rolls_up_and_no_transaction_is_harmed() {
    for major in MAJORS {
        let ground = Ground::moving(major, "unattended", 5, "sync").await;
        ground.feed().await;
        run(&ground.admin, LONG_AGO).await;
        let left = "SELECT (SELECT count(*) FROM cutover.operation_sample) + (SELECT count(*) FROM cutover.dual_write_stats)";
        run(&ground.admin, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT cutover.roll_up_unattended(); COMMIT").await;
        assert_eq!(number(&ground.admin, left).await, 3, "{major}");
        run(&ground.admin, "SELECT cutover.roll_up_unattended()").await;
        assert_eq!(number(&ground.admin, left).await, 0, "{major}");
        run(&ground.admin, "SELECT cutover.note_dual_write('projects', 'insert', NULL, 1), cutover.roll_up_unattended()").await;
        assert_eq!(number(&ground.admin, left).await, 1, "{major}: what is new is left to whoever looks");
    }
}

/// C25, C28: what is counted of second writes, in the hours that are asked for and in no others.
#[tokio::test]
async fn c25_the_summary_of_dual_writes_honours_the_hours() {
    for major in MAJORS {
        let ground = Ground::moving(major, "summary", 5, "sync").await;
        let summary = "SELECT total_operations, successful_operations, failed_operations, success_rate, avg_duration_ms <= max_duration_ms, total_errors, recent_errors::text
            FROM cutover.get_dual_write_performance_summary";
        assert_eq!(text(&ground.owner, &format!("{summary}(24)")).await, "0|0|0|null|null|0|{}", "nothing is no rate");
        run(&ground.admin, "ALTER TABLE projects_shadow ADD CHECK (full_name <> 'bad one')").await;
        for (first, last) in [("good", "one"), ("good", "two"), ("bad", "one"), ("good", "three")] {
            run(&ground.shop, &format!("INSERT INTO projects (first, last) VALUES ('{first}', '{last}')")).await;
        }
        let now = text(&ground.owner, &format!("{summary}(24)")).await;
        assert!(now.starts_with("4|3|1|75.00|t|1|{\"new row for relation") && now.contains("check constraint"), "{now}");
        run(&ground.admin, "UPDATE cutover.dual_write_stats SET \"timestamp\" = \"timestamp\" - interval '5 hours'").await;
        run(&ground.owner, "SELECT cutover.roll_up_operations()").await;
        run(&ground.shop, "INSERT INTO projects (first, last) VALUES ('good', 'four')").await;
        assert_eq!(text(&ground.owner, &format!("{summary}(4)")).await, "1|1|0|100.00|t|0|{}");
        assert!(text(&ground.owner, &format!("{summary}(6)")).await.starts_with("5|4|1|80.00|t|1|"));
        let config = "SELECT failure_count, last_failure_at < now() - interval '4 hours', last_failure ~ 'check constraint' FROM cutover.dual_write_config";
        assert_eq!(text(&ground.owner, config).await, "1|t|t");
        assert_eq!(refused(&ground.owner, "SELECT cutover.get_dual_write_performance_summary(0)").await.0.code(), "SC002");
    }
}

/// C36: by table and time, and by time alone.
#[tokio::test]
async fn c36_what_is_looked_up_has_an_index() {
    let ground = Ground::moving(15, "indexes", 5, "sync").await;
    run(
        &ground.admin,
        "INSERT INTO cutover.cutover_performance_metrics (table_name, epoch, cutover_stage, operation_type, store, total_operations, successful_operations, failed_operations,
             avg_latency_ms, p50_latency_ms, p95_latency_ms, p99_latency_ms, max_latency_ms, operations_per_second, measurement_period_start, measurement_period_end, latencies_ms, latency_counts)
         SELECT CASE i % 5 WHEN 0 THEN 'projects' ELSE 'other' || i % 5 END, 1, 'test_1', 'read', 'shadow', 1, 1, 0, 1, 1, 1, 1, 1, 1, now() - i * interval '1 minute', now() - i * interval '1 minute', '{1}', '{1}'
           FROM generate_series(1, 20000) i;
         INSERT INTO cutover.operation_sample SELECT 'projects', 1, 'test_1', 'read', true, true, 1, now() - i * interval '1 second' FROM generate_series(1, 20000) i;
         INSERT INTO cutover.dual_write_stats (table_name, operation, success, duration_ms, \"timestamp\") SELECT 'projects', 'insert', true, 1, now() - i * interval '1 second' FROM generate_series(1, 20000) i;
         INSERT INTO cutover.health_check (table_name, at, epoch, cutover_stage, overall_health, samples, consecutive_failures, breaches, alerts)
         SELECT 'projects', now() - i * interval '1 minute', 1, 'test_1', 'healthy', 1, 0, '{}', '{}' FROM generate_series(1, 20000) i;
         ANALYZE cutover.cutover_performance_metrics, cutover.operation_sample, cutover.dual_write_stats, cutover.health_check",
    )
    .await;
    for (query, index) in [
        (
            "SELECT * FROM cutover.cutover_performance_metrics WHERE table_name = 'projects' AND measurement_period_end >= now() - interval '12 days'",
            "cutover_performance_metrics_by_table",
        ),
        (
            "SELECT * FROM cutover.cutover_performance_metrics WHERE measurement_period_end < now() - interval '13 days'",
            "cutover_performance_metrics_by_time",
        ),
        (
            "SELECT * FROM cutover.operation_sample WHERE table_name = 'projects' AND at >= now() - interval '1 minute'",
            "operation_sample_by_time",
        ),
        (
            "SELECT * FROM cutover.dual_write_stats WHERE table_name = 'projects' AND \"timestamp\" >= now() - interval '1 minute'",
            "dual_write_stats_by_time",
        ),
        ("SELECT * FROM cutover.health_check WHERE table_name = 'projects' ORDER BY at DESC LIMIT 1", "health_check_by_table"),
        ("SELECT sum(operations) FROM cutover.measured('projects', now() - interval '1 minute')", "operation_sample_by_time"),
    ] {
        let plan = text(&ground.admin, &format!("EXPLAIN {query}")).await;
        assert!(plan.contains(index) || query.contains("measured") && plan.contains("Function Scan"), "{query}\n{plan}");
    }
}
