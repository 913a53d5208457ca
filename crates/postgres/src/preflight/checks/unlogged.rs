//! Unlogged tables are not replicated.
//!
//! What is written to one after the copy would be missing at the target, and it can't be published.

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
    text,
};

pub(crate) const CHECK: Check = Check {
    name: "unlogged",
    about: "what is written to an unlogged table never reaches the log, and so never the other side",
    probe: Probe::Facts(judge),
};

fn judge(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for origin in context.origins() {
        let unlogged: Vec<_> = origin.facts.tables()?.iter().filter(|table| table.persistence == "u" && table.holds_rows()).collect();
        if unlogged.is_empty() {
            continue;
        }
        let message = format!("{}: what is written there would not reach the other side", text::count(unlogged.len(), "unlogged table"));
        let evidence = unlogged.iter().map(|table| format!("{} ({})", table.name, text::bytes(table.bytes)));
        let statements = unlogged.iter().map(|table| format!("ALTER TABLE {} SET LOGGED;", table.name.quoted()));
        drafts.push(Draft::error(origin.side, message).evidence(evidence).fix(Fix::sql(origin.side, statements)));
    }
    Ok(drafts)
}
