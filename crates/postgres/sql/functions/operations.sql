-- What applications record, and what triggers count: appended by whoever does it, and rolled up by whoever looks. No row is written
-- by two.

-- Records an operation: what it was (`read`), how long it took, whether it succeeded, and whether the shadow did it. Record it outside of
-- a transaction that may be rolled back. Unit: milliseconds.
CREATE OR REPLACE FUNCTION cutover.record_cutover_operation(p_table_name text, p_operation_type text, p_latency_ms integer,
                                                            p_success boolean DEFAULT true, p_used_shadow boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text := p_table_name;
BEGIN
    IF coalesce(p_latency_ms, -1) < 0 THEN
        PERFORM cutover.refuse('SC002', format('an operation can''t take %s milliseconds', coalesce(p_latency_ms::text, 'no')), '0 or more');
    ELSIF p_success IS NULL OR p_used_shadow IS NULL OR coalesce(btrim(p_operation_type), '') = '' OR length(p_operation_type) > 64 THEN
        PERFORM cutover.refuse('SC002', 'an operation has a name of at most 64 letters, and is known to have succeeded or not, and where',
                               'record_cutover_operation(''orders'', ''read'', 12, true, false)');
    END IF;
    FOR v_try IN 1..2 LOOP
        INSERT INTO cutover.operation_sample (table_name, epoch, cutover_stage, operation_type, used_shadow, success, latency_ms)
        SELECT r.table_name, r.epoch, r.cutover_stage, p_operation_type, p_used_shadow, p_success, p_latency_ms
          FROM cutover.traffic_routing_config r WHERE r.table_name = v_name;
        EXIT WHEN FOUND;
        -- It may be spelled otherwise.
        v_name := (cutover.shadow_of(p_table_name)).table_name;
    END LOOP;
    IF random() < 0.002 THEN
        PERFORM cutover.roll_up_unattended();
    END IF;
END
$$;

-- Puts what was recorded in full minutes together: at most so many operations of each table at once. p_failures: also the second writes
-- that failed, which takes a lock on the table's configuration. p_table_name: only this table's. Returns how many operations that were.
CREATE OR REPLACE FUNCTION cutover.roll_up_operations(p_rows integer DEFAULT 20000, p_failures boolean DEFAULT true, p_table_name text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_until timestamptz := date_trunc('minute', clock_timestamp());
    v_name text;
    v_failed bigint;
    v_last timestamptz;
    v_error text;
    v_some bigint;
    v_sum bigint := 0;
BEGIN
    FOR v_name IN SELECT s.table_name FROM cutover.shadow_table s WHERE p_table_name IS NULL OR s.table_name = p_table_name ORDER BY s.table_name LOOP
        WITH operations AS (
            DELETE FROM cutover.operation_sample s
             WHERE s.ctid = ANY (ARRAY(SELECT o.ctid FROM cutover.operation_sample o WHERE o.table_name = v_name AND o.at < v_until
                                        ORDER BY o.at LIMIT p_rows FOR UPDATE SKIP LOCKED))
            RETURNING s.*
        ), writes AS (
            DELETE FROM cutover.dual_write_stats s
             WHERE s.ctid = ANY (ARRAY(SELECT o.ctid FROM cutover.dual_write_stats o
                                        WHERE o.table_name = v_name AND o."timestamp" < v_until AND (o.success OR p_failures)
                                        ORDER BY o."timestamp" LIMIT p_rows FOR UPDATE SKIP LOCKED))
            RETURNING s.*
        ), taken AS (
            SELECT date_trunc('minute', o.at) AS minute, o.epoch, o.cutover_stage AS stage, o.operation_type, CASE WHEN o.used_shadow THEN 'shadow' ELSE 'primary' END AS store,
                   o.success, o.latency_ms::double precision AS ms, o.at, NULL AS error
              FROM operations o
             UNION ALL
            SELECT date_trunc('minute', w."timestamp"), t.epoch, t.stage, w.operation, 'dual_write', w.success, round(w.duration_ms::numeric, 1)::double precision, w."timestamp", w.error_message
              FROM writes w, LATERAL cutover.stage_at(v_name, w."timestamp") t
        ), spread AS (
            SELECT s.minute, s.epoch, s.stage, s.operation_type, s.store, array_agg(s.ms ORDER BY s.ms) AS latencies, array_agg(s.operations ORDER BY s.ms) AS counts
              FROM (SELECT t.minute, t.epoch, t.stage, t.operation_type, t.store, t.ms, count(*) AS operations FROM taken t GROUP BY 1, 2, 3, 4, 5, 6) s
             GROUP BY 1, 2, 3, 4, 5
        ), figures AS (
            SELECT t.minute, t.epoch, t.stage, t.operation_type, t.store, count(*) AS operations, count(*) FILTER (WHERE t.success) AS succeeded, avg(t.ms) AS average,
                   percentile_disc(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY t.ms) AS ms, min(t.at) AS first_at, max(t.at) AS last_at,
                   coalesce((array_agg(DISTINCT t.error) FILTER (WHERE t.error IS NOT NULL))[:5], '{}') AS errors
              FROM taken t GROUP BY 1, 2, 3, 4, 5
        ), kept AS (
            INSERT INTO cutover.cutover_performance_metrics (table_name, epoch, cutover_stage, operation_type, store, total_operations, successful_operations,
                failed_operations, avg_latency_ms, p50_latency_ms, p95_latency_ms, p99_latency_ms, max_latency_ms, operations_per_second, data_consistency_score,
                measurement_period_start, measurement_period_end, latencies_ms, latency_counts, errors)
            SELECT v_name, f.epoch, f.stage, f.operation_type, f.store, f.operations, f.succeeded, f.operations - f.succeeded, f.average, f.ms[1], f.ms[2], f.ms[3], f.ms[4],
                   f.operations / greatest(extract(epoch FROM f.last_at - f.first_at)::double precision, 1),
                   (SELECT h.validation_score FROM cutover.health_check h WHERE h.table_name = v_name AND h.validation_score IS NOT NULL ORDER BY h.at DESC LIMIT 1),
                   f.first_at, f.last_at, s.latencies, s.counts, f.errors
              FROM figures f JOIN spread s USING (minute, epoch, stage, operation_type, store)
        )
        SELECT count(*), count(*) FILTER (WHERE t.store = 'dual_write' AND NOT t.success), max(t.at) FILTER (WHERE t.store = 'dual_write' AND NOT t.success),
               max(t.error) INTO v_some, v_failed, v_last, v_error FROM taken t;
        v_sum := v_sum + v_some;
        IF v_failed > 0 THEN
            UPDATE cutover.dual_write_config c
               SET failure_count = c.failure_count + v_failed, last_failure_at = greatest(c.last_failure_at, v_last), last_failure = v_error
             WHERE c.table_name = v_name;
        END IF;
    END LOOP;
    PERFORM cutover.prune_cutover_metrics(NULL);
    RETURN v_sum;
END
$$;

-- Where a table stood at a time.
CREATE OR REPLACE FUNCTION cutover.stage_at(p_table_name text, p_at timestamptz, OUT epoch bigint, OUT stage cutover.cutover_stage)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_since timestamptz;
BEGIN
    SELECT r.epoch, r.cutover_stage, r.stage_started_at INTO epoch, stage, v_since FROM cutover.traffic_routing_config r WHERE r.table_name = p_table_name;
    IF v_since > p_at THEN
        -- The audit knows.
        SELECT (a.detail ->> 'epoch')::bigint, (a.detail ->> 'to')::cutover.cutover_stage INTO epoch, stage
          FROM cutover.audit_log a WHERE a.table_name = p_table_name AND a.at <= p_at AND a.detail ? 'epoch' ORDER BY a.seq DESC LIMIT 1;
    END IF;
    epoch := coalesce(epoch, 0);
    stage := coalesce(stage, 'disabled');
END
$$;

-- Where nobody looks after the measurements, whoever makes them puts old ones together now and then, and is never harmed by it.
CREATE OR REPLACE FUNCTION cutover.roll_up_unattended() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_old timestamptz := clock_timestamp() - interval '5 minutes';
BEGIN
    -- Elsewhere, what others took meanwhile would be an error of the caller's transaction.
    IF current_setting('transaction_isolation') = 'read committed'
       AND (EXISTS (SELECT FROM cutover.dual_write_stats s WHERE s."timestamp" < v_old AND s.success)
            OR EXISTS (SELECT FROM cutover.shadow_table t, LATERAL (SELECT FROM cutover.operation_sample o WHERE o.table_name = t.table_name AND o.at < v_old LIMIT 1) o)) THEN
        PERFORM cutover.roll_up_operations(5000, false);
    END IF;
EXCEPTION WHEN OTHERS THEN
    NULL;
END
$$;

-- Forgets what was measured longer ago than that, or than `metrics_retention` of sql_installation: at most so many rows at once.
CREATE OR REPLACE FUNCTION cutover.prune_cutover_metrics(p_keep interval DEFAULT NULL, p_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_until timestamptz := clock_timestamp() - coalesce(p_keep, (SELECT i.metrics_retention FROM cutover.sql_installation i));
    v_metrics bigint;
    v_checks bigint;
BEGIN
    DELETE FROM cutover.cutover_performance_metrics m
     WHERE m.id IN (SELECT o.id FROM cutover.cutover_performance_metrics o WHERE o.measurement_period_end < v_until
                     ORDER BY o.measurement_period_end LIMIT p_rows FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_metrics = ROW_COUNT;
    DELETE FROM cutover.health_check h
     WHERE h.id IN (SELECT o.id FROM cutover.shadow_table t, LATERAL (SELECT c.id FROM cutover.health_check c
                     WHERE c.table_name = t.table_name AND c.at < v_until ORDER BY c.at LIMIT p_rows FOR UPDATE SKIP LOCKED) o);
    GET DIAGNOSTICS v_checks = ROW_COUNT;
    RETURN v_metrics + v_checks;
END
$$;

-- For how long measurements are kept.
CREATE OR REPLACE FUNCTION cutover.set_metrics_retention(p_keep interval) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_keep IS NULL OR p_keep < interval '1 hour' THEN
        PERFORM cutover.refuse('SC002', 'measurements are kept for an hour at least: health and reports need them', 'SELECT cutover.set_metrics_retention(''30 days'')');
    END IF;
    UPDATE cutover.sql_installation SET metrics_retention = p_keep;
    PERFORM cutover.append_audit('set_metrics_retention', NULL, NULL, jsonb_build_object('keep', p_keep));
END
$$;

-- Every operation that was measured since then, rolled up or not: how many took how long, and how many failed.
CREATE OR REPLACE FUNCTION cutover.measured(p_table_name text, p_since timestamptz)
RETURNS TABLE (epoch bigint, operation_type text, store text, ms double precision, operations bigint, failed bigint, first_at timestamptz, last_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.epoch, m.operation_type, m.store, l.ms, l.operations, CASE l.place WHEN 1 THEN m.failed_operations ELSE 0 END, m.measurement_period_start, m.measurement_period_end
      FROM cutover.cutover_performance_metrics m, unnest(m.latencies_ms, m.latency_counts) WITH ORDINALITY AS l (ms, operations, place)
     WHERE m.table_name = p_table_name AND m.measurement_period_end >= p_since AND m.measurement_period_start >= p_since
     UNION ALL
    SELECT s.epoch, s.operation_type, CASE WHEN s.used_shadow THEN 'shadow' ELSE 'primary' END, s.latency_ms, 1, (NOT s.success)::integer, s.at, s.at
      FROM cutover.operation_sample s WHERE s.table_name = p_table_name AND s.at >= p_since
     UNION ALL
    SELECT NULL, s.operation, 'dual_write', round(s.duration_ms::numeric, 1), 1, (NOT s.success)::integer, s."timestamp", s."timestamp"
      FROM cutover.dual_write_stats s WHERE s.table_name = p_table_name AND s."timestamp" >= p_since
$$;

-- The same in figures, by operation and by who did it. Percentiles are latencies that occurred (percentile_disc). Unit: milliseconds.
-- With p_epoch, of what applications recorded only what was recorded in that one.
CREATE OR REPLACE FUNCTION cutover.operation_figures(p_table_name text, p_since timestamptz, p_epoch bigint DEFAULT NULL)
RETURNS TABLE (operation_type text, store text, operations bigint, failed bigint, average double precision, p50 double precision, p95 double precision,
               p99 double precision, longest double precision, first_at timestamptz, last_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.operation_type, c.store, max(c.upto)::bigint, sum(c.failed)::bigint, sum(c.ms * c.operations) / max(c.upto),
           min(c.ms) FILTER (WHERE c.upto >= 0.5 * c.whole), min(c.ms) FILTER (WHERE c.upto >= 0.95 * c.whole), min(c.ms) FILTER (WHERE c.upto >= 0.99 * c.whole),
           max(c.ms), min(c.first_at), max(c.last_at)
      FROM (SELECT l.*, sum(l.operations) OVER (PARTITION BY l.operation_type, l.store ORDER BY l.ms) AS upto,
                   sum(l.operations) OVER (PARTITION BY l.operation_type, l.store) AS whole
              FROM (SELECT m.operation_type, m.store, m.ms, sum(m.operations) AS operations, sum(m.failed) AS failed, min(m.first_at) AS first_at, max(m.last_at) AS last_at
                      FROM cutover.measured(p_table_name, p_since) m
                     WHERE p_epoch IS NULL OR m.epoch = p_epoch OR m.store = 'dual_write'
                     GROUP BY m.operation_type, m.store, m.ms) l) c
     GROUP BY c.operation_type, c.store
$$;

-- How the second writes did in the last hours.
CREATE OR REPLACE FUNCTION cutover.get_dual_write_performance_summary(p_hours_back integer DEFAULT 24)
RETURNS TABLE (table_name text, total_operations bigint, successful_operations bigint, failed_operations bigint, success_rate numeric, avg_duration_ms numeric,
               max_duration_ms numeric, total_errors bigint, recent_errors text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_since timestamptz := cutover.hours_back(p_hours_back);
BEGIN
    RETURN QUERY
    SELECT s.table_name, coalesce(f.operations, 0)::bigint, coalesce(f.operations - f.failed, 0)::bigint, coalesce(f.failed, 0)::bigint,
           round(100.0 * (f.operations - f.failed) / f.operations, 2), round(f.average::numeric, 3), round(f.longest::numeric, 3), coalesce(f.failed, 0)::bigint,
           ARRAY(SELECT e.error FROM (SELECT d.error_message AS error, d."timestamp" AS at FROM cutover.dual_write_stats d
                                       WHERE d.table_name = s.table_name AND d."timestamp" >= v_since AND NOT d.success
                                       UNION ALL
                                      SELECT unnest(m.errors), m.measurement_period_end FROM cutover.cutover_performance_metrics m
                                       WHERE m.table_name = s.table_name AND m.measurement_period_end >= v_since) e
                  GROUP BY e.error ORDER BY max(e.at) DESC LIMIT 5)
      FROM cutover.shadow_table s
      LEFT JOIN LATERAL (SELECT sum(o.operations) AS operations, sum(o.failed) AS failed, sum(o.average * o.operations) / sum(o.operations) AS average, max(o.longest) AS longest
                           FROM cutover.operation_figures(s.table_name, v_since) o WHERE o.store = 'dual_write') f ON true
     ORDER BY s.table_name;
END
$$;

-- So many hours ago.
CREATE OR REPLACE FUNCTION cutover.hours_back(p_hours integer) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(p_hours, 0) < 1 THEN
        PERFORM cutover.refuse('SC002', format('%s hours back is no time', coalesce(p_hours::text, 'no')), '1 or more');
    END IF;
    RETURN clock_timestamp() - p_hours * interval '1 hour';
END
$$;
