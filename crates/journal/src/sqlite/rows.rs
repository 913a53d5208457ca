//! The servers' rows, on a thread that may block.

use rusqlite::{Connection, params};

use super::connection;
use super::store::{Slot, Store, cant};
use crate::error::JournalError;
use crate::roster::{self, Draft, Row, Stored};

impl Store {
    /// Writes over the server's row, if there is one that allows leases as long. With a connection that does not sync:
    /// see [`connection::open_quick`].
    pub(super) fn update_row(&self, slot: &mut Slot, draft: &Draft) -> Result<bool, JournalError> {
        let sql = "UPDATE server SET beat = ?3, lease_ms = ?4, body = ?5, written_at_ms = ?6 \
                   WHERE plan = ?1 AND server = ?2 AND lease_ms >= ?4";
        Ok(self.put(self.quick(slot)?, sql, draft)? > 0)
    }

    /// Puts a row down for good, and clears away those of long ago.
    pub(super) fn insert_row(&self, slot: &mut Slot, draft: &Draft) -> Result<(), JournalError> {
        let sql = "INSERT INTO server (plan, server, beat, lease_ms, body, written_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                   ON CONFLICT (plan, server) DO UPDATE SET beat = excluded.beat, lease_ms = excluded.lease_ms, \
                   body = excluded.body, written_at_ms = excluded.written_at_ms";
        let connection = self.connected(slot)?;
        self.put(connection, sql, draft)?;
        let clear = "DELETE FROM server WHERE plan = ?1 AND written_at_ms < ?2";
        let stale = params![self.plan(), roster::stale_before_ms(roster::now_ms())];
        connection.execute(clear, stale).map_err(cant("clear away old rows of servers"))?;
        Ok(())
    }

    pub(super) fn rows(&self, slot: &mut Slot) -> Result<Vec<Row>, JournalError> {
        let doing = "read the servers' rows";
        let sql = "SELECT server, beat, lease_ms, body, written_at_ms FROM server WHERE plan = ?1 ORDER BY server";
        let mut statement = self.quick(slot)?.prepare_cached(sql).map_err(cant(doing))?;
        let stored = statement.query_map([self.plan()], |row| {
            let (server, beat, lease_ms, body_text) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Stored { server, beat, lease_ms, body_text, written_at_ms: row.get(4)? })
        });
        stored.map_err(cant(doing))?.map(|row| row.map_err(cant(doing))?.into_row()).collect()
    }

    pub(super) fn remove_row(&self, slot: &mut Slot, server: &str) -> Result<(), JournalError> {
        let removed = self.quick(slot)?.execute("DELETE FROM server WHERE plan = ?1 AND server = ?2", params![self.plan(), server]);
        removed.map(drop).map_err(cant("remove the server's row"))
    }

    fn put(&self, connection: &Connection, sql: &str, draft: &Draft) -> Result<usize, JournalError> {
        let values = params![self.plan(), draft.server, draft.beat, draft.lease_ms, draft.body_text, roster::now_ms()];
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(cant("write the server's row"))
    }

    fn quick<'a>(&self, slot: &'a mut Slot) -> Result<&'a mut Connection, JournalError> {
        self.connected_by(slot, connection::open_quick)
    }
}
