//! What the columns of keys are compared by: whose operators, and in which order.
//!
//! Chunks are ranges of the key, so both sides should sort keys alike. That is no matter of correctness: whatever each
//! side's order is, every row of a side lies in at least one of the ranges `(-∞, b1], (b1, b2], …, (bn, ∞)` as that side
//! sees them, so equal chunks mean equal tables, and a row that the sides see in different ranges is looked up by its
//! key before it counts as different. But where the orders differ a lot, almost every row would be. So where collations
//! can't be shown to be equal, rows are looked up by key in the first place.

use std::collections::HashMap;

use super::session::{Query, Session};
use crate::{PgResult, names::ident};

/// What a column is compared by, at one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnOrder {
    /// Its type's comparison operators.
    pub(super) operators: Operators,
    /// What its order depends on.
    pub(super) order: Order,
}

/// The operators that a type is sorted by. An extension's are not in `pg_catalog`, and may have names of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operators {
    schema: String,
    /// In the order of [`STANDARD`].
    names: Vec<String>,
}

/// What they are called almost everywhere, in the order of a B-tree's strategies.
const STANDARD: [&str; 5] = ["<", "<=", "=", ">=", ">"];

impl Operators {
    /// With the usual names, in this schema.
    pub(super) fn of(schema: &str) -> Self {
        Self { schema: schema.to_owned(), names: STANDARD.map(str::to_owned).to_vec() }
    }

    /// As a query has found them: the five names, then the schema.
    fn found(mut found: Vec<String>) -> Option<Self> {
        let schema = found.pop()?;
        (found.len() == STANDARD.len()).then_some(Self { schema, names: found })
    }

    /// The operator that does what the usual one does, for SQL.
    pub(super) fn sql(&self, usual: &str) -> String {
        let name = STANDARD.iter().position(|standard| *standard == usual).map_or(usual, |at| self.names[at].as_str());
        format!("OPERATOR({}.{name})", ident(&self.schema))
    }
}

/// What the order of a column depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// On nothing: numbers, times, bytes; or text in the order of its code points.
    Fixed,
    /// On a collation with this provider, locale and version, or on an enum with these labels.
    Collation(String),
    /// On something that can't be told: a collation without a version, or one inside a type.
    Unknown,
}

impl Order {
    /// Whether both sides sort alike, as far as can be shown.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        *self != Self::Unknown && self == other
    }
}

/// The order of every column that does not simply have a fixed order and `pg_catalog`'s operators, by table and name.
pub(super) type Orders = HashMap<(u32, String), ColumnOrder>;

/// Reads it for the columns of all tables.
pub(super) async fn orders(session: &mut Session) -> PgResult<Orders> {
    let version = server_version(session).await?;
    let rows = session.query("reading collations", &Query { sql: sql(version), params: Vec::new() }).await?;
    let order = |row: &tokio_postgres::Row| {
        let text = |at: usize| row.get::<_, Option<String>>(at);
        let column = ColumnOrder {
            operators: row.get::<_, Option<Vec<String>>>(2).and_then(Operators::found).unwrap_or_else(|| Operators::of("pg_catalog")),
            order: order(row.get(3), text(4).as_deref(), text(5).as_deref(), text(6).as_deref(), row.get(7)),
        };
        ((row.get(0), row.get(1)), column)
    };
    Ok(rows.iter().map(order).collect())
}

/// The order of a column whose collation, if it has one, has this provider, locale and version.
fn order(hidden: bool, provider: Option<&str>, locale: Option<&str>, version: Option<&str>, deterministic: bool) -> Order {
    if hidden || !deterministic {
        return Order::Unknown;
    }
    let Some(provider) = provider else { return Order::Fixed };
    let locale = locale.unwrap_or_default();
    let plain = matches!(locale, "C" | "POSIX") || locale.starts_with("C.");
    // The server's own provider sorts by code point whatever the locale, and so does libc for C.
    if provider == "b" || (provider == "c" && plain) {
        return Order::Fixed;
    }
    match version {
        Some(version) => Order::Collation(format!("{provider}/{}/{version}", locale.to_lowercase().replace("utf-8", "utf8"))),
        None => Order::Unknown,
    }
}

async fn server_version(session: &mut Session) -> PgResult<i32> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int".to_owned();
    let rows = session.query("reading the version", &Query { sql, params: Vec::new() }).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// `oid, text, operators, hidden, provider, locale, version, deterministic`. The catalogue's columns differ by
/// version, so a row of it is read as JSON.
fn sql(server_version: i32) -> String {
    let default_version = if server_version >= 150_000 {
        "pg_catalog.pg_database_collation_actual_version(d.oid)"
    } else {
        "(SELECT pg_catalog.pg_collation_actual_version(l.oid) FROM pg_catalog.pg_collation l \
           WHERE l.collprovider = 'c' AND l.collcollate = d.datcollate LIMIT 1)"
    };
    format!(
        "SELECT a.attrelid, a.attname::text, \
             CASE WHEN t.oid >= 16384 THEN (SELECT pg_catalog.array_agg(o.oprname::text ORDER BY m.amopstrategy) || pg_catalog.min(n.nspname::text) \
                 FROM pg_catalog.pg_opclass k \
                 JOIN pg_catalog.pg_amop m ON m.amopfamily = k.opcfamily AND m.amoplefttype = k.opcintype AND m.amoprighttype = k.opcintype \
                 JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
                 JOIN pg_catalog.pg_am h ON h.oid = k.opcmethod AND h.amname = 'btree' \
                 WHERE k.opcdefault AND k.opcintype = (WITH RECURSIVE base (oid, next) AS (SELECT t.oid, t.typbasetype \
                     UNION ALL SELECT b.oid, b.typbasetype FROM base JOIN pg_catalog.pg_type b ON b.oid = base.next) \
                     SELECT base.oid FROM base WHERE base.next = 0) \
                 HAVING pg_catalog.count(*) = 5) END, \
             t.typtype = 'c' OR (t.typtype IN ('r', 'm') AND t.oid >= 16384), \
             CASE WHEN t.typtype = 'e' THEN 'enum' \
             WHEN c.oid = 100 THEN COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') ELSE c.collprovider::text END, \
             CASE WHEN c.oid = 100 THEN \
                 pg_catalog.concat_ws('/', COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale', d.datcollate::text), \
                     pg_catalog.to_jsonb(d) ->> 'daticurules') \
             ELSE pg_catalog.concat_ws('/', COALESCE(pg_catalog.to_jsonb(c) ->> 'colllocale', pg_catalog.to_jsonb(c) ->> 'colliculocale', c.collcollate::text), \
                     pg_catalog.to_jsonb(c) ->> 'collicurules') END, \
             CASE WHEN t.typtype = 'e' THEN \
                 (SELECT pg_catalog.string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) \
             WHEN c.oid = 100 THEN {default_version} ELSE pg_catalog.pg_collation_actual_version(c.oid) END, \
             COALESCE(c.collisdeterministic, true) \
         FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_class r ON r.oid = a.attrelid AND r.relkind IN ('r', 'p') \
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database() \
         LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid >= 16384 \
           AND (a.attcollation <> 0 OR t.oid >= 16384)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_shared_only_where_that_can_be_shown() {
        let order = |provider, locale, version| order(false, Some(provider), Some(locale), version, true);
        let c = order("c", "C", None);
        let english = order("c", "en_US.UTF-8", Some("2.36"));
        assert!(c.is_shared_with(&order("b", "C.UTF-8", Some("1"))));
        assert!(c.is_shared_with(&order("c", "C.UTF-8", None)));
        assert!(english.is_shared_with(&order("c", "en_US.utf8", Some("2.36"))));
        assert!(!english.is_shared_with(&order("c", "en_US.utf8", Some("2.31"))));
        assert!(!english.is_shared_with(&order("i", "en-US", Some("2.36"))));
        assert!(!english.is_shared_with(&c));
        let unversioned = order("c", "en_US.UTF-8", None);
        assert!(!unversioned.is_shared_with(&unversioned));
    }

    #[test]
    fn an_extension_may_call_its_operators_as_it_likes() {
        let found = ["#<#", "#<=#", "=", "#>=#", "#>#", "ext"].map(str::to_owned).to_vec();
        let odd = Operators::found(found.clone()).unwrap();
        assert_eq!((odd.sql("<="), odd.sql("=")), ("OPERATOR(\"ext\".#<=#)".to_owned(), "OPERATOR(\"ext\".=)".to_owned()));
        assert_eq!(Operators::found(found[..3].to_vec()), None, "not all of them: no order to walk along");
        assert_eq!(Operators::of("pg_catalog").sql(">"), "OPERATOR(\"pg_catalog\".>)");
    }

    #[test]
    fn what_counts_different_texts_as_equal_shares_no_order() {
        let loose = order(false, Some("i"), Some("und-u-ks-level1"), Some("153.1"), false);
        assert!(!loose.is_shared_with(&loose));
    }
}
