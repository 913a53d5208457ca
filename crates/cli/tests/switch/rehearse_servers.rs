//! `cutover rehearse` on servers that are named, as a pipeline's are: what it makes there, and that it all goes.

use std::{path::Path, process::Stdio, time::Duration};

use cutover_testkit::{Cluster, ClusterOptions, eventually, install, newest_tools};
use tokio::process::{Child, Command};

use crate::world::{Said, World};

const LIMIT: Duration = Duration::from_secs(120);

/// A plan whose databases nobody can reach, in a folder with a schema for them; and two servers for the clones.
struct Pipeline {
    servers: [Cluster; 2],
    folder: tempfile::TempDir,
}

const SCHEMA: &str = "CREATE TABLE public.items (id bigserial PRIMARY KEY, name text NOT NULL);\n\
     ALTER TABLE public.items OWNER TO shop_owner;\nGRANT SELECT, INSERT ON public.items TO shop_app;\n";

impl Pipeline {
    async fn new(more: &str) -> Self {
        let start =
            |major: u32, name: &'static str| async move { Cluster::start(&install(major).unwrap(), ClusterOptions::named(name)).await };
        let (source, target) = tokio::try_join!(start(15, "one"), start(17, "other")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("schema.sql"), SCHEMA).unwrap();
        std::fs::write(folder.path().join("small.sql"), "INSERT INTO items (name) SELECT 'x' FROM generate_series(1, 100);\n").unwrap();
        let pipeline = Self { servers: [source, target], folder };
        pipeline.write_plan(more);
        pipeline
    }

    fn write_plan(&self, more: &str) {
        // Port 9 answers nobody: a rehearsal from a file must not need either.
        let plan = "name = \"shop\"\nkind = \"switch\"\n[source]\nurl = \"postgres://u@127.0.0.1:9/shop\"\n[target]\nurl = \"postgres://u@127.0.0.2:9/shop\"\n";
        let rehearse = "[rehearse]\nschema = \"schema.sql\"\nseed = { small = \"small.sql\" }\n";
        std::fs::write(self.folder.path().join("cutover.toml"), format!("{plan}{rehearse}{more}")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.args(["rehearse", "--output", "json"]).args(arguments).current_dir(self.folder.path());
        for server in &self.servers {
            command.args(["--server", &server.url("postgres", "postgres")]);
        }
        command.env("CUTOVER_PG_BIN", newest_tools().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        Said::of(tokio::time::timeout(LIMIT, self.command(arguments).output()).await.expect("it did not end").unwrap())
    }

    /// A rehearsal that stands in its migration.
    async fn standing(&self) -> Child {
        self.write_plan("migrate = \"touch migrating; sleep 300\"\n");
        let child = self.command(&[]).spawn().unwrap();
        let reached = self.folder.path().join("migrating");
        eventually(LIMIT, || async { reached.exists() }).await.unwrap();
        std::fs::remove_file(reached).unwrap();
        child
    }

    /// Databases, slots and roles at both servers beyond those of a new one.
    async fn leftovers(&self) -> Vec<String> {
        let sql = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') \
             UNION ALL SELECT rolname FROM pg_roles WHERE rolname <> 'postgres' AND rolname !~ '^pg_' \
             UNION ALL SELECT slot_name FROM pg_replication_slots UNION ALL SELECT subname FROM pg_subscription ORDER BY 1";
        let mut found = Vec::new();
        for server in &self.servers {
            let rows = server.client("postgres").await.unwrap().query(sql, &[]).await.unwrap();
            found.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        found
    }
}

async fn signal(child: &Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
}

#[tokio::test]
async fn b20_a_pipeline_without_the_source_rehearses_from_a_file_on_its_own_servers() {
    let pipeline = Pipeline::new("").await;
    let said = pipeline.run(&[]).await.code(0);
    assert_eq!(said.json()["green"], true, "{said:?}");
    let unwritable = pipeline.run(&["--junit", "no/such/folder.xml"]).await.code(2);
    assert!(unwritable.err.contains("can't write no/such/folder.xml"), "{unwritable:?}");
    assert!(said.json()["profiles"][0]["cases"][1]["message"].as_str().unwrap().contains("2 roles"), "{said:?}");
    assert_eq!(pipeline.leftovers().await, [""; 0], "the clones are gone, and so are the roles that the schema wanted");

    // What is kept can be looked at, and is cleaned away later.
    let kept = pipeline.run(&["--keep"]).await.code(0);
    assert!(kept.err.contains("psql 'postgres://postgres@127.0.0.1"), "{kept:?}");
    assert_eq!(pipeline.leftovers().await.len(), 2 * 3, "a clone and two roles at each");
    let cleaned = pipeline.run(&["--clean"]).await.code(0);
    assert_eq!(cleaned.json()["removed"].as_array().unwrap().len(), 2, "{cleaned:?}");
    assert_eq!(pipeline.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn ctrl_c_leaves_nothing_at_the_servers() {
    let pipeline = Pipeline::new("").await;
    let child = pipeline.standing().await;
    signal(&child, "-INT").await;
    let said = Said::of(tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it did not end").unwrap()).code(1);
    assert!(said.says("interrupted").json()["profiles"][0]["interrupted"].as_bool().unwrap());
    assert_eq!(pipeline.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn one_that_takes_too_long_is_red_and_leaves_nothing() {
    let pipeline = Pipeline::new("timeout = \"15s\"\nmigrate = \"sleep 300\"\n").await;
    let said = pipeline.run(&[]).await.code(3);
    let answer = said.json();
    let failed: Vec<_> = answer["profiles"][0]["cases"].as_array().unwrap().iter().filter(|case| case["outcome"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{answer:#}");
    assert!(failed[0]["message"].as_str().unwrap().contains("rehearse.timeout"), "{answer:#}");
    assert_eq!(pipeline.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn a_clone_that_somebody_made_theirs_is_neither_written_to_nor_dropped() {
    let pipeline = Pipeline::new("").await;
    let child = pipeline.standing().await;
    let clone = pipeline.leftovers().await.into_iter().find(|name| name.starts_with("cutover_rehearsal_shop_")).unwrap();
    let [source, target] = &pipeline.servers;
    source.execute("postgres", &format!("COMMENT ON DATABASE {clone} IS 'ours, please ask before you drop it'")).await.unwrap();
    signal(&child, "-INT").await;
    let said = Said::of(tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it did not end").unwrap()).code(1);
    let answer = said.json();
    let last = answer["profiles"][0]["cases"].as_array().unwrap().last().unwrap();
    assert!(last["outcome"] == "failed" && last["message"].as_str().unwrap().contains("does not carry the marker"), "{answer:#}");
    let is_there = format!("SELECT count(*) FROM pg_database WHERE datname = '{clone}'");
    let mut there = Vec::new();
    for server in [source, target] {
        there.push(server.client("postgres").await.unwrap().query_one(&is_there, &[]).await.unwrap().get::<_, i64>(0));
    }
    assert_eq!(there, [1, 0], "theirs stays, the other one goes");
}

#[tokio::test]
async fn what_a_killed_rehearsal_left_is_found_by_its_marker_and_nothing_else_is_removed() {
    let pipeline = Pipeline::new("").await;
    let mut child = pipeline.standing().await;

    // Meanwhile nobody takes it away.
    let busy = pipeline.run(&["--clean"]).await.code(0).json();
    assert_eq!((busy["removed"].as_array().unwrap().len(), busy["left"].as_array().unwrap().len()), (0, 2), "{busy:#}");
    child.kill().await.unwrap();
    let [source, target] = &pipeline.servers;
    let clone = pipeline.leftovers().await.into_iter().find(|name| name.starts_with("cutover_rehearsal_shop_")).unwrap();

    // Somebody's own databases: one has only the name, one a marker that was made for another, one was renamed.
    let marker = "COMMENT ON DATABASE \"mine\" IS 'cutover rehearsal {\"id\":\"00000000\",\"plan\":\"shop\",\"created\":1,\"expires\":2}'";
    for sql in ["CREATE DATABASE cutover_rehearsal_by_hand", "CREATE DATABASE mine", marker] {
        source.execute("postgres", sql).await.unwrap();
    }
    let gone = || async {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{clone}' AND backend_type = 'client backend'");
        let counts = [source, target]
            .map(|server| async { server.client("postgres").await.unwrap().query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) });
        let [one, other] = counts;
        one.await + other.await == 0
    };
    eventually(LIMIT, gone).await.unwrap();
    let cleaned = pipeline.run(&["--clean"]).await.code(0).json();
    assert_eq!(cleaned["removed"].as_array().unwrap().len(), 2, "{cleaned:#}");
    assert_eq!(pipeline.leftovers().await, ["cutover_rehearsal_by_hand", "mine"]);
}

#[tokio::test]
async fn the_plans_own_servers_are_refused_by_whatever_name() {
    let world = World::of(15, 15, "").await;
    let spare = Cluster::start(&install(15).unwrap(), ClusterOptions::named("spare")).await.unwrap();
    let spare = spare.url("postgres", "postgres");
    let own = world.target.url("postgres", "postgres");
    world.cutover(&["rehearse", "--server", &spare, "--server", &own]).await.code(2).says("is the plan's target");
    // The same server by another way: only its identity tells.
    let road = own.replace(&format!(":{}/", world.target.port()), &format!(":{}/", world.roads[1].port()));
    let said = world.cutover(&["rehearse", "--server", &road, "--server", &spare, "--output", "json"]).await.code(1);
    assert!(said.json()["profiles"][0]["cases"][0]["message"].as_str().unwrap().contains("system identifier"), "{said:?}");
    let databases = world.ask_at(&world.target, "postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'cutover%'").await;
    assert_eq!(databases, "0");
    world.cutover(&["rehearse", "--server", &spare]).await.code(2).says("two servers");
    world.cutover(&["rehearse", "--profile", "smal"]).await.code(2).says("no profile `smal`");
    world.cutover(&["rehearse", "--clean"]).await.code(2);
}

/// The `run:` lines of a workflow, whole blocks included.
fn runs(workflow: &str) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    let mut block: Option<usize> = None;
    for line in workflow.lines() {
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|outer| indent > outer || line.trim().is_empty()) {
            let run = runs.last_mut().unwrap();
            *run = format!("{run}{}\n", line.trim());
            continue;
        }
        block = None;
        if let Some(run) = line.trim_start().trim_start_matches("- ").strip_prefix("run: ") {
            block = (run == "|").then_some(indent);
            runs.push(if run == "|" { String::new() } else { run.to_owned() });
        }
    }
    runs
}

#[tokio::test]
async fn b9_the_workflow_that_we_give_away_calls_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workflow = std::fs::read_to_string(root.join("deploy/github/.github/workflows/migration-smoke.yml")).unwrap();
    assert!(!workflow.contains('\t'), "YAML takes no tabs");
    let calls: Vec<String> = runs(&workflow).into_iter().filter(|run| run.starts_with("cutover ")).collect();
    assert_eq!(calls.len(), 2, "small on pull requests, all of it at night: {calls:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file("schema.sql", SCHEMA);
    file("small.sql", "INSERT INTO items (name) SELECT 'x' FROM generate_series(1, 10);\n");
    file("spike.sql", "INSERT INTO items (name) SELECT 'x' FROM generate_series(1, 1000);\n");
    let urls = "[source]\nurl = \"postgres://u:${SOURCE_PASSWORD}@127.0.0.1:9/shop\"\n[target]\nurl = \"postgres://u:${TARGET_PASSWORD}@127.0.0.2:9/shop\"\n";
    let rehearse = "[rehearse]\nschema = \"schema.sql\"\nseed = { small = \"small.sql\", spike = \"spike.sql\" }\n";
    file("cutover.toml", &format!("name = \"shop\"\nkind = \"switch\"\n{urls}{rehearse}"));
    let programs = Path::new(env!("CARGO_BIN_EXE_cutover")).parent().unwrap();
    // What the workflow sets for its steps.
    let set = |line: &str| {
        line.trim()
            .split_once(": ")
            .filter(|(name, _)| name.ends_with("_PASSWORD"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    for call in calls {
        let mut command = Command::new("sh");
        let call = format!("PATH={}:$PATH; {call}", programs.display());
        command.args(["-ec", &call]).current_dir(folder.path()).env("CUTOVER_PG_BIN", newest_tools().unwrap());
        command.envs(workflow.lines().filter_map(set)).kill_on_drop(true);
        let said = Said::of(tokio::time::timeout(LIMIT, command.output()).await.expect("it did not end").unwrap()).code(0);
        assert!(said.out.contains("green: "), "{said:?}");
        let xml = std::fs::read_to_string(folder.path().join("rehearsal.xml")).unwrap();
        assert_eq!(crate::xml::parse(&xml).number("failures") as u32, 0);
        assert!(workflow.contains("path: |") && workflow.contains("rehearsal.xml"), "what is written is uploaded");
    }
}
