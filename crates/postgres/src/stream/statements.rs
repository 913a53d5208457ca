//! The statements that make, move and drop a stream, as they are run and as a plan shows them.

use cutover_core::Stream;

use crate::names::{Names, ident, literal};

/// Makes an empty publication.
#[must_use]
pub fn sql_publish(names: &Names, stream: Stream) -> String {
    format!(
        "CREATE PUBLICATION {} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)",
        ident(&names.publication(stream))
    )
}

/// Makes a slot.
#[must_use]
pub fn sql_create_slot(names: &Names, stream: Stream) -> String {
    format!("SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput')", literal(&names.slot(stream)))
}

/// Drops a slot if it is there.
#[must_use]
pub fn sql_drop_slot(names: &Names, stream: Stream) -> String {
    let slot = literal(&names.slot(stream));
    format!("SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}")
}

/// Makes a subscription, disabled, with every table of the publication in state `r`.
#[must_use]
pub fn sql_subscribe(names: &Names, stream: Stream, conninfo: &str) -> String {
    format!(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {} \
         WITH (connect = true, enabled = false, create_slot = false, slot_name = {}, copy_data = false)",
        ident(&names.subscription(stream)),
        literal(conninfo),
        ident(&names.publication(stream)),
        literal(&names.slot(stream))
    )
}

/// Lets a subscription run.
#[must_use]
pub fn sql_enable(names: &Names, stream: Stream) -> String {
    format!("ALTER SUBSCRIPTION {} ENABLE", ident(&names.subscription(stream)))
}

/// Stops a subscription.
#[must_use]
pub fn sql_disable(names: &Names, stream: Stream) -> String {
    format!("ALTER SUBSCRIPTION {} DISABLE", ident(&names.subscription(stream)))
}

/// Moves a slot past everything written so far.
#[must_use]
pub fn sql_advance(names: &Names, stream: Stream) -> String {
    let slot = literal(&names.slot(stream));
    format!(
        "SELECT a.end_lsn::text, w.lsn::text FROM (SELECT pg_catalog.pg_current_wal_flush_lsn() AS lsn) w \
         CROSS JOIN LATERAL pg_catalog.pg_replication_slot_advance({slot}, w.lsn) a"
    )
}
