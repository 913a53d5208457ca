-- How a table does on its way, and what follows from it. What was not measured is never good: it is unknown, and holds.

-- Measures a table: errors and latency of what was done in the last minutes (health_window_minutes), and whether both tables are the same, by about
-- so many rows of each; or none of them, and then by the score of who has compared them.
CREATE OR REPLACE FUNCTION cutover.measure_health(p_route cutover.traffic_routing_config, p_compare_rows integer, p_score numeric DEFAULT NULL) RETURNS cutover.health_measure
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_config cutover.dual_write_config := (SELECT c FROM cutover.dual_write_config c WHERE c.table_name = p_route.table_name);
    v_since timestamptz := greatest(clock_timestamp() - p_route.health_window_minutes * interval '1 minute', p_route.stage_started_at);
    v_reads boolean := p_route.read_percentage > 0;
    v_figures record;
    v_seen record;
    v_limit record;
    v_writes bigint;
    v_failures bigint;
    m cutover.health_measure;
BEGIN
    m.unknown := '{}';
    m.breaches := '{}';
    m.alerts := '{}';
    m.holds := '{}';
    m.severe := false;

    -- One millisecond more is within what whole milliseconds can tell.
    WITH f AS MATERIALIZED (
        SELECT * FROM cutover.operation_figures(p_route.table_name, v_since, p_route.epoch)
    ), b AS (
        SELECT p_route.baseline || coalesce(jsonb_object_agg(f.operation_type, f.p95) FILTER (WHERE f.store = 'primary' AND f.operations >= p_route.min_samples), '{}') AS baseline FROM f
    ), l AS (
        SELECT 100 * (f.p95::numeric - x.base) / greatest(x.base, 1) AS increase, f.p95::numeric - x.base <= 1 AS same
          FROM f, b, LATERAL (SELECT (b.baseline ->> f.operation_type)::numeric AS base) x
         WHERE v_reads AND f.store = 'shadow' AND f.operations >= p_route.min_samples
    )
    SELECT coalesce(sum(f.operations) FILTER (WHERE f.store = 'shadow'), 0) AS reads, coalesce(sum(f.failed) FILTER (WHERE f.store = 'shadow'), 0) AS failed_reads,
           coalesce(sum(f.operations) FILTER (WHERE f.store = 'dual_write'), 0) AS writes, coalesce(sum(f.failed) FILTER (WHERE f.store = 'dual_write'), 0) AS failed_writes,
           max(f.last_at) FILTER (WHERE f.store <> 'primary') AS last_at, (SELECT b.baseline FROM b) AS baseline,
           (SELECT max(CASE WHEN l.same THEN least(0, l.increase) ELSE l.increase END) FROM l) AS latency_increase
      INTO v_seen FROM f;
    m.samples := CASE WHEN v_reads THEN v_seen.reads ELSE v_seen.writes END;
    m.last_sample_at := v_seen.last_at;
    m.baseline := v_seen.baseline;
    m.latency_increase_percent := v_seen.latency_increase;
    m.watched_since := cutover.watched_since(p_route);

    -- Errors: of what the shadow answered, and of what was written to it.
    IF v_seen.reads >= p_route.min_samples THEN
        m.error_rate_percent := 100.0 * v_seen.failed_reads / v_seen.reads;
    ELSIF v_reads THEN
        m.unknown := m.unknown || format('errors and latency: %s of %s operations at the shadow were recorded within %s minutes', v_seen.reads, p_route.min_samples, p_route.health_window_minutes);
    END IF;
    IF v_seen.writes >= p_route.min_samples THEN
        m.error_rate_percent := greatest(m.error_rate_percent, 100.0 * v_seen.failed_writes / v_seen.writes);
    ELSIF NOT v_reads AND p_route.cutover_stage <> 'disabled' THEN
        -- A small table is written seldom: all since the stage began.
        SELECT coalesce(sum(f.operations), 0), coalesce(sum(f.failed), 0) INTO v_writes, v_failures
          FROM cutover.operation_figures(p_route.table_name, p_route.stage_started_at) f WHERE f.store = 'dual_write';
        m.samples := v_writes;
        IF v_writes >= p_route.min_samples THEN
            m.error_rate_percent := 100.0 * v_failures / v_writes;
        ELSE
            m.unknown := m.unknown || format('errors: %s of %s statements were written twice since the stage began', v_writes, p_route.min_samples);
        END IF;
    END IF;
    IF v_seen.failed_writes > v_config.max_failures THEN
        m.breaches := m.breaches || format('dual_write_failures: %s second writes failed within %s minutes, more than %s', v_seen.failed_writes, p_route.health_window_minutes, v_config.max_failures);
    END IF;

    IF v_seen.reads >= p_route.min_samples AND v_reads AND m.latency_increase_percent IS NULL THEN
        m.unknown := m.unknown || format('latency: no operation was recorded %s times at both, the primary and the shadow', p_route.min_samples);
    END IF;

    -- Whether both are the same.
    IF p_compare_rows = 0 THEN
        m.validation_score := p_score;
    ELSIF v_config.backfilled_at IS NULL THEN
        m.unknown := m.unknown || 'validation_score: the backfill is not complete'::text;
    ELSE
        BEGIN
            SELECT * INTO v_figures FROM cutover.validate_table_consistency(p_route.table_name, NULL, p_compare_rows);
            m.validation_score := v_figures.validation_score;
            IF v_figures.verdict = 'inconclusive' THEN
                m.unknown := m.unknown || format('validation_score: %s', CASE WHEN v_figures.queued > 0 THEN v_figures.queued || ' keys are queued' ELSE 'there is nothing to compare' END);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            m.unknown := m.unknown || format('validation_score: the tables can''t be compared: %s', SQLERRM);
        END;
    END IF;

    -- Higher is worse; what is better when it is higher is turned round.
    FOR v_limit IN
        SELECT l.* FROM (VALUES
            ('error_rate', m.error_rate_percent, p_route.max_error_rate_percent, p_route.alert_error_rate_percent, p_route.advance_error_rate_percent, false),
            ('latency', m.latency_increase_percent, p_route.max_latency_increase_percent, p_route.alert_latency_increase_percent, p_route.advance_latency_increase_percent, false),
            ('validation_score', 100 - m.validation_score, 100 - p_route.min_validation_score, 100 - p_route.alert_validation_score, 100 - p_route.advance_validation_score, true))
            AS l (name, value, back, alert, advance, turned)
    LOOP
        IF v_limit.value > v_limit.back THEN
            m.breaches := m.breaches || cutover.beyond(v_limit.name, v_limit.value, v_limit.back, v_limit.turned);
            m.severe := m.severe OR v_limit.value > p_route.severe_factor * v_limit.back;
        END IF;
        IF v_limit.value > v_limit.alert THEN
            m.alerts := m.alerts || cutover.beyond(v_limit.name, v_limit.value, v_limit.alert, v_limit.turned);
        END IF;
        IF v_limit.value >= v_limit.advance THEN
            m.holds := m.holds || cutover.beyond(v_limit.name, v_limit.value, v_limit.advance, v_limit.turned);
        END IF;
    END LOOP;
    RETURN m;
END
$$;

-- What is said of a value and its limit. The first word is what it is about.
CREATE OR REPLACE FUNCTION cutover.beyond(p_name text, p_value numeric, p_limit numeric, p_turned boolean) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_turned THEN format('%s: %s, where the limit is %s', p_name, round(100 - p_value, 4), round(100 - p_limit, 4))
                ELSE format('%s: %s %%, where the limit is %s %%', p_name, round(p_value, 4), round(p_limit, 4)) END
$$;

-- Since when operations at the shadow were recorded without a gap that is longer than what is looked at. None: there is such a gap now.
CREATE OR REPLACE FUNCTION cutover.watched_since(p_route cutover.traffic_routing_config) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN max(g.until) >= clock_timestamp() - p_route.health_window_minutes * interval '1 minute'
                THEN coalesce(max(g.since) FILTER (WHERE g.since - g.before > p_route.health_window_minutes * interval '1 minute'), p_route.stage_started_at) END
      FROM (SELECT s.since, s.until, coalesce(max(s.until) OVER (ORDER BY s.since, s.until ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), p_route.stage_started_at) AS before
              FROM (SELECT m.measurement_period_start AS since, m.measurement_period_end AS until FROM cutover.cutover_performance_metrics m
                     WHERE m.table_name = p_route.table_name AND m.epoch = p_route.epoch AND m.store = 'shadow' AND m.measurement_period_end >= p_route.stage_started_at
                     UNION ALL
                    SELECT min(o.at), max(o.at) FROM cutover.operation_sample o
                     WHERE o.table_name = p_route.table_name AND o.epoch = p_route.epoch AND o.used_shadow AND o.at >= p_route.stage_started_at GROUP BY date_trunc('minute', o.at)) s) g
$$;

-- Where a table stands; as it is, without a lock.
CREATE OR REPLACE FUNCTION cutover.route_of(p_table_name text) RETURNS cutover.traffic_routing_config
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c FROM cutover.traffic_routing_config c WHERE c.table_name = (cutover.shadow_of(p_table_name)).table_name
$$;

-- Measures how a table does and writes it down: healthy, degraded (beyond a limit, and so far it holds), unhealthy (again and again, or by far: its
-- reads go to the primary), or inconclusive (not enough was measured). ready_to_advance: good enough for the next step.
CREATE OR REPLACE FUNCTION cutover.perform_cutover_health_check(p_table_name text)
RETURNS TABLE (table_name text, overall_health text, error_rate_percent numeric, latency_increase_percent numeric, validation_score numeric,
               health_summary text, recommendations text[], ready_to_advance boolean, samples bigint, consecutive_failures integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- What is recorded from here on is the next check's.
    v_at timestamptz := clock_timestamp();
    v_before cutover.traffic_routing_config := cutover.route_of(p_table_name);
    m cutover.health_measure := cutover.measure_health(v_before, v_before.health_sample_rows);
    v_route cutover.traffic_routing_config := cutover.locked_route(p_table_name, v_before.epoch);
    v_bad boolean := cardinality(m.breaches) > 0;
    v_known boolean := cardinality(m.unknown) = 0;
    -- The same samples again are no further failure.
    v_fresh boolean := m.last_sample_at > coalesce(v_route.last_health_check, '-infinity') OR m.validation_score < v_route.min_validation_score;
    v_alert text;
BEGIN
    consecutive_failures := CASE WHEN v_bad AND v_fresh THEN v_route.consecutive_failures + 1 WHEN v_bad OR NOT v_known THEN v_route.consecutive_failures ELSE 0 END;
    -- Once it is completed there is nowhere else to read.
    overall_health := CASE WHEN v_bad AND (m.severe OR consecutive_failures > v_route.max_consecutive_failures) AND v_route.cutover_stage <> 'completed' THEN 'unhealthy'
                           WHEN v_bad OR cardinality(m.alerts) > 0 THEN 'degraded'
                           WHEN v_known THEN 'healthy'
                           WHEN v_route.health_status = 'unhealthy' THEN 'unhealthy'
                           ELSE 'inconclusive' END;
    IF overall_health = 'unhealthy' OR consecutive_failures > v_route.max_consecutive_failures THEN
        m.alerts := m.alerts || format('consecutive_failures: %s checks in a row', consecutive_failures);
    END IF;
    table_name := v_route.table_name;
    error_rate_percent := round(m.error_rate_percent, 4);
    latency_increase_percent := round(m.latency_increase_percent, 4);
    validation_score := m.validation_score;
    samples := m.samples;
    ready_to_advance := overall_health = 'healthy' AND cardinality(m.holds) = 0;
    health_summary := overall_health || coalesce(': ' || (SELECT string_agg(w.what, '; ' ORDER BY w.place)
                                                        FROM (SELECT u.what, min(u.place) AS place FROM unnest(m.breaches || m.alerts || m.unknown) WITH ORDINALITY AS u (what, place) GROUP BY u.what) w), '');
    recommendations := cutover.health_recommendations(v_route, m, overall_health);

    FOREACH v_alert IN ARRAY m.alerts LOOP
        CONTINUE WHEN EXISTS (SELECT FROM (SELECT h.alerts FROM cutover.health_check h WHERE h.table_name = v_route.table_name AND h.epoch = v_route.epoch ORDER BY h.at DESC LIMIT 1) l,
                                          unnest(l.alerts) AS a (text) WHERE split_part(a.text, ':', 1) = split_part(v_alert, ':', 1));
        PERFORM cutover.alert(v_route.table_name, v_alert);
    END LOOP;
    INSERT INTO cutover.health_check (table_name, epoch, cutover_stage, overall_health, error_rate_percent, latency_increase_percent, validation_score, samples,
                                      consecutive_failures, breaches, alerts)
    VALUES (v_route.table_name, v_route.epoch, v_route.cutover_stage, overall_health, m.error_rate_percent, m.latency_increase_percent, m.validation_score, m.samples,
            consecutive_failures, m.breaches, m.alerts);
    UPDATE cutover.traffic_routing_config c
       SET health_status = CASE overall_health WHEN 'inconclusive' THEN 'unknown' ELSE overall_health END, last_health_check = v_at,
           consecutive_failures = perform_cutover_health_check.consecutive_failures, baseline = m.baseline
     WHERE c.table_name = v_route.table_name;
    IF (overall_health = 'unhealthy') <> (v_route.health_status = 'unhealthy') THEN
        PERFORM cutover.tell_route(v_route.table_name);
    END IF;
    RETURN NEXT;
END
$$;

-- Tells whoever listens that something is beyond its limit.
CREATE OR REPLACE FUNCTION cutover.alert(p_table_name text, p_alert text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('cutover_alert', json_build_object('table', p_table_name, 'alert', split_part(p_alert, ':', 1), 'detail', p_alert)::text)
$$;

-- What to do about it.
CREATE OR REPLACE FUNCTION cutover.health_recommendations(p_route cutover.traffic_routing_config, p_measure cutover.health_measure, p_health text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_eligible timestamptz := cutover.eligible_at(p_route, p_measure.watched_since);
    v_told text[] := '{}';
BEGIN
    IF p_route.cutover_stage = 'disabled' THEN
        RETURN ARRAY[format('start it: SELECT cutover.start_gradual_cutover(%L)', p_route.table_name)];
    ELSIF p_health = 'unhealthy' AND p_route.cutover_stage <> 'completed' THEN
        v_told := v_told || format('go back: SELECT cutover.emergency_rollback(%L, ''why'')', p_route.table_name);
    ELSIF cardinality(p_measure.breaches) > 0 THEN
        v_told := v_told || format('stay here and find out why: after %s failed checks in a row its reads go back', p_route.max_consecutive_failures + 1);
    END IF;
    IF cutover.queued(p_route.table_name, 1) > 0 THEN
        v_told := v_told || format('bring what is queued: SELECT cutover.drain(%L); cutover.dirty_key says why', p_route.table_name);
    END IF;
    IF cardinality(p_measure.unknown) > 0 THEN
        v_told := v_told || 'record operations with cutover.record_cutover_operation(), or lower min_samples: what is not measured holds'::text;
    ELSIF cardinality(p_measure.holds) > 0 THEN
        v_told := v_told || format('not good enough to go on: %s', array_to_string(p_measure.holds, '; '));
    ELSIF p_health = 'healthy' AND p_route.cutover_stage <> 'completed' THEN
        v_told := v_told || CASE WHEN v_eligible > clock_timestamp() THEN format('wait until %s', to_char(v_eligible AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
                                 WHEN cutover.next_stage(p_route) = 'completed' THEN format('complete it: SELECT cutover.complete_cutover(%L, true)', p_route.table_name)
                                 ELSE format('go on: SELECT cutover.advance_cutover_stage(%L)', p_route.table_name) END;
    END IF;
    RETURN v_told || ARRAY(SELECT format('%s reaches its limit in about %s', t.measure, to_char(t.breach_in, 'HH24:MI'))
                             FROM cutover.health_trend(p_route.table_name) t WHERE t.breach_in < interval '1 day');
END
$$;

-- When the next step may be taken, as far as time goes: the stage lasts as long as it was to, and has been watched all the while.
CREATE OR REPLACE FUNCTION cutover.eligible_at(p_route cutover.traffic_routing_config, p_watched_since timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_route.next_stage_eligible_at + CASE WHEN p_route.read_percentage > 0 AND p_watched_since > p_route.stage_started_at
                                                 THEN p_watched_since - p_route.stage_started_at ELSE interval '0' END
$$;

-- Where each measure is going, by a straight line through the checks of this stage in the last hour, and when it comes to its limit. None: not
-- in sight, or fewer than three checks.
CREATE OR REPLACE FUNCTION cutover.health_trend(p_table_name text, p_since interval DEFAULT '1 hour')
RETURNS TABLE (measure text, latest numeric, limit_value numeric, per_hour numeric, breach_in interval)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH checks AS (
        SELECT extract(epoch FROM h.at)::double precision / 3600 AS hours, v.measure, v.value, v.limit_value, v.sign
          FROM cutover.route_of(p_table_name) r
          JOIN cutover.health_check h ON h.table_name = r.table_name AND h.epoch = r.epoch AND h.at >= clock_timestamp() - p_since,
               LATERAL (VALUES ('error_rate', h.error_rate_percent, r.max_error_rate_percent, 1), ('latency', h.latency_increase_percent, r.max_latency_increase_percent, 1),
                               ('validation_score', h.validation_score, r.min_validation_score, -1)) AS v (measure, value, limit_value, sign)
         WHERE v.value IS NOT NULL
    ), lines AS (
        SELECT c.measure, (array_agg(c.value ORDER BY c.hours DESC))[1] AS latest, max(c.limit_value) AS limit_value, max(c.sign) AS sign,
               CASE WHEN count(*) >= 3 THEN regr_slope(c.value::double precision, c.hours) END AS slope
          FROM checks c GROUP BY c.measure
    )
    SELECT l.measure, l.latest, l.limit_value, round(l.slope::numeric, 6),
           CASE WHEN l.slope * l.sign > 0.000001 THEN greatest((l.limit_value - l.latest)::double precision / l.slope, 0) * interval '1 hour' END
      FROM lines l ORDER BY l.measure
$$;

-- Refused with everything that speaks against the next step. Both tables are compared whole.
CREATE OR REPLACE FUNCTION cutover.refuse_unready(p_route cutover.traffic_routing_config) RETURNS cutover.health_measure
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_eligible timestamptz := cutover.eligible_at(p_route, cutover.watched_since(p_route));
    v_seen record;
    m cutover.health_measure;
BEGIN
    IF clock_timestamp() < v_eligible THEN
        PERFORM cutover.refuse('SC002', format('%s has to stay at %s until %s', p_route.table_name, p_route.cutover_stage, v_eligible),
                               format('%s minutes are left%s', ceil(extract(epoch FROM v_eligible - clock_timestamp()) / 60),
                                      CASE WHEN v_eligible > p_route.next_stage_eligible_at THEN ', since there was a gap in what was recorded' ELSE '' END));
    END IF;
    SELECT * INTO v_seen FROM cutover.validate_table_consistency(p_route.table_name);
    IF v_seen.verdict <> 'same' THEN
        PERFORM cutover.refuse('SC005', format('the comparison of %s is %s: %s rows differ, %s are missing, %s are extra, %s keys are queued', p_route.table_name,
                               v_seen.verdict, v_seen.inconsistent_records, v_seen.missing_in_shadow, v_seen.extra_in_shadow, v_seen.queued),
                               'cutover sql drain, and cutover sql backfill where rows are missing; mode sync where keys are queued all the time; then try again');
    END IF;
    m := cutover.measure_health(p_route, 0, v_seen.validation_score);
    IF cardinality(m.unknown || m.breaches || m.holds) > 0 OR p_route.health_status = 'unhealthy' THEN
        PERFORM cutover.refuse('SC005', format('%s is not ready: %s', p_route.table_name, coalesce(nullif(array_to_string(m.unknown || m.breaches || m.holds, '; '), ''), 'it was unhealthy')),
                               format('SELECT * FROM cutover.perform_cutover_health_check(%L)', p_route.table_name));
    END IF;
    RETURN m;
END
$$;

-- For whoever looks after all tables once a minute: checks each that is on its way, takes reads back from one that is unhealthy, and takes the next
-- step where that was asked for and nothing speaks against it. What goes wrong with one table keeps no other from its rollback.
CREATE OR REPLACE FUNCTION cutover.run_automated_safety_check() RETURNS TABLE (table_name text, action_taken text, reason text, health_status text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT c.table_name, d.action_taken, d.reason, d.health_status
      FROM (SELECT r.table_name FROM cutover.traffic_routing_config r WHERE r.cutover_stage NOT IN ('disabled', 'completed') ORDER BY r.table_name) c,
           LATERAL cutover.check_safety(c.table_name) d;
    BEGIN
        PERFORM cutover.roll_up_operations();
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'what was recorded could not be put together: %', SQLERRM;
    END;
END
$$;

-- The same for one table. `held`: the next step was refused; `failed`: it could not be checked, or not be rolled back.
CREATE OR REPLACE FUNCTION cutover.check_safety(p_table_name text, OUT action_taken text, OUT reason text, OUT health_status text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_route cutover.traffic_routing_config;
    v_check record;
BEGIN
    action_taken := 'failed';
    health_status := 'inconclusive';
    BEGIN
        SELECT * INTO v_check FROM cutover.perform_cutover_health_check(p_table_name);
    EXCEPTION WHEN OTHERS THEN
        reason := SQLERRM;
        RETURN;
    END;
    health_status := v_check.overall_health;
    reason := v_check.health_summary;
    -- What the check found stays written down, whatever becomes of what follows from it.
    BEGIN
        v_route := cutover.route_of(p_table_name);
        IF v_check.overall_health = 'unhealthy' AND v_route.auto_rollback_enabled THEN
            PERFORM cutover.read_at_primary(p_table_name, 'automatic: ' || reason);
            action_taken := 'rolled_back';
        ELSIF v_check.ready_to_advance AND v_route.auto_advance_enabled AND cutover.next_stage(v_route) <> 'completed'
              AND cutover.eligible_at(v_route, cutover.watched_since(v_route)) <= clock_timestamp() THEN
            action_taken := 'held';
            PERFORM cutover.advance_cutover_stage(p_table_name, false, 'automatic: ' || reason);
            action_taken := 'advanced';
        ELSE
            action_taken := 'none';
        END IF;
    EXCEPTION WHEN OTHERS THEN
        reason := SQLERRM;
    END;
END
$$;

-- Changes how a table is judged while it is on its way: `{"max_error_rate_percent": 2, "min_samples": 50}`.
CREATE OR REPLACE FUNCTION cutover.configure_cutover(p_table_name text, p_settings jsonb, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_route cutover.traffic_routing_config := cutover.locked_route(p_table_name);
    v_known text[] := ARRAY['max_error_rate_percent', 'max_latency_increase_percent', 'min_validation_score', 'alert_error_rate_percent',
        'alert_latency_increase_percent', 'alert_validation_score', 'advance_error_rate_percent', 'advance_latency_increase_percent', 'advance_validation_score',
        'severe_factor', 'health_window_minutes', 'health_sample_rows', 'min_samples', 'max_consecutive_failures', 'auto_rollback_enabled',
        'auto_advance_enabled', 'cutover_order', 'stage_duration_target_minutes', 'notes', 'ladder'];
    v_wrong text;
    v_new cutover.traffic_routing_config;
BEGIN
    IF jsonb_typeof(p_settings) IS DISTINCT FROM 'object' THEN
        PERFORM cutover.refuse('SC002', 'settings have names', '{"min_samples": 50}');
    END IF;
    SELECT k.key INTO v_wrong FROM jsonb_object_keys(p_settings) AS k (key) WHERE k.key <> ALL (v_known) LIMIT 1;
    IF v_wrong IS NOT NULL THEN
        PERFORM cutover.refuse('SC002', format('there is no setting %L', v_wrong), 'one of ' || array_to_string(v_known, ', '));
    ELSIF p_settings ? 'ladder' AND v_route.cutover_stage <> 'disabled' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s, and its ladder can''t be taken away', v_route.table_name, v_route.cutover_stage), 'before it starts');
    ELSIF p_settings ? 'ladder' AND NOT EXISTS (SELECT FROM cutover.ladder_rung r WHERE r.ladder = p_settings ->> 'ladder') THEN
        PERFORM cutover.refuse('SC002', format('there is no ladder %L', p_settings ->> 'ladder'), 'SELECT cutover.set_ladder(…)');
    END IF;
    BEGIN
        v_new := jsonb_populate_record(v_route, p_settings);
        UPDATE cutover.traffic_routing_config c
           SET (max_error_rate_percent, max_latency_increase_percent, min_validation_score, alert_error_rate_percent, alert_latency_increase_percent, alert_validation_score,
                advance_error_rate_percent, advance_latency_increase_percent, advance_validation_score, severe_factor, health_window_minutes, health_sample_rows, min_samples,
                max_consecutive_failures, auto_rollback_enabled, auto_advance_enabled, cutover_order, stage_duration_target_minutes, notes, ladder, updated_at, updated_by)
             = (v_new.max_error_rate_percent, v_new.max_latency_increase_percent, v_new.min_validation_score, v_new.alert_error_rate_percent, v_new.alert_latency_increase_percent,
                v_new.alert_validation_score, v_new.advance_error_rate_percent, v_new.advance_latency_increase_percent, v_new.advance_validation_score, v_new.severe_factor,
                v_new.health_window_minutes, v_new.health_sample_rows, v_new.min_samples, v_new.max_consecutive_failures, v_new.auto_rollback_enabled, v_new.auto_advance_enabled,
                v_new.cutover_order, v_new.stage_duration_target_minutes, v_new.notes, v_new.ladder, clock_timestamp(), session_user)
         WHERE c.table_name = v_route.table_name;
    EXCEPTION WHEN check_violation OR not_null_violation OR data_exception OR invalid_text_representation THEN
        PERFORM cutover.refuse('SC002', format('these settings can''t be: %s', SQLERRM),
                               'limits are from 0 to 100 percent, and to advance is stricter than to alert, and that than to go back: lower or raise them together');
    END;
    PERFORM cutover.append_audit('configure_cutover', v_route.table_name, p_reason, p_settings);
    RETURN format('%s is judged by it from now on', v_route.table_name);
END
$$;
