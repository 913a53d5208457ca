//! Tables with a shadow: followed in their own database, told as flags, shown, and counted.
//!
//! Their database is asked, and nothing else: what it says is told as it was when the asking began. When it can't be reached, reads
//! stay where they were, and after a lease everybody is told that this is no longer sure.

pub(crate) mod board;
mod metrics;
pub(crate) mod server;

use std::time::Duration;

use cutover_core::clients::{ShadowTable, Unit};
use cutover_engine::{
    EngineResult,
    shadow::{ShadowTables, Table, Watch, watch::Checked},
};
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::board::Board;
pub use self::{
    board::Tell,
    server::{TablesServer, serve_tables},
};
use crate::{
    ServerError,
    front::{Front, Tables},
    house::House,
};

/// Between two looks at what was measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// The database is asked no more often than this, but for news.
const OFTEN: Duration = Duration::from_millis(50);

/// After one failure, until it is asked again; twice as long after each further one.
const REST: Duration = Duration::from_millis(250);

/// The longest of these rests.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Told each table that has changed.
pub(crate) type Tells = Box<dyn Fn(&Table) + Send + Sync>;

/// What a server with such tables does beside answering. `tells`: who is told of changes beside a switch; none where the tables are all
/// that the server knows.
pub(crate) fn attend(house: &mut House, front: &Front, tables: ShadowTables, tells: Option<Tells>) {
    house.tasks.spawn(measure(front.clone(), tables.again()));
    house.tasks.spawn(outdate(front.clone()));
    if let Some(watch) = tables.watch() {
        house.tasks.spawn(look_after(watch));
    }
    house.tasks.spawn(follow(front.clone(), tables, tells));
}

/// Where the tables stood when they were asked for.
pub(crate) struct Asked {
    tables: Vec<Table>,
    more: bool,
    at: Instant,
}

/// Asks where the tables stand. A server does so before it answers anybody: else it would know of no table for a moment each time
/// that it is begun, and reads would go back to where the applications' own defaults lead.
pub(crate) async fn ask(tables: &mut ShadowTables) -> EngineResult<Asked> {
    let at = Instant::now();
    let (tables, more) = tables.read().await?;
    Ok(Asked { tables, more, at })
}

/// Tells what was answered to everybody.
pub(crate) fn take(front: &Front, Asked { tables, more, at }: Asked, tells: Option<&Tells>) {
    let told = Tables::new(tables.iter().map(unit).collect(), at);
    let changed = front.board.stand(tables, more, at);
    match tells {
        None => front.rely_on_tables(told, at),
        Some(tells) => {
            front.see_tables(told);
            changed.iter().for_each(tells);
        }
    }
}

/// Asks where the tables stand, with each change that is heard of, and several times in each lease.
async fn follow(front: Front, mut tables: ShadowTables, tells: Option<Tells>) -> Result<(), ServerError> {
    let every = (front.lease / 4).max(OFTEN);
    let mut failures = 0_u32;
    loop {
        match ask(&mut tables).await {
            Ok(asked) => {
                if failures > 0 {
                    tracing::info!(failures, "the database of the shadow tables answers again");
                }
                failures = 0;
                take(&front, asked, tells.as_ref());
                tables.news(every).await;
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "the database of the shadow tables can't be asked: reads stay where they were");
                }
                sleep((REST * 2_u32.saturating_pow(failures)).min(LONGEST_REST)).await;
                failures = failures.saturating_add(1).min(8);
            }
        }
    }
}

/// Asks what was measured, over a connection of its own: it may take long, and routes must not wait for it.
async fn measure(front: Front, mut tables: ShadowTables) -> Result<(), ServerError> {
    loop {
        match tables.measures().await {
            Ok(measures) => front.board.measured(measures, Instant::now()),
            Err(error) => tracing::debug!(%error, "what was measured of the shadow tables can't be read"),
        }
        tables.news(MEASURE_EVERY).await;
    }
}

/// Calls the safety check and brings what is queued, again and again. Several servers may: the database has one do it at a time.
async fn look_after(mut watch: Watch) -> Result<(), ServerError> {
    loop {
        let begun = std::time::Instant::now();
        match watch.look().await {
            Ok(look) => look.checked.iter().filter(|checked| checked.action != "none").for_each(|checked| {
                let Checked { table, action, reason, health } = checked;
                tracing::warn!(table, action, health, reason, "the safety check of a shadow table");
            }),
            Err(error) => tracing::warn!(%error, "the shadow tables can't be looked after"),
        }
        sleep(watch.rest(begun)).await;
    }
}

/// Tells everybody when what is known of the tables is older than a lease.
async fn outdate(front: Front) -> Result<(), ServerError> {
    let mut views = front.subscribe();
    loop {
        let known = views.borrow_and_update().tables.as_of;
        if let Some(as_of) = known
            && timeout_at(as_of + front.lease, views.wait_for(|view| view.tables.as_of != known)).await.is_err()
        {
            front.outdate_tables(as_of);
        }
        // Of a front that is gone nobody asks.
        if views.wait_for(|view| view.tables.as_of != known).await.is_err() {
            return Ok(());
        }
    }
}

fn unit(table: &Table) -> Unit {
    let said = ShadowTable {
        salt: table.salt.clone().unwrap_or_default(),
        stage: table.stage.clone(),
        epoch: table.epoch.unsigned_abs(),
        stale: false,
    };
    Unit { name: table.table.clone(), target_reads: table.target_reads(), table: Some(said) }
}
