//! All adapters of a plan together.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use crate::{Adapter, Endpoint, Flags, Observation, Problem, TrafficError};

/// How long letting go may take at least when holding failed, even past the deadline: leaving clients
/// waiting is worse than being late.
const UNDO: Duration = Duration::from_secs(1);

/// All adapters of a plan, held and released in parallel.
pub struct Fleet {
    adapters: Vec<Box<dyn Adapter>>,
}

impl Fleet {
    /// A fleet of `adapters`.
    #[must_use]
    pub fn new(adapters: Vec<Box<dyn Adapter>>) -> Self {
        Self { adapters }
    }

    /// Its adapters, in the plan's order.
    #[must_use]
    pub fn adapters(&self) -> &[Box<dyn Adapter>] {
        &self.adapters
    }

    /// The flags, if instances ask any.
    #[must_use]
    pub fn flags(&self) -> Option<&Flags> {
        self.adapters.iter().find_map(|adapter| adapter.flags())
    }

    /// Whether at least one adapter makes clients wait.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.adapters.iter().any(|adapter| adapter.holds())
    }

    /// Looks where each adapter points now, with its name. Changes nothing.
    pub async fn observe(&self, endpoints: &[Endpoint; 2]) -> Vec<(String, Result<Observation, TrafficError>)> {
        join_all(self.adapters.iter().map(async |adapter| (adapter.name(), adapter.observe(endpoints).await))).await
    }

    /// The preflight of each adapter, with its name. Changes nothing.
    pub async fn check(&self, endpoints: &[Endpoint; 2]) -> Vec<(String, Vec<Problem>)> {
        join_all(self.adapters.iter().map(async |adapter| (adapter.name(), adapter.check(endpoints).await))).await
    }

    /// Holds all traffic. `current` is the side in charge now: when one adapter fails, the others stop
    /// trying and all are let go on there.
    ///
    /// # Errors
    /// The first failure, with those of letting go, if any. Letting go may take up to a second past `deadline`.
    pub async fn hold(&self, current: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        let Err(error) = try_join_all(self.adapters.iter().map(|adapter| adapter.hold(deadline))).await else {
            return Ok(());
        };
        // Letting go may outlast the step, which then ends with a time-out of its own.
        tracing::warn!(error = error.report(), "holding was given up");
        match self.release(current, deadline.max(Instant::now() + UNDO)).await {
            Ok(()) => Err(error),
            Err(TrafficError::Several(errors)) => Err(TrafficError::Several(std::iter::once(error).chain(errors).collect())),
            Err(undo) => Err(TrafficError::Several(vec![error, undo])),
        }
    }

    /// Points all traffic at `to` and lets it go on. One failure does not keep the others from it.
    ///
    /// # Errors
    /// The failure, or [`TrafficError::Several`]. The call can be repeated.
    pub async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        let results = join_all(self.adapters.iter().map(|adapter| adapter.release(to, deadline))).await;
        let mut errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(TrafficError::Several(errors)),
        }
    }
}
