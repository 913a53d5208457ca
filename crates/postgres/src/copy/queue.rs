//! What the workers are handed: whole tables, and parts of the large ones, in an order that ends evenly. Pure.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release},
    },
};

use super::{
    cut::{Heap, Rule, share},
    ledger::Entry,
};
use crate::catalogue::Table;

/// A task under the number by which it is written down.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) id: i32,
    pub(super) task: Task,
}

/// A unit of work.
#[derive(Debug)]
pub(super) enum Task {
    /// A table that one worker copies.
    Whole(Table),
    /// A part of a table that several may copy at once.
    Part(Part),
}

impl Task {
    pub(super) fn table(&self) -> &Table {
        match self {
            Self::Whole(table) => table,
            Self::Part(part) => &part.of.table,
        }
    }
}

/// A part of a table.
#[derive(Debug)]
pub(super) struct Part {
    /// The table, with what its parts have in common.
    pub(super) of: Arc<Split>,
    /// Which rows are in it.
    pub(super) condition: String,
    /// What is expected to be sent.
    pub(super) bytes: u64,
    /// Where it stands in its table: from 0 for its beginning.
    share: f64,
}

/// A table that is copied in parts.
#[derive(Debug)]
pub(super) struct Split {
    /// The table.
    pub(super) table: Table,
    left: AtomicUsize,
    rows: AtomicU64,
    moved: AtomicBool,
}

impl Split {
    fn new(table: Table, parts: usize) -> Self {
        Self { table, left: AtomicUsize::new(parts), rows: AtomicU64::new(0), moved: AtomicBool::new(false) }
    }

    /// A table of which some parts are done.
    fn resumed(mut table: Table, entries: &[Entry]) -> Self {
        let parts = || entries.iter().filter(|entry| entry.source_oid == table.oid);
        let left = parts().filter(|entry| !entry.done).count();
        let (rows, bytes) = (parts().map(|entry| entry.rows).sum(), parts().map(|entry| entry.expected).sum::<u64>());
        table.bytes = bytes.cast_signed();
        Self { rows: AtomicU64::new(rows), ..Self::new(table, left) }
    }

    /// Says that its rows were moved to other pages, so that its parts do not fit together.
    pub(super) fn set_moved(&self) {
        self.moved.store(true, Release);
    }

    /// Whether they were.
    pub(super) fn is_moved(&self) -> bool {
        self.moved.load(Acquire)
    }

    /// Counts a part's rows.
    pub(super) fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Relaxed);
    }

    /// The rows of the parts so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Counts a part as ended, and says whether it was the last.
    pub(super) fn end_part(&self) -> bool {
        self.left.fetch_sub(1, AcqRel) == 1
    }
}

/// The work in its order: what can't be split though it is large, then parts, then small tables. Parts of several tables
/// take turns, so that these end together; the smallest come last, so that no worker is left with much.
pub(super) fn plan(tables: Vec<(Table, Heap)>, rule: &Rule) -> Vec<Task> {
    let mut tasks: Vec<Task> = tables.into_iter().flat_map(|(table, heap)| tasks(table, &heap, rule)).collect();
    tasks.sort_by(|one, other| {
        let (one, other) = (turn(one, rule), turn(other, rule));
        one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).then(other.2.cmp(&one.2))
    });
    tasks
}

/// Numbers the work, in its order.
pub(super) fn number(tasks: Vec<Task>) -> Vec<Numbered> {
    (0..).zip(tasks).map(|(id, task)| Numbered { id, task }).collect()
}

/// What is left of work that was written down. `tables` holds each table of it, by its OID.
pub(super) fn left(entries: &[Entry], mut tables: HashMap<u32, Table>) -> Vec<Numbered> {
    let mut splits: HashMap<u32, Arc<Split>> = HashMap::new();
    let mut left = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.done) {
        let task = match &entry.condition {
            None => {
                let Some(mut table) = tables.remove(&entry.source_oid) else { continue };
                table.bytes = entry.expected.cast_signed();
                Task::Whole(table)
            }
            Some(condition) => {
                if let Some(table) = tables.remove(&entry.source_oid) {
                    splits.insert(entry.source_oid, Arc::new(Split::resumed(table, entries)));
                }
                let Some(of) = splits.get(&entry.source_oid).cloned() else { continue };
                // The order is that of the numbers.
                Task::Part(Part { of, condition: condition.clone(), bytes: entry.expected, share: 0.0 })
            }
        };
        left.push(Numbered { id: entry.id, task });
    }
    left
}

/// By what tasks are sorted: the group, the share of its table that comes before it, and the table's size, descending.
fn turn(task: &Task, rule: &Rule) -> (u8, f64, u64) {
    match task {
        Task::Whole(table) if size(table) > rule.part_bytes => (0, 0.0, size(table)),
        Task::Part(part) => (1, part.share, size(&part.of.table)),
        Task::Whole(table) => (2, 0.0, size(table)),
    }
}

fn tasks(table: Table, heap: &Heap, rule: &Rule) -> Vec<Task> {
    let bytes = size(&table);
    let conditions = rule.conditions(bytes, heap);
    if conditions.len() < 2 {
        return vec![Task::Whole(table)];
    }
    let count = conditions.len() as u64;
    let of = Arc::new(Split::new(table, conditions.len()));
    let part = |(at, condition): (u64, String)| {
        let bytes = share(bytes, at + 1, count) - share(bytes, at, count);
        Task::Part(Part { of: Arc::clone(&of), condition, bytes, share: at as f64 / count as f64 })
    };
    (0..count).zip(conditions).map(part).collect()
}

/// What is expected to be sent of a table.
pub(super) fn size(table: &Table) -> u64 {
    u64::try_from(table.bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::QualifiedName;

    const RULE: Rule = Rule { major: 15, jobs: 2, part_bytes: 1000 };

    fn table(name: &str, bytes: i64) -> Table {
        Table {
            oid: 1,
            name: QualifiedName { schema: "s".to_owned(), name: name.to_owned() },
            partitioned: false,
            partition: false,
            persistence: "p".to_owned(),
            replica_identity: "d".to_owned(),
            key: Vec::new(),
            columns: Vec::new(),
            owner: "o".to_owned(),
            bytes,
            estimated_rows: -1.0,
            armed: false,
        }
    }

    fn heap(pages: u64) -> Heap {
        Heap { pages, paged: true, keys: None }
    }

    /// The first page of a part, and the first that is not in it.
    fn pages(part: &Part) -> (u64, Option<u64>) {
        let page = |operator: &str| {
            let (_, rest) = part.condition.split_once(&format!("ctid {operator} '("))?;
            rest.split_once(',')?.0.parse().ok()
        };
        (page(">=").unwrap_or(0), page("<"))
    }

    /// Each task as `table` or `table:from-below`.
    fn spelled(tables: Vec<(Table, Heap)>, rule: &Rule) -> Vec<String> {
        let spell = |task: &Task| match task {
            Task::Whole(table) => table.name.name.clone(),
            Task::Part(part) => {
                let (from, below) = pages(part);
                let below = below.map(|below| below.to_string()).unwrap_or_default();
                format!("{}:{from}-{below}", part.of.table.name.name)
            }
        };
        plan(tables, rule).iter().map(spell).collect()
    }

    fn parts(table: Table, heap: Heap, rule: &Rule) -> Vec<Part> {
        let part = |task| if let Task::Part(part) = task { Some(part) } else { None };
        plan(vec![(table, heap)], rule).into_iter().filter_map(part).collect()
    }

    #[test]
    fn parts_follow_each_other_without_a_gap_and_the_last_has_no_end() {
        for (bytes, pages) in [(1001, 2), (2500, 100), (10_000, 7), (12_345, 1013), (i64::MAX, 4_294_967_294)] {
            let rule = Rule { part_bytes: u64::try_from(bytes / 9).unwrap_or(1).max(1000), ..RULE };
            let parts = parts(table("t", bytes), heap(pages), &rule);
            let ranges: Vec<(u64, Option<u64>)> = parts.iter().map(super::tests::pages).collect();
            assert!(parts.len() > 1 && parts.len() as u64 <= pages, "{bytes} {pages}");
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, None));
            for two in ranges.windows(2) {
                assert_eq!(two[0].1, Some(two[1].0));
                assert!(two[0].0 < two[1].0, "a part has at least a page");
            }
            assert!(ranges[ranges.len() - 1].0 < pages);
            assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), u64::try_from(bytes).unwrap());
        }
    }

    #[test]
    fn a_part_says_which_rows_are_in_it() {
        let parts = parts(table("t", 2001), heap(9), &RULE);
        let conditions: Vec<&str> = parts.iter().map(|part| part.condition.as_str()).collect();
        assert_eq!(conditions, ["ctid < '(3,0)'::tid", "ctid >= '(3,0)'::tid AND ctid < '(6,0)'::tid", "ctid >= '(6,0)'::tid"]);
    }

    #[test]
    fn a_table_is_split_only_where_that_is_right_and_gains_something() {
        let large = || (table("t", 5000), heap(100));
        assert_eq!(plan(vec![large()], &RULE).len(), 5);
        assert_eq!(spelled(vec![large()], &Rule { major: 13, ..RULE }), ["t"], "the server would read all of it for each part");
        assert_eq!(plan(vec![large()], &Rule { major: 14, ..RULE }).len(), 5);
        assert_eq!(spelled(vec![large()], &Rule { jobs: 1, ..RULE }), ["t"]);
        assert_eq!(spelled(vec![(table("t", 5000), Heap { pages: 100, ..Heap::default() })], &RULE), ["t"], "another access method");
        assert_eq!(spelled(vec![(table("t", 1000), heap(100))], &RULE), ["t"], "as large as a part");
        assert_eq!(spelled(vec![(table("t", 5000), heap(1))], &RULE), ["t"], "all of it in TOAST, behind one page");
        assert_eq!(spelled(vec![(table("t", 5000), heap(2))], &RULE), ["t:0-1", "t:1-"]);
        assert_eq!(spelled(vec![(table("t", 0), heap(0)), (table("u", -1), heap(0))], &RULE), ["t", "u"]);
    }

    #[test]
    fn what_cannot_be_split_comes_first_then_parts_in_turns_then_the_small_ones_by_size() {
        let tables = vec![
            (table("tiny", 1), heap(1)),
            (table("two", 1500), heap(20)),
            (table("small", 900), heap(9)),
            (table("four", 4000), heap(40)),
            (table("odd", 3000), Heap { pages: 30, ..Heap::default() }),
        ];
        let order = ["odd", "four:0-10", "two:0-10", "four:10-20", "four:20-30", "two:10-", "four:30-", "small", "tiny"];
        assert_eq!(spelled(tables, &RULE), order);
    }

    /// What was written down comes back as it was handed out, but what is done.
    #[test]
    fn what_is_left_is_what_was_planned_without_what_is_done() {
        let tables = || [table("large", 5000), Table { oid: 2, ..table("small", 10) }, Table { oid: 3, ..table("tiny", 1) }];
        let numbered = number(plan(tables().into_iter().zip([heap(50), heap(1), heap(1)]).collect(), &RULE));
        let mut entries: Vec<Entry> = numbered.iter().map(Entry::of).collect();
        for done in [1, 3, 5] {
            entries[done] = Entry { done: true, rows: 7, ..entries[done].clone() };
        }
        let left = left(&entries, tables().into_iter().map(|table| (table.oid, table)).collect());
        let again: Vec<Entry> = left.iter().map(Entry::of).collect();
        let expected: Vec<Entry> = entries.iter().filter(|entry| !entry.done).cloned().collect();
        assert_eq!(again, expected);
        let parts: Vec<&Part> = left.iter().filter_map(|it| if let Task::Part(part) = &it.task { Some(part) } else { None }).collect();
        assert_eq!((parts.len(), parts[0].of.rows(), size(&parts[0].of.table)), (3, 14, 5000), "they know of the others");
        let last: Vec<bool> = parts.iter().map(|part| part.of.end_part()).collect();
        assert_eq!(last, [false, false, true]);
    }

    #[test]
    fn the_last_part_is_told_apart_whoever_ends_it() {
        let parts = parts(table("t", 3000), heap(30), &RULE);
        let last: Vec<bool> = parts.iter().map(|part| part.of.end_part()).collect();
        assert_eq!(last, [false, false, true]);
    }
}
