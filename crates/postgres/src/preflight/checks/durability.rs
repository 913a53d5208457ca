//! What "acknowledged" means on these servers.
//!
//! The promise is that no acknowledged write is lost. With `synchronous_commit = off` a crash of the server alone loses
//! acknowledged writes, cutover or not. A synchronous standby that is not there makes commits wait for ever; one that
//! is matched by `*` is, all of a sudden, our own stream.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    defaults::{Scope, SessionDefault},
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "durability",
    about: "a write that is acknowledged before it is on disk can be lost in a crash, and a commit that waits for an absent standby never ends",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        drafts.extend(asynchronous(side));
        drafts.extend(unsafe_settings(side));
        drafts.extend(standbys(side).await?);
    }
    Ok(drafts)
}

fn asynchronous(side: &Examined<'_>) -> Option<Draft> {
    let mut found: Vec<SessionDefault> = side
        .facts
        .defaults
        .iter()
        .filter(|setting| setting.name == "synchronous_commit" && setting.value.eq_ignore_ascii_case("off"))
        .cloned()
        .collect();
    // The server's own setting shows in our session where its file can't be read.
    if found.is_empty() && side.facts.settings.text("synchronous_commit") == Some("off") {
        found.push(SessionDefault { scope: Scope::Server, name: "synchronous_commit".to_owned(), value: "off".to_owned() });
    }
    if found.is_empty() {
        return None;
    }
    let message = "commits are acknowledged before they are on disk: a crash of this server loses some, whatever a cutover does";
    let statements = found.iter().flat_map(|setting| setting.mend_sql("on"));
    let fix = Fix::sql(side.side, statements);
    Some(Draft::warning(side.side, message).evidence(found.iter().map(SessionDefault::describe)).fix(fix))
}

fn unsafe_settings(side: &Examined<'_>) -> Option<Draft> {
    let off: Vec<&str> =
        ["fsync", "full_page_writes"].into_iter().filter(|setting| side.facts.settings.text(setting) == Some("off")).collect();
    if off.is_empty() {
        return None;
    }
    let message = format!("{} off: a crash of the machine may damage this server's data", off.join(" and "));
    let mut statements: Vec<String> = off.iter().map(|setting| format!("ALTER SYSTEM SET {setting} = on;")).collect();
    statements.push("SELECT pg_catalog.pg_reload_conf();".to_owned());
    Some(Draft::warning(side.side, message).fix(Fix::sql(side.side, statements)))
}

async fn standbys(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let names = side.facts.settings.text("synchronous_standby_names").unwrap_or_default();
    // Who is synchronous, only some roles may see; `privileges` says so.
    if names.is_empty() || !side.facts.role.monitors {
        return Ok(None);
    }
    let evidence = [format!("synchronous_standby_names = {names}")];
    if names.contains('*') {
        let message = "every receiver of this server's log counts as a synchronous standby, our stream too: commits here would wait for the other side";
        let fix = Fix::advice("name the standbys in synchronous_standby_names instead of *");
        return Ok(Some(Draft::warning(side.side, message).evidence(evidence).fix(fix)));
    }
    let sql = "SELECT application_name FROM pg_catalog.pg_stat_replication WHERE sync_state IN ('sync', 'quorum')";
    if !side.lines("looking for synchronous standbys", sql).await?.is_empty() {
        return Ok(None);
    }
    let message = "no synchronous standby is connected, and commits wait for one: nothing can be committed here, nor fenced";
    let fix = Fix::advice("start the standby, or empty synchronous_standby_names for the time of the cutover");
    Ok(Some(Draft::error(side.side, message).evidence(evidence).fix(fix)))
}
