//! Two servers for all tests of one binary, and a database on both for each.

use std::time::Duration;

use cutover_core::{Side, plan::DatabaseUrl};
use cutover_postgres::{
    PgResult, catalogue, gate,
    names::Names,
    verify::{Difference, DifferenceKind, Following, Options, Progress, Report, Sides, verify},
};
use cutover_testkit::{Cluster, ClusterOptions, eventually, installs};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

/// How long replication may take to catch up.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(60);

/// The oldest major that is installed, and the newest.
pub(crate) struct Ground {
    pub(crate) authority: Cluster,
    pub(crate) follower: Cluster,
}

pub(crate) async fn ground() -> &'static Ground {
    static GROUND: OnceCell<Ground> = OnceCell::const_new();
    GROUND.get_or_init(Ground::start).await
}

impl Ground {
    async fn start() -> Self {
        let (oldest, newest) = (installs().remove(0), installs().pop().unwrap());
        let options = |name| ClusterOptions::named(name).not_durable().set("max_wal_senders", 40).set("max_replication_slots", 40);
        let clusters = tokio::try_join!(Cluster::start(&oldest, options("authority")), Cluster::start(&newest, options("follower")),);
        let (authority, follower) = clusters.unwrap();
        Self { authority, follower }
    }
}

/// A database on both servers, under one name.
pub(crate) struct Databases {
    pub(crate) name: String,
    pub(crate) authority: Client,
    pub(crate) follower: Client,
    pub(crate) authority_url: DatabaseUrl,
    pub(crate) follower_url: DatabaseUrl,
    following: Option<Following>,
    /// Servers of its own, which end with it.
    own: Option<Ground>,
}

impl Databases {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, "", "").await
    }

    /// On servers of its own.
    pub(crate) async fn alone(name: &str) -> Self {
        let own = Ground::start().await;
        let databases = Self::on(&own, name, "", "").await;
        Self { own: Some(own), ..databases }
    }

    /// With options of CREATE DATABASE.
    pub(crate) async fn with(name: &str, at_authority: &str, at_follower: &str) -> Self {
        Self::on(ground().await, name, at_authority, at_follower).await
    }

    async fn on(ground: &Ground, name: &str, at_authority: &str, at_follower: &str) -> Self {
        for (cluster, options) in [(&ground.authority, at_authority), (&ground.follower, at_follower)] {
            cluster.execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {options}")).await.unwrap();
        }
        let url = |cluster: &Cluster| DatabaseUrl::parse(&cluster.url("postgres", name)).unwrap();
        Self {
            name: name.to_owned(),
            authority: ground.authority.client(name).await.unwrap(),
            follower: ground.follower.client(name).await.unwrap(),
            authority_url: url(&ground.authority),
            follower_url: url(&ground.follower),
            following: None,
            own: None,
        }
    }

    /// Another connection to the authority.
    pub(crate) async fn another_at_authority(&self) -> Client {
        let ground = if let Some(own) = &self.own { own } else { ground().await };
        ground.authority.client(&self.name).await.unwrap()
    }

    pub(crate) async fn both(&self, sql: &str) {
        self.at_authority(sql).await;
        self.at_follower(sql).await;
    }

    pub(crate) async fn at_authority(&self, sql: &str) {
        self.authority.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(crate) async fn at_follower(&self, sql: &str) {
        self.follower.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Copies what the authority has and follows it from now on. The stream carries looks too.
    pub(crate) async fn follow(&mut self) {
        for client in [&mut self.authority, &mut self.follower] {
            gate::install(client, "test", Side::Source, 1).await.unwrap();
        }
        let tables = catalogue::tables(&self.authority).await.unwrap();
        let tables: Vec<_> =
            tables.iter().filter(|table| table.holds_rows()).map(|table| format!("ONLY {}", table.name.quoted())).collect();
        self.subscribe(&format!("FOR TABLE {}, cutover.look", tables.join(", "))).await;
    }

    /// Follows by a stream that carries the tables and nothing of ours.
    pub(crate) async fn follow_without_looks(&mut self) {
        self.subscribe("FOR ALL TABLES").await;
    }

    async fn subscribe(&mut self, published: &str) {
        let (name, conninfo) = (&self.name, self.authority_url.conninfo().replace('\'', "''"));
        self.at_authority(&format!("CREATE PUBLICATION everything {published}")).await;
        self.at_follower(&format!("CREATE SUBSCRIPTION {name} CONNECTION '{conninfo}' PUBLICATION everything")).await;
        let ready = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel";
        eventually(CATCH_UP, || async { self.follower.query_one(ready, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true) })
            .await
            .unwrap();
        self.following = Some(Following { slot: name.clone(), subscription: name.clone() });
    }

    /// Waits until the follower has applied everything that the authority has committed so far.
    pub(crate) async fn caught_up(&self) {
        let lsn: String = self.authority.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
        let passed = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2::text";
        self.at_authority("SELECT pg_logical_emit_message(true, 'test', '')").await;
        eventually(CATCH_UP, || async { self.authority.query_one(passed, &[&lsn, &self.name]).await.unwrap().get::<_, bool>(0) })
            .await
            .unwrap();
    }

    pub(crate) async fn verify(&self, options: &Options) -> Report {
        self.try_verify(options).await.unwrap()
    }

    pub(crate) async fn try_verify(&self, options: &Options) -> PgResult<Report> {
        verify(&self.sides(), &Names::new("test"), options, &Progress::default()).await
    }

    pub(crate) async fn verify_between(&self, sides: &Sides<'_>, options: &Options) -> Report {
        verify(sides, &Names::new("test"), options, &Progress::default()).await.unwrap()
    }

    pub(crate) fn sides(&self) -> Sides<'_> {
        Sides {
            authority: &self.authority_url,
            follower: &self.follower_url,
            authority_side: Side::Source,
            following: self.following.clone(),
        }
    }

    /// Ends the replication, so that the slot is free again.
    pub(crate) async fn end(&self) {
        if self.following.is_some() {
            self.at_follower(&format!("DROP SUBSCRIPTION {}", self.name)).await;
        }
    }
}

/// A difference in one line: `table key kind`.
pub(crate) fn line(difference: &Difference) -> String {
    let key: Vec<_> = difference.key.iter().map(|(column, value)| format!("{column}={value}")).collect();
    let key = if key.first().is_some_and(|key| key.starts_with("row hash")) { "*".to_owned() } else { key.join(",") };
    let kind = match &difference.kind {
        DifferenceKind::Missing => "missing".to_owned(),
        DifferenceKind::Extra => "extra".to_owned(),
        DifferenceKind::Differs { columns } => format!("differs in {}", columns.join(",")),
        DifferenceKind::Multiset { authority, follower } => format!("{authority} times, {follower} times"),
        DifferenceKind::MissingTable => "missing table".to_owned(),
        DifferenceKind::ExtraTable => "extra table".to_owned(),
        DifferenceKind::MissingColumns { columns } => format!("missing columns {}", columns.join(",")),
    };
    format!("{} {key} {kind}", difference.table.name)
}

/// All differences, one per line, sorted; everything else is settled.
#[track_caller]
pub(crate) fn lines(report: &Report) -> Vec<String> {
    assert_eq!(report.unsettled_total, 0, "{report:#?}");
    assert_eq!(report.differences_total, report.differences.len() as u64);
    let mut lines: Vec<_> = report.differences.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

/// Small chunks, so that even few rows make many.
pub(crate) fn small_chunks() -> Options {
    Options { jobs: 3, chunk_rows: 7, patience: Duration::from_secs(10), ..Options::default() }
}
