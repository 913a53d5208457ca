//! Time-outs of our own role that would end a long copy.
//!
//! Our sessions set the time-outs for statements, locks and idle transactions themselves. The others come from the
//! role, the database or the server.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix},
    text,
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "role_timeouts",
    about: "the copy is one long transaction, and a session of ours may wait for days: a time-out on either ends the run",
    probe: Probe::Facts(judge),
};

/// A setting and what it ends.
const TIMEOUTS: [(&str, &str); 2] = [
    ("transaction_timeout", "the copy's transaction, which lasts as long as the data is large"),
    ("idle_session_timeout", "a session that waits"),
];

fn judge(context: &Context<'_>) -> Verdict {
    Ok(context.sides().into_iter().flat_map(timeouts).collect())
}

fn timeouts(side: &Examined<'_>) -> Vec<Draft> {
    let role = ident(&side.facts.role.name);
    let limited = |(setting, what): (&str, &str)| {
        let limit = side.facts.settings.millis(setting).filter(|limit| *limit > 0)?;
        let message = format!("{setting} is {} for our role {role}: it ends {what}", text::millis(limit));
        Some(Draft::error(side.side, message).fix(Fix::sql(side.side, [format!("ALTER ROLE {role} SET {setting} = 0;")])))
    };
    TIMEOUTS.into_iter().filter_map(limited).collect()
}
