//! Transactions that stay open for longer than the pause may take.
//!
//! A slot is only made when all transactions that were open have ended, and a gate closes only behind the last writer.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text,
};

pub(crate) const CHECK: Check = Check {
    name: "long_transactions",
    about: "a slot waits for every open transaction to end, and so does the fence for every writer",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let limit_ms = i64::try_from(context.plan.pause.budget.as_millis()).unwrap_or(i64::MAX);
    let mut drafts = Vec::new();
    for origin in context.origins() {
        drafts.extend(open(origin, limit_ms).await?);
    }
    Ok(drafts)
}

async fn open(origin: &Examined<'_>, limit_ms: i64) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT pid, (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start) * 1000)::bigint, \
             pg_catalog.format('%s of %s in %s, %s%s', COALESCE(NULLIF(application_name, ''), 'a session'), usename, datname, state, \
                 CASE WHEN backend_xid IS NULL THEN '' ELSE ', has written' END) \
         FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid() \
           AND xact_start < pg_catalog.clock_timestamp() - $1 * interval '1 millisecond' AND COALESCE(application_name, '') NOT LIKE 'cutover/%' \
           AND (datname = pg_catalog.current_database() OR backend_xid IS NOT NULL) ORDER BY xact_start LIMIT 1000";
    let rows = origin.query("looking for long transactions", sql, &[&(limit_ms as f64)]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let message = format!("transactions open for longer than the pause may take ({})", text::millis(limit_ms));
    let evidence =
        rows.iter().map(|row| format!("pid {} for {}: {}", row.get::<_, i32>(0), text::millis(row.get(1)), row.get::<_, String>(2)));
    let fix = Fix::sql(origin.side, rows.iter().map(|row| format!("SELECT pg_catalog.pg_terminate_backend({});", row.get::<_, i32>(0))));
    Ok(Some(Draft::warning(origin.side, message).evidence(evidence).fix(fix)))
}
