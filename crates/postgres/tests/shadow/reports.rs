//! What can be seen of it, and how everything goes back to its beginning.

use std::sync::Arc;
use std::sync::Mutex;

use tokio_postgres::AsyncMessage;

use crate::ground::{Ground, MAJORS, number, refused, run, server, text};

/// C18: nothing in it is from anywhere but the database, and it is of now.
#[tokio::test]
async fn c18_the_dashboard_shows_every_table_as_it_is_now() {
    for major in MAJORS {
        let ground = Ground::moving(major, "dashboard", 100, "sync").await;
        run(&ground.owner, "CREATE TABLE another (id int PRIMARY KEY); SELECT cutover.create_shadow_table('another')").await;
        let board = "SELECT table_name, cutover_stage, read_percentage, health_status, stage_duration_minutes, next_eligible_in_minutes, error_rate_percent, latency_increase_percent,
            validation_score, queued, write_shadow_enabled, epoch FROM cutover.get_cutover_status_dashboard()";
        let begun =
            "another|disabled|0.00|unknown|null|null|null|null|null|0|f|0\nprojects|disabled|0.00|unknown|null|null|null|null|null|0|t|0";
        assert_eq!(text(&ground.owner, board).await, begun, "{major}");
        ground.start(60).await;
        let only = format!("{board} WHERE table_name = 'projects'");
        assert_eq!(text(&ground.owner, &only).await, "projects|dual_write|0.00|unknown|0|60|null|null|null|0|t|1");
        for _ in 0..2 {
            run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = stage_started_at").await;
            ground.climb(1).await;
        }
        ground.feed().await;
        run(&ground.owner, "SELECT cutover.record_cutover_operation('projects', 'read', 15, false, true), cutover.mark_dirty('projects', ARRAY['[\"1\"]'::jsonb], 'x')").await;
        // 1 of 2 reads failed, and the slower one took half as long again.
        assert_eq!(text(&ground.owner, &only).await, "projects|test_10|10.00|unknown|0|60|50.0000|50.0000|null|1|t|3");
        run(&ground.owner, "SELECT cutover.drain('projects')").await;
        run(&ground.owner, "SELECT cutover.perform_cutover_health_check('projects')").await;
        assert_eq!(text(&ground.owner, &only).await, "projects|test_10|10.00|unhealthy|0|60|50.0000|50.0000|100.0000|0|t|3");
        let told = "SELECT recommendations FROM cutover.get_cutover_status_dashboard() WHERE table_name = 'projects'";
        assert!(text(&ground.owner, told).await.starts_with("go back: SELECT cutover.emergency_rollback('projects', 'why')"));
    }
}

/// C20: of one table, or of all, in the hours that are asked for.
#[tokio::test]
async fn c20_the_report_says_what_was_measured_and_decided_in_its_hours() {
    for major in MAJORS {
        let ground = Ground::moving(major, "report", 100, "sync").await;
        run(&ground.owner, "CREATE TABLE another (id int PRIMARY KEY); SELECT cutover.create_shadow_table('another')").await;
        ground.start(0).await;
        ground.climb(2).await;
        ground.feed().await;
        run(&ground.owner, "SELECT cutover.perform_cutover_health_check('projects')").await;
        let report =
            |of: &str| format!("SELECT report_section, table_name, metric_name, metric_value FROM cutover.generate_cutover_report({of})");
        let all = text(&ground.owner, &report("")).await;
        for line in [
            "status|projects|stage|test_10",
            "status|another|stage|disabled",
            "performance|projects|read at the shadow|3 operations, 0.0000 % failed, 10.00 ms on average, p50 10, p95 10, p99 10, at most 10",
            "health|projects|healthy|1",
            "health|projects|lowest_validation_score|100.0000",
        ] {
            assert!(all.contains(line), "{major}: {line} is not in\n{all}");
        }
        assert_eq!(all.matches("decisions|projects|advance_cutover_stage|").count(), 2, "{all}");
        let one = text(&ground.owner, &report("'another', 1")).await;
        assert!(one.lines().all(|line| line.contains("|another|")) && one.contains("decisions|another|create_shadow_table"), "{one}");
        run(&ground.admin, "UPDATE cutover.operation_sample SET at = at - interval '3 hours'").await;
        assert!(!text(&ground.owner, &report("'projects', 2")).await.contains("read at the shadow"));
        assert!(text(&ground.owner, &report("'projects', 4")).await.contains("read at the shadow"));
        assert_eq!(refused(&ground.owner, "SELECT cutover.generate_cutover_report(NULL, 0)").await.0.code(), "SC002");
        assert_eq!(refused(&ground.owner, "SELECT cutover.generate_cutover_report('nothing')").await.0.code(), "SC001");
    }
}

/// C38: by an operator, on a database that is in use; nothing of it stays; and it can fail.
#[tokio::test]
async fn c38_the_self_test_passes_leaves_nothing_and_can_fail() {
    for major in MAJORS {
        let ground = Ground::moving(major, "self_test", 50, "sync").await;
        ground.start(0).await;
        let tests = "SELECT string_agg(test_name, ', ') FILTER (WHERE test_status <> 'PASS'), count(*), min(execution_time_ms) > 0 FROM cutover.run_cutover_system_tests()";
        let trace = "SELECT (SELECT count(*) FROM cutover.audit_log), (SELECT count(*) FROM cutover.shadow_table), (SELECT count(*) FROM pg_class WHERE relname LIKE 'self_test%')";
        let before = text(&ground.admin, trace).await;
        assert_eq!(text(&ground.owner, tests).await, "null|10|t", "{major}");
        assert_eq!(text(&ground.admin, trace).await, before);
        run(
            &ground.admin,
            "CREATE OR REPLACE FUNCTION cutover.bucket(p_salt text, p_key text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 17'",
        )
        .await;
        assert_eq!(text(&ground.owner, tests).await, "bucketing, routing|10|t", "{major}");
        run(&ground.admin, "DROP TRIGGER cutover_dual_write_update ON projects").await;
        assert_eq!(text(&ground.owner, tests).await, "bucketing, routing, tables|10|t", "{major}");
        let why = "SELECT test_status, test_result FROM cutover.run_cutover_system_tests() WHERE test_name = 'tables'";
        assert_eq!(text(&ground.owner, why).await, "FAIL|projects lacks triggers");
    }
}

/// C24: a table that is on no way, and only where it is confirmed.
#[tokio::test]
async fn c24_a_reset_wants_to_be_confirmed_and_is_refused_on_the_way() {
    let ground = Ground::moving(15, "reset", 50, "sync").await;
    ground.start(0).await;
    ground.climb(1).await;
    let reset = "SELECT cutover.reset_cutover_state('projects', p_confirm_reset := TRUE)";
    assert_eq!(refused(&ground.owner, "SELECT cutover.reset_cutover_state('projects')").await.0.code(), "SC003");
    assert_eq!(refused(&ground.owner, reset).await.0.code(), "SC002");
    let audit = number(&ground.owner, "SELECT count(*) FROM cutover.audit_log").await;
    run(&ground.owner, &format!("SELECT cutover.emergency_rollback('projects', 'a test'); {reset}")).await;
    let left = "SELECT cutover_stage, epoch, min_samples, (SELECT count(*) FROM cutover.operation_sample), (SELECT count(*) FROM cutover.audit_log) FROM cutover.traffic_routing_config";
    assert_eq!(text(&ground.owner, left).await, format!("disabled|4|100|0|{}", audit + 2), "epochs go on, and so does the audit");
    run(&ground.shop, "INSERT INTO projects (first, last) VALUES ('a', 'b')").await;
    assert_eq!(ground.different().await, 0, "what is written goes on to both");
}

/// C23: every table, and the audit survives.
#[tokio::test]
async fn c23_rolling_the_system_back_keeps_the_audit_and_breaks_no_write() {
    for major in MAJORS {
        let ground = Ground::moving(major, "system", 50, "sync").await;
        run(&ground.owner, "CREATE TABLE another (id int PRIMARY KEY); SELECT cutover.create_shadow_table('another'), cutover.enable_dual_write('another')").await;
        ground.start(0).await;
        ground.climb(4).await;
        assert_eq!(refused(&ground.owner, "SELECT cutover.rollback_cutover_system()").await.0.code(), "SC003");
        let told = text(&ground.owner, "SELECT * FROM cutover.rollback_cutover_system(p_confirm_rollback := TRUE)").await;
        assert_eq!(told, "another|rolled back\nprojects|rolled back", "{major}");
        let stages = "SELECT table_name, cutover_stage, write_shadow_enabled FROM cutover.traffic_routing_config ORDER BY 1";
        assert_eq!(text(&ground.owner, stages).await, "another|disabled|f\nprojects|disabled|f");
        run(&ground.shop, "INSERT INTO projects (first, last) VALUES ('a', 'b')").await;
        assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.audit_log WHERE action = 'advance_cutover_stage'").await, 4);
        assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.verify_audit()").await, 0);
    }
}

/// C14: whether the shadow is written is a decision of its own; a shadow that is not written is not read.
#[tokio::test]
async fn c14_writing_to_the_shadow_is_turned_off_and_on_by_itself() {
    let ground = Ground::moving(18, "by_its_own", 50, "sync").await;
    let state = "SELECT write_shadow_enabled, read_percentage, cutover_stage FROM cutover.traffic_routing_config";
    for (call, told) in [("disable", "f|0.00|disabled"), ("enable", "t|0.00|disabled")] {
        run(&ground.owner, &format!("SELECT cutover.{call}_dual_write('projects')")).await;
        assert_eq!(text(&ground.owner, state).await, told);
    }
    ground.start(0).await;
    ground.climb(4).await;
    assert_eq!(text(&ground.owner, state).await, "t|100.00|full_100");
    run(&ground.owner, "SELECT cutover.disable_dual_write('projects', 'it is slow')").await;
    assert_eq!(text(&ground.owner, state).await, "f|0.00|disabled");
    let audit =
        "SELECT string_agg(action || ': ' || reason, '; ' ORDER BY seq) FROM (SELECT * FROM cutover.audit_log ORDER BY seq DESC LIMIT 2) l";
    assert_eq!(
        text(&ground.owner, audit).await,
        "emergency_rollback: dual writes are turned off: it is slow; disable_dual_write: it is slow"
    );
}

/// C40, C41: what others refer to goes first, and then what is small; out of order, somebody is told. Stages last as the ladder recommends where nobody says how long.
#[tokio::test]
async fn c40_c41_a_table_out_of_order_is_warned_about_and_stages_last_as_recommended() {
    let ground = Ground::new(15, "order").await;
    run(
        &ground.owner,
        "CREATE TABLE contexts (id int PRIMARY KEY); INSERT INTO contexts SELECT generate_series(1, 5000); ANALYZE contexts;
         CREATE TABLE projects (id int PRIMARY KEY); INSERT INTO projects SELECT generate_series(1, 30000);
         CREATE TABLE sessions (id int PRIMARY KEY, project int REFERENCES projects); CREATE TABLE small (id int PRIMARY KEY)",
    )
    .await;
    for table in ["contexts", "projects", "sessions", "small"] {
        run(&ground.owner, &format!("SELECT cutover.create_shadow_table('{table}'), cutover.enable_dual_write('{table}')")).await;
    }
    let order = "SELECT string_agg(table_name, ' ' ORDER BY place) FROM cutover.recommended_order()";
    assert_eq!(text(&ground.owner, order).await, "small contexts projects sessions");
    run(&ground.owner, "SELECT cutover.configure_cutover('sessions', '{\"cutover_order\": 1}')").await;
    assert_eq!(text(&ground.owner, order).await, "sessions small contexts projects");

    let (client, mut connection) = tokio_postgres::connect(&server(15).await.url("owner", "order"), tokio_postgres::NoTls).await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                heard.lock().unwrap().push(notice.message().to_owned());
            }
        }
    });
    run(&client, "SELECT cutover.start_gradual_cutover('sessions', NULL)").await;
    assert_eq!(*told.lock().unwrap(), Vec::<String>::new());
    run(&client, "SELECT cutover.start_gradual_cutover('contexts', NULL)").await;
    assert_eq!(*told.lock().unwrap(), ["small is to go before contexts, and was not started"]);
    for (stage, hours) in [("dual_write", 24), ("test_1", 12), ("test_10", 6), ("half_50", 4), ("full_100", 2)] {
        let lasts = "SELECT cutover_stage, extract(epoch FROM next_stage_eligible_at - stage_started_at)::int / 3600 FROM cutover.traffic_routing_config WHERE table_name = 'sessions'";
        let lasts = text(&ground.owner, lasts).await;
        assert!([format!("{stage}|{hours}"), format!("{stage}|{}", hours - 1)].contains(&lasts), "{lasts}");
        if stage != "full_100" {
            run(&ground.owner, "SELECT cutover.advance_cutover_stage('sessions', true, 'to see the next')").await;
        }
    }
}
