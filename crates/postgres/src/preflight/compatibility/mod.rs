//! What the clients of one side use and the other lacks, or has otherwise.
//!
//! Three things are put together: what both sides define (`definitions`, `rights`, compared by `difference`), what the
//! clients say (`statements`, from `pg_stat_statements`), and whether the other side would take it (`trial`). A
//! difference alone blocks nothing: a column that nobody reads may go. `verdict` says what follows.

mod definitions;
mod difference;
mod object;
mod rights;
mod statements;
mod text;
mod trial;
mod verdict;

use std::collections::BTreeSet;

use cutover_core::Side;

use super::{
    Verdict,
    context::{Context, Examined},
    finding::Inconclusive,
};
use definitions::Definitions;
use difference::{Difference, differences};
use statements::Statements;
use verdict::Evidence;

use crate::catalogue::USER_RELATION;

/// Looks at everything from the point of view of a client of `here`, who is to be served by the other side.
pub(super) async fn examine(context: &Context<'_>, here: Side) -> Verdict {
    let (here, there) = (context.side(here), context.side(here.other()));
    let differences = compare(context, here, there).await?;
    let mut statements = Statements::read(context, here).await?;
    let left_out = here.lines("listing what is left out", &left_out_only(here)).await?;
    // What is left out stays where it is, and so does whoever uses it.
    statements.all.retain(|statement| !left_out.iter().any(|name| statement.text.says(name)));
    trial::run(context, here, there, &mut statements.all).await?;
    let roles = context.application_roles()?.iter().map(|role| role.name.clone()).collect();
    let accepted = &context.plan.accept;
    Ok(Evidence { here: here.side, differences, statements: &statements, accepted, application_roles: roles }.drafts())
}

/// Names that only relations have which the cutover leaves out.
fn left_out_only(side: &Examined<'_>) -> String {
    let covered = &side.covered;
    format!(
        "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND {USER_RELATION} \
         GROUP BY 1 HAVING NOT pg_catalog.bool_or({covered})"
    )
}

async fn compare(context: &Context<'_>, here: &Examined<'_>, there: &Examined<'_>) -> Result<Vec<Difference>, Inconclusive> {
    let (ours, others) = (Definitions::read(here).await?, Definitions::read(there).await?);
    let mut found = differences(&ours, &others);
    let roles: Vec<String> = context.application_roles()?.iter().filter(|role| !role.superuser).map(|role| role.name.clone()).collect();
    let rights = rights::read(here, &roles).await?;
    let others_rights = rights::read(there, &roles).await?;
    let sql = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[])";
    let rows = there.query("looking for the application's roles", sql, &[&roles]).await?;
    let present: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let schemas: BTreeSet<&String> = others.relations.keys().map(|object| &object.schema).collect();
    found.extend(rights::lost(&rights, &others_rights, |right| {
        let exists = match right.object.name.as_str() {
            "" => schemas.contains(&right.object.schema),
            _ => others.relations.contains_key(&right.object) || others.functions.contains_key(&right.name),
        };
        exists && present.contains(&right.role)
    }));
    Ok(found)
}
