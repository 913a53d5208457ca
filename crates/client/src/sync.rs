//! The atomics that the gate is made of. The model in `model.rs` puts others in their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of writes under way are kept this many times over, so that threads seldom meet at one.
pub(crate) const SHARDS: usize = 16;
