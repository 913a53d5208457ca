//! Foreign keys that point at what does not move, or were never checked.
//!
//! The target builds its foreign keys from the rows that moved; a row that refers to one that did not fails there.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};

pub(crate) const CHECK: Check = Check {
    name: "foreign_keys",
    about: "a foreign key to a table that does not move can't be built at the target",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    // The user's tables move; what an extension owns is made anew by the extension.
    let covered = &context.source.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('%I', k.conname), k.confrelid::regclass::text, k.convalidated, \
             EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = k.confrelid AND e.deptype = 'e') \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND k.conparentid = 0 AND {covered} ORDER BY 1, 2"
    );
    let rows = context.source.query("looking at foreign keys", &sql, &[]).await?;
    let key = |row: &tokio_postgres::Row| (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, String>(2));
    let outside: Vec<_> = rows.iter().filter(|row| row.get(4)).map(key).collect();
    let unchecked: Vec<_> = rows.iter().filter(|row| !row.get::<_, bool>(3)).map(key).collect();
    let mut drafts = Vec::new();
    if !outside.is_empty() {
        let message = "foreign keys refer to tables that an extension owns, whose rows do not move";
        let advice = "fill those tables at the target before the indexes are built, or drop the constraints until then";
        let evidence = outside.iter().map(|(table, key, to)| format!("{table}: {key} refers to {to}"));
        drafts.push(Draft::warning(Side::Source, message).evidence(evidence).fix(Fix::advice(advice)));
    }
    if !unchecked.is_empty() {
        let message = "foreign keys that are NOT VALID or not enforced: they arrive as they are, and rows may break them on both sides";
        let evidence = unchecked.iter().map(|(table, key, to)| format!("{table}: {key} refers to {to}"));
        let fix = Fix::sql(Side::Source, unchecked.iter().map(|(table, key, _)| format!("ALTER TABLE {table} VALIDATE CONSTRAINT {key};")));
        drafts.push(Draft::info(Side::Source, message).evidence(evidence).fix(fix));
    }
    Ok(drafts)
}
