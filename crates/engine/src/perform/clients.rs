//! The clients of the flags: met before the pause, waited for in it, and again before the other side is opened to them.

use std::time::Duration;

use cutover_core::{Acknowledged, Side, clients::Verdict};
use cutover_traffic::{Flags, TrafficError, Waited};
use tokio::time::Instant;

use crate::{
    EngineError, EngineResult, Notice,
    driver::{Driver, asked_to_stop},
};

/// How long servers are watched before a pause, so that a dead one that gave the longest leases leaves the step some time.
const MEET: Duration = Duration::from_secs(45);

impl Driver<'_> {
    /// Learns which servers are silent while that costs nobody anything.
    pub(super) async fn meet_servers(&mut self, deadline: Instant) -> EngineResult<()> {
        if let Some(flags) = self.cutover.fleet.flags() {
            flags.meet(deadline.min(Instant::now() + MEET)).await?;
        }
        Ok(())
    }

    /// Holds all traffic, and keeps whom the flags were waiting for.
    pub(super) async fn hold_traffic(&mut self, epoch: u64, deadline: Instant) -> EngineResult<()> {
        let (side, began_ms) = (self.state()?.authority, self.pause_ms());
        self.still_driving(side, epoch).await?;
        let fleet = &self.cutover.fleet;
        fleet.hold(&self.cutover.endpoint(side), deadline).await?;
        self.observed.acknowledged = fleet.flags().and_then(Flags::take_held).map(|held| acknowledged(held, began_ms));
        Ok(())
    }

    /// Waits until no client is in the way of opening `side` to all of them. There is no undoing any more; who is asked
    /// to stop leaves the cutover where it is, and the next driver goes on with it.
    pub(super) async fn await_clients(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let Some(flags) = self.cutover.fleet.flags() else { return Ok(()) };
        let mut interrupt = self.interrupt.clone();
        let report = self.report;
        let tell = |left: &Verdict| {
            let text = format!("the {side} opens to the flags' clients when these are gone: {}", left.report.names.join(", "));
            report.notice(&Notice::Note(text));
        };
        let gathered = tokio::select! {
            biased;
            () = asked_to_stop(&mut interrupt) => return Err(stopped(side, "interrupted")),
            gathered = flags.gather(tell) => gathered,
        };
        match gathered {
            Ok(waited) => self.observed.acknowledged = waited.map(|waited| acknowledged(waited, 0)),
            Err(error @ TrafficError::Astray { .. }) => return Err(stopped(side, &error.report())),
            Err(error) => return Err(error.into()),
        }
        // It may have taken hours.
        self.sides.drop_clients();
        self.still_driving(side, epoch).await
    }
}

fn acknowledged(waited: Waited, began_ms: u64) -> Acknowledged {
    let waited_ms = u64::try_from(waited.waited.as_millis()).unwrap_or(u64::MAX);
    Acknowledged { servers: waited.servers, clients: waited.clients, after_ms: began_ms.saturating_add(waited_ms) }
}

pub(super) fn stopped(side: Side, why: &str) -> EngineError {
    EngineError::Unknown {
        what: format!("the {side} is in charge, but the flags still hold their clients: {why}"),
        look: "stop the instances that are connected to the old side, or mend what the trial found; then `cutover run` goes on with \
               the opening; `rollout = \"0\"` in the plan waits for no instance"
            .to_owned(),
    }
}
