//! Columns that a stream carries and its destination can't take.
//!
//! The apply worker looks at a table's columns before its first row, whatever that row holds. One that it has no place
//! for, because a migration dropped, renamed or computed it, stops the stream for all tables. On the way there nothing
//! helps: what was written between the slot and a list of columns is sent without the list. On the way back the
//! publication leaves such columns out, where the server can.

use cutover_core::{Side, Stream};

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    finding::{Draft, Fix, Inconclusive},
};
use crate::{
    catalogue::{Column, QualifiedName, Table},
    names::ident,
    stream::{COLUMN_LISTS_SINCE, can_leave_out},
};

pub(crate) const CHECK: Check = Check {
    name: "columns",
    about: "a stream stops at the first row of a table with a column that the other side has no place for",
    probe: Probe::Facts(judge),
};

/// A table of a stream's origin with such columns.
struct Burdened<'a> {
    table: &'a Table,
    other: &'a Table,
    columns: Vec<&'a Column>,
}

/// Once the target has been migrated. After the switch the way back alone is looked at, and keeps nobody from going.
fn judge(context: &Context<'_>) -> Verdict {
    let Some(authority) = context.authority else { return Ok(Vec::new()) };
    let mut drafts = Vec::new();
    if authority == Side::Source {
        drafts.extend(forward(context)?);
    }
    if context.plan.switch.reverse {
        let severity = if authority == Side::Source { Severity::Error } else { Severity::Warning };
        drafts.extend(reverse(context, severity)?);
    }
    Ok(drafts)
}

fn forward(context: &Context<'_>) -> Result<Vec<Draft>, Inconclusive> {
    let burdened = burdened(context, Stream::Forward)?;
    let accepted = |name: &str| context.plan.accept.iter().any(|accept| accept.name == name);
    let (borne, refused): (Vec<_>, Vec<_>) = burdened.iter().flat_map(Burdened::each).partition(|(_, name, _)| accepted(name));
    let mut drafts = Vec::new();
    if !refused.is_empty() {
        let message = "the target has no place for columns of the source: the first row that is written to one of these tables stops \
            the stream, and with it the switch";
        drafts.push(Draft::error(Side::Target, message).evidence(refused.iter().map(line)).fix(give_back(&refused)));
    }
    if !borne.is_empty() {
        let message = "accepted, and the stream still carries them: it stops at the first row that is written to one of these tables \
            before the switch";
        let advice = "write nothing there before the switch; a stream that stopped goes on once the column is there again";
        drafts.push(Draft::warning(Side::Target, message).evidence(borne.iter().map(line)).fix(Fix::advice(advice)));
    }
    Ok(drafts)
}

/// A column that is added is empty where rows were copied; a renamed one wants its name back.
fn give_back(refused: &[(&Burdened<'_>, String, &Column)]) -> Fix {
    if refused.iter().any(|(burdened, ..)| burdened.has_new_columns()) {
        let advice = "give the columns back: rename back what was renamed, add what was dropped, and `cutover verify --repair` brings the \
            values of rows that were copied. Leave renames and drops for after `cutover retire`";
        return Fix::advice(advice);
    }
    let statement = |(burdened, _, column): &(&Burdened<'_>, String, &Column)| {
        let (table, name) = (burdened.other.name.quoted(), ident(&column.name));
        if burdened.is_computed(column) {
            format!("ALTER TABLE {table} ALTER COLUMN {name} DROP EXPRESSION;")
        } else {
            format!("ALTER TABLE {table} ADD COLUMN {name} {}; -- then cutover verify --repair brings its values", column.type_name)
        }
    };
    Fix::sql(Side::Target, refused.iter().map(statement))
}

fn reverse(context: &Context<'_>, severity: Severity) -> Result<Option<Draft>, Inconclusive> {
    let major = context.target.facts.major;
    let mut burdened = burdened(context, Stream::Reverse)?;
    burdened.retain(|found| !can_leave_out(major, found.table, found.other));
    if burdened.is_empty() {
        return Ok(None);
    }
    let lines = burdened.iter().map(|found| {
        let names: Vec<String> = found.columns.iter().map(|column| column.name.clone()).collect();
        format!("{}: {}, {}", found.table.name, names.join(", "), found.why(major))
    });
    let message = "the source has no place for columns of the target, and the way back can't leave them out: the first row that is \
        written to one of these tables after the switch stops it";
    let advice = "leave these columns for after `cutover retire`; or take a target of PostgreSQL 15 or later; or do without a way back: \
         `reverse = false` in the plan's [switch]";
    let fix = if major >= COLUMN_LISTS_SINCE && burdened.iter().all(Burdened::needs_no_whole_rows) {
        let statement = |found: &Burdened<'_>| format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT;", found.table.name.quoted());
        Fix::sql(Side::Target, burdened.iter().map(statement))
    } else {
        Fix::advice(advice)
    };
    Ok(Some(Draft::new(severity, Side::Target, message).evidence(lines).fix(fix)))
}

fn burdened<'a>(context: &'a Context<'_>, stream: Stream) -> Result<Vec<Burdened<'a>>, Inconclusive> {
    let (origin, destination) = (context.side(stream.origin()).facts.tables()?, context.side(stream.destination()).facts.tables()?);
    let there: std::collections::HashMap<&QualifiedName, &Table> = destination.iter().map(|table| (&table.name, table)).collect();
    let found = origin.iter().filter(|table| table.holds_rows() && table.persistence == "p").filter_map(|table| {
        let other = *there.get(&table.name)?;
        Some(Burdened { table, other, columns: table.without_place_at(other).collect() })
    });
    Ok(found.filter(|found| !found.columns.is_empty()).collect())
}

fn line((burdened, name, column): &(&Burdened<'_>, String, &Column)) -> String {
    format!("{name}{}", if burdened.is_computed(column) { ", which is generated there" } else { "" })
}

impl<'a> Burdened<'a> {
    /// Each column, with its name as `accept` has it.
    fn each(&self) -> impl Iterator<Item = (&Self, String, &'a Column)> {
        self.columns.iter().map(move |column| (self, format!("{}.{}", self.table.name, column.name), *column))
    }

    fn is_computed(&self, column: &Column) -> bool {
        self.other.columns.iter().any(|other| other.name == column.name)
    }

    /// Whether the other side has columns of its own, one of which may be the lost one under another name.
    fn has_new_columns(&self) -> bool {
        self.other.columns.iter().any(|other| self.table.columns.iter().all(|column| column.name != other.name))
    }

    /// Whether its primary key could identify its rows as well, at both sides.
    fn needs_no_whole_rows(&self) -> bool {
        self.table.replica_identity == "f" && !self.table.key.is_empty() && self.table.key == self.other.key
    }

    fn why(&self, major: u32) -> String {
        if major < COLUMN_LISTS_SINCE {
            format!("and PostgreSQL {major} publishes all columns")
        } else if self.table.replica_identity == "f" {
            "and its replica identity is the whole row".to_owned()
        } else {
            "and its replica identity needs them".to_owned()
        }
    }
}
