//! The statements by which one table is read at one side.
//!
//! A row is compared as `ROW(columns by name)::text`: the text tells NULL from '' and quotes what is ambiguous, and
//! the text of every built-in type is exact under the session's fixed settings. Scale (1.0, 1.00), sign of zero and
//! trailing spaces are differences, the order of keys in a `jsonb` is not.
//!
//! A row's hash is two 64-bit hashes with different seeds. A chunk is summed up as the count and the exact sum of each:
//! that needs no order, and two chunks that differ look alike with a probability of about 2^-128; over 10^9 rows in
//! 10^5 chunks, all of them different, that is 10^-33. (One hash alone would be 10^-14, which is enough too; the second
//! is there because the hash is no cryptographic one.) Names like `regclass` are compared as they print.

use super::{
    Key,
    ordering::Operators,
    session::{Param, Query},
};
use crate::names::{ident, literal};

/// How a text is hashed, the same way on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// The server's own, fast; depends on the encoding and on the machine's byte order.
    Native,
    /// SHA-256 of the text in UTF-8, for sides where the native one disagrees.
    Portable,
}

impl Hash {
    fn of(self, text: &str, seed: u8) -> String {
        match self {
            Self::Native => format!("pg_catalog.hashtextextended({text}, {seed})"),
            Self::Portable => format!(
                "('x' || pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), {}, 8), 'hex'))\
                 ::bit(64)::bigint",
                1 + 8 * u32::from(seed)
            ),
        }
    }
}

/// A column of a key at one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    /// As `format_type` prints it.
    pub(super) type_name: String,
    /// What it is compared by.
    pub(super) operators: Operators,
}

/// The keys after `after` up to and with `upto`; open where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) after: Option<Key>,
    pub(super) upto: Option<Key>,
}

/// One table at one side.
#[derive(Clone, Debug)]
pub(super) struct TableSql {
    /// `ONLY "s"."t" AS t`, or without ONLY where partitions are read through their parent.
    pub(super) from: String,
    /// The compared columns' names, in the order in which they are hashed.
    pub(super) columns: Vec<String>,
    /// Empty for a table without a key.
    pub(super) key: Vec<KeyColumn>,
    pub(super) hash: Hash,
    /// Whether each column's value may be shown; absent where none is asked for.
    pub(super) shown: Option<Vec<bool>>,
}

impl TableSql {
    /// Count and sums of a range: `int8, text, text`.
    pub(super) fn digest(&self, range: &Range) -> Query {
        let (condition, params) = self.within(range);
        // OFFSET 0: the row's text is made once and hashed twice.
        let sql = format!(
            "SELECT count(*), COALESCE(sum({}), 0)::text, COALESCE(sum({}), 0)::text \
             FROM (SELECT {} AS r FROM {} WHERE {condition} OFFSET 0) x",
            self.hash.of("r", 0),
            self.hash.of("r", 1),
            self.row(),
            self.from
        );
        Query { sql, params }
    }

    /// The key that has `skip` keys of the range before it: `text[]`; no row where there are fewer.
    pub(super) fn boundary(&self, range: &Range, skip: u32) -> Query {
        let (condition, params) = self.within(range);
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition} ORDER BY {} OFFSET {skip} LIMIT 1",
            self.key_text("t"),
            self.from,
            self.key_order("")
        );
        Query { sql, params }
    }

    /// The last key: `text[]`; no row where the table is empty.
    pub(super) fn last_key(&self) -> Query {
        let sql = format!("SELECT {} FROM {} ORDER BY {} LIMIT 1", self.key_text("t"), self.from, self.key_order(" DESC"));
        Query { sql, params: Vec::new() }
    }

    /// Keys and hashes of the first rows of a range, in order: `text[], int8, int8`.
    pub(super) fn rows(&self, range: &Range, limit: u32) -> Query {
        let (condition, params) = self.within(range);
        let sql = format!(
            "SELECT k, {}, {} FROM (SELECT {} AS k, {} AS r FROM {} WHERE {condition} ORDER BY {} LIMIT {limit}) x",
            self.hash.of("r", 0),
            self.hash.of("r", 1),
            self.key_text("t"),
            self.row(),
            self.from,
            self.key_order("")
        );
        Query { sql, params }
    }

    /// Number (from 1) of the key asked for, and the row's hashes, of the rows with these keys: `int8, int8, int8`.
    pub(super) fn lookup(&self, keys: &[Key]) -> Query {
        let (join, params) = self.join(keys);
        let sql = format!(
            "SELECT n, {}, {} FROM (SELECT u.n, {} AS r FROM {join} OFFSET 0) x",
            self.hash.of("r", 0),
            self.hash.of("r", 1),
            self.row()
        );
        Query { sql, params }
    }

    /// The rows with these keys, one by one: number of the key asked for, key, version, whether nobody claims the
    /// version, a hash per column, and of each column what may be shown and its length in characters:
    /// `int8, text[], text, bool, int8[], text[], int4[]`. `lock` is empty, or a locking clause for `t`.
    pub(super) fn states(&self, keys: &[Key], lock: &str) -> Query {
        let (join, params) = self.join(keys);
        Query { sql: format!("{} FROM {join}{lock}", self.state()), params }
    }

    /// Lets the stream carry a look at these keys.
    pub(super) fn look(&self, id: &str, statement: &str, keys: &[Key]) -> Query {
        let (_, params) = self.join(keys);
        let lines: Vec<String> = (1..=params.len()).map(|at| format!("${at}::text[]")).collect();
        let (id, statement) = (literal(id), literal(statement));
        Query {
            sql: format!("INSERT INTO cutover.look (id, statement, keys) VALUES ({id}, {statement}, ARRAY[{}])", lines.join(", ")),
            params,
        }
    }

    /// [`states`](Self::states) of the keys in `$1`, which has a line for each column of the key.
    pub(super) fn states_of_lines(&self) -> String {
        format!("{} FROM {}", self.state(), self.join_arrays(&line))
    }

    fn state(&self) -> String {
        let hashes: Vec<String> = self
            .columns
            .iter()
            .map(|column| self.hash.of(&format!("(ROW(t.{})::text COLLATE pg_catalog.\"C\")", ident(column)), 0))
            .collect();
        let (shown, lengths) = self.shown_columns();
        format!(
            "SELECT u.n, {}, {VERSION}, t.xmax = '0'::xid, ARRAY[{}]::bigint[], {shown}::text[], {lengths}::integer[]",
            self.key_text("t"),
            hashes.join(", ")
        )
    }

    /// A redacted value never leaves its server, only its length does.
    fn shown_columns(&self) -> (String, String) {
        let Some(may_be_shown) = &self.shown else { return ("NULL".to_owned(), "NULL".to_owned()) };
        let (mut shown, mut lengths) = (Vec::new(), Vec::new());
        for (column, may_be_shown) in self.columns.iter().zip(may_be_shown) {
            let column = format!("t.{}", ident(column));
            // Not IS NOT NULL: that says no to a row of NULLs, which is a value.
            let of_value = |text: String| format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN {text} END");
            let text = format!("pg_catalog.format('%s', {column})");
            let most = if *may_be_shown { SHOWN_CHARACTERS } else { 0 };
            shown.push(of_value(format!("pg_catalog.\"left\"({text}, {most})")));
            lengths.push(of_value(format!("pg_catalog.length({text})")));
        }
        (format!("ARRAY[{}]", shown.join(", ")), format!("ARRAY[{}]", lengths.join(", ")))
    }

    /// Count and sums of every bucket, a bucket being the rows whose hash ends alike: `int8, int8, text, text`.
    pub(super) fn buckets(&self, mask: i64) -> Query {
        let sql =
            format!("SELECT h1 & {mask}::bigint, count(*), sum(h1)::text, sum(h2)::text FROM ({}) y GROUP BY 1", self.hashed_rows("", ""));
        Query { sql, params: Vec::new() }
    }

    /// Each different row of some buckets, and how often it is there: `int8, int8, int8`.
    pub(super) fn groups(&self, mask: i64, buckets: Vec<i64>) -> Query {
        let sql = format!(
            "SELECT h1, h2, count(*) FROM ({}) y WHERE h1 & {mask}::bigint = ANY($1::bigint[]) GROUP BY h1, h2",
            self.hashed_rows("", "")
        );
        Query { sql, params: vec![Param::Numbers(buckets)] }
    }

    /// How often rows with these hashes are there, the sum of their versions, and whether nobody claims one:
    /// `int8, int8, int8, text, bool`.
    pub(super) fn versions(&self, hashes: Vec<i64>) -> Query {
        let inner = format!(", pg_catalog.hashtextextended({VERSION} COLLATE pg_catalog.\"C\", 0) AS v, t.xmax = '0'::xid AS f");
        let sql = format!(
            "SELECT h1, h2, count(*), sum(v)::text, bool_and(f) FROM ({}) y WHERE h1 = ANY($1::bigint[]) GROUP BY h1, h2",
            self.hashed_rows(&inner, ", v, f")
        );
        Query { sql, params: vec![Param::Numbers(hashes)] }
    }

    fn hashed_rows(&self, inner: &str, outer: &str) -> String {
        format!(
            "SELECT {} AS h1, {} AS h2{outer} FROM (SELECT {} AS r{inner} FROM {} OFFSET 0) x OFFSET 0",
            self.hash.of("r", 0),
            self.hash.of("r", 1),
            self.row(),
            self.from
        )
    }

    /// The text of a row. `C`: the hash is of the bytes, whatever the database's collation counts as equal.
    fn row(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("t.{}", ident(column))).collect();
        format!("(ROW({})::text COLLATE pg_catalog.\"C\")", columns.join(", "))
    }

    fn key_text(&self, from: &str) -> String {
        let columns: Vec<String> = self.key.iter().map(|column| format!("{from}.{}::text", ident(&column.name))).collect();
        format!("ARRAY[{}]", columns.join(", "))
    }

    fn key_order(&self, direction: &str) -> String {
        let columns: Vec<String> = self.key.iter().map(|column| format!("t.{}{direction}", ident(&column.name))).collect();
        columns.join(", ")
    }

    fn within(&self, range: &Range) -> (String, Vec<Param>) {
        let mut conditions = Vec::new();
        let mut params = Vec::new();
        for (operator, key) in [(">", &range.after), ("<=", &range.upto)] {
            if let Some(key) = key {
                conditions.push(self.compare(operator, params.len()));
                params.extend(key.iter().cloned().map(Param::Text));
            }
        }
        (if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") }, params)
    }

    /// The key compared with the parameters after the `before`th.
    fn compare(&self, operator: &str, before: usize) -> String {
        let column = |at: usize| format!("t.{}", ident(&self.key[at].name));
        let param = |at: usize| format!("${}::text::{}", before + at + 1, self.key[at].type_name);
        let with = |at: usize, operator: &str| self.key[at].operators.sql(operator);
        let all: Vec<usize> = (0..self.key.len()).collect();
        if self.key.iter().all(|column| column.operators == self.key[0].operators) {
            let list = |part: &dyn Fn(usize) -> String| all.iter().map(|at| part(*at)).collect::<Vec<_>>().join(", ");
            return format!("({}) {} ({})", list(&column), with(0, operator), list(&param));
        }
        // A row comparison takes its operators from one schema, so here it is spelled out. The first part is implied by
        // the second, and lets the index be used.
        let strict = operator.trim_end_matches('=');
        let alternatives: Vec<String> = all
            .iter()
            .map(|at| {
                let last = *at + 1 == self.key.len();
                let mut parts: Vec<String> = (0..*at).map(|at| format!("{} {} {}", column(at), with(at, "="), param(at))).collect();
                parts.push(format!("{} {} {}", column(*at), with(*at, if last { operator } else { strict }), param(*at)));
                format!("({})", parts.join(" AND "))
            })
            .collect();
        format!("({} {} {} AND ({}))", column(0), with(0, &format!("{strict}=")), param(0), alternatives.join(" OR "))
    }

    /// The table joined with keys as parameters, one for each column of the key.
    pub(super) fn join(&self, keys: &[Key]) -> (String, Vec<Param>) {
        let params = (0..self.key.len()).map(|at| Param::Texts(keys.iter().map(|key| key[at].clone()).collect())).collect();
        (self.join_arrays(&|at| format!("${}::text[]", at + 1)), params)
    }

    /// The table joined with the keys in these arrays, one for each column of the key.
    fn join_arrays(&self, array: &dyn Fn(usize) -> String) -> String {
        format!("{} JOIN {} ON {}", self.unnested(array, "", ""), self.from, self.matches("u"))
    }

    /// The keys in these arrays as `u(k0, …, n)`, with what is unnested behind them under `names`.
    pub(super) fn unnested(&self, array: &dyn Fn(usize) -> String, more: &str, names: &str) -> String {
        let list = |part: &dyn Fn(usize) -> String| (0..self.key.len()).map(part).collect::<Vec<_>>().join(", ");
        // Not qualified: only the bare name takes several arrays, and the search_path is pg_catalog alone.
        format!("unnest({}{more}) WITH ORDINALITY AS u({}{names}, n)", list(array), list(&|at| format!("k{at}")))
    }

    /// The condition that a row of the table has the key of a row of `from`.
    pub(super) fn matches(&self, from: &str) -> String {
        let condition = |(at, column): (usize, &KeyColumn)| {
            let KeyColumn { name, type_name, operators } = column;
            format!("t.{} {} {from}.k{at}::{type_name}", ident(name), operators.sql("="))
        };
        self.key.iter().enumerate().map(condition).collect::<Vec<_>>().join(" AND ")
    }
}

/// A column's values among the keys in `$1`.
pub(super) fn line(at: usize) -> String {
    format!("($1)[{0}:{0}][:]", at + 1)
}

/// How much of a value is shown. Unit: characters.
const SHOWN_CHARACTERS: usize = 200;

/// What tells one version of a row from every other at the same server: a place is not used again by the same
/// transaction once a version is there.
pub(super) const VERSION: &str = "(t.tableoid::text || '/' || t.ctid::text || '/' || t.xmin::text)";

/// The statement that shows whether both sides hash alike: `text, int8`.
pub(super) fn hash_probe() -> Query {
    let sql = format!(
        "SELECT pg_catalog.getdatabaseencoding()::text, {}",
        Hash::Native.of(&format!("({} COLLATE pg_catalog.\"C\")", literal("a text longer than one block of the hash")), 1)
    );
    Query { sql, params: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schemas: &[&str]) -> TableSql {
        let key = schemas.iter().enumerate().map(|(at, schema)| KeyColumn {
            name: format!("k{at}"),
            type_name: "bigint".to_owned(),
            operators: Operators::of(schema),
        });
        TableSql {
            from: "ONLY \"s\".\"t\" AS t".to_owned(),
            columns: vec!["a".to_owned()],
            key: key.collect(),
            hash: Hash::Native,
            shown: None,
        }
    }

    #[test]
    fn a_range_is_one_row_comparison_at_each_end() {
        let key = |text: &str| Some(vec![text.to_owned(), "x".to_owned()]);
        let (sql, params) = table(&["pg_catalog", "pg_catalog"]).within(&Range { after: key("1"), upto: key("2") });
        assert_eq!(
            sql,
            "(t.\"k0\", t.\"k1\") OPERATOR(\"pg_catalog\".>) ($1::text::bigint, $2::text::bigint) AND \
             (t.\"k0\", t.\"k1\") OPERATOR(\"pg_catalog\".<=) ($3::text::bigint, $4::text::bigint)"
        );
        assert_eq!(params.len(), 4);
        assert_eq!(table(&["pg_catalog"]).within(&Range::default()).0, "true");
    }

    #[test]
    fn operators_of_two_schemas_are_spelled_out() {
        let range = Range { after: None, upto: Some(vec!["1".to_owned(), "2".to_owned()]) };
        assert_eq!(
            table(&["pg_catalog", "ext"]).within(&range).0,
            "(t.\"k0\" OPERATOR(\"pg_catalog\".<=) $1::text::bigint AND \
             ((t.\"k0\" OPERATOR(\"pg_catalog\".<) $1::text::bigint) OR \
             (t.\"k0\" OPERATOR(\"pg_catalog\".=) $1::text::bigint AND t.\"k1\" OPERATOR(\"ext\".<=) $2::text::bigint)))"
        );
    }
}
