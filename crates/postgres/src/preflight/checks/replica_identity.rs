//! Every table needs something that identifies its rows.
//!
//! Merely *publishing* a table without a replica identity makes the application's own UPDATE and DELETE fail. A replica
//! identity that can't be compared at the other side stops the stream at the first UPDATE.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text::count,
};

pub(crate) const CHECK: Check = Check {
    name: "replica_identity",
    about: "publishing a table without a replica identity makes the application's own UPDATE and DELETE fail",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// Rows from which on an UPDATE that is found by comparing whole rows is felt.
const LARGE_ROWS: f64 = 10_000.0;

/// A table with rows, and what could identify them.
struct Candidate {
    /// Quoted.
    name: String,
    /// `d` the primary key, `n` nothing, `f` the whole row, `i` an index.
    setting: String,
    rows: f64,
    has_key: bool,
    key_is_deferrable: bool,
    has_identity_index: bool,
    /// A unique index on columns that are never NULL, quoted.
    unique_index: Option<String>,
    /// Columns that have no equality, with their types.
    incomparable: Vec<String>,
    /// Generated columns of the identity.
    generated_key: Vec<String>,
    has_generated: bool,
}

/// What is wrong with a table's identity.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    Deferrable,
    Incomparable,
    GeneratedKey,
    /// From 18 on, the whole row can't identify a row where a column of it is not published.
    GeneratedWhole,
}

impl Candidate {
    fn fault(&self, newest_major: u32) -> Option<Fault> {
        match self.setting.as_str() {
            "f" if !self.incomparable.is_empty() => Some(Fault::Incomparable),
            "f" if self.has_generated && newest_major >= 18 => Some(Fault::GeneratedWhole),
            "f" => None,
            "i" if self.has_identity_index => self.generated_fault(),
            "d" if self.has_key => self.generated_fault(),
            "d" if self.key_is_deferrable => Some(Fault::Deferrable),
            _ => Some(Fault::Missing),
        }
    }

    fn generated_fault(&self) -> Option<Fault> {
        (!self.generated_key.is_empty()).then_some(Fault::GeneratedKey)
    }

    /// The statement that gives it an identity; none where only a new key does.
    fn fix_sql(&self, newest_major: u32) -> Option<String> {
        if self.setting != "d" && self.has_key && self.generated_key.is_empty() {
            return Some(format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT;", self.name));
        }
        if let Some(index) = &self.unique_index {
            return Some(format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {index};", self.name));
        }
        let whole_row_works = self.incomparable.is_empty() && !(self.has_generated && newest_major >= 18);
        whole_row_works.then(|| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", self.name))
    }

    fn describe(&self, fault: &Fault) -> String {
        let rows = if self.rows < 0.0 { "size unknown".to_owned() } else { format!("about {} rows", self.rows) };
        let why = match fault {
            Fault::Missing if self.setting == "n" => "REPLICA IDENTITY NOTHING".to_owned(),
            Fault::Missing if self.setting == "i" => "its replica identity's index is gone or not valid".to_owned(),
            Fault::Missing => "no primary key".to_owned(),
            Fault::Deferrable => "its primary key is deferrable".to_owned(),
            Fault::Incomparable => format!("REPLICA IDENTITY FULL, and no equality for {}", self.incomparable.join(", ")),
            Fault::GeneratedKey => format!("its key has generated columns, which are not sent: {}", self.generated_key.join(", ")),
            Fault::GeneratedWhole => "REPLICA IDENTITY FULL, and generated columns, which are not sent".to_owned(),
        };
        format!("{}: {why} ({rows})", self.name)
    }
}

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    // What identifies rows here has to do so at the other side as well, once that is in charge.
    let newest = context.origins().iter().map(|origin| origin.facts.major).max().unwrap_or_default();
    for origin in context.origins() {
        let candidates = candidates(origin).await?;
        drafts.extend(unidentified(origin.side, newest, &candidates));
        drafts.extend(slow(origin.side, &candidates));
    }
    Ok(drafts)
}

fn unidentified(side: Side, major: u32, candidates: &[Candidate]) -> Option<Draft> {
    let faulty: Vec<(&Candidate, Fault)> = candidates.iter().filter_map(|table| Some((table, table.fault(major)?))).collect();
    if faulty.is_empty() {
        return None;
    }
    let message = format!(
        "{} without a usable replica identity: UPDATE and DELETE there would fail or stop the stream",
        count(faulty.len(), "table")
    );
    let evidence = faulty.iter().map(|(table, fault)| table.describe(fault));
    let statements = faulty.iter().map(|(table, _)| {
        table
            .fix_sql(major)
            .unwrap_or_else(|| format!("-- {}: add a key, e.g. ALTER TABLE {} ADD PRIMARY KEY (…);", table.name, table.name))
    });
    Some(Draft::error(side, message).evidence(evidence).fix(Fix::sql(side, statements)))
}

fn slow(side: Side, candidates: &[Candidate]) -> Option<Draft> {
    let slow: Vec<String> = candidates
        .iter()
        .filter(|table| table.setting == "f" && table.rows >= LARGE_ROWS)
        .map(|table| format!("{}: about {} rows", table.name, table.rows))
        .collect();
    if slow.is_empty() {
        return None;
    }
    let message = "rows identified by all their columns are searched for one by one: UPDATE and DELETE of many rows holds the stream up";
    Some(Draft::warning(side, message).evidence(slow).fix(Fix::advice("add a primary key, then ALTER TABLE … REPLICA IDENTITY DEFAULT")))
}

async fn candidates(side: &Examined<'_>) -> Result<Vec<Candidate>, Inconclusive> {
    let rows = side.query("looking at replica identities", &candidates_sql(&side.covered), &[]).await?;
    let candidate = |row: &tokio_postgres::Row| Candidate {
        name: row.get(0),
        setting: row.get(1),
        rows: row.get(2),
        has_key: row.get(3),
        key_is_deferrable: row.get(4),
        has_identity_index: row.get(5),
        unique_index: row.get(6),
        incomparable: row.get(7),
        generated_key: row.get(8),
        has_generated: row.get(9),
    };
    Ok(rows.iter().map(candidate).collect())
}

/// A deferrable key can't identify a row. Equality comes from the default operator class of a type or of what it is
/// binary-coercible to; arrays have their elements', domains their base type's.
fn candidates_sql(covered: &str) -> String {
    let generated_of = |index: &str| {
        format!(
            "EXISTS (SELECT FROM pg_catalog.unnest({index}.indkey::int2[]) WITH ORDINALITY k(attnum, at) WHERE k.attnum = a.attnum AND k.at <= {index}.indnkeyatts)"
        )
    };
    format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relreplident::text, pg_catalog.round(c.reltuples)::float8, \
             EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid), \
             EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate), \
             EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indimmediate AND i.indisvalid), \
             (SELECT pg_catalog.format('%I', x.relname) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
                 WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND (NOT a.attnotnull OR a.attgenerated <> '') AND {by_i}) \
                 ORDER BY i.indnkeyatts, x.relname LIMIT 1), \
             ARRAY(SELECT pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)) \
                 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_type b \
                     ON b.oid = CASE WHEN t.typbasetype <> 0 THEN t.typbasetype WHEN t.typelem <> 0 AND t.typlen = -1 THEN t.typelem ELSE t.oid END \
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND b.typtype = 'b' AND b.typcategory <> 'A' \
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod \
                       WHERE m.amname IN ('btree', 'hash') AND o.opcdefault AND (o.opcintype = b.oid OR EXISTS (SELECT FROM pg_catalog.pg_cast s \
                           WHERE s.castsource = b.oid AND s.casttarget = o.opcintype AND s.castmethod = 'b' AND s.castcontext = 'i'))) \
                 ORDER BY a.attnum), \
             ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
                 WHERE i.indrelid = c.oid AND a.attgenerated <> '' AND {by_i} \
                   AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary ELSE false END), \
             EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '') \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {covered} ORDER BY 1",
        by_i = generated_of("i")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(setting: &str, has_key: bool) -> Candidate {
        Candidate {
            name: "public.t".into(),
            setting: setting.into(),
            rows: 5.0,
            has_key,
            key_is_deferrable: false,
            has_identity_index: false,
            unique_index: None,
            incomparable: vec![],
            generated_key: vec![],
            has_generated: false,
        }
    }

    #[test]
    fn a_key_or_the_whole_row_identifies() {
        assert_eq!(table("d", true).fault(15), None);
        assert_eq!(table("f", false).fault(15), None);
        assert_eq!(table("d", false).fault(15), Some(Fault::Missing));
        assert_eq!(table("n", true).fault(15), Some(Fault::Missing), "NOTHING says so though there is a key");
        assert_eq!(table("i", true).fault(15), Some(Fault::Missing), "the index is gone");
        assert_eq!(Candidate { key_is_deferrable: true, ..table("d", false) }.fault(15), Some(Fault::Deferrable));
    }

    #[test]
    fn the_whole_row_must_be_comparable_and_published() {
        let json = Candidate { incomparable: vec!["j json".into()], ..table("f", false) };
        assert_eq!(json.fault(15), Some(Fault::Incomparable));
        let generated = || Candidate { has_generated: true, ..table("f", false) };
        assert_eq!((generated().fault(17), generated().fault(18)), (None, Some(Fault::GeneratedWhole)));
    }

    #[test]
    fn the_fix_is_the_lightest_that_works() {
        assert_eq!(table("n", true).fix_sql(15).unwrap(), "ALTER TABLE public.t REPLICA IDENTITY DEFAULT;");
        let unique = Candidate { unique_index: Some("t_u".into()), ..table("d", false) };
        assert_eq!(unique.fix_sql(15).unwrap(), "ALTER TABLE public.t REPLICA IDENTITY USING INDEX t_u;");
        assert_eq!(table("d", false).fix_sql(15).unwrap(), "ALTER TABLE public.t REPLICA IDENTITY FULL;");
        let json = Candidate { incomparable: vec!["j json".into()], ..table("d", false) };
        assert_eq!(json.fix_sql(15), None, "only a key helps");
    }
}
