//! The right to drive a plan, for as long as it is held.

use std::fmt;

use crate::postgres::SessionHold;
use crate::sqlite::FileHold;

/// The exclusive right to drive a plan. Dropping it releases it, and so does the end of the process in any way:
/// the operating system or the database server notices, and no clock is involved.
pub struct Hold {
    who: String,
    since_ms: i64,
    behind: Behind,
}

/// What stands behind the right.
enum Behind {
    File(FileHold),
    Session(SessionHold),
}

impl Hold {
    pub(crate) fn by_file(who: String, since_ms: i64, hold: FileHold) -> Self {
        Self { who, since_ms, behind: Behind::File(hold) }
    }

    pub(crate) fn by_session(who: String, since_ms: i64, hold: SessionHold) -> Self {
        Self { who, since_ms, behind: Behind::Session(hold) }
    }

    /// Who others are told has it.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Since when, in milliseconds since 1970 (UTC).
    #[must_use]
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Whether the right is still there: the lock file in its place, or the session alive and its lock granted.
    /// Asks the server where there is one, for at most five seconds; no answer means no.
    pub async fn is_held(&self) -> bool {
        match &self.behind {
            Behind::File(hold) => hold.is_held(),
            Behind::Session(hold) => hold.is_held().await,
        }
    }

    /// Releases it, and returns once others can take it. Dropping it does the same a moment later.
    pub async fn release(self) {
        match self.behind {
            Behind::File(hold) => drop(hold),
            Behind::Session(hold) => hold.release().await,
        }
    }
}

/// Who others are told is driving.
pub(crate) fn holder_name(who: &str) -> String {
    format!("{who} (pid {})", std::process::id())
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("who", &self.who).field("since_ms", &self.since_ms).finish_non_exhaustive()
    }
}
