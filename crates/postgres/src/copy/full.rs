//! Which tables are full, and what can be built on them then. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use super::{ledger::Entry, queue::Numbered};
use crate::index::Index;

/// What is still to be built, by table.
#[derive(Debug)]
pub(super) struct Full {
    indexes: Mutex<HashMap<u32, Vec<Index>>>,
    /// Tables that an earlier copy has filled.
    at_first: Vec<u32>,
}

impl Full {
    pub(super) fn new(indexes: HashMap<u32, Vec<Index>>, entries: &[Entry], left: &[Numbered]) -> Self {
        let unfinished: HashSet<u32> = left.iter().map(|numbered| numbered.task.table().oid).collect();
        let at_first: HashSet<u32> = entries.iter().map(|entry| entry.source_oid).filter(|oid| !unfinished.contains(oid)).collect();
        Self { indexes: Mutex::new(indexes), at_first: at_first.into_iter().collect() }
    }

    /// What can be built before any row is copied.
    pub(super) fn indexes_at_first(&self) -> Vec<Index> {
        self.at_first.iter().flat_map(|oid| self.indexes_on(*oid)).collect()
    }

    /// What can be built on a table that is full.
    pub(super) fn indexes_on(&self, oid: u32) -> Vec<Index> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).remove(&oid).unwrap_or_default()
    }
}
