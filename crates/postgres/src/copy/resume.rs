//! Whether a copy that was broken off can be gone on with. Anything that doesn't fit means that it begins anew.

use std::collections::HashMap;

use cutover_core::Stream;
use tokio_postgres::Client;

use super::{
    Job,
    keeper::take_up,
    ledger::{self, Entry, Record},
    table::{definitions, leave},
};
use crate::{
    PgError, PgResult,
    catalogue::{self, Table},
    names::Names,
};

/// What is known of an earlier copy.
pub(super) enum Earlier {
    /// There was none, or none that copied a row.
    None,
    /// It does not fit what is there now; this is why.
    Unfit(String),
    /// It can be gone on with. The tables of what is left, by their OID, as the snapshot sees them.
    Fits(Record, HashMap<u32, Table>),
}

/// Looks for an earlier copy, and whether everything is still as it was.
pub(super) async fn look(job: &Job<'_>, origin: &Client, target: &Client) -> PgResult<Earlier> {
    let Some(record) = ledger::read(target).await? else { return Ok(Earlier::None) };
    if let Some(why) = changed(job.names, &record, origin, target).await? {
        return Ok(Earlier::Unfit(why));
    }
    let left: Vec<&Entry> = record.entries.iter().filter(|entry| !entry.done).collect();
    if left.is_empty() {
        return Ok(Earlier::Fits(record, HashMap::new()));
    }
    match tables_left(&record, &left, origin).await {
        Ok(Ok(tables)) => Ok(Earlier::Fits(record, tables)),
        Ok(Err(why)) => Ok(Earlier::Unfit(why)),
        Err(PgError::SnapshotLost(_)) => Ok(Earlier::Unfit(
            "its snapshot is gone: the source was restarted, or nobody copied for longer than the plan's `resume_within`".to_owned(),
        )),
        Err(error) => Err(error),
    }
}

/// What is not as it was, of everything but the rows.
async fn changed(names: &Names, record: &Record, origin: &Client, target: &Client) -> PgResult<Option<String>> {
    let slot = names.slot(Stream::Forward);
    let sql = "SELECT confirmed_flush_lsn::text, COALESCE(wal_status = 'lost', false) FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = $1 AND database = pg_catalog.current_database() AND plugin = 'pgoutput'";
    let row = origin.query_opt(sql, &[&slot]).await.map_err(|error| PgError::sql("looking for the slot", error))?;
    Ok(match row.map(|row| (row.get::<_, Option<String>>(0).unwrap_or_default(), row.get::<_, bool>(1))) {
        None => Some(format!("the slot {slot} is gone")),
        Some((_, true)) => Some(format!("the slot {slot} is lost: its log was removed")),
        Some((at, false)) if record.slot != slot || at != record.lsn => {
            Some(format!("the slot {slot} is at {at}, the rows are those of {}", record.lsn))
        }
        Some(_) if publication(origin, names).await? != record.publication => {
            Some("the publication was changed, because tables were made or dropped".to_owned())
        }
        Some(_) => ledger::replaced_table(target).await?.map(|table| format!("the target's table {table} is another now")),
    })
}

/// The tables of what is left as the snapshot sees them; or why they can't be copied from it any more.
async fn tables_left(record: &Record, left: &[&Entry], origin: &Client) -> PgResult<Result<HashMap<u32, Table>, String>> {
    let doing = "looking what is left to copy";
    let oids: Vec<u32> = left.iter().map(|entry| entry.source_oid).collect();
    take_up(origin, &record.snapshots, Some(&record.visible), doing).await?;
    let tables: HashMap<u32, Table> = catalogue::tables(origin).await?.into_iter().map(|table| (table.oid, table)).collect();
    let seen = definitions(origin, &oids).await?;
    leave(origin, doing).await?;
    let now = definitions(origin, &oids).await?;
    let altered = left.iter().find(|entry| {
        let known = tables.get(&entry.source_oid).is_some_and(|table| table.name.quoted() == entry.relation);
        !known || seen.get(&entry.source_oid) != now.get(&entry.source_oid)
    });
    Ok(match altered {
        Some(entry) => Err(format!("{} was altered or dropped at the source", entry.relation)),
        None => Ok(tables),
    })
}

/// What the publication is made of: each table by the number of its entry, which is another when it was taken out and
/// put in again, so that changes between were not sent.
pub(super) async fn publication(origin: &Client, names: &Names) -> PgResult<String> {
    let sql = "SELECT pg_catalog.md5(pg_catalog.concat_ws(' ', p.oid, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot, \
             (SELECT pg_catalog.string_agg(r.oid::text, ' ' ORDER BY r.oid) FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid))) \
         FROM pg_catalog.pg_publication p WHERE p.pubname = $1";
    let row = origin.query_opt(sql, &[&names.publication(Stream::Forward)]).await;
    let row = row.map_err(|error| PgError::sql("reading the publication", error))?;
    Ok(row.map(|row| row.get(0)).unwrap_or_default())
}
