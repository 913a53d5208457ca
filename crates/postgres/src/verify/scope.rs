//! Which tables are compared, and how each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::AtomicBool,
};

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    Comparison, Method, Options, Role, Sides,
    mend::Slot,
    ordering::{ColumnOrder, Operators, Order, Orders, orders},
    report::{Difference, DifferenceKind, Findings, Remark, RowKey, Unsettled},
    session::{Pair, Param, Query, STATEMENT_LIMIT, Session},
    sql::{Hash, KeyColumn, TableSql, hash_probe},
    values::means,
};
use crate::{
    PgError, PgResult,
    catalogue::{self, Column, QualifiedName, Table},
};

/// A chunk is made of no more rows than this, going by the table's average. Unit: bytes.
const CHUNK_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// What is compared, and what was found before a single row was read.
pub(super) struct Scope {
    pub(super) comparisons: Vec<Comparison>,
    /// The authority's partitions that are compared together, with the table that they are compared as.
    pub(super) parts: Vec<(QualifiedName, QualifiedName)>,
    pub(super) findings: Findings,
    pub(super) skipped: Vec<Remark>,
    pub(super) notes: Vec<Remark>,
}

/// The tables of one side, and what else is known of them.
struct Catalogue {
    tables: BTreeMap<QualifiedName, Table>,
    /// The topmost parent of each partition.
    roots: HashMap<QualifiedName, QualifiedName>,
    orders: Orders,
}

impl Scope {
    /// Reads both catalogues and decides.
    pub(super) async fn read(pair: &mut Pair, sides: &Sides<'_>, options: &Options) -> PgResult<Self> {
        let hash = choose_hash(pair).await?;
        let authority = Catalogue::read(pair.at(Role::Authority)).await?;
        let follower = Catalogue::read(pair.at(Role::Follower)).await?;
        let unready = match &sides.following {
            Some(following) => unready_tables(pair.at(Role::Follower), &following.subscription).await?,
            None => HashMap::new(),
        };
        let whole = regrouped(&authority, &follower);
        let parts = authority.roots.iter().filter(|(_, root)| whole.contains(*root)).map(|(part, root)| (part.clone(), root.clone()));
        let parts = parts.collect();
        let mut scope = Self {
            comparisons: Vec::new(),
            parts,
            findings: Findings::keeping(options.max_differences),
            skipped: Vec::new(),
            notes: Vec::new(),
        };
        let wanted = wanted(&authority, &follower, options.tables.as_deref())?;
        let builder =
            Builder { hash, options, unready: &unready, followed: sides.following.is_some(), authority: &authority, follower: &follower };
        for name in &wanted {
            builder.add(&mut scope, name, &whole);
        }
        Ok(scope)
    }

    fn table_difference(&mut self, name: &QualifiedName, kind: DifferenceKind) {
        self.findings.difference(Difference { table: name.clone(), key: Vec::new(), row: RowKey::default(), kind, values: Vec::new() });
    }

    fn note(&mut self, name: &QualifiedName, why: String) {
        self.notes.push(Remark { table: name.clone(), why });
    }
}

impl Catalogue {
    async fn read(session: &mut Session) -> PgResult<Self> {
        let limit = 2 * STATEMENT_LIMIT;
        let tables = timeout(limit, catalogue::tables(session.client().await?)).await;
        let tables = tables.map_err(|_| PgError::TimedOut { doing: "listing the tables".to_owned(), limit })??;
        let sql = "SELECT n.nspname::text, c.relname::text, p.nspname::text, r.relname::text \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_class r ON r.oid = pg_catalog.pg_partition_root(c.oid) \
             JOIN pg_catalog.pg_namespace p ON p.oid = r.relnamespace WHERE c.relispartition AND c.relkind IN ('r', 'p')";
        let rows = session.query("reading partitions", &Query { sql: sql.to_owned(), params: Vec::new() }).await?;
        let name = |row: &tokio_postgres::Row, at: usize| QualifiedName { schema: row.get(at), name: row.get(at + 1) };
        Ok(Self {
            tables: tables.into_iter().map(|table| (table.name.clone(), table)).collect(),
            roots: rows.iter().map(|row| (name(row, 0), name(row, 2))).collect(),
            orders: orders(session).await?,
        })
    }

    fn is_partitioned(&self, name: &QualifiedName) -> bool {
        self.tables.get(name).is_some_and(|table| table.partitioned)
    }

    /// The row-holding partitions under a root.
    fn leaves(&self, root: &QualifiedName) -> BTreeSet<&QualifiedName> {
        let holds_rows = |name: &QualifiedName| self.tables.get(name).is_some_and(Table::holds_rows);
        self.roots.iter().filter(|(name, of)| *of == root && holds_rows(name)).map(|(name, _)| name).collect()
    }

    fn order(&self, table: &Table, column: &str) -> ColumnOrder {
        let plain = || ColumnOrder { operators: Operators::of("pg_catalog"), order: Order::Fixed };
        self.orders.get(&(table.oid, column.to_owned())).cloned().unwrap_or_else(plain)
    }
}

/// The tables of either side that are asked for.
fn wanted(authority: &Catalogue, follower: &Catalogue, filter: Option<&[QualifiedName]>) -> PgResult<BTreeSet<QualifiedName>> {
    let all = || authority.tables.keys().chain(follower.tables.keys());
    let Some(filter) = filter else { return Ok(all().cloned().collect()) };
    if let Some(unknown) = filter.iter().find(|name| !all().any(|known| known == *name)) {
        let hint = Some("what the plan's [tables] leaves out is not compared".to_owned());
        return Err(PgError::Refused { what: format!("neither side has a table {unknown} that is covered"), hint });
    }
    let root = |name: &QualifiedName| authority.roots.get(name).or_else(|| follower.roots.get(name)).cloned();
    Ok(all().filter(|name| filter.contains(name) || root(name).is_some_and(|root| filter.contains(&root))).cloned().collect())
}

/// The tables that are divided differently on both sides, so that they can only be compared as a whole.
fn regrouped(authority: &Catalogue, follower: &Catalogue) -> BTreeSet<QualifiedName> {
    let both = authority.tables.iter().filter(|(name, table)| !table.partition && follower.tables.contains_key(*name));
    let differently = both.filter(|(name, table)| {
        table.partitioned != follower.is_partitioned(name) || (table.partitioned && authority.leaves(name) != follower.leaves(name))
    });
    differently.map(|(name, _)| name.clone()).collect()
}

struct Builder<'a> {
    hash: Hash,
    options: &'a Options,
    /// State of the tables that the subscription has not finished copying.
    unready: &'a HashMap<QualifiedName, String>,
    followed: bool,
    authority: &'a Catalogue,
    follower: &'a Catalogue,
}

impl Builder<'_> {
    fn add(&self, scope: &mut Scope, name: &QualifiedName, whole: &BTreeSet<QualifiedName>) {
        let root = self.authority.roots.get(name).or_else(|| self.follower.roots.get(name));
        let grouped = root.filter(|root| whole.contains(*root));
        match (self.authority.tables.get(name), self.follower.tables.get(name)) {
            (Some(authority), Some(follower)) => {
                let as_whole = whole.contains(name);
                if as_whole || (grouped.is_none() && authority.holds_rows() && follower.holds_rows()) {
                    self.compare(scope, authority, follower, as_whole);
                }
            }
            // Where only one side divides the table, its partitions are no tables of their own.
            _ if grouped.is_some_and(|root| self.authority.is_partitioned(root) != self.follower.is_partitioned(root)) => {}
            (Some(_), None) => scope.table_difference(name, DifferenceKind::MissingTable),
            (None, _) => scope.table_difference(name, DifferenceKind::ExtraTable),
        }
    }

    fn compare(&self, scope: &mut Scope, authority: &Table, follower: &Table, whole: bool) {
        let name = &authority.name;
        if self.followed && authority.persistence == "u" {
            scope.skipped.push(Remark { table: name.clone(), why: "it is unlogged, so its rows are not replicated".to_owned() });
            return;
        }
        if let Some(state) = self.unready.get(name) {
            let why = format!("the subscription has not finished its first copy (state {state})");
            scope.findings.unsettled(Unsettled { table: name.clone(), key: Vec::new(), why });
            return;
        }
        if whole {
            scope.note(name, "compared as a whole, because the sides are not partitioned alike".to_owned());
        }
        let known = scope.findings.differences_total;
        let columns = compare_columns(scope, authority, follower);
        let faulty = AtomicBool::new(scope.findings.differences_total > known);
        let redacted: Vec<String> =
            authority.columns.iter().map(|column| column.name.clone()).filter(|column| self.redacted(name, column)).collect();
        let shown = self.options.values.then(|| columns.iter().map(|column| !redacted.contains(column)).collect::<Vec<_>>());
        let (method, key) = self.method(scope, authority, follower);
        let sql = |catalogue: &Catalogue, table: &Table| TableSql {
            from: format!("{}{} AS t", if whole { "" } else { "ONLY " }, table.name.quoted()),
            columns: columns.clone(),
            key: key.iter().filter_map(|column| key_column(catalogue, table, column)).collect(),
            hash: self.hash,
            shown: shown.clone(),
        };
        let sides = [sql(self.authority, authority), sql(self.follower, follower)];
        let (bytes, rows) = self.size(authority, whole);
        let most = self.setting(name, &self.options.chunk_rows_of).copied().unwrap_or(self.options.chunk_rows);
        let comparison = Comparison::new(name.clone(), method, key, sides, chunk_rows(most, bytes, rows), bytes.max(0.0), rows.max(0.0));
        let definition = definition([authority, follower], whole);
        scope.comparisons.push(Comparison { slots: slots(authority, follower), redacted, definition, faulty, ..comparison });
    }

    /// What was said of a table, or of the one that it is a partition of.
    fn setting<'s, T>(&self, name: &QualifiedName, settings: &'s BTreeMap<QualifiedName, T>) -> Option<&'s T> {
        settings.get(name).or_else(|| settings.get(self.root(name)?))
    }

    fn root(&self, name: &QualifiedName) -> Option<&QualifiedName> {
        self.authority.roots.get(name).or_else(|| self.follower.roots.get(name))
    }

    /// Whether a column's values may never be shown; what is said of a partitioned table counts for its partitions.
    fn redacted(&self, table: &QualifiedName, column: &str) -> bool {
        let mut tables = [Some(table), self.root(table)].into_iter().flatten();
        tables.any(|table| self.options.redact.iter().any(|pattern| means(pattern, &format!("{table}.{column}"))))
    }

    /// How the table is compared, and by which key.
    fn method(&self, scope: &mut Scope, authority: &Table, follower: &Table) -> (Method, Vec<String>) {
        let name = &authority.name;
        let sorted = |key: &[String]| key.iter().cloned().collect::<BTreeSet<_>>();
        if authority.key.is_empty() || sorted(&authority.key) != sorted(&follower.key) {
            let why = if authority.key.is_empty() { "it has no key" } else { "the sides do not have the same key" };
            scope.note(name, format!("each row is counted instead of looked up, because {why}"));
            return (Method::Multiset, Vec::new());
        }
        let shared = |column: &String| {
            let order = self.authority.order(authority, column).order;
            order.is_shared_with(&self.follower.order(follower, column).order)
        };
        if let Some(column) = authority.key.iter().find(|column| !shared(column)) {
            let why = format!("rows are looked up one by one, because the sides may sort {column} differently");
            scope.note(name, why);
            return (Method::Lookup, authority.key.clone());
        }
        (Method::Range, authority.key.clone())
    }

    /// Bytes, and rows as estimated: of all partitions where the table is read as a whole.
    fn size(&self, table: &Table, whole: bool) -> (f64, f64) {
        let leaves = if whole { self.authority.leaves(&table.name) } else { BTreeSet::new() };
        let tables = std::iter::once(&table.name).chain(leaves).filter_map(|name| self.authority.tables.get(name));
        tables.fold((0.0, 0.0), |(bytes, rows), table| (bytes + table.bytes as f64, rows + table.estimated_rows.max(0.0)))
    }
}

/// The columns of both sides, by name; says which are on one side only.
fn compare_columns(scope: &mut Scope, authority: &Table, follower: &Table) -> Vec<String> {
    let find = |table: &Table, name: &str| table.columns.iter().find(|column| column.name == name).cloned();
    let (both, lacking): (Vec<&Column>, Vec<&Column>) = authority.columns.iter().partition(|column| find(follower, &column.name).is_some());
    let missing: Vec<String> = lacking.iter().filter(|column| column.generated.is_empty()).map(|column| column.name.clone()).collect();
    if !missing.is_empty() {
        scope.table_difference(&authority.name, DifferenceKind::MissingColumns { columns: missing });
    }
    for column in follower.columns.iter().filter(|column| find(authority, &column.name).is_none()) {
        scope.note(&authority.name, format!("column {} is only at the follower and was not compared", column.name));
    }
    for column in lacking.iter().filter(|column| !column.generated.is_empty()) {
        scope.note(&authority.name, format!("generated column {} is only at the authority and was not compared", column.name));
    }
    for column in &both {
        let there = find(follower, &column.name).map(|column| column.type_name).unwrap_or_default();
        if there != column.type_name {
            let why =
                format!("column {} is {} at the authority and {there} at the follower; compared as text", column.name, column.type_name);
            scope.note(&authority.name, why);
        }
    }
    let mut names: Vec<String> = both.iter().map(|column| column.name.clone()).collect();
    names.sort_unstable();
    names
}

/// A digest of what a comparison depends on, besides the rows: which tables these are, and their columns and key.
fn definition(sides: [&Table; 2], whole: bool) -> String {
    let columns = |table: &Table| table.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect::<Vec<_>>();
    let facts = sides.map(|table| (table.oid, columns(table), table.key.clone()));
    let digest = Sha256::digest(format!("{facts:?} {whole}"));
    hex::encode(digest.get(..8).unwrap_or_default())
}

/// The follower's columns, as a row for it is written.
fn slots(authority: &Table, follower: &Table) -> Vec<Slot> {
    let slot = |column: &Column| Slot {
        name: column.name.clone(),
        shared: authority.columns.iter().any(|other| other.name == column.name),
        generated: !column.generated.is_empty(),
        identity_always: column.identity == "a",
    };
    follower.columns.iter().map(slot).collect()
}

fn key_column(catalogue: &Catalogue, table: &Table, name: &str) -> Option<KeyColumn> {
    let column = table.columns.iter().find(|column| column.name == name)?;
    let operators = catalogue.order(table, name).operators;
    Some(KeyColumn { name: name.to_owned(), type_name: column.type_name.clone(), operators })
}

/// No more rows than asked for, and fewer where rows are wide.
fn chunk_rows(most: u32, bytes: f64, rows: f64) -> u32 {
    let fitting = if rows >= 1.0 && bytes > 0.0 { CHUNK_BYTES / (bytes / rows) } else { f64::from(most) };
    fitting.clamp(1.0, f64::from(most.max(1))) as u32
}

async fn choose_hash(pair: &mut Pair) -> PgResult<Hash> {
    let probe = hash_probe();
    let (authority, follower) = pair.ask("trying the hash", &probe, &probe).await?;
    let answer = |rows: &[tokio_postgres::Row]| rows.first().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1)));
    Ok(if answer(&authority) == answer(&follower) { Hash::Native } else { Hash::Portable })
}

/// The tables that the subscription knows and has not finished copying, with their state.
async fn unready_tables(session: &mut Session, subscription: &str) -> PgResult<HashMap<QualifiedName, String>> {
    let sql = "SELECT n.nspname::text, c.relname::text, r.srsubstate::text FROM pg_catalog.pg_subscription_rel r \
         JOIN pg_catalog.pg_stat_subscription s ON s.subid = r.srsubid AND s.subname = $1::text \
         JOIN pg_catalog.pg_class c ON c.oid = r.srrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE r.srsubstate <> 'r'";
    let query = Query { sql: sql.to_owned(), params: vec![Param::Text(subscription.to_owned())] };
    let rows = session.query("reading the subscription", &query).await?;
    Ok(rows.iter().map(|row| (QualifiedName { schema: row.get(0), name: row.get(1) }, row.get(2))).collect())
}

#[cfg(test)]
mod tests {
    use super::chunk_rows;

    #[test]
    fn wide_rows_make_short_chunks() {
        assert_eq!(chunk_rows(10_000, 1e6, 1e4), 10_000);
        assert_eq!(chunk_rows(10_000, 1e12, 1e6), 67);
        assert_eq!(chunk_rows(10_000, 1e12, 1.0), 1);
        assert_eq!(chunk_rows(10_000, 8192.0, -1.0), 10_000);
        assert_eq!(chunk_rows(0, 0.0, 0.0), 1);
    }
}
