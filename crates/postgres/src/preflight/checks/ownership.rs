//! Our role owns what moves, or is a member of the owners.
//!
//! Only an owner can publish a table and put a gate before it; a table without a gate is written to past the fence.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text::count,
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "ownership",
    about: "only an owner can publish a table, put a gate before it and set its sequences",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        drafts.extend(foreign(side).await?);
        drafts.extend(unreadable(side).await?);
    }
    Ok(drafts)
}

async fn foreign(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_userbyid(c.relowner)::text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') AND {covered} \
         ORDER BY 1"
    );
    let rows = side.query("asking who owns the tables", &sql, &[]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut owners: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
    owners.sort_unstable();
    owners.dedup();
    let role = ident(&side.facts.role.name);
    let message = format!("our role {role} does not own {}", count(rows.len(), "relation"));
    let evidence = rows.iter().map(|row| format!("{} belongs to {}", row.get::<_, String>(0), row.get::<_, String>(1)));
    let grants = owners.iter().map(|owner| join_sql(owner, &role, side.facts.major));
    Ok(Some(Draft::error(side.side, message).evidence(evidence).fix(Fix::sql(side.side, grants))))
}

/// From 16 on each membership says whether it is inherited; before, the member does.
fn join_sql(owner: &str, role: &str, major: u32) -> String {
    if major >= 16 {
        format!("GRANT {} TO {role} WITH INHERIT TRUE, SET TRUE;", ident(owner))
    } else {
        format!("GRANT {} TO {role}; ALTER ROLE {role} INHERIT;", ident(owner))
    }
}

/// An owner may have taken rights from itself.
async fn unreadable(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT c.relkind = 'S', pg_catalog.format('%I.%I', n.nspname, c.relname) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relpersistence <> 't' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.pg_has_role(c.relowner, 'USAGE') \
             AND CASE WHEN c.relkind = 'S' THEN NOT (pg_catalog.has_sequence_privilege(c.oid, 'SELECT') AND pg_catalog.has_sequence_privilege(c.oid, 'UPDATE')) \
                 WHEN c.relkind IN ('r', 'p') THEN NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') ELSE false END AND {covered} \
         ORDER BY 2"
    );
    let rows = side.query("asking what we may read", &sql, &[]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let role = ident(&side.facts.role.name);
    let grant = |row: &tokio_postgres::Row| {
        let (privilege, kind) = if row.get(0) { ("SELECT, UPDATE", "SEQUENCE") } else { ("SELECT", "TABLE") };
        format!("GRANT {privilege} ON {kind} {} TO {role};", row.get::<_, String>(1))
    };
    let fix = Fix::sql(side.side, rows.iter().map(grant));
    let message = format!("our role {role} may not read every table, or not read and set every sequence");
    Ok(Some(Draft::error(side.side, message).evidence(rows.iter().map(|row| row.get::<_, String>(1))).fix(fix)))
}
