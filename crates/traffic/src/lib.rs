//! Traffic adapters: they hold an application's traffic, point it at the other database and let it go on.
//!
//! An [`Adapter`] stands for one place that decides where the application writes: a PgBouncer, a
//! variable in a configuration file, the user's own commands, or flags that it asks, ours or those of a service. Adapters know nothing of each other
//! and remember nothing: what they report is observed at that moment, so a driver that was replaced in
//! the middle of a cutover, or a PgBouncer that was restarted, changes nothing about how to go on.
//! A [`Fleet`] is all adapters of a plan, held and released together.

mod adapter;
mod command;
mod error;
mod file;
mod flags;
mod fleet;
mod pgbouncer;
mod revise;
mod services;

pub use adapter::{Adapter, Endpoint, Observation, Problem, Severity, build};
pub use command::{HookOutput, run_hook};
pub use error::{FileFault, TrafficError};
pub use flags::{Audience, AudienceError, FlagSettings, Flags, Routes, Waited};
pub use fleet::Fleet;
pub use revise::KEPT_REVISIONS;
pub use services::{ServiceFault, services};
