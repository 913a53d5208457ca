//! What the gate can't stop: roles that can switch it off.
//!
//! The gate is a trigger. A superuser, and who may set `session_replication_role`, can skip triggers; an owner can
//! disable them; and who shares our role passes wherever we pass.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    facts::ApplicationRole,
    finding::{Draft, Fix},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "application_roles",
    about: "the gate is a trigger, and some roles can switch triggers off",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let roles = context.application_roles()?;
    let mut drafts = Vec::new();
    drafts.extend(unknown(context, roles));
    drafts.extend(superusers(roles));
    drafts.extend(skipping(roles));
    drafts.extend(owners(roles));
    drafts.extend(sharing(context).await?);
    Ok(drafts)
}

fn unknown(context: &Context<'_>, roles: &[ApplicationRole]) -> Option<Draft> {
    let known = |name: &&String| !roles.iter().any(|role| role.name == **name);
    let unknown: Vec<&str> = context.plan.application_roles.iter().filter(known).map(String::as_str).collect();
    if unknown.is_empty() {
        return None;
    }
    let fix = Fix::advice("correct application_roles in the plan; left out, the roles are found out from the catalogue");
    Some(Draft::error(Side::Source, "the plan names application roles that the source does not have").evidence(unknown).fix(fix))
}

fn superusers(roles: &[ApplicationRole]) -> Option<Draft> {
    let names: Vec<&str> = roles.iter().filter(|role| role.superuser).map(|role| role.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let message = "superusers use this database: they can switch the gate off for themselves, and can't be shut out of the target";
    let fix = Fix::sql(Side::Source, names.iter().map(|name| format!("ALTER ROLE {} NOSUPERUSER;", ident(name))));
    Some(Draft::warning(Side::Source, message).evidence(names).fix(fix))
}

fn skipping(roles: &[ApplicationRole]) -> Option<Draft> {
    let names: Vec<&str> = roles.iter().filter(|role| role.may_skip_triggers && !role.superuser).map(|role| role.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let message = "roles that may set session_replication_role can write past the gate";
    let revoke = |name: &&str| format!("REVOKE SET ON PARAMETER session_replication_role FROM {};", ident(name));
    let fix = Fix::sql(Side::Source, names.iter().map(revoke));
    Some(Draft::warning(Side::Source, message).evidence(names).fix(fix))
}

fn owners(roles: &[ApplicationRole]) -> Option<Draft> {
    let owners: Vec<&ApplicationRole> = roles.iter().filter(|role| role.owned_tables > 0).collect();
    if owners.is_empty() {
        return None;
    }
    let message = "roles that own tables, or are members of owners, can disable the gate's triggers and make tables without one";
    let evidence = owners.iter().map(|role| format!("{}: {} tables of {}", role.name, role.owned_tables, role.owner_of.join(", ")));
    let advice = "run no migrations from the preparation on; for roles that only migrate: ALTER ROLE … NOLOGIN until the switch is done; \
        for the others: give the tables to a role that nobody logs in as";
    Some(Draft::warning(Side::Source, message).evidence(evidence).fix(Fix::advice(advice)))
}

/// Sessions that are not ours and log in as we do.
async fn sharing(context: &Context<'_>) -> Verdict {
    let source = &context.source;
    let named = context.plan.application_roles.contains(&source.facts.role.name);
    let sql = "SELECT pg_catalog.format('%s: %s sessions', COALESCE(NULLIF(application_name, ''), '(no name)'), count(*)) FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND usename = current_user AND backend_type = 'client backend' \
           AND pid <> pg_catalog.pg_backend_pid() AND application_name NOT LIKE 'cutover/%' \
         GROUP BY application_name ORDER BY 1";
    let sessions = source.lines("looking for sessions of our own role", sql).await?;
    if !named && sessions.is_empty() {
        return Ok(Vec::new());
    }
    let role = ident(&source.facts.role.name);
    let message = format!("others log in as {role} too: they can't be shut out of the target without shutting us out");
    let fix = Fix::advice("give the cutover a role of its own, a member of the tables' owners");
    Ok(vec![Draft::warning(Side::Source, message).evidence(sessions).fix(fix)])
}
