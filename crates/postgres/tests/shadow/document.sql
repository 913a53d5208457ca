-- Every usage example of the document that shadow tables come from, word for word, with what has to come of it. In psql, as the owner of the tables; `postgres`
-- is somebody who can turn the clock back. The functions are found by their names alone: `cutover sql install --short-names`.
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned

CREATE FUNCTION public.refused(p_sql text, p_state text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE p_sql;
    RAISE EXCEPTION 'not refused: %', p_sql;
EXCEPTION WHEN OTHERS THEN
    ASSERT SQLSTATE = p_state, format('%s: %s %s', p_sql, SQLSTATE, SQLERRM);
END $$;

-- What an application does in a stage: writes, and 120 reads at both.
CREATE FUNCTION public.use_it(p_table text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..120 LOOP
        EXECUTE format('UPDATE %I SET note = ''seen'' WHERE id = %s', p_table, i);
    END LOOP;
    PERFORM record_cutover_operation(p_table, 'read', 40 + i % 5, TRUE, s) FROM generate_series(1, 120) i, (VALUES (TRUE), (FALSE)) AS s (s);
END $$;

-- The five tables of the document, and layers one and two: shadows and dual writes.
CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, note text);
CREATE TABLE sessions (id bigserial PRIMARY KEY, project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE, note text);
CREATE TABLE tasks (id bigserial PRIMARY KEY, project_id bigint REFERENCES projects, note text);
CREATE TABLE analytics_events (id bigserial PRIMARY KEY, kind text NOT NULL, at timestamptz NOT NULL DEFAULT now(), note text);
CREATE TABLE contexts (id bigserial PRIMARY KEY, session_id bigint REFERENCES sessions, note text);
INSERT INTO projects (name) SELECT 'project ' || i FROM generate_series(1, 200) i;
INSERT INTO sessions (project_id) SELECT i FROM generate_series(1, 200) i;
INSERT INTO tasks (project_id) SELECT i FROM generate_series(1, 200) i;
INSERT INTO analytics_events (kind) SELECT 'kind ' || i % 7 FROM generate_series(1, 300) i;
INSERT INTO contexts (session_id) SELECT i FROM generate_series(1, 200) i;
SELECT create_shadow_table(t), enable_dual_write(t) FROM unnest(ARRAY['projects', 'sessions', 'tasks', 'analytics_events', 'contexts']) t;
CALL backfill('projects');
CALL backfill('sessions');
CALL backfill('tasks');
CALL backfill('analytics_events');
CALL backfill('contexts');
DO $$ BEGIN
    ASSERT (SELECT count(*) = 5 AND bool_and(cutover_stage = 'disabled' AND read_percentage = 0) FROM traffic_routing_config), 'a row for each table';
    ASSERT (SELECT bool_and(verdict = 'same') FROM unnest(ARRAY['projects', 'sessions', 'tasks', 'analytics_events', 'contexts']) t, validate_table_consistency(t)), 'all are the same';
END $$;

\echo -- Recommended Cutover Order
SELECT configure_cutover(t, jsonb_build_object('cutover_order', place))
  FROM unnest(ARRAY['projects', 'sessions', 'tasks', 'analytics_events', 'contexts']) WITH ORDINALITY AS o (t, place);
DO $$ BEGIN
    ASSERT (SELECT array_agg(table_name ORDER BY place) = '{projects,sessions,tasks,analytics_events,contexts}' FROM recommended_order()), 'as configured';
END $$;

\echo -- Starting Production Cutover
-- 1. Start with most critical table first (lowest risk)
SELECT start_gradual_cutover('projects', 60); -- 60-minute stages

-- 2. Monitor status
SELECT * FROM get_cutover_status_dashboard() WHERE table_name = 'projects';
DO $$ BEGIN
    ASSERT (SELECT cutover_stage = 'dual_write' AND read_percentage = 0 AND next_eligible_in_minutes = 60 AND stage_duration_minutes = 0
              FROM get_cutover_status_dashboard() WHERE table_name = 'projects'), 'it has begun';
END $$;

-- 3. Advance when ready (after validation period)
SELECT refused('SELECT advance_cutover_stage(''projects'')', 'SC002'); -- Requires health checks
SELECT use_it('projects');
\connect - postgres
CREATE FUNCTION public.an_hour_passes() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
    UPDATE cutover.traffic_routing_config SET stage_started_at = stage_started_at - interval '61 minutes', next_stage_eligible_at = next_stage_eligible_at - interval '61 minutes',
        health_window_minutes = 120;
$$;
\connect - owner
SELECT an_hour_passes();
SELECT advance_cutover_stage('projects'); -- Requires health checks
DO $$ BEGIN
    ASSERT (SELECT cutover_stage = 'test_1' AND read_percentage = 1 FROM traffic_routing_config WHERE table_name = 'projects'), 'it is at test_1';
END $$;

-- 4. Continue through all stages: test_1 → test_10 → half_50 → full_100
SELECT an_hour_passes();
SELECT refused('SELECT advance_cutover_stage(''projects'')', 'SC005'); -- nothing was recorded
SELECT use_it('projects');
SELECT advance_cutover_stage('projects');
SELECT use_it('projects'), an_hour_passes();
SELECT advance_cutover_stage('projects');
SELECT use_it('projects'), an_hour_passes();
SELECT advance_cutover_stage('projects');
SELECT use_it('projects'), an_hour_passes();
DO $$ BEGIN
    ASSERT (SELECT cutover_stage = 'full_100' AND read_percentage = 100 FROM traffic_routing_config WHERE table_name = 'projects'), 'it is at full_100';
END $$;

-- 5. Complete cutover (after final validation)
SELECT refused('SELECT complete_cutover(''projects'')', 'SC003');
SELECT complete_cutover('projects', TRUE);
DO $$ BEGIN
    ASSERT (SELECT cutover_stage = 'completed' FROM traffic_routing_config WHERE table_name = 'projects'), 'it is completed';
    ASSERT 'projects'::regclass = (SELECT primary_table FROM shadow_table WHERE table_name = 'projects')
       AND (SELECT count(*) = 200 FROM projects) AND (SELECT count(*) = 200 FROM projects_old), 'the shadow is in charge, and the old table is there';
    INSERT INTO projects (name) VALUES ('after it');
    ASSERT (SELECT max(id) = 201 FROM projects) AND (SELECT max(id) = 201 FROM projects_old), 'numbers go on, and the old table is kept in step';
END $$;

\echo -- Emergency Procedures
-- Individual table emergency rollback
SELECT emergency_rollback('projects', 'Performance degradation detected');
DO $$ BEGIN
    ASSERT (SELECT cutover_stage = 'disabled' AND read_percentage = 0 FROM traffic_routing_config WHERE table_name = 'projects'), 'it is back';
    ASSERT (SELECT count(*) = 201 FROM projects), 'with what was written after it';
    ASSERT NOT should_route_to_shadow('projects', 'read'), 'the next read goes to the primary';
END $$;

-- System-wide emergency stop
SELECT start_gradual_cutover('sessions'), start_gradual_cutover('tasks');
SELECT emergency_stop_all_cutover('Critical database issue');
DO $$ BEGIN
    ASSERT (SELECT bool_and(cutover_stage = 'disabled') FROM traffic_routing_config), 'every table that was on its way';
END $$;
SELECT refused('SELECT start_gradual_cutover(''sessions'')', 'SC002');
SELECT enable_dual_write('sessions'), enable_dual_write('tasks');

-- Check all system status
SELECT * FROM get_cutover_status_dashboard();
DO $$ BEGIN
    ASSERT (SELECT count(*) = 5 FROM get_cutover_status_dashboard()), 'all five';
END $$;

\echo -- Monitoring and Analytics
-- Performance summary
SELECT * FROM get_dual_write_performance_summary(24);
DO $$ BEGIN
    ASSERT (SELECT total_operations >= 600 AND failed_operations = 0 AND success_rate = 100 AND avg_duration_ms > 0 AND max_duration_ms >= avg_duration_ms
              FROM get_dual_write_performance_summary(24) WHERE table_name = 'projects'), 'what was written twice';
END $$;

-- Health checks
SELECT start_gradual_cutover('projects');
SELECT use_it('projects');
SELECT * FROM perform_cutover_health_check('projects');
DO $$ BEGIN
    ASSERT (SELECT overall_health = 'healthy' AND error_rate_percent = 0 AND validation_score = 100 AND cardinality(recommendations) > 0
              FROM perform_cutover_health_check('projects')), 'it is well';
END $$;

-- Comprehensive report
SELECT * FROM generate_cutover_report('projects', 24);
DO $$ BEGIN
    ASSERT (SELECT count(*) > 10 AND bool_and(table_name = 'projects') AND count(DISTINCT report_section) >= 4 FROM generate_cutover_report('projects', 24)), 'a report';
END $$;

-- Automated safety checks
SELECT * FROM run_automated_safety_check();
DO $$ BEGIN
    ASSERT (SELECT array_agg(table_name || ' ' || action_taken) = '{projects none}' FROM run_automated_safety_check()), 'nothing is wrong';
    PERFORM advance_cutover_stage('projects', TRUE, 'to see it fall');
    PERFORM record_cutover_operation('projects', 'read', 45, i > 50, TRUE), record_cutover_operation('projects', 'read', 45) FROM generate_series(1, 200) i;
    ASSERT (SELECT action_taken = 'rolled_back' AND health_status = 'unhealthy' FROM run_automated_safety_check()), 'a quarter of the reads fail';
END $$;

\echo -- Emergency rollback
-- Immediate rollback for critical issues
SELECT refused('SELECT emergency_rollback(''table_name'', ''Critical performance issue'')', 'SC001'); -- there is no such table
SELECT start_gradual_cutover('contexts'), advance_cutover_stage('contexts', TRUE, 'a drill'), emergency_rollback('contexts', 'Critical performance issue');

\echo -- Application Integration Points
-- Application code can query routing decisions
SELECT should_route_to_shadow('contexts', 'read') as use_shadow;
-- Application can record operation metrics
SELECT record_cutover_operation('contexts', 'read', 45, TRUE, FALSE);
DO $$ BEGIN
    ASSERT NOT should_route_to_shadow('contexts', 'read'), 'it is on no way';
    ASSERT (SELECT operations = 1 AND p95 = 45 FROM operation_figures('contexts', now() - interval '1 hour') WHERE store = 'primary'), 'it was recorded';
END $$;

\echo -- Testing
SELECT * FROM run_cutover_system_tests();
DO $$ BEGIN
    ASSERT (SELECT bool_and(test_status = 'PASS') AND count(*) = 10 FROM run_cutover_system_tests()), 'all pass';
END $$;

\echo -- State Reset (For Testing)
-- Reset table to disabled state
SELECT refused('SELECT reset_cutover_state(''table_name'', p_confirm_reset := TRUE)', 'SC001');
SELECT reset_cutover_state('contexts', p_confirm_reset := TRUE);

\echo -- Complete System Rollback (If Needed)
-- Full system rollback (confirmation required)
SELECT refused('SELECT rollback_cutover_system()', 'SC003');
SELECT start_gradual_cutover('analytics_events');
SELECT rollback_cutover_system(p_confirm_rollback := TRUE);
DO $$ BEGIN
    ASSERT (SELECT count(*) = 5 AND bool_and(cutover_stage = 'disabled' AND NOT write_shadow_enabled) FROM traffic_routing_config), 'everything is back';
    ASSERT (SELECT count(*) > 30 FROM audit_log) AND NOT EXISTS (SELECT FROM verify_audit()), 'the audit survives';
    ASSERT (SELECT count(*) = 201 FROM projects), 'nothing is lost';
END $$;
\echo every example came to what it has to
