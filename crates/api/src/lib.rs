//! What server, agent and clients say to each other: types and codes, no logic.
//!
//! Everything is JSON over HTTP, under `/v1/`. Unknown fields are ignored, so that an older client understands a newer
//! server; a field that is added is optional. Times are lengths, never instants: no two clocks have to agree.

mod agents;
mod drive;
mod operations;
mod permits;
mod problem;
mod trial;

pub use agents::{AgentPermit, AgentRequest, ClientSum, PlaceName};
pub use drive::{CompleteRequest, Drive, Outcome, RetireRequest, RollbackRequest, RunRequest, Until, VerifyRequest};
pub use operations::{
    LONGEST_US, MOST_DURATIONS, MOST_NAME, MOST_SERIES, OperationOutcome, OperationSummary, Operations, OperationsRequest, Series, rounded,
};
pub use permits::{Permit, PermitRequest, ShadowTable, Side, Unit, Writes, header};
pub use problem::{Code, Problem};
pub use trial::{TrialAnswer, TrialRequest};
