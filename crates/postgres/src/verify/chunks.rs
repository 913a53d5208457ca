//! Cutting tables into chunks, and comparing a chunk.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{Mutex, mpsc};
use tokio_postgres::{Row, error::SqlState};

use super::{
    Comparison, Key, Method, Role, Shared, multiset,
    report::Findings,
    session::{Pair, Query, Session},
    settle::settle,
    sql::{Range, TableSql},
};
use crate::{PgError, PgResult};

/// How often a part of the work is tried again after a connection broke.
const RETRIES: u32 = 2;

/// How many keys are looked up by one statement.
const LOOKUP_KEYS: usize = 1000;

/// How often a part is cut further before its rows are looked up one by one. One cut is enough for a side with many
/// rows that the other has not; a range that is long again after each cut grows, or is not the same range on both sides.
const MOST_CUTS: u32 = 3;

/// A part of the work.
pub(super) enum Work {
    /// Compare a range of keys.
    Range(Arc<Comparison>, Range),
    /// Look up at the other side what one side has in a range of keys.
    Lookup(Arc<Comparison>, Role, Range),
    /// Compare a whole table without a key.
    Multiset(Arc<Comparison>),
}

impl Work {
    fn table(&self) -> &Arc<Comparison> {
        match self {
            Self::Range(table, _) | Self::Lookup(table, _, _) | Self::Multiset(table) => table,
        }
    }
}

/// Cuts all tables into parts and hands them out.
pub(super) async fn walk(tables: &[Arc<Comparison>], mut pair: Pair, sender: mpsc::Sender<Work>, shared: &Shared<'_>) -> PgResult<()> {
    for table in tables {
        if let Err(error) = walk_table(table, &mut pair, &sender).await {
            let why = table.refusal(&error).ok_or(error)?;
            let mut findings = shared.findings();
            findings.unsettled(table.unsettled(why));
            shared.found(table, findings);
        }
        shared.part_done(table);
    }
    Ok(())
}

async fn walk_table(table: &Arc<Comparison>, pair: &mut Pair, sender: &mpsc::Sender<Work>) -> PgResult<()> {
    match table.method {
        Method::Range => walk_keys(table, pair.at(Role::Authority), sender, |range| Work::Range(table.clone(), range)).await,
        Method::Lookup => {
            for role in [Role::Authority, Role::Follower] {
                walk_keys(table, pair.at(role), sender, |range| Work::Lookup(table.clone(), role, range)).await?;
            }
            Ok(())
        }
        Method::Multiset => {
            hand_out(sender, Work::Multiset(table.clone())).await;
            Ok(())
        }
    }
}

/// Walks the keys that are there now; what is added behind the last of them falls into the last range, which is open.
async fn walk_keys(table: &Comparison, session: &mut Session, sender: &mpsc::Sender<Work>, work: impl Fn(Range) -> Work) -> PgResult<()> {
    let sql = table.at(session.role());
    let mut rest = Range { after: None, upto: key(&again(session, table, &sql.last_key()).await?) };
    while rest.upto.is_some() {
        let Some(boundary) = boundary(session, table, sql, &rest, table.chunk_rows).await? else { break };
        hand_out(sender, work(Range { after: rest.after.replace(boundary.clone()), upto: Some(boundary) })).await;
    }
    hand_out(sender, work(Range { after: rest.after, upto: None })).await;
    Ok(())
}

/// Counted as open first: the walk itself is open too, so the count can't touch zero in between.
async fn hand_out(sender: &mpsc::Sender<Work>, work: Work) {
    work.table().open.fetch_add(1, Ordering::AcqRel);
    if sender.send(work).await.is_err() {
        tracing::debug!("all workers are gone; one of them says why");
    }
}

/// The key of the range's `rows`th row.
async fn boundary(session: &mut Session, table: &Comparison, sql: &TableSql, range: &Range, rows: u32) -> PgResult<Option<Key>> {
    Ok(key(&again(session, table, &sql.boundary(range, rows.saturating_sub(1))).await?))
}

/// Runs a query that may simply be run once more on a new connection.
async fn again(session: &mut Session, table: &Comparison, query: &Query) -> PgResult<Vec<Row>> {
    let mut tries = 0;
    loop {
        match session.query(&table.doing(), query).await {
            Err(error) if error.is_disconnect() && tries < RETRIES => tries += 1,
            answer => return answer,
        }
    }
}

fn key(rows: &[Row]) -> Option<Key> {
    rows.first().map(|row| row.get(0))
}

/// Count and sums of the rows in a range.
#[derive(PartialEq, Eq)]
struct Digest {
    rows: i64,
    sums: [String; 2],
}

/// A range that is still to be compared.
struct Part {
    range: Range,
    /// How many rows it may have before it is cut further.
    rows: u32,
    /// How often it was cut.
    cuts: u32,
}

/// Compares parts of the work, over a connection to each side.
pub(super) struct Worker<'a> {
    pair: Pair,
    shared: &'a Shared<'a>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(pair: Pair, shared: &'a Shared<'a>) -> Self {
        Self { pair, shared }
    }

    /// Works until nothing is left.
    pub(super) async fn run(mut self, queue: &Mutex<mpsc::Receiver<Work>>) -> PgResult<()> {
        loop {
            let next = queue.lock().await.recv().await;
            let Some(work) = next else { return Ok(()) };
            let findings = self.attempt(&work).await?;
            self.shared.found(work.table(), findings);
            self.shared.part_done(work.table());
        }
    }

    /// What was found counts only once the whole part is done, so it can be done again.
    async fn attempt(&mut self, work: &Work) -> PgResult<Findings> {
        let mut tries = 0;
        loop {
            match Box::pin(self.perform(work)).await {
                Ok(findings) => return Ok(findings),
                Err(error) if error.is_disconnect() && tries < RETRIES => tries += 1,
                Err(error) => {
                    let why = work.table().refusal(&error).ok_or(error)?;
                    let mut findings = self.shared.findings();
                    findings.unsettled(work.table().unsettled(why));
                    return Ok(findings);
                }
            }
        }
    }

    async fn perform(&mut self, work: &Work) -> PgResult<Findings> {
        match work {
            Work::Range(table, range) => self.range(table, range).await,
            Work::Lookup(table, role, range) => self.lookups(table, *role, range).await,
            Work::Multiset(table) => multiset::compare(&mut self.pair, self.shared, table).await,
        }
    }

    async fn range(&mut self, table: &Comparison, range: &Range) -> PgResult<Findings> {
        let mut findings = self.shared.findings();
        let mut parts = vec![Part { range: range.clone(), rows: table.chunk_rows, cuts: 0 }];
        while let Some(part) = parts.pop() {
            if part.cuts > MOST_CUTS {
                for role in [Role::Authority, Role::Follower] {
                    self.look_up_range(table, role, &part.range, part.rows, &mut findings).await?;
                }
                continue;
            }
            let (authority, follower) = match self.digests(table, &part.range).await {
                Ok(digests) => digests,
                Err(error) if is_timeout(&error) && part.rows > 1 => {
                    parts.extend(self.cut(table, &part, Role::Authority, (part.rows / 8).max(1)).await?);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if authority != follower {
                if authority.rows.max(follower.rows) > i64::from(part.rows) * 2 {
                    let larger = if authority.rows >= follower.rows { Role::Authority } else { Role::Follower };
                    parts.extend(self.cut(table, &part, larger, part.rows).await?);
                    continue;
                }
                let Some(keys) = self.candidates(table, &part).await? else {
                    parts.push(Part { cuts: part.cuts + 1, ..part });
                    continue;
                };
                settle(&mut self.pair, self.shared, table, &keys, &mut findings).await?;
            }
            findings.rows += u64::try_from(authority.rows).unwrap_or(0);
            findings.chunks += 1;
        }
        Ok(findings)
    }

    async fn digests(&mut self, table: &Comparison, range: &Range) -> PgResult<(Digest, Digest)> {
        let [authority, follower] = &table.sides;
        let (authority, follower) = self.pair.ask(&table.doing(), &authority.digest(range), &follower.digest(range)).await?;
        let (authority, follower) = (digest(&authority, table)?, digest(&follower, table)?);
        self.shared.limiter.take(u64::try_from(authority.rows.max(follower.rows)).unwrap_or(0)).await;
        Ok((authority, follower))
    }

    /// Cuts a part after every `rows` rows of one side.
    async fn cut(&mut self, table: &Comparison, part: &Part, role: Role, rows: u32) -> PgResult<Vec<Part>> {
        let mut parts = Vec::new();
        let mut rest = part.range.clone();
        while let Some(boundary) = boundary(self.pair.at(role), table, table.at(role), &rest, rows).await? {
            if rest.upto.as_ref() == Some(&boundary) {
                break;
            }
            let after = rest.after.replace(boundary.clone());
            parts.push(Part { range: Range { after, upto: Some(boundary) }, rows, cuts: part.cuts + 1 });
        }
        parts.push(Part { range: rest, rows, cuts: part.cuts + 1 });
        Ok(parts)
    }

    /// The keys whose rows are not the same on both sides; `None` where there are too many rows to tell.
    async fn candidates(&mut self, table: &Comparison, part: &Part) -> PgResult<Option<Vec<Key>>> {
        let limit = part.rows.saturating_mul(4).saturating_add(1000);
        let [authority, follower] = &table.sides;
        let queries = (authority.rows(&part.range, limit), follower.rows(&part.range, limit));
        let (authority, follower) = self.pair.ask(&table.doing(), &queries.0, &queries.1).await?;
        if authority.len().max(follower.len()) >= limit as usize {
            return Ok(None);
        }
        let mut at_authority: HashMap<Key, [i64; 2]> = authority.iter().map(keyed).collect();
        let mut keys = Vec::new();
        for row in &follower {
            let (key, hash) = keyed(row);
            if at_authority.remove(&key) != Some(hash) {
                keys.push(key);
            }
        }
        keys.extend(at_authority.into_keys());
        keys.sort_unstable();
        Ok(Some(keys))
    }

    async fn lookups(&mut self, table: &Comparison, role: Role, range: &Range) -> PgResult<Findings> {
        let mut findings = self.shared.findings();
        self.look_up_range(table, role, range, table.chunk_rows, &mut findings).await?;
        Ok(findings)
    }

    /// Looks up at the other side every row that `role` has in the range, so many at a time.
    async fn look_up_range(
        &mut self,
        table: &Comparison,
        role: Role,
        range: &Range,
        page_rows: u32,
        findings: &mut Findings,
    ) -> PgResult<()> {
        let mut rest = range.clone();
        loop {
            let page = self.pair.at(role).query(&table.doing(), &table.at(role).rows(&rest, page_rows)).await?;
            let rows: Vec<(Key, [i64; 2])> = page.iter().map(keyed).collect();
            self.shared.limiter.take(rows.len() as u64).await;
            let mut differing = Vec::new();
            for rows in rows.chunks(LOOKUP_KEYS) {
                self.look_up(table, role, rows, &mut differing).await?;
            }
            settle(&mut self.pair, self.shared, table, &differing, findings).await?;
            if role == Role::Authority {
                findings.rows += rows.len() as u64;
            }
            findings.chunks += 1;
            match rows.into_iter().next_back() {
                Some((last, _)) if page.len() >= page_rows as usize => rest.after = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// Adds the keys whose rows are not the same at the other side; rows of the follower's only where the authority
    /// has none, since it was looked up from there too.
    async fn look_up(&mut self, table: &Comparison, role: Role, rows: &[(Key, [i64; 2])], differing: &mut Vec<Key>) -> PgResult<()> {
        let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
        let other = role.other();
        let found = self.pair.at(other).query(&table.doing(), &table.at(other).lookup(&keys)).await?;
        let found: HashMap<i64, [i64; 2]> = found.iter().map(|row| (row.get(0), [row.get(1), row.get(2)])).collect();
        for (number, (key, hash)) in (1..).zip(rows) {
            match found.get(&number) {
                Some(there) if there == hash || role == Role::Follower => {}
                _ => differing.push(key.clone()),
            }
        }
        Ok(())
    }
}

fn keyed(row: &Row) -> (Key, [i64; 2]) {
    (row.get(0), [row.get(1), row.get(2)])
}

fn digest(rows: &[Row], table: &Comparison) -> PgResult<Digest> {
    let row = rows.first().ok_or_else(|| PgError::Mismatch(format!("{}: no answer to a count", table.doing())))?;
    Ok(Digest { rows: row.get(0), sums: [row.get(1), row.get(2)] })
}

fn is_timeout(error: &PgError) -> bool {
    error.sql_state() == Some(&SqlState::QUERY_CANCELED)
}
