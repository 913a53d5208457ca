//! The control plane: one source of truth that every pod obeys, over HTTP.
//!
//! The server drives nothing of itself. It follows the journal, wherever the driver runs, and tells what follows from it:
//! flags ([OFREP](https://openfeature.dev/specification/appendix-c)), leases for clients that check before every write,
//! events, and everything that the command line tells. What it says about writes is true for as long as it is in touch
//! with the journal; when it isn't, it refuses them.

mod agent;
mod auth;
mod drive;
mod error;
mod evaluate;
mod events;
mod flagd;
mod front;
mod health;
mod heir;
mod house;
mod ofrep;
mod openapi;
mod operations;
mod permits;
mod problem;
mod read;
mod serve;
mod shadow;
mod story;
mod tokens;
mod traces;
mod trial;
mod verify;
mod words;

pub use agent::{Agent, Upstream, agent};
pub use error::ServerError;
pub use house::{Options, Tls};
pub use openapi::document;
pub use serve::{Server, serve};
pub use shadow::{TablesServer, Tell, serve_tables};
pub use tokens::{Role, Token, TokenFile};
