//! Who is connected: the writers that have to be paused, by name.
//!
//! A pooler or a job that nobody thought of keeps writing at the source until the fence, and keeps failing behind it.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "clients",
    about: "a client that nobody thought of is not pointed at the target, and fails behind the fence",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// Sessions that look alike.
struct Group {
    application: String,
    role: String,
    description: String,
}

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    let clients = groups(&context.source).await?;
    if !clients.is_empty() {
        let message = "clients of the source, each of which has to follow to the target or to be paused";
        drafts.push(Draft::info(Side::Source, message).evidence(clients.iter().map(|group| group.description.clone())));
    }
    drafts.extend(strangers(&context.plan.application_roles, &clients));
    drafts.extend(poolers(&clients));
    drafts.extend(workers(&context.source).await?);
    drafts.extend(at_target(context).await?);
    Ok(drafts)
}

/// Sessions of roles that the plan does not count as the application's.
fn strangers(named: &[String], clients: &[Group]) -> Option<Draft> {
    if named.is_empty() {
        return None;
    }
    let strangers: Vec<String> =
        clients.iter().filter(|group| !named.contains(&group.role)).map(|group| group.description.clone()).collect();
    let message = "sessions of roles that are not among application_roles in the plan";
    let fix = Fix::advice("pause them until the switch is done, or add their roles to application_roles");
    (!strangers.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(strangers).fix(fix))
}

fn poolers(clients: &[Group]) -> Option<Draft> {
    const POOLERS: [&str; 6] = ["pgbouncer", "pgpool", "odyssey", "pgcat", "supavisor", "pgagroal"];
    let is_pooler = |group: &&Group| POOLERS.iter().any(|pooler| group.application.to_lowercase().contains(pooler));
    let poolers: Vec<String> = clients.iter().filter(is_pooler).map(|group| group.description.clone()).collect();
    let message = "a pooler stands before the source: it has to be repointed, or it keeps its clients here";
    (!poolers.is_empty()).then(|| Draft::info(Side::Source, message).evidence(poolers))
}

async fn groups(side: &Examined<'_>) -> Result<Vec<Group>, Inconclusive> {
    let sql = "SELECT COALESCE(NULLIF(application_name, ''), '(no name)'), usename::text, \
             pg_catalog.format('%s as %s from %s: %s (%s)', COALESCE(NULLIF(application_name, ''), '(no name)'), usename, \
                 COALESCE(pg_catalog.host(client_addr), 'a local socket'), count(*), \
                 pg_catalog.string_agg(DISTINCT COALESCE(state, 'state not visible'), ', ')) \
         FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() \
           AND usename IS NOT NULL AND COALESCE(backend_type, 'client backend') = 'client backend' \
           AND COALESCE(application_name, '') NOT LIKE 'cutover/%' \
         GROUP BY application_name, usename, client_addr ORDER BY count(*) DESC, 3 LIMIT 1000";
    let rows = side.query("listing clients", sql, &[]).await?;
    Ok(rows.iter().map(|row| Group { application: row.get(0), role: row.get(1), description: row.get(2) }).collect())
}

/// Background workers in this database, which write without being clients.
async fn workers(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT pg_catalog.format('%s: %s', backend_type, count(*)) FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND backend_type NOT IN ('client backend', 'walsender', 'autovacuum worker', 'parallel worker') \
           AND backend_type NOT LIKE 'logical replication%' GROUP BY backend_type ORDER BY 1";
    let workers = side.lines("listing background workers", sql).await?;
    let message = "background workers run in this database: stop those that write until the switch is done";
    Ok((!workers.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(workers)))
}

async fn at_target(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let clients = groups(&context.target).await?;
    if clients.is_empty() {
        return Ok(None);
    }
    // Before the preparation nobody has anything to do there; afterwards the target may be in charge.
    let severity = if context.prepared { Severity::Info } else { Severity::Warning };
    let evidence: Vec<String> = clients.into_iter().map(|group| group.description).collect();
    Ok(Some(Draft::new(severity, Side::Target, "clients are connected to the target").evidence(evidence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolers_are_told_by_their_names() {
        let group = |application: &str| Group { application: application.into(), role: "app".into(), description: application.into() };
        let found = poolers(&[group("PgBouncer 1.25"), group("rails")]).map(|draft| draft.finish("c").evidence);
        assert_eq!(found, Some(vec!["PgBouncer 1.25".to_owned()]));
        assert!(poolers(&[group("rails")]).is_none());
    }

    #[test]
    fn only_a_plan_that_names_roles_has_strangers() {
        let group = Group { application: "x".into(), role: "cron".into(), description: "x as cron".into() };
        assert!(strangers(&[], std::slice::from_ref(&group)).is_none());
        assert!(strangers(&["app".into()], std::slice::from_ref(&group)).is_some());
        assert!(strangers(&["cron".into()], &[group]).is_none());
    }
}
