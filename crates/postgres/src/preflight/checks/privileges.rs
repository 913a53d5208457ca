//! What our role must be allowed, and exactly what is missing.
//!
//! A right that is missing shows when it is used: in the middle of a copy, or inside the pause.

use cutover_core::Stream;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::{ident, literal};

pub(crate) const CHECK: Check = Check {
    name: "privileges",
    about: "a right that is missing shows in the middle of a copy or inside the pause",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// Where superusers are not given out, membership in this role stands for the attribute REPLICATION.
const MANAGED_REPLICATION_ROLES: &str = "ARRAY['rds_replication']";

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        drafts.extend(database_rights(side).await?);
        drafts.extend(schema_rights(side).await?);
        drafts.extend(sight(side));
    }
    drafts.extend(schemas_to_fill(context).await?);
    for origin in context.origins() {
        drafts.extend(our_replication(origin).await?);
        drafts.extend(peer_role(context, origin).await?);
    }
    Ok(drafts)
}

async fn database_rights(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = "SELECT 'CREATE' WHERE NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
    if side.lines("asking what we may do", sql).await?.is_empty() {
        return Ok(None);
    }
    let (role, database) = (ident(&side.facts.role.name), ident(&side.facts.database.name));
    let message = format!("our role {role} may not create the schema `cutover`, publications and subscriptions here");
    Ok(Some(Draft::error(side.side, message).fix(Fix::sql(side.side, [format!("GRANT CREATE ON DATABASE {database} TO {role};")]))))
}

/// Schemas with tables that we may not use.
async fn schema_rights(side: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = format!(
        "SELECT DISTINCT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'S') AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND {} ORDER BY 1",
        side.covered
    );
    let schemas = side.lines("asking which schemas we may use", &sql).await?;
    if schemas.is_empty() {
        return Ok(None);
    }
    let role = ident(&side.facts.role.name);
    let grants = schemas.iter().map(|schema| format!("GRANT USAGE ON SCHEMA {} TO {role};", ident(schema)));
    let fix = Fix::sql(side.side, grants);
    Ok(Some(Draft::error(side.side, format!("our role {role} may not use every schema that has tables")).evidence(schemas).fix(fix)))
}

/// Who is to own a table in a schema must be allowed to create there, unless a superuser gives it away.
async fn schemas_to_fill(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let (source, target) = (&context.source, &context.target);
    if target.facts.role.superuser {
        return Ok(None);
    }
    let sql = format!(
        "SELECT DISTINCT n.nspname::text, pg_catalog.pg_get_userbyid(c.relowner)::text FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'S', 'v', 'm') AND {} ORDER BY 1, 2",
        source.covered
    );
    let rows = source.query("asking who owns what in which schema", &sql, &[]).await?;
    let (schemas, owners): (Vec<String>, Vec<String>) = rows.iter().map(|row| (row.get(0), row.get(1))).unzip();
    let sql = "SELECT w.schema, w.owner FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) w (schema, owner) \
         JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_roles r ON r.rolname = w.owner \
         WHERE NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE') ORDER BY 1, 2";
    let lacking = target.query("asking who may create in which schema", sql, &[&schemas, &owners]).await?;
    if lacking.is_empty() {
        return Ok(None);
    }
    let pairs: Vec<(String, String)> = lacking.iter().map(|row| (row.get(0), row.get(1))).collect();
    let grants = pairs.iter().map(|(schema, owner)| format!("GRANT CREATE ON SCHEMA {} TO {};", ident(schema), ident(owner)));
    let fix = Fix::sql(target.side, grants);
    let message = "owners of tables may not create in schemas that the target has already, so the tables could not be given to them";
    Ok(Some(Draft::error(target.side, message).evidence(pairs.iter().map(|(schema, owner)| format!("{owner} in {schema}"))).fix(fix)))
}

/// Whether we see and can end the sessions that could stand in the fence's way.
fn sight(side: &Examined<'_>) -> Vec<Draft> {
    let role = &side.facts.role;
    let mut drafts = Vec::new();
    if !role.monitors {
        let message = format!(
            "our role {} does not see what other roles' sessions do: who holds up the fence can't be named, and numbers of sessions and workers are too low",
            ident(&role.name)
        );
        drafts.push(Draft::warning(side.side, message).fix(Fix::sql(side.side, [format!("GRANT pg_monitor TO {};", ident(&role.name))])));
    }
    if !role.signals {
        let message = format!(
            "our role {} may not end other roles' sessions: one that idles in a transaction holds up the fence until the pause runs out",
            ident(&role.name)
        );
        let grant = format!("GRANT pg_signal_backend TO {};", ident(&role.name));
        drafts.push(Draft::warning(side.side, message).fix(Fix::sql(side.side, [grant])));
    }
    drafts
}

/// Slots are made and advanced by our own role.
async fn our_replication(origin: &Examined<'_>) -> Result<Option<Draft>, Inconclusive> {
    let rows = replication_rights(origin, &origin.facts.role.name).await?;
    if rows.is_none_or(|rights| rights.replicates) {
        return Ok(None);
    }
    let role = ident(&origin.facts.role.name);
    let message = format!("our role {role} lacks REPLICATION, and makes a slot here");
    Ok(Some(Draft::error(origin.side, message).fix(Fix::sql(origin.side, [format!("ALTER ROLE {role} REPLICATION;")]))))
}

/// The role as which the other server comes for the changes.
async fn peer_role(context: &Context<'_>, origin: &Examined<'_>) -> Result<Vec<Draft>, Inconclusive> {
    let stream = Stream::from_side(origin.side);
    let user = &context.plan.database(origin.side).peer_url.user;
    let (role, database) = (ident(user), ident(&origin.facts.database.name));
    let Some(rights) = replication_rights(origin, user).await? else {
        let message = format!("the {stream} stream logs in as {role}, and there is no such role here");
        let sql = format!("CREATE ROLE {role} LOGIN REPLICATION;");
        return Ok(vec![Draft::error(origin.side, message).fix(Fix::sql(origin.side, [sql]))]);
    };
    let mut drafts = Vec::new();
    if !rights.logs_in || !rights.replicates {
        let message = format!("the {stream} stream logs in as {role}, which lacks LOGIN or REPLICATION");
        drafts.push(Draft::error(origin.side, message).fix(Fix::sql(origin.side, [format!("ALTER ROLE {role} LOGIN REPLICATION;")])));
    }
    if !rights.connects {
        let message = format!("the {stream} stream logs in as {role}, which may not connect to {database}");
        drafts.push(
            Draft::error(origin.side, message).fix(Fix::sql(origin.side, [format!("GRANT CONNECT ON DATABASE {database} TO {role};")])),
        );
    }
    Ok(drafts)
}

struct ReplicationRights {
    logs_in: bool,
    replicates: bool,
    connects: bool,
}

async fn replication_rights(side: &Examined<'_>, role: &str) -> Result<Option<ReplicationRights>, Inconclusive> {
    let sql = format!(
        "SELECT r.rolcanlogin, r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles m \
             WHERE m.rolname = ANY ({MANAGED_REPLICATION_ROLES}) AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')), \
             pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT') \
         FROM pg_catalog.pg_roles r WHERE r.rolname = {}",
        literal(role)
    );
    let rows = side.query("asking what a role may do", &sql, &[]).await?;
    Ok(rows.first().map(|row| ReplicationRights { logs_in: row.get(0), replicates: row.get(1), connects: row.get(2) }))
}
