//! How a table is judged: at the boundary of each limit, with no data, with old data, and while limits change.

use std::{future::poll_fn, time::Duration};

use tokio_postgres::{AsyncMessage, NoTls};

use crate::ground::{Ground, MAJORS, number, refused, run, server, text};

pub(crate) const CHECK: &str =
    "SELECT overall_health, ready_to_advance, consecutive_failures FROM cutover.perform_cutover_health_check('projects')";
pub(crate) const SAFETY: &str = "SELECT table_name, action_taken, health_status FROM cutover.run_automated_safety_check()";
pub(crate) const STAGE: &str = "SELECT cutover_stage, health_status, consecutive_failures FROM cutover.traffic_routing_config";

/// At a stage with reads on both sides.
pub(crate) async fn halfway(major: u32, database: &str) -> Ground {
    let ground = Ground::moving(major, database, 1_000, "sync").await;
    ground.start(0).await;
    ground.climb(3).await;
    run(&ground.owner, "SELECT cutover.configure_cutover('projects', '{\"min_samples\": 100}')").await;
    ground
}

impl Ground {
    /// So many reads at the shadow of which some fail, and as many at the primary; both with their latency.
    pub(crate) async fn reads(&self, count: u32, failed: u32, at_shadow: u32, at_primary: u32) {
        run(
            &self.owner,
            &format!(
                "SELECT cutover.record_cutover_operation('projects', 'read', {at_shadow}, i > {failed}, true), cutover.record_cutover_operation('projects', 'read', {at_primary})
                   FROM generate_series(1, {count}) i"
            ),
        )
        .await;
    }

    /// Nothing was measured yet.
    pub(crate) async fn forget(&self) {
        run(&self.admin, "TRUNCATE cutover.operation_sample, cutover.dual_write_stats, cutover.cutover_performance_metrics; UPDATE cutover.traffic_routing_config SET baseline = '{}'").await;
    }

    /// Verdict, whether it may go on, and failures in a row, once that was measured and nothing else.
    async fn judged(&self, count: u32, failed: u32, at_shadow: u32, at_primary: u32) -> String {
        self.forget().await;
        run(&self.admin, "UPDATE cutover.traffic_routing_config SET consecutive_failures = 0, health_status = 'unknown'").await;
        self.reads(count, failed, at_shadow, at_primary).await;
        text(&self.owner, CHECK).await
    }
}

/// C30, C31: errors and latency, at each limit and beyond it.
#[tokio::test]
async fn c30_c31_each_limit_is_beyond_what_it_says_and_not_at_it() {
    for major in MAJORS {
        let ground = halfway(major, "limits").await;
        for (count, failed, at_shadow, at_primary, told) in [
            (1_000, 0, 100, 100, "healthy|t|0"),
            (1_000, 1, 100, 100, "healthy|f|0"), // 0.1 % is not less than 0.1 %
            (1_001, 1, 100, 100, "healthy|t|0"),
            (1_000, 10, 100, 100, "healthy|f|0"), // 1 % is not more than 1 %
            (1_000, 11, 100, 100, "degraded|f|1"),
            (1_000, 50, 100, 100, "degraded|f|1"),
            (1_000, 51, 100, 100, "unhealthy|f|1"), // by far: five times the limit
            (100, 0, 109, 100, "healthy|t|0"),
            (100, 0, 110, 100, "healthy|f|0"), // 10 % is not less than 10 %
            (100, 0, 120, 100, "healthy|f|0"),
            (100, 0, 121, 100, "degraded|f|1"),
            (100, 0, 200, 100, "degraded|f|1"),
            (100, 0, 201, 100, "unhealthy|f|1"),
            (100, 0, 50, 100, "healthy|t|0"),
            (100, 0, 2, 1, "healthy|t|0"), // a millisecond is as fine as it is recorded
            (100, 0, 3, 1, "unhealthy|f|1"),
            (99, 0, 100, 100, "inconclusive|f|0"), // too few say nothing
            (99, 99, 100, 100, "inconclusive|f|0"),
        ] {
            assert_eq!(
                ground.judged(count, failed, at_shadow, at_primary).await,
                told,
                "{major}: {failed} of {count} fail, {at_shadow} and {at_primary} ms"
            );
        }
    }
}

/// C30, C31: the score of a comparison, at each limit and beyond it.
#[tokio::test]
async fn c30_c31_rows_that_differ_are_judged_by_the_score() {
    let ground = halfway(15, "score").await;
    for (different, told) in [
        (0, "healthy|t|0"),
        (4, "healthy|t|0"),
        (5, "healthy|f|0"),
        (10, "healthy|f|0"),
        (11, "degraded|f|1"),
        (50, "degraded|f|1"),
        (51, "unhealthy|f|1"),
    ] {
        run(&ground.admin, &format!("UPDATE projects_shadow SET cents = -1 WHERE id <= {different}")).await;
        assert_eq!(ground.judged(100, 0, 10, 10).await, told, "{different} of 1000");
        if different == 0 {
            continue;
        }
        let blocked = refused(&ground.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
        assert_eq!(blocked.0.code(), "SC005", "{blocked:?}");
    }
    // Mended, what was seen before counts no more.
    run(&ground.owner, "SELECT cutover.emergency_rollback('projects', 'mend it')").await;
    run(&ground.shop, "UPDATE projects SET price = price").await;
    ground.start(0).await;
    ground.feed().await;
    run(&ground.admin, "UPDATE projects_shadow SET cents = -1 WHERE id <= 6").await;
    assert_eq!(text(&ground.owner, CHECK).await, "healthy|f|0");
    run(&ground.shop, "UPDATE projects SET price = price").await;
    run(&ground.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
}

/// C32: no samples, too few, old ones, and none of the primary to compare with.
#[tokio::test]
async fn what_was_not_measured_is_inconclusive_and_holds() {
    for major in MAJORS {
        let ground = Ground::moving(major, "nothing", 100, "sync").await;
        ground.start(0).await;
        ground.climb(2).await;
        let advance = "SELECT cutover.advance_cutover_stage('projects')";
        let holds = async |part: &str| {
            let (state, words) = refused(&ground.owner, advance).await;
            assert!(state.code() == "SC005" && words.contains(part), "{major}: {words}");
            assert_eq!(text(&ground.owner, CHECK).await, "inconclusive|f|0", "{major}: {part}");
        };
        ground.forget().await;
        holds("0 of 1 operations at the shadow").await;
        run(&ground.owner, "SELECT cutover.record_cutover_operation('projects', 'read', 10, true, true)").await;
        holds("no operation was recorded 1 times at both").await;
        ground.feed().await;
        run(&ground.admin, "UPDATE cutover.operation_sample SET at = now() - interval '16 minutes'; UPDATE cutover.traffic_routing_config SET stage_started_at = now() - interval '1 day', next_stage_eligible_at = now() - interval '1 day'").await;
        holds("within 15 minutes").await;
        ground.feed().await;
        run(&ground.admin, "UPDATE cutover.dual_write_config SET backfilled_at = NULL").await;
        assert_eq!(text(&ground.owner, CHECK).await, "inconclusive|f|0", "a backfill that is under way is no score");
        run(
            &ground.admin,
            "UPDATE cutover.dual_write_config SET backfilled_at = now(); ALTER TABLE projects_shadow RENAME TO out_of_the_way",
        )
        .await;
        let summary = "SELECT overall_health, health_summary ~ 'can''t be compared' FROM cutover.perform_cutover_health_check('projects')";
        assert_eq!(text(&ground.owner, summary).await, "inconclusive|t", "{major}: a shadow that can't be read");
        run(&ground.admin, "ALTER TABLE out_of_the_way RENAME TO projects_shadow; DELETE FROM cutover.dirty_key").await;
        run(&ground.owner, advance).await;
    }
}

/// C32: the time that a stage is to last counts from the end of the last gap in what was recorded.
#[tokio::test]
async fn c32_a_gap_in_the_samples_begins_the_stage_anew() {
    let ground = Ground::moving(15, "gap", 100, "sync").await;
    ground.start(0).await;
    ground.climb(2).await;
    run(&ground.owner, "SELECT cutover.configure_cutover('projects', '{\"health_window_minutes\": 5}')").await;
    // The stage began 40 minutes ago and was to last 30; for 10 of them nothing was recorded.
    run(
        &ground.admin,
        "UPDATE cutover.traffic_routing_config SET stage_started_at = now() - interval '40 minutes', next_stage_eligible_at = now() - interval '10 minutes';
         INSERT INTO cutover.operation_sample SELECT 'projects', 3, 'test_10', 'read', s, true, 10, now() - i * interval '1 minute'
           FROM generate_series(0, 39) i, (VALUES (true), (false)) AS s (s) WHERE i NOT BETWEEN 16 AND 25",
    )
    .await;
    for _ in 0..2 {
        let (state, words) = refused(&ground.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
        assert!(state.code() == "SC002" && words.contains("15 minutes are left, since there was a gap"), "{words}");
        assert_eq!(number(&ground.owner, "SELECT next_eligible_in_minutes::bigint FROM cutover.get_cutover_status_dashboard()").await, 15);
        // Rolled up, it is seen as well.
        run(&ground.owner, "SELECT cutover.roll_up_operations()").await;
    }
    run(&ground.admin, "UPDATE cutover.cutover_performance_metrics SET measurement_period_start = measurement_period_start - interval '12 minutes' WHERE measurement_period_end < now() - interval '20 minutes';
        UPDATE cutover.cutover_performance_metrics SET measurement_period_end = measurement_period_end + interval '12 minutes' WHERE measurement_period_end < now() - interval '25 minutes'").await;
    ground.feed().await;
    run(&ground.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
}

/// C33, C21: three failures in a row hold, the fourth rolls back; the same samples again are no further failure.
#[tokio::test]
async fn c33_three_failures_in_a_row_do_not_roll_back_and_the_fourth_does() {
    for major in MAJORS {
        let ground = halfway(major, "in_a_row").await;
        ground.reads(1_000, 20, 10, 10).await;
        for failures in 1..=3 {
            assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|degraded", "{major}");
            assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|degraded", "{major}: nothing new was measured");
            assert_eq!(text(&ground.owner, STAGE).await, format!("half_50|degraded|{failures}"));
            ground.reads(100, 2, 10, 10).await;
        }
        assert_eq!(text(&ground.owner, SAFETY).await, "projects|rolled_back|unhealthy", "{major}");
        assert_eq!(text(&ground.owner, STAGE).await, "disabled|unknown|0");
        let why = "SELECT action || ' ' || reason FROM cutover.audit_log ORDER BY seq DESC LIMIT 1";
        let why = text(&ground.owner, why).await;
        assert!(why.starts_with("emergency_rollback automatic: unhealthy: error_rate: 2.0000 %"), "{why}");
    }
}

#[tokio::test]
async fn one_good_check_ends_a_row_of_bad_ones_and_one_that_says_nothing_does_not() {
    let ground = halfway(18, "good_again").await;
    ground.reads(1_000, 20, 10, 10).await;
    assert_eq!(text(&ground.owner, CHECK).await, "degraded|f|1");
    ground.forget().await;
    assert_eq!(text(&ground.owner, CHECK).await, "inconclusive|f|1");
    ground.reads(100, 0, 10, 10).await;
    assert_eq!(text(&ground.owner, CHECK).await, "healthy|t|0");
}

/// C46: as of the next check, by whoever may; what can't be is refused.
#[tokio::test]
async fn c46_limits_are_tuned_while_it_runs_and_what_can_not_be_is_refused() {
    for major in MAJORS {
        let ground = halfway(major, "tuned").await;
        assert_eq!(ground.judged(100, 2, 10, 10).await, "degraded|f|1");
        run(
            &ground.owner,
            "SELECT cutover.configure_cutover('projects', '{\"max_error_rate_percent\": 3, \"alert_error_rate_percent\": 2, \"advance_error_rate_percent\": 2.0}', 'it is noisy')",
        )
        .await;
        assert_eq!(ground.judged(100, 2, 10, 10).await, "healthy|f|0");
        assert_eq!(ground.judged(100, 1, 10, 10).await, "healthy|t|0");
        let audit = "SELECT action, reason, detail ->> 'max_error_rate_percent' FROM cutover.audit_log ORDER BY seq DESC LIMIT 1";
        assert_eq!(text(&ground.owner, audit).await, "configure_cutover|it is noisy|3");
        for settings in [
            "{\"max_error_rate_percent\": 1}",
            "{\"max_error_rate_percent\": 101}",
            "{\"max_error_rate_percent\": \"much\"}",
            "{\"min_validation_score\": 99.9}",
            "{\"advance_validation_score\": 100.1}",
            "{\"min_samples\": 0}",
            "{\"min_samples\": null}",
            "{\"health_window_minutes\": 0}",
            "{\"cutover_stage\": \"completed\"}",
            "{\"salt\": \"another\"}",
            "{\"nothing\": 1}",
            "[]",
        ] {
            let (state, _) = refused(&ground.owner, &format!("SELECT cutover.configure_cutover('projects', '{settings}')")).await;
            assert_eq!(state.code(), "SC002", "{major} {settings}");
        }
    }
}

/// C43: each of the five is told once, when it begins.
#[tokio::test]
async fn c43_all_five_alerts_are_told_to_whoever_listens_and_each_once() {
    let ground = halfway(15, "alerts").await;
    let (client, mut connection) = tokio_postgres::connect(&server(15).await.url("owner", "alerts"), NoTls).await.unwrap();
    let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message {
                send.send(told.payload().to_owned()).unwrap();
            }
        }
    });
    run(&client, "LISTEN cutover_alert").await;
    run(&ground.admin, "UPDATE projects_shadow SET cents = -1 WHERE id <= 20").await;
    ground.reads(1_000, 20, 125, 100).await;
    for _ in 0..4 {
        run(&ground.owner, CHECK).await;
    }
    run(&ground.owner, "SELECT cutover.emergency_stop_all_cutover('Critical database issue')").await;
    let mut alerts = Vec::new();
    for _ in 0..5 {
        let told = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["table"], "projects");
        alerts.push(told["alert"].as_str().unwrap().to_owned());
    }
    assert_eq!(alerts, ["error_rate", "latency", "validation_score", "consecutive_failures", "emergency_stop"]);
    let (state, words) = refused(&ground.owner, "SELECT cutover.start_gradual_cutover('projects')").await;
    assert!(state.code() == "SC002" && words.contains("stopped in an emergency"), "{words}");
    run(&ground.owner, "SELECT cutover.enable_dual_write('projects'), cutover.start_gradual_cutover('projects')").await;
}

/// C51: by a line through what was measured; nothing is foretold from two points.
#[tokio::test]
async fn c51_a_measure_that_gets_worse_is_told_with_the_time_that_is_left() {
    let ground = halfway(15, "trend").await;
    let trend = "SELECT measure, latest, round(per_hour, 2), round(extract(epoch FROM breach_in) / 60) FROM cutover.health_trend('projects') WHERE measure <> 'validation_score'";
    let check = async |minutes: u32, errors: f64| {
        run(
            &ground.admin,
            &format!(
                "INSERT INTO cutover.health_check (table_name, at, epoch, cutover_stage, overall_health, error_rate_percent, latency_increase_percent, samples, consecutive_failures, breaches, alerts)
                 SELECT 'projects', '2026-01-01 12:00'::timestamptz - '2026-01-01 12:00'::timestamptz + now() - {minutes} * interval '1 minute', epoch, cutover_stage, 'healthy', {errors}, 5, 100, 0, '{{}}', '{{}}' FROM cutover.traffic_routing_config"
            ),
        )
        .await;
    };
    check(40, 0.1).await;
    check(30, 0.2).await;
    assert_eq!(text(&ground.owner, trend).await, "error_rate|0.2|null|null\nlatency|5|null|null");
    check(20, 0.3).await;
    check(10, 0.4).await;
    let told = text(&ground.owner, trend).await;
    assert!(told.starts_with("error_rate|0.4|0.60|60\nlatency|5|0.00|null"), "{told}");
    ground.reads(1_000, 5, 10, 10).await;
    let recommended = text(&ground.owner, "SELECT recommendations::text FROM cutover.perform_cutover_health_check('projects')").await;
    assert!(recommended.contains("error_rate reaches its limit in about 0"), "{recommended}");
}
