//! Large objects are not replicated, and no trigger stops a write to one.

use cutover_core::plan::LargeObjects;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};

pub(crate) const CHECK: Check = Check {
    name: "large_objects",
    about: "large objects are not replicated, and the gate can't stop a write to one",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for origin in context.origins() {
        let sql = "SELECT pg_catalog.pg_get_userbyid(lomowner)::text, count(*) FROM pg_catalog.pg_largeobject_metadata GROUP BY 1 ORDER BY 2 DESC, 1";
        let rows = origin.query("counting large objects", sql, &[]).await?;
        let total: i64 = rows.iter().map(|row| row.get::<_, i64>(1)).sum();
        if total == 0 {
            continue;
        }
        if context.plan.copy.large_objects == LargeObjects::Ignore {
            let message = format!(
                "large objects: {total}. They stay behind, as the plan says: columns that hold their numbers point at nothing after the switch"
            );
            drafts.push(Draft::warning(origin.side, message));
            continue;
        }
        let message = format!("large objects: {total}. They are not replicated, and writes to them go past the fence");
        let evidence = rows.iter().map(|row| format!("{} of {}", row.get::<_, i64>(1), row.get::<_, String>(0)));
        let advice = "remove those that nothing refers to (vacuumlo), and move the others into a bytea column, e.g. UPDATE t SET content = lo_get(content_oid)";
        drafts.push(Draft::error(origin.side, message).evidence(evidence).fix(Fix::advice(advice)));
    }
    Ok(drafts)
}
