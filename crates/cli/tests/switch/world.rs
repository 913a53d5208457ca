//! Two clusters, a `PgBouncer`, a bank under load, and the command that moves it.

use std::{path::PathBuf, process::Stdio, time::Duration};

use cutover_testkit::{
    Auth, Cluster, ClusterOptions, Db, PgBouncer, PgBouncerInstall, PgBouncerOptions, PoolMode, Proxy, Seed,
    bank::{self, BankOptions, History, Load, LoadOptions, Verdict, check_history},
    compare, eventually, install, pgbouncer,
};
use tokio::process::{Child, Command};

pub(crate) const DATABASE: &str = "bank";

/// Of every role that has one.
pub(crate) const PASSWORD: &str = "hunter2";

/// How long one call of the command may take.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct World {
    /// In front of both servers, for tests that break the network. The plan goes through them if it was made so.
    pub(crate) roads: [Proxy; 2],
    by_road: bool,
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
    pub(crate) bouncer: PgBouncer,
    /// More of them, if it was made so.
    pub(crate) others: Vec<PgBouncer>,
    user: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) seed: Seed,
}

/// How a world is made.
pub(crate) struct Making<'a> {
    /// Major versions.
    pub(crate) source: u32,
    pub(crate) target: u32,
    /// More text at the end of the plan.
    pub(crate) more: &'a str,
    /// Everything goes through a proxy.
    pub(crate) by_road: bool,
    /// The servers ask for passwords.
    pub(crate) passwords: bool,
    /// Whom the plan connects as.
    pub(crate) user: &'a str,
    /// One or several, of any version.
    pub(crate) bouncers: Vec<PgBouncerInstall>,
    pub(crate) pooling: PoolMode,
    /// More settings of both servers.
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

impl Default for Making<'_> {
    fn default() -> Self {
        let bouncers = vec![pgbouncer().unwrap()];
        let (by_road, passwords) = (false, false);
        Self {
            source: 15,
            target: 15,
            more: "",
            by_road,
            passwords,
            user: "postgres",
            bouncers,
            pooling: PoolMode::Transaction,
            settings: &[],
        }
    }
}

/// The URL of the superuser.
pub(crate) fn admin_url(cluster: &Cluster) -> String {
    cluster.url_with_password("postgres", PASSWORD, DATABASE)
}

/// A driver that stands still.
pub(crate) struct Stopped {
    child: Child,
}

impl Stopped {
    /// Lets it go on, to its end.
    pub(crate) async fn resume(self) -> Said {
        self.signal("-CONT").await;
        let output = tokio::time::timeout(LIMIT, self.child.wait_with_output()).await.expect("it did not end").unwrap();
        Said::of(output)
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }
}

/// What a call of the command came to.
#[derive(Debug)]
pub(crate) struct Said {
    /// Exit code; none if it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn killed(self) -> Self {
        assert_eq!(self.code, None, "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.err.contains(part) || self.out.contains(part), "does not say `{part}`\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.out.lines().last().unwrap()).unwrap()
    }
}

impl World {
    /// PostgreSQL 15 to 15, with the plan of the documentation.
    pub(crate) async fn new() -> Self {
        Self::of(15, 15, "").await
    }

    /// Two majors, and more text at the end of the plan.
    pub(crate) async fn of(source: u32, target: u32, more: &str) -> Self {
        Self::made(Making { source, target, more, ..Making::default() }).await
    }

    /// 15 to 15, with everything between the clients, the driver and the two servers going through a proxy.
    pub(crate) async fn by_road(more: &str) -> Self {
        Self::made(Making { more, by_road: true, ..Making::default() }).await
    }

    pub(crate) async fn made(making: Making<'_>) -> Self {
        let seed = Seed::from_env_or_random();
        let auth = if making.passwords { Auth::Scram { password: PASSWORD.to_owned() } } else { Auth::Trust };
        let options = |name: &str| {
            let options = ClusterOptions { auth: auth.clone(), ..ClusterOptions::named(name) };
            let options = options.set("max_prepared_transactions", 5).set("wal_retrieve_retry_interval", "100ms");
            making.settings.iter().fold(options, |options, (name, value)| options.set(*name, value))
        };
        let (source, target) = (install(making.source).unwrap(), install(making.target).unwrap());
        let (source, target) =
            tokio::try_join!(Cluster::start(&source, options("source")), Cluster::start(&target, options("target"))).unwrap();
        let bank = BankOptions { scale: 0.05, seed, ..BankOptions::default() };
        for cluster in [&source, &target] {
            cluster.create_database(DATABASE).await.unwrap();
            bank::create_roles(&admin_url(cluster), &bank).await.unwrap();
            cluster.execute("postgres", &format!("ALTER ROLE app PASSWORD '{PASSWORD}'")).await.unwrap();
        }
        bank::install(&admin_url(&source), &bank).await.unwrap();
        let address = |cluster: &Cluster| format!("127.0.0.1:{}", cluster.port());
        let roads = tokio::try_join!(Proxy::start(address(&source)), Proxy::start(address(&target))).unwrap();
        let mut line = Db::on(&source, DATABASE);
        line.port = if making.by_road { roads.0.port() } else { line.port };
        let mut bouncers = Vec::new();
        for install in making.bouncers {
            let users = ["postgres", "app"].map(|user| (user.to_owned(), PASSWORD.to_owned())).to_vec();
            let options = PgBouncerOptions { pool_mode: making.pooling, users, ..PgBouncerOptions::new(vec![line.clone()]) };
            bouncers.push(PgBouncer::start(&install, options).await.unwrap());
        }
        let bouncer = bouncers.remove(0);
        let user = making.user.to_owned();
        let by_road = making.by_road;
        let world = Self {
            roads: roads.into(),
            by_road,
            source,
            target,
            bouncer,
            others: bouncers,
            user,
            folder: tempfile::tempdir().unwrap(),
            seed,
        };
        world.write_plan(making.more);
        world
    }

    pub(crate) fn write_plan(&self, more: &str) {
        let url = |cluster: &Cluster, road: &Proxy| {
            let url = cluster.url_with_password(&self.user, PASSWORD, DATABASE);
            if self.by_road { url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", road.port())) } else { url }
        };
        let mut plan = format!(
            "name = \"bank\"\nkind = \"switch\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n",
            url(&self.source, &self.roads[0]),
            url(&self.target, &self.roads[1])
        );
        for bouncer in std::iter::once(&self.bouncer).chain(&self.others) {
            plan += &format!(
                "[[traffic]]\nkind = \"pgbouncer\"\nadmin_url = \"{}\"\ndatabase = \"{DATABASE}\"\nconfig_file = \"{}\"\n",
                bouncer.admin_url(),
                bouncer.config_file().display()
            );
        }
        std::fs::write(self.plan(), format!("{plan}{more}\n")).unwrap();
    }

    fn plan(&self) -> PathBuf {
        self.folder.path().join("cutover.toml")
    }

    /// Runs the command to its end.
    pub(crate) async fn cutover(&self, arguments: &[&str]) -> Said {
        self.cutover_killed(arguments, None).await
    }

    /// Runs it, and kills it with SIGKILL at a failpoint.
    pub(crate) async fn cutover_killed(&self, arguments: &[&str], failpoint: Option<&str>) -> Said {
        let mut command = self.command(arguments);
        if let Some(failpoint) = failpoint {
            command.env("CUTOVER_FAILPOINT", failpoint);
        }
        let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap_or_else(|_| panic!("{arguments:?} did not end")).unwrap();
        Said::of(output)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("--plan").arg(self.plan()).args(arguments).env("CUTOVER_PG_BIN", cutover_testkit::newest_tools().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs it until it has stopped itself with SIGSTOP, right after a journal entry of this kind.
    pub(crate) async fn cutover_stopped(&self, arguments: &[&str], entry: &str) -> Stopped {
        let mut child = self.command(arguments).env("CUTOVER_FAILPOINT", format!("stop:{entry}")).spawn().unwrap();
        let pid = child.id().unwrap();
        let state = eventually(LIMIT, || async {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 'Z']))
        });
        state.await.unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{arguments:?} ended with {status} before `{entry}`: {:?}", child.wait_with_output().await);
        }
        Stopped { child }
    }

    /// Does what preflight's errors say with SQL, where they say it.
    pub(crate) async fn mend(&self) {
        let answer = self.cutover(&["check", "--output", "json"]).await.json();
        let blocking = answer["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "error");
        for fix in blocking.filter_map(|finding| finding["fix"]["sql"].as_object()) {
            let cluster = if fix["side"] == "source" { &self.source } else { &self.target };
            compare::script(cluster, DATABASE, fix["text"].as_str().unwrap()).await.unwrap();
        }
    }

    /// Copied, following, verified.
    pub(crate) async fn ready(&self) {
        self.cutover(&["run", "--until", "ready"]).await.code(0);
    }

    /// Clients that write through the `PgBouncer`.
    pub(crate) async fn load(&self, clients: u16) -> Load {
        let options = LoadOptions { clients, seed: self.seed, rate: Some(400), ..LoadOptions::new(self.bouncer.url("app", DATABASE)) };
        let load = Load::start(options).await.unwrap();
        load.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
        load
    }

    /// Ends the load, waits until both sides are equal, and looks every write up.
    pub(crate) async fn judge(&self, load: Load) -> (History, Verdict) {
        let history = load.stop().await;
        self.cutover(&["verify"]).await.code(0);
        let authority = self.authority().await;
        let (here, there) = if authority == "target" { (&self.target, &self.source) } else { (&self.source, &self.target) };
        let verdict = check_history(&admin_url(here), Some(&admin_url(there)), &history).await.unwrap();
        assert!(verdict.is_clean(), "seed {:?}: {verdict:#?}\n{:?}", self.seed, history.errors);
        (history, verdict)
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        self.cutover(&["status", "--output", "json"]).await.code(0).json()
    }

    /// The journal's entries of one kind, newest last.
    pub(crate) async fn entries(&self, kind: &str) -> Vec<serde_json::Value> {
        let audit = self.cutover(&["audit", "--output", "json"]).await.code(0).json();
        audit["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == kind).map(|entry| entry["body"].clone()).collect()
    }

    /// The side in charge, by the journal; and exactly that one takes writes.
    pub(crate) async fn authority(&self) -> String {
        let status = self.status().await;
        let authority = status["state"]["authority"].as_str().unwrap().to_owned();
        for side in status["sides"].as_array().unwrap() {
            let open = side["open"].as_bool().unwrap();
            assert_eq!(open, side["side"] == authority.as_str(), "B1: exactly one writable side: {status:#}");
        }
        authority
    }

    pub(crate) async fn phase(&self) -> String {
        self.status().await["state"]["phase"].as_str().unwrap().to_owned()
    }

    /// Writes at a side as nobody should: a superuser past the gate.
    pub(crate) async fn meddle(&self, cluster: &Cluster, sql: &str) {
        let client = cluster.client(DATABASE).await.unwrap();
        client.batch_execute(&format!("SET session_replication_role = replica; {sql}")).await.unwrap();
    }

    /// One value of a query.
    pub(crate) async fn ask(&self, cluster: &Cluster, sql: &str) -> String {
        self.ask_at(cluster, DATABASE, sql).await
    }

    /// One value of a query in another database.
    pub(crate) async fn ask_at(&self, cluster: &Cluster, database: &str, sql: &str) -> String {
        let client = cluster.client(database).await.unwrap();
        client.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
    }
}
