//! Large objects: brought over by comparing both sides, again and again, because nothing tells which of them change.
//!
//! A round looks at all of them (`look`), compares those that were written at either side since the look before, and
//! makes the follower's equal to the authority's (`batch`, `pages`). Rounds run while both sides move; each has less to
//! do than the one before. The last one runs inside the pause, behind the fence (`fence`), when neither side moves any
//! more: what it has done is all there is. A round that is broken off is done again, and finds what it had done.

mod batch;
mod cost;
mod fence;
mod look;
mod pages;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use cutover_core::plan::DatabaseUrl;
use tokio::time::Instant;
use tokio_postgres::Client;

use self::{batch::Batch, look::Pairing};
pub use self::{
    cost::{Cost, cost},
    fence::{FENCE_SQL, LIFT_SQL, fence, lift, writers},
};
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    gate::{self, commit, guarded},
    limit::Limiter,
    names::{Names, literal},
};

/// The bytes of a page of a large object, which is a row of `pg_largeobject`.
const PAGE_SQL: &str = "(SELECT pg_catalog.current_setting('block_size')::bigint / 4)";

/// How long the transactions under way at the side that follows are waited for.
const FENCE_LIMIT: Duration = Duration::from_secs(20);

/// Differences and notes that are named; the others are counted.
const NAMED: usize = 10;

/// Sessions at both sides, for as many rounds as are wanted in one direction. One whose round has failed is no good any more.
pub struct Carrier {
    looking: [Client; 2],
    authority: Client,
    follower: Client,
}

/// How a round goes.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The driver's epoch.
    pub epoch: u64,
    /// How fast it may read.
    pub limiter: &'a Limiter,
    /// Whether both sides stand still. Then what differs although the authority did not change it is left as it is.
    pub last: bool,
    /// How long a look at one side may take; as long as it takes where absent.
    pub limit: Option<Duration>,
}

/// How far a round has come.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    total: AtomicU64,
    objects: AtomicU64,
}

/// How far a round has come, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Compared or brought.
    pub bytes: u64,
    /// About what the authority holds.
    pub total: u64,
    /// Looked at.
    pub objects: u64,
}

/// What a round has done.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Large objects at the authority.
    pub objects: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// Those that were compared or brought, because one side had changed them.
    pub changed: u64,
    /// Bytes that were brought.
    pub brought_bytes: u64,
    /// Large objects that were removed at the follower.
    pub removed: u64,
    /// Those that were made equal although nobody had changed them at the authority: the first of them.
    pub mended: Vec<String>,
    /// All of those.
    pub mended_total: u64,
    /// Those that differ and were left as they are: the first of them.
    pub differences: Vec<String>,
    /// All of those.
    pub differences_total: u64,
    /// How long the whole took.
    pub took: Duration,
    /// How long it took without comparing and bringing.
    pub look: Duration,
}

impl Progress {
    /// How far it is.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let bytes = self.bytes.load(Relaxed);
        Numbers { bytes, total: self.total.load(Relaxed).max(bytes), objects: self.objects.load(Relaxed) }
    }
}

impl Carrier {
    /// Connects to both sides, and installs there what a round needs.
    ///
    /// # Errors
    /// [`PgError::Superseded`], or what kept it from connecting.
    pub async fn open(authority: &DatabaseUrl, follower: &DatabaseUrl, names: &Names, epoch: u64) -> PgResult<Self> {
        let application = names.application("large objects");
        // A look takes as long as there is much to look at.
        let (looks, works) = (Purpose::unbounded(&application), Purpose::new(&application));
        let (look_here, look_there, mut here, mut there) =
            tokio::try_join!(connect(authority, &looks), connect(follower, &looks), connect(authority, &works), connect(follower, &works))?;
        tokio::try_join!(fence::install(&mut here, epoch), fence::install(&mut there, epoch))?;
        if !fence::writers(&there).await?.is_empty() {
            // The plan did not say so when that side was closed.
            fence::fence(&mut there, epoch, Instant::now() + FENCE_LIMIT).await?;
        }
        gate::let_pass(&there, "large objects").await?;
        Ok(Self { looking: [look_here, look_there], authority: here, follower: there })
    }

    /// Whether a round came to its end before, in either direction.
    ///
    /// # Errors
    /// [`PgError::Sql`].
    pub async fn looked_before(&self) -> PgResult<bool> {
        let sql = "SELECT EXISTS (SELECT FROM cutover.large_object_look)";
        let failed = |error| PgError::sql("asking for an earlier look at large objects", error);
        let (here, there) = tokio::try_join!(self.authority.query_one(sql, &[]), self.follower.query_one(sql, &[])).map_err(failed)?;
        Ok(here.get(0) && there.get(0))
    }

    /// Makes the follower's large objects what the authority's are.
    ///
    /// # Errors
    /// [`PgError::Refused`] where the follower holds some that somebody else has made; [`PgError::Superseded`], or a
    /// server's answer.
    pub async fn round(&mut self, way: Way<'_>, progress: &Progress) -> PgResult<Round> {
        let begun = Instant::now();
        let mut round = Round::default();
        progress.bytes.store(0, Relaxed);
        progress.total.store(held(&self.authority).await?, Relaxed);
        let [look_here, look_there] = &mut self.looking;
        let mut pairing = Pairing::begin(look_here, look_there, way.limit).await?;
        let mut batch = Batch::new(&self.authority, &mut self.follower, way, progress);
        let mut worked = Duration::ZERO;
        while let Some(pair) = pairing.next().await? {
            if let Some(here) = &pair.authority {
                round.objects += 1;
                round.bytes += u64::try_from(here.bytes).unwrap_or(0);
                progress.objects.store(round.objects, Relaxed);
            }
            batch.add(pair);
            if batch.is_full() {
                let begun = Instant::now();
                batch.settle(&mut round).await?;
                worked += begun.elapsed();
            }
        }
        let last = Instant::now();
        batch.settle(&mut round).await?;
        worked += last.elapsed();
        let snapshots = [pairing.authority.snapshot, pairing.follower.snapshot];
        if round.differences_total == 0 {
            let [here, there] = snapshots;
            let name = format!("{here} {there}");
            tokio::try_join!(note(&mut self.authority, way.epoch, &here, &name), note(&mut self.follower, way.epoch, &there, &name))?;
        }
        round.took = begun.elapsed();
        round.look = round.took.saturating_sub(worked);
        Ok(round)
    }
}

/// About how many bytes the large objects of a side take.
async fn held(client: &Client) -> PgResult<u64> {
    let sql = "SELECT pg_catalog.pg_relation_size('pg_catalog.pg_largeobject')";
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::sql("reading the size of large objects", error))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// What this snapshot sees is done with.
async fn note(client: &mut Client, epoch: u64, snapshot: &str, round: &str) -> PgResult<()> {
    let doing = "noting a look at large objects";
    let transaction = guarded(client, epoch).await?;
    let sql = format!(
        "INSERT INTO cutover.large_object_look (seen, round) VALUES ({}, {}) ON CONFLICT (singleton) DO UPDATE \
         SET seen = EXCLUDED.seen, round = EXCLUDED.round",
        literal(snapshot),
        literal(round)
    );
    transaction.batch_execute(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}
