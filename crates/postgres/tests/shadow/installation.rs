//! What an installation makes, and makes again.

use cutover_core::Side;
use cutover_postgres::{PgError, gate, shadow};

use crate::ground::{Ground, MAJORS, number, refused, run, text};

/// Everything that tables are made of, without the schema's name.
async fn catalogue(ground: &Ground, schema: &str) -> String {
    let sql = format!(
        "SELECT c.relname, c.relkind, c.relpersistence, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                replace(pg_get_expr(d.adbin, d.adrelid), '{schema}.', '')
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
          WHERE c.relnamespace = '{schema}'::regnamespace ORDER BY 1, 4;
         SELECT c.conrelid::regclass::text, c.conname, replace(pg_get_constraintdef(c.oid), '{schema}.', '') FROM pg_constraint c
          WHERE c.connamespace = '{schema}'::regnamespace ORDER BY 1, 2;
         SELECT replace(pg_get_indexdef(i.indexrelid), '{schema}.', '') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE c.relnamespace = '{schema}'::regnamespace ORDER BY 1"
    );
    text(&ground.admin, &sql).await.replace(&format!("{schema}."), "")
}

#[tokio::test]
async fn all_upgrades_come_to_the_final_tables_and_each_may_be_applied_twice() {
    for major in MAJORS {
        let mut ground = Ground::new(major, "upgrades").await;
        let installed = catalogue(&ground, "cutover").await;
        run(&ground.admin, &format!("CREATE SCHEMA final; {}", shadow::in_schema(shadow::TABLES_SQL, "final"))).await;
        assert_eq!(catalogue(&ground, "final").await, installed, "{major}");
        let again = shadow::install(&mut ground.admin, "cutover", false).await.unwrap();
        assert_eq!((again.before, catalogue(&ground, "cutover").await), (Some(again.version), installed), "{major}");
    }
}

#[tokio::test]
async fn it_goes_into_another_schema_and_there_is_nothing_of_ours_elsewhere() {
    let mut ground = Ground::empty(15, "elsewhere").await;
    shadow::install(&mut ground.admin, "moving", true).await.unwrap();
    assert_eq!(text(&ground.admin, "SELECT to_regnamespace('cutover')").await, "null");
    run(&ground.admin, "GRANT cutover_operator TO owner").await;
    // Sessions that begin from now on.
    let owner = ground.another("owner").await;
    run(&owner, "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 10) i").await;
    run(&owner, "SELECT create_shadow_table('a'); SELECT enable_dual_write('a')").await;
    while !shadow::backfill_step(&owner, "moving", "a", 4).await.unwrap().done {}
    run(&owner, "UPDATE a SET v = 'w' WHERE id > 5").await;
    assert_eq!(text(&owner, "SELECT verdict, consistent_records FROM validate_table_consistency('a')").await, "same|10");
    run(&owner, "SELECT configure_cutover('a', '{\"min_samples\": 1}'), start_gradual_cutover('a', 0)").await;
    let feed =
        "DELETE FROM a WHERE false; SELECT record_cutover_operation('a', 'read', 9), record_cutover_operation('a', 'read', 9, true, true)";
    for _ in 0..4 {
        run(&owner, &format!("{feed}; SELECT advance_cutover_stage('a')")).await;
    }
    run(&owner, &format!("{feed}; SELECT complete_cutover('a', true); INSERT INTO a VALUES (11, 'x')")).await;
    run(&owner, "SELECT emergency_rollback('a'); SELECT drop_shadow_table('a', true)").await;
    assert_eq!(number(&owner, "SELECT count(*) FROM a").await, 11);
    assert_eq!(text(&owner, "SHOW search_path").await, "\"$user\", public, moving");
    shadow::install(&mut ground.admin, "moving", true).await.unwrap();
    assert_eq!(text(&ground.another("shop").await, "SHOW search_path").await, "\"$user\", public, moving", "it is put there once");
}

#[tokio::test]
async fn what_belongs_to_a_switch_or_to_a_newer_version_is_left_alone() {
    let mut ground = Ground::new(15, "belongs").await;
    run(&ground.admin, "UPDATE cutover.sql_installation SET version = 999").await;
    let newer = shadow::install(&mut ground.admin, "cutover", false).await.unwrap_err();
    assert!(matches!(&newer, PgError::Refused { what, .. } if what.contains("999")), "{newer}");
    run(&ground.admin, "CREATE SCHEMA switching; CREATE TABLE switching.owner ()").await;
    let other = shadow::install(&mut ground.admin, "switching", false).await.unwrap_err();
    assert!(other.hint().unwrap().contains("--schema"), "{other}");
    assert_eq!(number(&ground.admin, "SELECT count(*) FROM pg_class WHERE relnamespace = 'switching'::regnamespace").await, 1);
    let gate = gate::install(&mut ground.admin, "shop", Side::Source, 1).await.unwrap_err();
    assert!(gate.to_string().contains("shadow tables"), "nor does a switch take over what is theirs: {gate}");
}

#[tokio::test]
async fn a_role_that_may_not_make_roles_finds_them_made_and_needs_no_superuser() {
    let ground = Ground::new(13, "plain").await;
    run(&ground.admin, "GRANT CREATE ON DATABASE plain TO owner").await;
    let mut owner = ground.another("owner").await;
    shadow::install(&mut owner, "own", false).await.unwrap();
    let failed = "SELECT coalesce(string_agg(test_name || ': ' || test_result, '; '), '') FROM own.run_cutover_system_tests() WHERE test_status <> 'PASS'";
    assert_eq!(text(&owner, failed).await, "");
    assert_eq!(refused(&ground.shop, "SELECT own.drain('a')").await.0.code(), "42501");
}
