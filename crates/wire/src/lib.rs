//! How clients, agents and the command line reach a server: JSON over HTTP, within a time, and with whom to trust.
//!
//! A [`Reach`] is what was said of a server, checked before anything is sent; a [`Wire`] asks it. A [`Failure`] says why
//! there is no answer. [`trust`] alone is for those who ask servers of others.

pub mod operations;
pub mod pace;
mod reach;
mod wire;

pub use reach::{Reach, ReachError, Token, trust};
pub use reqwest::Method;
pub use wire::{Failure, Wire};
