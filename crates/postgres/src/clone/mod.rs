//! Disposable databases for a rehearsal: made, marked, recognised and removed.
//!
//! The marker is the database's comment: it stands outside the database's own content, so nothing carries it over to
//! another one, and it can be read from next door. Nothing is done to a database whose marker is not ours.

mod origin;
pub mod probe;
mod remove;
mod sample;

use std::time::Duration;

use cutover_core::{Identity, plan::DatabaseUrl};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

pub use self::{
    origin::{Brought, Origin, restore, run_sql_file},
    remove::{Leftover, left_behind, leftovers, remove},
};
use crate::{
    PgError, PgResult,
    connect::{Purpose, connect},
    identity::identity,
    names::{ident, literal},
};

/// How a marker begins.
const MARK: &str = "cutover rehearsal ";

/// How the name of a clone begins.
const PREFIX: &str = "cutover_rehearsal_";

/// How much of a plan's name stands in a clone's: PostgreSQL's names end at 63 bytes.
const PLAN_KEPT: usize = 30;

/// The longest that making a database may take.
const CREATE_LIMIT: Duration = Duration::from_secs(60);

/// What a clone carries, so that everybody knows it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Of the rehearsal that made it.
    pub id: String,
    /// The plan that is rehearsed.
    pub plan: String,
    /// Seconds since 1970.
    pub created: u64,
    /// When it may be removed whoever uses it, in seconds since 1970.
    pub expires: u64,
}

impl Marker {
    /// What the database is called.
    #[must_use]
    pub fn database(&self) -> String {
        let plan: String = self.plan.chars().take(PLAN_KEPT).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect();
        format!("{PREFIX}{plan}_{}", self.id)
    }

    /// The `application_name` of the rehearsal's own sessions.
    #[must_use]
    pub fn application(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    fn comment(&self) -> PgResult<String> {
        let json = serde_json::to_string(self).map_err(|error| PgError::Mismatch(format!("writing the marker: {error}")))?;
        Ok(format!("{MARK}{json}"))
    }

    fn read(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(MARK)?).ok()
    }
}

/// A clone that this run has made, with its marker in it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The server's own database, from which it was made and will be dropped.
    pub server: DatabaseUrl,
    /// How we reach it.
    pub url: DatabaseUrl,
    marker: Marker,
    identity: Identity,
}

impl Made {
    /// Makes an empty database at `server` and marks it. `forbidden` are the databases that the plan is about.
    ///
    /// # Errors
    /// [`PgError::Refused`] where the server is one of the plan's; the server's answer.
    pub async fn create(server: &DatabaseUrl, marker: &Marker, forbidden: &[Identity]) -> PgResult<Self> {
        let application = marker.application();
        let client = connect(server, &Purpose { statement_timeout: Some(CREATE_LIMIT), ..Purpose::new(&application) }).await?;
        let here = identity(&client, server).await?;
        refuse_forbidden(server, &here, forbidden)?;
        let name = marker.database();
        let making = |error| PgError::sql(format!("making the database {name} at {}", server.address()), error);
        client.batch_execute(&format!("CREATE DATABASE {} TEMPLATE template0", ident(&name))).await.map_err(making)?;
        let mark = format!("COMMENT ON DATABASE {} IS {}", ident(&name), literal(&marker.comment()?));
        client.batch_execute(&mark).await.map_err(making)?;
        let url = DatabaseUrl { database: name, ..server.clone() };
        let identity = Identity { database: url.database.clone(), ..here };
        Ok(Self { server: server.clone(), url, marker: marker.clone(), identity })
    }

    /// A session at the clone, after a look at its marker: the same database of the same server, marked by this run.
    ///
    /// # Errors
    /// [`PgError::Refused`] where it is not ours.
    pub async fn session(&self, limit: Option<Duration>) -> PgResult<Client> {
        let application = self.marker.application();
        let client = connect(&self.url, &Purpose { statement_timeout: limit, ..Purpose::new(&application) }).await?;
        let found = identity(&client, &self.url).await?;
        let marker = marker(&client, &self.url.database).await?;
        if found.same_database(&self.identity) && marker.as_ref() == Some(&self.marker) {
            return Ok(client);
        }
        Err(PgError::Refused {
            what: format!("{} at {} is not the clone that this rehearsal made", self.url.database, self.url.address()),
            hint: Some("nothing was written to it; let nobody else make or mark databases called cutover_rehearsal_…".to_owned()),
        })
    }

    /// The server's major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.identity.major
    }

    /// The marker that it was given.
    #[must_use]
    pub fn marker(&self) -> &Marker {
        &self.marker
    }
}

/// Clones on the very servers that are to be switched would burden both, and what is made there is never far from harm.
fn refuse_forbidden(server: &DatabaseUrl, here: &Identity, forbidden: &[Identity]) -> PgResult<()> {
    let Some(plans) = forbidden.iter().find(|plans| plans.system_identifier == here.system_identifier) else { return Ok(()) };
    Err(PgError::Refused {
        what: format!(
            "{} is the server of the plan's own database {} (system identifier {})",
            server.address(),
            plans.database,
            here.system_identifier
        ),
        hint: Some("name servers that are there for tests only, or leave --server out: throwaway ones are started then".to_owned()),
    })
}

/// The marker of a database, where it carries one.
async fn marker(client: &Client, database: &str) -> PgResult<Option<Marker>> {
    let sql = "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = $1";
    let row = client.query_opt(sql, &[&database]).await.map_err(|error| PgError::sql("reading a clone's marker", error))?;
    Ok(row.and_then(|row| row.get::<_, Option<String>>(0)).as_deref().and_then(Marker::read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker { id: "ab12cd34".into(), plan: "It-is_a-plan".into(), created: 1, expires: 2 }
    }

    #[test]
    fn a_marker_is_read_as_it_was_written_and_nothing_else_is_one() {
        assert_eq!(Marker::read(&marker().comment().unwrap()), Some(marker()));
        for other in ["", "cutover rehearsal", "cutover rehearsal {}", "default administrative connection database", "{\"id\":\"x\"}"] {
            assert_eq!(Marker::read(other), None, "{other}");
        }
    }

    #[test]
    fn the_longest_plan_still_names_a_database() {
        assert_eq!(marker().database(), "cutover_rehearsal_it_is_a_plan_ab12cd34");
        assert!(Marker { plan: "x".repeat(40), ..marker() }.database().len() <= 63);
    }

    #[test]
    fn the_plans_own_server_is_refused_whatever_it_is_called() {
        let server = DatabaseUrl::parse("postgres://u@elsewhere/postgres").unwrap();
        let here = |identifier: &str| Identity {
            system_identifier: identifier.into(),
            database: "postgres".into(),
            timeline: 1,
            major: 15,
            address: String::new(),
        };
        let plans = [Identity { database: "orders".into(), ..here("7") }];
        let error = refuse_forbidden(&server, &here("7"), &plans).unwrap_err();
        assert!(error.to_string().contains("the plan's own database orders"), "{error}");
        assert!(refuse_forbidden(&server, &here("8"), &plans).is_ok());
    }
}
