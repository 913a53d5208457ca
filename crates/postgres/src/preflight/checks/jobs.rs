//! Jobs that the database starts by itself.
//!
//! A scheduled job writes in the middle of the pause, fails behind the fence, and does not run at the target unless it
//! is scheduled there: the scheduler's tables belong to its extension and do not move.

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "jobs",
    about: "a scheduled job fails behind the fence, and does not run at the target unless it is scheduled there",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// A scheduler's table, how its active jobs for this database are listed, and how they are paused. What a job runs is
/// not shown: it may hold a secret.
const SCHEDULERS: [(&str, &str, &str); 2] = [
    (
        "cron.job",
        "SELECT jobid::text, pg_catalog.format('job %s of %s at %s', jobid, username, schedule) FROM cron.job \
             WHERE active AND database = pg_catalog.current_database() ORDER BY jobid",
        "UPDATE cron.job SET active = false WHERE jobid =",
    ),
    (
        "pgagent.pga_job",
        "SELECT jobid::text, pg_catalog.format('job %s (%s)', jobid, jobname) FROM pgagent.pga_job WHERE jobenabled ORDER BY jobid",
        "UPDATE pgagent.pga_job SET jobenabled = false WHERE jobid =",
    ),
];

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        for (table, list, pause) in SCHEDULERS {
            drafts.extend(scheduled(side, table, list, pause).await?);
        }
        drafts.extend(scheduler_elsewhere(side).await?);
    }
    Ok(drafts)
}

async fn scheduled(side: &Examined<'_>, table: &str, list: &str, pause: &str) -> Result<Option<Draft>, Inconclusive> {
    if !exists(side, table).await? {
        return Ok(None);
    }
    let rows = side.query("listing scheduled jobs", list, &[]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let message = format!("active jobs in {table}: pause them before the switch, and schedule them at the target after it");
    let fix = Fix::sql(side.side, rows.iter().map(|row| format!("{pause} {};", row.get::<_, String>(0))));
    Ok(Some(Draft::warning(side.side, message).evidence(rows.iter().map(|row| row.get::<_, String>(1))).fix(fix)))
}

/// pg_cron keeps all its jobs in one database, which need not be this one.
async fn scheduler_elsewhere(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let loaded = side.facts.settings.text("shared_preload_libraries").is_some_and(|libraries| libraries.contains("pg_cron"));
    if !loaded || exists(side, "cron.job").await? {
        return Ok(None);
    }
    let message = "pg_cron runs on this server and keeps its jobs in another database: jobs of this one are listed there";
    let advice = "look in the database that cron.database_name names: SELECT * FROM cron.job WHERE database = …";
    Ok(Some(Draft::info(side.side, message).fix(Fix::advice(advice))))
}

async fn exists(side: &Examined<'_>, table: &str) -> Result<bool, Inconclusive> {
    let sql = format!("SELECT '' WHERE pg_catalog.to_regclass('{table}') IS NOT NULL");
    Ok(!side.lines("looking for a scheduler", &sql).await?.is_empty())
}
