//! Generated columns are computed at each side, so they must come out the same.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "generated",
    about: "generated columns are not sent but computed again, and must come out the same at the target",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// The version that virtual generated columns came with.
const VIRTUAL_SINCE: u32 = 18;

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    drafts.extend(by_user_functions(&context.source).await?);
    drafts.extend(virtual_columns(context)?);
    Ok(drafts)
}

async fn by_user_functions(source: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &source.covered;
    let sql = format!(
        "SELECT DISTINCT pg_catalog.format('%I.%I.%I calls %s', n.nspname, c.relname, a.attname, p.oid::regprocedure) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum \
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = e.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass \
         JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid \
         WHERE a.attgenerated = 's' AND p.oid >= 16384 AND c.relkind IN ('r', 'p') AND {covered} ORDER BY 1"
    );
    let columns = source.lines("looking at generated columns", &sql).await?;
    let message = "stored generated columns call functions of yours: they are computed again at the target, and differ if a function \
        depends on anything but its arguments";
    let advice = "see that these functions read no table, setting or clock; verification names the rows that differ";
    Ok((!columns.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(columns).fix(Fix::advice(advice))))
}

fn virtual_columns(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    if context.target.facts.major >= VIRTUAL_SINCE {
        return Ok(None);
    }
    let tables = context.source.facts.tables()?.iter();
    let columns: Vec<String> = tables
        .flat_map(|table| {
            table.columns.iter().filter(|column| column.generated == "v").map(|column| format!("{}.{}", table.name, column.name))
        })
        .collect();
    let message = format!("the target runs PostgreSQL {}, which has no virtual generated columns", context.target.facts.major);
    let fix = Fix::advice("make them stored, or choose a target of 18 or newer");
    Ok((!columns.is_empty()).then(|| Draft::error(Side::Target, message).evidence(columns).fix(fix)))
}
