//! Row-level security must not stand between us and the rows.
//!
//! A policy that applies to our role makes the copy miss rows without a word. From PostgreSQL 16 on changes are applied
//! as a table's owner; where row security is forced on owners, the apply worker refuses and the stream stands still.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "row_security",
    about: "a policy that applies to our role hides rows from the copy, and one that applies to a table's owner stops the apply worker",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// A table with row-level security.
struct Secured {
    name: String,
    forced: bool,
    we_own: bool,
    owner_bypasses: bool,
}

impl Secured {
    /// Whether a policy filters what our role reads.
    fn filters_us(&self, we_bypass: bool) -> bool {
        !we_bypass && (self.forced || !self.we_own)
    }

    /// Whether the apply worker refuses to write to it at a destination of this version.
    fn stops_apply(&self, destination_major: u32) -> bool {
        destination_major >= 16 && self.forced && !self.owner_bypasses
    }
}

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        let secured = secured(side).await?;
        drafts.extend(filtered(side, &secured));
        for destination in context.destinations() {
            // Before the copy the target has no tables; it gets the source's.
            if destination.side == side.side || (side.side == Side::Source && !context.prepared) {
                drafts.extend(stopped(side.side, destination, &secured));
            }
        }
    }
    Ok(drafts)
}

async fn secured(side: &Examined<'_>) -> Result<Vec<Secured>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relforcerowsecurity, pg_catalog.pg_has_role(c.relowner, 'USAGE'), \
             o.rolsuper OR o.rolbypassrls \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
         WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND {covered} ORDER BY 1"
    );
    let rows = side.query("looking for row-level security", &sql, &[]).await?;
    Ok(rows.iter().map(|row| Secured { name: row.get(0), forced: row.get(1), we_own: row.get(2), owner_bypasses: row.get(3) }).collect())
}

fn filtered(side: &Examined<'_>, secured: &[Secured]) -> Option<Draft> {
    let role = &side.facts.role;
    let names: Vec<&str> =
        secured.iter().filter(|table| table.filters_us(role.bypasses_row_security)).map(|table| table.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let role = ident(&role.name);
    let message = format!("policies apply to our role {role}: copy and verification would miss the rows they hide");
    Some(Draft::error(side.side, message).evidence(names).fix(Fix::sql(side.side, [format!("ALTER ROLE {role} BYPASSRLS;")])))
}

fn stopped(found_at: Side, destination: &Examined<'_>, secured: &[Secured]) -> Option<Draft> {
    let names: Vec<&str> =
        secured.iter().filter(|table| table.stops_apply(destination.facts.major)).map(|table| table.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let message = format!("row security is forced on the owner, as whom the {}'s worker applies changes: it would stop", destination.side);
    let fix = Fix::sql(found_at, names.iter().map(|name| format!("ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY;")));
    Some(Draft::error(found_at, message).evidence(names).fix(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_exempt_unless_it_is_forced_on_them() {
        let table = |forced, we_own, owner_bypasses| Secured { name: "t".into(), forced, we_own, owner_bypasses };
        assert!(!table(false, true, false).filters_us(false));
        assert!(table(true, true, false).filters_us(false));
        assert!(table(false, false, false).filters_us(false));
        assert!(!table(true, false, false).filters_us(true));
        assert!(table(true, false, false).stops_apply(16));
        assert!(!table(true, false, true).stops_apply(16), "an owner with BYPASSRLS applies all");
        assert!(!table(true, false, false).stops_apply(15), "before 16 a superuser applies");
        assert!(!table(false, false, false).stops_apply(18));
    }
}
