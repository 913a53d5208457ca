//! Preflight: what would make a cutover fail, lose something or surprise somebody, found before anything is touched.
//!
//! One file per check. A check reads and never changes anything; it states the fault with names and numbers, and how to
//! mend it. What a check could not establish is itself a finding that blocks: no answer is not a good answer.

mod checks;
mod compatibility;
mod context;
mod defaults;
mod facts;
mod finding;
mod settings;
mod text;

use std::time::Duration;

use cutover_core::{Plan, Side};
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::{PgError, PgResult};
use context::Context;
use finding::{Draft, Inconclusive};
pub use finding::{EVIDENCE_LINES, Finding, Fix, Severity};

/// How long one check may take, beyond what the session's own time-outs allow a statement.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// How far the cutover has come, by its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No copy has begun.
    New,
    /// A copy has begun: the target holds our tables, and slots and publications of our names are no leftovers.
    Begun,
    /// The target has the whole schema, and what the plan's migration made of it.
    Complete {
        /// The side whose clients would move.
        authority: Side,
    },
}

/// One check.
pub struct Check {
    /// Its name, in findings and documentation.
    pub name: &'static str,
    /// What goes wrong without it, in one sentence.
    pub about: &'static str,
    probe: Probe,
}

/// How a check comes to its verdict.
enum Probe {
    /// From what was read already.
    Facts(fn(&Context<'_>) -> Verdict),
    /// By asking the servers more.
    Query(for<'a> fn(&'a Context<'a>) -> BoxFuture<'a, Verdict>),
}

/// What a check found, or why it could not tell.
type Verdict = Result<Vec<Draft>, Inconclusive>;

/// All checks, in the order in which their findings are listed: the servers, the roles, the tables, everything else.
pub const CHECKS: &[&Check] = &[
    &checks::versions::CHECK,
    &checks::servers::CHECK,
    &checks::control_schema::CHECK,
    &checks::target_content::CHECK,
    &checks::tables::CHECK,
    &checks::left_out::CHECK,
    &checks::wal_level::CHECK,
    &checks::capacity::CHECK,
    &checks::wal_retention::CHECK,
    &checks::privileges::CHECK,
    &checks::subscribing::CHECK,
    &checks::ownership::CHECK,
    &checks::row_security::CHECK,
    &checks::replica_identity::CHECK,
    &checks::unlogged::CHECK,
    &checks::large_objects::CHECK,
    &checks::sequences::CHECK,
    &checks::partitions::CHECK,
    &checks::foreign_keys::CHECK,
    &checks::triggers::CHECK,
    &checks::generated::CHECK,
    &checks::search_path::CHECK,
    &checks::extensions::CHECK,
    &checks::superuser_objects::CHECK,
    &checks::locale::CHECK,
    &checks::compatibility::CHECK,
    &checks::columns::CHECK,
    &checks::roles::CHECK,
    &checks::defaults::CHECK,
    &checks::role_timeouts::CHECK,
    &checks::settings::CHECK,
    &checks::durability::CHECK,
    &checks::replication::CHECK,
    &checks::prepared_transactions::CHECK,
    &checks::long_transactions::CHECK,
    &checks::application_roles::CHECK,
    &checks::isolation::CHECK,
    &checks::clients::CHECK,
    &checks::jobs::CHECK,
    &checks::event_triggers::CHECK,
    &checks::storage::CHECK,
    &checks::peers::CHECK,
    &checks::not_moved::CHECK,
];

/// Runs every check.
///
/// # Errors
/// Only where a side can't be asked at all; a check that fails on its own becomes a finding.
pub async fn run(plan: &Plan, source: &Client, target: &Client, standing: Standing) -> PgResult<Vec<Finding>> {
    run_these(CHECKS, plan, source, target, standing).await
}

/// Looks only for what the clients of the side in charge use and the other lacks, and for what would stop a stream.
///
/// # Errors
/// As [`run`].
pub async fn compatibility(plan: &Plan, source: &Client, target: &Client, authority: Side) -> PgResult<Vec<Finding>> {
    run_these(&[&checks::compatibility::CHECK, &checks::columns::CHECK], plan, source, target, Standing::Complete { authority }).await
}

async fn run_these(these: &[&Check], plan: &Plan, source: &Client, target: &Client, standing: Standing) -> PgResult<Vec<Finding>> {
    let reading = timeout(CHECK_TIMEOUT, Context::read(plan, source, target, standing));
    let slow = |_| PgError::TimedOut { doing: "reading the facts that the checks need".to_owned(), limit: CHECK_TIMEOUT };
    let context = reading.await.map_err(slow)??;
    let mut findings = Vec::new();
    for check in these {
        findings.extend(check.run(&context).await);
    }
    match context.sides().into_iter().find(|side| side.client.is_closed()) {
        Some(lost) => Err(PgError::Connect {
            address: plan.database(lost.side).url.address(),
            reason: format!("the connection to the {} broke during the checks", lost.side),
        }),
        None => Ok(findings),
    }
}

impl Check {
    async fn run(&self, context: &Context<'_>) -> Vec<Finding> {
        let verdict = match self.probe {
            Probe::Facts(judge) => judge(context),
            Probe::Query(ask) => timeout(CHECK_TIMEOUT, ask(context)).await.unwrap_or_else(|_| Err(Inconclusive::slow(CHECK_TIMEOUT))),
        };
        let drafts = verdict.unwrap_or_else(|inconclusive| vec![inconclusive.into_draft(self.about)]);
        let finding = |draft: Draft| {
            let finding = draft.finish(self.name);
            let fix = finding.fix.map(|fix| fix.through_gate(|side| context.side(side).facts.fenced));
            Finding { fix, ..finding }
        };
        drafts.into_iter().map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_why_it_exists() {
        for (at, check) in CHECKS.iter().enumerate() {
            assert!(CHECKS[..at].iter().all(|other| other.name != check.name), "{}", check.name);
            assert!(check.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", check.name);
            assert!(check.about.len() > 20 && !check.about.ends_with('.'), "{}", check.about);
        }
    }

    #[test]
    fn every_file_of_a_check_is_in_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/preflight/checks");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.trim_end_matches(".rs");
            assert!(name == "mod" || CHECKS.iter().any(|check| check.name == name), "{name}");
        }
    }
}
