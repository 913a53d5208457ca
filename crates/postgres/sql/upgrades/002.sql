-- Version 2: the ladder, and where reads go. ../tables.sql says what each is for.

DO $$ BEGIN
    IF to_regtype('cutover.cutover_stage') IS NULL THEN
        CREATE TYPE cutover.cutover_stage AS ENUM ('disabled', 'dual_write', 'test_1', 'test_10', 'half_50', 'full_100', 'completed');
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS cutover.ladder_rung (
    ladder text NOT NULL,
    place integer NOT NULL CHECK (place >= 0),
    stage cutover.cutover_stage NOT NULL,
    read_percentage numeric(5, 2) NOT NULL CHECK (read_percentage BETWEEN 0 AND 100),
    recommended_dwell interval NOT NULL DEFAULT '0',
    PRIMARY KEY (ladder, place),
    UNIQUE (ladder, stage)
);
INSERT INTO cutover.ladder_rung (ladder, place, stage, read_percentage, recommended_dwell)
VALUES ('default', 0, 'disabled', 0, '0'), ('default', 1, 'dual_write', 0, '24 hours'), ('default', 2, 'test_1', 1, '12 hours'),
       ('default', 3, 'test_10', 10, '6 hours'), ('default', 4, 'half_50', 50, '4 hours'), ('default', 5, 'full_100', 100, '2 hours'),
       ('default', 6, 'completed', 100, '0')
ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS cutover.traffic_routing_config (
    table_name text PRIMARY KEY REFERENCES cutover.shadow_table ON DELETE CASCADE,
    ladder text NOT NULL DEFAULT 'default',
    cutover_stage cutover.cutover_stage NOT NULL DEFAULT 'disabled',
    read_percentage numeric(5, 2) NOT NULL DEFAULT 0 CHECK (read_percentage BETWEEN 0 AND 100),
    epoch bigint NOT NULL DEFAULT 0,
    salt text NOT NULL,
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
