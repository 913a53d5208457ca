//! What verifications have established, as the journal tells it: the last one that came to its end, and how far one came
//! that was broken off.

use std::time::Duration;

use cutover_core::{Command, Event, Lsn, Preparation, State, Verification, VerifiedTable, plan::InPause};
use cutover_postgres::{catalogue::QualifiedName, verify::Report};
use serde::Serialize;

use crate::{
    Cutover, EngineError, EngineResult,
    log::{Log, Voice, now_ms, read},
};

/// For so long a verification that was broken off can be gone on with. Its claim begins where it began.
const RESUME_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What is known of the sides as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The last verification of all tables, if it found no difference: since the side in charge is in charge, and since
    /// rows were repaired.
    pub last: Option<LastVerification>,
    /// Rows were found to differ, by a verification or by a switch, and all tables have not been found equal since.
    pub different: bool,
}

/// The last verification of the sides as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastVerification {
    /// Tables compared.
    pub tables: u64,
    /// Rows compared.
    pub rows: u64,
    /// The position of the authority's log before the first row was compared; absent in journals of earlier versions.
    pub lsn: Option<Lsn>,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: i64,
}

impl LastVerification {
    /// How long ago it ended.
    #[must_use]
    pub fn age(&self) -> Duration {
        age(self.at_ms)
    }
}

impl Cutover {
    /// What verifications and switches have found, as the journal tells it.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub async fn known(&self) -> EngineResult<Known> {
        Ok(known(&self.history().await?))
    }

    /// Whether both sides are to be compared again before a switch: by what the plan says of the last verification's age,
    /// and where they are known to differ.
    #[must_use]
    pub fn is_verification_due(&self, known: &Known) -> bool {
        is_due(known, self.plan.verify.max_age, self.plan.verify.in_pause)
    }

    /// What has happened, and when, in milliseconds since 1970.
    pub(crate) async fn history(&self) -> EngineResult<Vec<(i64, Event)>> {
        self.entries().await?.iter().map(|entry| Ok((entry.at_ms, read(entry)?))).collect()
    }

    /// Keeps in the journal what a verification of all tables found that began when the cutover stood at `before`,
    /// unless the database changed hands meanwhile: then it is about no side in charge. It drives nothing.
    ///
    /// # Errors
    /// [`EngineError::Held`] where somebody drives the cutover, [`EngineError::Refused`] where nothing follows.
    pub(crate) async fn keep_verification(&self, actor: &str, reason: &str, before: &State, report: &Report) -> EngineResult<()> {
        let hold = self.journal.drive(actor).await.map_err(EngineError::Held)?;
        let kept = self.append_verification(Voice { actor: actor.to_owned(), reason: reason.to_owned() }, before, report).await;
        // Whoever drives next must not meet it: a repair may follow at once.
        hold.release().await;
        kept
    }

    async fn append_verification(&self, voice: Voice, before: &State, report: &Report) -> EngineResult<()> {
        let mut log = Log::load(&*self.journal).await?;
        let now = log.begun()?;
        if (now.authority, &now.pauses) != (report.authority, &before.pauses) {
            return Ok(());
        }
        let events = log.decide(Command::Verified(verification(report)))?;
        log.append(events, &voice).await?;
        Ok(())
    }
}

/// What a report has established.
pub(crate) fn verification(report: &Report) -> Verification {
    Verification { lsn: report.lsn, tables: report.tables, rows: report.rows, differences: report.differences_total }
}

fn known(history: &[(i64, Event)]) -> Known {
    let mut known = Known::default();
    for &(at_ms, ref event) in history {
        match event {
            Event::Prepared { step: Preparation::Verify, facts } => {
                let number = |name: &str| facts.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
                let lsn = facts.get("lsn").and_then(|lsn| lsn.as_str()).and_then(|lsn| lsn.parse().ok());
                known.last = Some(LastVerification { tables: number("tables"), rows: number("rows"), lsn, at_ms });
            }
            Event::Verified(Verification { lsn, tables, rows, differences: 0 }) => {
                let last = LastVerification { tables: *tables, rows: *rows, lsn: Some(*lsn), at_ms };
                known = Known { last: Some(last), different: false };
            }
            Event::Verified(_) => known = Known { last: None, different: true },
            Event::Abandoned { differences, .. } if *differences > 0 => known = Known { last: None, different: true },
            // Whichever side is in charge, and whatever was repaired: only a look at everything says that nothing differs.
            Event::Committed | Event::RepairStarted { .. } => known.last = None,
            _ => {}
        }
    }
    known
}

/// The tables that a verification had finished when it was broken off, not long ago. Those whose rows were repaired since
/// are not among them.
pub(crate) fn unfinished(history: &[(i64, Event)], max_age: Option<Duration>) -> Vec<VerifiedTable> {
    let within = max_age.unwrap_or(RESUME_WITHIN).min(RESUME_WITHIN);
    let mut finished: Vec<VerifiedTable> = Vec::new();
    let mut before_repair = Vec::new();
    for (at_ms, event) in history {
        match event {
            Event::TablesVerified { tables } if age(*at_ms) <= within => finished.extend(tables.iter().cloned()),
            // Not known what became of it, until it has come to its end.
            Event::RepairStarted { .. } => before_repair = std::mem::take(&mut finished),
            Event::Repaired { still_different: 0, tables, .. } => {
                finished = std::mem::take(&mut before_repair);
                finished.retain(|table| !tables.contains_key(&name(table).to_string()));
            }
            Event::Prepared { .. } | Event::Verified(Verification { differences: 0, .. }) | Event::Committed => finished.clear(),
            Event::Abandoned { differences, .. } if *differences > 0 => finished.clear(),
            _ => {}
        }
    }
    finished
}

fn is_due(known: &Known, max_age: Option<Duration>, in_pause: InPause) -> bool {
    match max_age {
        Some(max_age) => known.last.as_ref().is_none_or(|last| last.age() > max_age),
        None => known.different && in_pause == InPause::Changed,
    }
}

fn name(table: &VerifiedTable) -> QualifiedName {
    QualifiedName { schema: table.schema.clone(), name: table.name.clone() }
}

/// How long ago a moment is. One that is to come, by a clock that was wrong, is as far from now as one gone by.
fn age(at_ms: i64) -> Duration {
    Duration::from_millis(now_ms().abs_diff(at_ms))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn now(events: &[Event]) -> Vec<(i64, Event)> {
        events.iter().map(|event| (now_ms(), event.clone())).collect()
    }

    fn equal(names: &[&str]) -> Event {
        let table = |name: &&str| VerifiedTable {
            schema: "public".to_owned(),
            name: (*name).to_owned(),
            definition: String::new(),
            lsn: Lsn(7),
            rows: 3,
        };
        Event::TablesVerified { tables: names.iter().map(table).collect() }
    }

    fn verified(differences: u64) -> Event {
        Event::Verified(Verification { lsn: Lsn(7), tables: 2, rows: 6, differences })
    }

    fn repaired(still_different: u64, table: &str) -> Event {
        let tables = BTreeMap::from([(table.to_owned(), 1)]);
        Event::Repaired { repaired: 1, equal_meanwhile: 0, still_different, tables }
    }

    fn left(events: &[Event]) -> Vec<String> {
        unfinished(&now(events), None).into_iter().map(|table| table.name).collect()
    }

    fn is_known(events: &[Event]) -> bool {
        known(&now(events)).last.is_some()
    }

    fn abandoned(differences: u64) -> Event {
        Event::Abandoned { why: "a row differs".to_owned(), differences }
    }

    #[test]
    fn a_verification_is_due_by_its_age() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let ended = |at_ms: i64| Known { last: Some(LastVerification { tables: 1, rows: 1, lsn: None, at_ms }), different: false };
        let is_due = |known: &Known, max_age: Option<Duration>| is_due(known, max_age, InPause::Changed);
        let last = ended(now_ms() - 5 * 60 * 1000);
        assert!(!is_due(&last, None) && !is_due(&Known::default(), None));
        assert!(!is_due(&last, Some(minutes(10))));
        assert!(is_due(&last, Some(minutes(4))));
        assert!(is_due(&Known::default(), Some(minutes(4))), "since a switch none was done");
        assert!(is_due(&ended(now_ms() + 5 * 60 * 1000), Some(minutes(4))), "the clock was wrong");
    }

    #[test]
    fn what_is_known_to_differ_is_verified_again_until_nothing_does() {
        let due = |events: &[Event]| is_due(&known(&now(events)), None, InPause::Changed);
        assert!(!due(&[verified(0)]) && !due(&[verified(0), abandoned(0)]));
        for found in [verified(1), abandoned(1)] {
            assert!(due(&[verified(0), found.clone()]));
            assert!(due(&[found.clone(), Event::RepairStarted { rows: 1 }, repaired(0, "public.a")]), "nobody looked at the others");
            assert!(due(&[found.clone(), Event::Committed, Event::Committed]), "it still differs after the way back");
            assert!(!due(&[found, verified(0)]));
        }
        assert!(!is_due(&known(&now(&[abandoned(1)])), None, InPause::Off), "the plan goes without");
    }

    #[test]
    fn a_difference_a_repair_and_a_switch_end_what_was_known() {
        assert!(is_known(&[verified(0)]));
        assert!(!is_known(&[verified(0), verified(1)]));
        assert!(!is_known(&[verified(0), Event::RepairStarted { rows: 1 }, repaired(0, "public.a")]));
        assert!(!is_known(&[verified(0), Event::Committed]));
        assert!(is_known(&[verified(0), abandoned(0)]));
        assert!(!is_known(&[verified(0), abandoned(1)]), "a switch that found a row that differs");
        assert!(is_known(&[verified(1), verified(0)]));
    }

    #[test]
    fn what_was_finished_counts_until_the_end_and_not_where_it_was_repaired() {
        assert_eq!(left(&[equal(&["a"]), equal(&["b"])]), ["a", "b"]);
        assert_eq!(left(&[equal(&["a"]), verified(1)]), ["a"], "the one that differs is compared again, and not all");
        assert!(left(&[equal(&["a"]), verified(0)]).is_empty());
        assert!(left(&[equal(&["a"]), Event::Committed]).is_empty());
        assert_eq!(left(&[equal(&["a"]), abandoned(0)]), ["a"]);
        assert!(left(&[equal(&["a"]), abandoned(1)]).is_empty(), "it may be one of its rows");
        let begun = Event::RepairStarted { rows: 1 };
        assert_eq!(left(&[equal(&["a", "b"]), begun.clone(), repaired(0, "public.b")]), ["a"]);
        assert!(left(&[equal(&["a", "b"]), begun.clone(), repaired(1, "public.b")]).is_empty(), "which still differs is not known");
        assert!(left(&[equal(&["a", "b"]), begun]).is_empty(), "nor where it did not come to its end");
    }

    #[test]
    fn what_was_finished_long_ago_is_compared_again() {
        let history = [(now_ms() - 25 * 3600 * 1000, equal(&["old"])), (now_ms() - 3600 * 1000, equal(&["new"]))];
        let names = |max_age| unfinished(&history, max_age).into_iter().map(|table| table.name).collect::<Vec<_>>();
        assert_eq!(names(None), ["new"]);
        assert_eq!(names(Some(Duration::from_secs(48 * 3600))), ["new"]);
        assert!(names(Some(Duration::from_secs(60))).is_empty());
    }
}
