//! Large objects are not replicated, and no trigger stops a write to one.

use cutover_core::plan::LargeObjects;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text,
};
use crate::large_objects::cost;

pub(crate) const CHECK: Check = Check {
    name: "large_objects",
    about: "large objects are not replicated, and the gate can't stop a write to one",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    if context.plan.copy.large_objects == LargeObjects::Copy {
        for side in context.sides() {
            drafts.extend(carried(context, side).await?);
        }
        return Ok(drafts);
    }
    for origin in context.origins() {
        let owners = owners(origin).await?;
        let total: i64 = owners.iter().map(|(_, count)| count).sum();
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
        let evidence = owners.iter().map(|(owner, count)| format!("{count} of {owner}"));
        let advice = "say large_objects = \"copy\" in the plan's [copy], which needs superusers; or remove those that nothing refers to (vacuumlo), \
             and move the others into a bytea column, e.g. UPDATE t SET content = lo_get(content_oid)";
        drafts.push(Draft::error(origin.side, message).evidence(evidence).fix(Fix::advice(advice)));
    }
    Ok(drafts)
}

async fn owners(side: &Examined<'_>) -> Result<Vec<(String, i64)>, Inconclusive> {
    let sql =
        "SELECT pg_catalog.pg_get_userbyid(lomowner)::text, count(*) FROM pg_catalog.pg_largeobject_metadata GROUP BY 1 ORDER BY 2 DESC, 1";
    let rows = side.query("counting large objects", sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What it takes to copy them, and what it will cost.
async fn carried(context: &Context<'_>, side: &Examined<'_>) -> Verdict {
    if !side.facts.role.superuser {
        let message = format!("{} is no superuser: large objects can be neither read as a whole nor fenced", side.facts.role.name);
        let advice = "name a superuser in the plan's url; where there is none to be had, move them into a bytea column \
             (UPDATE t SET content = lo_get(content_oid)), or say large_objects = \"ignore\" to leave them behind";
        return Ok(vec![Draft::error(side.side, message).fix(Fix::advice(advice))]);
    }
    let cost = cost(side.client).await.map_err(|error| Inconclusive::at(side.side, &error))?;
    let is_target = side.side == cutover_core::Side::Target;
    if is_target && !context.prepared {
        if cost.objects == 0 {
            return Ok(Vec::new());
        }
        let evidence = owners(side).await?.into_iter().map(|(owner, count)| format!("{count} of {owner}"));
        let message = format!("large objects: {}. They would be overwritten or removed", cost.objects);
        let fix = Fix::advice("name an empty database as the target, or remove them: SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
        return Ok(vec![Draft::error(side.side, message).evidence(evidence).fix(fix)]);
    }
    if cost.objects == 0 {
        return Ok(Vec::new());
    }
    let budget = context.plan.pause.budget;
    let (bytes, look) = (text::bytes(i64::try_from(cost.bytes).unwrap_or(i64::MAX)), cost.look.as_millis());
    let message = format!(
        "large objects: {}, {bytes}. They are copied, and looked at once more inside the pause, which takes about {look} ms of its {} ms",
        cost.objects,
        budget.as_millis()
    );
    if cost.look > budget / 2 {
        let fix = Fix::advice(format!(
            "set pause.budget to {look} ms and twice as much again, or remove those that nothing refers to (vacuumlo)"
        ));
        return Ok(vec![Draft::warning(side.side, message).fix(fix)]);
    }
    Ok(vec![Draft::info(side.side, message)])
}
