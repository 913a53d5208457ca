//! A server for each major, and for each test a database with the functions installed and two people in it: the owner of the
//! tables, who may drive, and an application that may do nothing but write.

use cutover_postgres::shadow;
use cutover_testkit::{Cluster, ClusterOptions, compare, install};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

/// The oldest and the newest, and the one of the documents.
pub(crate) const MAJORS: [u32; 3] = [13, 15, 18];

/// A table with a shadow of another shape: a name in two parts becomes one, and an amount becomes whole cents.
pub(crate) const PROJECTS: &str = "CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, first text NOT NULL, last text NOT NULL,
        price numeric(12,2), changed_at timestamptz NOT NULL DEFAULT now());
    GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON projects TO shop;
    SELECT cutover.create_shadow_table('projects', '(id bigint PRIMARY KEY, full_name text NOT NULL, cents bigint, changed_at timestamptz NOT NULL)',
        '{\"up\": {\"full_name\": \"first || '' '' || last\", \"cents\": \"price * 100\"},
          \"down\": {\"first\": \"split_part(full_name, '' '', 1)\", \"last\": \"split_part(full_name, '' '', 2)\", \"price\": \"cents / 100.0\"}}')";

/// Rows that are not the same in both, by our own account rather than by the functions'.
pub(crate) const DIFFERENT: &str = "SELECT count(*) FROM (SELECT id, first || ' ' || last, (price * 100)::bigint, changed_at FROM projects) p (id, a, b, c)
    FULL JOIN projects_shadow s ON s.id = p.id WHERE p.id IS NULL OR s.id IS NULL OR (p.a, p.b, p.c) IS DISTINCT FROM (s.full_name, s.cents, s.changed_at)";

/// A database of its own.
pub(crate) struct Ground {
    server: &'static Cluster,
    database: String,
    pub(crate) admin: Client,
    /// Owns the tables, and may drive.
    pub(crate) owner: Client,
    /// Writes, and knows nothing of shadows.
    pub(crate) shop: Client,
}

pub(crate) async fn server(major: u32) -> &'static Cluster {
    static SERVERS: [OnceCell<Cluster>; 6] = [const { OnceCell::const_new() }; 6];
    let start = || async {
        let options = ClusterOptions::named(format!("shadow{major}")).not_durable().set("autovacuum", "off");
        let server = Cluster::start(&install(major).unwrap(), options).await.unwrap();
        server
            .execute("postgres", "CREATE ROLE owner LOGIN; CREATE ROLE shop LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE app LOGIN")
            .await
            .unwrap();
        server
    };
    SERVERS[(major - 13) as usize].get_or_init(start).await
}

impl Ground {
    /// With the functions in the schema `cutover`.
    pub(crate) async fn new(major: u32, database: &str) -> Self {
        let mut ground = Self::empty(major, database).await;
        shadow::install(&mut ground.admin, "cutover", false).await.unwrap();
        run(&ground.admin, "GRANT cutover_operator TO owner").await;
        ground
    }

    /// With nothing.
    pub(crate) async fn empty(major: u32, database: &str) -> Self {
        let server = server(major).await;
        server.create_database(database).await.unwrap();
        let admin = server.client(database).await.unwrap();
        run(&admin, "GRANT CREATE, USAGE ON SCHEMA public TO owner; GRANT USAGE ON SCHEMA public TO shop").await;
        let (owner, shop) = (connect(server, "owner", database).await, connect(server, "shop", database).await);
        Self { server, database: database.to_owned(), admin, owner, shop }
    }

    /// With [`PROJECTS`], some rows, and dual writes.
    pub(crate) async fn moving(major: u32, database: &str, rows: u32, mode: &str) -> Self {
        let ground = Self::new(major, database).await;
        run(&ground.owner, PROJECTS).await;
        run(
            &ground.owner,
            &format!("INSERT INTO projects (first, last, price) SELECT 'a' || i, 'b', i / 3.0 FROM generate_series(1, {rows}) i"),
        )
        .await;
        run(&ground.owner, &format!("SELECT cutover.enable_dual_write('projects', '{mode}')")).await;
        ground
    }

    /// With [`PROJECTS`], the same in both, at the last stage before completion.
    pub(crate) async fn last_stage(major: u32, database: &str, rows: u32, mode: &str) -> Self {
        let ground = Self::moving(major, database, rows, mode).await;
        ground.to_last_stage().await;
        ground
    }

    /// Takes `projects` from where nothing was begun to the last stage before completion.
    pub(crate) async fn to_last_stage(&self) {
        self.start(0).await;
        self.climb(4).await;
        self.feed().await;
    }

    /// Every definition as `pg_dump` writes it, without the schema `cutover`.
    pub(crate) async fn definitions(&self) -> Vec<String> {
        compare::definitions(self.server, &self.database, false).await.unwrap()
    }

    pub(crate) async fn another(&self, role: &str) -> Client {
        connect(self.server, role, &self.database).await
    }

    /// Somebody of this test's own, who is a member of these roles.
    pub(crate) async fn member(&self, of: &str) -> Client {
        let name = format!("member_{}_{}", self.database, of.replace(", ", "_"));
        run(
            &self.admin,
            &format!("DO $$ BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name} LOGIN IN ROLE {of}; END IF; END $$"),
        )
        .await;
        self.another(&name).await
    }

    /// Rows that differ, by our own account.
    pub(crate) async fn different(&self) -> i64 {
        number(&self.admin, DIFFERENT).await
    }

    /// Brings everything that is missing or queued.
    pub(crate) async fn settle(&self) {
        while !shadow::backfill_step(&self.owner, "cutover", "projects", 500).await.unwrap().done {}
        while shadow::drain(&self.owner, "cutover", "projects", 500).await.unwrap().0 > 0 {}
    }

    /// On its way, with stages that last as many minutes; everything is the same, and a single operation is enough to judge by.
    pub(crate) async fn start(&self, minutes: u32) {
        self.settle().await;
        run(&self.owner, "SELECT cutover.configure_cutover('projects', '{\"min_samples\": 1}')").await;
        run(&self.owner, &format!("SELECT cutover.start_gradual_cutover('projects', {minutes})")).await;
    }

    /// What an application does in a stage, so that it can be judged: writes, and reads at both.
    pub(crate) async fn feed(&self) {
        // A statement without a row is one.
        run(&self.owner, "DELETE FROM projects WHERE false").await;
        run(&self.owner, "SELECT cutover.record_cutover_operation('projects', 'read', 10), cutover.record_cutover_operation('projects', 'read', 10, true, true)").await;
    }

    /// Takes so many steps.
    pub(crate) async fn climb(&self, steps: u32) {
        for _ in 0..steps {
            self.feed().await;
            run(&self.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
        }
    }

    /// Verdict, score and what was counted, as the functions tell it.
    pub(crate) async fn validate(&self) -> (String, Option<String>, [i64; 6]) {
        let sql = "SELECT verdict, validation_score::text, ARRAY[primary_count, shadow_count, consistent_records, inconsistent_records, missing_in_shadow, extra_in_shadow] \
                   FROM cutover.validate_table_consistency('projects')";
        let row = self.owner.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1), row.get::<_, Vec<i64>>(2).try_into().unwrap())
    }
}

async fn connect(server: &Cluster, role: &str, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(role, database), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Nothing here may wait for somebody who does not come.
    run(&client, "SET statement_timeout = '30s'").await;
    client
}

pub(crate) async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
}

/// The state that a statement is refused with, and the server's words.
pub(crate) async fn refused(client: &Client, sql: &str) -> (SqlState, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let told = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
    (told.code().clone(), format!("{} {}", told.message(), told.hint().unwrap_or_default()))
}

pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error())).get(0)
}

/// Everything that a query answers, as text.
pub(crate) async fn text(client: &Client, sql: &str) -> String {
    let answers = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    let rows = answers.iter().filter_map(|answer| if let SimpleQueryMessage::Row(row) = answer { Some(row) } else { None });
    let line = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|at| row.get(at).unwrap_or("null").to_owned()).collect::<Vec<_>>().join("|")
    };
    rows.map(line).collect::<Vec<_>>().join("\n")
}
