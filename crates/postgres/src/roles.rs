//! Roles belong to a server; these are the ones that a database needs to be there.

use crate::catalogue::USER_RELATION;

/// Opens a query: `wanted (oid)` holds every role that owns something in this database or was granted something, those
/// named in `$1`, and the roles that these are members of.
pub(crate) fn with_wanted() -> String {
    format!(
        "WITH RECURSIVE here AS (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), \
         direct AS ( \
             SELECT s.refobjid AS oid FROM pg_catalog.pg_shdepend s, here WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass \
                 AND (s.dbid = here.oid OR s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::regclass AND s.objid = here.oid) \
             UNION SELECT c.relowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {USER_RELATION} \
             UNION SELECT oid FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[])), \
         wanted AS (SELECT oid FROM direct \
             UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN wanted w ON w.oid = m.member)"
    )
}
