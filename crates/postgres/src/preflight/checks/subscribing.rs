//! Who may create a subscription, and what its connection needs.
//!
//! Before 16 only a superuser may (managed services lend the right to a role of theirs). From 16 on
//! `pg_create_subscription` is enough, and then the connection has to use a password.

use cutover_core::{Side, Stream};

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "subscribing",
    about: "without the right to subscribe there is no stream, and without the one at the source no way back",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// What managed services lend the right to.
const MANAGED_ADMINS_SQL: &str = "SELECT rolname::text FROM pg_catalog.pg_roles \
     WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin') AND pg_catalog.pg_has_role(oid, 'USAGE')";

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for destination in context.destinations() {
        if destination.facts.role.superuser {
            continue;
        }
        drafts.extend(right(destination).await?);
        drafts.extend(set_role(context, destination).await?);
        drafts.extend(advance(destination).await?);
        let origin = destination.side.other();
        if context.plan.database(origin).peer_url.password.is_none() {
            drafts.push(password(context, destination));
        }
    }
    Ok(drafts)
}

async fn right(destination: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let role = ident(&destination.facts.role.name);
    let message = format!("our role {role} may not create a subscription");
    if destination.facts.major >= 16 {
        let sql = "SELECT '' WHERE NOT pg_catalog.pg_has_role('pg_create_subscription', 'USAGE')";
        let missing = !destination.lines("asking whether we may subscribe", sql).await?.is_empty();
        let fix = Fix::sql(destination.side, [format!("GRANT pg_create_subscription TO {role};")]);
        return Ok(missing.then(|| Draft::error(destination.side, message).fix(fix)));
    }
    if !destination.lines("asking whether we may subscribe", MANAGED_ADMINS_SQL).await?.is_empty() {
        return Ok(None);
    }
    let fix = Fix::sql(destination.side, [format!("ALTER ROLE {role} SUPERUSER;")]);
    let evidence =
        [format!("PostgreSQL {} lets only superusers subscribe; from 16 on pg_create_subscription is enough", destination.facts.major)];
    Ok(Some(Draft::error(destination.side, message).evidence(evidence).fix(fix)))
}

/// The schema is loaded with its owners, and from 16 on changes are applied as these: so we must be able to become each.
async fn set_role(context: &Context<'_>, destination: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let major = destination.facts.major;
    if major < 16 && destination.side == Side::Source {
        return Ok(None);
    }
    let mut owners: Vec<&str> = context.source.facts.tables()?.iter().map(|table| table.owner.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let right = if major >= 16 { "SET" } else { "MEMBER" };
    let sql = format!(
        "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[]) AND NOT pg_catalog.pg_has_role(oid, '{right}') ORDER BY 1"
    );
    let rows = destination.query("asking which roles we can become", &sql, &[&owners]).await?;
    let missing: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let role = ident(&destination.facts.role.name);
    let option = if major >= 16 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    let fix = Fix::sql(destination.side, missing.iter().map(|owner| format!("GRANT {} TO {role}{option};", ident(owner))));
    let message =
        format!("tables are made, and changes applied, as the tables' owners, and our role {role} can't become every one of them");
    Ok(Some(Draft::error(destination.side, message).evidence(missing).fix(fix)))
}

/// The position that a stream has reached is noted at its destination too, where we may.
async fn advance(destination: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let function = "pg_catalog.pg_replication_origin_advance(text, pg_catalog.pg_lsn)";
    let sql = format!("SELECT '' WHERE NOT pg_catalog.has_function_privilege('{function}', 'EXECUTE')");
    if destination.lines("asking whether we may advance an origin", &sql).await?.is_empty() {
        return Ok(None);
    }
    let role = ident(&destination.facts.role.name);
    let message = format!(
        "our role {role} can't note at the destination how far a stream was skipped: after a crash of the other side \
        just then, the stream may repeat old changes and stop at one"
    );
    let grant = format!("GRANT EXECUTE ON FUNCTION {function} TO {role};");
    Ok(Some(Draft::warning(destination.side, message).fix(Fix::sql(destination.side, [grant]))))
}

fn password(context: &Context<'_>, destination: &Examined<'_>) -> Draft {
    let origin = destination.side.other();
    let peer = &context.plan.database(origin).peer_url;
    let message = format!(
        "a subscription of a role that is no superuser must log in with a password, and the plan gives none for {} at the {origin}",
        ident(&peer.user)
    );
    let advice = format!(
        "set peer_url in [{origin}] to postgres://{}:${{PASSWORD}}@{}/{}, and have pg_hba.conf there ask for the password",
        peer.user,
        peer.address(),
        peer.database
    );
    Draft::error(destination.side, message)
        .evidence([format!("needed by the {} stream", Stream::from_side(origin))])
        .fix(Fix::advice(advice))
}
