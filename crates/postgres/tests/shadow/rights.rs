//! Who may do what, and that what was done stays written.

use crate::ground::{Ground, MAJORS, refused, run, text};

#[tokio::test]
async fn nobody_writes_the_tables_and_each_role_calls_what_is_its_own() {
    for major in MAJORS {
        let ground = Ground::moving(major, "rights", 5, "sync").await;
        run(&ground.admin, "CREATE ROLE looker LOGIN IN ROLE cutover_viewer").await;
        let (looker, stranger) = (ground.another("looker").await, ground.another("stranger").await);
        run(&looker, "SELECT * FROM cutover.audit_log, cutover.dirty_key, cutover.shadow_table; SELECT cutover.verify_audit()").await;
        run(&looker, "SELECT cutover.validate_table_consistency('projects')").await;
        for sql in [
            "INSERT INTO cutover.dirty_key (table_name, key, why) VALUES ('projects', '[]', '')",
            "UPDATE cutover.dual_write_config SET enabled = false",
            "DELETE FROM cutover.audit_log",
            "TRUNCATE cutover.audit_log",
            "SELECT cutover.append_audit('a', 'b', 'c')",
            "SELECT cutover.trusted('a', 'projects')",
        ] {
            for client in [&ground.owner, &looker, &ground.shop, &stranger] {
                assert_eq!(refused(client, sql).await.0.code(), "42501", "{major} {sql}");
            }
        }
        for sql in [
            "SELECT cutover.drain('projects')",
            "SELECT cutover.backfill_step('projects')",
            "SELECT cutover.enable_dual_write('projects')",
            "SELECT cutover.disable_dual_write('projects')",
            "SELECT cutover.start_gradual_cutover('projects')",
            "SELECT cutover.advance_cutover_stage('projects', true, 'why')",
            "SELECT cutover.complete_cutover('projects', true)",
            "SELECT cutover.emergency_rollback('projects')",
            "SELECT cutover.emergency_stop_all_cutover()",
            "SELECT cutover.configure_cutover('projects', '{}')",
            "SELECT cutover.perform_cutover_health_check('projects')",
            "SELECT cutover.run_automated_safety_check()",
            "SELECT cutover.reset_cutover_state('projects', true)",
            "SELECT cutover.rollback_cutover_system(true)",
        ] {
            for client in [&looker, &ground.shop, &stranger] {
                assert_eq!(refused(client, sql).await.0.code(), "42501", "{major} {sql}");
            }
        }
        // Who writes needs nothing of all this.
        run(&ground.shop, "INSERT INTO projects (first, last) VALUES ('a', 'b')").await;
        run(&ground.admin, "DROP OWNED BY looker; DROP ROLE looker").await;
    }
}

#[tokio::test]
async fn an_owner_who_may_not_queue_keys_is_told_before_a_write_can_break() {
    let ground = Ground::new(15, "not_yet").await;
    run(&ground.admin, "CREATE ROLE other_owner LOGIN; GRANT CREATE ON SCHEMA public TO other_owner; CREATE TABLE a (id int PRIMARY KEY); ALTER TABLE a OWNER TO other_owner").await;
    let fixes = "SELECT string_agg(fix, '; ' ORDER BY fix) FROM cutover.check_shadow_table('a') WHERE blocks";
    assert_eq!(text(&ground.owner, fixes).await, "GRANT cutover_operator TO other_owner; SET ROLE other_owner");
    run(&ground.admin, "GRANT cutover_operator TO other_owner").await;
    run(
        &ground.another("other_owner").await,
        "SELECT cutover.create_shadow_table('a'), cutover.enable_dual_write('a'); INSERT INTO a VALUES (1)",
    )
    .await;
}

/// An operator may not have somebody with more rights run words that were not registered.
#[tokio::test]
async fn a_function_that_was_put_in_place_of_ours_is_not_called() {
    let ground = Ground::moving(15, "swapped", 5, "sync").await;
    let name = text(&ground.admin, "SELECT refresh_function FROM cutover.shadow_table").await.replace("(jsonb[])", "(p_keys jsonb[])");
    run(
        &ground.owner,
        &format!(
            "CREATE OR REPLACE FUNCTION {name} RETURNS jsonb[] LANGUAGE plpgsql AS 'BEGIN CREATE ROLE mine SUPERUSER; RETURN NULL; END'"
        ),
    )
    .await;
    let (state, words) = refused(&ground.owner, "SELECT cutover.backfill_step('projects')").await;
    assert!(state.code() == "SC002" && words.contains("no longer what cutover made"), "{words}");
}

/// C35: what was written down can't be changed, and where somebody with every right did, it is seen.
#[tokio::test]
async fn c35_the_audit_is_a_chain_and_whoever_breaks_it_is_seen() {
    for major in MAJORS {
        let ground = Ground::moving(major, "audit", 5, "sync").await;
        ground.settle().await;
        run(&ground.owner, "SET application_name = 'night shift'; SELECT cutover.disable_dual_write('projects', 'it is late')").await;
        let last = "SELECT actor, client, action, table_name, reason FROM cutover.audit_log ORDER BY seq DESC LIMIT 1";
        assert_eq!(
            text(&ground.owner, last).await.replace("127.0.0.1", "local"),
            "owner|local night shift|disable_dual_write|projects|it is late"
        );
        let broken = "SELECT seq, problem FROM cutover.verify_audit()";
        assert_eq!(text(&ground.owner, broken).await, "");
        for sql in ["UPDATE cutover.audit_log SET reason = 'x'", "DELETE FROM cutover.audit_log", "TRUNCATE cutover.audit_log"] {
            assert_eq!(refused(&ground.admin, sql).await.0.code(), "SC002", "also a superuser's mistake");
        }
        let tamper = |sql: &str| {
            format!(
                "ALTER TABLE cutover.audit_log DISABLE TRIGGER keep_audit; {sql}; ALTER TABLE cutover.audit_log ENABLE ALWAYS TRIGGER keep_audit"
            )
        };
        run(&ground.admin, &tamper("UPDATE cutover.audit_log SET reason = 'another' WHERE seq = 4")).await;
        assert_eq!(text(&ground.owner, broken).await, "4|it was changed after it was written");
        run(
            &ground.admin,
            &tamper("UPDATE cutover.audit_log SET reason = 'it is late' WHERE seq = 4; DELETE FROM cutover.audit_log WHERE seq = 2"),
        )
        .await;
        assert_eq!(text(&ground.owner, broken).await, "3|an entry in front of it is missing, or another");
    }
}
