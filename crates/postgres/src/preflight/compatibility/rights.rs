//! What the application's roles may do at one side and not at the other.

use std::collections::BTreeSet;

use super::{
    super::{context::Examined, finding::Inconclusive},
    difference::{Concern, Difference, Remedy},
    object::Object,
};
use crate::names::ident;

/// A right that a role has at one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) role: String,
    /// `SELECT`, `EXECUTE` and so on.
    pub(super) right: String,
    /// A schema has no name in a schema.
    pub(super) object: Object,
    /// The object for people, a function with the types of its arguments.
    pub(super) name: String,
    /// As GRANT names the object: `TABLE "s"."t"`.
    on: String,
}

/// The rights of these roles, by role, right and object. A superuser has all of them.
pub(super) async fn read(side: &Examined<'_>, roles: &[String]) -> Result<BTreeSet<Right>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "WITH role AS (SELECT r.oid, r.rolname::text AS name FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[])), \
         right_on(kind, name) AS (VALUES ('t', 'SELECT'), ('t', 'INSERT'), ('t', 'UPDATE'), ('t', 'DELETE'), ('S', 'USAGE'), ('S', 'SELECT')) \
         SELECT role.name, p.name, n.nspname::text, c.relname::text, \
             pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname), \
             n.nspname || '.' || c.relname \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace CROSS JOIN role \
         JOIN right_on p ON p.kind = CASE c.relkind WHEN 'S' THEN 'S' ELSE 't' END \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT c.relispartition AND {covered} AND CASE \
             WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(role.oid, c.oid, p.name) \
             WHEN p.name = 'DELETE' THEN pg_catalog.has_table_privilege(role.oid, c.oid, p.name) \
             ELSE pg_catalog.has_any_column_privilege(role.oid, c.oid, p.name) END \
         UNION ALL SELECT role.name, 'EXECUTE', n.nspname::text, f.proname::text, \
             pg_catalog.format('ROUTINE %I.%I(%s)', n.nspname, f.proname, pg_catalog.oidvectortypes(f.proargtypes)), \
             pg_catalog.format('%s.%s(%s)', n.nspname, f.proname, pg_catalog.oidvectortypes(f.proargtypes)) \
         FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace CROSS JOIN role \
         WHERE n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema', 'cutover']::name[]) \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_proc'::regclass \
               AND x.objid = f.oid AND x.deptype = 'e') AND pg_catalog.has_function_privilege(role.oid, f.oid, 'EXECUTE') \
         UNION ALL SELECT role.name, 'USAGE', n.nspname::text, '', pg_catalog.format('SCHEMA %I', n.nspname), 'schema ' || n.nspname \
         FROM pg_catalog.pg_namespace n CROSS JOIN role \
         WHERE n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema', 'pg_toast', 'cutover']::name[]) AND n.nspname !~ '^pg_(toast_)?temp_' \
           AND pg_catalog.has_schema_privilege(role.oid, n.oid, 'USAGE')"
    );
    let rows = side.query("reading what the application's roles may do", &sql, &[&roles]).await?;
    let right = |row: &tokio_postgres::Row| Right {
        role: row.get(0),
        right: row.get(1),
        object: Object::new(row.get::<_, String>(2), row.get::<_, String>(3)),
        name: row.get(5),
        on: row.get(4),
    };
    Ok(rows.iter().map(right).collect())
}

/// Rights that are lost, of roles and on objects that the other side has.
pub(super) fn lost(here: &BTreeSet<Right>, there: &BTreeSet<Right>, known: impl Fn(&Right) -> bool) -> Vec<Difference> {
    let lost = here.iter().filter(|right| !there.contains(right) && known(right));
    let difference = |right: &Right| Difference {
        name: format!("{}: {} on {}", right.role, right.right, right.name),
        what: format!("role {} lacks {} on {} there", right.role, right.right, right.name),
        concern: Concern::Right(right.clone()),
        remedy: Remedy::Sql(format!("GRANT {} ON {} TO {};", right.right, right.on, ident(&right.role))),
    };
    lost.map(difference).collect()
}
