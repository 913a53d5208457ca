//! Says what a step is at, when that takes so long that a person begins to wonder.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Notice, Report};

/// After so long for the first time.
const FIRST: Duration = Duration::from_secs(3);

/// And then each time after so long.
const AGAIN: Duration = Duration::from_secs(20);

/// The action that is under way. What shows progress of its own has told more than this would.
#[derive(Default)]
pub(super) struct Waited(Mutex<Option<(String, Instant)>>);

impl Waited {
    pub(super) fn begin(&self, line: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((line, Instant::now()));
    }

    /// Never comes back.
    pub(super) async fn tell(&self, report: &dyn Report, step: &str) {
        let mut next = FIRST;
        loop {
            tokio::time::sleep(next).await;
            let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some((line, since)) = now.filter(|(_, since)| since.elapsed() >= FIRST) {
                report.notice(&Notice::Waiting { step, line: &line, seconds: since.elapsed().as_secs() });
            }
            next = AGAIN;
        }
    }
}
