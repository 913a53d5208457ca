//! Operations that are counted here until the server is told of them, each once.
//!
//! A [`Tally`] counts; an [`Outbox`] tells. A request whose answer was lost is sent again as it was, so that the server can
//! see that it has it already.

use std::time::Duration;

use cutover_api::{MOST_DURATIONS, MOST_NAME, MOST_SERIES, OperationOutcome, OperationsRequest, Series, Side, rounded};
use reqwest::Method;
use tokio::time::{sleep, timeout};

use crate::{Failure, Wire, pace};

/// How often the server is told, where there is something to tell.
const PERIOD: Duration = Duration::from_secs(1);

/// How long to say nothing to a server that wants to hear nothing.
const REFUSED_REST: Duration = Duration::from_secs(30);

/// Series that are kept; more differ in something that should be no part of a name.
const MOST_KEPT: usize = 1_000;

/// How long the server may take to hear it.
const LIMIT: Duration = Duration::from_secs(5);

/// What operations have in common that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind<'a> {
    /// What is moved.
    pub unit: &'a str,
    /// What was done.
    pub operation: &'a str,
    /// The store that was asked.
    pub store: Side,
    /// How it ended there.
    pub outcome: OperationOutcome,
}

/// Counts of operations, as many of each as took equally long.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// In the order of their kinds, and the durations of each in theirs.
    series: Vec<Series>,
    lost: u64,
}

impl Tally {
    /// Counts operations of one kind that took so many microseconds. Of a kind too many, or of one whose names no server would
    /// take, it is counted that they are lost.
    pub fn add(&mut self, kind: Kind<'_>, us: u64, times: u64) {
        let at = match self.series.binary_search_by(|series| self::kind(series).cmp(&kind)) {
            Ok(at) => at,
            Err(_) if self.series.len() >= MOST_KEPT || !is_name(kind.unit) || !is_name(kind.operation) => return self.lose(times),
            Err(at) => {
                let Kind { unit, operation, store, outcome } = kind;
                let (unit, operation) = (unit.to_owned(), operation.to_owned());
                self.series.insert(at, Series { unit, operation, store, outcome, durations: Vec::new() });
                at
            }
        };
        let (durations, us) = (&mut self.series[at].durations, rounded(us));
        match durations.binary_search_by_key(&us, |[us, _]| *us) {
            Ok(at) => durations[at][1] = durations[at][1].saturating_add(times),
            Err(at) => durations.insert(at, [us, times]),
        }
    }

    /// Counts what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for series in &other.series {
            series.durations.iter().for_each(|[us, times]| self.add(kind(series), *us, *times));
        }
        self.lose(other.lost);
    }

    /// Counts operations of which nothing more is known.
    pub fn lose(&mut self, times: u64) {
        self.lost = self.lost.saturating_add(times);
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.lost == 0
    }

    /// Takes out as much as fits into one request.
    fn take(&mut self) -> (Vec<Series>, u64) {
        let (mut taken, mut left) = (Vec::new(), MOST_DURATIONS);
        while left > 0 && taken.len() < MOST_SERIES {
            let Some(series) = self.series.last_mut() else { break };
            let durations = series.durations.split_off(series.durations.len().saturating_sub(left));
            left -= durations.len();
            taken.push(Series { durations, ..series.clone() });
            if series.durations.is_empty() {
                self.series.pop();
            }
        }
        (taken, std::mem::take(&mut self.lost))
    }
}

fn kind(series: &Series) -> Kind<'_> {
    Kind { unit: &series.unit, operation: &series.operation, store: series.store, outcome: series.outcome }
}

/// What a server is still to be told of.
#[derive(Debug)]
pub struct Outbox {
    /// What is counted and not in a request yet.
    pub tally: Tally,
    /// Sent, and not answered yet.
    pending: Option<OperationsRequest>,
    incarnation: String,
    sequence: u64,
}

/// How telling went.
enum Told {
    /// There is no more to tell now.
    All,
    /// The server did not answer; it will be told again.
    Not(Failure),
    /// It wants to hear nothing of this, and the operations are lost.
    Refused(Failure),
}

impl Outbox {
    /// Of a process that calls itself so.
    #[must_use]
    pub fn new(incarnation: String) -> Self {
        Self { tally: Tally::default(), pending: None, incarnation, sequence: 0 }
    }

    /// Tells the server again and again, after `collect` has put into the tally what there is to tell. Never comes back; where it
    /// is given up, nothing is lost.
    pub async fn keep_telling(&mut self, wire: &Wire, mut collect: impl FnMut(&mut Tally)) {
        let mut failures = 0_u32;
        loop {
            let rest = match self.tell(wire).await {
                Told::All => {
                    failures = 0;
                    PERIOD
                }
                Told::Not(failure) => {
                    tracing::debug!(%failure, "the server could not be told of operations; it will be");
                    failures = failures.saturating_add(1);
                    PERIOD + pace::after_failure(failures, Duration::ZERO)
                }
                Told::Refused(failure) => {
                    tracing::warn!(%failure, "the server does not want to hear of operations; they are not counted there");
                    REFUSED_REST
                }
            };
            sleep(rest).await;
            collect(&mut self.tally);
        }
    }

    /// Tells what is left, once.
    pub async fn tell_last(&mut self, wire: &Wire) {
        if !matches!(timeout(pace::GOODBYE_LIMIT, self.tell(wire)).await, Ok(Told::All)) {
            tracing::debug!("the server could not be told of the last operations");
        }
    }

    /// In as many requests as it takes. One that was not answered is sent again as it was.
    async fn tell(&mut self, wire: &Wire) -> Told {
        while let Some(request) = self.next() {
            match wire.tell(Method::POST, "v1/operations", request, LIMIT).await {
                Ok(()) => self.pending = None,
                Err(failure) if failure.is_rejection() => {
                    let refused = self.pending.take().map_or(0, |refused| count(&refused.series).saturating_add(refused.lost));
                    self.tally.lose(refused);
                    return Told::Refused(failure);
                }
                Err(failure) => return Told::Not(failure),
            }
        }
        Told::All
    }

    /// The request that was sent last and not answered, else a new one.
    fn next(&mut self) -> Option<&OperationsRequest> {
        if self.pending.is_none() && !self.tally.is_empty() {
            self.sequence += 1;
            let (series, lost) = self.tally.take();
            self.pending = Some(OperationsRequest { incarnation: self.incarnation.clone(), sequence: self.sequence, series, lost });
        }
        self.pending.as_ref()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MOST_NAME && !text.chars().any(char::is_control)
}

fn count(series: &[Series]) -> u64 {
    series.iter().flat_map(|series| &series.durations).fold(0, |sum, [_, times]| sum.saturating_add(*times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(unit: &str) -> Kind<'_> {
        Kind { unit, operation: "get", store: Side::Target, outcome: OperationOutcome::Ok }
    }

    #[test]
    fn operations_of_a_kind_that_took_equally_long_are_one_number() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.add(read("images"), 100, 1);
        one.add(read("images"), 100, 2);
        other.add(read("images"), 9, 1);
        other.add(read("albums"), 100, 1);
        other.lose(5);
        one.merge(&other);
        let series = |unit: &str, durations: &[[u64; 2]]| {
            let Kind { operation, store, outcome, .. } = read(unit);
            Series { unit: unit.to_owned(), operation: operation.to_owned(), store, outcome, durations: durations.to_vec() }
        };
        assert_eq!(one.take(), (vec![series("images", &[[9, 1], [100, 3]]), series("albums", &[[100, 1]])], 5));
        assert!(one.is_empty());
    }

    #[test]
    fn what_does_not_fit_into_one_request_goes_with_the_next_and_nothing_is_told_twice() {
        let mut outbox = Outbox::new("a".to_owned());
        for unit in 0..MOST_SERIES + 5 {
            (0..100).for_each(|us| outbox.tally.add(read(&unit.to_string()), us, 1));
        }
        let (mut told, mut requests) = (0, 0);
        while let Some(request) = outbox.next().cloned() {
            assert!(request.series.len() <= MOST_SERIES);
            assert!(request.series.iter().map(|series| series.durations.len()).sum::<usize>() <= MOST_DURATIONS);
            assert!(serde_json::to_vec(&request).unwrap().len() < 64 * 1024);
            assert_eq!(outbox.next(), Some(&request), "until it is answered");
            requests += 1;
            assert_eq!(request.sequence, requests);
            told += count(&request.series);
            outbox.pending = None;
        }
        assert_eq!(told, 100 * (MOST_SERIES as u64 + 5));
    }

    #[test]
    fn names_that_are_never_the_same_take_no_more_memory_than_others() {
        let mut tally = Tally::default();
        (0..MOST_KEPT + 7).for_each(|id| tally.add(read(&id.to_string()), 1, 3));
        assert_eq!((tally.series.len(), tally.lost), (MOST_KEPT, 21));
        let mut tally = Tally::default();
        ["", "a\nb", &"x".repeat(101)].into_iter().for_each(|unit| tally.add(read(unit), 1, 1));
        assert_eq!((tally.series.len(), tally.lost), (0, 3), "a server would refuse the whole request");
    }
}
