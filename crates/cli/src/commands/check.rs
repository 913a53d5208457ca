//! `cutover check`: preflight, for people and scripts.

use cutover_postgres::preflight::{Finding, Fix, Severity};

use super::remote;
use crate::{
    args::{Global, Output, Remote},
    output::{Failure, Paint, print_json, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global, remote: &Remote) -> Result<(), Failure> {
    let findings = match remote::named(remote)? {
        Some(server) => server.check().await?,
        None => plan_file::open(global).await?.check().await?,
    };
    let blocking = findings.iter().filter(|finding| finding.blocks()).count();
    show(global, &findings);
    if blocking > 0 {
        return Err(Failure::new(format!("{blocking} findings block the cutover"))
            .answered()
            .with_code(3)
            .with_hint("mend what is marked `error`, then check again"));
    }
    Ok(())
}

/// Shows findings as was asked for.
pub(crate) fn show(global: &Global, findings: &[Finding]) {
    let blocking = findings.iter().filter(|finding| finding.blocks()).count();
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "findings": findings, "blocking": blocking })),
        Output::Human => {
            print(findings);
            to_stdout(&format!("{} findings, {blocking} of them block", findings.len()));
        }
    }
}

/// Prints findings, the worst first.
fn print(findings: &[Finding]) {
    let paint = Paint::stdout();
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in sorted {
        let severity = match finding.severity {
            Severity::Error => paint.red("error  "),
            Severity::Warning => paint.yellow("warning"),
            Severity::Info => paint.dim("info   "),
        };
        let side = finding.side.map(|side| format!("{side}: ")).unwrap_or_default();
        to_stdout(&format!("{severity} {} {side}{}", paint.bold(&finding.check), finding.message));
        for line in &finding.evidence {
            to_stdout(&format!("          {line}"));
        }
        if let Some(fix) = &finding.fix {
            let text = match fix {
                Fix::Sql { side, text } => format!("at the {side}: {text}"),
                Fix::Command(text) | Fix::Advice(text) => text.clone(),
            };
            to_stdout(&format!("          {} {}", paint.cyan("fix:"), text.replace('\n', "\n               ")));
        }
    }
}
