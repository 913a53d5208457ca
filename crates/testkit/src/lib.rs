//! Throwaway databases, real load, fault injection and history checking.
//!
//! [`Cluster`] and [`PgBouncer`] are real servers on loopback that never outlive their owner, however it ends.
//! [`Proxy`] cuts, stalls and delays connections. [`bank`] fills a database, works on it like an application would,
//! and afterwards tells what became of every single write.

pub mod bank;
mod cluster;
pub mod compare;
mod connection;
#[cfg(feature = "encryption")]
mod encryption;
mod error;
mod options;
mod pgbouncer;
mod ports;
mod process;
mod proxy;
pub mod schemas;
mod servers;
mod wait;

pub use cluster::{Cluster, Stop};
#[cfg(feature = "encryption")]
pub use encryption::{Certificates, Encryption};
pub use error::{Error, Result};
pub use options::{Auth, ClusterOptions};
pub use pgbouncer::{Db, PgBouncer, PgBouncerOptions, PoolMode};
pub use proxy::Proxy;
pub use servers::{Install, PgBouncerInstall, install, installs, newest_tools, pgbouncer, pgbouncers, providers, sample};
pub use wait::{Attempt, Seed, eventually, rounds, tables};
