//! Whether the follower has applied everything up to a position of the authority's log.
//!
//! `replay_lsn` of the slot's sender and `confirmed_flush_lsn` of the slot each prove it, whichever comes first: the
//! apply worker reports them behind the transactions that it committed. `sent_lsn` proves nothing. An idle authority's
//! insert position can lie behind the last record, or be unflushed for a while, and is then never reported; one empty
//! transaction moves the log on and is not sent to the follower as a change.

use std::time::Duration;

use cutover_core::{Lsn, Stream};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::session::{Param, Query, Session};
use crate::{PgError, PgResult, names::Names};

/// How the follower follows the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// The slot at the authority.
    pub slot: String,
    /// The subscription at the follower.
    pub subscription: String,
}

impl Following {
    /// By a cutover's own stream.
    #[must_use]
    pub fn stream(names: &Names, stream: Stream) -> Self {
        Self { slot: names.slot(stream), subscription: names.subscription(stream) }
    }
}

/// Between two looks at the position.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Between two pushes of an idle authority's log.
const PUSH_EVERY: Duration = Duration::from_millis(200);

const LOOK: &str = "SELECT s.confirmed_flush_lsn::text, r.replay_lsn::text, pg_catalog.pg_current_wal_flush_lsn()::text \
     FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid \
     WHERE s.slot_name = $1::text";

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The follower has applied everything up to the position.
    Passed,
    /// It has not, and why nobody waits for it any longer.
    Stalled(String),
}

/// The follower's position, looked at by all workers through one connection.
pub(super) struct Watch {
    slot: String,
    patience: Duration,
    look: Mutex<Look>,
}

struct Look {
    session: Session,
    /// The highest position that the follower was seen to have applied.
    passed: Lsn,
    /// Since when somebody waits for more than a position that does not move.
    still: Option<(Lsn, Instant)>,
    pushed: Option<Instant>,
}

impl Watch {
    /// Looks through `session`, a connection to the authority, and gives up on a follower that has not moved at all
    /// for `patience`; from then on at once, until it moves again.
    pub(super) fn new(following: &Following, session: Session, patience: Duration) -> Self {
        let look = Look { session, passed: Lsn(0), still: None, pushed: None };
        Self { slot: following.slot.clone(), patience, look: Mutex::new(look) }
    }

    /// Waits until the follower has applied everything up to `lsn`, for no longer than `limit`.
    pub(super) async fn wait_past(&self, lsn: Lsn, limit: Duration) -> PgResult<Wait> {
        let began = Instant::now();
        loop {
            if let Some(wait) = self.look(lsn, began + limit).await? {
                return Ok(wait);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Looks once; says how a wait for `lsn` until `deadline` ends, where it does.
    pub(super) async fn look(&self, lsn: Lsn, deadline: Instant) -> PgResult<Option<Wait>> {
        let mut look = self.look.lock().await;
        if look.passed >= lsn {
            return Ok(Some(Wait::Passed));
        }
        if let Some(wait) = look.update(&self.slot, lsn, self.patience).await? {
            return Ok(Some(wait));
        }
        let why = || format!("the follower had applied {} and not {lsn} when the time was over", look.passed);
        Ok((Instant::now() > deadline).then(|| Wait::Stalled(why())))
    }
}

impl Look {
    /// Looks once; says how the wait for `lsn` ends, where it does.
    async fn update(&mut self, slot: &str, lsn: Lsn, patience: Duration) -> PgResult<Option<Wait>> {
        let query = Query { sql: LOOK.to_owned(), params: vec![Param::Text(slot.to_owned())] };
        let rows = self.session.query("reading the follower's position", &query).await?;
        let Some(row) = rows.first() else {
            return Ok(Some(Wait::Stalled(format!("the authority has no slot {slot}"))));
        };
        let position = |at: usize| row.get::<_, Option<String>>(at).and_then(|text| text.parse().ok()).unwrap_or(Lsn(0));
        let applied: Lsn = position(0).max(position(1));
        if applied > self.passed {
            self.passed = applied;
        }
        if self.passed >= lsn {
            self.still = None;
            return Ok(Some(Wait::Passed));
        }
        if position(2) < lsn {
            self.push().await;
        }
        Ok(self.stalled(patience))
    }

    fn stalled(&mut self, patience: Duration) -> Option<Wait> {
        match self.still {
            Some((at, since)) if at == self.passed => (since.elapsed() > patience)
                .then(|| Wait::Stalled(format!("the follower has not moved from {at} for {} s", since.elapsed().as_secs()))),
            _ => {
                self.still = Some((self.passed, Instant::now()));
                None
            }
        }
    }

    /// Moves the authority's log past its own insert position, and flushes it. It may fail: then it is waited on.
    async fn push(&mut self) {
        if self.pushed.is_some_and(|at| at.elapsed() < PUSH_EVERY) {
            return;
        }
        self.pushed = Some(Instant::now());
        let sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'cutover', 'verify')".to_owned();
        if let Err(error) = self.session.query("moving the log on", &Query { sql, params: Vec::new() }).await {
            tracing::debug!(%error, "the authority's log could not be moved on");
        }
    }
}

/// The position behind everything that the authority has committed.
pub(super) async fn insert_position(session: &mut Session) -> PgResult<Lsn> {
    let query = Query { sql: "SELECT pg_catalog.pg_current_wal_insert_lsn()::text".to_owned(), params: Vec::new() };
    let rows = session.query("reading the log position", &query).await?;
    let text: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
    text.parse().map_err(|error| PgError::Mismatch(format!("the log position: {error}")))
}
