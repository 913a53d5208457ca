//! What applications tell of their reads and writes. A server counts it; an agent passes it on.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json,
    extract::{Query, State, rejection::JsonRejection},
    http::StatusCode,
};
use cutover_api::{
    Code, MOST_DURATIONS, MOST_NAME, MOST_SERIES, OperationOutcome, OperationSummary, Operations, OperationsRequest, Problem, Series,
    rounded,
};
use cutover_core::operations::{Durations, Kind, Ledger, Outcome, Summary, Tellers, WINDOW_MS};
use cutover_wire::operations::Tally;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
    registry::Unit,
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    front::Front,
    permits::{line, unreadable},
    problem::{NotAllowed, NotUnderstood, Refusal},
    serve::App,
    words,
};

/// How far back, where nobody says.
const LATELY_SECONDS: u32 = 300;

/// The limits of a metric's buckets, from a tenth of a millisecond to ten seconds. Unit: microseconds.
const LIMITS_US: [u64; 16] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];

/// What was told here.
#[derive(Debug, Default)]
pub(crate) struct Told {
    tellers: Mutex<Tellers>,
    ledger: Arc<Mutex<Ledger>>,
    /// Of an agent: what its server is not told of yet.
    passing: Mutex<Tally>,
}

impl Told {
    /// For the metrics.
    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(Histograms(self.ledger.clone()))
    }

    /// Takes out what a server is to be told of.
    pub(crate) fn pass_on(&self, to: &mut Tally) {
        let passing = std::mem::take(&mut *locked(&self.passing));
        to.merge(&passing);
    }

    fn count(&self, request: OperationsRequest, now_ms: u64) {
        let mut ledger = locked(&self.ledger);
        for Series { unit, operation, store, outcome, durations } in request.series {
            let kind = Kind { unit, operation, store: words::core_side(store) };
            let outcome = core_outcome(outcome);
            durations.iter().for_each(|[us, times]| ledger.add(&kind, outcome, rounded(*us), *times, now_ms));
        }
        ledger.lose(request.lost);
    }

    fn keep_for_server(&self, request: &OperationsRequest) {
        let mut passing = locked(&self.passing);
        for Series { unit, operation, store, outcome, durations } in &request.series {
            let kind = cutover_wire::operations::Kind { unit, operation, store: *store, outcome: *outcome };
            durations.iter().for_each(|[us, times]| passing.add(kind, *us, *times));
        }
        passing.lose(request.lost);
    }
}

/// Takes what was counted since the last request. One that is sent again counts once.
#[utoipa::path(post, path = "/v1/operations", tag = "clients", request_body = OperationsRequest, responses(
    (status = 204, description = "Counted"),
    NotAllowed,
    NotUnderstood
))]
pub(crate) async fn tell(
    State(front): State<Front>,
    request: Result<Json<OperationsRequest>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    check(&request)?;
    let now_ms = front.ms(Instant::now());
    if locked(&front.told.tellers).is_new(&request.incarnation, request.sequence, now_ms) {
        match front.upstream() {
            Some(_) => front.told.keep_for_server(&request),
            None => front.told.count(request, now_ms),
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What the operations of the last minutes come to, by unit, operation and store: as far as this server was told.
#[utoipa::path(get, path = "/v1/operations", tag = "look", params(
    ("seconds" = Option<i32>, Query, minimum = 1, maximum = 3600, description = "How far back, in slots of 10 s; 300 where nobody says")
), responses(
    (status = 200, description = "What they come to", body = Operations),
    (status = 400, description = "Not understood", body = Problem),
    NotAllowed
))]
pub(crate) async fn lately(State(app): State<App>, Query(back): Query<Back>) -> Result<Json<Operations>, Refusal> {
    let seconds = back.seconds.unwrap_or(LATELY_SECONDS);
    let length_ms = u64::from(seconds) * 1_000;
    if length_ms == 0 || length_ms > WINDOW_MS {
        return Err(Refusal::new(Code::BadRequest, format!("`seconds` has to be from 1 to {}", WINDOW_MS / 1_000)));
    }
    let now_ms = app.front.ms(Instant::now());
    let (sums, lost) = {
        let ledger = locked(&app.front.told.ledger);
        (ledger.lately(now_ms, length_ms), ledger.lost())
    };
    // A server that was started since knows of no more than its own life.
    let seconds = (length_ms.min(now_ms).max(1) as f64) / 1_000.0;
    let operations = sums.into_iter().map(|(kind, sum)| summary(kind, &sum, seconds)).collect();
    Ok(Json(Operations { seconds, operations, lost }))
}

#[derive(Deserialize)]
pub(crate) struct Back {
    seconds: Option<u32>,
}

fn check(request: &OperationsRequest) -> Result<(), Refusal> {
    line("incarnation", &request.incarnation, 64)?;
    let durations: usize = request.series.iter().map(|series| series.durations.len()).sum();
    if request.series.len() > MOST_SERIES || durations > MOST_DURATIONS {
        let message = format!("`series` has to hold at most {MOST_SERIES}, with at most {MOST_DURATIONS} durations in all");
        return Err(Refusal::new(Code::BadRequest, message));
    }
    request.series.iter().try_for_each(|series| {
        line("unit", &series.unit, MOST_NAME)?;
        line("operation", &series.operation, MOST_NAME)
    })
}

fn summary(kind: Kind, sum: &Summary, seconds: f64) -> OperationSummary {
    let ms = |thousandths| sum.durations.at_most(thousandths).map(|us| us as f64 / 1_000.0);
    OperationSummary {
        unit: kind.unit,
        operation: kind.operation,
        store: words::side(kind.store),
        count: sum.count(),
        per_second: sum.count() as f64 / seconds,
        error_rate: sum.error_rate(),
        fallback_rate: sum.fallback_rate(),
        mismatch_rate: sum.mismatch_rate(),
        p50_ms: ms(500),
        p95_ms: ms(950),
        p99_ms: ms(990),
    }
}

fn core_outcome(outcome: OperationOutcome) -> Outcome {
    match outcome {
        OperationOutcome::Ok => Outcome::Ok,
        OperationOutcome::Agreed => Outcome::Agreed,
        OperationOutcome::Differed => Outcome::Differed,
        OperationOutcome::FellBack => Outcome::FellBack,
        OperationOutcome::Failed => Outcome::Failed,
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was told since the server started, as metrics.
#[derive(Debug)]
struct Histograms(Arc<Mutex<Ledger>>);

impl Collector for Histograms {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = locked(&self.0);
        let lost = ConstCounter::new(ledger.lost());
        lost.encode(encoder.encode_descriptor(
            "operations_lost",
            "Operations that could not be told or kept",
            None,
            MetricType::Counter,
        )?)?;
        let help = "How long the application's operations took, by what was asked and how it ended";
        let mut family = encoder.encode_descriptor("operation", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (kind, outcome, durations) in ledger.totals() {
            let store = kind.store.to_string();
            let labels = [("unit", kind.unit.as_str()), ("operation", &kind.operation), ("store", &store), ("outcome", outcome.name())];
            let sum = durations.sum() as f64 / 1e6;
            let no_exemplars = None::<&std::collections::HashMap<usize, prometheus_client::metrics::exemplar::Exemplar<NoLabels, f64>>>;
            family.encode_family(&labels)?.encode_histogram(sum, durations.count(), &buckets(durations), no_exemplars)?;
        }
        Ok(())
    }
}

type NoLabels = [(&'static str, &'static str); 0];

/// Limits in seconds, and how many are within each and above the one before.
fn buckets(durations: &Durations) -> Vec<(f64, u64)> {
    let limits = LIMITS_US.into_iter().chain([u64::MAX]).collect::<Vec<_>>();
    let seconds = |us: &u64| if *us == u64::MAX { f64::INFINITY } else { *us as f64 / 1e6 };
    limits.iter().map(seconds).zip(durations.between(&limits)).collect()
}
