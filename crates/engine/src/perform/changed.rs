//! The rows that change while a switch is prepared: watched, compared before the pause, and inside it up to the marker.

use cutover_core::{Changes as Figures, Side, Stream, plan::InPause};
use cutover_postgres::{
    PgError,
    verify::{self, Changes, Compared},
};
use tokio::time::Instant;

use crate::{EngineError, EngineResult, Notice, driver::Driver};

/// The rows that are watched, and what was compared of them in this attempt.
pub(crate) struct Watched {
    changes: Changes,
    keys: u64,
    tables: u64,
}

impl Driver<'_> {
    /// From here on the rows that change are known. An earlier attempt's watch goes on. On the way back a slot that is
    /// not to be had keeps nobody from going: that is said, and the pause is as it would be without.
    pub(super) async fn watch_changes(&mut self, stream: Stream) -> EngineResult<()> {
        if self.cutover.plan.verify.in_pause == InPause::Off {
            return Ok(());
        }
        if let Some(watched) = self.watched.as_mut().filter(|watched| watched.changes.follows(stream)) {
            (watched.keys, watched.tables) = (0, 0);
            return Ok(());
        }
        self.watched = None;
        let cutover = self.cutover;
        let origin = stream.origin();
        let sides = verify::Sides {
            authority: &cutover.plan.database(origin).url,
            follower: &cutover.plan.database(stream.destination()).url,
            authority_side: origin,
            following: None,
        };
        match Changes::begin(&sides, &cutover.names, stream, &cutover.verify_options()).await {
            Ok(changes) => self.watched = Some(Watched { changes, keys: 0, tables: 0 }),
            Err(error) if origin == Side::Target => {
                self.note(Notice::Warning(format!(
                    "what changes at the {origin} is not verified inside the pause, because it can't be watched: {error}"
                )));
            }
            Err(error) => return Err(unwatched(origin, error)),
        }
        Ok(())
    }

    pub(super) async fn verify_changes(&mut self, stream: Stream, deadline: Instant) -> EngineResult<()> {
        let Some(watched) = &mut self.watched else { return Ok(()) };
        let compared = watched.changes.settle(deadline).await.map_err(EngineError::database(stream.origin()))?;
        watched.keys += compared.keys;
        watched.tables += compared.tables;
        judge(&compared)
    }

    pub(super) async fn compare_changes(&mut self, stream: Stream, deadline: Instant) -> EngineResult<()> {
        let marker = self.fence()?.marker;
        let Some(watched) = &mut self.watched else { return Ok(()) };
        let compared = watched.changes.compare(&marker, deadline).await.map_err(EngineError::database(stream.origin()))?;
        judge(&compared)?;
        let unchecked: Vec<String> = compared.unchecked.iter().map(ToString::to_string).collect();
        self.observed.changes = Some(Figures {
            keys_before: watched.keys,
            keys_in_pause: compared.keys,
            tables: watched.tables + compared.tables,
            unchecked: unchecked.clone(),
        });
        for table in unchecked {
            self.note(Notice::Warning(format!("changed, and not verified inside the pause: {table}")));
        }
        Ok(())
    }
}

/// Differences are a no, what could not be established is no yes.
fn judge(compared: &Compared) -> EngineResult<()> {
    if compared.differences_total > 0 {
        let examples = compared.differences.iter().take(10).map(ToString::to_string).collect();
        return Err(EngineError::Changed { count: compared.differences_total, examples });
    }
    match compared.unsettled.first() {
        Some(first) => Err(EngineError::Inconclusive(format!("the switch was undone: a row that changed could not be compared, {first}"))),
        None => Ok(()),
    }
}

/// No slot and no WAL sender is free, or we may not have one: waiting does not help.
fn unwatched(side: Side, error: PgError) -> EngineError {
    let for_good = match &error {
        PgError::Connect { reason, .. } => reason.contains("[53300]"),
        error => !error.is_disconnect(),
    };
    if !for_good {
        return EngineError::database(side)(error);
    }
    EngineError::Mismatch {
        what: format!("the rows that change at the {side} can't be watched: {error}"),
        hint: format!(
            "a switch takes one more replication slot and WAL sender at the {side}: free them (max_replication_slots, max_wal_senders), \
             or set in_pause = \"off\" in the plan's [verify]"
        ),
    }
}
