//! What is carried to a shadow and back, kind by kind: rights and policies, numbers, triggers, partitions, families.

use crate::ground::{Ground, MAJORS, number, refused, run, text};

pub(crate) const COMPLETE: &str = "SELECT cutover.complete_cutover('projects', true)";
pub(crate) const BACK: &str = "SELECT cutover.emergency_rollback('projects', 'drill')";

/// A shadow of `projects` that is made by these words, at the last stage before completion.
pub(crate) async fn ready(ground: &Ground, tables: &str, shadow: &str) {
    run(&ground.owner, tables).await;
    run(&ground.owner, &format!("SELECT cutover.create_shadow_table({shadow}), cutover.enable_dual_write('projects')")).await;
    ground.to_last_stage().await;
}

/// A reader that was sent to the shadow sees there what it sees in the table, and no more.
#[tokio::test]
async fn a_shadow_shows_each_reader_what_the_table_does_from_the_start() {
    for major in MAJORS {
        let ground = Ground::new(major, "shown").await;
        run(
            &ground.owner,
            "CREATE TABLE projects (id int PRIMARY KEY, gone int, tenant text, secret text, open boolean); ALTER TABLE projects DROP gone, ENABLE ROW LEVEL SECURITY;
             CREATE TABLE members (who text, tenant text); GRANT SELECT ON members TO shop;
             CREATE POLICY own ON projects FOR SELECT USING (EXISTS (SELECT FROM members m WHERE m.who = current_user AND m.tenant = projects.tenant));
             CREATE POLICY opened ON projects AS RESTRICTIVE FOR SELECT TO shop USING (open);
             GRANT SELECT (id, tenant, open) ON projects TO shop; GRANT INSERT ON projects TO shop WITH GRANT OPTION; GRANT SELECT (id) ON projects TO PUBLIC;
             INSERT INTO members VALUES ('shop', 'a'); INSERT INTO projects SELECT i, chr(97 + i % 2), 's', i % 3 = 0 FROM generate_series(1, 30) i",
        )
        .await;
        let seen = |table: &str| format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {table}");
        let told = text(&ground.shop, &seen("projects")).await;
        assert_eq!(told, "6,12,18,24,30");
        run(&ground.owner, "SELECT cutover.create_shadow_table('projects'), cutover.enable_dual_write('projects')").await;
        ground.settle().await;
        assert_eq!(text(&ground.shop, &seen("projects_shadow")).await, told, "{major}");
        assert_eq!(refused(&ground.shop, "SELECT secret FROM projects_shadow").await.0.code(), "42501", "{major}");
        let rights = "SELECT string_agg(format('%s %s %s %s', grantee, privilege_type, column_name, is_grantable), ',' ORDER BY grantee, privilege_type, column_name)
            FROM information_schema.column_privileges WHERE grantee <> 'owner' AND table_name = ";
        assert_eq!(
            text(&ground.admin, &format!("{rights}'projects_shadow'")).await,
            text(&ground.admin, &format!("{rights}'projects'")).await,
            "{major}"
        );
        run(&ground.owner, "SELECT cutover.drop_shadow_table('projects', true)").await;
        // Where a policy that restricts does not fit, nobody sees more for it.
        run(
            &ground.owner,
            "SELECT cutover.create_shadow_table('projects', '(id int PRIMARY KEY, tenant text, secret text, is_open boolean)', '{\"up\": {\"is_open\": \"open\"}, \"down\": {\"open\": \"is_open\"}}'),
                    cutover.enable_dual_write('projects')",
        )
        .await;
        ground.settle().await;
        assert_eq!(text(&ground.shop, &seen("projects_shadow")).await, "null", "{major}");
        let (state, words) = refused(
            &ground.owner,
            "ALTER TABLE projects FORCE ROW LEVEL SECURITY; SELECT cutover.drop_shadow_table('projects', true), cutover.create_shadow_table('projects')",
        )
        .await;
        assert!(state.code() == "SC004" && words.contains("NO FORCE"), "{words}");
    }
}

/// What was granted, taken and said by policies since the shadow was made holds at the new table, and at the old one again.
#[tokio::test]
async fn rights_that_changed_on_the_way_are_those_of_whichever_has_the_name() {
    let ground = Ground::new(18, "changed_rights").await;
    let rights = "SELECT coalesce(string_agg(format('%s=%s%s', grantee::regrole, privilege_type, CASE WHEN is_grantable THEN '*' END), ' ' ORDER BY grantee::regrole::text, privilege_type), '')
        FROM pg_class c, aclexplode(c.relacl) WHERE c.oid = 'projects'::regclass AND grantee <> relowner";
    ready(&ground, "CREATE TABLE projects (id int PRIMARY KEY, a text); GRANT SELECT, DELETE ON projects TO shop; INSERT INTO projects VALUES (1, 'a')", "'projects'").await;
    run(&ground.owner, "REVOKE DELETE ON projects FROM shop; GRANT SELECT ON projects TO stranger WITH GRANT OPTION; ALTER TABLE projects ENABLE ROW LEVEL SECURITY").await;
    run(&ground.owner, "CREATE POLICY late ON projects TO shop USING (id > 1)").await;
    run(&ground.owner, COMPLETE).await;
    assert_eq!(text(&ground.owner, rights).await, "shop=SELECT stranger=SELECT*");
    assert_eq!(number(&ground.shop, "SELECT count(*) FROM projects").await, 0, "the policy is there too");
    run(&ground.owner, "REVOKE SELECT ON projects FROM stranger CASCADE; GRANT TRUNCATE ON projects TO shop; DROP POLICY late ON projects; CREATE POLICY later ON projects TO shop USING (id = 1)").await;
    run(&ground.owner, "DROP POLICY late ON projects_old").await;
    run(&ground.owner, BACK).await;
    assert_eq!(text(&ground.owner, rights).await, "shop=SELECT shop=TRUNCATE");
    assert_eq!(number(&ground.shop, "SELECT count(*) FROM projects").await, 1);
}

/// Numbers go on where they were, whichever way each of the two makes them; and what was never used stays so.
#[tokio::test]
async fn numbers_go_on_there_and_back_however_each_of_the_two_makes_them() {
    const NEXT: &str = "INSERT INTO projects (v) VALUES (1) RETURNING id";
    for major in MAJORS {
        for (place, (primary, shadow)) in [
            ("serial PRIMARY KEY", "NULL"),
            ("serial PRIMARY KEY", "'(id bigint PRIMARY KEY, v int)'"),
            ("serial PRIMARY KEY", "'(id bigserial PRIMARY KEY, v int)'"),
            ("serial PRIMARY KEY", "'(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int)'"),
            ("int GENERATED BY DEFAULT AS IDENTITY (START 7 INCREMENT 3) PRIMARY KEY", "'(id bigint PRIMARY KEY, v int)'"),
            ("int GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "'(id bigserial PRIMARY KEY, v int)'"),
        ]
        .into_iter()
        .enumerate()
        {
            let ground = Ground::new(major, &format!("numbers_{place}")).await;
            // Somebody's own numbers that nobody has taken yet.
            let made = format!(
                "CREATE TABLE projects (id {primary}, v int, n serial); ALTER TABLE projects DROP n; INSERT INTO projects (v) SELECT generate_series(1, 5)"
            );
            ready(&ground, &made, &format!("'projects', {shadow}, '{{\"down\": {{\"id\": \"id::int\"}}}}'")).await;
            let (before, step) = (ground.definitions().await, if primary.contains("INCREMENT") { 3 } else { 1 });
            let mut last = number(&ground.owner, "SELECT max(id)::int8 FROM projects").await;
            for sql in [COMPLETE, BACK] {
                run(&ground.owner, sql).await;
                let next: i64 = text(&ground.owner, NEXT).await.parse().unwrap();
                assert_eq!(next, last + step, "{major} {primary} {shadow}");
                last = next;
                assert_eq!(
                    text(&ground.owner, "SELECT pg_get_serial_sequence('projects', 'id')").await,
                    "public.projects_id_seq",
                    "{major} {primary} {shadow}"
                );
            }
            assert_eq!(ground.definitions().await, before, "{major} {primary} {shadow}");
        }
        let ground = Ground::new(major, "never_used").await;
        let made = "CREATE TABLE projects (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY (START 5) NOT NULL); INSERT INTO projects OVERRIDING SYSTEM VALUE VALUES (1, 1)";
        ready(&ground, made, "'projects'").await;
        run(&ground.owner, COMPLETE).await;
        assert_eq!(text(&ground.owner, "SELECT last_value, is_called FROM projects_n_seq").await, "5|f", "{major}");
        run(&ground.owner, "UPDATE projects SET n = DEFAULT").await;
        run(&ground.owner, BACK).await;
        assert_eq!(text(&ground.owner, "SELECT n, last_value, is_called FROM projects, projects_n_seq").await, "5|5|t", "{major}");
    }
}

/// Where columns are not the same, each of both has its own trigger of the name, and the one in charge fires.
#[tokio::test]
async fn triggers_of_the_same_name_change_places_and_each_sees_its_own_columns() {
    let ground = Ground::last_stage(15, "two_triggers", 5, "sync").await;
    run(
        &ground.owner,
        "CREATE FUNCTION old_one() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.last := upper(NEW.last); RETURN NEW; END';
         CREATE FUNCTION new_one() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.full_name := upper(NEW.full_name); RETURN NEW; END';
         CREATE TRIGGER loud BEFORE INSERT ON projects FOR EACH ROW EXECUTE FUNCTION old_one()",
    )
    .await;
    assert_eq!(refused(&ground.owner, COMPLETE).await.0.code(), "SC004");
    run(&ground.owner, "CREATE TRIGGER loud BEFORE INSERT ON projects_shadow FOR EACH ROW EXECUTE FUNCTION new_one(); ALTER TABLE projects_shadow DISABLE TRIGGER loud").await;
    let before = ground.definitions().await;
    run(&ground.owner, COMPLETE).await;
    run(&ground.shop, "INSERT INTO projects (full_name, changed_at) VALUES ('a b', now())").await;
    assert_eq!(
        text(&ground.owner, "SELECT full_name, first || ' ' || last FROM projects JOIN projects_old USING (id) ORDER BY id DESC LIMIT 1")
            .await,
        "A B|A B"
    );
    run(&ground.owner, BACK).await;
    run(&ground.shop, "INSERT INTO projects (first, last) VALUES ('a', 'b')").await;
    assert_eq!(text(&ground.owner, "SELECT first || last FROM projects ORDER BY id DESC LIMIT 1").await, "aB");
    assert_eq!((ground.definitions().await, ground.different().await), (before, 0));
}

/// C44: into partitions and out of them, with rows that are taken away by key, and nobody writing to an old partition unheard.
#[tokio::test]
async fn a_table_goes_into_partitions_and_out_of_them() {
    for major in MAJORS {
        let ground = Ground::new(major, "parted").await;
        run(
            &ground.owner,
            "CREATE TABLE projects (id int PRIMARY KEY, v int); INSERT INTO projects SELECT i, i FROM generate_series(1, 40) i; GRANT SELECT, INSERT, UPDATE, DELETE ON projects TO shop;
             SELECT cutover.create_shadow_table('projects', '(id int PRIMARY KEY, v int) PARTITION BY RANGE (id)'), cutover.enable_dual_write('projects');
             CREATE TABLE low PARTITION OF projects_shadow FOR VALUES FROM (0) TO (20); CREATE TABLE high PARTITION OF projects_shadow FOR VALUES FROM (20) TO (1000)",
        )
        .await;
        ground.to_last_stage().await;
        // In each partition, rows with the places of rows in the other.
        run(&ground.owner, "ALTER TABLE projects DISABLE TRIGGER cutover_dual_write_delete; DELETE FROM projects WHERE id IN (1, 2, 25); ALTER TABLE projects ENABLE ALWAYS TRIGGER cutover_dual_write_delete").await;
        run(
            &ground.owner,
            "SELECT cutover.mark_dirty('projects', ARRAY['[\"1\"]', '[\"2\"]', '[\"25\"]']::jsonb[], 'by hand'), cutover.drain('projects')",
        )
        .await;
        let same = "SELECT verdict, consistent_records FROM cutover.validate_table_consistency('projects')";
        assert_eq!(text(&ground.owner, same).await, "same|37", "{major}");
        let before = ground.definitions().await;
        run(&ground.owner, COMPLETE).await;
        // By the table's name and by a partition's.
        run(&ground.shop, "INSERT INTO projects VALUES (100, 1); UPDATE projects SET id = 5000 - 4900 + 1, v = 2 WHERE id = 30; DELETE FROM projects WHERE id = 3").await;
        run(&ground.owner, "INSERT INTO low VALUES (1, 1)").await;
        assert_eq!(text(&ground.owner, same).await, "same|38", "{major}");
        run(&ground.owner, BACK).await;
        assert_eq!(ground.definitions().await, before, "{major}");
        ground.to_last_stage().await;
        run(&ground.owner, COMPLETE).await;
        run(&ground.owner, "SELECT cutover.drop_shadow_table('projects', true)").await;
        // And out of them.
        run(&ground.owner, "ALTER INDEX projects_pkey RENAME TO other; CREATE TABLE kept (LIKE projects INCLUDING ALL)").await;
        run(
            &ground.owner,
            "SELECT cutover.create_shadow_table('projects', '(id int PRIMARY KEY, v int)'), cutover.enable_dual_write('projects')",
        )
        .await;
        ground.to_last_stage().await;
        let before = ground.definitions().await;
        run(&ground.owner, COMPLETE).await;
        let (state, words) = refused(&ground.owner, "INSERT INTO low VALUES (7, 7)").await;
        assert!(state.code() == "SC002" && words.contains("write to the table itself"), "{words}");
        run(&ground.shop, "INSERT INTO projects VALUES (10000, 1) ON CONFLICT DO NOTHING").await;
        let (state, words) = refused(&ground.owner, BACK).await;
        assert!(
            state.code() == "SC005" && words.contains("1 keys of projects can't be brought") && words.contains("no partition"),
            "{words}"
        );
        run(&ground.shop, "DELETE FROM projects WHERE id = 10000").await;
        run(&ground.owner, BACK).await;
        run(&ground.owner, "INSERT INTO low VALUES (2, 7)").await;
        assert_eq!((text(&ground.owner, same).await, ground.definitions().await), ("same|39".to_owned(), before), "{major}");
    }
}

/// A key of another name, and keys of two columns: foreign keys and names go through the mapping.
#[tokio::test]
async fn foreign_keys_and_names_go_through_the_mapping() {
    for major in MAJORS {
        let ground = Ground::new(major, "mapped").await;
        run(&ground.admin, "GRANT CREATE ON DATABASE mapped TO owner; CREATE SCHEMA \"Odd One\" AUTHORIZATION owner").await;
        ready(
            &ground,
            "CREATE TABLE \"Odd One\".\"the parents\" (x int, \"y y\" int, PRIMARY KEY (x, \"y y\")); INSERT INTO \"Odd One\".\"the parents\" VALUES (1, 1);
             CREATE TABLE projects (a int, \"B\" text, x int, y int, CONSTRAINT \"the key\" PRIMARY KEY (a, \"B\"), CONSTRAINT up FOREIGN KEY (x, y) REFERENCES \"Odd One\".\"the parents\" ON DELETE SET NULL);
             CREATE INDEX \"an index\" ON projects (x, lower(\"B\")); INSERT INTO projects VALUES (1, 'b', 1, 1);
             CREATE TABLE \"Odd One\".kids (b text, a int, CONSTRAINT \"K\" FOREIGN KEY (a, b) REFERENCES projects (a, \"B\") MATCH FULL ON DELETE CASCADE); INSERT INTO \"Odd One\".kids VALUES ('b', 1)",
            "'projects', '(key_a bigint, \"key b\" text, px int, y int, PRIMARY KEY (\"key b\", key_a))',
             '{\"up\": {\"key_a\": \"a\", \"key b\": \"\\\"B\\\"\", \"px\": \"x\"}, \"down\": {\"a\": \"key_a\", \"B\": \"\\\"key b\\\"\", \"x\": \"px\"}}'",
        )
        .await;
        let before = ground.definitions().await;
        run(&ground.owner, COMPLETE).await;
        let keys = "SELECT string_agg(conname || ': ' || pg_get_constraintdef(oid), '; ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND connamespace <> 'cutover'::regnamespace";
        assert_eq!(
            text(&ground.owner, keys).await,
            "K: FOREIGN KEY (a, b) REFERENCES projects(key_a, \"key b\") MATCH FULL ON DELETE CASCADE NOT VALID; up: FOREIGN KEY (px, y) REFERENCES \"Odd One\".\"the parents\"(x, \"y y\") ON DELETE SET NULL NOT VALID",
            "{major}"
        );
        assert_eq!(refused(&ground.owner, "INSERT INTO \"Odd One\".kids VALUES ('none', 1)").await.0.code(), "23503", "{major}");
        run(&ground.owner, BACK).await;
        run(&ground.owner, "SELECT cutover.validate_foreign_keys('projects')").await;
        assert_eq!(ground.definitions().await, before, "{major}");
    }
}
