//! What the clients will miss, told where it keeps nobody: after the migration hook, and before a way back.

use std::time::Duration;

use cutover_core::Side;
use cutover_postgres::preflight::{self, Finding, Severity};

use crate::{Cutover, EngineError, EngineResult, Notice, driver::Driver};

/// How long it may take. Who goes back is in a hurry.
const LIMIT: Duration = Duration::from_secs(10);

impl Driver<'_> {
    /// Says what the clients of the side in charge use and the other side lacks.
    pub(crate) async fn tell_what_clients_miss(&self, authority: Side) {
        let findings = match tokio::time::timeout(LIMIT, missed(self.cutover, authority)).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(error)) => return self.note(Notice::Warning(format!("what clients will miss could not be looked at: {error}"))),
            Err(_) => return self.note(Notice::Warning(format!("what clients will miss was not known within {} s", LIMIT.as_secs()))),
        };
        for finding in findings.iter().filter(|finding| finding.severity != Severity::Info) {
            let evidence = finding.evidence.iter().map(|line| format!("\n  {line}")).collect::<String>();
            self.note(Notice::Warning(format!("{}: {}{evidence}", finding.check, finding.message)));
        }
    }
}

async fn missed(cutover: &Cutover, authority: Side) -> EngineResult<Vec<Finding>> {
    let (source, target) = cutover.examiners().await?;
    preflight::compatibility(&cutover.plan, &source, &target, authority).await.map_err(EngineError::database("preflight"))
}
