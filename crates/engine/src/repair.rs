//! Mending rows that verification found, as a driver: so that no switch begins meanwhile, and nobody else mends.

use cutover_core::{Command, decide};
use cutover_postgres::verify::{self, RepairOptions};

use crate::{Cutover, Drive, EngineError, EngineResult, driver::Driver, perform::sides};

/// Rows mended in a second, at most: each holds up the stream for a moment. Unit: rows per second.
const ROWS_PER_S: u32 = 1000;

impl Cutover {
    /// Makes rows of the follower's equal to the authority's, through the stream. What was asked for is in the journal
    /// before the first row, and what became of it after the last.
    ///
    /// # Errors
    /// If the cutover is not following; if somebody else drives it; if the stream does not flow or does not carry it.
    /// Rows that could not be mended are in the answer.
    pub async fn repair(
        &self,
        drive: Drive<'_>,
        options: &verify::Options,
        differences: &[verify::Difference],
    ) -> EngineResult<verify::Repair> {
        let rows = differences.len() as u64;
        // Refused before anything is taken over: that would give up a switch under way.
        decide(self.state().await?.as_ref(), Command::Repair { rows })?;
        let mut driver = Driver::take_over(self, drive).await?;
        driver.say(Command::Repair { rows }).await?;
        let state = driver.state()?.clone();
        let (sides, how) = (sides(self, Some(&state)), RepairOptions { epoch: state.epoch, rows_per_s: ROWS_PER_S });
        let mending = Box::pin(verify::repair(&sides, &self.names, options, &how, differences));
        let repair = driver.unless_stopped(mending).await?.map_err(EngineError::database("repair"))?;
        driver
            .say(Command::Repaired {
                repaired: repair.repaired,
                equal_meanwhile: repair.equal_meanwhile,
                still_different: repair.still_different.len() as u64,
                tables: repair.tables.clone(),
            })
            .await?;
        Ok(repair)
    }
}
