//! The demo's servers: two clusters, a `PgBouncer`, a bank, and the plan of its cutover.

use std::path::PathBuf;

use cutover_core::Side;
use cutover_testkit::{
    Cluster, ClusterOptions, Db, PgBouncer, PgBouncerOptions, Seed,
    bank::{self, BankOptions},
    pgbouncer,
};

use crate::{args::Demo, commands::throwaway::versions, output::Failure};

const DATABASE: &str = "bank";

/// Everything that the demo plays on. Gone when it is dropped.
pub(super) struct Stage {
    pub(super) source: Cluster,
    pub(super) target: Cluster,
    pub(super) bouncer: PgBouncer,
    folder: tempfile::TempDir,
}

impl Stage {
    /// Starts the servers and fills the bank.
    pub(super) async fn set_up(args: &Demo, seed: Seed) -> Result<Self, Failure> {
        let (source, target) = versions(args.pg_source, args.pg_target)?;
        let options = |name: &str| ClusterOptions::named(name).set("max_connections", args.clients + 100).set("shared_buffers", "256MB");
        let (source, target) = tokio::try_join!(Cluster::start(&source, options("source")), Cluster::start(&target, options("target")))?;
        let bank = BankOptions { scale: f64::from(args.scale), seed, ..BankOptions::default() };
        source.create_database(DATABASE).await?;
        target.create_database(DATABASE).await?;
        bank::install(&source.url("postgres", DATABASE), &bank).await?;
        bank::create_roles(&target.url("postgres", DATABASE), &bank).await?;
        let bouncer = PgBouncer::start(&pgbouncer()?, PgBouncerOptions::new(vec![Db::on(&source, DATABASE)])).await?;
        let folder = tempfile::Builder::new()
            .prefix("cutover-demo-")
            .tempdir()
            .map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
        let stage = Self { source, target, bouncer, folder };
        std::fs::write(stage.plan_path(), stage.plan()).map_err(|error| Failure::new(format!("can't write the demo's plan: {error}")))?;
        Ok(stage)
    }

    /// Where the application connects.
    pub(super) fn app_url(&self) -> String {
        self.bouncer.url("app", DATABASE)
    }

    /// One of the databases, as its owner sees it.
    pub(super) fn url(&self, side: Side) -> String {
        let cluster = match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        };
        cluster.url("postgres", DATABASE)
    }

    pub(super) fn plan_path(&self) -> PathBuf {
        self.folder.path().join("cutover.toml")
    }

    fn plan(&self) -> String {
        format!(
            "name = \"demo\"\nkind = \"switch\"\n\n[source]\nurl = \"{}\"\n\n[target]\nurl = \"{}\"\n\n[[traffic]]\nkind = \"pgbouncer\"\n\
             admin_url = \"{}\"\ndatabase = \"{DATABASE}\"\nconfig_file = \"{}\"\n",
            self.url(Side::Source),
            self.url(Side::Target),
            self.bouncer.admin_url(),
            self.bouncer.config_file().display()
        )
    }
}
