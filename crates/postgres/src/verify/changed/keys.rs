//! The keys of rows that changed, gathered from the stream's messages, in bounded memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    catalogue::QualifiedName,
    follow::pgoutput::{Change, Decoder, Field, Message, Relation},
    names::SCHEMA,
    verify::Key,
};

/// The most that keys may take, all tables together; the table that passes it is compared as a whole. Unit: bytes.
const MOST_BYTES: usize = 32 << 20;

/// What one key takes beside its texts, roughly. Unit: bytes.
const KEY_BYTES: usize = 100;

/// Markers that are remembered, the latest of them.
const MOST_MARKERS: usize = 16;

/// Why a table's changed rows are not known one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whole {
    /// It has no key, or none that the stream carries.
    NoKey,
    /// It was emptied.
    Truncated,
    /// More of its rows changed than are remembered.
    TooMany,
}

/// What changed in one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) keys: BTreeSet<Key>,
    pub(crate) whole: Option<Whole>,
}

/// What changed in all tables.
pub(crate) type ChangedTables = BTreeMap<QualifiedName, Changed>;

/// What is gathered while the stream is read.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The columns of each compared table's key, in its order; empty where it has none.
    keys: HashMap<QualifiedName, Vec<String>>,
    most_bytes: usize,
    decoder: Decoder,
    tables: ChangedTables,
    bytes: usize,
    /// The transactions that `tables` is from.
    transactions: HashSet<u32>,
    transaction: u32,
    markers: Vec<String>,
}

impl Gathered {
    /// For tables with these columns in their keys.
    pub(crate) fn new(keys: HashMap<QualifiedName, Vec<String>>) -> Self {
        Self {
            keys,
            most_bytes: MOST_BYTES,
            decoder: Decoder::default(),
            tables: ChangedTables::new(),
            bytes: 0,
            transactions: HashSet::new(),
            transaction: 0,
            markers: Vec::new(),
        }
    }

    /// Reads one message. Says no if it is not understood: then nothing is known any more.
    pub(crate) fn read(&mut self, message: &[u8]) -> bool {
        match self.decoder.read(message) {
            None => return false,
            Some(Message::Begin { xid, .. }) => self.transaction = xid,
            Some(Message::Change(change)) => self.change(&change),
            Some(Message::Truncate(relations)) => {
                for relation in &relations {
                    self.whole(&name(relation), Whole::Truncated);
                }
            }
            Some(Message::Other) => {}
        }
        true
    }

    /// Whether this marker came by.
    pub(crate) fn saw(&self, marker: &str) -> bool {
        self.markers.iter().any(|seen| seen == marker)
    }

    /// Whether a row changed since what was gathered was last taken.
    pub(crate) fn has(&self, table: &QualifiedName, key: &Key) -> bool {
        self.tables.get(table).is_some_and(|changed| changed.whole.is_some() || changed.keys.contains(key))
    }

    /// How many keys are gathered, and whether a table is to be compared as a whole.
    pub(crate) fn amount(&self) -> (usize, bool) {
        (self.tables.values().map(|table| table.keys.len()).sum(), self.tables.values().any(|table| table.whole.is_some()))
    }

    /// Takes what was gathered, and the transactions that it is from.
    pub(crate) fn take(&mut self) -> (ChangedTables, Vec<i64>) {
        self.bytes = 0;
        let transactions = self.transactions.drain().map(i64::from).collect();
        (std::mem::take(&mut self.tables), transactions)
    }

    fn change(&mut self, change: &Change) {
        let table = name(&change.relation);
        if table.schema == SCHEMA {
            if table.name == "marker" {
                self.marker(change);
            }
            return;
        }
        match self.changed_keys(&table, change) {
            Some(keys) => keys.into_iter().for_each(|key| self.add(&table, key)),
            None => self.whole(&table, Whole::NoKey),
        }
    }

    /// The key before and after; none where one can't be told.
    fn changed_keys(&self, table: &QualifiedName, change: &Change) -> Option<Vec<Key>> {
        let columns = self.keys.get(table).filter(|columns| !columns.is_empty())?;
        let relation = &change.relation;
        let old = change.old.as_deref();
        let mut keys = Vec::with_capacity(2);
        if let Some(old) = old {
            keys.push(key(relation, columns, old, None)?);
        }
        if let Some(new) = &change.new {
            keys.push(key(relation, columns, new, old)?);
        }
        Some(keys)
    }

    fn add(&mut self, table: &QualifiedName, key: Key) {
        let bytes = KEY_BYTES + key.iter().map(String::len).sum::<usize>();
        self.transactions.insert(self.transaction);
        if !self.tables.contains_key(table) {
            self.tables.insert(table.clone(), Changed::default());
        }
        let Some(changed) = self.tables.get_mut(table) else { return };
        if changed.whole != Some(Whole::TooMany) && changed.keys.insert(key) {
            self.bytes += bytes;
        }
        if self.bytes > self.most_bytes {
            self.whole(table, Whole::TooMany);
        }
    }

    fn whole(&mut self, table: &QualifiedName, why: Whole) {
        self.transactions.insert(self.transaction);
        let changed = self.tables.entry(table.clone()).or_default();
        if why == Whole::TooMany {
            let freed = std::mem::take(&mut changed.keys);
            let freed = freed.iter().map(|key| KEY_BYTES + key.iter().map(String::len).sum::<usize>()).sum::<usize>();
            self.bytes = self.bytes.saturating_sub(freed);
        }
        changed.whole = changed.whole.max(Some(why));
    }

    /// A row of ours: the marker that ends a pause's changes.
    fn marker(&mut self, change: &Change) {
        if let Some([Field::Text(id), ..]) = change.new.as_deref() {
            self.markers.push(id.clone());
            if self.markers.len() > MOST_MARKERS {
                self.markers.remove(0);
            }
        }
    }
}

/// How many keys there are.
pub(crate) fn amount(tables: &ChangedTables) -> usize {
    tables.values().map(|changed| changed.keys.len()).sum()
}

/// Puts what changed in two times together.
pub(crate) fn merge(into: &mut ChangedTables, other: ChangedTables) {
    for (table, changed) in other {
        let all = into.entry(table).or_default();
        all.keys.extend(changed.keys);
        all.whole = all.whole.max(changed.whole);
    }
}

/// The key's values in a row; what was not sent because it is large and did not change stands in the row before.
fn key(relation: &Relation, columns: &[String], fields: &[Field], before: Option<&[Field]>) -> Option<Key> {
    let value = |column: &String| {
        let at = relation.columns.iter().position(|known| known.name == *column)?;
        let known = |fields: &[Field]| match fields.get(at) {
            Some(Field::Text(text)) => Some(text.clone()),
            _ => None,
        };
        known(fields).or_else(|| before.filter(|_| fields.get(at) == Some(&Field::Unchanged)).and_then(known))
    };
    columns.iter().map(value).collect()
}

fn name(relation: &Relation) -> QualifiedName {
    QualifiedName { schema: relation.schema.clone(), name: relation.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::pgoutput::{Column, Kind};

    fn named(schema: &str, name: &str) -> QualifiedName {
        QualifiedName { schema: schema.to_owned(), name: name.to_owned() }
    }

    fn gathered() -> Gathered {
        let keys = [(named("public", "t"), vec!["b".to_owned(), "a".to_owned()]), (named("public", "bare"), Vec::new())];
        Gathered::new(keys.into())
    }

    fn change(table: &str, kind: Kind, old: Option<&[Option<&str>]>, new: Option<&[Option<&str>]>) -> Change {
        let columns = ["a", "b", "v"].map(|name| Column { name: name.to_owned(), key: name != "v" }).to_vec();
        let relation = Relation { schema: "public".to_owned(), name: table.to_owned(), columns };
        let field = |field: &Option<&str>| match field {
            None => Field::Null,
            Some("…") => Field::Unchanged,
            Some(text) => Field::Text((*text).to_owned()),
        };
        let fields = |row: &[Option<&str>]| row.iter().map(field).collect();
        Change { relation, kind, old: old.map(fields), new: new.map(fields) }
    }

    fn keys(gathered: &mut Gathered) -> Vec<Key> {
        gathered.take().0.remove(&named("public", "t")).unwrap_or_default().keys.into_iter().collect()
    }

    #[test]
    fn a_key_is_in_the_tables_own_order_and_an_update_of_it_names_both() {
        let mut all = gathered();
        all.change(&change("t", Kind::Insert, None, Some(&[Some("1"), Some("x"), None])));
        all.change(&change("t", Kind::Update, Some(&[Some("1"), Some("x"), None]), Some(&[Some("2"), Some("…"), Some("v")])));
        all.change(&change("t", Kind::Delete, Some(&[Some("3"), Some(""), None]), None));
        let expected = [["", "3"], ["x", "1"], ["x", "2"]].map(|key| key.map(str::to_owned).to_vec());
        assert_eq!(keys(&mut all), expected);
        assert_eq!(all.amount(), (0, false));
    }

    #[test]
    fn a_row_whose_key_is_not_sent_makes_the_whole_table_changed() {
        let mut all = gathered();
        all.change(&change("t", Kind::Update, None, Some(&[Some("1"), Some("…"), None])));
        all.change(&change("bare", Kind::Insert, None, Some(&[Some("1"), Some("1"), None])));
        all.change(&change("unknown", Kind::Insert, None, Some(&[Some("1"), Some("1"), None])));
        let (tables, _) = all.take();
        assert_eq!(tables.len(), 3);
        assert!(tables.values().all(|table| table.whole == Some(Whole::NoKey) && table.keys.is_empty()), "{tables:?}");
    }

    #[test]
    fn more_keys_than_fit_are_forgotten_and_the_table_is_not() {
        let mut all = Gathered { most_bytes: 1000, ..gathered() };
        for id in 0..100 {
            let id = id.to_string();
            all.change(&change("t", Kind::Insert, None, Some(&[Some(&id), Some("x"), None])));
        }
        assert!(all.bytes <= 1000);
        let (tables, _) = all.take();
        assert_eq!(tables[&named("public", "t")], Changed { keys: BTreeSet::new(), whole: Some(Whole::TooMany) });
        all.change(&change("t", Kind::Insert, None, Some(&[Some("7"), Some("x"), None])));
        assert_eq!(keys(&mut all).len(), 1, "what was taken counts no more");
    }
}
