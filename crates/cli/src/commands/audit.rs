//! `cutover audit`: the journal, as it was written.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{remote, sql};
use crate::{
    args::{Audit, Global, Output},
    output::{Failure, Paint, print_json, to_stdout},
    plan_file,
};

/// The journal, read here or by a server.
#[derive(Serialize)]
pub(crate) struct Journal {
    /// Where it is.
    pub(crate) journal: String,
    /// Every entry, with all its fields.
    pub(crate) entries: Vec<Value>,
    /// Whether it is as it was written, where that was asked.
    pub(crate) chain: Option<Chain>,
}

/// What recomputing the chain found.
#[derive(Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(super) intact: bool,
    /// The newest entry's hash, of one that is intact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) what: Option<String>,
}

/// What of an entry is shown to a person.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    /// Not of every entry about shadow tables.
    epoch: Option<u64>,
    at_ms: i64,
    actor: String,
    reason: Option<String>,
    kind: String,
    /// Which shadow table it is about.
    table: Option<String>,
    body: Value,
}

pub(crate) async fn run(global: &Global, args: &Audit) -> Result<(), Failure> {
    if let Some(url) = sql::named(&args.shadow, &args.remote)? {
        return sql::audit::run(global, &url, &args.shadow.schema, args.verify).await;
    }
    let journal = match remote::named(&args.remote)? {
        Some(server) => server.audit(args.verify).await?,
        None => read(global, args.verify).await?,
    };
    match global.output {
        Output::Json => print_json(&journal),
        Output::Human => journal.entries.iter().try_for_each(print)?,
    }
    match journal.chain {
        Some(Chain { intact: false, what, .. }) => Err(Failure::new(format!("the journal was changed: {}", what.unwrap_or_default()))
            .answered()
            .with_code(3)
            .with_hint("compare it with a backup; what it says from there on can't be relied on")),
        Some(Chain { head, .. }) if global.output == Output::Human => {
            to_stdout(&format!("{} entries, none changed or missing; head {}", journal.entries.len(), head.unwrap_or_default()));
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn read(global: &Global, verify: bool) -> Result<Journal, Failure> {
    let cutover = plan_file::open(global).await?;
    let chain = match verify {
        false => None,
        true => Some(match cutover.audit().await? {
            Ok(verified) => Chain { intact: true, head: Some(verified.head.to_string()), what: None },
            Err(tampered) => Chain { intact: false, head: None, what: Some(tampered.to_string()) },
        }),
    };
    let entries =
        cutover.entries().await?.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
    Ok(Journal { journal: cutover.journal_location(), entries, chain })
}

pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(format!("an entry of the journal can't be shown: {error}"))
}

/// One entry, as a person reads it.
pub(super) fn print(entry: &Value) -> Result<(), Failure> {
    let entry = Line::deserialize(entry).map_err(|error| unreadable(&error))?;
    let paint = Paint::stdout();
    let at = jiff::Timestamp::from_millisecond(entry.at_ms)
        .map_or_else(|_| entry.at_ms.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string());
    let reason = entry.reason.filter(|reason| !reason.is_empty()).map(|reason| format!("  \"{reason}\"")).unwrap_or_default();
    let epoch = entry.epoch.map_or_else(|| " ".repeat(9), |epoch| format!("epoch {epoch:<3}"));
    let table = entry.table.map(|table| format!("  {table}")).unwrap_or_default();
    to_stdout(&format!(
        "{:>4}  {}  {epoch} {} {}{table}{reason}",
        entry.seq,
        paint.dim(&at),
        paint.bold(&format!("{:<16}", entry.kind)),
        entry.actor
    ));
    let mut body = entry.body;
    if let Some(fields) = body.as_object_mut() {
        fields.remove("event");
        if !fields.is_empty() {
            to_stdout(&format!("      {}", paint.dim(&body.to_string())));
        }
    }
    Ok(())
}
