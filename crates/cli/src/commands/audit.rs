//! `cutover audit`: the journal, as it was written.

use cutover_journal::Entry;

use crate::{
    args::{Audit, Global, Output},
    output::{Failure, Paint, print_json, to_stdout},
    plan_file,
};

pub(crate) async fn run(global: &Global, args: &Audit) -> Result<(), Failure> {
    let cutover = plan_file::open(global).await?;
    let verified = if args.verify { Some(cutover.audit().await?) } else { None };
    let entries = cutover.entries().await?;
    if global.output == Output::Json {
        let chain = verified.as_ref().map(|verified| match verified {
            Ok(verified) => serde_json::json!({ "intact": true, "head": verified.head.to_string() }),
            Err(tampered) => serde_json::json!({ "intact": false, "what": tampered.to_string() }),
        });
        print_json(&serde_json::json!({ "journal": cutover.journal_location(), "entries": entries, "chain": chain }));
    } else {
        entries.iter().for_each(print);
    }
    match verified {
        Some(Err(tampered)) => Err(Failure::new(format!("the journal was changed: {tampered}"))
            .answered()
            .with_code(3)
            .with_hint("compare it with a backup; what it says from there on can't be relied on")),
        Some(Ok(verified)) if global.output == Output::Human => {
            to_stdout(&format!("{} entries, none changed or missing; head {}", entries.len(), verified.head));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn print(entry: &Entry) {
    let paint = Paint::stdout();
    let at = jiff::Timestamp::from_millisecond(entry.at_ms)
        .map_or_else(|_| entry.at_ms.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string());
    let reason = if entry.reason.is_empty() { String::new() } else { format!("  \"{}\"", entry.reason) };
    to_stdout(&format!(
        "{:>4}  {}  epoch {:<3} {} {}{reason}",
        entry.seq,
        paint.dim(&at),
        entry.epoch,
        paint.bold(&format!("{:<16}", entry.kind)),
        entry.actor
    ));
    let mut body = entry.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("event");
        if !fields.is_empty() {
            to_stdout(&format!("      {}", paint.dim(&body.to_string())));
        }
    }
}
