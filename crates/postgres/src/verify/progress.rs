//! How far a verification is, for whoever looks on.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use cutover_core::{Lsn, VerifiedTable};

use super::Comparison;
use crate::limit::Limiter;

/// How far a verification is. Written while it runs, and read from anywhere at any time.
#[derive(Debug, Default)]
pub struct Progress {
    tables: AtomicU64,
    tables_done: AtomicU64,
    estimated_rows: AtomicU64,
    rows_done: AtomicU64,
    chunks_done: AtomicU64,
    differences: AtomicU64,
    equal: Mutex<EqualTables>,
    limiter: Mutex<Option<Arc<Limiter>>>,
}

/// Tables that were found equal.
#[derive(Debug, Default)]
struct EqualTables {
    from: Lsn,
    tables: Vec<VerifiedTable>,
}

/// The numbers of a [`Progress`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressNumbers {
    /// Tables to compare; 0 until they are known.
    pub tables: u64,
    /// Tables compared.
    pub tables_done: u64,
    /// Rows to compare, as the planner estimates them; not counting tables that it never looked at.
    pub estimated_rows: u64,
    /// Rows compared.
    pub rows_done: u64,
    /// Chunks compared.
    pub chunks_done: u64,
    /// Differences and unsettled rows so far.
    pub differences: u64,
}

impl Progress {
    /// The numbers now. Each is right by itself; together they may be a moment apart.
    #[must_use]
    pub fn numbers(&self) -> ProgressNumbers {
        ProgressNumbers {
            tables: self.tables.load(Relaxed),
            tables_done: self.tables_done.load(Relaxed),
            estimated_rows: self.estimated_rows.load(Relaxed),
            rows_done: self.rows_done.load(Relaxed),
            chunks_done: self.chunks_done.load(Relaxed),
            differences: self.differences.load(Relaxed),
        }
    }

    /// What holds it up at the moment, if anything does.
    #[must_use]
    pub fn held(&self) -> Option<String> {
        self.limiter().as_ref().and_then(|limiter| limiter.held())
    }

    pub(super) fn held_by(&self, limiter: &Arc<Limiter>) {
        *self.limiter() = Some(Arc::clone(limiter));
    }

    /// Takes the tables that were compared since this was last asked, and are the same on both sides.
    #[must_use]
    pub fn take_equal(&self) -> Vec<VerifiedTable> {
        std::mem::take(&mut self.equal().tables)
    }

    /// Where the authority's log is before the first row is compared.
    pub(super) fn from(&self, lsn: Lsn) {
        *self.equal() = EqualTables { from: lsn, tables: Vec::new() };
    }

    pub(super) fn begin(&self, tables: u64, estimated_rows: u64) {
        self.tables.store(tables, Relaxed);
        self.estimated_rows.store(estimated_rows, Relaxed);
        for counter in [&self.tables_done, &self.rows_done, &self.chunks_done, &self.differences] {
            counter.store(0, Relaxed);
        }
    }

    pub(super) fn chunks_done(&self, chunks: u64, rows: u64, differences: u64) {
        self.chunks_done.fetch_add(chunks, Relaxed);
        self.rows_done.fetch_add(rows, Relaxed);
        self.differences.fetch_add(differences, Relaxed);
    }

    /// A table is compared.
    pub(super) fn table_done(&self, table: &Comparison) {
        self.tables_done.fetch_add(1, Relaxed);
        if !table.faulty.load(Relaxed) {
            let mut equal = self.equal();
            let verified = VerifiedTable {
                schema: table.name.schema.clone(),
                name: table.name.name.clone(),
                definition: table.definition.clone(),
                lsn: equal.from,
                rows: table.rows.load(Relaxed),
            };
            equal.tables.push(verified);
        }
    }

    fn limiter(&self) -> MutexGuard<'_, Option<Arc<Limiter>>> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn equal(&self) -> MutexGuard<'_, EqualTables> {
        self.equal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
