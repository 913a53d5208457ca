//! Prepared transactions commit at any time, without passing a gate again.
//!
//! One that was prepared before the fence could be committed behind it; the gate refuses to close while there is one.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::literal;

pub(crate) const CHECK: Check = Check {
    name: "prepared_transactions",
    about: "a transaction that is prepared could be committed behind the fence, so the gate does not close while there is one",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        drafts.extend(waiting(side).await?);
    }
    Ok(drafts)
}

async fn waiting(side: &Examined<'_>) -> Result<Vec<Draft>, Inconclusive> {
    let sql = "SELECT gid, owner::text, pg_catalog.format('%L of %s in %s since %s', gid, owner, database, prepared), \
             database = pg_catalog.current_database() FROM pg_catalog.pg_prepared_xacts ORDER BY prepared";
    let rows = side.query("listing prepared transactions", sql, &[]).await?;
    let (here, elsewhere): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get::<_, bool>(3));
    let mut drafts = Vec::new();
    if !here.is_empty() {
        let message = format!("prepared transactions: {}. They could be committed behind the fence, so it can't be closed", here.len());
        let mut statements = vec!["-- or COMMIT PREPARED, as their transaction manager says".to_owned()];
        statements.extend(here.iter().map(|row| format!("ROLLBACK PREPARED {};", literal(row.get::<_, &str>(0)))));
        let evidence = here.iter().map(|row| row.get::<_, String>(2));
        drafts.push(Draft::error(side.side, message).evidence(evidence).fix(Fix::sql(side.side, statements)));
    }
    if !elsewhere.is_empty() {
        let message = "prepared transactions in other databases of this server: a slot can't be made here until they end";
        drafts.push(Draft::warning(side.side, message).evidence(elsewhere.iter().map(|row| row.get::<_, String>(2))));
    }
    let possible = side.facts.settings.number("max_prepared_transactions").unwrap_or_default();
    if possible > 0 && drafts.is_empty() {
        let message = format!("max_prepared_transactions is {possible}: where one is prepared when the gate closes, the pause is undone");
        drafts.push(Draft::info(side.side, message));
    }
    Ok(drafts)
}
