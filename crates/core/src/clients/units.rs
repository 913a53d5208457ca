//! What moves on its own, and where its reads go.

use cutover_bucketing::{ALL, Salt};

use crate::{Route, Side};

/// What moves on its own, as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name, in flags and in the salt of its keys.
    pub name: String,
    /// The share of its reads that goes to the target. Unit: basis points, 0 to 10000.
    pub target_reads: u16,
    /// Of a table that moves to its shadow: what its own database says of it.
    pub table: Option<ShadowTable>,
}

/// A table whose target is its shadow, in its own database. It is no part of the switch, and has a stage of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowTable {
    /// What sets its buckets apart: the same that its database decides by.
    pub salt: String,
    /// Where it stands.
    pub stage: String,
    /// Grows with each change of that.
    pub epoch: u64,
    /// Whether its database has not been heard of for a lease: then reads go where they went, and that is said.
    pub stale: bool,
}

impl Unit {
    /// The one unit of a switch: the whole database. Its reads go to the side in charge, also while writes are held.
    #[must_use]
    pub fn of_switch(route: &Route) -> Self {
        let target_reads = if route.authority == Side::Target { ALL } else { 0 };
        Self { name: "database".to_owned(), target_reads, table: None }
    }

    /// Whether it depends on the key where a read goes.
    #[must_use]
    pub fn is_split(&self) -> bool {
        (1..ALL).contains(&self.target_reads)
    }

    /// Where a read of this key goes; none if that depends on a key and there is none.
    #[must_use]
    pub fn reads_from(&self, cutover: &str, key: Option<&str>) -> Option<Side> {
        let key = if self.is_split() { key? } else { key.unwrap_or_default() };
        let salt = self.table.as_ref().map_or_else(|| Salt::of(cutover, &self.name), |table| Salt::new(&table.salt));
        Some(if salt.covers(key, self.target_reads) { Side::Target } else { Side::Source })
    }
}
