//! A shift: reads move step by step, while every write goes to both sides. Pure.
//!
//! [`Rungs`] are the stages in their order, [`judge`] says of what was measured whether it is good enough, and [`Way`] is where one
//! unit stands, with [`Way::decide`] as the only way to another stage. The functions that `cutover sql install` puts into a
//! database decide the same, and a test holds them against this.

mod judge;
mod rungs;
#[cfg(test)]
mod tests;
mod way;

pub use cutover_bucketing::{ALL, Salt};
pub use judge::{Compared, Health, Judgement, Limits, Measure, Measured, Reads, Tier, Watch, judge};
pub use rungs::{Rung, Rungs};
pub use way::{Decision, Evidence, Refusal, Way};
