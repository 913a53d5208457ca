//! Slots, publications and subscriptions that exist already: others', and leftovers of our names.
//!
//! A subscription's worker writes past the gate, so a stream into either side from elsewhere goes on behind the fence.
//! A consumer of the source's slots hears nothing more after the switch. A leftover slot of our name stands at a
//! position that fits no copy.

use cutover_core::{Side, Stream};

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::{Names, ident, literal};

pub(crate) const CHECK: Check = Check {
    name: "replication",
    about: "a subscription's worker writes past the gate, and a leftover slot stands at a position that fits no copy",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

struct Slot {
    name: String,
    plugin: String,
    active: bool,
    wal_status: Option<String>,
}

struct Subscription {
    name: String,
    enabled: bool,
}

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        let slots = slots(side).await?;
        let subscriptions = subscriptions(side).await?;
        let publications = side.lines("listing publications", "SELECT pubname::text FROM pg_catalog.pg_publication ORDER BY 1").await?;
        let stream = Stream::from_side(side.side);
        let (ours_out, ours_in) = (context.names.slot(stream), context.names.subscription(stream.opposite()));
        if context.prepared {
            drafts.extend(slots.iter().filter(|slot| slot.name == ours_out).filter_map(|slot| losing(side.side, slot)));
        } else {
            drafts.extend(leftovers(side.side, &context.names, &slots, &publications, &subscriptions));
        }
        drafts.extend(foreign_subscriptions(side.side, subscriptions.iter().filter(|subscription| subscription.name != ours_in)));
        drafts.extend(foreign_slots(side.side, slots.iter().filter(|slot| slot.name != ours_out)));
        drafts.extend(foreign_publications(side.side, publications.into_iter().filter(|name| *name != ours_out).collect()));
    }
    Ok(drafts)
}

fn losing(side: Side, slot: &Slot) -> Option<Draft> {
    match slot.wal_status.as_deref() {
        Some("lost") => {
            let message = format!("our slot {} has lost its log: the stream can't go on from it", slot.name);
            Some(Draft::error(side, message).fix(Fix::advice("tear down and prepare anew, with max_slot_wal_keep_size = -1")))
        }
        Some("unreserved") => {
            let message = format!("our slot {} is about to lose its log", slot.name);
            let fix = Fix::sql(side, ["ALTER SYSTEM SET max_slot_wal_keep_size = -1;", "SELECT pg_catalog.pg_reload_conf();"]);
            Some(Draft::error(side, message).fix(fix))
        }
        _ => None,
    }
}

fn leftovers(side: Side, names: &Names, slots: &[Slot], publications: &[String], subscriptions: &[Subscription]) -> Option<Draft> {
    let stream = Stream::from_side(side);
    let mut evidence = Vec::new();
    let mut statements = Vec::new();
    let subscription = names.subscription(stream.opposite());
    if subscriptions.iter().any(|found| found.name == subscription) {
        let name = ident(&subscription);
        evidence.push(format!("subscription {subscription}"));
        statements.push(format!("ALTER SUBSCRIPTION {name} DISABLE;"));
        statements.push(format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE);"));
        statements.push(format!("DROP SUBSCRIPTION {name};"));
    }
    let slot = names.slot(stream);
    if slots.iter().any(|found| found.name == slot) {
        evidence.push(format!("slot {slot}"));
        statements.push(format!("SELECT pg_catalog.pg_drop_replication_slot({});", literal(&slot)));
    }
    let publication = names.publication(stream);
    if publications.contains(&publication) {
        evidence.push(format!("publication {publication}"));
        statements.push(format!("DROP PUBLICATION {};", ident(&publication)));
    }
    if evidence.is_empty() {
        return None;
    }
    let message = "replication of this plan's name is left over here, and the journal knows of no copy; \
        see that no other journal drives it, then remove it";
    Some(Draft::error(side, message).evidence(evidence).fix(Fix::sql(side, statements)))
}

fn foreign_subscriptions<'a>(side: Side, found: impl Iterator<Item = &'a Subscription>) -> Vec<Draft> {
    let (enabled, disabled): (Vec<_>, Vec<_>) = found.partition(|subscription| subscription.enabled);
    let mut drafts = Vec::new();
    if !enabled.is_empty() {
        let message = "subscriptions bring changes into this database from elsewhere; their workers write past the gate";
        let fix = Fix::sql(side, enabled.iter().map(|subscription| format!("ALTER SUBSCRIPTION {} DISABLE;", ident(&subscription.name))));
        drafts.push(Draft::error(side, message).evidence(enabled.iter().map(|subscription| subscription.name.clone())).fix(fix));
    }
    if !disabled.is_empty() {
        let message = "disabled subscriptions: leave them so until the cutover is done";
        drafts.push(Draft::info(side, message).evidence(disabled.iter().map(|subscription| subscription.name.clone())));
    }
    drafts
}

fn foreign_slots<'a>(side: Side, found: impl Iterator<Item = &'a Slot>) -> Option<Draft> {
    let evidence: Vec<String> = found
        .map(|slot| {
            let state = if slot.active { "active" } else { "inactive" };
            let status = slot.wal_status.as_ref().map(|status| format!(", log {status}")).unwrap_or_default();
            format!("{} ({}, {state}{status})", slot.name, slot.plugin)
        })
        .collect();
    if evidence.is_empty() {
        return None;
    }
    let message =
        "consumers of this database's changes: after a switch they hear nothing more from here, and have to begin anew at the other side";
    let draft_of = if side == Side::Source { Draft::warning } else { Draft::info };
    let advice = "make their slots at the target before it opens, and let them finish here first";
    Some(draft_of(side, message.to_owned()).evidence(evidence).fix(Fix::advice(advice)))
}

fn foreign_publications(side: Side, names: Vec<String>) -> Option<Draft> {
    let message = match side {
        Side::Source => {
            "publications of others: the target gets them as well, without a slot; one FOR ALL TABLES publishes our control tables too, \
             and only a superuser can make it"
        }
        Side::Target => "publications of others: they stay as they are, and one FOR ALL TABLES publishes our control tables too",
    };
    (!names.is_empty()).then(|| Draft::info(side, message).evidence(names))
}

async fn slots(side: &Examined<'_>) -> Result<Vec<Slot>, Inconclusive> {
    let sql = "SELECT slot_name::text, plugin::text, active, wal_status FROM pg_catalog.pg_replication_slots \
         WHERE slot_type = 'logical' AND database = pg_catalog.current_database() AND NOT temporary ORDER BY 1";
    let rows = side.query("listing slots", sql, &[]).await?;
    Ok(rows.iter().map(|row| Slot { name: row.get(0), plugin: row.get(1), active: row.get(2), wal_status: row.get(3) }).collect())
}

/// Only columns that everybody may read.
async fn subscriptions(side: &Examined<'_>) -> Result<Vec<Subscription>, Inconclusive> {
    let sql = "SELECT s.subname::text, s.subenabled FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = pg_catalog.current_database() ORDER BY 1";
    let rows = side.query("listing subscriptions", sql, &[]).await?;
    Ok(rows.iter().map(|row| Subscription { name: row.get(0), enabled: row.get(1) }).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::super::Severity, *};

    #[test]
    fn a_slot_without_its_log_blocks() {
        let slot = |status: &str| Slot { name: "s".into(), plugin: "pgoutput".into(), active: false, wal_status: Some(status.into()) };
        let severity = |status| losing(Side::Source, &slot(status)).map(|draft| draft.finish("c").severity);
        assert_eq!(severity("reserved"), None);
        assert_eq!(severity("extended"), None);
        assert_eq!(severity("unreserved"), Some(Severity::Error));
        assert_eq!(severity("lost"), Some(Severity::Error));
    }
}
