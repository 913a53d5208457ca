//! A client and a server that speaks its protocol, over real connections, with a partition where one is wanted.
#![cfg(test)]

mod faults;
mod guards;
mod layer;
mod operations;
mod reads;
mod server;
mod settings;
mod traces;

use std::time::Duration;

/// So long that nothing in a test waits for it.
const LONG: Duration = Duration::from_secs(60);

/// So short that a test can wait for its end.
const SHORT: Duration = Duration::from_millis(900);

/// Until when a thing has to have happened that happens at once.
const SOON: Duration = Duration::from_secs(20);
