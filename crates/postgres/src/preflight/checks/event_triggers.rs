//! Event triggers, which see every definition that we make.
//!
//! One at the target runs while the schema is loaded, and may refuse or change it; one at the source runs as gates are
//! put before tables.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};

pub(crate) const CHECK: Check = Check {
    name: "event_triggers",
    about: "an event trigger at the target runs while the schema is loaded, and may refuse or change it",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let sql = "SELECT pg_catalog.format('%I', t.evtname), pg_catalog.format('%I on %s calls %s', t.evtname, t.evtevent, t.evtfoid::regprocedure) \
         FROM pg_catalog.pg_event_trigger t WHERE t.evtenabled <> 'D' AND t.evtname NOT IN ('cutover_ddl_gate', 'cutover_arm_new_table') \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_event_trigger'::regclass AND x.objid = t.oid AND x.deptype = 'e') \
         ORDER BY 1";
    let mut drafts = Vec::new();
    for side in context.sides() {
        let rows = side.query("listing event triggers", sql, &[]).await?;
        if rows.is_empty() {
            continue;
        }
        let evidence = rows.iter().map(|row| row.get::<_, String>(1));
        let disable = Fix::sql(side.side, rows.iter().map(|row| format!("ALTER EVENT TRIGGER {} DISABLE;", row.get::<_, String>(0))));
        drafts.push(match side.side {
            Side::Target if !context.prepared => {
                let message = "event triggers at the target run while the schema is loaded there";
                Draft::warning(side.side, message).evidence(evidence).fix(disable)
            }
            _ => Draft::info(side.side, "event triggers see the gates being put before tables; only a superuser can make them anew")
                .evidence(evidence),
        });
    }
    Ok(drafts)
}
