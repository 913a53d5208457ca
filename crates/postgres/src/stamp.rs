//! A stamp of a database's definitions: it changes whenever any of them does.

use tokio_postgres::Client;

use crate::{PgError, PgResult};

/// Catalogues that a dump's second section is written from, and what its definitions rest on. Statistics, storage and what
/// the server keeps for itself are none.
const CATALOGUES: [&str; 27] = [
    "pg_attrdef",
    "pg_attribute",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_default_acl",
    "pg_description",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_index",
    "pg_inherits",
    "pg_language",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_seclabel",
    "pg_statistic_ext",
    "pg_trigger",
    "pg_type",
];

/// Publications of others. Ours come and go with the switch.
const PUBLICATIONS: &str = "SELECT p.tableoid, p.ctid, p.xmin FROM pg_catalog.pg_publication p WHERE p.pubname !~ '^cutover_.*_(forward|reverse)$' \
     UNION ALL SELECT r.tableoid, r.ctid, r.xmin FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid \
         WHERE p.pubname !~ '^cutover_.*_(forward|reverse)$'";

/// Reads the stamp. Each change of a definition writes a row of a catalogue anew, at another place and by another
/// transaction; what VACUUM and ANALYZE note, they write in place.
pub(crate) async fn stamp(client: &Client) -> PgResult<String> {
    let failed = |error| PgError::sql("reading what was defined", error);
    let namespaces = "SELECT pg_catalog.to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL";
    let has_namespaces: bool = client.query_one(namespaces, &[]).await.map_err(failed)?.get(0);
    let catalogues = CATALOGUES.into_iter().chain(has_namespaces.then_some("pg_publication_namespace"));
    let rows = catalogues.map(|name| format!("SELECT tableoid, ctid, xmin FROM pg_catalog.{name}"));
    let rows: Vec<String> = rows.chain([PUBLICATIONS.to_owned()]).collect();
    let sql = format!(
        "SELECT pg_catalog.concat_ws(' ', count(*), sum(pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', tableoid, ctid, xmin), 0))) FROM ({}) r",
        rows.join(" UNION ALL ")
    );
    Ok(client.query_one(&sql, &[]).await.map_err(failed)?.get(0))
}
