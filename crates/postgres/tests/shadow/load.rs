//! Five tables under load go their whole way, back from each stage, to completion, back from there, and to completion again. Applications
//! notice nothing: no statement fails, each reads what it wrote, wherever it is sent, and at the end nothing is lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cutover_testkit::Seed;
use rand::{RngExt, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_postgres::{Client, types::ToSql};

use crate::ground::{Ground, MAJORS, number, run, text};

const TABLES: [&str; 5] = ["projects", "sessions", "tasks", "analytics_events", "contexts"];

/// The document's tables, and of the last one a shadow of another shape.
const SCHEMA: &str = "CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text NOT NULL, changed_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE sessions (id bigint PRIMARY KEY, project bigint NOT NULL REFERENCES projects ON DELETE CASCADE, v text NOT NULL);
    CREATE INDEX ON sessions (project);
    CREATE TABLE tasks (id bigint PRIMARY KEY, project bigint REFERENCES projects, v text NOT NULL CHECK (v <> ''));
    CREATE TABLE analytics_events (id bigint PRIMARY KEY, v text NOT NULL, n bigserial);
    CREATE TABLE contexts (id bigint PRIMARY KEY, session bigint REFERENCES sessions, v text NOT NULL);
    CREATE VIEW busy_projects AS SELECT p.id, count(*) FROM projects p JOIN sessions s ON s.project = p.id GROUP BY p.id;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;
    INSERT INTO projects (v) SELECT 'seed' FROM generate_series(1, 50);
    INSERT INTO sessions SELECT -i, i, 'seed' FROM generate_series(1, 50) i;
    SELECT cutover.create_shadow_table(t) FROM unnest(ARRAY['projects', 'sessions', 'tasks', 'analytics_events']) t;
    SELECT cutover.create_shadow_table('contexts', '(id bigint PRIMARY KEY, session bigint, body jsonb NOT NULL)',
        '{\"up\": {\"body\": \"jsonb_build_object(''v'', v)\"}, \"down\": {\"v\": \"body ->> ''v''\"}}')";

/// One application: it has rows of its own in every table, and knows what is in them.
struct App {
    client: Client,
    random: StdRng,
    next: i64,
    rows: BTreeMap<(usize, i64), String>,
    statements: Arc<AtomicU64>,
    shadow_reads: Arc<AtomicU64>,
}

impl App {
    /// A statement that must not fail; the first column of its first row.
    async fn say<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Option<T> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let statement = self.client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
        let rows = self.client.query(&statement, values).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
        rows.first().map(|row| row.get(0))
    }

    async fn write(&mut self) {
        let table = self.random.random_range(0..TABLES.len());
        let value = format!("v{}", self.random.random::<u32>());
        let own: Vec<i64> = self.rows.keys().filter(|key| key.0 == table).map(|key| key.1).collect();
        let some = own.get(self.random.random_range(0..own.len().max(1))).copied();
        match (self.random.random_range(0..10), some) {
            (0..4, _) | (_, None) => self.insert(table, value).await,
            (4..9, Some(id)) => {
                self.change(table, "UPDATE {t} SET {v} WHERE id = $1", &[&id, &value]).await;
                self.rows.insert((table, id), value);
            }
            // Somebody else's rows may hang on a project or on a session.
            (_, Some(_)) if table < 2 => {}
            (_, Some(id)) => {
                self.change(table, "DELETE FROM {t} WHERE id = $1 AND $2::text <> ''", &[&id, &value]).await;
                self.rows.remove(&(table, id));
            }
        }
    }

    async fn insert(&mut self, table: usize, value: String) {
        self.next += 1;
        let (id, parent) = (self.next, i64::from(self.random.random_range(1..=50_u8)));
        let id = match TABLES[table] {
            "projects" => self.say("INSERT INTO projects (v) VALUES ($1) RETURNING id", &[&value]).await.unwrap(),
            "sessions" | "tasks" => {
                let sql = format!("INSERT INTO {} (id, project, v) VALUES ($1, $2, $3) RETURNING id", TABLES[table]);
                self.say(&sql, &[&id, &parent, &value]).await.unwrap()
            }
            "analytics_events" => {
                // Many at once.
                let sql = "INSERT INTO analytics_events (id, v) SELECT $1::bigint + i, $2 FROM generate_series(0, 9) i RETURNING id";
                let _: Option<i64> = self.say(sql, &[&id, &value]).await;
                self.next += 9;
                (1..10).for_each(|more| drop(self.rows.insert((table, id + more), value.clone())));
                id
            }
            _ => {
                self.change(table, "INSERT INTO {t} (id, session, {c}) VALUES ($1, -1, {x})", &[&id, &value]).await;
                id
            }
        };
        self.rows.insert((table, id), value);
    }

    /// A write of one shape or the other, as the table is at that moment and until this commits.
    async fn change(&self, table: usize, sql: &str, values: &[&(dyn ToSql + Sync)]) {
        let name = TABLES[table];
        let sql = sql.replace("{t}", name);
        if name != "contexts" {
            let _: Option<i64> = self.say(&sql.replace("{v}", "v = $2"), values).await;
            return;
        }
        run(&self.client, "BEGIN").await;
        let new = self.say::<bool>("SELECT cutover.is_promoted('contexts')", &[]).await.unwrap();
        let (column, expression) = if new { ("body", "jsonb_build_object('v', $2::text)") } else { ("v", "$2") };
        let sql = sql.replace("{v}", &format!("{column} = {expression}")).replace("{c}", column).replace("{x}", expression);
        let _: Option<i64> = self.say(&sql, values).await;
        run(&self.client, "COMMIT").await;
    }

    /// Reads a row of its own, where it is told to; often one that is read at the shadow, where there is one.
    async fn read(&mut self) {
        let place = self.random.random_range(0..self.rows.len());
        let (&(table, mut id), _) = self.rows.iter().nth(place).unwrap();
        let name = TABLES[table];
        if self.random.random_bool(0.5) {
            let own: Vec<String> = self.rows.keys().filter(|key| key.0 == table).map(|key| key.1.to_string()).collect();
            let sql = "SELECT k::bigint FROM unnest($2::text[]) k WHERE cutover.should_route_to_shadow($1, 'read', k) LIMIT 1";
            id = self.say(sql, &[&name, &own]).await.unwrap_or(id);
        }
        let value = &self.rows[&(table, id)];
        let shadow: bool = self.say("SELECT cutover.should_route_to_shadow($1, 'read', $2)", &[&name, &id.to_string()]).await.unwrap();
        let (from, column) = match (shadow, name) {
            (true, "contexts") => ("contexts_shadow".to_owned(), "body ->> 'v'"),
            (true, _) => (format!("{name}_shadow"), "v"),
            (false, _) => (name.to_owned(), "v"),
        };
        let began = Instant::now();
        let told: Option<String> = self.say(&format!("SELECT {column} FROM {from} WHERE id = $1"), &[&id]).await;
        assert_eq!(told.as_ref(), Some(value), "{name} {id} at {from}");
        self.shadow_reads.fetch_add(u64::from(shadow), Ordering::Relaxed);
        let ms = i32::try_from(began.elapsed().as_millis()).unwrap();
        self.say::<String>("SELECT cutover.record_cutover_operation($1, 'read', $2, true, $3)::text", &[&name, &ms, &shadow]).await;
    }
}

/// Calls until it is not refused for what passes: rows that are queued, samples that are missing, or somebody who is in the way.
async fn persist(owner: &Client, table: &str, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        run(owner, &format!("SELECT cutover.drain('{table}', 100000)")).await;
        match owner.batch_execute(sql).await {
            Ok(()) => return,
            Err(error) => {
                let state = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                assert!(["SC005", "SC006"].contains(&state.as_str()) && Instant::now() < deadline, "{sql}: {error:?}");
            }
        }
        tokio::task::yield_now().await;
    }
}

/// One table up to a stage, by the checks of each step.
async fn climb(owner: &Client, table: &str, steps: usize) {
    run(owner, &format!("SET client_min_messages = error; SELECT cutover.start_gradual_cutover('{table}', 0)")).await;
    for _ in 0..steps {
        persist(owner, table, &format!("SELECT cutover.advance_cutover_stage('{table}')")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c39_c44_five_tables_go_all_the_way_and_back_under_load_and_applications_notice_nothing() {
    let seed = Seed::from_env_or_random();
    // The oldest and the newest.
    for major in [MAJORS[0], MAJORS[2]] {
        let ground = Ground::new(major, "five_tables").await;
        run(&ground.admin, "GRANT cutover_app TO app; GRANT USAGE ON SCHEMA public TO app; GRANT CREATE ON DATABASE five_tables TO owner")
            .await;
        run(&ground.owner, SCHEMA).await;
        for table in TABLES {
            // Whether reads are slower is not what this is about, on a machine that is busy.
            let settings = "{\"min_samples\": 1, \"max_latency_increase_percent\": 1e9, \"alert_latency_increase_percent\": 1e9, \"advance_latency_increase_percent\": 1e9}";
            run(&ground.owner, &format!("SELECT cutover.configure_cutover('{table}', '{settings}'), cutover.enable_dual_write('{table}')"))
                .await;
        }
        let (stop, statements, shadow_reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut apps = JoinSet::new();
        for number in 0..4_u32 {
            let (client, stop) = (ground.another("app").await, stop.clone());
            let random = seed.derive(u64::from(major * 100 + number)).rng();
            let mut app = App {
                client,
                random,
                next: i64::from(number + 1) * 1_000_000,
                rows: BTreeMap::new(),
                statements: statements.clone(),
                shadow_reads: shadow_reads.clone(),
            };
            apps.spawn(async move {
                app.write().await;
                while !stop.load(Ordering::Relaxed) {
                    app.write().await;
                    app.read().await;
                }
                app.rows
            });
        }

        for table in TABLES {
            run(&ground.owner, &format!("CALL cutover.backfill('{table}', 500)")).await;
        }
        // Back from each stage, of a table each.
        for (steps, table) in TABLES.iter().enumerate() {
            climb(&ground.owner, table, steps).await;
            run(&ground.owner, &format!("SELECT cutover.emergency_rollback('{table}', 'drill at stage {steps}')")).await;
        }
        for table in TABLES {
            climb(&ground.owner, table, 4).await;
        }
        for table in TABLES {
            persist(&ground.owner, table, &format!("SELECT cutover.complete_cutover('{table}', true)")).await;
        }
        let reads = shadow_reads.load(Ordering::Relaxed);
        cutover_testkit::eventually(Duration::from_secs(60), || async { shadow_reads.load(Ordering::Relaxed) > reads + 50 }).await.unwrap();
        for table in TABLES {
            run(&ground.owner, &format!("SELECT cutover.validate_foreign_keys('{table}')")).await;
            persist(&ground.owner, table, &format!("SELECT cutover.emergency_rollback('{table}', 'drill after completion')")).await;
        }
        for table in TABLES {
            climb(&ground.owner, table, 4).await;
            persist(&ground.owner, table, &format!("SELECT cutover.complete_cutover('{table}', true)")).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut expected: BTreeMap<(usize, i64), String> = BTreeMap::new();
        while let Some(rows) = apps.join_next().await {
            expected.extend(rows.unwrap());
        }
        assert!(statements.load(Ordering::Relaxed) > 500, "there was load");

        // By our own account: what applications know, in both tables of each pair.
        for (place, table) in TABLES.iter().enumerate() {
            run(&ground.owner, &format!("SELECT cutover.drain('{table}', 100000), cutover.validate_foreign_keys('{table}')")).await;
            for (from, value) in
                [((*table).to_owned(), if *table == "contexts" { "body ->> 'v'" } else { "v" }), (format!("{table}_old"), "v")]
            {
                let told = text(&ground.admin, &format!("SELECT id, {value} FROM {from} WHERE id > 50 ORDER BY id")).await;
                let known: Vec<String> =
                    expected.iter().filter(|row| row.0.0 == place).map(|((_, id), value)| format!("{id}|{value}")).collect();
                assert_eq!(told, known.join("\n"), "{major} {from}");
            }
            assert_eq!(number(&ground.admin, &format!("SELECT count(*) FROM cutover.dirty_key WHERE table_name = '{table}'")).await, 0);
        }
        let invalid = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated";
        assert_eq!(number(&ground.admin, invalid).await, 0, "{major}: every key has looked at the rows");
        assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.verify_audit()").await, 0);
    }
}
