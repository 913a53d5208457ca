//! What is told to whoever collects traces: a span for each verb, for each step that it does, and for each action of those.
//!
//! All of them are of one target, [`TARGET`], and of the lowest level, so that no log has them; the command line gives them
//! to OpenTelemetry. They say what is done and not to which rows.

use tracing::{Instrument, Span, field::Empty, trace_span};

use crate::EngineResult;

/// The target of all that is meant for traces.
pub const TARGET: &str = "cutover_traces";

/// A verb, or a step of it.
pub(crate) fn span(name: &str, cutover: &str) -> Span {
    trace_span!(target: TARGET, "engine", otel.name = name, cutover.name = cutover, cutover.epoch = Empty, otel.status_code = Empty, otel.status_description = Empty)
}

/// Does what a span is about, and says in it if that failed.
pub(crate) async fn traced<T>(span: Span, work: impl Future<Output = EngineResult<T>>) -> EngineResult<T> {
    let done = work.instrument(span.clone()).await;
    if let Err(error) = &done {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
    done
}
