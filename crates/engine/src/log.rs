//! The journal as the driver uses it: decide, append, apply, in that order and nowhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover_core::{Command, Event, State, apply, decide};
use cutover_journal::{AppendError, Draft, Entry, Journal, Position};
use tokio::time::Instant;

use crate::{EngineError, EngineResult};

/// How long an append of unknown outcome is asked about before a person must look.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// The fold of a journal, and the position of its newest entry.
pub(crate) struct Log<'a> {
    journal: &'a dyn Journal,
    position: Position,
    state: Option<State>,
}

/// Who says something, and why.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) actor: String,
    pub(crate) reason: String,
}

/// Folds a journal's entries.
pub(crate) fn fold(entries: &[Entry]) -> EngineResult<Option<State>> {
    fold_onto(None, entries)
}

/// Folds entries onto what those before them came to.
pub(crate) fn fold_onto(mut state: Option<State>, entries: &[Entry]) -> EngineResult<Option<State>> {
    for entry in entries {
        state = Some(apply(state, &read(entry)?)?);
    }
    Ok(state)
}

/// The event that an entry holds.
pub(crate) fn read(entry: &Entry) -> EngineResult<Event> {
    serde_json::from_value(entry.body.clone()).map_err(|error| EngineError::Mismatch {
        what: format!("journal entry {} (`{}`) can't be read: {error}", entry.seq, entry.kind),
        hint: "it was written by another version of cutover, or changed: `cutover audit --verify` tells".to_owned(),
    })
}

impl<'a> Log<'a> {
    pub(crate) async fn load(journal: &'a dyn Journal) -> EngineResult<Self> {
        let entries = journal.load().await?;
        let position = entries.last().map_or(Position::ORIGIN, |entry| Position { seq: entry.seq, epoch: entry.epoch });
        Ok(Self { journal, position, state: fold(&entries)? })
    }

    pub(crate) fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The state of a cutover that has begun.
    pub(crate) fn begun(&self) -> EngineResult<&State> {
        self.state.as_ref().ok_or(EngineError::Refused(cutover_core::Refusal::NotBegun))
    }

    /// What the core makes of a command, without saying it.
    pub(crate) fn decide(&self, command: Command) -> EngineResult<Vec<Event>> {
        Ok(decide(self.state.as_ref(), command)?)
    }

    /// Appends events that were decided. They are durable when this returns.
    pub(crate) async fn append(&mut self, events: Vec<Event>, voice: &Voice) -> EngineResult<Vec<(Entry, Event)>> {
        let mut state = self.state.clone();
        let mut drafts = Vec::with_capacity(events.len());
        for event in &events {
            let after = apply(state, event)?;
            drafts.push(draft(event, after.epoch, voice)?);
            state = Some(after);
        }
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let entries = match self.journal.append_if(self.position, drafts.clone()).await {
            Ok(entries) => entries,
            Err(AppendError::Conflict { .. }) => {
                return Err(EngineError::Superseded("its journal has entries that are not ours".to_owned()));
            }
            Err(AppendError::Unknown { source }) => self.settle(&drafts, &source.to_string()).await?,
            Err(error) => return Err(EngineError::Append(error)),
        };
        if let Some(newest) = entries.last() {
            self.position = Position { seq: newest.seq, epoch: newest.epoch };
        }
        self.state = state;
        Ok(entries.into_iter().zip(events).collect())
    }

    /// Reads the journal until it is known whether the drafts are in it. Nothing else is touched meanwhile.
    async fn settle(&self, drafts: &[Draft], cause: &str) -> EngineResult<Vec<Entry>> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            if let Ok(entries) = self.journal.load().await {
                let newer: Vec<Entry> = entries.into_iter().filter(|entry| entry.seq > self.position.seq).collect();
                if newer.is_empty() {
                    // Not there. Appending again is safe: it is conditional on the same position.
                    return match self.journal.append_if(self.position, drafts.to_vec()).await {
                        Ok(entries) => Ok(entries),
                        Err(error) => Err(unknown(drafts, &error.to_string())),
                    };
                }
                let ours = newer.len() == drafts.len() && newer.iter().zip(drafts).all(|(entry, draft)| entry.is_from(draft));
                return if ours { Ok(newer) } else { Err(EngineError::Superseded("its journal has entries that are not ours".to_owned())) };
            }
            if Instant::now() >= deadline {
                return Err(unknown(drafts, cause));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn unknown(drafts: &[Draft], cause: &str) -> EngineError {
    let kinds: Vec<&str> = drafts.iter().map(|draft| draft.kind.as_str()).collect();
    EngineError::Unknown {
        what: format!("it is not known whether the journal took `{}`: {cause}", kinds.join(", ")),
        look: "both databases are left as they are. Bring the journal back, look with `cutover audit`, then `cutover run --until ready` goes on from what it says"
            .to_owned(),
    }
}

fn draft(event: &Event, epoch: u64, voice: &Voice) -> EngineResult<Draft> {
    let body = serde_json::to_value(event).map_err(|error| EngineError::Mismatch {
        what: format!("`{}` can't be written down: {error}", event.kind()),
        hint: "report this as a bug".to_owned(),
    })?;
    Ok(Draft { epoch, at_ms: now_ms(), actor: voice.actor.clone(), reason: voice.reason.clone(), kind: event.kind().to_owned(), body })
}

/// Milliseconds since 1970, for people. All that is decided by it is whether a verification is too old to count.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
