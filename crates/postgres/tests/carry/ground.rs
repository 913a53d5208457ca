//! Servers for all tests of this binary, and for each test a database on two of them with a cutover between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cutover_core::{Side, Snapshot, Stream, plan::DatabaseUrl};
use cutover_postgres::{
    PgResult,
    connect::{Purpose, connect},
    copy, gate, index,
    index::Definitions,
    limit::{Limiter, Limits},
    names::Names,
    schema::{self, Dump},
    stream,
};
use cutover_testkit::{Auth, Cluster, ClusterOptions, compare, eventually, install, newest_tools};
use tokio::{sync::OnceCell, time::Instant};
use tokio_postgres::Client;

/// How long anything here may take before it counts as failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(45);

/// The password of the superusers of the servers that ask for one.
const PASSWORD: &str = "it's a \\secret";

/// The epoch that every cutover here begins with.
pub(crate) const EPOCH: u64 = 1;

/// The one server of this major that all tests share. 16 and 18 ask for passwords.
pub(crate) async fn server(major: u32) -> &'static Cluster {
    static SERVERS: [OnceCell<Cluster>; 6] = [const { OnceCell::const_new() }; 6];
    let start = || async {
        let options = ClusterOptions::named(format!("pg{major}")).not_durable();
        let options = options.set("max_wal_senders", 60).set("max_replication_slots", 60).set("max_logical_replication_workers", 60);
        let options = options.set("max_worker_processes", 80).set("autovacuum", "off").set("wal_retrieve_retry_interval", "200ms");
        let auth = if major.is_multiple_of(2) { Auth::Scram { password: PASSWORD.to_owned() } } else { Auth::Trust };
        Cluster::start(&install(major).unwrap(), ClusterOptions { auth, ..options }).await.unwrap()
    };
    SERVERS[(major - 13) as usize].get_or_init(start).await
}

/// A database on two servers, under one name, and a cutover between them.
pub(crate) struct Pair {
    pub(crate) source_server: &'static Cluster,
    pub(crate) target_server: &'static Cluster,
    pub(crate) source_url: DatabaseUrl,
    pub(crate) target_url: DatabaseUrl,
    /// What a subscription at the other side connects with.
    pub(crate) peers: [DatabaseUrl; 2],
    pub(crate) names: Names,
    pub(crate) database: String,
    /// None, unless a test says otherwise.
    pub(crate) limiter: Arc<Limiter>,
    /// Nothing, so that a copy copies only.
    pub(crate) definitions: Definitions,
}

impl Pair {
    /// 15 to 18, as a superuser.
    pub(crate) async fn new(database: &str) -> Self {
        Self::between(15, 18, database).await
    }

    pub(crate) async fn between(source: u32, target: u32, database: &str) -> Self {
        let (source, target) = tokio::join!(server(source), server(target));
        for cluster in [source, target] {
            let quoted = database.replace('"', "\"\"");
            cluster.execute("postgres", &format!("CREATE DATABASE \"{quoted}\" TEMPLATE template0")).await.unwrap();
        }
        let url = |cluster: &Cluster| DatabaseUrl::parse(&cluster.url("postgres", database)).unwrap();
        Self {
            source_server: source,
            target_server: target,
            source_url: url(source),
            target_url: url(target),
            peers: [url(source), url(target)],
            names: Names::new(database),
            database: database.to_owned(),
            limiter: Arc::new(Limiter::new(Limits::default())),
            definitions: Definitions::default(),
        }
    }

    pub(crate) fn server(&self, side: Side) -> &'static Cluster {
        match side {
            Side::Source => self.source_server,
            Side::Target => self.target_server,
        }
    }

    pub(crate) fn url(&self, side: Side) -> &DatabaseUrl {
        match side {
            Side::Source => &self.source_url,
            Side::Target => &self.target_url,
        }
    }

    /// Executes statements as the superuser.
    pub(crate) async fn sql(&self, side: Side, sql: &str) {
        let client = self.session(side).await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("at the {side}: {error:?} in {sql:.300}"));
    }

    /// A session of the superuser's, who may pass the gate.
    pub(crate) async fn session(&self, side: Side) -> Client {
        let client = self.server(side).client(&self.database).await.unwrap();
        client
            .batch_execute(
                "DO $$ BEGIN IF to_regproc('cutover.let_pass') IS NOT NULL THEN PERFORM cutover.let_pass('test'); END IF; END $$",
            )
            .await
            .unwrap();
        client
    }

    /// A driver's session.
    pub(crate) async fn driver(&self, side: Side) -> Client {
        let client = connect(self.url(side), &Purpose::new(&self.names.application("driver"))).await.unwrap();
        if gate::owner(&client).await.unwrap().is_some() {
            gate::let_pass(&client, "driver").await.unwrap();
        }
        client
    }

    pub(crate) async fn drivers(&self, stream: Stream) -> (Client, Client) {
        (self.driver(stream.origin()).await, self.driver(stream.destination()).await)
    }

    /// The gates, the target's closed.
    pub(crate) async fn install(&self) {
        for side in Side::BOTH {
            let mut driver = self.driver(side).await;
            gate::install(&mut driver, self.names.plan(), side, EPOCH).await.unwrap();
            if side == Side::Target {
                gate::close(&mut driver, EPOCH, soon()).await.unwrap();
            }
        }
    }

    pub(crate) async fn try_schema(&self, epoch: u64) -> PgResult<()> {
        let mut target = self.driver(Side::Target).await;
        schema::copy(&self.dump().await?, &mut target, epoch).await
    }

    pub(crate) async fn dump(&self) -> PgResult<Dump> {
        let writes = schema::major(&self.session(Side::Target).await).await?;
        Dump::read(&self.source_url, &self.names, writes, &tools()).await
    }

    /// The gates, the definitions, and each table behind a closed gate.
    pub(crate) async fn schema(&self) {
        self.install().await;
        self.try_schema(EPOCH).await.unwrap();
        gate::arm(&mut self.driver(Side::Target).await, EPOCH, soon()).await.unwrap();
    }

    pub(crate) async fn publish(&self, stream: Stream) -> Vec<String> {
        self.try_publish(stream, EPOCH).await.unwrap()
    }

    pub(crate) async fn try_publish(&self, stream: Stream, epoch: u64) -> PgResult<Vec<String>> {
        let (mut origin, destination) = self.drivers(stream).await;
        stream::publish(&mut origin, &destination, &self.names, stream, epoch).await
    }

    pub(crate) fn job(&self) -> copy::Job<'_> {
        copy::Job {
            source: &self.source_url,
            target: &self.target_url,
            names: &self.names,
            epoch: EPOCH,
            jobs: 3,
            part_bytes: 64 << 20,
            resume_within: LIMIT,
            limiter: &self.limiter,
            definitions: &self.definitions,
        }
    }

    pub(crate) async fn copy_rows(&self) -> PgResult<copy::Copied> {
        copy::copy_rows(self.job(), Arc::new(copy::Progress::default()), async |_: Snapshot| {}).await
    }

    pub(crate) async fn indexes(&self) -> PgResult<index::Built> {
        self.try_indexes(EPOCH).await
    }

    pub(crate) async fn try_indexes(&self, epoch: u64) -> PgResult<index::Built> {
        let tools = tools();
        let job = index::Job {
            source: &self.source_url,
            target: &self.target_url,
            names: &self.names,
            epoch,
            jobs: 3,
            tools: &tools,
            known: &self.definitions,
        };
        index::build(job, Arc::default()).await
    }

    /// Everything up to the built indexes.
    pub(crate) async fn carry(&self) {
        self.schema().await;
        self.publish(Stream::Forward).await;
        self.copy_rows().await.unwrap();
        self.indexes().await.unwrap();
    }

    pub(crate) async fn try_subscribe(&self, stream: Stream, epoch: u64) -> PgResult<()> {
        let (origin, mut destination) = self.drivers(stream).await;
        let conninfo = match stream {
            Stream::Forward => self.peers[0].conninfo(),
            Stream::Reverse => self.peers[1].conninfo(),
        };
        stream::subscribe(&origin, &mut destination, &self.names, stream, &conninfo, epoch).await
    }

    pub(crate) async fn try_enable(&self, stream: Stream, epoch: u64) -> PgResult<()> {
        let (origin, mut destination) = self.drivers(stream).await;
        stream::enable(&origin, &mut destination, &self.names, stream, epoch, soon()).await
    }

    pub(crate) async fn disable(&self, stream: Stream) {
        let mut destination = self.driver(stream.destination()).await;
        stream::disable(&mut destination, &self.names, stream, EPOCH, soon()).await.unwrap();
    }

    pub(crate) async fn follow(&self, stream: Stream) {
        self.try_subscribe(stream, EPOCH).await.unwrap();
        self.try_enable(stream, EPOCH).await.unwrap();
    }

    /// Waits until the destination has applied everything that the origin has committed so far.
    pub(crate) async fn caught_up(&self, stream: Stream) {
        let (mut origin, destination) = self.drivers(stream).await;
        let id = format!("caught up {:?}", std::time::Instant::now());
        gate::write_marker(&mut origin, EPOCH, &id).await.unwrap();
        gate::await_marker(&destination, &id, soon()).await.unwrap_or_else(|error| {
            panic!("{error}; {}", self.server(stream.destination()).log_tail());
        });
    }

    pub(crate) async fn check(&self, stream: Stream) -> Vec<String> {
        let (origin, destination) = self.drivers(stream).await;
        stream::check(&origin, &destination, &self.names, stream).await.unwrap()
    }

    pub(crate) async fn drop_streams(&self) {
        for stream in [Stream::Forward, Stream::Reverse] {
            let (mut origin, mut destination) = self.drivers(stream).await;
            stream::drop_stream(&mut origin, &mut destination, &self.names, stream, EPOCH, soon()).await.unwrap();
        }
    }

    /// Asserts that both sides hold the same rows in the same tables, and says how many rows each table holds.
    pub(crate) async fn assert_equal(&self) -> BTreeMap<String, i64> {
        let contents = |side| compare::contents(self.server(side), &self.database);
        let (source, target) = tokio::try_join!(contents(Side::Source), contents(Side::Target)).unwrap();
        assert_eq!(source, target);
        source.into_iter().map(|(table, contents)| (table, i64::try_from(contents.rows).unwrap())).collect()
    }

    pub(crate) async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, side: Side, sql: &str) -> T {
        self.session(side).await.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// Waits until a query says true.
    pub(crate) async fn wait_for(&self, side: Side, sql: &str) {
        let client = self.session(side).await;
        eventually(LIMIT, || async { client.query_one(sql, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true) })
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Waits until none of our sessions of this purpose is left at either side.
    pub(crate) async fn wait_for_none(&self, purpose: &str) {
        let sql = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '{}'", self.names.application(purpose));
        for side in Side::BOTH {
            self.wait_for(side, &sql).await;
        }
    }
}

/// Folders with client programs beside the usual ones.
pub(crate) fn tools() -> Vec<std::path::PathBuf> {
    newest_tools().into_iter().collect()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// Of what is expected, the words that a text lacks.
#[track_caller]
pub(crate) fn assert_says(text: &str, words: &[&str]) {
    let lacking: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    assert!(lacking.is_empty(), "{lacking:?} not in: {text}");
}
