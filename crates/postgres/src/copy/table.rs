//! One table or one part of it, from source to target.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use cutover_core::plan::DatabaseUrl;
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::{Client, CopyInSink, CopyOutStream, Transaction};

use super::{
    cut::is_of_pages,
    keeper::{Kept, take_up},
    ledger::{self, Claim},
    patient,
    progress::Progress,
    queue::{Numbered, Part, Split, Task, size},
};
use crate::{
    PgError, PgResult,
    catalogue::{Column, Table},
    connect::{Purpose, connect},
    gate,
    index::{Hands, Index, define_within},
    limit::Limiter,
    names::ident,
};

/// How much is asked of the limiter, and sent, at once. Unit: bytes.
const PIECE: usize = 64 * 1024;

/// What all workers of a copy have in common.
pub(super) struct Shared {
    pub(super) source: DatabaseUrl,
    pub(super) target: DatabaseUrl,
    pub(super) application: String,
    pub(super) kept: Kept,
    pub(super) hands: Hands,
    pub(super) progress: Arc<Progress>,
    pub(super) limiter: Arc<Limiter>,
}

/// A session at each side.
pub(super) struct Worker {
    source: Client,
    pub(super) target: Client,
}

/// What holds of a table once a task of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It holds all of the snapshot's rows.
    Full,
    /// Others copy further parts of it.
    Filling,
}

/// Opens a worker's sessions.
pub(super) async fn open(shared: Arc<Shared>) -> PgResult<Worker> {
    let source = connect(&shared.source, &patient(&shared.application)).await?;
    Ok(Worker { source, target: open_target(&shared).await? })
}

/// Opens a session that the target's gate lets pass.
pub(super) async fn open_target(shared: &Shared) -> PgResult<Client> {
    let target = connect(&shared.target, &Purpose::unbounded(&shared.application)).await?;
    gate::let_pass(&target, "copy").await?;
    Ok(target)
}

/// Empties a table for all its parts, in a transaction of its own that notes it at the first of them. The commit is sent
/// only when the server has answered: a session that is given up while it waits for its lock must not empty what a later
/// copy has filled.
pub(super) async fn empty(shared: &Shared, target: &mut Client, table: &Table, first: i32) -> PgResult<()> {
    let doing = copying([table]);
    let failed = |error| PgError::sql(&doing, error);
    let transaction = gate::guarded(target, shared.hands.epoch).await?;
    if matches!(ledger::claim(&transaction, first).await.map_err(failed)?, Claim::Done { .. }) {
        return transaction.rollback().await.map_err(failed);
    }
    truncate(&transaction, &[table]).await.map_err(failed)?;
    ledger::mark_emptied(&transaction, first).await.map_err(failed)?;
    gate::commit(transaction, &doing).await
}

/// Copies what a task says.
pub(super) async fn copy(shared: &Shared, worker: &mut Worker, numbered: &Numbered) -> PgResult<State> {
    match &numbered.task {
        Task::Whole(table) => copy_whole(shared, worker, table, numbered.id, None).await,
        Task::Part(part) => copy_part(shared, worker, part, numbered.id).await,
    }
}

/// Small tables with their indexes, in one transaction at each side: of thousands of tables, transactions and round trips
/// cost the most. Where a table never held a page, there is nothing to empty; the commit waits for no disk.
pub(super) async fn copy_small(shared: &Shared, worker: &mut Worker, batch: &[(i32, Table)], indexes: &[Index]) -> PgResult<()> {
    let doing = copying(batch.iter().map(|(_, table)| table));
    let failed = |error| PgError::sql(&doing, error);
    let transaction = gate::guarded_lightly(&mut worker.target, shared.hands.epoch).await?;
    let ids: Vec<i32> = batch.iter().map(|(id, _)| *id).collect();
    let claims = ledger::claim_all(&transaction, &ids).await.map_err(failed)?;
    let (mut left, mut filled) = (Vec::new(), Vec::new());
    for (id, table) in batch {
        match claims.get(id) {
            Some(Claim::Done { rows, bytes }) => {
                shared.progress.find_done(size(table), *rows, *bytes);
                shared.progress.finish_table();
                continue;
            }
            Some(Claim::Mine { pageless: true }) => {}
            Some(Claim::Mine { pageless: false }) | None => filled.push(table),
        }
        left.push((*id, table));
    }
    if left.is_empty() {
        return transaction.rollback().await.map_err(failed);
    }
    truncate(&transaction, &filled).await.map_err(failed)?;
    let tables: Vec<&Table> = left.iter().map(|(_, table)| *table).collect();
    let seen = begin_reading(shared, &worker.source, &tables).await?;
    let mut done = Vec::with_capacity(left.len());
    for (id, table) in &left {
        let (rows, bytes) = transfer(shared, &worker.source, &transaction, table, &Rows { condition: None, freeze: false }).await?;
        done.push((*id, rows, bytes));
    }
    end_reading(&worker.source, &tables, &seen).await?;
    define_within(&transaction, indexes, shared.hands).await.map_err(|error| PgError::sql(format!("{doing} and its indexes"), error))?;
    ledger::mark_many(&transaction, &done).await.map_err(failed)?;
    gate::commit(transaction, &doing).await?;
    for ((_, table), (_, rows, bytes)) in left.iter().zip(done) {
        shared.progress.finish_part(size(table), rows, bytes);
        shared.progress.finish_table();
    }
    shared.progress.finish_indexes(indexes.len());
    Ok(())
}

/// One table, in one transaction at the target: it holds all of the snapshot's rows, or what it held before. `parts` says
/// that it was split and its parts did not fit together: then they are all done with it.
async fn copy_whole(shared: &Shared, worker: &mut Worker, table: &Table, id: i32, parts: Option<&Split>) -> PgResult<State> {
    let doing = copying([table]);
    let failed = |error| PgError::sql(&doing, error);
    let transaction = gate::guarded(&mut worker.target, shared.hands.epoch).await?;
    if parts.is_some() {
        ledger::claim_table(&transaction, table.oid).await.map_err(failed)?;
    } else if let Claim::Done { rows, bytes } = ledger::claim(&transaction, id).await.map_err(failed)? {
        shared.progress.find_done(size(table), rows, bytes);
        shared.progress.finish_table();
        transaction.rollback().await.map_err(failed)?;
        return Ok(State::Full);
    }
    let seen = begin_reading(shared, &worker.source, &[table]).await?;
    // Nobody reads the table yet, and it is emptied in this transaction: FREEZE spares it a later rewrite.
    truncate(&transaction, &[table]).await.map_err(failed)?;
    let freeze = !table.partition;
    let (rows, bytes) = transfer(shared, &worker.source, &transaction, table, &Rows { condition: None, freeze }).await?;
    end_reading(&worker.source, &[table], &seen).await?;
    if parts.is_some() {
        ledger::mark_all(&transaction, table.oid, id, rows, bytes).await.map_err(failed)?;
    } else {
        ledger::mark(&transaction, id, rows, bytes).await.map_err(failed)?;
    }
    gate::commit(transaction, &doing).await?;
    shared.progress.finish_part(size(table), rows, bytes);
    shared.progress.finish_table();
    Ok(State::Full)
}

/// One part, in one transaction at the target. Parts of pages fit together only if all are read from the same ones: if the rows
/// were moved to others meanwhile, or TRUNCATE came between, whoever ends the last part copies the table as a whole. Such
/// a part is not done until then, so that a copy that is broken off finds out again.
async fn copy_part(shared: &Shared, worker: &mut Worker, part: &Part, id: i32) -> PgResult<State> {
    let split = &part.of;
    if split.is_moved() {
        shared.progress.skip_part(part.bytes, 0);
    } else {
        read_part(shared, worker, part, id).await?;
    }
    if !split.end_part() {
        return Ok(State::Filling);
    }
    if split.is_moved() {
        tracing::info!(table = %split.table.name, "was written anew while its parts were copied; it is copied as a whole");
        shared.progress.begin_again(size(&split.table), split.rows());
        return copy_whole(shared, worker, &split.table, id, Some(split)).await;
    }
    shared.progress.finish_table();
    Ok(State::Full)
}

async fn read_part(shared: &Shared, worker: &mut Worker, part: &Part, id: i32) -> PgResult<()> {
    let split: &Split = &part.of;
    let table = &split.table;
    let doing = copying([table]);
    let failed = |error| PgError::sql(&doing, error);
    let transaction = gate::guarded(&mut worker.target, shared.hands.epoch).await?;
    if let Claim::Done { rows, bytes } = ledger::claim(&transaction, id).await.map_err(failed)? {
        split.add_rows(rows);
        shared.progress.find_done(part.bytes, rows, bytes);
        return transaction.rollback().await.map_err(failed);
    }
    let seen = begin_reading(shared, &worker.source, &[table]).await?;
    // By its statistics the planner may think that reading the whole table for each part is cheaper.
    worker.source.batch_execute("SET LOCAL enable_seqscan = off").await.map_err(failed)?;
    let rows = Rows { condition: Some(&part.condition), freeze: false };
    let (rows, bytes) = transfer(shared, &worker.source, &transaction, table, &rows).await?;
    let pages = end_reading(&worker.source, &[table], &seen).await?;
    if pages == Pages::Same || !is_of_pages(&part.condition) {
        ledger::mark(&transaction, id, rows, bytes).await.map_err(failed)?;
        gate::commit(transaction, &doing).await?;
        split.add_rows(rows);
        shared.progress.finish_part(part.bytes, rows, bytes);
    } else {
        transaction.rollback().await.map_err(failed)?;
        split.set_moved();
        shared.progress.skip_part(part.bytes, bytes);
    }
    Ok(())
}

/// Which rows are copied, and how they are stored.
struct Rows<'a> {
    condition: Option<&'a str>,
    freeze: bool,
}

/// Pipes rows from one side to the other, and says how many there were, in how many bytes.
async fn transfer(shared: &Shared, source: &Client, target: &Transaction<'_>, table: &Table, rows: &Rows<'_>) -> PgResult<(u64, u64)> {
    let doing = copying([table]);
    let failed = |error| PgError::sql(&doing, error);
    let columns = column_list(table);
    let format = if fits_binary(table) { "BINARY" } else { "TEXT" };
    let freeze = if rows.freeze { ", FREEZE" } else { "" };
    let condition = rows.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let out = format!("COPY (SELECT {columns} FROM ONLY {}{condition}) TO STDOUT (FORMAT {format})", table.name.quoted());
    let into = format!("COPY {}{} FROM STDIN (FORMAT {format}{freeze})", table.name.quoted(), parenthesised(&columns));
    let (rows_out, sink) = tokio::try_join!(source.copy_out(&out), target.copy_in::<_, Bytes>(&into)).map_err(failed)?;
    pump(rows_out, sink, &shared.progress, &shared.limiter).await.map_err(failed)
}

/// Pipes rows from one side to the other, and says how many there were, in how many bytes. They come one by one and are
/// sent in pieces: each piece costs a turn of ours, a call of the system's and a message of the server's.
pub(crate) async fn pump(
    rows_out: CopyOutStream,
    sink: CopyInSink<Bytes>,
    progress: &Progress,
    limiter: &Limiter,
) -> Result<(u64, u64), tokio_postgres::Error> {
    let mut rows_out = std::pin::pin!(rows_out);
    let mut sink = std::pin::pin!(sink);
    let mut piece = BytesMut::with_capacity(PIECE);
    let mut bytes = 0;
    loop {
        let row = rows_out.try_next().await?;
        let full = row.as_ref().is_none_or(|row| piece.len() + row.len() > PIECE);
        if full && !piece.is_empty() {
            let size = piece.len() as u64;
            limiter.take(size).await;
            progress.add_bytes(size);
            bytes += size;
            sink.feed(piece.split().freeze()).await?;
            piece.reserve(PIECE);
        }
        let Some(row) = row else { return Ok((sink.finish().await?, bytes)) };
        piece.extend_from_slice(&row);
    }
}

async fn truncate(target: &Transaction<'_>, tables: &[&Table]) -> Result<(), tokio_postgres::Error> {
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.name.quoted())).collect();
    target.batch_execute(&format!("SET LOCAL lock_timeout = 0; TRUNCATE {}", names.join(", "))).await
}

/// Ends what [`take_up`] began.
pub(super) async fn leave(source: &Client, doing: &str) -> PgResult<()> {
    source.batch_execute("COMMIT").await.map_err(|error| PgError::sql(format!("{doing}: leaving the snapshot"), error))
}

/// Takes up the snapshot, and says how it sees the tables.
async fn begin_reading(shared: &Shared, source: &Client, tables: &[&Table]) -> PgResult<HashMap<u32, Definition>> {
    let doing = copying(tables.iter().copied());
    take_up(source, &shared.kept.names(), Some(&shared.kept.visible), &doing).await?;
    Definition::read(source, tables).await
}

/// Whether tables' rows lie where they lay when the snapshot was taken.
#[derive(PartialEq, Eq)]
enum Pages {
    Same,
    Others,
}

/// Leaves the snapshot. A table that was altered since it was taken is an error.
async fn end_reading(source: &Client, tables: &[&Table], seen: &HashMap<u32, Definition>) -> PgResult<Pages> {
    leave(source, &copying(tables.iter().copied())).await?;
    let now = Definition::read(source, tables).await?;
    let mut pages = Pages::Same;
    for table in tables {
        match (seen.get(&table.oid), now.get(&table.oid)) {
            // No file number comes twice, so what is the same now was the same all along.
            (Some(seen), Some(now)) if seen.file == now.file => {}
            (Some(seen), Some(now)) if seen.columns == now.columns => pages = Pages::Others,
            _ => {
                let doing = copying([*table]);
                let what = format!("{doing}: it was altered meanwhile, which hides its rows from the snapshot; copy anew");
                return Err(PgError::Mismatch(what));
            }
        }
    }
    Ok(pages)
}

fn copying<'a>(tables: impl IntoIterator<Item = &'a Table>) -> String {
    let mut tables = tables.into_iter();
    let first = tables.next().map(|table| table.name.to_string()).unwrap_or_default();
    match tables.count() {
        0 => format!("copying {first}"),
        others => format!("copying {first} and {others} other small tables"),
    }
}

/// What tells that a table was rewritten by ALTER TABLE: that makes a table look empty to an older snapshot. TRUNCATE
/// does so too, but it comes through the stream; VACUUM FULL and CLUSTER keep rows visible.
struct Definition {
    file: u32,
    /// The access method, and the version of each column's definition.
    columns: String,
}

/// The access method, and the version of each column's definition.
const COLUMNS: &str = "c.relam || ' ' || COALESCE((SELECT pg_catalog.string_agg(a.attnum || '/' || a.xmin::text, ' ' ORDER BY a.attnum) \
     FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), '')";

impl Definition {
    /// Of each table, by its OID.
    async fn read(source: &Client, tables: &[&Table]) -> PgResult<HashMap<u32, Self>> {
        let sql = format!("SELECT c.oid, c.relfilenode, {COLUMNS} FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)");
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let failed = |error| PgError::sql(format!("{}: reading definitions", copying(tables.iter().copied())), error);
        let rows = source.query(&sql, &[&oids]).await.map_err(failed)?;
        Ok(rows.iter().map(|row| (row.get(0), Self { file: row.get(1), columns: row.get(2) })).collect())
    }
}

/// The names and columns of tables, as this session sees them, so that two looks at them can be compared.
pub(super) async fn definitions(source: &Client, oids: &[u32]) -> PgResult<HashMap<u32, String>> {
    let sql = format!(
        "SELECT c.oid, pg_catalog.concat_ws(' ', c.relnamespace, c.relname, {COLUMNS}) FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)"
    );
    let rows = source.query(&sql, &[&oids]).await.map_err(|error| PgError::sql("reading the tables' definitions", error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub(crate) fn column_list(table: &Table) -> String {
    table.stored_columns().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ")
}

/// A table without columns has no list.
pub(crate) fn parenthesised(columns: &str) -> String {
    if columns.is_empty() { String::new() } else { format!(" ({columns})") }
}

/// The binary form of a composite or array holds the OIDs of its types, and a `reg…` value is an OID itself: both differ
/// between two databases. An empty `oidvector` or `int2vector` is refused in its own binary form. Everything else of the
/// server's own, and enums, which travel by name, are the same everywhere.
fn fits_binary(table: &Table) -> bool {
    const AS_TEXT: [&str; 16] = [
        "regclass",
        "regproc",
        "regprocedure",
        "regoper",
        "regoperator",
        "regtype",
        "regrole",
        "regnamespace",
        "regconfig",
        "regdictionary",
        "regcollation",
        "regdatabase",
        "aclitem",
        "oid",
        "oidvector",
        "int2vector",
    ];
    table.stored_columns().all(|column: &Column| {
        let enumeration = column.type_kind == "e" && !column.type_name.ends_with("[]");
        let own = column.builtin && matches!(column.type_kind.as_str(), "b" | "r" | "m");
        (own || enumeration) && !AS_TEXT.contains(&column.type_name.trim_end_matches("[]"))
    })
}
