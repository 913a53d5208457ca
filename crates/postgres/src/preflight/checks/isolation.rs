//! Nobody but us reaches the target until it is in charge.
//!
//! A client that is pointed there too early would read rows that are still arriving. The gate refuses its writes in any
//! case; the right to connect is taken away as well, where we may.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "isolation",
    about: "a client that reaches the target before the switch reads rows that are still arriving",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let target = &context.target;
    let database = ident(&target.facts.database.name);
    let mut drafts = Vec::new();
    if !target.facts.database.owned_by_us {
        let message = format!(
            "database {database} belongs to {}, so our role can't take the right to connect from others: the closed gate alone keeps clients from writing",
            target.facts.database.owner
        );
        let grant = format!("GRANT {} TO {};", ident(&target.facts.database.owner), ident(&target.facts.role.name));
        drafts.push(Draft::warning(Side::Target, message).fix(Fix::sql(Side::Target, [grant])));
    }
    // From the preparation on it is isolated, or in charge.
    if context.prepared {
        return Ok(drafts);
    }
    let application: Vec<&str> =
        context.application_roles()?.iter().map(|role| role.name.as_str()).filter(|name| *name != target.facts.role.name).collect();
    let sql = "SELECT rolname::text, rolsuper, pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT') \
         FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[]) ORDER BY 1";
    let rows = target.query("asking who may connect to the target", sql, &[&application]).await?;
    let names = |superuser: bool, connects: bool| -> Vec<String> {
        rows.iter().filter(|row| row.get::<_, bool>(1) == superuser && row.get::<_, bool>(2) == connects).map(|row| row.get(0)).collect()
    };
    let (superusers, admitted, refused) = (names(true, true), names(false, true), names(false, false));
    if !superusers.is_empty() {
        let fix = Fix::sql(Side::Target, superusers.iter().map(|name| format!("ALTER ROLE {} NOSUPERUSER;", ident(name))));
        let message = "application roles that are superusers at the target can't be shut out of it";
        drafts.push(Draft::warning(Side::Target, message).evidence(superusers).fix(fix));
    }
    if !admitted.is_empty() {
        let message =
            "application roles can connect to the target now; the preparation takes that right away, and the switch gives it back";
        drafts.push(Draft::info(Side::Target, message).evidence(admitted));
    }
    if !refused.is_empty() {
        let fix = Fix::sql(Side::Target, refused.iter().map(|name| format!("GRANT CONNECT ON DATABASE {database} TO {};", ident(name))));
        let message = "application roles may not connect to the target: after the switch they could not either";
        drafts.push(Draft::warning(Side::Target, message).evidence(refused).fix(fix));
    }
    Ok(drafts)
}
