//! What can't be is said, with a state for programs and a hint for people, and leaves nothing behind.

use crate::ground::{Ground, number, refused, run};

#[tokio::test]
async fn a_shadow_that_can_t_be_is_refused_with_why_and_leaves_nothing_behind() {
    let ground = Ground::new(15, "obstacles").await;
    run(
        &ground.owner,
        "CREATE TABLE keyless (a int); CREATE TABLE late (a int PRIMARY KEY DEFERRABLE); CREATE UNLOGGED TABLE quick (a int PRIMARY KEY);
         CREATE TABLE parent (a int PRIMARY KEY); CREATE TABLE child () INHERITS (parent); CREATE TABLE wide (a int, b int, c text NOT NULL, PRIMARY KEY (a, b));
         CREATE TABLE taken (a int PRIMARY KEY); CREATE TABLE taken_shadow (a int)",
    )
    .await;
    run(&ground.admin, "CREATE TABLE hers (a int PRIMARY KEY)").await;
    let tables = number(&ground.admin, "SELECT count(*) FROM pg_class").await;
    let wide = |definition: &str, mapping: &str| format!("SELECT cutover.create_shadow_table('wide', '{definition}', '{mapping}')");
    for (sql, state, part) in [
        ("SELECT cutover.create_shadow_table('nothing')".to_owned(), "SC001", "there is no table nothing"),
        ("SELECT cutover.create_shadow_table(NULL)".to_owned(), "SC001", "without a name"),
        ("SELECT cutover.create_shadow_table('a.b.c')".to_owned(), "SC001", "there is no table a.b.c"),
        ("SELECT cutover.create_shadow_table('a\"; DROP TABLE wide')".to_owned(), "SC001", "there is no table"),
        ("SELECT cutover.create_shadow_table('keyless')".to_owned(), "SC004", "ADD PRIMARY KEY"),
        ("SELECT cutover.create_shadow_table('late')".to_owned(), "SC004", "deferrable"),
        ("SELECT cutover.create_shadow_table('quick')".to_owned(), "SC004", "SET LOGGED"),
        ("SELECT cutover.create_shadow_table('parent')".to_owned(), "SC004", "inheritance"),
        ("SELECT cutover.create_shadow_table('hers')".to_owned(), "SC004", "SET ROLE"),
        ("SELECT cutover.create_shadow_table('taken')".to_owned(), "SC004", "there is a table public.taken_shadow already"),
        (wide("(a int, b int, c text)", "{}"), "SC004", "PRIMARY KEY (…)"),
        (wide("(a int PRIMARY KEY, b int, c text)", "{}"), "SC004", "no unique key"),
        (wide("(a bigint, b int, c text, PRIMARY KEY (a, b) DEFERRABLE)", "{}"), "SC004", "no unique key"),
        (wide("(a int, b int, c text, d int UNIQUE DEFERRABLE INITIALLY DEFERRED, PRIMARY KEY (a, b))", "{}"), "SC004", "NOT DEFERRABLE"),
        (wide("(a int, b int, d text NOT NULL, PRIMARY KEY (a, b))", "{}"), "SC004", "nothing says what d of"),
        (wide("(a int, b int, PRIMARY KEY (a, b))", "{}"), "SC004", "nothing says what c of"),
        (wide("(a int, b int, c text, PRIMARY KEY (a, b))", "{\"up\": {\"x\": \"1\"}}"), "SC004", "has no column x"),
        (wide("(a int, b int, c text, PRIMARY KEY (a, b))", "{\"above\": {}}"), "SC004", "the mapping has 'above'"),
        (wide("(a int, b int, c int, PRIMARY KEY (a, b))", "{}"), "SC004", "is of type integer but expression is of type text"),
        (wide("(a int, b int, c text, PRIMARY KEY (a, b))", "{\"up\": {\"c\": \"nonsense(c)\"}}"), "SC004", "nonsense"),
        (wide("(a int, b int, c text, PRIMARY KEY (a, b))", "{\"up\": {\"a\": \"a + 1\"}}"), "SC004", "as it is"),
        ("SELECT cutover.enable_dual_write('wide')".to_owned(), "SC001", "has no shadow table"),
        ("SELECT cutover.drain('wide')".to_owned(), "SC001", "create_shadow_table"),
    ] {
        let (told, words) = refused(&ground.owner, &sql).await;
        assert!(told.code() == state && words.contains(part), "{sql}: {} {words}", told.code());
    }
    assert_eq!(number(&ground.admin, "SELECT count(*) FROM pg_class").await, tables);
    assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.audit_log").await, 0);
}

#[tokio::test]
async fn calls_that_make_no_sense_change_nothing() {
    let ground = Ground::moving(18, "nonsense", 5, "sync").await;
    let entries = number(&ground.admin, "SELECT count(*) FROM cutover.audit_log").await;
    for (sql, state, part) in [
        ("SELECT cutover.enable_dual_write('projects', 'sometimes')", "SC002", "sync, or async"),
        ("SELECT cutover.enable_dual_write('projects', NULL)", "SC002", "sync, or async"),
        ("SELECT cutover.backfill_step('projects', 0)", "SC002", "from 1 to 100000"),
        ("SELECT cutover.backfill_step('projects', NULL)", "SC002", "from 1 to 100000"),
        ("SELECT cutover.validate_table_consistency('projects', 'projects')", "SC001", "is not the shadow"),
        ("SELECT cutover.validate_table_consistency('projects', NULL, 0)", "SC002", "says nothing"),
        ("SELECT cutover.create_shadow_table('projects')", "SC004", "already"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT cutover.backfill_step('projects', 1)", "SC002", "READ COMMITTED"),
    ] {
        let (told, words) = refused(&ground.owner, sql).await;
        assert!(told.code() == state && words.contains(part), "{sql}: {} {words}", told.code());
        run(&ground.owner, "ROLLBACK").await;
    }
    run(&ground.owner, "SELECT cutover.disable_dual_write('projects')").await;
    let (told, words) = refused(&ground.owner, "SELECT cutover.backfill_step('projects')").await;
    assert!(told.code() == "SC002" && words.contains("enable_dual_write"), "{words}");
    assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.audit_log").await, entries + 1);
}
