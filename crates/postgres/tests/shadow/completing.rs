//! Completion and the way back while everybody writes and reads, while somebody is in the way, and when something fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use cutover_testkit::{Seed, eventually};
use rand::{RngExt, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::ground::{Ground, MAJORS, number, refused, run, text};

const COMPLETE: &str = "SELECT cutover.complete_cutover('projects', true)";
const BACK: &str = "SELECT cutover.emergency_rollback('projects', 'drill')";
const STAGE: &str = "SELECT cutover_stage FROM cutover.traffic_routing_config";

/// Same shape: entries of writers, with children and a parent, so that several tables are locked.
const ENTRIES: &str = "CREATE TABLE writers (id int PRIMARY KEY); INSERT INTO writers SELECT generate_series(0, 9);
    CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, writer int NOT NULL REFERENCES writers, value int NOT NULL);
    CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project bigint NOT NULL REFERENCES projects ON DELETE CASCADE);
    CREATE VIEW sums AS SELECT writer, sum(value) AS value FROM projects GROUP BY writer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON projects, notes TO shop; GRANT SELECT ON writers, sums TO shop;
    INSERT INTO projects (writer, value) SELECT 9, i FROM generate_series(1, 100) i;
    SELECT cutover.create_shadow_table('projects')";

async fn entries(major: u32, database: &str, mode: &str) -> Ground {
    let ground = Ground::new(major, database).await;
    run(&ground.owner, ENTRIES).await;
    run(&ground.owner, &format!("SELECT cutover.enable_dual_write('projects', '{mode}')")).await;
    ground.to_last_stage().await;
    ground
}

/// Writes and reads with statements that were prepared once, and keeps its own account of what it wrote.
async fn write_entries(
    client: Client,
    writer: i32,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU32>,
    mut random: StdRng,
) -> BTreeMap<i64, i32> {
    let insert = client.prepare("INSERT INTO projects (writer, value) VALUES ($1, $2) RETURNING id").await.unwrap();
    let update = client.prepare("UPDATE projects SET value = $2 WHERE id = $1").await.unwrap();
    let delete = client.prepare("DELETE FROM projects WHERE id = $1").await.unwrap();
    let note = client.prepare("INSERT INTO notes (project) VALUES ($1)").await.unwrap();
    let routed = client.prepare("SELECT cutover.should_route_to_shadow('projects', 'read', '1')").await.unwrap();
    let primary = client.prepare("SELECT * FROM projects WHERE writer = $1").await.unwrap();
    let shadow = client.prepare("SELECT * FROM projects_shadow WHERE writer = $1").await.unwrap();
    let sum = client.prepare("SELECT coalesce(sum(value), 0)::int8 FROM sums WHERE writer = $1").await.unwrap();
    let mut mine = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let value = random.random_range(0..1000);
        let some: Option<i64> = mine.keys().nth(random.random_range(0..20)).copied();
        match (random.random_range(0..6), some) {
            (0, Some(id)) => {
                assert_eq!(client.execute(&update, &[&id, &value]).await.unwrap(), 1);
                mine.insert(id, value);
            }
            (1, Some(id)) => {
                assert_eq!(client.execute(&delete, &[&id]).await.unwrap(), 1);
                mine.remove(&id);
            }
            (2, Some(id)) => {
                // The child first, then the table: the other way round than a completion.
                client.batch_execute("BEGIN").await.unwrap();
                client.execute(&note, &[&id]).await.unwrap();
                client.execute(&update, &[&id, &value]).await.unwrap();
                client.batch_execute("COMMIT").await.unwrap();
                mine.insert(id, value);
            }
            (3, _) => {
                let there = client.query_one(&routed, &[]).await.unwrap().get(0);
                client.query(if there { &shadow } else { &primary }, &[&writer]).await.unwrap();
                let total: i64 = client.query_one(&sum, &[&writer]).await.unwrap().get(0);
                assert_eq!(total, mine.values().map(|value| i64::from(*value)).sum::<i64>(), "who reads finds what it wrote");
            }
            _ => {
                mine.insert(client.query_one(&insert, &[&writer, &value]).await.unwrap().get(0), value);
            }
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
    mine
}

/// Asks for it until it is done: it may be refused while somebody is in the way, and for nothing else.
async fn persist(client: &Client, sql: &str) {
    let done = async || match client.batch_execute(sql).await {
        Ok(()) => true,
        Err(error) => {
            let told = error.as_db_error().unwrap();
            // What is queued is brought first.
            assert!(["SC006", "SC005"].contains(&told.code().code()), "{sql}: {told:?}");
            client.batch_execute("SELECT cutover.drain('projects')").await.unwrap();
            false
        }
    };
    eventually(Duration::from_secs(60), done).await.unwrap();
}

/// C44: many writers and readers, none of whom sees an error, through completion and the way back and completion again.
#[tokio::test]
async fn c44_nobody_who_writes_or_reads_sees_an_error_and_no_write_is_lost() {
    let seed = Seed::from_env_or_random();
    for (major, mode) in [(13, "sync"), (15, "sync"), (18, "sync"), (18, "async")] {
        let ground = entries(major, &format!("racing_{mode}"), mode).await;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut writers = JoinSet::new();
        for writer in 0..4_i32 {
            let random = seed.derive(u64::from(major) * 10 + writer.unsigned_abs() as u64).rng();
            writers.spawn(write_entries(ground.member("cutover_app, shop").await, writer, stop.clone(), written.clone(), random));
        }
        let some = async || {
            let before = written.load(Ordering::Relaxed);
            eventually(Duration::from_secs(30), || async { written.load(Ordering::Relaxed) > before + 100 }).await.unwrap();
        };
        some().await;
        if mode == "async" {
            // A comparison wants an empty queue. Afterwards the mode may be any.
            run(&ground.owner, "SELECT cutover.enable_dual_write('projects', 'sync')").await;
        }
        persist(&ground.owner, COMPLETE).await;
        run(&ground.owner, &format!("SELECT cutover.enable_dual_write('projects', '{mode}')")).await;
        some().await;
        persist(&ground.owner, BACK).await;
        some().await;
        run(&ground.owner, "SELECT cutover.enable_dual_write('projects', 'sync'); SELECT cutover.drain('projects', 100000)").await;
        run(&ground.owner, "SELECT cutover.start_gradual_cutover('projects', 0)").await;
        for _ in 0..4 {
            ground.feed().await;
            persist(&ground.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
        }
        ground.feed().await;
        persist(&ground.owner, COMPLETE).await;
        some().await;
        stop.store(true, Ordering::Relaxed);
        let mut expected = BTreeMap::new();
        while let Some(mine) = writers.join_next().await {
            expected.extend(mine.unwrap());
        }
        ground.settle().await;
        for table in ["projects", "projects_old", "projects_shadow"] {
            let rows = ground.admin.query(&format!("SELECT id, value FROM {table} WHERE writer <> 9"), &[]).await.unwrap();
            let found: BTreeMap<i64, i32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            assert_eq!(found, expected, "{major} {mode} {table}");
        }
        assert_eq!(
            number(
                &ground.admin,
                "SELECT count(*) FROM projects p FULL JOIN projects_old o USING (id, writer, value) WHERE p.id IS NULL OR o.id IS NULL"
            )
            .await,
            0
        );
        assert_eq!(
            number(&ground.owner, "SELECT count(*) FROM cutover.validate_foreign_keys('projects') WHERE outcome <> 'valid'").await,
            0
        );
    }
}

/// C44: whoever is in the way is waited for a bounded time, and is not harmed.
#[tokio::test]
async fn somebody_with_an_open_transaction_is_left_alone_and_the_completion_is_refused() {
    let ground = entries(15, "in_the_way", "sync").await;
    for (holds, then) in [
        ("BEGIN; UPDATE projects SET value = 7 WHERE id = 5", "UPDATE projects SET value = 8 WHERE id = 6; COMMIT"),
        ("BEGIN; INSERT INTO notes (project) VALUES (7)", "INSERT INTO notes (project) VALUES (8); COMMIT"),
        ("BEGIN; SELECT * FROM sums", "SELECT * FROM projects; COMMIT"),
    ] {
        run(&ground.shop, holds).await;
        let before = ground.definitions().await;
        let (state, words) = refused(&ground.owner, COMPLETE).await;
        assert!(state.code() == "SC006" && words.contains("such as process"), "{holds}: {words}");
        run(&ground.shop, then).await;
        assert_eq!(ground.definitions().await, before, "{holds}");
        assert_eq!(text(&ground.owner, STAGE).await, "full_100");
    }
    // As a vacuum does: nobody who writes waits meanwhile.
    let other = ground.another("owner").await;
    run(&other, "BEGIN; ANALYZE notes").await;
    let writes = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareUpdateExclusiveLock' AND NOT granted";
        eventually(Duration::from_secs(5), || async { number(&ground.admin, waiting).await > 0 }).await.unwrap();
        run(&ground.shop, "SET lock_timeout = '50ms'; INSERT INTO notes (project) VALUES (7); UPDATE projects SET value = 1 WHERE id = 7; RESET lock_timeout").await;
    };
    let ((state, words), ()) = tokio::join!(refused(&ground.owner, COMPLETE), writes);
    assert!(state.code() == "SC006" && words.contains("notes is being vacuumed"), "{words}");
    run(&other, "COMMIT").await;
    run(&ground.owner, COMPLETE).await;
    run(&ground.shop, "BEGIN; UPDATE projects SET value = 7 WHERE id = 5").await;
    assert_eq!(refused(&ground.owner, BACK).await.0.code(), "SC006");
    run(&ground.shop, "COMMIT").await;
    run(&ground.owner, BACK).await;
    assert_eq!(
        text(&ground.owner, "SELECT value, (SELECT value FROM projects_shadow WHERE id = 5) FROM projects WHERE id = 5").await,
        "7|7"
    );
}

/// C29: the old table is behind where rows are brought after the write, and nobody who deletes what it still refers to hears of it.
#[tokio::test]
async fn c29_a_late_row_of_the_old_table_holds_up_no_write() {
    let ground = entries(13, "late_rows", "sync").await;
    run(&ground.owner, "GRANT DELETE ON writers TO shop").await;
    run(&ground.owner, COMPLETE).await;
    run(&ground.owner, "SELECT cutover.enable_dual_write('projects', 'async')").await;
    run(&ground.shop, "INSERT INTO notes (project) SELECT id FROM projects WHERE id < 9; DELETE FROM projects WHERE writer = 9; DELETE FROM writers WHERE id = 9").await;
    assert_eq!(
        text(&ground.owner, "SELECT count(*), (SELECT count(*) FROM notes) FROM projects_old").await,
        "100|0",
        "its rows are to be taken away"
    );
    run(&ground.owner, BACK).await;
    assert_eq!(text(&ground.owner, "SELECT count(*), (SELECT count(*) FROM cutover.dirty_key) FROM projects").await, "0|0");
    assert_eq!(number(&ground.owner, "SELECT count(*) FROM cutover.validate_foreign_keys('projects') WHERE outcome = 'valid'").await, 2);
}

/// C10: whichever comes first, the tables and the stage say the same.
#[tokio::test]
async fn of_a_completion_and_a_rollback_at_once_one_is_first_and_the_other_hears_of_it() {
    let ground = entries(15, "at_the_same_time", "sync").await;
    let operator = ground.member("cutover_operator").await;
    for round in 0..6 {
        // The rollback comes sooner or later while the completion is under way.
        let rollback = async {
            let busy = "SELECT count(*) FROM pg_locks WHERE relation = 'projects'::regclass AND mode = 'AccessExclusiveLock'";
            if round % 2 == 1 {
                let _ = eventually(Duration::from_secs(2), || async { number(&ground.admin, busy).await > 0 }).await;
            }
            operator.batch_execute(BACK).await
        };
        let (completed, rolled_back) = tokio::join!(ground.owner.batch_execute(COMPLETE), rollback);
        let state = |done: Result<(), tokio_postgres::Error>| done.err().map(|error| error.code().unwrap().code().to_owned());
        let told = (state(completed), state(rolled_back));
        let now = text(
            &ground.admin,
            "SELECT cutover_stage, (SELECT relkind FROM pg_class WHERE relname = 'projects_shadow') FROM cutover.traffic_routing_config",
        )
        .await;
        match (told.0.as_deref(), told.1.as_deref()) {
            (None, Some("SC004" | "SC006")) => assert_eq!(now, "completed|v", "{told:?}"),
            (Some("SC006" | "SC002"), None) => assert_eq!(now, "disabled|r", "{told:?}"),
            _ => panic!("{told:?} {now}"),
        }
        if now.starts_with("completed") {
            run(&ground.owner, BACK).await;
        }
        ground.to_last_stage().await;
    }
    let twin = ground.another("owner").await;
    for (sql, stage) in [(COMPLETE, "completed"), (BACK, "disabled")] {
        // Both have seen where it stands, and wait.
        run(&ground.shop, "BEGIN; SELECT FROM projects").await;
        let waiting = "SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT cutover.%' AND state = 'active'";
        let ended = async {
            eventually(Duration::from_secs(5), || async { number(&ground.admin, waiting).await == 2 }).await.unwrap();
            run(&ground.shop, "COMMIT").await;
        };
        let (one, other, ()) = tokio::join!(ground.owner.batch_execute(sql), twin.batch_execute(sql), ended);
        let mut told: Vec<_> =
            [one, other].into_iter().filter_map(Result::err).map(|error| error.code().unwrap().code().to_owned()).collect();
        told.dedup();
        assert!(told.is_empty() && sql == BACK || told == ["SC006"] || told == ["SC002"], "{sql}: {told:?}");
        assert_eq!(text(&ground.owner, STAGE).await, stage);
    }
}

/// Everything that is defined, and by which transaction: what was rolled back is as it was to the last bit.
const UNTOUCHED: &str = "SELECT md5(string_agg(x.what, ',' ORDER BY x.what)) FROM (
    SELECT format('c %s %s %s %s', oid, xmin, relname, relacl) AS what FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('t %s %s', oid, xmin) FROM pg_trigger UNION ALL SELECT format('k %s %s', oid, xmin) FROM pg_constraint
    UNION ALL SELECT format('f %s %s', oid, xmin) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT format('v %s %s', oid, xmin) FROM pg_rewrite UNION ALL SELECT format('d %s %s', oid, xmin) FROM pg_attrdef
    UNION ALL SELECT format('s %s', s) FROM cutover.shadow_table s UNION ALL SELECT format('r %s', r) FROM cutover.traffic_routing_config r
    UNION ALL SELECT format('a %s', count(*)) FROM cutover.audit_log) x";

/// C10: whichever of its statements fails, nothing has happened.
#[tokio::test]
async fn c10_a_completion_that_fails_at_any_step_leaves_everything_as_it_was() {
    for (major, name, sql) in [(13, "failing", COMPLETE), (18, "failing", COMPLETE), (18, "failing_back", BACK)] {
        let ground = entries(major, name, "sync").await;
        if sql == BACK {
            run(&ground.owner, COMPLETE).await;
        }
        run(
            &ground.admin,
            "CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('test.remaining', (current_setting('test.remaining')::int - 1)::text, false);
                 IF current_setting('test.remaining')::int = 0 THEN RAISE EXCEPTION 'planted' USING ERRCODE = 'XX999'; END IF; END $$;
             CREATE EVENT TRIGGER fail ON ddl_command_end EXECUTE FUNCTION fail()",
        )
        .await;
        let before = text(&ground.admin, UNTOUCHED).await;
        let mut steps = 0;
        loop {
            steps += 1;
            run(&ground.owner, &format!("SET test.remaining = {steps}")).await;
            let Err(error) = ground.owner.batch_execute(sql).await else { break };
            assert_eq!(error.code().unwrap().code(), "XX999", "{error:?}");
            assert_eq!(text(&ground.admin, UNTOUCHED).await, before, "{major}: step {steps}");
        }
        assert!(steps > 40, "{major}: {steps} steps");
        run(&ground.shop, "INSERT INTO projects (writer, value) VALUES (1, 1)").await;
    }
}

/// C44: an application whose shape changes asks which is in charge, and its transaction has that one to its end.
#[tokio::test]
async fn c44_an_application_of_two_shapes_writes_the_one_that_is_in_charge() {
    for major in MAJORS {
        let ground = Ground::last_stage(major, "two_shapes", 30, "sync").await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..3 {
            let (client, stop) = (ground.member("cutover_app, shop").await, stop.clone());
            writers.spawn(async move {
                let mut rows = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.batch_execute(if rows % 2 == 0 { "BEGIN" } else { "BEGIN ISOLATION LEVEL REPEATABLE READ" }).await.unwrap();
                    let new: bool = client.query_one("SELECT cutover.is_promoted('projects')", &[]).await.unwrap().get(0);
                    let insert = if new {
                        format!("INSERT INTO projects (full_name, cents, changed_at) VALUES ('w{writer} n{rows}', {rows}, now())")
                    } else {
                        format!("INSERT INTO projects (first, last, price) VALUES ('w{writer}', 'n{rows}', {rows} / 100.0)")
                    };
                    client.batch_execute(&insert).await.unwrap();
                    let still: bool = client.query_one("SELECT cutover.is_promoted('projects')", &[]).await.unwrap().get(0);
                    assert_eq!(still, new);
                    client.batch_execute("COMMIT").await.unwrap();
                    rows += 1;
                }
                rows
            });
        }
        persist(&ground.owner, COMPLETE).await;
        persist(&ground.owner, BACK).await;
        assert!(!ground.owner.query_one("SELECT cutover.is_promoted('projects')", &[]).await.unwrap().get::<_, bool>(0));
        assert_eq!(ground.different().await, 0, "{major}");
        ground.to_last_stage().await;
        persist(&ground.owner, COMPLETE).await;
        stop.store(true, Ordering::Relaxed);
        let mut expected = 30;
        while let Some(rows) = writers.join_next().await {
            expected += rows.unwrap();
        }
        assert_eq!(number(&ground.admin, "SELECT count(DISTINCT (full_name, cents)) FROM projects").await, expected, "{major}");
        run(&ground.owner, "SELECT cutover.drop_shadow_table('projects', true)").await;
        assert!(
            ground
                .member("cutover_app, shop")
                .await
                .query_one("SELECT cutover.is_promoted('projects')", &[])
                .await
                .unwrap()
                .get::<_, bool>(0),
            "who asks goes on asking"
        );
        assert_eq!(refused(&ground.owner, "SELECT cutover.is_promoted('nothing')").await.0.code(), "42P01");
    }
}
