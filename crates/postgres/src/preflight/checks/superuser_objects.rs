//! What only a superuser can make at the target.
//!
//! The schema is loaded as our role, all or nothing: one definition that it may not make stops the copy.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "superuser_objects",
    about: "the schema is loaded all or nothing, and one definition that only a superuser may make stops it",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// The user's own, outside extensions: with the class that says so.
const OBJECTS_SQL: &str = "SELECT o.what FROM ( \
         SELECT 'pg_catalog.pg_event_trigger'::regclass AS class, oid, pg_catalog.format('event trigger %I', evtname) AS what \
             FROM pg_catalog.pg_event_trigger WHERE evtname NOT IN ('cutover_ddl_gate', 'cutover_arm_new_table') \
         UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::regclass, oid, pg_catalog.format('foreign-data wrapper %I', fdwname) \
             FROM pg_catalog.pg_foreign_data_wrapper \
         UNION ALL SELECT 'pg_catalog.pg_proc'::regclass, p.oid, pg_catalog.format('function %s in %I%s', p.oid::regprocedure, l.lanname, \
                 CASE WHEN p.proleakproof THEN ', leakproof' ELSE '' END) \
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE NOT l.lanpltrusted OR p.proleakproof \
         UNION ALL SELECT 'pg_catalog.pg_type'::regclass, oid, pg_catalog.format('base type %s', oid::regtype) \
             FROM pg_catalog.pg_type WHERE typtype = 'b' AND typinput <> 'pg_catalog.array_in'::regproc \
         UNION ALL SELECT 'pg_catalog.pg_opclass'::regclass, oid, pg_catalog.format('operator class %I', opcname) FROM pg_catalog.pg_opclass \
         UNION ALL SELECT 'pg_catalog.pg_am'::regclass, oid, pg_catalog.format('access method %I', amname) FROM pg_catalog.pg_am \
     ) o WHERE o.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e') \
     ORDER BY 1";

async fn ask(context: &Context<'_>) -> Verdict {
    let role = &context.target.facts.role;
    if role.superuser || context.prepared {
        return Ok(Vec::new());
    }
    let found = context.source.lines("looking for what only a superuser can make", OBJECTS_SQL).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let message =
        format!("the schema has definitions that only a superuser may make, and our role {} at the target is none", ident(&role.name));
    let fix = Fix::sql(Side::Target, [format!("ALTER ROLE {} SUPERUSER;", ident(&role.name))]);
    Ok(vec![Draft::error(Side::Target, message).evidence(found).fix(fix)])
}
