//! Partitions and inheritance: what holds rows, and what may change under way.
//!
//! Partitions are published and gated one by one. One whose detachment was interrupted is neither in nor out, one made
//! while the gates are armed needs a gate of its own, and a foreign table's rows are somewhere else.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text::count,
};

pub(crate) const CHECK: Check = Check {
    name: "partitions",
    about: "partitions are published and gated one by one; one that is half detached or foreign is neither",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let source = &context.source;
    let mut drafts = Vec::new();
    drafts.extend(summary(source)?);
    drafts.extend(half_detached(source).await?);
    drafts.extend(excluding(source).await?);
    drafts.extend(foreign(source).await?);
    drafts.extend(inherited(source).await?);
    drafts.extend(managed(source).await?);
    Ok(drafts)
}

fn summary(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let tables = source.facts.tables()?;
    let parents: Vec<String> = tables.iter().filter(|table| table.partitioned).map(|table| table.name.to_string()).collect();
    if parents.is_empty() {
        return Ok(None);
    }
    let leaves = tables.iter().filter(|table| table.partition && table.holds_rows()).count();
    let message = format!(
        "{} with {}: each partition is copied, published and gated on its own; make new ones before the preparation or after the switch",
        count(parents.len(), "partitioned table"),
        count(leaves, "partition")
    );
    Ok(Some(Draft::info(Side::Source, message).evidence(parents)))
}

async fn half_detached(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    if source.facts.major < 14 {
        return Ok(None);
    }
    let covered = &source.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', pn.nspname, p.relname), pg_catalog.format('%I.%I', n.nspname, c.relname) \
         FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
         WHERE i.inhdetachpending AND {covered} ORDER BY 1, 2"
    );
    let rows = source.query("looking for partitions that are being detached", &sql, &[]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let names: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let fix =
        Fix::sql(Side::Source, names.iter().map(|(parent, child)| format!("ALTER TABLE {parent} DETACH PARTITION {child} FINALIZE;")));
    let evidence = names.iter().map(|(parent, child)| format!("{child} of {parent}"));
    let message = "partitions whose concurrent detachment was interrupted are neither in their table nor out of it";
    Ok(Some(Draft::error(Side::Source, message).evidence(evidence).fix(fix)))
}

/// PostgreSQL has them since 17, and can't put one together again from what its own dump says: the partitions' indexes
/// can't be attached to the table's.
async fn excluding(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &source.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('%I', k.conname), pg_catalog.pg_get_constraintdef(k.oid) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'x' AND c.relkind = 'p' AND k.conparentid = 0 \
           AND EXISTS (SELECT FROM pg_catalog.pg_constraint p WHERE p.conparentid = k.oid) AND {covered} ORDER BY 1, 2"
    );
    let rows = source.query("looking for exclusion constraints of partitioned tables", &sql, &[]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let found: Vec<[String; 3]> = rows.iter().map(|row| std::array::from_fn(|at| row.get(at))).collect();
    let evidence = found.iter().map(|[table, name, definition]| format!("{table}: {name} {definition}"));
    let fix = found.iter().flat_map(|[table, name, definition]| {
        let again = format!("-- when the switch is done: ALTER TABLE {table} ADD CONSTRAINT {name} {definition};");
        [format!("ALTER TABLE {table} DROP CONSTRAINT {name};"), again]
    });
    let message = "exclusion constraints of partitioned tables: PostgreSQL can't make them anew from their definitions";
    Ok(Some(Draft::error(Side::Source, message).evidence(evidence).fix(Fix::sql(Side::Source, fix))))
}

async fn foreign(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &source.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'f' AND c.relispartition AND {covered} ORDER BY 1"
    );
    let names = source.lines("looking for foreign partitions", &sql).await?;
    let message = "partitions that are foreign tables: their rows are elsewhere, do not move, and have no gate";
    Ok((!names.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(names)))
}

async fn inherited(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &source.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I inherits from %s', n.nspname, c.relname, i.inhparent::regclass) \
         FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND NOT c.relispartition AND {covered} ORDER BY 1"
    );
    let names = source.lines("looking for inheritance", &sql).await?;
    let message = "tables that inherit from others: each is copied and compared by its own rows";
    Ok((!names.is_empty()).then(|| Draft::info(Side::Source, message).evidence(names)))
}

/// A job that makes partitions makes them while the gates are armed, too.
async fn managed(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT extname || ' ' || extversion FROM pg_catalog.pg_extension WHERE extname IN ('pg_partman', 'timescaledb', 'pg_pathman', 'citus')";
    let names = source.lines("looking for extensions that make partitions", sql).await?;
    let message = "an extension makes tables on its own, and its internal tables may not move: stop its jobs until the switch is done";
    Ok((!names.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(names)))
}
