//! What one client does next, as SQL.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};

use super::OpKind;

/// One request of an application.
pub(super) enum Request {
    /// Reads one account.
    Read(String),
    /// Writes, in one transaction.
    Write(Write),
}

/// A write: its statements, and how it is committed.
pub(super) struct Write {
    pub(super) kind: OpKind,
    pub(super) statements: Vec<Statement>,
    /// Sent on its own, without BEGIN and COMMIT: the statement's answer is the commit's.
    pub(super) autocommit: bool,
}

/// One statement, with the number of rows it must touch if nothing is lost.
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) rows: Option<u64>,
}

impl Statement {
    fn of(rows: u64, sql: String) -> Self {
        Self { sql, rows: Some(rows) }
    }
}

/// What a client knows of the one tag it has.
#[derive(Default)]
pub(super) struct Tags {
    /// The operations of which one made it: several where an outcome is unknown.
    candidates: Vec<i64>,
    /// One was acknowledged, so it or one that replaced it is there.
    one_is_there: bool,
}

impl Tags {
    pub(super) fn acknowledged(&mut self, op: i64) {
        *self = Self { candidates: vec![op], one_is_there: true };
    }

    pub(super) fn unknown(&mut self, op: i64) {
        self.candidates.push(op);
    }
}

/// How a client chooses.
pub(super) struct Mix {
    pub(super) accounts: i64,
    pub(super) read_share: f64,
    pub(super) slow_share: f64,
    pub(super) slow: Duration,
}

impl Mix {
    /// The next request of a client.
    pub(super) fn next(&self, rng: &mut StdRng, client: i32, op: i64, tags: &Tags) -> Request {
        if rng.random_bool(self.read_share) {
            return Request::Read(format!("SELECT balance, status FROM bank.accounts WHERE id = {}", self.account(rng)));
        }
        let mut write = match rng.random_range(0..100) {
            0..50 => self.transfer(rng, client, op),
            50..75 => self.order(rng, client, op),
            75..90 => event(rng, client, op),
            _ => tag(client, op, tags),
        };
        if !write.autocommit && rng.random_bool(self.slow_share) {
            let sleep = format!("SELECT pg_sleep({})", self.slow.as_secs_f64());
            write.statements.push(Statement { sql: sleep, rows: None });
        }
        Request::Write(write)
    }

    /// Moves money. The accounts are locked in the order of their keys, or clients would deadlock.
    fn transfer(&self, rng: &mut StdRng, client: i32, op: i64) -> Write {
        let debit = self.account(rng);
        let credit = (debit + rng.random_range(1..self.accounts) - 1) % self.accounts + 1;
        let cents: i64 = rng.random_range(1..10_000);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let mut moves = [(debit, format!("-{amount}")), (credit, amount.clone())];
        moves.sort();
        let mut statements: Vec<_> = moves
            .iter()
            .map(|(account, change)| {
                Statement::of(1, format!("UPDATE bank.accounts SET balance = balance + ({change}) WHERE id = {account}"))
            })
            .collect();
        statements.push(Statement::of(
            1,
            format!("INSERT INTO bank.transfers (client, op, debit, credit, amount) VALUES ({client}, {op}, {debit}, {credit}, {amount})"),
        ));
        let entries = moves.map(|(account, change)| format!("({}, {client}, {op}, {account}, {change})", account % 40)).join(", ");
        statements.push(Statement::of(2, format!("INSERT INTO bank.ledger (region, client, op, account_id, amount) VALUES {entries}")));
        Write { kind: OpKind::Transfer, statements, autocommit: false }
    }

    fn order(&self, rng: &mut StdRng, client: i32, op: i64) -> Write {
        let account = self.account(rng);
        let currency = ["EUR", "USD", "CHF"][rng.random_range(0..3)];
        let cents: i64 = rng.random_range(1..100_000);
        let order = format!(
            "INSERT INTO bank.orders (client, op, account_id, items, price) VALUES ({client}, {op}, {account}, ARRAY['item {op}', 'it''s'], {}.{:02})",
            cents / 100,
            cents % 100
        );
        let position = format!(
            "INSERT INTO bank.positions AS p VALUES ({account}, '{currency}', 1) ON CONFLICT (account_id, currency) DO UPDATE SET filled = p.filled + 1"
        );
        Write { kind: OpKind::Order, statements: vec![Statement::of(1, order), Statement::of(1, position)], autocommit: false }
    }

    fn account(&self, rng: &mut StdRng) -> i64 {
        rng.random_range(1..=self.accounts)
    }
}

fn event(rng: &mut StdRng, client: i32, op: i64) -> Write {
    let payload = format!("{:016x}", rng.random::<u64>());
    let sql = format!("INSERT INTO bank.events (client, op, kind, payload) VALUES ({client}, {op}, 'seen', '\\x{payload}')");
    Write { kind: OpKind::Event, statements: vec![Statement::of(1, sql)], autocommit: true }
}

/// Replaces the client's tag, so rows go as well as come. The event proves for ever that it happened.
fn tag(client: i32, op: i64, tags: &Tags) -> Write {
    let mut statements = Vec::new();
    if !tags.candidates.is_empty() {
        let names: Vec<_> = tags.candidates.iter().map(|op| format!("'{}'", tag_name(client, *op))).collect();
        let sql = format!("DELETE FROM bank.\"Tags\" WHERE tag IN ({})", names.join(", "));
        statements.push(Statement { sql, rows: tags.one_is_there.then_some(1) });
    }
    let name = tag_name(client, op);
    statements
        .push(Statement::of(1, format!("INSERT INTO bank.\"Tags\" VALUES ('{name}', {client}, {op}, ARRAY['now', 'ü'], 'of op {op}')")));
    statements.push(Statement::of(1, format!("INSERT INTO bank.events (client, op, kind) VALUES ({client}, {op}, 'tagged')")));
    Write { kind: OpKind::Tag, statements, autocommit: false }
}

fn tag_name(client: i32, op: i64) -> String {
    format!("tag/{client}/{op}")
}
