//! The PostgreSQL engine: gate, preflight, copy, streams, verification.

pub mod catalogue;
pub mod connect;
mod error;
pub mod sequences;
pub mod identity;
pub mod gate;
pub mod names;
mod startup;

pub use error::{PgError, PgResult};
