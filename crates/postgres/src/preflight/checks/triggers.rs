//! Triggers and rules that fire when a change is applied.
//!
//! The change that a trigger made at one side comes through the stream. Where it also fires as the change is applied,
//! its effect happens twice: rows differ, or an INSERT conflicts and the stream stops.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "triggers",
    about: "a trigger that fires as changes are applied does its work twice, and both sides differ",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        drafts.extend(firing(side).await?);
    }
    Ok(drafts)
}

async fn firing(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), f.kind, f.name, f.enabled \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN (SELECT tgrelid AS relation, 'TRIGGER' AS kind, pg_catalog.format('%I', tgname) AS name, tgenabled::text AS enabled \
                 FROM pg_catalog.pg_trigger WHERE NOT tgisinternal \
             UNION ALL SELECT ev_class, 'RULE', pg_catalog.format('%I', rulename), ev_enabled::text FROM pg_catalog.pg_rewrite WHERE ev_type <> '1') f \
             ON f.relation = c.oid \
         WHERE f.enabled IN ('A', 'R') AND c.relkind IN ('r', 'p') AND {covered} ORDER BY 1, 2, 3"
    );
    let rows = side.query("looking for triggers that fire on replicated changes", &sql, &[]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let found: Vec<[String; 4]> = rows.iter().map(|row| std::array::from_fn(|at| row.get(at))).collect();
    let evidence = found.iter().map(|[table, kind, name, enabled]| {
        let how = if enabled == "A" { "ALWAYS" } else { "REPLICA" };
        format!("{table}: {} {name} is ENABLE {how}", kind.to_lowercase())
    });
    // One for replicas only would start to fire for clients if it were simply enabled.
    let fix = found.iter().map(|[table, kind, name, enabled]| {
        let verb = if enabled == "A" { "ENABLE" } else { "DISABLE" };
        format!("ALTER TABLE {table} {verb} {kind} {name};")
    });
    let message = "triggers or rules that also fire when a change from the other side is applied: their effect would happen twice";
    Ok(Some(Draft::error(side.side, message).evidence(evidence).fix(Fix::sql(side.side, fix))))
}
