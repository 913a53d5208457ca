//! The whole switch, on real servers, under real load, through the command that people type.

#![cfg(test)]

mod awkward;
mod campaign;
mod changed;
mod checks;
#[path = "../process/collector.rs"]
#[allow(dead_code, reason = "requests, which have attributes, are looked at elsewhere")]
mod collector;
mod compatibility;
mod contrib;
mod controllers;
#[path = "../../../traffic/tests/doubles/mod.rs"]
#[allow(dead_code, reason = "the suite of the flag services, which has them, uses more")]
mod doubles;
mod faults;
mod filters;
mod flagd;
mod flags;
mod following;
mod handover;
mod known;
mod large_objects;
mod many;
mod recovery;
mod rehearse;
mod rehearse_servers;
mod remote;
mod repair;
mod resuming;
mod samples;
#[path = "../process/server.rs"]
mod server;
mod services;
mod serving;
mod set_ups;
mod shadow_serving;
mod shop;
mod sql;
mod sql_looks;
#[path = "../process/providers.rs"]
mod stock;
mod there_and_back;
mod traces;
mod trial;
mod trouble;
mod verified;
mod world;
mod xml;
