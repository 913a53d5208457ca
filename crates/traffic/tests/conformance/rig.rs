//! Two real servers and a PgBouncer in front of them.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use cutover_core::{
    Side,
    plan::{DatabaseUrl, Traffic},
};
use cutover_testkit::{Cluster, ClusterOptions, Db, PgBouncer, PgBouncerInstall, PgBouncerOptions, PoolMode, installs, pgbouncers};
use cutover_traffic::{Adapter, Endpoint};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::suite::{adapter, endpoint};

/// The source's server and the target's. All tests share them; each has databases of its own.
static CLUSTERS: OnceCell<[Cluster; 2]> = OnceCell::const_new();

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Every PgBouncer at hand.
pub(crate) fn versions() -> Vec<PgBouncerInstall> {
    let found = pgbouncers();
    assert!(!found.is_empty(), "no PgBouncer is installed");
    found
}

/// A database at both servers, and a PgBouncer that leads to the source's.
pub(crate) struct Rig {
    pub(crate) database: String,
    pub(crate) bouncer: PgBouncer,
}

impl Rig {
    pub(crate) async fn new(version: &PgBouncerInstall, pool_mode: PoolMode) -> Self {
        let database = format!("orders_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let clusters = clusters().await;
        for cluster in clusters {
            cluster.create_database(&database).await.unwrap();
            let table = "CREATE TABLE hits (worker int, number int, PRIMARY KEY (worker, number))";
            cluster.execute(&database, table).await.unwrap();
        }
        let mut options = PgBouncerOptions::new(vec![Db::on(&clusters[0], &database)]);
        options.pool_mode = pool_mode;
        options.pool_size = 10;
        let bouncer = PgBouncer::start(version, options).await.unwrap();
        Self { database, bouncer }
    }

    pub(crate) fn adapter(&self) -> Box<dyn Adapter> {
        adapter(self.plan("admin", self.bouncer.port(), self.config_file()), Path::new("/"))
    }

    pub(crate) fn plan(&self, user: &str, port: u16, config_file: PathBuf) -> Traffic {
        let admin_url = DatabaseUrl::parse(&format!("postgres://{user}:hunter2@127.0.0.1:{port}/pgbouncer")).unwrap();
        Traffic::PgBouncer { admin_url, database: self.database.clone(), config_file }
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.bouncer.config_file()
    }

    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        let clusters = CLUSTERS.get().unwrap();
        [(Side::Source, &clusters[0]), (Side::Target, &clusters[1])]
            .map(|(side, cluster)| endpoint(side, &cluster.url("postgres", &self.database)))
    }

    /// A session of the application.
    pub(crate) async fn client(&self) -> Client {
        session(&self.bouncer.url("postgres", &self.database)).await
    }

    /// A session at one server, past the PgBouncer.
    pub(crate) async fn at(&self, side: Side) -> Client {
        let [source, target] = clusters().await;
        let cluster = if side == Side::Source { source } else { target };
        cluster.client(&self.database).await.unwrap()
    }

    pub(crate) async fn restart(&self) {
        self.bouncer.stop().await.unwrap();
        self.bouncer.start_again().await.unwrap();
    }
}

async fn clusters() -> &'static [Cluster; 2] {
    let start = async || {
        let installs = installs();
        let [old, new] = [installs.first(), installs.last()].map(|install| install.expect("no PostgreSQL is installed"));
        let start = |install, name: &str| Cluster::start(install, ClusterOptions::named(name).not_durable());
        let (source, target) = tokio::try_join!(start(old, "source"), start(new, "target")).unwrap();
        [source, target]
    };
    CLUSTERS.get_or_init(start).await
}

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // Its errors reach the client.
    tokio::spawn(async move { drop(connection.await) });
    client
}
