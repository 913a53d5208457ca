//! What comes after the rows: indexes and constraints in parallel, the largest first; the rest in order; foreign keys
//! proved in parallel; materialised views, statistics.
//!
//! The copy builds what it can of a table as soon as it is full ([`Definitions::plain_indexes`]); here comes what is left.

mod contents;
mod define;
mod definitions;
mod progress;
mod section;

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use cutover_core::plan::DatabaseUrl;
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::Client;

use self::{
    contents::{analyze, refresh_views},
    define::define_if_allowed,
    definitions::Group,
};
pub(crate) use self::{
    define::{Hands, define_index, define_within},
    definitions::Index,
};
pub use self::{
    definitions::Definitions,
    progress::{Progress, ProgressSnapshot},
};
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    gate,
    names::Names,
    pool::{Queue, share_out},
    schema::{Dump, major},
};

/// What is to be built, and where.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Where the definitions are read.
    pub source: &'a DatabaseUrl,
    /// Where they are built.
    pub target: &'a DatabaseUrl,
    /// The plan's names.
    pub names: &'a Names,
    /// The driver's epoch.
    pub epoch: u64,
    /// How many are built at once.
    pub jobs: usize,
    /// Further folders to look for `pg_dump` in.
    pub tools: &'a [PathBuf],
    /// What was read before. If nothing was defined since, it is not read again.
    pub known: &'a Definitions,
}

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub struct Built {
    /// Indexes and constraints that are indexes, those that the copy built among them.
    pub indexes: usize,
    /// Foreign keys, triggers, policies, privileges and the like.
    pub others: usize,
    /// Materialised views that were refreshed.
    pub materialized_views: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Builds everything. Done again, it leaves out what exists: each is a transaction of its own, so what exists is whole.
///
/// # Errors
/// The server's answer, with what was being built.
pub async fn build(job: Job<'_>, progress: Arc<Progress>) -> PgResult<Built> {
    let begun = Instant::now();
    let application = job.names.application("indexes");
    let mut client = connect(job.target, &Purpose::unbounded(&application)).await?;
    gate::guard(&mut client, job.epoch).await?;
    let source = connect(job.source, &Purpose::new(&application)).await?;
    let all = if job.known.are_current(&source).await? {
        job.known.clone()
    } else {
        let dump = Dump::read(job.source, job.names, major(&client).await?, job.tools).await?;
        Definitions::of(&dump, &source).await?
    };
    let (indexes, others) = (all.indexes.len(), all.others.len() + all.privileges.len());
    let left = all.without(&indexes_there(&client).await?);
    progress.begin(&left, indexes);
    let builders = Builders { target: job.target.clone(), application, hands: Hands { epoch: job.epoch, jobs: job.jobs }, progress };
    builders.make("building indexes", job.jobs, left.indexes).await?;
    builders.make("making keys, triggers and the like", 1, left.others).await?;
    builders.make("proving foreign keys", job.jobs, left.proofs).await?;
    builders.make("granting privileges", 1, left.privileges).await?;
    builders.progress.enter("refreshing materialised views");
    let materialized_views = refresh_views(job.source, &mut client, job.names, job.epoch).await?;
    builders.progress.enter("gathering statistics");
    analyze(job.target, &builders.application, job.jobs).await?;
    gate::flush(&mut client, job.epoch).await?;
    Ok(Built { indexes, others, materialized_views, seconds: begun.elapsed().as_secs_f64() })
}

/// Those who build, each in a session that the target's gate lets pass.
struct Builders {
    target: DatabaseUrl,
    application: String,
    hands: Hands,
    progress: Arc<Progress>,
}

impl Builders {
    /// Makes each definition of each group, by so many workers at once.
    async fn make(&self, stage: &'static str, jobs: usize, groups: Vec<impl Into<Group>>) -> PgResult<()> {
        self.progress.enter(stage);
        let (target, application) = (self.target.clone(), self.application.clone());
        let open = move || {
            let (target, application) = (target.clone(), application.clone());
            async move {
                let client = connect(&target, &Purpose::unbounded(&application)).await?;
                gate::let_pass(&client, "indexes").await?;
                Ok(client)
            }
        };
        let (hands, progress) = (self.hands, Arc::clone(&self.progress));
        let work = move |mut client, group: Group| {
            let progress = Arc::clone(&progress);
            async move {
                for entry in group.entries {
                    if let Some(note) = define_if_allowed(&mut client, &entry, hands).await? {
                        progress.note(note);
                    }
                    progress.finish(group.bytes);
                }
                Ok(client)
            }
        };
        share_out(jobs, Queue::of(groups.into_iter().map(Into::into).collect()), open, work).await
    }
}

/// The schemas and names of all indexes of a database.
pub(crate) async fn indexes_there(client: &Client) -> PgResult<HashSet<(String, String)>> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('i', 'I') AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')";
    let rows = client.query(sql, &[]).await.map_err(|error| PgError::sql("reading the target's indexes", error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
