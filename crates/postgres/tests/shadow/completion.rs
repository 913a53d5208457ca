//! The shadow takes the table's place with everything that hangs on it, and gives it back.

use crate::ground::{Ground, MAJORS, number, refused, run, text};

/// A table with one of everything that is carried, in its own shape, and a shadow that is a copy.
const RICH: &str = "CREATE TABLE customers (id int PRIMARY KEY);
    CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 2), code text UNIQUE, customer int REFERENCES customers ON DELETE CASCADE,
        parent bigint, n serial, name text NOT NULL DEFAULT 'x', CHECK (n > 0), PRIMARY KEY (id));
    ALTER TABLE projects ADD CONSTRAINT within FOREIGN KEY (parent) REFERENCES projects ON DELETE SET NULL;
    CREATE INDEX by_name ON projects (lower(name)) WHERE n > 5;
    CREATE STATISTICS together (dependencies) ON name, code FROM projects;
    CREATE TABLE tasks (id int PRIMARY KEY, project bigint REFERENCES projects ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        code text REFERENCES projects (code));
    CREATE VIEW names WITH (security_barrier = true) AS SELECT id, upper(name) AS u FROM projects WHERE n > 0 WITH LOCAL CHECK OPTION;
    CREATE VIEW over_it AS SELECT p.id, t.id AS task FROM projects p JOIN tasks t ON t.project = p.id;
    CREATE VIEW over_view AS SELECT * FROM names;
    CREATE VIEW grouped AS SELECT id, name, count(*) FROM projects GROUP BY id;
    CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := NEW.name || ''!''; RETURN NEW; END';
    CREATE TRIGGER marks BEFORE INSERT ON projects FOR EACH ROW WHEN (NEW.n > 3) EXECUTE FUNCTION mark();
    CREATE TRIGGER never BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION mark();
    CREATE TRIGGER always BEFORE UPDATE ON projects FOR EACH ROW WHEN (NEW.n < 0) EXECUTE FUNCTION mark();
    ALTER TABLE projects DISABLE TRIGGER never, ENABLE ALWAYS TRIGGER always, REPLICA IDENTITY USING INDEX projects_pkey;
    COMMENT ON TRIGGER marks ON projects IS 'marks'; COMMENT ON TABLE projects IS 'the projects'; COMMENT ON COLUMN projects.name IS 'a name';
    GRANT SELECT, INSERT, UPDATE, DELETE ON projects TO shop; GRANT SELECT (name) ON projects TO stranger WITH GRANT OPTION; GRANT USAGE ON projects_id_seq, projects_n_seq TO shop;
    GRANT SELECT, INSERT ON customers, tasks TO shop; GRANT SELECT ON names, over_it TO shop;
    CREATE PUBLICATION published FOR TABLE projects;
    INSERT INTO customers VALUES (1), (2);
    INSERT INTO projects (code, customer) SELECT 'c' || i, 1 FROM generate_series(1, 20) i;
    UPDATE projects SET parent = 100 WHERE n > 3;
    INSERT INTO tasks VALUES (1, 102, 'c4')";

/// Carried from 15 on, where a view asks with its reader's rights. It looks at another table, and so names its own.
const POLICY: &str =
    "CREATE POLICY mine ON projects TO shop USING (n < 1000 AND EXISTS (SELECT FROM customers c WHERE c.id = projects.customer));
    COMMENT ON POLICY mine ON projects IS 'mine'; ALTER TABLE projects ENABLE ROW LEVEL SECURITY";

const PUBLISHED: &str = "SELECT prrelid::regclass FROM pg_publication_rel";

async fn rich(major: u32, database: &str) -> Ground {
    let ground = Ground::new(major, database).await;
    run(&ground.admin, &format!("GRANT CREATE ON DATABASE {database} TO owner")).await;
    run(&ground.owner, RICH).await;
    if major >= 15 {
        run(&ground.owner, POLICY).await;
    }
    run(&ground.owner, "SELECT cutover.create_shadow_table('projects'), cutover.enable_dual_write('projects')").await;
    ground.to_last_stage().await;
    ground
}

async fn complete(ground: &Ground) -> String {
    let told = text(&ground.owner, "SELECT cutover.complete_cutover('projects', true)").await;
    let failed = "SELECT count(*) FROM cutover.validate_foreign_keys('projects') WHERE outcome <> 'valid'";
    assert_eq!(number(&ground.owner, failed).await, 0);
    told
}

async fn go_back(ground: &Ground) {
    let told = text(&ground.owner, "SELECT cutover.emergency_rollback('projects', 'drill')").await;
    let left = number(&ground.owner, "SELECT count(*) FROM cutover.unvalidated('projects')").await;
    assert_eq!(told.contains(&format!("{left} foreign keys have yet to look at the rows")), left > 0, "{told}");
    run(&ground.owner, "SELECT cutover.validate_foreign_keys('projects')").await;
}

/// C10, C44: each thing that is carried, and after the way back every definition as it was, twice.
#[tokio::test]
async fn c10_everything_that_hangs_on_a_table_comes_along_and_goes_back_as_it_was() {
    for major in MAJORS {
        let ground = rich(major, "carried").await;
        let before = ground.definitions().await;
        for round in 0..2 {
            let told = complete(&ground).await;
            assert!(told.contains("4 foreign keys have yet to look at the rows"), "{major} {told}");
            let kind = "SELECT relkind, (SELECT cutover_stage FROM cutover.traffic_routing_config) FROM pg_class WHERE relname = 'projects_shadow'";
            assert_eq!(text(&ground.owner, kind).await, "v|completed", "{major}");
            assert_eq!(text(&ground.owner, PUBLISHED).await, "projects", "{major}");
            let next =
                text(&ground.owner, "SELECT i.last_value + 2, n.last_value + 1, 'x!' FROM projects_id_seq i, projects_n_seq n").await;
            assert!(round > 0 || next == "140|21|x!", "{major} {next}");
            let new = "INSERT INTO projects (code, customer, parent) VALUES ('new', 2, 100) RETURNING id, n, name";
            assert_eq!(text(&ground.shop, new).await, next, "{major}: the numbers go on, and triggers fire once");
            for (sql, state) in [
                ("INSERT INTO projects (customer) VALUES (77)", "23503"),
                ("INSERT INTO projects (parent) VALUES (77)", "23503"),
                ("INSERT INTO tasks VALUES (3, 1)", "23503"),
                ("INSERT INTO projects (code) VALUES ('c1')", "23505"),
                ("INSERT INTO projects (id) VALUES (1)", "428C9"),
            ] {
                assert_eq!(refused(&ground.owner, sql).await.0.code(), state, "{major} {sql}");
            }
            for sql in [
                "SELECT count(*) FROM names WHERE u = 'X!' AND id >= 140",
                "SELECT count(*) FROM over_view WHERE id >= 140",
                "SELECT count(*) FROM grouped WHERE id >= 140",
                "SELECT count(*) FROM projects_shadow WHERE id >= 140",
                "SELECT count(*) FROM projects_old WHERE id >= 140",
            ] {
                assert_eq!(number(&ground.owner, sql).await, 1, "{major} {sql}: it is the new table, and the old one is written along");
            }
            assert_eq!(number(&ground.shop, "SELECT count(*) FROM over_it").await, 1, "{major}");
            let named = "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 'projects'::regclass";
            assert_eq!(text(&ground.owner, named).await, "by_name projects_code_key projects_pkey", "{major}");
            if major >= 15 {
                run(&ground.owner, "INSERT INTO projects (n) VALUES (5000)").await;
                assert_eq!(
                    number(&ground.shop, "SELECT count(*) FROM projects_shadow WHERE n = 5000").await,
                    0,
                    "{major}: the view asks as its reader"
                );
                run(&ground.owner, "DELETE FROM projects WHERE n = 5000").await;
            }
            run(&ground.owner, "DELETE FROM projects WHERE code = 'new'").await;
            go_back(&ground).await;
            assert_eq!(text(&ground.owner, PUBLISHED).await, "projects", "{major}");
            assert_eq!(number(&ground.owner, "SELECT count(*) FROM projects").await, 20, "{major}");
            assert_eq!(ground.definitions().await, before, "{major}");
            ground.to_last_stage().await;
        }
    }
}

/// What can't be carried is refused by name, before anything is locked; and when it is gone, nothing is in the way.
#[tokio::test]
async fn c10_whatever_can_t_be_carried_is_refused_by_name() {
    let ground = rich(15, "hanging").await;
    run(&ground.admin, "CREATE SCHEMA aside AUTHORIZATION owner").await;
    for (hang, words, undo) in [
        ("CREATE MATERIALIZED VIEW mat AS SELECT id FROM projects", "materialized view mat can't be carried", "DROP MATERIALIZED VIEW mat"),
        ("CREATE RULE other AS ON DELETE TO customers DO ALSO DELETE FROM projects WHERE id = 0", "rule other on table customers", "DROP RULE other ON customers"),
        ("CREATE RULE own AS ON DELETE TO projects DO ALSO NOTHING", "rule own on table projects", "DROP RULE own ON projects"),
        ("CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM projects; END", "function f()", "DROP FUNCTION f"),
        ("CREATE FUNCTION f(p projects) RETURNS text LANGUAGE sql AS 'SELECT p.name'", "function f(projects)", "DROP FUNCTION f"),
        ("CREATE TABLE holder (a int, p projects[])", "column p of table holder", "DROP TABLE holder"),
        ("CREATE VIEW cast_ AS SELECT NULL::projects IS NULL AS a FROM projects", "view cast_", "DROP VIEW cast_"),
        ("CREATE POLICY looks ON tasks USING (EXISTS (SELECT FROM projects))", "policy looks on table tasks", "DROP POLICY looks ON tasks"),
        ("CREATE POLICY itself ON projects USING (id = (SELECT max(id) FROM projects))", "policy itself on table projects", "DROP POLICY itself ON projects"),
        ("ALTER POLICY mine ON projects USING (n < 7)", "the policy mine says something else", "DROP POLICY mine ON projects; DROP POLICY mine ON projects_shadow"),
        ("CREATE STATISTICS alone (ndistinct) ON code, customer FROM projects", "has nothing like statistics object alone", "DROP STATISTICS alone"),
        ("CREATE TABLE projects_old (a int)", "the name projects_old is taken", "DROP TABLE projects_old"),
        ("CREATE TYPE projects_old AS ENUM ()", "the name projects_old is taken", "DROP TYPE projects_old"),
        ("CREATE TABLE kid () INHERITS (projects)", "projects has children", "DROP TABLE kid"),
        ("CREATE TABLE parts (p bigint REFERENCES projects) PARTITION BY HASH (p)", "parts_p_fkey of parts can't be carried: parts is partitioned", "DROP TABLE parts"),
        ("RESET ROLE; CREATE TABLE hers (p bigint REFERENCES projects)", "hers belongs to postgres", "RESET ROLE; DROP TABLE hers"),
        ("RESET ROLE; CREATE VIEW theirs AS SELECT id FROM projects", "view theirs belongs to postgres", "RESET ROLE; DROP VIEW theirs"),
        ("ALTER TABLE projects_shadow ADD CONSTRAINT to_it FOREIGN KEY (parent) REFERENCES projects", "let it refer to itself", "ALTER TABLE projects_shadow DROP CONSTRAINT to_it"),
        ("ALTER TABLE projects_shadow DROP CONSTRAINT projects_shadow_code_key", "has no unique key over code", "ALTER TABLE projects_shadow ADD UNIQUE (code)"),
        ("ALTER TABLE projects ADD CONSTRAINT late UNIQUE (n) DEFERRABLE", "looked at when a transaction ends", "ALTER TABLE projects DROP CONSTRAINT late"),
        (
            "ALTER TABLE projects DISABLE ROW LEVEL SECURITY",
            "projects_shadow has row-level security, and projects has none",
            "ALTER TABLE projects ENABLE ROW LEVEL SECURITY",
        ),
        ("ALTER TABLE projects FORCE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY, and owner does not see all", "ALTER TABLE projects NO FORCE ROW LEVEL SECURITY"),
        ("CREATE UNIQUE INDEX only_here ON projects (n); ALTER TABLE projects ALTER n SET NOT NULL, REPLICA IDENTITY USING INDEX only_here", "identified by only_here", "DROP INDEX only_here"),
        ("CREATE PUBLICATION partial_ FOR TABLE projects (id, n)", "some rows or columns", "DROP PUBLICATION partial_"),
        ("CREATE PUBLICATION both_ FOR TABLE projects, projects_shadow", "has both", "DROP PUBLICATION both_"),
        ("RESET ROLE; CREATE PUBLICATION hers FOR TABLE projects", "the publication hers belongs to postgres", "RESET ROLE; DROP PUBLICATION hers"),
        ("RESET ROLE; CREATE SUBSCRIPTION fed CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false, slot_name = NONE);
          SET allow_system_table_mods = on; INSERT INTO pg_subscription_rel SELECT oid, 'projects'::regclass, 'r', NULL FROM pg_subscription WHERE subname = 'fed'",
         "fed by a subscription", "RESET ROLE; DROP SUBSCRIPTION fed"),
        ("RESET ROLE; ALTER EXTENSION plpgsql ADD TABLE projects", "belongs to the extension plpgsql", "RESET ROLE; ALTER EXTENSION plpgsql DROP TABLE projects"),
        ("ALTER TABLE projects RENAME TO renamed", "renamed is not called projects any more", "ALTER TABLE renamed RENAME TO projects"),
        ("ALTER TABLE projects_shadow SET SCHEMA aside", "in different schemas", "ALTER TABLE aside.projects_shadow SET SCHEMA public"),
        ("RESET ROLE; ALTER TABLE projects_shadow OWNER TO postgres", "projects_shadow belongs to postgres", "RESET ROLE; ALTER TABLE projects_shadow OWNER TO owner"),
    ] {
        run(&ground.admin, &format!("SET ROLE owner; {hang}; RESET ROLE")).await;
        let found = text(&ground.owner, "SELECT string_agg(detail, '; ') FROM cutover.check_completion('projects') WHERE blocks").await;
        assert!(found.replace("public.", "").contains(words), "{hang}: {found}");
        let entries = number(&ground.admin, "SELECT count(*) FROM cutover.audit_log").await;
        assert_eq!(refused(&ground.owner, "SELECT cutover.complete_cutover('projects', true)").await.0.code(), "SC004", "{hang}");
        assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.audit_log").await, entries);
        run(&ground.admin, &format!("SET ROLE owner; {undo}; RESET ROLE")).await;
    }
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.check_completion('projects') WHERE blocks").await, 0);
    run(&ground.owner, "ALTER TABLE projects REPLICA IDENTITY DEFAULT").await;
    complete(&ground).await;
    // The same on the way back, and the view that goes with it.
    for (hang, words, undo) in [
        ("CREATE MATERIALIZED VIEW mat AS SELECT id FROM projects", "materialized view mat can't be carried", "DROP MATERIALIZED VIEW mat"),
        ("CREATE VIEW on_view AS SELECT id FROM projects_shadow", "hangs on the view projects_shadow", "DROP VIEW on_view"),
    ] {
        run(&ground.owner, hang).await;
        let (state, told) = refused(&ground.owner, "SELECT cutover.emergency_rollback('projects', 'drill')").await;
        assert!(state.code() == "SC004" && told.replace("public.", "").contains(words), "{hang}: {told}");
        run(&ground.owner, undo).await;
    }
    go_back(&ground).await;
}

/// C10: from where it may be, by whom, confirmed, and with both the same in both directions.
#[tokio::test]
async fn c10_a_completion_that_should_not_be_is_refused_and_changes_nothing() {
    let ground = Ground::moving(15, "too_early", 50, "sync").await;
    run(&ground.admin, "GRANT CREATE ON DATABASE too_early TO owner").await;
    let colleague = ground.member("cutover_operator").await;
    let completes = "SELECT cutover.complete_cutover('projects', true)";
    let refuses = async |sql: &str, state: &str, part: &str| {
        let before = ground.definitions().await;
        let (told, words) = refused(&ground.owner, sql).await;
        assert!(told.code() == state && words.replace("public.", "").contains(part), "{sql}: {} {words}", told.code());
        assert_eq!(ground.definitions().await, before, "{sql}");
    };
    refuses(completes, "SC002", "start_gradual_cutover").await;
    ground.start(0).await;
    ground.climb(1).await;
    refuses(completes, "SC002", "is at test_1, and can be completed only from the last stage before").await;
    ground.climb(3).await;
    refuses(completes, "SC005", "0 of 1 operations at the shadow").await;
    ground.feed().await;
    refuses("SELECT cutover.complete_cutover('projects')", "SC003", "check_completion").await;
    refuses("SELECT cutover.complete_cutover('projects', NULL)", "SC003", "complete_cutover('projects', true)").await;
    refuses("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT cutover.complete_cutover('projects', true)", "SC002", "READ COMMITTED").await;
    run(&ground.owner, "ROLLBACK").await;
    let (state, words) = refused(&colleague, completes).await;
    assert!(state.code() == "SC004" && words.contains("SET ROLE owner"), "{words}");
    assert_eq!(refused(&ground.shop, completes).await.0.code(), "42501");
    run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now() + interval '90 minutes'").await;
    refuses(completes, "SC002", "90 minutes are left").await;
    run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now()").await;
    run(&ground.admin, "UPDATE projects_shadow SET cents = 0 WHERE id = 3").await;
    refuses(completes, "SC005", "1 rows differ").await;
    run(&ground.shop, "UPDATE projects SET price = price WHERE id = 3; UPDATE projects SET last = 'of two words' WHERE id IN (7, 8)").await;
    refuses(completes, "SC005", "the way back would change 2 rows").await;
    run(&ground.shop, "UPDATE projects SET last = 'b' WHERE id IN (7, 8)").await;
    for (hang, words, undo) in [
        ("CREATE VIEW v AS SELECT id, first FROM projects", "view v uses first, which projects_shadow does not have", "DROP VIEW v"),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "may read first, last, price",
            "DROP TRIGGER t ON projects",
        ),
        ("CREATE POLICY p ON projects USING (last <> '')", "policy p on table projects uses last", "DROP POLICY p ON projects"),
        (
            "ALTER TABLE projects ADD UNIQUE (first); CREATE TABLE child (f text REFERENCES projects (first))",
            "not each of its columns is as it is",
            "DROP TABLE child; ALTER TABLE projects DROP CONSTRAINT projects_first_key",
        ),
        ("CREATE PUBLICATION p FOR TABLE projects", "subscribers of the publication p have not the columns", "DROP PUBLICATION p"),
    ] {
        run(&ground.admin, &format!("SET ROLE owner; {hang}; RESET ROLE")).await;
        refuses(completes, "SC004", words).await;
        run(&ground.admin, undo).await;
    }
    assert_eq!(text(&ground.owner, "SELECT cutover_stage FROM cutover.traffic_routing_config").await, "full_100");
    complete(&ground).await;
    refuses(completes, "SC002", "is at completed").await;
    refuses("SELECT cutover.advance_cutover_stage('projects')", "SC002", "no step is left").await;
    refuses("SELECT cutover.disable_dual_write('projects')", "SC002", "drop_shadow_table").await;
    refuses("SELECT cutover.emergency_rollback('projects', ' ')", "SC003", "wants a reason").await;
    let (state, words) = refused(&colleague, "SELECT cutover.emergency_rollback('projects', 'drill')").await;
    assert!(state.code() == "SC004" && words.contains("SET ROLE owner"), "{words}");
    let (state, words) = refused(&colleague, "SELECT cutover.drop_shadow_table('projects', true)").await;
    assert!(state.code() == "SC004" && words.contains("SET ROLE owner"), "{words}");
    // What was written past the triggers would be lost.
    run(&ground.owner, "ALTER TABLE projects DISABLE TRIGGER cutover_dual_write_delete").await;
    refuses("SELECT cutover.emergency_rollback('projects', 'drill')", "SC002", "triggers are missing at projects").await;
    run(&ground.owner, "ALTER TABLE projects ENABLE ALWAYS TRIGGER cutover_dual_write_delete").await;
    // What is queued is brought while everybody waits: so it has to be little.
    run(
        &ground.owner,
        "SELECT cutover.mark_dirty('projects', array_agg(jsonb_build_array(i::text)), 'by hand') FROM generate_series(1, 1001) i",
    )
    .await;
    refuses("SELECT cutover.emergency_rollback('projects', 'drill')", "SC006", "more than 1000 keys of projects are queued").await;
    run(&ground.owner, "SELECT cutover.drain('projects', 500)").await;
    go_back(&ground).await;
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.dirty_key").await, 0);
    assert_eq!(text(&ground.owner, "SELECT count(*) FROM cutover.verify_audit()").await, "0");
}
