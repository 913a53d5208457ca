//! The only doer: observes, lets the core decide, journals, then acts.

mod account;
mod archive;
mod audience;
mod cutover;
mod describe;
mod driver;
mod error;
mod failpoint;
mod follower;
mod journal;
mod log;
mod perform;
pub mod rehearse;
mod repair;
mod report;
pub mod shadow;
mod sides;
mod status;
pub mod traces;
mod verification;
mod verified;

pub use account::{Account, PauseLine, TrialLine};
pub use cutover::{Cutover, Goal, STATE};
pub use cutover_postgres::coverage::LeftOut;
pub use describe::{Call, CheckPlan, Described, StepPlan};
pub use driver::Drive;
pub use error::{EngineError, EngineResult};
pub use failpoint::Failpoint;
pub use follower::Follower;
pub use report::{Notice, Progress, Report, Silent};
pub use status::{SideStatus, Status, TrafficStatus};
pub use verification::{Found, MOST_NAMED, Shortfall, Wanted, table};
pub use verified::{Known, LastVerification};
