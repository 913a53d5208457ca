//! What the clients use and the other side lacks, once it has a schema of ours.

use super::super::{Check, Context, Probe, Verdict, compatibility};

pub(crate) const CHECK: Check = Check {
    name: "compatibility",
    about: "a client that names what the other side lacks, or has otherwise, fails after the switch",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// After the migration hook, and from the side in charge: its clients are the ones to be moved.
async fn ask(context: &Context<'_>) -> Verdict {
    match context.authority {
        Some(authority) => compatibility::examine(context, authority).await,
        None => Ok(Vec::new()),
    }
}
