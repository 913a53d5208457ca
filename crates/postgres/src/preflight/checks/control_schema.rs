//! The schema `cutover` is ours, and of this plan.
//!
//! The gate lives there. One database can't have the gates of two plans, and a schema of that name that is somebody
//! else's would be written into.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::{gate, names::SCHEMA};

pub(crate) const CHECK: Check = Check {
    name: "control_schema",
    about: "the schema `cutover` holds the gate; it must be free, or this plan's own",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        let sql = format!("SELECT pg_catalog.pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace WHERE nspname = '{SCHEMA}'");
        let schema_owner = side.lines("looking for our schema", &sql).await?.into_iter().next();
        let installed = gate::owner(side.client).await.map_err(|error| Inconclusive::at(side.side, &error))?;
        drafts.extend(judge(side, &context.plan.name, context.prepared, schema_owner, installed));
    }
    Ok(drafts)
}

fn judge(
    side: &Examined<'_>,
    plan: &str,
    prepared: bool,
    schema_owner: Option<String>,
    installed: Option<(String, String)>,
) -> Option<Draft> {
    match (schema_owner, installed) {
        (None, _) if prepared => Some(gone(side.side)),
        (None, _) => None,
        (Some(owner), None) => Some(foreign(side, &owner)),
        (Some(_), Some((found_plan, found_side))) if found_plan != plan || found_side != side.side.to_string() => {
            Some(stranger(side.side, &found_plan, &found_side))
        }
        (Some(_), Some(_)) if prepared => None,
        (Some(_), Some(_)) => {
            let message = "a gate of this plan is installed already, and its journal knows of no copy: it will be used again";
            Some(Draft::info(side.side, message))
        }
    }
}

fn gone(side: Side) -> Draft {
    let message = "the journal says that this plan is prepared, and its gate is gone from here";
    Draft::error(side, message)
        .fix(Fix::advice("see that the plan names the right server; a database that was restored needs a new cutover"))
}

fn foreign(side: &Examined<'_>, owner: &str) -> Draft {
    let message = format!("a schema `{SCHEMA}` exists that cutover did not make; it belongs to `{owner}`");
    let sql = format!("ALTER SCHEMA {SCHEMA} RENAME TO {SCHEMA}_of_the_application;");
    Draft::error(side.side, message).fix(Fix::sql(side.side, [sql]))
}

fn stranger(side: Side, found_plan: &str, found_side: &str) -> Draft {
    let message = format!("the {side} belongs to the cutover `{found_plan}` already, as its {found_side}");
    let command = format!("cutover --plan {found_plan}.toml retire");
    Draft::error(side, message).evidence(["one database takes part in one cutover at a time"]).fix(Fix::Command(command))
}
