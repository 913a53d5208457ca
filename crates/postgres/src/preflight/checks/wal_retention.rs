//! A slot must keep its log for as long as it takes.
//!
//! While rows are copied nobody reads the slot, and the way back's slot stands still until the switch. A limit on what
//! slots may keep, or on how long they may idle, invalidates them: the copy is then worthless and has to start again.

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text,
};

pub(crate) const CHECK: Check = Check {
    name: "wal_retention",
    about: "a slot that loses its log makes the copy worthless, or takes the way back away",
    probe: Probe::Facts(judge),
};

/// A sender or receiver that waits less than this gives up during a large transaction.
const SHORT_TIMEOUT_MS: i64 = 10_000;

fn judge(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for origin in context.origins() {
        drafts.extend(keep_size(context, origin)?);
        drafts.extend(idle_timeout(origin));
        drafts.extend(network_timeout(origin, "wal_sender_timeout"));
    }
    drafts.extend(context.destinations().into_iter().filter_map(|destination| network_timeout(destination, "wal_receiver_timeout")));
    Ok(drafts)
}

fn keep_size(context: &Context<'_>, origin: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let Some(limit) = origin.facts.settings.bytes("max_slot_wal_keep_size") else { return Ok(None) };
    let Some(severity) = keep_size_severity(limit, context.source.facts.bytes()?) else { return Ok(None) };
    let message = format!(
        "slots may keep {} of log, and {}: a copy during which more is written loses its slot",
        text::bytes(limit),
        context.size()?
    );
    let fix = Fix::sql(origin.side, ["ALTER SYSTEM SET max_slot_wal_keep_size = -1;", "SELECT pg_catalog.pg_reload_conf();"]);
    let evidence = ["without the limit, watch the disk instead: the log of a stream that stands still piles up there"];
    Ok(Some(Draft::new(severity, origin.side, message).evidence(evidence).fix(fix)))
}

/// How much log a copy writes past is not known beforehand; less than a tenth of the data is too little by any guess.
fn keep_size_severity(limit: i64, copied_bytes: i64) -> Option<Severity> {
    match limit {
        ..0 => None,
        _ if limit < copied_bytes / 10 => Some(Severity::Error),
        _ => Some(Severity::Warning),
    }
}

fn idle_timeout(origin: &Examined<'_>) -> Option<Draft> {
    let limit = origin.facts.settings.millis("idle_replication_slot_timeout").filter(|limit| *limit > 0)?;
    let message =
        format!("a slot that idles for {} is invalidated, and ours idle while rows are copied and until the switch", text::millis(limit));
    let fix = Fix::sql(origin.side, ["ALTER SYSTEM SET idle_replication_slot_timeout = 0;", "SELECT pg_catalog.pg_reload_conf();"]);
    Some(Draft::error(origin.side, message).fix(fix))
}

fn network_timeout(side: &Examined<'_>, setting: &str) -> Option<Draft> {
    let limit = side.facts.settings.millis(setting)?;
    let message = match limit {
        0 => format!("{setting} is off: a connection that broke silently is never noticed, and the stream stands still"),
        1..SHORT_TIMEOUT_MS => format!("{setting} is {}: a large transaction may look like a broken connection", text::millis(limit)),
        _ => return None,
    };
    let fix = Fix::sql(side.side, [format!("ALTER SYSTEM SET {setting} = '60s';"), "SELECT pg_catalog.pg_reload_conf();".to_owned()]);
    Some(Draft::warning(side.side, message).fix(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_limit_blocks_and_any_limit_warns() {
        assert_eq!(keep_size_severity(-1, 1 << 40), None);
        assert_eq!(keep_size_severity(99 << 20, 1000 << 20), Some(Severity::Error));
        assert_eq!(keep_size_severity(100 << 20, 1000 << 20), Some(Severity::Warning));
        assert_eq!(keep_size_severity(0, 8 << 20), Some(Severity::Error));
    }
}
