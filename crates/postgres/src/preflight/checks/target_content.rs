//! The target is empty, or holds what we copied.
//!
//! Rows that are there already would mix with the copy or stop it, and might be somebody's.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
    text::count,
};
use crate::catalogue::USER_RELATION;

pub(crate) const CHECK: Check = Check {
    name: "target_content",
    about: "what the target holds already would mix with the copy or stop it",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    if context.prepared {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT pg_catalog.format('%s %I.%I%s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' \
             WHEN 'm' THEN 'materialised view' WHEN 'S' THEN 'sequence' ELSE 'foreign table' END, n.nspname, c.relname, \
             CASE WHEN c.relkind = 'r' THEN ', ' || pg_catalog.pg_size_pretty(pg_catalog.pg_table_size(c.oid)) ELSE '' END) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {USER_RELATION} ORDER BY c.relkind NOT IN ('r', 'p'), n.nspname, c.relname"
    );
    let found = context.target.lines("looking at what the target holds", &sql).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let message = format!("the target is not empty: it holds {}", count(found.len(), "relation"));
    let database = crate::names::ident(&context.target.facts.database.name);
    let advice = format!("see whose they are; then name another database in [target], or make a new one in place of {database}");
    Ok(vec![Draft::error(Side::Target, message).evidence(found).fix(Fix::advice(advice))])
}
