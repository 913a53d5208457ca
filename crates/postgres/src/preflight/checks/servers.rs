//! Two servers, both primaries, each the one that the plan means.
//!
//! A plan that names one server twice would have it subscribe to itself, which waits for itself for ever; a standby
//! takes no writes, and so no gate.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "servers",
    about: "source and target must be two different servers, and neither a standby",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// `pg_control_*` may be called by everyone unless somebody took that right away.
const IDENTITY_SQL: &str = "SELECT system_identifier::text FROM pg_catalog.pg_control_system(), pg_catalog.pg_control_checkpoint()";

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts: Vec<Draft> = context.sides().into_iter().filter(|side| side.facts.in_recovery).map(standby).collect();
    let mut identifiers = Vec::new();
    for side in context.sides() {
        match forbidden(side).await? {
            Some(draft) => drafts.push(draft),
            None => identifiers.extend(side.lines("reading the server's identity", IDENTITY_SQL).await?),
        }
    }
    if let [source, target] = &identifiers[..]
        && source == target
    {
        let message = format!("source and target are the same server, or copies of one another: both have the system identifier {source}");
        let advice =
            "make the target with initdb: a clone made by a base backup, a storage snapshot or promotion keeps its origin's identity";
        drafts.push(Draft::error(Side::Target, message).of_both().fix(Fix::advice(advice)));
    }
    Ok(drafts)
}

fn standby(side: &Examined<'_>) -> Draft {
    let message = "the server is a standby (in recovery): nothing can be written there";
    Draft::error(side.side, message).fix(Fix::advice(format!("name the primary in [{}] of the plan", side.side)))
}

async fn forbidden(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT f FROM pg_catalog.unnest(ARRAY['pg_catalog.pg_control_system()', 'pg_catalog.pg_control_checkpoint()']) f \
         WHERE NOT pg_catalog.has_function_privilege(f, 'EXECUTE')";
    let missing = side.lines("asking what we may call", sql).await?;
    if missing.is_empty() {
        return Ok(None);
    }
    let grants =
        missing.iter().map(|function| format!("GRANT EXECUTE ON FUNCTION {function} TO {};", crate::names::ident(&side.facts.role.name)));
    let message = "the server's identity can't be read, and every step verifies it before it acts";
    Ok(Some(Draft::error(side.side, message).fix(Fix::sql(side.side, grants)).evidence(missing)))
}
