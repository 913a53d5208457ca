//! Settings that sessions begin with: those that undo the fence, and those that the target would lack.
//!
//! `session_replication_role = replica` switches the gate's triggers off. `default_transaction_read_only` makes the
//! application's writes fail after the switch. Settings made with ALTER ROLE and ALTER DATABASE are in no dump.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    context::Examined,
    defaults::{Scope, SessionDefault},
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "defaults",
    about: "a setting that sessions begin with can switch the gate's triggers off, refuse all writes, or be missing at the target",
    probe: Probe::Facts(judge),
};

fn judge(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        drafts.extend(ungated(side));
        drafts.extend(read_only(side));
        if !side.facts.sees_server_defaults {
            let message = "the server's configuration file can't be read: default_transaction_read_only and synchronous_commit were looked up \
                for roles and databases only";
            let grant = format!(
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings() TO {};",
                crate::names::ident(&side.facts.role.name)
            );
            drafts.push(Draft::info(side.side, message).fix(Fix::sql(side.side, [grant])));
        }
    }
    drafts.extend(left_behind(context)?);
    Ok(drafts)
}

fn ungated(side: &Examined<'_>) -> Option<Draft> {
    let found = matching(side, "session_replication_role", |value| value == "replica");
    let message = "session_replication_role = replica switches triggers off, so that these sessions write past the fence";
    let statements = found.iter().flat_map(|setting| setting.mend_sql("origin"));
    let fix = Fix::sql(side.side, statements);
    (!found.is_empty()).then(|| Draft::error(side.side, message).evidence(found.iter().map(|setting| setting.describe())).fix(fix))
}

fn read_only(side: &Examined<'_>) -> Option<Draft> {
    let found = matching(side, "default_transaction_read_only", is_on);
    let message = "sessions begin read-only here: the application's writes would fail when this side is in charge";
    let severity = if side.side == Side::Target { Severity::Error } else { Severity::Warning };
    let statements = found.iter().flat_map(|setting| setting.mend_sql("off"));
    // Or the fix is refused itself.
    let fix = Fix::sql(side.side, std::iter::once("SET default_transaction_read_only = off;".to_owned()).chain(statements));
    (!found.is_empty()).then(|| Draft::new(severity, side.side, message).evidence(found.iter().map(|setting| setting.describe())).fix(fix))
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1" | "t" | "y")
}

fn matching<'a>(side: &'a Examined<'_>, name: &str, is_faulty: fn(&str) -> bool) -> Vec<&'a SessionDefault> {
    side.facts.defaults.iter().filter(|setting| setting.name == name && is_faulty(&setting.value)).collect()
}

/// Settings of this database and of the application's roles that the target lacks.
fn left_behind(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let application: Vec<&str> = context.application_roles()?.iter().map(|role| role.name.as_str()).collect();
    let target_database = &context.target.facts.database.name;
    let missing: Vec<SessionDefault> = context
        .source
        .facts
        .defaults
        .iter()
        .filter(|setting| match &setting.scope {
            Scope::Server | Scope::Everyone => false,
            Scope::Database(_) | Scope::RoleInDatabase(..) => true,
            Scope::Role(role) => application.contains(&role.as_str()),
        })
        .map(|setting| SessionDefault { scope: moved(&setting.scope, target_database), ..setting.clone() })
        .filter(|setting| !context.target.facts.defaults.contains(setting))
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let message = "settings made with ALTER ROLE or ALTER DATABASE that the target lacks; no dump carries them";
    let (secret, plain): (Vec<_>, Vec<_>) = missing.iter().partition(|setting| setting.is_custom());
    let statements =
        plain.iter().map(|setting| setting.set_sql()).chain(secret.iter().map(|setting| format!("-- yours to copy: {}", setting.name)));
    let fix = Fix::sql(Side::Target, statements);
    Ok(Some(Draft::warning(Side::Target, message).evidence(missing.iter().map(SessionDefault::describe)).fix(fix)))
}

fn moved(scope: &Scope, database: &str) -> Scope {
    match scope {
        Scope::Database(_) => Scope::Database(database.to_owned()),
        Scope::RoleInDatabase(role, _) => Scope::RoleInDatabase(role.clone(), database.to_owned()),
        other => other.clone(),
    }
}
