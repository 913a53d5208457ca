//! Preflight against real servers: a clean pair passes, each planted fault is found by name, and its fix mends it.

#![cfg(test)]

mod columns;
mod compatibility;
mod filters;
mod leftovers;
mod refused;
mod roles;
mod servers;
mod support;
mod tables;
