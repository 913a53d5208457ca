-- What the system of shadow tables keeps, in its final state. An installation that is older comes to the same by upgrades/.
--
-- Only functions of this schema write here, and each says what a caller may do: see grants.sql.

-- Which version is installed.
CREATE TABLE cutover.sql_installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version integer NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    upgraded_at timestamptz
);

-- A table and its shadow.
CREATE TABLE cutover.shadow_table (
    -- As callers say it: without `public`, else with its schema.
    table_name text PRIMARY KEY,
    primary_table regclass NOT NULL UNIQUE,
    shadow_table regclass NOT NULL UNIQUE,
    -- The primary key, and the columns of the shadow that are the same, in the same order.
    key_columns text[] NOT NULL,
    shadow_key_columns text[] NOT NULL,
    -- What each column of the shadow is made of, in words of the primary: {"column": "expression"}.
    up jsonb NOT NULL,
    -- What each column of the primary is made of, in words of the shadow.
    down jsonb NOT NULL,
    -- The owner's functions that hold these words: nobody else's rights are lent to them. Text, since pg_upgrade takes no regprocedure.
    refresh_function text NOT NULL,
    next_keys_function text NOT NULL,
    compare_function text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by text NOT NULL,
    -- While it is completed: the view that has the name of the shadow, and shows the new table to whoever still reads it there.
    stand_in regclass,
    -- What hung on the shadow before it was completed, as catalogue:oid: it is left alone on the way back.
    own_objects text[] NOT NULL DEFAULT '{}'
);

-- Which table is the new one: as long as it has the table's name, the new shape is in charge. Stays when a completed pair is
-- dropped, since applications go on asking.
CREATE TABLE cutover.new_table (
    table_name text PRIMARY KEY,
    relation regclass NOT NULL
);

-- Parts of statements about a pair: see cutover.shadow_text().
CREATE TYPE cutover.shadow_text AS (
    schema text,
    -- Of each function that is made of them.
    settings text,
    -- That a row `t` of the primary, or of the shadow, is the one of a key `k.cutover_key`.
    is_key text,
    is_shadow_key text,
    -- The key of a row `t` as text, and as it is; and the key `p_after` as it is.
    key_text text,
    shadow_key_text text,
    key text,
    after text,
    -- That rows have the same key: `p` of the primary and `t` of the shadow; and `p` and `s`, both in columns of the shadow.
    same_key text,
    match text,
    -- What stands in front of the rows that are brought to the shadow, and behind them.
    upsert text,
    on_conflict text,
    -- The columns that are brought, and what they are made of, as a column of the shadow would hold it.
    shadow_columns text,
    row_words text
);

-- Whether what is written to a table is written to its shadow as well.
CREATE TABLE cutover.dual_write_config (
    table_name text PRIMARY KEY REFERENCES cutover.shadow_table ON DELETE CASCADE,
    enabled boolean NOT NULL DEFAULT false,
    -- sync: in the writer's own transaction. async: the key is queued there, and the row is brought after it.
    sync_mode text NOT NULL DEFAULT 'sync' CHECK (sync_mode IN ('sync', 'async')),
    -- More failures than this since it was enabled are unhealthy.
    max_failures integer NOT NULL DEFAULT 3 CHECK (max_failures >= 0),
    emergency_stop boolean NOT NULL DEFAULT false,
    -- Since when nothing that was written was missed; a backfill that began before is not complete.
    enabled_at timestamptz,
    -- How far the backfill has come: the last key, none before the first and after the last.
    backfill_after jsonb,
    -- The last key there was when it began: what came later was written twice.
    backfill_until jsonb,
    backfill_rows bigint NOT NULL DEFAULT 0,
    backfill_began_at timestamptz,
    backfilled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_by text NOT NULL
);

-- Keys whose row in the shadow may be another than in the primary. Whoever drains it reads the row as it is now.
CREATE TABLE cutover.dirty_key (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL REFERENCES cutover.shadow_table ON DELETE CASCADE,
    -- The values of the key as text, in its order.
    key jsonb NOT NULL,
    why text NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX dirty_key_by_table ON cutover.dirty_key (table_name, id);
CREATE INDEX dirty_key_by_key ON cutover.dirty_key (table_name, key);

-- One row for each statement that was written twice. It is measurement, and may be lost in a crash: what must not be is in dirty_key.
CREATE UNLOGGED TABLE cutover.dual_write_stats (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    operation text NOT NULL,
    success boolean NOT NULL,
    duration_ms double precision NOT NULL,
    error_message text,
    "timestamp" timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX dual_write_stats_by_time ON cutover.dual_write_stats ("timestamp", table_name);

-- What was decided, by whom and why. Each entry's hash covers the one before: none can be changed or taken out unseen.
CREATE TABLE cutover.audit_log (
    seq bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    -- Where the session came from, and what it called itself.
    client text NOT NULL,
    action text NOT NULL,
    table_name text,
    reason text,
    detail jsonb NOT NULL,
    previous_hash text NOT NULL,
    hash text NOT NULL
);

-- Where a table stands on its way.
CREATE TYPE cutover.cutover_stage AS ENUM ('disabled', 'dual_write', 'test_1', 'test_10', 'half_50', 'full_100', 'completed');

-- The ladders: which stages there are, in which order, and what share of reads each sends to the shadow. Own ones are rows.
CREATE TABLE cutover.ladder_rung (
    ladder text NOT NULL,
    place integer NOT NULL CHECK (place >= 0),
    stage cutover.cutover_stage NOT NULL,
    -- Unit: percent.
    read_percentage numeric(5, 2) NOT NULL CHECK (read_percentage BETWEEN 0 AND 100),
    -- How long the documents would stay.
    recommended_dwell interval NOT NULL DEFAULT '0',
    PRIMARY KEY (ladder, place),
    UNIQUE (ladder, stage)
);

-- Where each table stands, and where its reads go.
CREATE TABLE cutover.traffic_routing_config (
    table_name text PRIMARY KEY REFERENCES cutover.shadow_table ON DELETE CASCADE,
    ladder text NOT NULL DEFAULT 'default',
    cutover_stage cutover.cutover_stage NOT NULL DEFAULT 'disabled',
    -- Unit: percent.
    read_percentage numeric(5, 2) NOT NULL DEFAULT 0 CHECK (read_percentage BETWEEN 0 AND 100),
    -- Grows with each change: of two who change it from the same one, one is refused.
    epoch bigint NOT NULL DEFAULT 0,
    -- What sets this table's buckets apart from another's.
    salt text NOT NULL,
    -- Where it is unhealthy, reads go to the primary whatever the stage says.
    health_status text NOT NULL DEFAULT 'unknown' CHECK (health_status IN ('healthy', 'unhealthy', 'unknown')),
    last_health_check timestamptz,
    stage_started_at timestamptz,
    stage_duration_target_minutes integer NOT NULL DEFAULT 60 CHECK (stage_duration_target_minutes >= 0),
    next_stage_eligible_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_by text NOT NULL,
    notes text
);
