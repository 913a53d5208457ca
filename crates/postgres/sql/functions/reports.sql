-- What can be seen: where every table stands now, and how it went.

-- Every table as it is now. Errors and latency are measured by this call; the score is the last check's.
CREATE OR REPLACE FUNCTION cutover.get_cutover_status_dashboard()
RETURNS TABLE (table_name text, cutover_stage cutover.cutover_stage, read_percentage numeric, health_status text, stage_duration_minutes integer,
               next_eligible_in_minutes integer, error_rate_percent numeric, validation_score numeric, recommendations text, latency_increase_percent numeric,
               samples bigint, queued bigint, write_shadow_enabled boolean, emergency_stop boolean, epoch bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.table_name, r.cutover_stage, r.read_percentage, r.health_status,
           floor(extract(epoch FROM clock_timestamp() - r.stage_started_at) / 60)::integer,
           CASE WHEN r.cutover_stage NOT IN ('disabled', 'completed')
                THEN greatest(0, ceil(extract(epoch FROM cutover.eligible_at(r, m.watched_since) - clock_timestamp()) / 60))::integer END,
           round(m.error_rate_percent, 4), m.validation_score,
           array_to_string(cutover.health_recommendations(r, m, CASE WHEN r.health_status = 'unknown' THEN 'inconclusive' ELSE r.health_status END), '; '),
           round(m.latency_increase_percent, 4), m.samples,
           cutover.queued(r.table_name, 100000), r.write_shadow_enabled, c.emergency_stop, r.epoch
      FROM cutover.traffic_routing_config r JOIN cutover.dual_write_config c USING (table_name), LATERAL cutover.measure_health(r, 0,
               (SELECT h.validation_score FROM cutover.health_check h WHERE h.table_name = r.table_name AND h.epoch = r.epoch ORDER BY h.at DESC LIMIT 1)) m
     ORDER BY r.table_name
$$;

-- How it went with one table or with all, in the last hours: a line for each figure.
CREATE OR REPLACE FUNCTION cutover.generate_cutover_report(p_table_name text DEFAULT NULL, p_hours_back integer DEFAULT 24)
RETURNS TABLE (report_section text, table_name text, metric_name text, metric_value text, status text, recommendations text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_since timestamptz := cutover.hours_back(p_hours_back);
    v_only text := CASE WHEN p_table_name IS NOT NULL THEN (cutover.shadow_of(p_table_name)).table_name END;
BEGIN
    RETURN QUERY
    WITH board AS (SELECT * FROM cutover.get_cutover_status_dashboard() d WHERE v_only IS NULL OR d.table_name = v_only)
    SELECT l.section, l.name, l.metric, l.value, l.status, l.told FROM (
        SELECT 1 AS part, b.table_name AS name, v.place::text AS place, 'status' AS section, v.metric, v.value, b.health_status AS status, nullif(b.recommendations, '') AS told
          FROM board b, LATERAL (VALUES (1, 'stage', b.cutover_stage::text), (2, 'read_percentage', b.read_percentage::text), (3, 'minutes_in_stage', b.stage_duration_minutes::text),
                                        (4, 'next_step_in_minutes', b.next_eligible_in_minutes::text), (5, 'queued_keys', b.queued::text),
                                        (6, 'writes_reach_shadow', b.write_shadow_enabled::text)) AS v (place, metric, value)
         UNION ALL
        SELECT 2, b.table_name, f.operation_type || f.store, 'performance', format('%s at %s', f.operation_type, CASE f.store WHEN 'dual_write' THEN 'both' ELSE 'the ' || f.store END),
               format('%s operations, %s %% failed, %s ms on average, p50 %s, p95 %s, p99 %s, at most %s', f.operations, round(100.0 * f.failed / f.operations, 4),
                      round(f.average::numeric, 2), f.p50, f.p95, f.p99, f.longest),
               CASE WHEN 100.0 * f.failed / f.operations > r.max_error_rate_percent THEN 'beyond the limit' ELSE 'ok' END, NULL
          FROM board b JOIN cutover.traffic_routing_config r USING (table_name), LATERAL cutover.operation_figures(b.table_name, v_since) f
         UNION ALL
        SELECT 3, b.table_name, v.place::text, 'health', v.metric, v.value, NULL, NULL
          FROM board b, LATERAL (SELECT count(*) AS checks, count(*) FILTER (WHERE h.overall_health = 'healthy') AS healthy,
                                        count(*) FILTER (WHERE h.overall_health = 'inconclusive') AS inconclusive, min(h.validation_score) AS lowest
                                   FROM cutover.health_check h WHERE h.table_name = b.table_name AND h.at >= v_since) h,
               LATERAL (VALUES (1, 'checks', h.checks::text), (2, 'healthy', h.healthy::text), (3, 'inconclusive', h.inconclusive::text),
                               (4, 'beyond_limits', (h.checks - h.healthy - h.inconclusive)::text), (5, 'lowest_validation_score', h.lowest::text)) AS v (place, metric, value)
         UNION ALL
        SELECT 4, b.table_name, t.measure, 'trend', t.measure, format('%s, %s an hour', round(t.latest, 4), coalesce(t.per_hour::text, 'not known')),
               CASE WHEN t.breach_in IS NULL THEN 'ok' ELSE 'getting worse' END, 'at its limit in ' || t.breach_in
          FROM board b, LATERAL cutover.health_trend(b.table_name) t
         UNION ALL
        SELECT 5, a.table_name, to_char(a.seq, 'FM000000000000'), 'decisions', a.action,
               format('%s by %s%s', to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), a.actor, coalesce(': ' || a.reason, '')),
               a.detail ->> 'to', NULL
          FROM cutover.audit_log a WHERE a.at >= v_since AND (v_only IS NULL OR a.table_name = v_only)) l
     ORDER BY l.part, l.name, l.place;
END
$$;

-- Everything to its beginning, for a test: a table that is on no way forgets its settings, and what was measured. Its shadow, its dual writes and the audit stay.
CREATE OR REPLACE FUNCTION cutover.reset_cutover_state(p_table_name text, p_confirm_reset boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_route cutover.traffic_routing_config := cutover.locked_route(p_table_name);
BEGIN
    IF p_confirm_reset IS NOT TRUE THEN
        PERFORM cutover.refuse('SC003', 'to reset wants to be confirmed', format('SELECT cutover.reset_cutover_state(%L, p_confirm_reset := true)', v_route.table_name));
    ELSIF v_route.cutover_stage <> 'disabled' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s', v_route.table_name, v_route.cutover_stage),
                               format('SELECT cutover.emergency_rollback(%L, ''why'')', v_route.table_name));
    END IF;
    DELETE FROM cutover.traffic_routing_config c WHERE c.table_name = v_route.table_name;
    INSERT INTO cutover.traffic_routing_config (table_name, ladder, salt, epoch, write_shadow_enabled, updated_by)
    VALUES (v_route.table_name, v_route.ladder, v_route.salt, v_route.epoch + 1, v_route.write_shadow_enabled, session_user);
    UPDATE cutover.dual_write_config c SET failure_count = 0, last_failure_at = NULL, last_failure = NULL, emergency_stop = false WHERE c.table_name = v_route.table_name;
    DELETE FROM cutover.operation_sample s WHERE s.table_name = v_route.table_name;
    DELETE FROM cutover.dual_write_stats s WHERE s.table_name = v_route.table_name;
    DELETE FROM cutover.cutover_performance_metrics m WHERE m.table_name = v_route.table_name;
    DELETE FROM cutover.health_check h WHERE h.table_name = v_route.table_name;
    PERFORM cutover.append_audit('reset_cutover_state', v_route.table_name, NULL, jsonb_build_object('from', 'disabled', 'to', 'disabled', 'read_percentage', 0, 'epoch', v_route.epoch + 1));
    PERFORM cutover.tell_route(v_route.table_name);
    RETURN format('%s is as if it had never begun', v_route.table_name);
END
$$;

-- All of it back: every table is read at its primary, nothing is written twice any more, and what was measured is forgotten. Shadow tables stay as they are, and
-- so does the audit. Wants whoever owns the tables. One that can't be rolled back keeps no other from it.
CREATE OR REPLACE FUNCTION cutover.rollback_cutover_system(p_confirm_rollback boolean DEFAULT false) RETURNS TABLE (table_name text, outcome text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text;
BEGIN
    IF p_confirm_rollback IS NOT TRUE THEN
        PERFORM cutover.refuse('SC003', 'to roll back the whole system wants to be confirmed', 'SELECT cutover.rollback_cutover_system(p_confirm_rollback := true)');
    END IF;
    FOR v_name IN SELECT s.table_name FROM cutover.shadow_table s ORDER BY s.table_name LOOP
        table_name := v_name;
        BEGIN
            PERFORM cutover.emergency_rollback(v_name, 'the whole system is rolled back');
            PERFORM cutover.disable_dual_write(v_name, 'the whole system is rolled back');
            PERFORM cutover.reset_cutover_state(v_name, true);
            outcome := 'rolled back';
        EXCEPTION WHEN OTHERS THEN
            outcome := format('failed: %s', SQLERRM);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
