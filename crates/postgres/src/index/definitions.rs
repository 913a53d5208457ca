//! What is to be built once the rows are there: read from a dump, with what the source's catalogue says of its size.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Client;

use super::section::{Entry, entries};
use crate::{
    PgError, PgResult,
    names::ident,
    schema::{Dump, Section},
    stamp::stamp,
};

/// Indexes, keys and everything else of a database that comes after its rows.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Indexes, and constraints that are indexes; the largest first.
    pub(super) indexes: Vec<Index>,
    /// Attached indexes, foreign keys, triggers, policies and the like, in their order.
    pub(super) others: Vec<Entry>,
    /// What foreign keys among `others` are still to prove, table by table, the largest first: they would only wait for
    /// each other's lock on it.
    pub(super) proofs: Vec<Group>,
    /// Who may do what.
    pub(super) privileges: Vec<Entry>,
    /// The stamp of the database that they were read of.
    pub(super) stamp: String,
}

/// An index, or a constraint that is one.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(super) entry: Entry,
    /// The OID of its table at the source.
    table: u32,
    /// Its size there.
    pub(crate) bytes: u64,
    /// Its schema and name.
    pub(super) name: (String, String),
    /// Whether it runs none of the user's own code, which may read other tables.
    plain: bool,
}

/// Definitions that one worker makes, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// What each of them reads or makes, about.
    pub(super) bytes: u64,
    pub(super) entries: Vec<Entry>,
}

impl From<Index> for Group {
    fn from(index: Index) -> Self {
        Self { bytes: index.bytes, entries: vec![index.entry] }
    }
}

impl From<Entry> for Group {
    fn from(entry: Entry) -> Self {
        Self { bytes: 0, entries: vec![entry] }
    }
}

/// Indexes with their tables and sizes, under the identity that a dump gives them.
const INDEXES_SQL: &str = "SELECT COALESCE(k.tableoid, c.tableoid)::oid, COALESCE(k.oid, c.oid), i.indrelid, \
         COALESCE(pg_catalog.pg_relation_size(c.oid), 0), n.nspname::text, c.relname::text, \
         NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = c.tableoid AND d.objid = c.oid AND d.refclassid IN \
             ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_opclass'::regclass)) \
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema') \
     LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')";

/// Foreign keys that can be made without looking at the rows, and proved afterwards. A partitioned table's can't.
const KEYS_SQL: &str = "SELECT k.tableoid::oid, k.oid, k.conrelid, COALESCE(pg_catalog.pg_relation_size(c.oid), 0), n.nspname::text, \
         c.relname::text, k.conname::text \
     FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND c.relkind = 'r' \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0";

impl Definitions {
    /// Takes them from a dump. `source` is a session of the dumped database.
    ///
    /// # Errors
    /// [`PgError::Tool`], [`PgError::Sql`].
    pub async fn of(dump: &Dump, source: &Client) -> PgResult<Self> {
        let facts = index_facts(source).await?;
        let (indexes, others): (Vec<Entry>, Vec<Entry>) = entries(&dump.sql(Section::PostData).await?)
            .into_iter()
            .partition(|entry| matches!(entry.kind.as_str(), "INDEX" | "CONSTRAINT"));
        let mut indexes: Vec<Index> = indexes.into_iter().map(|entry| Index::new(entry, &facts)).collect();
        indexes.sort_by_key(|index| std::cmp::Reverse(index.bytes));
        let (others, proofs) = postpone_proofs(others, &foreign_keys(source).await?);
        let privileges = entries(&dump.sql(Section::Privileges).await?);
        Ok(Self { indexes, others, proofs, privileges, stamp: dump.stamp.clone() })
    }

    /// Whether nothing was defined since they were read. Reads each row of the catalogue once.
    ///
    /// # Errors
    /// [`PgError::Sql`].
    pub async fn are_current(&self, source: &Client) -> PgResult<bool> {
        Ok(!self.stamp.is_empty() && self.stamp == stamp(source).await?)
    }

    /// What can be built on a table, by its OID at the source, as soon as it is full and whatever the others hold;
    /// without what is there.
    pub(crate) fn plain_indexes(&self, there: &HashSet<(String, String)>) -> HashMap<u32, Vec<Index>> {
        let mut by_table: HashMap<u32, Vec<Index>> = HashMap::new();
        for index in self.indexes.iter().filter(|index| index.plain && !there.contains(&index.name)) {
            by_table.entry(index.table).or_default().push(index.clone());
        }
        by_table
    }

    /// Leaves out the indexes that a database has.
    pub(super) fn without(mut self, there: &HashSet<(String, String)>) -> Self {
        self.indexes.retain(|index| !there.contains(&index.name));
        self
    }
}

impl Index {
    fn new(entry: Entry, facts: &HashMap<(u32, u32), Self>) -> Self {
        match facts.get(&entry.identity) {
            Some(fact) => Self { entry, ..fact.clone() },
            // Made since: it comes with the others, and nothing is known of it.
            None => Self { entry, table: 0, bytes: 0, name: Default::default(), plain: false },
        }
    }
}

async fn index_facts(source: &Client) -> PgResult<HashMap<(u32, u32), Index>> {
    let rows = source.query(INDEXES_SQL, &[]).await.map_err(|error| PgError::sql("reading the indexes' sizes", error))?;
    let fact = |row: &tokio_postgres::Row| Index {
        entry: Entry::default(),
        table: row.get(2),
        bytes: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
        name: (row.get(4), row.get(5)),
        plain: row.get(6),
    };
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), fact(row))).collect())
}

/// A foreign key that can be proved later.
struct Key {
    table: u32,
    bytes: u64,
    /// What proves it.
    sql: String,
}

async fn foreign_keys(source: &Client) -> PgResult<HashMap<(u32, u32), Key>> {
    let rows = source.query(KEYS_SQL, &[]).await.map_err(|error| PgError::sql("reading the foreign keys", error))?;
    let key = |row: &tokio_postgres::Row| Key {
        table: row.get(2),
        bytes: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
        sql: format!("ALTER TABLE {}.{} VALIDATE CONSTRAINT {}", ident(row.get(4)), ident(row.get(5)), ident(row.get(6))),
    };
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), key(row))).collect())
}

/// Has foreign keys made without a look at the rows, one after the other, for each takes locks on two tables; the looks
/// come behind, and take none that keep others from looking.
fn postpone_proofs(entries: Vec<Entry>, keys: &HashMap<(u32, u32), Key>) -> (Vec<Entry>, Vec<Group>) {
    let mut by_table: BTreeMap<u32, Group> = BTreeMap::new();
    let made = entries.into_iter().map(|entry| {
        let (Some(key), Some(definition)) = (keys.get(&entry.identity), entry.sql.trim_end().strip_suffix(';')) else { return entry };
        let sql = format!("{definition} NOT VALID;\n");
        let proof = Entry { sql: key.sql.clone(), ..entry.clone() };
        by_table.entry(key.table).or_insert_with(|| Group { bytes: key.bytes, entries: Vec::new() }).entries.push(proof);
        Entry { sql, ..entry }
    });
    let made = made.collect();
    let mut proofs: Vec<Group> = by_table.into_values().collect();
    proofs.sort_by_key(|proofs| std::cmp::Reverse(proofs.bytes));
    (made, proofs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(oid: u32, sql: &str) -> Entry {
        Entry { name: format!("t k{oid}"), kind: "FK CONSTRAINT".to_owned(), sql: sql.to_owned(), identity: (2606, oid) }
    }

    #[test]
    fn only_a_foreign_key_that_is_known_to_hold_is_proved_later() {
        let key = |table, bytes, name: &str| Key { table, bytes, sql: format!("VALIDATE {name}") };
        let keys = [((2606, 1), key(7, 10, "k1")), ((2606, 2), key(8, 20, "k2")), ((2606, 4), key(7, 10, "k4"))].into();
        let entries = vec![
            entry(1, "ALTER a\n    ADD k1 FOREIGN KEY (v) REFERENCES t(id);\n\n"),
            entry(2, "ALTER b ADD k2;\n"),
            entry(3, "ALTER a ADD k3 NOT VALID;\n"),
            entry(4, "ALTER a ADD k4;\n"),
        ];
        let (made, proofs) = postpone_proofs(entries, &keys);
        let sql: Vec<&str> = made.iter().map(|entry| entry.sql.as_str()).collect();
        assert_eq!(
            sql,
            [
                "ALTER a\n    ADD k1 FOREIGN KEY (v) REFERENCES t(id) NOT VALID;\n",
                "ALTER b ADD k2 NOT VALID;\n",
                "ALTER a ADD k3 NOT VALID;\n",
                "ALTER a ADD k4 NOT VALID;\n"
            ]
        );
        let proofs: Vec<Vec<&str>> = proofs.iter().map(|proofs| proofs.entries.iter().map(|entry| entry.sql.as_str()).collect()).collect();
        assert_eq!(proofs, [vec!["VALIDATE k2"], vec!["VALIDATE k1", "VALIDATE k4"]], "the largest table first");
    }
}
