//! The PostgreSQL engine: gate, preflight, copy, streams, verification.

pub mod catalogue;
pub mod clone;
pub mod connect;
pub mod copy;
pub mod coverage;
mod error;
pub mod follow;
pub mod gate;
pub mod identity;
pub mod index;
pub mod large_objects;
pub mod limit;
pub mod names;
mod pool;
pub mod preflight;
mod replication;
mod roles;
pub mod schema;
pub mod sequences;
pub mod sessions;
pub mod shadow;
mod stamp;
mod startup;
pub mod stream;
pub mod tools;
pub mod verify;

pub use error::{PgError, PgResult};
