//! Who has heard what the flags say: the servers' rows beside the journal.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cutover_core::{
    Plan, Route, State,
    clients::{Heard, Report},
    plan::Traffic,
};
use cutover_journal::{Journal, Row};
use cutover_traffic::{Adapter, Audience, AudienceError, FlagSettings, Flags, Routes};
use tokio::time::Instant;

use crate::log::fold;

/// The flags of a plan, if it has any.
pub(crate) fn flags(plan: &Plan, journal: &Arc<dyn Journal>) -> Option<Box<dyn Adapter>> {
    plan.traffic.iter().find_map(|traffic| {
        let Traffic::Flags { lease, rollout, .. } = traffic else { return None };
        let settings = FlagSettings { lease: *lease, rollout: *rollout, budget: plan.pause.budget };
        Some(Box::new(Flags::new(settings, Box::new(Roster(Arc::clone(journal))))) as Box<dyn Adapter>)
    })
}

/// The route that the journal tells.
pub(crate) fn routes(journal: &Arc<dyn Journal>) -> Arc<dyn Routes> {
    Arc::new(Roster(Arc::clone(journal)))
}

/// The servers of one plan.
///
/// A server writes its row before it reads the journal, and the journal before it gives a lease; a driver appends before
/// it reads the rows. So whoever comes second sees the other.
pub(crate) struct Roster(pub(crate) Arc<dyn Journal>);

#[async_trait]
impl Routes for Roster {
    async fn route(&self) -> Result<Route, AudienceError> {
        Ok(fold(&self.0.load().await?)?.as_ref().map(State::route).unwrap_or_default())
    }
}

#[async_trait]
impl Audience for Roster {
    async fn heard(&self, known: &[Heard], wait: Duration) -> Result<Vec<Heard>, AudienceError> {
        let deadline = Instant::now() + wait;
        let mut rows = self.0.rows().await?;
        loop {
            let heard: Vec<Heard> = rows.iter().map(heard).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if heard != known || left.is_zero() {
                return Ok(heard);
            }
            rows = self.0.rows_changed(&rows, left).await?;
        }
    }
}

/// A row that can't be read, as of a newer server, has heard of nothing: it is waited for until it is silent.
pub(crate) fn heard(row: &Row) -> Heard {
    let report = serde_json::from_value(row.body.clone())
        .unwrap_or_else(|error| Report { names: vec![format!("{}: its row can't be read: {error}", row.server)], ..Report::default() });
    Heard { server: row.server.clone(), beat: row.beat, lease_ms: row.lease_ms, report }
}

#[cfg(test)]
#[path = "audience_tests.rs"]
mod tests;
