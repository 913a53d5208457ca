//! The audit of shadow tables, recomputed here: whoever could change its entries could change the functions that check them too.
//!
//! Each table has a chain of its own, and so has what is about none. All are read in pages, in one snapshot, and each entry is let go once it was seen: an audit of years takes no more memory than
//! one of a day. Its entries say where each table went; what they come to is compared with where the tables are.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use super::unreadable;
use crate::{PgError, PgResult, names::ident};

/// Entries that are read at once.
const PAGE: i64 = 500;

/// An entry, as it was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Grows; what was rolled back leaves gaps.
    pub seq: i64,
    /// When it was written, in milliseconds since 1970 (UTC), by the server's clock.
    pub at_ms: i64,
    /// The role that logged in.
    pub actor: String,
    /// Where the session came from, and what it called itself.
    pub client: String,
    /// What was done.
    pub kind: String,
    /// To which table; none where it was to all.
    pub table: Option<String>,
    /// Why, where that was said.
    pub reason: Option<String>,
    /// What there is to say of it.
    pub body: Value,
    /// The hash of the entry before it about the same table; empty for the first.
    pub prev_hash: String,
    /// The hash over everything above.
    pub hash: String,
    /// What the hash has to be.
    #[serde(skip)]
    computed: String,
}

/// What reading all of it came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Audit {
    /// Entries.
    pub entries: u64,
    /// Over the newest hash of each table's chain, in the order of their names: it stands for all of it.
    pub head: String,
    /// The first entry that is not as it was written.
    pub broken: Option<Broken>,
    /// Every table that was on its way: where its entries say that it is, and where it is.
    pub tables: Vec<Replayed>,
}

/// An entry that is not as it was written, or that one is missing in front of.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("entry {seq}: {what}")]
pub struct Broken {
    /// Which one.
    pub seq: i64,
    /// What is wrong.
    pub what: &'static str,
}

/// Where a table stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Its stage.
    pub stage: String,
    /// The share of its reads that goes to the shadow. Unit: percent.
    pub read_percentage: f64,
    /// Grows with each change.
    pub epoch: i64,
}

/// A table, as its entries say and as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// Its name.
    pub table: String,
    /// What its entries come to; none where they say nothing of a stage.
    pub said: Option<Standing>,
    /// What the functions act by; none where it is on no way.
    pub is: Option<Standing>,
}

impl Replayed {
    /// Whether somebody has changed by hand where it stands.
    #[must_use]
    pub fn differs(&self) -> bool {
        match (&self.said, &self.is) {
            (Some(said), Some(is)) => said != is,
            (None, Some(is)) => is.stage != "disabled" || is.epoch != 0,
            (Some(_), None) => true,
            (None, None) => false,
        }
    }
}

/// Reads all of it, and shows each entry as it comes.
///
/// # Errors
/// [`PgError::Refused`] where nothing is installed; [`PgError::Sql`].
pub async fn read(client: &mut Client, schema: &str, mut each: impl FnMut(&Entry)) -> PgResult<Audit> {
    let failed = |error| unreadable("reading the audit", schema, error);
    // Entries, and where the tables are, as of one moment.
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = snapshot.start().await.map_err(failed)?;
    let (mut audit, mut chains, mut replay, mut last) = (Audit::default(), Chains::default(), Replay::default(), 0);
    loop {
        let entries = page(&transaction, schema, last).await?;
        for entry in &entries {
            audit.entries += 1;
            audit.broken = audit.broken.take().or(chains.take(entry));
            replay.take(entry);
            each(entry);
            last = entry.seq;
        }
        if entries.len() < PAGE as usize {
            break;
        }
    }
    audit.head = chains.head();
    audit.tables = replay.beside(standings(&transaction, schema).await?);
    Ok(audit)
}

async fn page(transaction: &Transaction<'_>, schema: &str, after: i64) -> PgResult<Vec<Entry>> {
    // Exactly: before PostgreSQL 14 the server's own epoch is a float.
    let sql = format!(
        "SELECT seq, extract(epoch FROM date_trunc('minute', at AT TIME ZONE 'UTC'))::bigint * 1000000 \
                + extract(microseconds FROM at AT TIME ZONE 'UTC')::bigint, \
                actor, client, action, table_name, reason, detail::text, previous_hash, hash \
           FROM {}.audit_log WHERE seq > $1 ORDER BY seq LIMIT {PAGE}",
        ident(schema)
    );
    let rows = transaction.query(&sql, &[&after]).await.map_err(|error| unreadable("reading the audit", schema, error))?;
    rows.iter().map(Entry::of).collect()
}

/// Where every table stands.
async fn standings(transaction: &Transaction<'_>, schema: &str) -> PgResult<BTreeMap<String, Standing>> {
    let sql = format!(
        "SELECT table_name, cutover_stage::text, read_percentage::double precision, epoch FROM {}.traffic_routing_config",
        ident(schema)
    );
    let rows = transaction.query(&sql, &[]).await.map_err(|error| unreadable("reading the routes", schema, error))?;
    Ok(rows.iter().map(|row| (row.get(0), Standing { stage: row.get(1), read_percentage: row.get(2), epoch: row.get(3) })).collect())
}

impl Entry {
    fn of(row: &Row) -> PgResult<Self> {
        let (seq, at_us, detail): (i64, i64, String) = (row.get(0), row.get(1), row.get(7));
        let said: [Option<String>; 5] = [row.get(2), row.get(3), row.get(4), row.get(5), row.get(6)];
        let prev_hash: String = row.get(8);
        let before = [Some(prev_hash.clone()), Some(seq.to_string()), Some(at_us.to_string())];
        let computed = hash(before.iter().chain(&said).chain([&Some(detail.clone())]));
        let unreadable = || PgError::Mismatch(format!("entry {seq} of the audit can't be read"));
        let [actor, client, kind, table, reason] = said;
        let [actor, client, kind] = [actor, client, kind].map(Option::unwrap_or_default);
        let body = serde_json::from_str(&detail).map_err(|_| unreadable())?;
        Ok(Self { seq, at_ms: at_us.div_euclid(1000), actor, client, kind, table, reason, body, prev_hash, hash: row.get(9), computed })
    }
}

/// As `cutover.audit_hash()` has it: each part has its length in front, so that no two entries have the same parts.
fn hash<'a>(parts: impl Iterator<Item = &'a Option<String>>) -> String {
    let part = |part: &Option<String>| part.as_ref().map_or_else(|| "-".to_owned(), |part| format!("{}:{part}", part.chars().count()));
    hex::encode(Sha256::digest(parts.map(part).collect::<Vec<_>>().join(",")))
}

/// The newest hash of each table's chain so far; and of the one that is about no table.
#[derive(Default)]
struct Chains(BTreeMap<Option<String>, String>);

impl Chains {
    /// What is wrong with the next entry, if anything is.
    fn take(&mut self, entry: &Entry) -> Option<Broken> {
        let newest = self.0.entry(entry.table.clone()).or_default();
        let what = if entry.computed != entry.hash {
            Some("it was changed after it was written")
        } else if entry.prev_hash != *newest {
            Some("an entry in front of it is missing, or another")
        } else {
            None
        };
        newest.clone_from(&entry.hash);
        what.map(|what| Broken { seq: entry.seq, what })
    }

    fn head(&self) -> String {
        let parts: Vec<Option<String>> = self.0.iter().flat_map(|(table, newest)| [table.clone(), Some(newest.clone())]).collect();
        hash(parts.iter())
    }
}

/// Where the entries so far have brought each table.
#[derive(Default)]
struct Replay(BTreeMap<String, Standing>);

impl Replay {
    fn take(&mut self, entry: &Entry) {
        let Some(table) = &entry.table else { return };
        let detail = &entry.body;
        if let (Some(stage), Some(epoch)) = (detail["to"].as_str(), detail["epoch"].as_i64()) {
            let read_percentage = detail["read_percentage"].as_f64().unwrap_or_default();
            self.0.insert(table.clone(), Standing { stage: stage.to_owned(), read_percentage, epoch });
        } else if entry.kind == "drop_shadow_table" {
            self.0.remove(table);
        }
    }

    fn beside(mut self, mut now: BTreeMap<String, Standing>) -> Vec<Replayed> {
        let names: Vec<String> = self.0.keys().chain(now.keys()).cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let replayed = |table: String| Replayed { said: self.0.remove(&table), is: now.remove(&table), table };
        names.into_iter().map(replayed).collect()
    }
}
