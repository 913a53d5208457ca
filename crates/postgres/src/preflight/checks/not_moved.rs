//! What exists at the target afterwards without its contents coming along, so that nobody is surprised.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "not_moved",
    about: "some things are made anew at the target instead of being moved, and some only in name",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let source = &context.source;
    let mut drafts = Vec::new();
    let message =
        "materialised views are filled at the target when indexes are built, and not refreshed after that: refresh them after the switch";
    drafts.extend(relations(source, 'm', message).await?);
    let message = "foreign tables arrive as definitions: their rows stay where they are, and writes to them have no gate";
    drafts.extend(relations(source, 'f', message).await?);
    drafts.extend(extension_rows(source).await?);
    drafts.extend(mappings(source).await?);
    Ok(drafts)
}

async fn relations(source: &Examined<'_>, kind: char, message: &str) -> Result<Option<Draft>, Inconclusive> {
    let covered = &source.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = '{kind}' AND {covered} ORDER BY 1"
    );
    let names = source.lines("listing what does not move", &sql).await?;
    Ok((!names.is_empty()).then(|| Draft::info(Side::Source, message).evidence(names)))
}

/// Rows that users put into an extension's tables. The extension makes them anew at the target, as they are at first: a
/// dump of definitions carries no row, also of those that the extension marks as configuration, and nor does the stream.
async fn extension_rows(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT pg_catalog.format('%s of %s', t.oid::regclass, e.extname) FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' \
         JOIN pg_catalog.pg_class t ON d.classid = 'pg_catalog.pg_class'::regclass AND t.oid = d.objid \
         WHERE t.relkind = 'r' AND pg_catalog.pg_relation_size(t.oid) > 0 ORDER BY 1";
    let names = source.lines("looking at tables of extensions", sql).await?;
    let message = "tables of extensions hold rows, and no row of theirs moves: where some are yours, the target lacks them";
    let advice =
        "copy your rows there by hand before the switch, e.g. with COPY … TO STDOUT at the source and COPY … FROM STDIN at the target";
    Ok((!names.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(names).fix(Fix::advice(advice))))
}

async fn mappings(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT pg_catalog.format('%s for %s', srvname, usename) FROM pg_catalog.pg_user_mappings ORDER BY 1";
    let names = source.lines("listing user mappings", sql).await?;
    let message =
        "user mappings of foreign servers: a dump carries their options, and with them the passwords, only where our role may see them";
    Ok((!names.is_empty()).then(|| Draft::info(Side::Source, message).evidence(names)))
}
