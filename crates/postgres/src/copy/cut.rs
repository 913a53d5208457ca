//! Where a large table is cut: by the pages that its rows lie in, or by its key where pages are no good. Pure.

use crate::names::literal;

/// The first version whose server reads a range of pages without reading the whole table for each.
const RANGE_SCANS_SINCE: u32 = 14;

/// When a table is split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The source's major version.
    pub(super) major: u32,
    /// Workers.
    pub(super) jobs: usize,
    /// The size of a part.
    pub(super) part_bytes: u64,
}

impl Rule {
    /// Whether a table is large enough to be split, and a range of its pages is no way to read a part of it.
    pub(super) fn wants_keys(&self, bytes: u64, heap: &Heap) -> bool {
        self.parts(bytes) > 1 && !self.reads_pages(heap)
    }

    /// In how many parts a table should be copied. The size counts with TOAST: few pages may hold most of a database. A
    /// single worker gains nothing from parts.
    fn parts(&self, bytes: u64) -> u64 {
        if self.jobs > 1 { bytes.div_ceil(self.part_bytes.max(1)) } else { 1 }
    }

    /// Which rows are in each part of a table. Fewer than two: it is not split.
    pub(super) fn conditions(&self, bytes: u64, heap: &Heap) -> Vec<String> {
        match &heap.keys {
            _ if self.reads_pages(heap) => page_conditions(heap.pages, self.parts(bytes)),
            Some(keys) => keys.conditions(self.parts(bytes)),
            None => Vec::new(),
        }
    }

    fn reads_pages(&self, heap: &Heap) -> bool {
        self.major >= RANGE_SCANS_SINCE && heap.paged
    }
}

/// How a table's rows lie at the source.
#[derive(Clone, Debug, Default)]
pub(super) struct Heap {
    /// Its pages, without TOAST.
    pub(super) pages: u64,
    /// Whether its rows lie in numbered pages at all: another access method may number them as it likes.
    pub(super) paged: bool,
    /// Where it can be cut by key, if its pages are no good for it and that is known.
    pub(super) keys: Option<Keys>,
}

/// Values of the first column of a primary key that have about as many rows between them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The column, quoted.
    pub(super) column: String,
    /// Its type, as SQL.
    pub(super) type_name: String,
    /// Ascending. Some of the rows may lie before the first and behind the last.
    pub(super) bounds: Vec<String>,
}

impl Keys {
    fn conditions(&self, parts: u64) -> Vec<String> {
        // The first and the last are those of the least and the greatest row that was seen.
        let inner = self.bounds.get(1..self.bounds.len().saturating_sub(1)).unwrap_or_default();
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).min(inner.len() + 1);
        let mut cuts: Vec<&String> = (1..parts).map(|at| &inner[at * inner.len() / parts]).collect();
        cuts.dedup();
        let value = |bound: &str| format!("{}::{}", literal(bound), self.type_name);
        between(
            &cuts,
            |bound| format!("{} OPERATOR(pg_catalog.>=) {}", self.column, value(bound)),
            |bound| format!("{} OPERATOR(pg_catalog.<) {}", self.column, value(bound)),
        )
    }
}

/// What is before the first cut, between each two, and behind the last.
fn between<T>(cuts: &[T], from: impl Fn(&T) -> String, below: impl Fn(&T) -> String) -> Vec<String> {
    (0..=cuts.len())
        .map(|at| {
            let from = at.checked_sub(1).and_then(|at| cuts.get(at)).map(&from);
            let below = cuts.get(at).map(&below);
            from.into_iter().chain(below).collect::<Vec<_>>().join(" AND ")
        })
        .collect()
}

/// Ranges of pages. The last has no end: rows may lie behind the last page that was known.
fn page_conditions(pages: u64, parts: u64) -> Vec<String> {
    let parts = parts.min(pages);
    let cuts: Vec<u64> = (1..parts).map(|at| share(pages, at, parts)).collect();
    between(&cuts, |page| format!("ctid >= '({page},0)'::tid"), |page| format!("ctid < '({page},0)'::tid"))
}

/// Whether a part is made of pages, so that it is another one when its rows are moved. No column can be called `ctid`.
pub(super) fn is_of_pages(condition: &str) -> bool {
    condition.starts_with("ctid ")
}

/// How much of something is before its part number `at`.
pub(super) fn share(total: u64, at: u64, parts: u64) -> u64 {
    u64::try_from(u128::from(total) * u128::from(at) / u128::from(parts.max(1))).unwrap_or(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { major: 15, jobs: 2, part_bytes: 1000 };

    #[test]
    fn where_pages_are_no_good_a_table_is_cut_by_its_key() {
        let keys = |bounds: &[&str]| Keys {
            column: "\"it's\"".to_owned(),
            type_name: "text".to_owned(),
            bounds: bounds.iter().map(|&bound| bound.to_owned()).collect(),
        };
        let conditions = |bounds: &[&str], bytes, rule: &Rule| -> Vec<String> {
            let heap = Heap { pages: 100, paged: true, keys: Some(keys(bounds)) };
            rule.conditions(bytes, &heap)
        };
        let old = Rule { major: 13, ..RULE };
        let bounds = ["a", "b", "c'd", "e", "f", "g"];
        let two = ["\"it's\" OPERATOR(pg_catalog.<) 'e'::text", "\"it's\" OPERATOR(pg_catalog.>=) 'e'::text"];
        assert_eq!(conditions(&bounds, 2000, &old), two);
        let many = conditions(&bounds, 1_000_000, &old);
        assert_eq!(many.len(), 5, "no more than there are values to cut at: {many:?}");
        assert_eq!(many[1], "\"it's\" OPERATOR(pg_catalog.>=) 'b'::text AND \"it's\" OPERATOR(pg_catalog.<) 'c''d'::text");
        assert_eq!(conditions(&["a", "b", "b", "b", "z"], 9000, &old).len(), 2, "no part is empty by its bounds");
        assert_eq!([&["a", "z"][..], &[]].map(|bounds| conditions(bounds, 9000, &old).len()), [1, 1], "nothing to cut at");
        assert!(conditions(&bounds, 9000, &RULE)[0].starts_with("ctid"), "pages are better where they are any good");
        let heap = Heap { pages: 9, paged: true, keys: None };
        assert!(old.wants_keys(2000, &heap) && !old.wants_keys(900, &heap) && !RULE.wants_keys(2000, &heap));
    }
}
