//! `cutover serve`, asked by whoever asks it: applications, dashboards, and those who should not.
//!
//! What it tells of a real switch is in `tests/switch/serving.rs`; here no database is needed.

#![cfg(test)]

mod access;
mod agent;
#[path = "../process/collector.rs"]
mod collector;
mod flagd;
mod flags;
mod ground;
mod keys;
mod manners;
mod operations;
mod permits;
mod providers;
mod remote;
mod sdk;
#[path = "../process/server.rs"]
mod server;
#[path = "../process/providers.rs"]
mod stock;
mod traces;
