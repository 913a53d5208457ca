-- Version 3: what applications record, how each table does, and by which limits that is judged. ../tables.sql says what each is for.

ALTER TABLE cutover.sql_installation ADD COLUMN IF NOT EXISTS metrics_retention interval NOT NULL DEFAULT '30 days';
ALTER TABLE cutover.dual_write_config
    ADD COLUMN IF NOT EXISTS failure_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_failure_at timestamptz,
    ADD COLUMN IF NOT EXISTS last_failure text;
ALTER TABLE cutover.traffic_routing_config
    ADD COLUMN IF NOT EXISTS write_shadow_enabled boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS max_error_rate_percent numeric NOT NULL DEFAULT 1.0,
    ADD COLUMN IF NOT EXISTS max_latency_increase_percent numeric NOT NULL DEFAULT 20.0,
    ADD COLUMN IF NOT EXISTS min_validation_score numeric NOT NULL DEFAULT 99.0,
    ADD COLUMN IF NOT EXISTS alert_error_rate_percent numeric NOT NULL DEFAULT 1.0,
    ADD COLUMN IF NOT EXISTS alert_latency_increase_percent numeric NOT NULL DEFAULT 20.0,
    ADD COLUMN IF NOT EXISTS alert_validation_score numeric NOT NULL DEFAULT 99.0,
    ADD COLUMN IF NOT EXISTS advance_error_rate_percent numeric NOT NULL DEFAULT 0.1,
    ADD COLUMN IF NOT EXISTS advance_latency_increase_percent numeric NOT NULL DEFAULT 10.0,
    ADD COLUMN IF NOT EXISTS advance_validation_score numeric NOT NULL DEFAULT 99.5,
    ADD COLUMN IF NOT EXISTS severe_factor numeric NOT NULL DEFAULT 5,
    ADD COLUMN IF NOT EXISTS health_window_minutes integer NOT NULL DEFAULT 15,
    ADD COLUMN IF NOT EXISTS health_sample_rows integer NOT NULL DEFAULT 1000,
    ADD COLUMN IF NOT EXISTS min_samples integer NOT NULL DEFAULT 100,
    ADD COLUMN IF NOT EXISTS max_consecutive_failures integer NOT NULL DEFAULT 3,
    ADD COLUMN IF NOT EXISTS consecutive_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS auto_rollback_enabled boolean NOT NULL DEFAULT true,
    ADD COLUMN IF NOT EXISTS auto_advance_enabled boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS cutover_order integer,
    ADD COLUMN IF NOT EXISTS baseline jsonb NOT NULL DEFAULT '{}';
ALTER TABLE cutover.traffic_routing_config ALTER COLUMN stage_duration_target_minutes DROP NOT NULL;
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = 'traffic_routing_limits' AND c.conrelid = 'cutover.traffic_routing_config'::regclass) THEN
        ALTER TABLE cutover.traffic_routing_config
            DROP CONSTRAINT traffic_routing_config_health_status_check,
            ADD CONSTRAINT traffic_routing_config_health_status_check CHECK (health_status IN ('healthy', 'degraded', 'unhealthy', 'unknown')),
            ADD CONSTRAINT traffic_routing_limits CHECK (
                advance_error_rate_percent BETWEEN 0 AND alert_error_rate_percent AND max_error_rate_percent BETWEEN alert_error_rate_percent AND 100
                AND advance_latency_increase_percent BETWEEN 0 AND alert_latency_increase_percent AND max_latency_increase_percent >= alert_latency_increase_percent
                AND advance_validation_score BETWEEN alert_validation_score AND 100 AND min_validation_score BETWEEN 0 AND alert_validation_score),
            ADD CONSTRAINT traffic_routing_watch CHECK (
                severe_factor >= 1 AND health_window_minutes BETWEEN 1 AND 1440 AND health_sample_rows BETWEEN 1 AND 1000000
                AND min_samples >= 1 AND max_consecutive_failures >= 0 AND consecutive_failures >= 0);
    END IF;
END $$;
INSERT INTO cutover.traffic_routing_config (table_name, salt, updated_by)
SELECT s.table_name, current_database() || '.' || s.table_name, session_user FROM cutover.shadow_table s ON CONFLICT DO NOTHING;
UPDATE cutover.traffic_routing_config r SET write_shadow_enabled = c.enabled
  FROM cutover.dual_write_config c WHERE c.table_name = r.table_name AND r.write_shadow_enabled <> c.enabled;

CREATE UNLOGGED TABLE IF NOT EXISTS cutover.operation_sample (
    table_name text NOT NULL,
    epoch bigint NOT NULL,
    cutover_stage cutover.cutover_stage NOT NULL,
    operation_type text NOT NULL,
    used_shadow boolean NOT NULL,
    success boolean NOT NULL,
    latency_ms integer NOT NULL CHECK (latency_ms >= 0),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX IF NOT EXISTS operation_sample_by_time ON cutover.operation_sample (table_name, at);
CREATE TABLE IF NOT EXISTS cutover.cutover_performance_metrics (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    epoch bigint NOT NULL,
    cutover_stage cutover.cutover_stage NOT NULL,
    operation_type text NOT NULL,
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
    data_consistency_score numeric,
    measurement_period_start timestamptz NOT NULL,
    measurement_period_end timestamptz NOT NULL,
    latencies_ms double precision[] NOT NULL,
    latency_counts bigint[] NOT NULL,
    errors text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS cutover_performance_metrics_by_table ON cutover.cutover_performance_metrics (table_name, measurement_period_end);
CREATE INDEX IF NOT EXISTS cutover_performance_metrics_by_time ON cutover.cutover_performance_metrics (measurement_period_end);
CREATE TABLE IF NOT EXISTS cutover.health_check (
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
CREATE INDEX IF NOT EXISTS health_check_by_table ON cutover.health_check (table_name, at);
DO $$ BEGIN
    IF to_regtype('cutover.health_measure') IS NULL THEN
        CREATE TYPE cutover.health_measure AS (
            error_rate_percent numeric,
            latency_increase_percent numeric,
            validation_score numeric,
            samples bigint,
            last_sample_at timestamptz,
            watched_since timestamptz,
            baseline jsonb,
            unknown text[],
            breaches text[],
            alerts text[],
            holds text[],
            severe boolean
        );
    END IF;
END $$;
