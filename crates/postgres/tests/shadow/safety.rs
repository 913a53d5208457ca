//! What follows from how a table is judged: back by itself, on by itself where that was asked for, and never because of another table.

use crate::{
    ground::{Ground, MAJORS, number, run, text},
    health::{CHECK, SAFETY, STAGE, halfway},
};

/// C21: what is wrong with one table keeps no other from its rollback, and the rollback stays.
#[tokio::test]
async fn c21_the_safety_check_commits_a_rollback_though_another_table_s_check_fails() {
    for major in MAJORS {
        let ground = halfway(major, "others").await;
        for table in ["aaa", "zzz"] {
            run(
                &ground.owner,
                &format!(
                    "CREATE TABLE {table} (id int PRIMARY KEY); SELECT cutover.create_shadow_table('{table}'), cutover.enable_dual_write('{table}'), cutover.start_gradual_cutover('{table}')"
                ),
            )
            .await;
        }
        let other = ground.another("owner").await;
        // Somebody decides about one; another's functions were meddled with.
        run(&other, "BEGIN; SELECT cutover.configure_cutover('aaa', '{}')").await;
        run(&ground.admin, "UPDATE cutover.shadow_table SET compare_function = 'nothing()' WHERE table_name = 'zzz'").await;
        ground.reads(100, 50, 10, 10).await;
        let told = text(&ground.owner, SAFETY).await;
        assert_eq!(told, "aaa|failed|inconclusive\nprojects|rolled_back|unhealthy\nzzz|none|inconclusive", "{major}");
        run(&other, "ROLLBACK").await;
        let stages = "SELECT table_name, cutover_stage FROM cutover.traffic_routing_config ORDER BY 1";
        assert_eq!(text(&other, stages).await, "aaa|dual_write\nprojects|disabled\nzzz|dual_write", "{major}");
    }
}

/// A shadow that refuses every write, and 2 % errors, and a quarter more latency; each is rolled back by whoever calls the check again and again.
#[tokio::test]
async fn planted_faults_are_rolled_back_and_no_user_sees_them() {
    for (fault, at_shadow, failed, broken) in [("errors", 10, 2, false), ("latency", 125, 0, false), ("refuses", 10, 0, true)] {
        let ground = halfway(15, &format!("fault_{fault}")).await;
        if broken {
            run(&ground.admin, "ALTER TABLE projects_shadow ADD CHECK (full_name = 'never') NOT VALID").await;
        }
        let mut calls = 0;
        while text(&ground.owner, SAFETY).await != "projects|rolled_back|unhealthy" {
            calls += 1;
            assert!(calls <= 5, "{fault}");
            run(&ground.shop, "INSERT INTO projects (first, last) SELECT 'a', 'b' FROM generate_series(1, 3)").await;
            run(&ground.shop, "UPDATE projects SET last = 'c' WHERE id = 3").await;
            ground.reads(100, failed, at_shadow, if at_shadow > 100 { 100 } else { 10 }).await;
        }
        assert!(calls >= 4, "{fault}: not before the fourth: {calls}");
        assert_eq!(
            number(
                &ground.owner,
                "SELECT count(*) FROM generate_series(1, 100) i WHERE cutover.should_route_to_shadow('projects', 'read', i::text)"
            )
            .await,
            0
        );
    }
}

/// C15, C30: where nobody wants it rolled back, an unhealthy table is read at the primary all the same.
#[tokio::test]
async fn an_unhealthy_table_that_is_not_to_be_rolled_back_is_read_at_the_primary() {
    let ground = halfway(15, "override").await;
    run(&ground.owner, "SELECT cutover.configure_cutover('projects', '{\"auto_rollback_enabled\": false}', 'we look ourselves')").await;
    ground.reads(100, 50, 10, 10).await;
    assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|unhealthy");
    assert_eq!(text(&ground.owner, STAGE).await, "half_50|unhealthy|1");
    let reads = "SELECT count(*) FROM generate_series(1, 100) i WHERE cutover.should_route_to_shadow('projects', 'read', i::text)";
    assert_eq!(number(&ground.owner, reads).await, 0);
    ground.forget().await;
    assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|unhealthy", "no news is no good news");
}

/// After completion both names lead to the new table: there is nowhere else to read, and applications are not sent the old way.
#[tokio::test]
async fn a_completed_table_that_is_not_well_is_told_of_and_read_where_it_is() {
    let ground = Ground::last_stage(15, "completed_ill", 50, "sync").await;
    run(&ground.owner, "SELECT cutover.complete_cutover('projects', true)").await;
    for failures in 1..=5 {
        ground.reads(100, 50, 10, 10).await;
        assert_eq!(text(&ground.owner, CHECK).await, format!("degraded|f|{failures}"));
    }
    let alerts = "SELECT alerts::text ~ 'consecutive_failures' FROM cutover.health_check ORDER BY id DESC LIMIT 1";
    assert_eq!(text(&ground.owner, alerts).await, "t");
    assert_eq!(text(&ground.owner, "SELECT cutover.should_route_to_shadow('projects', 'read', 'a')").await, "t");
    assert_eq!(text(&ground.owner, SAFETY).await, "", "it is on no way any more");
}

/// C47: only where it was asked for, when its time has come, and never to completion.
#[tokio::test]
async fn c47_the_next_step_is_taken_by_itself_only_where_that_was_asked_for() {
    let ground = Ground::moving(18, "by_itself", 100, "sync").await;
    ground.start(60).await;
    ground.feed().await;
    assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|healthy");
    run(&ground.owner, "SELECT cutover.configure_cutover('projects', '{\"auto_advance_enabled\": true}')").await;
    assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|healthy", "its time has not come");
    for stage in ["test_1", "test_10", "half_50", "full_100"] {
        run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now()").await;
        ground.feed().await;
        assert_eq!(text(&ground.owner, SAFETY).await, "projects|advanced|healthy");
        assert!(text(&ground.owner, STAGE).await.starts_with(stage));
    }
    run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now()").await;
    ground.feed().await;
    assert_eq!(text(&ground.owner, SAFETY).await, "projects|none|healthy");
    // At 100 % nobody reads the primary: what it took before is what counts.
    ground.forget().await;
    run(&ground.admin, "UPDATE cutover.traffic_routing_config SET baseline = '{\"read\": 10}'").await;
    run(&ground.owner, "SELECT cutover.record_cutover_operation('projects', 'read', 13, true, true)").await;
    assert_eq!(text(&ground.owner, CHECK).await, "degraded|f|1");
}

/// A step that is refused is told, and what the check found stays.
#[tokio::test]
async fn a_step_that_was_to_be_taken_by_itself_and_is_refused_is_held() {
    let ground = Ground::moving(15, "held_back", 1_000, "sync").await;
    ground.start(0).await;
    run(&ground.owner, "SELECT cutover.configure_cutover('projects', '{\"auto_advance_enabled\": true}')").await;
    ground.feed().await;
    run(&ground.admin, "UPDATE projects_shadow SET cents = -1 WHERE id = 7").await;
    let told = text(&ground.owner, "SELECT action_taken, reason FROM cutover.run_automated_safety_check()").await;
    assert!(told.starts_with("held|the comparison of projects is different: 1 rows differ"), "{told}");
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.health_check").await, 1);
}
