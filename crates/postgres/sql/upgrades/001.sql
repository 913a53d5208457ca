-- Version 1: tables and their shadows, dual writes, the queue and the audit. ../tables.sql says what each is for.

CREATE TABLE IF NOT EXISTS cutover.sql_installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version integer NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    upgraded_at timestamptz
);
CREATE TABLE IF NOT EXISTS cutover.shadow_table (
    table_name text PRIMARY KEY,
    primary_table regclass NOT NULL UNIQUE,
    shadow_table regclass NOT NULL UNIQUE,
    key_columns text[] NOT NULL,
    shadow_key_columns text[] NOT NULL,
    up jsonb NOT NULL,
    down jsonb NOT NULL,
    refresh_function text NOT NULL,
    next_keys_function text NOT NULL,
    compare_function text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by text NOT NULL
);
DO $$ BEGIN
    IF to_regtype('cutover.shadow_text') IS NULL THEN
        CREATE TYPE cutover.shadow_text AS (
            schema text,
            settings text,
            is_key text,
            is_shadow_key text,
            key_text text,
            shadow_key_text text,
            key text,
            after text,
            same_key text,
            match text,
            upsert text,
            on_conflict text,
            shadow_columns text,
            row_words text
        );
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS cutover.dual_write_config (
    table_name text PRIMARY KEY REFERENCES cutover.shadow_table ON DELETE CASCADE,
    enabled boolean NOT NULL DEFAULT false,
    sync_mode text NOT NULL DEFAULT 'sync' CHECK (sync_mode IN ('sync', 'async')),
    max_failures integer NOT NULL DEFAULT 3 CHECK (max_failures >= 0),
    emergency_stop boolean NOT NULL DEFAULT false,
    enabled_at timestamptz,
    backfill_after jsonb,
    backfill_until jsonb,
    backfill_rows bigint NOT NULL DEFAULT 0,
    backfill_began_at timestamptz,
    backfilled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_by text NOT NULL
);
CREATE TABLE IF NOT EXISTS cutover.dirty_key (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL REFERENCES cutover.shadow_table ON DELETE CASCADE,
    key jsonb NOT NULL,
    why text NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX IF NOT EXISTS dirty_key_by_table ON cutover.dirty_key (table_name, id);
CREATE UNLOGGED TABLE IF NOT EXISTS cutover.dual_write_stats (
    table_name text NOT NULL,
    operation text NOT NULL,
    success boolean NOT NULL,
    duration_ms double precision NOT NULL,
    error_message text,
    "timestamp" timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX IF NOT EXISTS dual_write_stats_by_time ON cutover.dual_write_stats ("timestamp", table_name);
CREATE TABLE IF NOT EXISTS cutover.audit_log (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    client text NOT NULL,
    action text NOT NULL,
    table_name text,
    reason text,
    detail jsonb NOT NULL,
    previous_hash text NOT NULL,
    hash text NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_log_by_table ON cutover.audit_log (table_name, seq);
