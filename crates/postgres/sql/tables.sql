-- What the system of shadow tables keeps, in its final state. An installation that is older comes to the same by upgrades/.
--
-- Only functions of this schema write here, and each says what a caller may do: see grants.sql.

-- Which version is installed.
CREATE TABLE cutover.sql_installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version integer NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    upgraded_at timestamptz,
    -- How long measurements are kept.
    metrics_retention interval NOT NULL DEFAULT '30 days'
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
    -- More failures than this within the window that is looked at are unhealthy.
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
    updated_by text NOT NULL,
    -- Statements whose second write failed since it was enabled, as far as they are rolled up.
    failure_count bigint NOT NULL DEFAULT 0,
    last_failure_at timestamptz,
    last_failure text
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

-- One row for each statement that was written twice. It is measurement, and may be lost in a crash: what must not be is in dirty_key.
CREATE UNLOGGED TABLE cutover.dual_write_stats (
    table_name text NOT NULL,
    operation text NOT NULL,
    success boolean NOT NULL,
    duration_ms double precision NOT NULL,
    error_message text,
    "timestamp" timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX dual_write_stats_by_time ON cutover.dual_write_stats ("timestamp", table_name);

-- What was decided, by whom and why. Each entry's hash covers the one before about the same table: none can be changed or taken out unseen.
CREATE TABLE cutover.audit_log (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
CREATE INDEX audit_log_by_table ON cutover.audit_log (table_name, seq);

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
    health_status text NOT NULL DEFAULT 'unknown' CHECK (health_status IN ('healthy', 'degraded', 'unhealthy', 'unknown')),
    last_health_check timestamptz,
    stage_started_at timestamptz,
    -- None: as long as its ladder's stage recommends.
    stage_duration_target_minutes integer DEFAULT 60 CHECK (stage_duration_target_minutes >= 0),
    next_stage_eligible_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_by text NOT NULL,
    notes text,
    -- Whether what is written to the table is written to its shadow: as dual_write_config says, beside what it means for reads.
    write_shadow_enabled boolean NOT NULL DEFAULT false,
    -- Beyond these, again and again or by far, reads go back to the primary.
    max_error_rate_percent numeric NOT NULL DEFAULT 1.0,
    max_latency_increase_percent numeric NOT NULL DEFAULT 20.0,
    min_validation_score numeric NOT NULL DEFAULT 99.0,
    -- Beyond these somebody is told.
    alert_error_rate_percent numeric NOT NULL DEFAULT 1.0,
    alert_latency_increase_percent numeric NOT NULL DEFAULT 20.0,
    alert_validation_score numeric NOT NULL DEFAULT 99.0,
    -- Only within these is the next step taken.
    advance_error_rate_percent numeric NOT NULL DEFAULT 0.1,
    advance_latency_increase_percent numeric NOT NULL DEFAULT 10.0,
    advance_validation_score numeric NOT NULL DEFAULT 99.5,
    -- So many times beyond a limit is beyond it by far.
    severe_factor numeric NOT NULL DEFAULT 5,
    -- What is judged, and the longest time without a sample that is not a gap.
    health_window_minutes integer NOT NULL DEFAULT 15,
    -- About so many rows a health check compares.
    health_sample_rows integer NOT NULL DEFAULT 1000,
    -- Fewer operations say nothing.
    min_samples integer NOT NULL DEFAULT 100,
    -- More failed checks than this in a row are unhealthy.
    max_consecutive_failures integer NOT NULL DEFAULT 3,
    consecutive_failures integer NOT NULL DEFAULT 0,
    auto_rollback_enabled boolean NOT NULL DEFAULT true,
    auto_advance_enabled boolean NOT NULL DEFAULT false,
    -- Lower ones go first; where nobody says it, what others refer to, and then what is small.
    cutover_order integer,
    -- The primary's p95 by operation, as last measured with enough samples: {"read": 12}. Unit: milliseconds.
    baseline jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT traffic_routing_limits CHECK (
        advance_error_rate_percent BETWEEN 0 AND alert_error_rate_percent AND max_error_rate_percent BETWEEN alert_error_rate_percent AND 100
        AND advance_latency_increase_percent BETWEEN 0 AND alert_latency_increase_percent AND max_latency_increase_percent >= alert_latency_increase_percent
        AND advance_validation_score BETWEEN alert_validation_score AND 100 AND min_validation_score BETWEEN 0 AND alert_validation_score),
    CONSTRAINT traffic_routing_watch CHECK (
        severe_factor >= 1 AND health_window_minutes BETWEEN 1 AND 1440 AND health_sample_rows BETWEEN 1 AND 1000000
        AND min_samples >= 1 AND max_consecutive_failures >= 0 AND consecutive_failures >= 0)
);

-- One row for each operation that an application recorded, until it is rolled up. Measurement, as dual_write_stats is.
CREATE UNLOGGED TABLE cutover.operation_sample (
    table_name text NOT NULL,
    epoch bigint NOT NULL,
    cutover_stage cutover.cutover_stage NOT NULL,
    operation_type text NOT NULL,
    used_shadow boolean NOT NULL,
    success boolean NOT NULL,
    latency_ms integer NOT NULL CHECK (latency_ms >= 0),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX operation_sample_by_time ON cutover.operation_sample (table_name, at);

-- Operations rolled up: of one minute, kind and store, though several rows may be about the same minute. Nothing is lost by it but
-- the order: every latency that occurred is there with how often, so percentiles of any time are true ones.
CREATE TABLE cutover.cutover_performance_metrics (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    epoch bigint NOT NULL,
    cutover_stage cutover.cutover_stage NOT NULL,
    operation_type text NOT NULL,
    -- Who did it: the primary or the shadow, as applications recorded; or a trigger, that wrote a statement to both.
    store text NOT NULL CHECK (store IN ('primary', 'shadow', 'dual_write')),
    total_operations bigint NOT NULL,
    successful_operations bigint NOT NULL,
    failed_operations bigint NOT NULL,
    avg_latency_ms double precision NOT NULL,
    p50_latency_ms double precision NOT NULL,
    p95_latency_ms double precision NOT NULL,
    p99_latency_ms double precision NOT NULL,
    max_latency_ms double precision NOT NULL,
    operations_per_second double precision NOT NULL,
    -- As last measured before this was rolled up.
    data_consistency_score numeric,
    -- The first and the last of them.
    measurement_period_start timestamptz NOT NULL,
    measurement_period_end timestamptz NOT NULL,
    latencies_ms double precision[] NOT NULL,
    latency_counts bigint[] NOT NULL,
    -- Some of what went wrong.
    errors text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX cutover_performance_metrics_by_table ON cutover.cutover_performance_metrics (table_name, measurement_period_end);
CREATE INDEX cutover_performance_metrics_by_time ON cutover.cutover_performance_metrics (measurement_period_end);

-- What each check of a table's health found.
CREATE TABLE cutover.health_check (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL REFERENCES cutover.shadow_table ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    epoch bigint NOT NULL,
    cutover_stage cutover.cutover_stage NOT NULL,
    overall_health text NOT NULL,
    error_rate_percent numeric,
    latency_increase_percent numeric,
    validation_score numeric,
    samples bigint NOT NULL,
    consecutive_failures integer NOT NULL,
    breaches text[] NOT NULL,
    alerts text[] NOT NULL
);
CREATE INDEX health_check_by_table ON cutover.health_check (table_name, at);

-- How a table does, as measured just now: see cutover.measure_health().
CREATE TYPE cutover.health_measure AS (
    -- The worse of what the shadow answered and of what was written to it. Unit: percent.
    error_rate_percent numeric,
    -- The shadow's p95 above the primary's, of the operation where it is most.
    latency_increase_percent numeric,
    validation_score numeric,
    samples bigint,
    last_sample_at timestamptz,
    -- Since when there was no gap in the samples.
    watched_since timestamptz,
    baseline jsonb,
    -- What could not be judged, is beyond the limits for going back, for telling somebody, and for going on.
    unknown text[],
    breaches text[],
    alerts text[],
    holds text[],
    -- One of the breaches is by far.
    severe boolean
);
