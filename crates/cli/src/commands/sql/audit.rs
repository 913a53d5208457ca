//! `cutover audit --shadow-tables`: what was decided about shadow tables, whether it is as it was written, and whether the tables
//! are where it says.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
};

use cutover_core::plan::DatabaseUrl;
use cutover_postgres::shadow::audit::{Audit, Entry, Replayed, Standing, read};
use serde_json::{Value, json};

use super::super::audit::{Chain, print, unreadable};
use crate::{
    args::{Global, Output},
    output::{Failure, JSON_VERSION, to_stderr, to_stdout},
};

/// The exit code for an audit that was changed, and for tables that are not where it says.
const TAMPERED: u8 = 3;

pub(crate) async fn run(global: &Global, url: &DatabaseUrl, schema: &str, verify: bool) -> Result<(), Failure> {
    let journal = format!("{}/{} {schema}.audit_log", url.address(), url.database);
    let mut client = super::connected(url).await?;
    let mut told = Told::new(global.output)?;
    let audit = read(&mut client, schema, |entry| told.entry(entry)).await?;
    let verdict = verify.then(|| Verdict::of(&audit));
    told.end(&journal, verdict.as_ref())?;
    let Some(Verdict { chain, differ, .. }) = verdict else { return Ok(()) };
    let changed = |message| Failure::new(message).answered().with_code(TAMPERED);
    if let Some(what) = chain.what {
        return Err(changed(format!("the audit was changed: {what}"))
            .with_hint("compare it with a backup; what it says from there on can't be relied on"));
    }
    if !differ.is_empty() {
        if global.output == Output::Human {
            differ.iter().for_each(|table| to_stderr(&standings(table)));
        }
        let message =
            format!("not where the audit says: {}", differ.iter().map(|table| table.table.as_str()).collect::<Vec<_>>().join(", "));
        return Err(changed(message).with_hint(format!(
            "somebody has changed {schema}.traffic_routing_config by hand, or taken off the newest entries of the audit"
        )));
    }
    if global.output == Output::Human {
        let (entries, tables) = (audit.entries, audit.tables.len());
        to_stdout(&format!("{entries} entries, none changed or missing; {tables} tables where they say; head {}", audit.head));
    }
    Ok(())
}

/// Whether it is as it was written, and which tables are not where it says.
struct Verdict<'a> {
    chain: Chain,
    differ: Vec<&'a Replayed>,
    tables: &'a [Replayed],
}

impl<'a> Verdict<'a> {
    fn of(audit: &'a Audit) -> Self {
        let what = audit.broken.as_ref().map(ToString::to_string);
        let chain = Chain { intact: what.is_none(), head: what.is_none().then(|| audit.head.clone()), what };
        Self { chain, differ: audit.tables.iter().filter(|table| table.differs()).collect(), tables: &audit.tables }
    }
}

/// Where the entries go: to the person at once; of JSON, of which there is one object or none, into a file until all is known.
enum Told {
    Human(Result<(), Failure>),
    Json { spool: BufWriter<File>, first: bool, written: io::Result<()> },
}

impl Told {
    fn new(output: Output) -> Result<Self, Failure> {
        Ok(match output {
            Output::Human => Self::Human(Ok(())),
            Output::Json => {
                Self::Json { spool: BufWriter::new(tempfile::tempfile().map_err(|error| spoiled(&error))?), first: true, written: Ok(()) }
            }
        })
    }

    fn entry(&mut self, entry: &Entry) {
        match self {
            Self::Human(told) if told.is_ok() => *told = line(entry).and_then(|line| print(&line)),
            Self::Json { spool, first, written } if written.is_ok() => {
                let comma = if std::mem::take(first) { "" } else { "," };
                *written = write!(spool, "{comma}{}", json!(entry));
            }
            Self::Human(_) | Self::Json { .. } => {}
        }
    }

    fn end(self, journal: &str, verdict: Option<&Verdict<'_>>) -> Result<(), Failure> {
        match self {
            Self::Human(told) => told,
            Self::Json { spool, written, .. } => written.and_then(|()| unspool(spool, journal, verdict)).map_err(|error| spoiled(&error)),
        }
    }
}

/// The same object as that of a journal, with the tables besides.
fn unspool(spool: BufWriter<File>, journal: &str, verdict: Option<&Verdict<'_>>) -> io::Result<()> {
    let mut entries = spool.into_inner()?;
    entries.seek(SeekFrom::Start(0))?;
    let (chain, tables) = verdict.map_or((Value::Null, Value::Null), |verdict| {
        let table = |table: &Replayed| json!({ "table": table.table, "said": table.said, "is": table.is, "differs": table.differs() });
        (json!(verdict.chain), verdict.tables.iter().map(table).collect())
    });
    let mut out = io::stdout().lock();
    let written = write!(out, "{{\"version\":{JSON_VERSION},\"journal\":{},\"entries\":[", json!(journal))
        .and_then(|()| io::copy(&mut entries, &mut out))
        .and_then(|_| writeln!(out, "],\"chain\":{chain},\"tables\":{tables}}}"));
    // A closed pipe is nobody's error.
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

fn line(entry: &Entry) -> Result<Value, Failure> {
    let mut line = serde_json::to_value(entry).map_err(|error| unreadable(&error))?;
    line["epoch"] = entry.body["epoch"].clone();
    Ok(line)
}

fn spoiled(error: &io::Error) -> Failure {
    Failure::new(format!("the entries can't be written: {error}"))
}

fn standings(table: &Replayed) -> String {
    let standing = |standing: &Option<Standing>| {
        standing.as_ref().map_or_else(
            || "on no way".to_owned(),
            |Standing { stage, read_percentage, epoch }| format!("at {stage}, {read_percentage} % of reads, epoch {epoch}"),
        )
    };
    format!("{}: by the audit {}; it is {}", table.table, standing(&table.said), standing(&table.is))
}
