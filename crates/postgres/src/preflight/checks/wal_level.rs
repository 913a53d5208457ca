//! `wal_level = logical` wherever changes are published.
//!
//! Without it no slot can be made. At the target it is needed before the switch, or there is no way back.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix},
};

pub(crate) const CHECK: Check = Check {
    name: "wal_level",
    about: "a stream starts from a logical slot, which needs wal_level = logical; changing it takes a restart",
    probe: Probe::Facts(judge),
};

fn judge(context: &Context<'_>) -> Verdict {
    Ok(context.origins().into_iter().filter_map(|origin| verdict(origin, context)).collect())
}

fn verdict(origin: &Examined<'_>, context: &Context<'_>) -> Option<Draft> {
    let found = origin.facts.settings.text("wal_level").unwrap_or("unknown");
    if found == "logical" {
        return None;
    }
    let stream = cutover_core::Stream::from_side(origin.side);
    let message = format!("wal_level is {found}, and the {stream} stream needs logical");
    let mut evidence =
        vec!["takes effect at a restart; managed services have a switch of their own, e.g. rds.logical_replication = 1".to_owned()];
    if origin.side == cutover_core::Side::Target && context.plan.switch.reverse {
        evidence.push("only the way back needs it here: reverse = false in [switch] does without, and then there is none".to_owned());
    }
    Some(Draft::error(origin.side, message).evidence(evidence).fix(Fix::sql(origin.side, ["ALTER SYSTEM SET wal_level = 'logical';"])))
}
