//! The pure core of `cutover`: what a cutover is, which states it can be in, and what may happen next.
//!
//! Nothing in here does anything. There is no input or output, no clock, no randomness and no
//! environment: time and chance are arguments. The same [`decide`], [`apply`] and [`next`] serve the
//! live run and recovery, so a driver that died is replaced by one that folds the journal and goes on.

pub mod clients;
mod command;
mod event;
mod lsn;
pub mod operations;
pub mod plan;
mod route;
pub mod shift;
mod side;
mod state;
mod step;
mod transition;

pub use command::{Command, Illegal, Refusal};
pub use event::{Acknowledged, Changes, Event, Fence, Identity, PlanRef, Shape, Snapshot, Verification, VerifiedTable};
pub use lsn::{Lsn, ParseLsnError};
pub use plan::Plan;
pub use route::{Ladder, Route, Stage, Writes};
pub use side::{Side, Stream};
pub use state::{Pause, Phase, State, Switch, Trial};
pub use step::{Action, Hook, Preparation, Step, StepSpec};
pub use transition::{apply, decide, next, replay};
