-- What a copy has done, kept at the target, so that one that was broken off goes on where it stood. Made when a copy
-- begins. A task is marked done in the transaction that brings its rows: there is no moment at which the two differ.

-- The snapshot that all rows come from, and what it belongs to.
CREATE TABLE IF NOT EXISTS cutover.copy (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    slot text NOT NULL,
    -- Where the slot begins. The snapshot is that of exactly this position.
    lsn pg_catalog.pg_lsn NOT NULL,
    -- What the snapshot sees, as pg_current_snapshot() spells it. Its names may come again after a restart, this never.
    visible text NOT NULL,
    -- The names under which the source keeps it.
    snapshots text[] NOT NULL,
    -- What the publication was made of.
    publication text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz
);

-- Tables and parts of tables, in the order in which they are handed out. A table that is copied whole has no condition.
CREATE TABLE IF NOT EXISTS cutover.copy_task (
    id integer PRIMARY KEY,
    relation text NOT NULL,
    source_oid oid NOT NULL,
    -- 0 where the target has no such table.
    target_oid oid NOT NULL,
    -- Which rows are in a part.
    condition text,
    expected_bytes bigint NOT NULL,
    -- Of the first part of a table: whether the table was emptied for all of them.
    emptied boolean NOT NULL DEFAULT false,
    done boolean NOT NULL DEFAULT false,
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
);
