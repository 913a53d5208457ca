//! What was defined at one side only, because definitions are not replicated.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::Serialize;
use tokio_postgres::Client;

use crate::{PgResult, catalogue};

/// A definition that one side has and the other lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "drift", rename_all = "snake_case")]
pub enum Drift {
    /// A table or partition that only the origin has: its rows go nowhere.
    TableMissing {
        /// Its name.
        table: String,
    },
    /// A table that only the destination has.
    TableExtra {
        /// Its name.
        table: String,
    },
    /// A column that only the origin has: the stream stops at the next row.
    ColumnMissing {
        /// Table and column.
        column: String,
    },
    /// A column that only the destination has.
    ColumnExtra {
        /// Table and column.
        column: String,
    },
    /// A column whose type or NOT NULL differs.
    ColumnDiffers {
        /// Table and column.
        column: String,
        /// At the origin.
        origin: String,
        /// At the destination.
        destination: String,
    },
    /// A sequence that only the origin has.
    SequenceMissing {
        /// Its name.
        sequence: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableMissing { table } => write!(f, "table {table} was made and the other side lacks it"),
            Self::TableExtra { table } => write!(f, "table {table} is at the other side only"),
            Self::ColumnMissing { column } => write!(f, "column {column} was added here or dropped at the other side, which lacks it"),
            Self::ColumnExtra { column } => write!(f, "column {column} is at the other side only"),
            Self::ColumnDiffers { column, origin, destination } => {
                write!(f, "column {column} is {origin} here and {destination} at the other side")
            }
            Self::SequenceMissing { sequence } => write!(f, "sequence {sequence} was made and the other side lacks it"),
        }
    }
}

/// What was defined at one side and not at the other.
///
/// # Errors
/// [`PgError::Sql`].
pub async fn drift(origin: &Client, destination: &Client) -> PgResult<Vec<Drift>> {
    let (here, there) = (catalogue::tables(origin).await?, catalogue::tables(destination).await?);
    let by_name = |tables: &[catalogue::Table]| tables.iter().map(|table| (table.name.clone(), table.clone())).collect::<BTreeMap<_, _>>();
    let (here, there) = (by_name(&here), by_name(&there));
    let mut drift = Vec::new();
    for (name, table) in &here {
        match there.get(name) {
            None => drift.push(Drift::TableMissing { table: name.to_string() }),
            Some(other) => drift.extend(column_drift(table, other)),
        }
    }
    drift.extend(there.keys().filter(|name| !here.contains_key(*name)).map(|name| Drift::TableExtra { table: name.to_string() }));
    let (sequences, others) = (catalogue::sequences(origin).await?, catalogue::sequences(destination).await?);
    let others: HashSet<_> = others.iter().map(|other| &other.name).collect();
    let lacking = sequences.iter().filter(|sequence| !others.contains(&sequence.name));
    drift.extend(lacking.map(|sequence| Drift::SequenceMissing { sequence: sequence.name.to_string() }));
    Ok(drift)
}

fn column_drift(here: &catalogue::Table, there: &catalogue::Table) -> Vec<Drift> {
    let mut drift = Vec::new();
    let describe = |column: &catalogue::Column| format!("{}{}", column.type_name, if column.not_null { " not null" } else { "" });
    for column in &here.columns {
        let name = format!("{}.{}", here.name, column.name);
        match there.columns.iter().find(|other| other.name == column.name) {
            None => drift.push(Drift::ColumnMissing { column: name }),
            Some(other) if describe(other) != describe(column) => {
                drift.push(Drift::ColumnDiffers { column: name, origin: describe(column), destination: describe(other) });
            }
            Some(_) => {}
        }
    }
    let extra = there.columns.iter().filter(|column| !here.columns.iter().any(|other| other.name == column.name));
    drift.extend(extra.map(|column| Drift::ColumnExtra { column: format!("{}.{}", there.name, column.name) }));
    drift
}
