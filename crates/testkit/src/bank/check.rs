//! Compares what the clients saw with what the databases hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{History, Op, OpKind, history::count};
use crate::{Error, Result, connection::connect};

/// How many findings are told in words.
const DETAILS: usize = 50;

/// How long reading one side may take.
const READ_LIMIT: Duration = Duration::from_secs(300);

/// What became of the writes of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that had to be there.
    pub acknowledged_writes: u64,
    /// Acknowledged, but not at the authority, or not with all their rows.
    pub lost_writes: u64,
    /// More than once at the authority.
    pub duplicated_writes: u64,
    /// At the other side, but not at the authority.
    pub misplaced_writes: u64,
    /// Of unknown outcome, and there in part.
    pub torn_writes: u64,
    /// At the authority, although the client was told they failed.
    pub phantom_writes: u64,
    /// Accounts, positions and tags that contradict the writes at the authority.
    pub inconsistencies: u64,
    /// How much money there is too much or too little at the authority, over all accounts, in cents.
    pub balance_delta_cents: u64,
    /// The first findings in words.
    pub details: Vec<String>,
}

impl Verdict {
    /// Everything is where it belongs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let wrong =
            [self.lost_writes, self.duplicated_writes, self.misplaced_writes, self.torn_writes, self.phantom_writes, self.inconsistencies];
        wrong.iter().all(|found| *found == 0) && self.balance_delta_cents == 0
    }

    fn tell(&mut self, detail: String) {
        if self.details.len() < DETAILS {
            self.details.push(detail);
        }
    }
}

/// Looks every write of the history up at the authority, and at the other side if there is one. The load must have
/// stopped, and replication must have caught up.
///
/// # Errors
/// A database can't be read.
pub async fn check_history(authority_url: &str, other_url: Option<&str>, history: &History) -> Result<Verdict> {
    let authority = Side::read(authority_url).await?;
    let other = match other_url {
        Some(url) => Some(Side::read(url).await?),
        None => None,
    };
    let mut verdict = Verdict { acknowledged_writes: count(history.acknowledged.len()), ..Verdict::default() };
    check_acknowledged(&mut verdict, &authority, history);
    check_unknown(&mut verdict, &authority, history);
    check_failed(&mut verdict, &authority, history);
    check_tags(&mut verdict, &authority, history);
    if let Some(other) = &other {
        check_misplaced(&mut verdict, &authority, other, history);
    }
    check_books(&mut verdict, &authority.books);
    Ok(verdict)
}

fn check_acknowledged(verdict: &mut Verdict, authority: &Side, history: &History) {
    for op in &history.acknowledged {
        let (rows, wanted) = (authority.rows(op), Rows::of(op.kind));
        if !rows.covers(&wanted) {
            verdict.lost_writes += 1;
            verdict.tell(format!("lost: {}: {rows:?}", named(op)));
        }
        check_duplicate(verdict, op, &rows, &wanted);
    }
}

fn check_unknown(verdict: &mut Verdict, authority: &Side, history: &History) {
    for op in &history.unknown {
        let (rows, wanted) = (authority.rows(op), Rows::of(op.kind));
        if rows != Rows::default() && !rows.covers(&wanted) {
            verdict.torn_writes += 1;
            verdict.tell(format!("torn: {}: {rows:?}", named(op)));
        }
        check_duplicate(verdict, op, &rows, &wanted);
    }
}

fn check_duplicate(verdict: &mut Verdict, op: &Op, rows: &Rows, wanted: &Rows) {
    if !wanted.covers(rows) {
        verdict.duplicated_writes += 1;
        verdict.tell(format!("duplicated: {}: {rows:?}", named(op)));
    }
}

fn check_failed(verdict: &mut Verdict, authority: &Side, history: &History) {
    for op in &history.failed {
        let rows = authority.rows(op);
        if rows != Rows::default() {
            verdict.phantom_writes += 1;
            verdict.tell(format!("there, but it failed: {}: {rows:?}", named(op)));
        }
    }
}

/// Whatever a client of this history left at the other side has to be at the authority too, even what no client
/// remembers.
fn check_misplaced(verdict: &mut Verdict, authority: &Side, other: &Side, history: &History) {
    let clients: HashSet<_> = ops(history).map(|op| op.client).collect();
    for (key, rows) in &other.rows {
        let here = authority.rows.get(key).copied().unwrap_or_default();
        if clients.contains(&key.0) && !here.covers(rows) {
            verdict.misplaced_writes += 1;
            verdict.tell(format!("misplaced: op {} of client {}: {rows:?} at the other side, {here:?} at the authority", key.1, key.0));
        }
    }
}

/// Each client has the tag of the last of its tag operations that was applied, and no other.
fn check_tags(verdict: &mut Verdict, authority: &Side, history: &History) {
    let mut wanted: BTreeMap<i32, BTreeSet<i64>> = ops(history).map(|op| (op.client, BTreeSet::new())).collect();
    let applied = |op: &&Op| op.kind == OpKind::Tag && authority.rows(op).events > 0;
    let lost = history.acknowledged.iter().filter(|op| op.kind == OpKind::Tag);
    for op in lost.chain(history.unknown.iter().filter(applied)) {
        let tags = wanted.entry(op.client).or_default();
        let last = tags.pop_last().map_or(op.op, |last| last.max(op.op));
        tags.insert(last);
    }
    for (client, tags) in wanted {
        let found = authority.tags.get(&client).cloned().unwrap_or_default();
        if found != tags {
            verdict.inconsistencies += 1;
            verdict.tell(format!("client {client} has the tags of its ops {found:?}, but should have {tags:?}"));
        }
    }
}

fn check_books(verdict: &mut Verdict, books: &Books) {
    verdict.balance_delta_cents = books.off_cents + books.total_cents.abs_diff(books.charter_cents);
    for (number, what) in [
        (books.accounts.abs_diff(books.charter_accounts), "accounts too many or too few"),
        (books.wrong_accounts, "accounts that contradict the ledger"),
        (books.orders.abs_diff(books.filled), "orders that the positions don't count, or count twice"),
        (books.unbalanced, "writes whose ledger rows don't add up to zero"),
    ] {
        if number > 0 {
            verdict.inconsistencies += number;
            verdict.tell(format!("{number} {what}"));
        }
    }
    if verdict.balance_delta_cents > 0 {
        verdict.tell(format!("{} cents too many or too few: {books:?}", verdict.balance_delta_cents));
    }
}

fn ops(history: &History) -> impl Iterator<Item = &Op> {
    history.acknowledged.iter().chain(&history.unknown).chain(&history.failed)
}

fn named(op: &Op) -> String {
    format!("{:?}, op {} of client {}", op.kind, op.op, op.client)
}

/// How many rows a write has in each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rows {
    transfers: u64,
    ledger: u64,
    orders: u64,
    events: u64,
}

impl Rows {
    fn of(kind: OpKind) -> Self {
        let none = Self::default();
        match kind {
            OpKind::Transfer => Self { transfers: 1, ledger: 2, ..none },
            OpKind::Order => Self { orders: 1, ..none },
            OpKind::Event | OpKind::Tag => Self { events: 1, ..none },
        }
    }

    /// Nothing of the other is missing here.
    fn covers(&self, other: &Self) -> bool {
        self.transfers >= other.transfers && self.ledger >= other.ledger && self.orders >= other.orders && self.events >= other.events
    }
}

/// The totals of one side.
#[derive(Clone, Copy, Debug, Default)]
struct Books {
    charter_accounts: u64,
    charter_cents: i64,
    accounts: u64,
    total_cents: i64,
    wrong_accounts: u64,
    off_cents: u64,
    orders: u64,
    filled: u64,
    unbalanced: u64,
}

/// All that one side holds of the load, read in one snapshot.
struct Side {
    rows: HashMap<(i32, i64), Rows>,
    tags: HashMap<i32, BTreeSet<i64>>,
    books: Books,
}

impl Side {
    async fn read(url: &str) -> Result<Self> {
        let client = connect(url, "connect to check the history").await?;
        tokio::time::timeout(READ_LIMIT, Self::read_all(&client)).await.map_err(|_| Error::timed_out("reading the bank", READ_LIMIT))?
    }

    async fn read_all(client: &Client) -> Result<Self> {
        query(client, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let mut side = Self { rows: HashMap::new(), tags: HashMap::new(), books: books(client).await? };
        side.count(client, "transfers", |rows| &mut rows.transfers).await?;
        side.count(client, "ledger", |rows| &mut rows.ledger).await?;
        side.count(client, "orders", |rows| &mut rows.orders).await?;
        side.count(client, "events", |rows| &mut rows.events).await?;
        for row in query(client, "SELECT client, op FROM bank.\"Tags\" WHERE client > 0").await? {
            side.tags.entry(number(&row, 0)?).or_default().insert(number(&row, 1)?);
        }
        query(client, "COMMIT").await?;
        Ok(side)
    }

    async fn count(&mut self, client: &Client, table: &str, column: impl Fn(&mut Rows) -> &mut u64) -> Result<()> {
        for row in query(client, &format!("SELECT client, op, count(*) FROM bank.{table} WHERE client > 0 GROUP BY 1, 2")).await? {
            *column(self.rows.entry((number(&row, 0)?, number(&row, 1)?)).or_default()) = number(&row, 2)?;
        }
        Ok(())
    }

    fn rows(&self, op: &Op) -> Rows {
        self.rows.get(&(op.client, op.op)).copied().unwrap_or_default()
    }
}

async fn books(client: &Client) -> Result<Books> {
    let rows = query(client, include_str!("books.sql")).await?;
    let row = rows.first().ok_or_else(|| Error::Usage("the bank has no charter".to_owned()))?;
    Ok(Books {
        charter_accounts: number(row, 0)?,
        charter_cents: number(row, 1)?,
        accounts: number(row, 2)?,
        total_cents: number(row, 3)?,
        wrong_accounts: number(row, 4)?,
        off_cents: number(row, 5)?,
        orders: number(row, 6)?,
        filled: number(row, 7)?,
        unbalanced: number(row, 8)?,
    })
}

/// By the simple protocol, so that it works through every pooler.
async fn query(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    let messages = client.simple_query(sql).await.map_err(|source| Error::sql("read the bank", source))?;
    Ok(messages.into_iter().filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None }).collect())
}

fn number<T: std::str::FromStr>(row: &SimpleQueryRow, column: usize) -> Result<T> {
    let text = row.get(column);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Error::Usage(format!("the bank's numbers can't be read: {text:?}")))
}
