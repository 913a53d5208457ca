//! Every role that owns something or was granted something exists at the target, and can do there what it can here.
//!
//! Roles belong to a server, not to a database, so no dump of the database carries them. Passwords are only ever asked
//! for whether there is one.

use std::collections::HashMap;

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
    text::count,
};
use crate::{names::ident, roles::with_wanted};

pub(crate) const CHECK: Check = Check {
    name: "roles",
    about: "a dump carries no roles: owners and grantees that the target lacks make its schema fail to load, and logins fail after the switch",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// A role as one side knows it.
#[derive(Clone, Debug, Default)]
struct Role {
    name: String,
    logs_in: bool,
    inherits: bool,
    bypasses_row_security: bool,
    superuser: bool,
    member_of: Vec<String>,
    /// Whether it has a password; unknown unless we are a superuser.
    has_password: Option<bool>,
}

impl Role {
    fn attributes(&self) -> String {
        let mut words = vec![if self.logs_in { "LOGIN" } else { "NOLOGIN" }];
        if !self.inherits {
            words.push("NOINHERIT");
        }
        if self.bypasses_row_security {
            words.push("BYPASSRLS");
        }
        words.join(" ")
    }

    /// The attributes that `target` lacks, for `ALTER ROLE`. Superusers can do all that these say.
    fn lacking(&self, target: &Self) -> Vec<&'static str> {
        let mut words = Vec::new();
        if self.logs_in && !target.logs_in {
            words.push("LOGIN");
        }
        if self.inherits != target.inherits {
            words.push(if self.inherits { "INHERIT" } else { "NOINHERIT" });
        }
        if self.bypasses_row_security && !target.bypasses_row_security && !target.superuser {
            words.push("BYPASSRLS");
        }
        words
    }
}

async fn ask(context: &Context<'_>) -> Verdict {
    let wanted = wanted(context).await?;
    let names: Vec<String> = wanted.iter().flat_map(|role| std::iter::once(&role.name).chain(&role.member_of)).cloned().collect();
    let known = known(&context.target, &names).await?;
    let mut drafts = Vec::new();
    drafts.extend(absent(&wanted, &known));
    drafts.extend(weaker(&wanted, &known));
    drafts.extend(memberships(&wanted, &known));
    drafts.extend(passwords(&wanted, &known));
    Ok(drafts)
}

fn absent(wanted: &[Role], known: &HashMap<String, Role>) -> Option<Draft> {
    let absent: Vec<&Role> = wanted.iter().filter(|role| !known.contains_key(&role.name)).collect();
    if absent.is_empty() {
        return None;
    }
    let message = format!("{} missing at the target, with rights or ownership in the source's database", count(absent.len(), "role"));
    let mut statements: Vec<String> =
        absent.iter().map(|role| format!("CREATE ROLE {} {};", ident(&role.name), role.attributes())).collect();
    let grants =
        absent.iter().flat_map(|role| role.member_of.iter().map(|group| format!("GRANT {} TO {};", ident(group), ident(&role.name))));
    statements.extend(grants);
    let evidence = absent.iter().map(|role| format!("{} ({})", role.name, role.attributes()));
    let note =
        ["passwords are not among the statements; set them with \\password, or carry their hashes over with pg_dumpall --roles-only"];
    Some(Draft::error(Side::Target, message).evidence(evidence).evidence(note).fix(Fix::sql(Side::Target, statements)))
}

fn weaker(wanted: &[Role], known: &HashMap<String, Role>) -> Option<Draft> {
    let weaker: Vec<(&Role, String)> = wanted
        .iter()
        .filter_map(|role| Some((role, role.lacking(known.get(&role.name)?).join(" "))))
        .filter(|(_, words)| !words.is_empty())
        .collect();
    if weaker.is_empty() {
        return None;
    }
    let evidence = weaker.iter().map(|(role, words)| format!("{}: {words}", role.name));
    let fix = Fix::sql(Side::Target, weaker.iter().map(|(role, words)| format!("ALTER ROLE {} {words};", ident(&role.name))));
    Some(Draft::warning(Side::Target, "roles differ from the source's in what they may do").evidence(evidence).fix(fix))
}

fn memberships(wanted: &[Role], known: &HashMap<String, Role>) -> Option<Draft> {
    let missing: Vec<(&str, &str)> = wanted
        .iter()
        .filter_map(|role| Some((role, known.get(&role.name)?)))
        .flat_map(|(role, target)| {
            let lacks = |group: &&String| !target.member_of.contains(*group) && !target.superuser && known.contains_key(*group);
            role.member_of.iter().filter(lacks).map(|group| (role.name.as_str(), group.as_str())).collect::<Vec<_>>()
        })
        .collect();
    if missing.is_empty() {
        return None;
    }
    let evidence = missing.iter().map(|(role, group)| format!("{role} is a member of {group} at the source"));
    let fix = Fix::sql(Side::Target, missing.iter().map(|(role, group)| format!("GRANT {} TO {};", ident(group), ident(role))));
    Some(Draft::warning(Side::Target, "roles lack memberships that they have at the source").evidence(evidence).fix(fix))
}

fn passwords(wanted: &[Role], known: &HashMap<String, Role>) -> Option<Draft> {
    let without = |role: &&Role| {
        role.logs_in && role.has_password == Some(true) && known.get(&role.name).is_some_and(|target| target.has_password == Some(false))
    };
    let names: Vec<&str> = wanted.iter().filter(without).map(|role| role.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let message =
        "roles have a password at the source and none at the target: with password authentication they can't log in after the switch";
    Some(Draft::warning(Side::Target, message).evidence(names).fix(Fix::advice("set them with \\password in psql at the target")))
}

/// Owners, grantees, the application's roles, and the roles that these are members of.
async fn wanted(context: &Context<'_>) -> Result<Vec<Role>, Inconclusive> {
    let source = &context.source;
    let application: Vec<&str> = context.application_roles()?.iter().map(|role| role.name.as_str()).collect();
    let sql =
        format!("{} {} WHERE r.rolname !~ '^pg_' AND r.oid IN (SELECT oid FROM wanted) ORDER BY 1", with_wanted(), select_roles(source));
    let rows = source.query("listing the roles that matter here", &sql, &[&application]).await?;
    Ok(rows.iter().map(role).collect())
}

async fn known(target: &Examined<'_>, names: &[String]) -> Result<HashMap<String, Role>, Inconclusive> {
    let sql = format!("{} WHERE r.rolname = ANY ($1::text[])", select_roles(target));
    let rows = target.query("looking for the source's roles", &sql, &[&names]).await?;
    Ok(rows.iter().map(role).map(|role| (role.name.clone(), role)).collect())
}

fn select_roles(side: &Examined<'_>) -> String {
    let password = if side.facts.role.superuser {
        "(SELECT a.rolpassword IS NOT NULL FROM pg_catalog.pg_authid a WHERE a.oid = r.oid)"
    } else {
        "NULL::boolean"
    };
    format!(
        "SELECT r.rolname::text, r.rolcanlogin, r.rolinherit, r.rolbypassrls, r.rolsuper, \
             ARRAY(SELECT DISTINCT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid \
                 WHERE m.member = r.oid ORDER BY 1), {password} FROM pg_catalog.pg_roles r"
    )
}

fn role(row: &tokio_postgres::Row) -> Role {
    Role {
        name: row.get(0),
        logs_in: row.get(1),
        inherits: row.get(2),
        bypasses_row_security: row.get(3),
        superuser: row.get(4),
        member_of: row.get(5),
        has_password: row.get(6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str) -> Role {
        Role { name: name.into(), logs_in: true, inherits: true, ..Role::default() }
    }

    #[test]
    fn only_what_is_lacking_is_altered() {
        assert!(login("a").lacking(&login("a")).is_empty());
        assert_eq!(login("a").lacking(&Role { logs_in: false, ..login("a") }), ["LOGIN"]);
        let bypassing = Role { bypasses_row_security: true, ..login("a") };
        assert_eq!(bypassing.lacking(&login("a")), ["BYPASSRLS"]);
        assert!(bypassing.lacking(&Role { superuser: true, ..login("a") }).is_empty());
        assert!(Role { logs_in: false, ..login("a") }.lacking(&login("a")).is_empty(), "more rights are no fault");
    }

    #[test]
    fn a_password_is_asked_for_only_where_both_sides_are_known() {
        let with = |has_password| Role { has_password, ..login("a") };
        let target = |has_password| HashMap::from([("a".to_owned(), with(has_password))]);
        assert!(passwords(&[with(Some(true))], &target(Some(false))).is_some());
        assert!(passwords(&[with(Some(true))], &target(None)).is_none());
        assert!(passwords(&[with(None)], &target(Some(false))).is_none());
        assert!(passwords(&[with(Some(false))], &target(Some(false))).is_none());
    }
}
