//! A plan's journal, opened where the plan says.

use std::{path::Path, sync::Arc};

use cutover_core::{
    Plan,
    plan::{DatabaseUrl, SslMode},
};
use cutover_journal::{Journal, PostgresJournal, open_postgres, open_sqlite};
use cutover_postgres::connect::tls_config;

use crate::{EngineError, EngineResult};

/// Opens it; it is made if there is none. Where it is not in PostgreSQL, it is in the folder `state`.
pub(crate) async fn open(plan: &Plan, state: &Path) -> EngineResult<Arc<dyn Journal>> {
    if let Some(url) = &plan.journal {
        return Ok(Arc::new(open_shared(url, &plan.name).await?));
    }
    std::fs::create_dir_all(state).map_err(|source| EngineError::Io { doing: format!("making the folder {}", state.display()), source })?;
    Ok(Arc::new(open_sqlite(&state.join("journal.db"), &plan.name).await?))
}

/// The journal in PostgreSQL. How it is encrypted is said by what checks certificates, as for the databases.
async fn open_shared(url: &DatabaseUrl, plan: &str) -> EngineResult<PostgresJournal> {
    let tls = match url.ssl_mode {
        SslMode::Disable => None,
        _ => Some(tls_config(url).map_err(|reason| EngineError::Mismatch {
            what: format!("the journal's certificates: {reason}"),
            hint: "sslrootcert names a file with root certificates in PEM form".to_owned(),
        })?),
    };
    let ssl_mode = if url.ssl_mode.is_required() { SslMode::Require } else { url.ssl_mode };
    let plain = DatabaseUrl { ssl_mode, ssl_root_cert: None, ..url.clone() };
    Ok(open_postgres(&plain.conninfo(), tls, plan).await?)
}
