//! Room for the slots, WAL senders and workers that the streams take, for the temporary slot from which a switch reads
//! which rows change, and for the locks that the schema takes.
//!
//! Where one is missing, the copy or the way back fails at the moment when it is made; or worse, a worker of somebody
//! else's finds no place after ours took it.

use cutover_core::{Side, Stream, plan::InPause};

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::literal;

pub(crate) const CHECK: Check = Check {
    name: "capacity",
    about: "each stream takes a slot and WAL senders at its origin, and an origin entry and workers at its destination",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// Something that a server has a limited number of.
struct Resource {
    what: &'static str,
    /// The setting that limits it.
    setting: &'static str,
    limit: i64,
    used: i64,
    /// How many we take beyond those that are ours already.
    needed: i64,
    /// How many of those only while a switch is under way.
    in_switch: i64,
}

impl Resource {
    fn missing(&self) -> bool {
        self.limit - self.used < self.needed
    }
}

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        for resource in resources(context, side).await?.iter().filter(|resource| resource.missing()) {
            drafts.push(draft(side.side, resource));
        }
    }
    if !context.prepared {
        drafts.extend(schema_locks(context)?);
    }
    Ok(drafts)
}

/// Locks that a table takes while it is made, with its TOAST table, types and gate; and a sequence. As counted on 15.
const LOCKS: (usize, usize) = (6, 2);

/// The schema is made in one transaction, which holds a lock on all that it makes.
fn schema_locks(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let needed = LOCKS.0 * context.source.facts.tables()?.len() + LOCKS.1 * context.source.facts.sequences()?.len();
    let limit = |setting| context.target.facts.settings.number(setting).unwrap_or_default();
    let sessions = limit("max_connections") + limit("max_prepared_transactions");
    Ok(too_few_locks(i64::try_from(needed).unwrap_or(i64::MAX), limit("max_locks_per_transaction"), sessions))
}

/// A server has some memory to spare for more, so that it may do nevertheless.
fn too_few_locks(needed: i64, each: i64, sessions: i64) -> Option<Draft> {
    let room = each.saturating_mul(sessions);
    if needed <= room || sessions <= 0 {
        return None;
    }
    let message =
        format!("the schema is made in one transaction, with about {needed} locks, and there is room for {room}: it may run out of memory");
    let sql = format!("ALTER SYSTEM SET max_locks_per_transaction = {};", needed / sessions + 1);
    let draft = Draft::warning(Side::Target, message);
    Some(draft.evidence([format!("max_locks_per_transaction = {each}; takes effect at a restart")]).fix(Fix::sql(Side::Target, [sql])))
}

fn draft(side: Side, resource: &Resource) -> Draft {
    let Resource { what, setting, limit, used, needed, in_switch } = resource;
    let message = format!("{needed} more {what} needed and {} free: {used} of {limit} are in use", (limit - used).max(0));
    let sql = format!("ALTER SYSTEM SET {setting} = {};", used + needed + 2);
    let mut evidence = vec![format!("{setting} = {limit}; takes effect at a restart")];
    if *in_switch > 0 {
        evidence.push(format!(
            "{in_switch} of them only while a switch is under way, to read which rows change; in_pause = \"off\" in the plan's [verify] does without"
        ));
    }
    Draft::error(side, message).evidence(evidence).fix(Fix::sql(side, [sql]))
}

async fn resources(context: &Context<'_>, side: &Examined<'_>) -> Result<Vec<Resource>, Inconclusive> {
    let usage = usage(context, side).await?;
    let settings = &side.facts.settings;
    let limit = |setting| settings.number(setting).unwrap_or_default();
    let origin = i64::from(context.origins().iter().any(|origin| origin.side == side.side));
    let destination = i64::from(context.destinations().iter().any(|destination| destination.side == side.side));
    // Before 18, one setting limits slots and origins, each on its own.
    let origins_setting =
        if settings.text("max_active_replication_origins").is_some() { "max_active_replication_origins" } else { "max_replication_slots" };
    // A switch away from this side reads which rows change, from a temporary slot.
    let watch = origin * i64::from(context.plan.verify.in_pause == InPause::Changed);
    // At the source a second WAL sender holds the snapshot while the slot is made; that is before any switch.
    let senders = origin + watch.max(i64::from(side.side == Side::Source && !context.prepared));
    // Where no subscription was possible so far, the workers' launcher does not run either.
    let launcher = destination * i64::from(limit("max_logical_replication_workers") == 0);
    let resource =
        |what, setting, used, needed: i64| Resource { what, setting, limit: limit(setting), used, needed: needed.max(0), in_switch: 0 };
    let watched = |resource: Resource| Resource { in_switch: watch.min(resource.needed), ..resource };
    Ok(vec![
        watched(resource("replication slots", "max_replication_slots", usage.slots, origin + watch - usage.our_slots)),
        watched(resource("WAL senders", "max_wal_senders", usage.senders, senders - usage.our_senders)),
        resource("replication origins", origins_setting, usage.origins, destination - usage.our_subscriptions),
        resource("logical replication workers", "max_logical_replication_workers", usage.apply_workers, destination - usage.our_workers),
        resource("worker processes", "max_worker_processes", usage.workers, destination + launcher - usage.our_workers),
    ])
}

struct Usage {
    slots: i64,
    our_slots: i64,
    senders: i64,
    our_senders: i64,
    origins: i64,
    our_subscriptions: i64,
    apply_workers: i64,
    our_workers: i64,
    workers: i64,
}

async fn usage(context: &Context<'_>, side: &Examined<'_>) -> Result<Usage, Inconclusive> {
    let outgoing = Stream::from_side(side.side);
    let slot = literal(&context.names.slot(outgoing));
    let incoming = literal(&context.names.subscription(outgoing.opposite()));
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
             (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}), \
             (SELECT count(*) FROM pg_catalog.pg_stat_replication), \
             (SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE application_name = {slot}), \
             (SELECT count(*) FROM pg_catalog.pg_replication_origin), \
             (SELECT count(*) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
                 WHERE s.subname = {incoming} AND d.datname = pg_catalog.current_database()), \
             (SELECT count(*) FROM pg_catalog.pg_stat_subscription WHERE pid IS NOT NULL), \
             (SELECT count(*) FROM pg_catalog.pg_stat_subscription WHERE pid IS NOT NULL AND subname = {incoming}), \
             (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type NOT IN ('archiver', 'autovacuum launcher', 'autovacuum worker', \
                 'background writer', 'checkpointer', 'client backend', 'dead-end client backend', 'io worker', 'logger', 'parallel worker', \
                 'slotsync worker', 'standalone backend', 'startup', 'walreceiver', 'walsender', 'walsummarizer', 'walwriter'))"
    );
    let rows = side.query("counting slots, senders and workers", &sql, &[]).await?;
    let number = |at: usize| rows.first().map_or(0, |row| row.get::<_, i64>(at));
    Ok(Usage {
        slots: number(0),
        our_slots: number(1),
        senders: number(2),
        our_senders: number(3),
        origins: number(4),
        our_subscriptions: number(5),
        apply_workers: number(6),
        our_workers: number(7),
        workers: number(8),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_free_one_is_enough_and_none_is_not() {
        let resource = |limit, used, needed| Resource { what: "slots", setting: "s", limit, used, needed, in_switch: 1 };
        assert!(!resource(10, 9, 1).missing());
        assert!(resource(10, 10, 1).missing());
        assert!(resource(10, 9, 2).missing());
        assert!(!resource(0, 0, 0).missing());
        let finding = draft(Side::Source, &resource(10, 10, 1)).finish("c");
        assert!(finding.message.contains("1 more slots needed and 0 free: 10 of 10"), "{}", finding.message);
        assert!(finding.evidence.iter().any(|line| line.contains("1 of them only while a switch is under way")), "{finding:?}");
    }

    #[test]
    fn the_locks_of_a_schema_have_room_or_are_counted() {
        assert!(too_few_locks(6400, 64, 100).is_none());
        let finding = too_few_locks(40_000, 64, 100).unwrap().finish("c");
        assert!(finding.message.contains("about 40000 locks, and there is room for 6400"), "{}", finding.message);
        assert!(format!("{:?}", finding.fix).contains("max_locks_per_transaction = 401;"), "{:?}", finding.fix);
    }
}
