//! Pairs beside each other, pairs with names and keys of their own, and the end of a pair.

use crate::{
    carrying::{BACK, COMPLETE, ready},
    ground::{Ground, MAJORS, number, refused, run, text},
};

/// A key that the shadow has of its own is the like of the table's: it gets the name, and is not made twice.
#[tokio::test]
async fn keys_that_the_shadow_has_of_its_own_take_the_names_of_the_table_s() {
    let ground = Ground::new(15, "own_keys").await;
    ready(
        &ground,
        "CREATE TABLE customers (id int PRIMARY KEY); INSERT INTO customers VALUES (1);
         CREATE TABLE projects (id int PRIMARY KEY, customer int CONSTRAINT to_customer REFERENCES customers, parent int CONSTRAINT to_parent REFERENCES projects);
         INSERT INTO projects VALUES (1, 1, 1), (2, 1, 1)",
        "'projects', '(id bigint PRIMARY KEY, customer int REFERENCES customers, parent bigint REFERENCES projects_shadow)'",
    )
    .await;
    run(&ground.owner, "ALTER TABLE projects ALTER CONSTRAINT to_parent DEFERRABLE").await;
    let (state, words) = refused(&ground.owner, COMPLETE).await;
    assert!(
        state.code() == "SC004" && words.contains("ALTER TABLE public.projects_shadow DROP CONSTRAINT projects_shadow_parent_fkey"),
        "{words}"
    );
    run(&ground.owner, "ALTER TABLE projects ALTER CONSTRAINT to_parent NOT DEFERRABLE").await;
    let keys =
        "SELECT string_agg(concat_ws(' ', conrelid::regclass, conname, convalidated), ', ' ORDER BY conrelid::regclass::text, conname)
        FROM pg_constraint WHERE contype = 'f' AND connamespace <> 'cutover'::regnamespace";
    for round in 0..2 {
        run(&ground.owner, COMPLETE).await;
        let validated = if round == 0 { "t" } else { "f" };
        let told = format!("projects to_customer {validated}, projects to_parent {validated}");
        assert_eq!(text(&ground.owner, keys).await, told, "the old table has none");
        assert_eq!(refused(&ground.owner, "INSERT INTO projects VALUES (3, 1, 9)").await.0.code(), "23503");
        run(&ground.owner, BACK).await;
        assert_eq!(text(&ground.owner, keys).await, "projects to_customer f, projects to_parent f");
        assert_eq!(refused(&ground.owner, "INSERT INTO projects VALUES (3, 1, 9)").await.0.code(), "23503");
        ground.to_last_stage().await;
    }
    run(&ground.owner, COMPLETE).await;
    run(&ground.owner, "DROP TABLE projects_old").await;
    let (state, words) = refused(&ground.owner, BACK).await;
    assert!(state.code() == "SC004" && words.contains("was dropped"), "{words}");
    run(
        &ground.owner,
        "INSERT INTO projects VALUES (3, 1, 1); SELECT cutover.drop_shadow_table('projects', true); INSERT INTO projects VALUES (4, 1, 1)",
    )
    .await;
    assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.dirty_key").await, 0);
}

/// Tables of a family move one after another, and in between each refers to whichever is in charge.
#[tokio::test]
async fn a_family_of_tables_moves_one_after_another() {
    let ground = Ground::new(15, "family").await;
    ready(
        &ground,
        "CREATE TABLE projects (id int PRIMARY KEY); INSERT INTO projects VALUES (1), (2);
         CREATE TABLE tasks (id int PRIMARY KEY, project int NOT NULL REFERENCES projects ON DELETE CASCADE); INSERT INTO tasks VALUES (1, 1), (2, 2);
         SELECT cutover.create_shadow_table('tasks'), cutover.enable_dual_write('tasks')",
        "'projects'",
    )
    .await;
    run(&ground.owner, "CALL cutover.backfill('tasks')").await;
    run(&ground.owner, "SELECT cutover.configure_cutover('tasks', '{\"min_samples\": 1}'), cutover.start_gradual_cutover('tasks', 0)")
        .await;
    let feed = "DELETE FROM tasks WHERE false; SELECT cutover.record_cutover_operation('tasks', 'read', 10), cutover.record_cutover_operation('tasks', 'read', 10, true, true)";
    for _ in 0..4 {
        run(&ground.owner, &format!("{feed}; SELECT cutover.advance_cutover_stage('tasks')")).await;
    }
    run(&ground.owner, feed).await;
    let before = ground.definitions().await;
    for (done, table) in [(COMPLETE, "projects"), ("SELECT cutover.complete_cutover('tasks', true)", "tasks")] {
        run(&ground.owner, done).await;
        assert_eq!(refused(&ground.owner, "INSERT INTO tasks VALUES (9, 9)").await.0.code(), "23503", "{table}");
        assert_eq!(
            number(&ground.owner, "SELECT count(*) FROM cutover.validate_foreign_keys('tasks') WHERE outcome = 'valid'").await,
            1,
            "{table}"
        );
    }
    run(&ground.owner, "DELETE FROM projects WHERE id = 1").await;
    for table in ["projects", "projects_old", "projects_shadow", "tasks", "tasks_old", "tasks_shadow"] {
        assert_eq!(text(&ground.owner, &format!("SELECT string_agg(id::text, ',') FROM {table}")).await, "2", "{table}");
    }
    run(&ground.owner, &format!("{BACK}; SELECT cutover.emergency_rollback('tasks', 'drill')")).await;
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.validate_foreign_keys('tasks') WHERE outcome = 'valid'").await, 1);
    assert_eq!(ground.definitions().await, before);
}

/// The end of it: nothing of ours is left about the table, what hangs there is named, and the table can be moved once more.
#[tokio::test]
async fn a_pair_ends_before_it_was_begun_and_after_it_is_completed_and_nowhere_between() {
    let ground = Ground::moving(15, "ended", 20, "sync").await;
    let drop = "SELECT cutover.drop_shadow_table('projects', true)";
    let refuses = async |sql: &str, state: &str, part: &str| {
        let (told, words) = refused(&ground.owner, sql).await;
        assert!(told.code() == state && words.contains(part), "{sql}: {} {words}", told.code());
    };
    ground.to_last_stage().await;
    refuses(drop, "SC002", "is at full_100, and its shadow may be read").await;
    run(&ground.owner, COMPLETE).await;
    refuses("SELECT cutover.drop_shadow_table('projects')", "SC003", "ends the way back").await;
    run(&ground.owner, "CREATE VIEW on_old AS SELECT first FROM projects_old; CREATE VIEW on_view AS SELECT cents FROM projects_shadow")
        .await;
    refuses(drop, "SC004", "on_view").await;
    run(&ground.owner, "DROP VIEW on_view").await;
    refuses(drop, "SC004", "on_old").await;
    run(&ground.owner, "DROP VIEW on_old").await;
    run(&ground.owner, drop).await;
    refuses(BACK, "SC001", "has no shadow table").await;
    assert_eq!(
        text(&ground.admin, "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname LIKE 'projects%' AND relkind IN ('r', 'v')").await,
        "projects"
    );
    let ours = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cutover%' AND tgrelid = 'projects'::regclass UNION ALL SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT count(*) FROM cutover.shadow_table UNION ALL SELECT count(*) FROM cutover.traffic_routing_config UNION ALL SELECT count(*) FROM cutover.dirty_key";
    assert_eq!(text(&ground.admin, ours).await, "0\n0\n0\n0\n0");
    let audit = "SELECT string_agg(action, ' ' ORDER BY seq) FROM cutover.audit_log WHERE action !~ 'advance|configure'";
    assert_eq!(
        text(&ground.owner, audit).await,
        "create_shadow_table enable_dual_write backfilled start_gradual_cutover complete_cutover drop_shadow_table"
    );
    // Once more, and dropped before anything was begun.
    run(&ground.owner, "SELECT cutover.create_shadow_table('projects'), cutover.enable_dual_write('projects')").await;
    assert_eq!(text(&ground.owner, "SELECT cutover.is_promoted('projects')").await, "f", "that is another move");
    ground.settle().await;
    run(&ground.owner, drop).await;
    assert_eq!(text(&ground.admin, ours).await, "0\n0\n0\n0\n0");
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM projects").await, 20);
}

/// Names that have to be quoted, and are too long to have more put behind them.
#[tokio::test]
async fn names_of_every_kind_are_exchanged_and_come_back() {
    for major in MAJORS {
        let ground = Ground::new(major, "odd_names").await;
        let long = format!("A \"{}", "ü".repeat(28));
        let quoted = format!("\"Odd.One\".\"{}\"", long.replace('"', "\"\""));
        let call = |function: &str, more: &str| format!("SELECT cutover.{function}('{quoted}'{more})");
        run(&ground.admin, "CREATE SCHEMA \"Odd.One\" AUTHORIZATION owner; GRANT USAGE ON SCHEMA \"Odd.One\" TO shop").await;
        run(
            &ground.owner,
            &format!(
                "CREATE TABLE {quoted} (\"a 'key\" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"v%s\" text, s serial); CREATE INDEX ON {quoted} (\"v%s\");
                 CREATE VIEW \"Odd.One\".\"V'\" AS SELECT \"v%s\" FROM {quoted}; GRANT SELECT (\"v%s\"), INSERT ON {quoted} TO shop; INSERT INTO {quoted} (\"v%s\") VALUES ('%I')"
            ),
        )
        .await;
        run(&ground.owner, &format!("{}; {}", call("create_shadow_table", ""), call("enable_dual_write", ""))).await;
        run(&ground.owner, &format!("CALL cutover.backfill('{quoted}')")).await;
        run(&ground.owner, &format!("{}; {}", call("configure_cutover", ", '{\"min_samples\": 1}'"), call("start_gradual_cutover", ", 0")))
            .await;
        let feed = format!(
            "DELETE FROM {quoted} WHERE false; {}; {}",
            call("record_cutover_operation", ", 'read', 9"),
            call("record_cutover_operation", ", 'read', 9, true, true")
        );
        for _ in 0..4 {
            run(&ground.owner, &format!("{feed}; {}", call("advance_cutover_stage", ""))).await;
        }
        run(&ground.owner, &feed).await;
        let before = ground.definitions().await;
        run(&ground.owner, &call("complete_cutover", ", true")).await;
        run(&ground.shop, &format!("INSERT INTO {quoted} (\"v%s\", s) VALUES ('new', 7)")).await;
        assert_eq!(
            text(
                &ground.owner,
                &format!("SELECT string_agg(\"v%s\", ' ' ORDER BY s), max(\"a 'key\"), cutover.is_promoted('{quoted}') FROM {quoted}")
            )
            .await,
            "%I new|2|t",
            "{major}"
        );
        run(&ground.owner, &call("emergency_rollback", ", 'drill'")).await;
        assert_eq!(ground.definitions().await, before, "{major}");
        assert_eq!(number(&ground.owner, &format!("SELECT count(*) FROM {quoted}")).await, 2, "{major}");
        run(&ground.owner, &call("drop_shadow_table", ", true")).await;
    }
}
