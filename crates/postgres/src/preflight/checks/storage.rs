//! Room for the data, and the tablespaces it lies in.
//!
//! No SQL tells how much a disk has left, so this says what is needed and leaves the look to a person.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::{ident, literal};

pub(crate) const CHECK: Check = Check {
    name: "storage",
    about: "a target whose disk fills up stops, and a source whose log piles up behind a slot stops the application",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let message = format!(
        "{}; the target needs about as much, and half as much again while indexes are built. \
         How much its disk has left can't be told from here",
        context.size()?
    );
    let advice = "look with df at the target's data directory, and at the source's: its log piles up there while the target is behind";
    let mut drafts = vec![Draft::info(Side::Target, message).fix(Fix::advice(advice))];
    drafts.extend(tablespaces(context).await?);
    Ok(drafts)
}

async fn tablespaces(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let used = used(&context.source).await?;
    let names: Vec<&str> = used.iter().map(|(name, _)| name.as_str()).collect();
    let sql =
        "SELECT w::text FROM pg_catalog.unnest($1::text[]) w WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace t WHERE t.spcname = w)";
    let rows = context.target.query("looking for tablespaces", sql, &[&names]).await?;
    let missing: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let evidence =
        used.iter().filter(|(name, _)| missing.contains(name)).map(|(name, relations)| format!("{name}: {relations} tables and indexes"));
    let folder = |name: &String| literal(&format!("/srv/{name}"));
    let statements =
        missing.iter().map(|name| format!("CREATE TABLESPACE {} LOCATION {}; -- choose an empty folder", ident(name), folder(name)));
    let message = "tablespaces that the source's tables lie in do not exist at the target: the schema does not load";
    Ok(Some(Draft::error(Side::Target, message).evidence(evidence).fix(Fix::sql(Side::Target, statements))))
}

async fn used(source: &Examined<'_>) -> Result<Vec<(String, i64)>, Inconclusive> {
    let covered = &source.covered;
    let sql = format!(
        "SELECT s.spcname::text, count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace WHERE {covered} GROUP BY 1 ORDER BY 1"
    );
    let rows = source.query("listing tablespaces", &sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
