//! What a step that failed means: for the cutover, and for whoever asked for it.

use cutover_core::Step;
use cutover_postgres::PgError;

use crate::EngineError;

/// What a failed step means for the cutover.
pub(super) enum Kind {
    /// It can be begun again; nothing is held.
    Preparation,
    /// The switch is given up and undone.
    Abandonable,
    /// It is what ends a pause, and is tried again.
    Persistent,
}

impl Kind {
    pub(super) fn of(step: Step) -> Self {
        match step {
            Step::Arm(_) | Step::BeginPause(_) | Step::Fence(_) | Step::Drain(_) | Step::Commit(_) => Self::Abandonable,
            Step::Undo(_) | Step::Open(_) | Step::Restore(_) => Self::Persistent,
            Step::Prepare(_) | Step::Smoke(_) | Step::Retire | Step::TearDown => Self::Preparation,
        }
    }
}

/// What it means for whoever asked that a switch was undone because of `error`.
pub(super) fn verdict(error: EngineError) -> EngineError {
    match error {
        EngineError::Interrupted(_) => {
            EngineError::Interrupted("the switch was undone: the old side takes writes and is followed as before".to_owned())
        }
        EngineError::Database { side, source } if retryable(&source) => {
            EngineError::PauseExhausted { attempts: 1, last: format!("{side}: {source}") }
        }
        EngineError::Traffic(source) if source.is_time_out() => EngineError::PauseExhausted { attempts: 1, last: source.report() },
        said @ (EngineError::Changed { .. } | EngineError::LargeObjects { .. } | EngineError::Inconclusive(_)) => said,
        other => EngineError::Undone { hint: other.hint(), why: other.to_string() },
    }
}

/// Whether it may well be gone when we try again.
pub(crate) fn transient(error: &EngineError) -> bool {
    matches!(error, EngineError::Database { source, .. } if retryable(source))
}

fn retryable(error: &PgError) -> bool {
    matches!(error, PgError::TimedOut { .. }) || error.is_lock_timeout() || error.is_disconnect()
}
