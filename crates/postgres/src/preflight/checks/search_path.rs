//! Functions that a constraint, an index or a generated column calls, and that name things without their schema.
//!
//! They run as rows arrive at the target, where no session has the application's `search_path`: a function that needs it
//! stops the copy, or later the stream.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};

pub(crate) const CHECK: Check = Check {
    name: "search_path",
    about: "what constraints, indexes and generated columns call runs without the application's search_path where rows are applied",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// Function, its schema, and what calls it. One whose body was parsed when it was made knows what it names.
const FUNCTIONS_SQL: &str = "SELECT p.oid::regprocedure::text, pg_catalog.format('%I', n.nspname), pg_catalog.min(u.what) \
     FROM ( \
         SELECT d.refobjid AS function, pg_catalog.format('constraint %I of %s', k.conname, \
                 CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text ELSE k.contypid::regtype::text END) AS what \
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid \
             WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND k.contype = 'c' \
         UNION ALL SELECT d.refobjid, pg_catalog.format('column %s.%I', a.attrelid::regclass, a.attname) \
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef e ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND e.oid = d.objid \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum \
             WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND a.attgenerated <> '' \
         UNION ALL SELECT d.refobjid, pg_catalog.format('index %s', i.indexrelid::regclass) \
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_index i ON d.classid = 'pg_catalog.pg_class'::regclass AND i.indexrelid = d.objid \
             WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass \
     ) u JOIN pg_catalog.pg_proc p ON p.oid = u.function JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
     WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND pg_catalog.to_jsonb(p) ->> 'prosqlbody' IS NULL \
       AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE c LIKE 'search_path=%') \
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'e') \
     GROUP BY p.oid, n.nspname ORDER BY 1";

async fn ask(context: &Context<'_>) -> Verdict {
    let rows = context.source.query("looking at functions that definitions call", FUNCTIONS_SQL, &[]).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<[String; 3]> = rows.iter().map(|row| std::array::from_fn(|at| row.get(at))).collect();
    let evidence = found.iter().map(|[function, _, what]| format!("{function}, called by {what}"));
    let fix = found.iter().map(|[function, schema, _]| format!("ALTER FUNCTION {function} SET search_path = {schema}, pg_temp;"));
    let message = "functions that constraints, indexes or generated columns call, without a search_path of their own: where they name \
        a table or function without its schema, the copy or the stream stops";
    Ok(vec![Draft::warning(Side::Source, message).evidence(evidence).fix(Fix::sql(Side::Source, fix))])
}
