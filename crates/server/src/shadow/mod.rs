//! Tables with a shadow: followed in their own database, told as flags, shown, and counted.
//!
//! Their database is asked, and nothing else: what it says is told as it was when the asking began. When it can't be reached, reads
//! stay where they were, and after a lease everybody is told that this is no longer sure.

pub(crate) mod board;
mod metrics;
pub(crate) mod server;

use std::time::Duration;

use cutover_core::clients::{ShadowTable, Unit};
use cutover_engine::shadow::{ShadowTables, Table};
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

/// What a server with such tables does beside answering.
pub(crate) fn attend(house: &mut House, front: &Front, tables: ShadowTables, alone: bool) {
    house.tasks.spawn(measure(front.clone(), tables.again()));
    house.tasks.spawn(outdate(front.clone()));
    house.tasks.spawn(follow(front.clone(), tables, alone));
}

/// Asks where the tables stand, with each change that is heard of, and several times in each lease. `alone`: where this is all that
/// the server knows.
async fn follow(front: Front, mut tables: ShadowTables, alone: bool) -> Result<(), ServerError> {
    let every = (front.lease / 4).max(OFTEN);
    let mut failures = 0_u32;
    loop {
        let asked_at = Instant::now();
        match tables.read().await {
            Ok((read, more)) => {
                if failures > 0 {
                    tracing::info!(failures, "the database of the shadow tables answers again");
                }
                failures = 0;
                let told = Tables::new(read.iter().map(unit).collect(), asked_at);
                front.board.stand(read, more, asked_at);
                if alone {
                    front.rely_on_tables(told, asked_at);
                } else {
                    front.see_tables(told);
                }
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
