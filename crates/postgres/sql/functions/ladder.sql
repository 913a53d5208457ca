-- The way of a table, stage by stage: who may take the next step, and when it is refused.
--
-- A stage is changed under a lock on the table's row, with an epoch that grows: of two who advance at once, the second finds
-- the table somewhere else and is refused.

-- Changes a table's stage, and tells whoever listens. The row is locked by the caller.
CREATE OR REPLACE FUNCTION cutover.set_stage(p_now cutover.traffic_routing_config, p_stage cutover.cutover_stage, p_action text, p_reason text,
                                             p_detail jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_rung cutover.ladder_rung := (SELECT r FROM cutover.ladder_rung r WHERE r.ladder = p_now.ladder AND r.stage = p_stage);
BEGIN
    UPDATE cutover.traffic_routing_config c
       SET cutover_stage = p_stage, read_percentage = v_rung.read_percentage, epoch = c.epoch + 1, stage_started_at = clock_timestamp(),
           next_stage_eligible_at = clock_timestamp() + coalesce(c.stage_duration_target_minutes * interval '1 minute', v_rung.recommended_dwell),
           health_status = 'unknown', consecutive_failures = 0, last_health_check = NULL, updated_at = clock_timestamp(), updated_by = session_user
     WHERE c.table_name = p_now.table_name;
    PERFORM cutover.append_audit(p_action, p_now.table_name, p_reason, p_detail || jsonb_build_object('from', p_now.cutover_stage, 'to', p_stage,
                                 'read_percentage', v_rung.read_percentage, 'epoch', p_now.epoch + 1));
    PERFORM cutover.tell_route(p_now.table_name);
END
$$;

-- Tells whoever listens where a table's reads go now.
CREATE OR REPLACE FUNCTION cutover.tell_route(p_table_name text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('cutover_route', json_build_object('table', c.table_name, 'stage', c.cutover_stage, 'read_percentage', c.read_percentage, 'epoch', c.epoch,
                                                        'health', c.health_status)::text)
      FROM cutover.traffic_routing_config c WHERE c.table_name = p_table_name
$$;

-- A table's row, locked until the end of the transaction. Who has decided by where the table stood says its epoch, and is refused where somebody else has
-- moved it since.
CREATE OR REPLACE FUNCTION cutover.locked_route(p_table_name text, p_epoch bigint DEFAULT NULL) RETURNS cutover.traffic_routing_config
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    v_name text := (cutover.shadow_of(p_table_name)).table_name;
    v_route cutover.traffic_routing_config;
BEGIN
    SELECT * INTO v_route FROM cutover.traffic_routing_config c WHERE c.table_name = v_name FOR UPDATE;
    IF v_route.epoch <> p_epoch THEN
        PERFORM cutover.refuse('SC006', format('somebody else has just moved %s to %s', v_route.table_name, v_route.cutover_stage), 'look where it stands, and decide again');
    END IF;
    RETURN v_route;
EXCEPTION WHEN lock_not_available THEN
    PERFORM cutover.refuse('SC006', format('somebody else is deciding about %s', p_table_name), 'try again when they are done');
END
$$;

-- Begins: what is written goes to both, and all reads to the primary. Stages last at least so many minutes; where it is null, as long as
-- the ladder recommends for each.
CREATE OR REPLACE FUNCTION cutover.start_gradual_cutover(p_table_name text, p_stage_duration_minutes integer DEFAULT 60) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config := cutover.route_of(p_table_name);
    v_first text;
BEGIN
    IF p_stage_duration_minutes < 0 THEN
        PERFORM cutover.refuse('SC002', format('a stage can''t last %s minutes', p_stage_duration_minutes), '0 or more');
    ELSIF v_route.cutover_stage <> 'disabled' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s already', v_route.table_name, v_route.cutover_stage),
                               format('SELECT cutover.advance_cutover_stage(%L)', v_route.table_name));
    ELSIF (SELECT c.emergency_stop FROM cutover.dual_write_config c WHERE c.table_name = v_route.table_name) THEN
        PERFORM cutover.refuse('SC002', format('%s was stopped in an emergency', v_route.table_name),
                               format('once its cause is gone: SELECT cutover.enable_dual_write(%L)', v_route.table_name));
    END IF;
    PERFORM cutover.refuse_missing_layers(v_shadow);
    v_route := cutover.locked_route(p_table_name, v_route.epoch);
    UPDATE cutover.traffic_routing_config c SET stage_duration_target_minutes = p_stage_duration_minutes, baseline = '{}' WHERE c.table_name = v_route.table_name;
    PERFORM cutover.set_stage(v_route, 'dual_write', 'start_gradual_cutover', NULL, jsonb_build_object('minutes', p_stage_duration_minutes));
    SELECT o.table_name INTO v_first FROM cutover.recommended_order() o, cutover.recommended_order() mine
     WHERE mine.table_name = v_route.table_name AND o.place < mine.place AND o.cutover_stage = 'disabled' ORDER BY o.place LIMIT 1;
    IF v_first IS NOT NULL THEN
        RAISE WARNING '% is to go before %, and was not started', v_first, v_route.table_name USING HINT = 'SELECT * FROM cutover.recommended_order()';
    END IF;
    RETURN format('%s is at dual_write: reads go to the primary', v_route.table_name);
END
$$;

-- In which order the tables are best moved: as was configured; else what others refer to before those, and small before large.
CREATE OR REPLACE FUNCTION cutover.recommended_order() RETURNS TABLE (place bigint, table_name text, cutover_stage cutover.cutover_stage, why text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE refers AS (
        SELECT s.primary_table AS relation, 0 AS depth, ARRAY[s.primary_table::oid] AS seen FROM cutover.shadow_table s
         UNION ALL
        SELECT s.primary_table, r.depth + 1, r.seen || s.primary_table::oid
          FROM refers r JOIN pg_constraint c ON c.contype = 'f' AND c.confrelid = r.relation JOIN cutover.shadow_table s ON s.primary_table = c.conrelid
         WHERE s.primary_table <> ALL (r.seen) AND r.depth < 20
    ), known AS (
        SELECT s.table_name, c.cutover_order, c.cutover_stage, (SELECT max(r.depth) FROM refers r WHERE r.relation = s.primary_table) AS depth,
               cutover.estimated_rows(s.primary_table) AS rows
          FROM cutover.shadow_table s JOIN cutover.traffic_routing_config c USING (table_name)
    )
    SELECT row_number() OVER (ORDER BY k.cutover_order NULLS LAST, k.depth, k.rows, k.table_name), k.table_name, k.cutover_stage,
           CASE WHEN k.cutover_order IS NOT NULL THEN 'configured: ' || k.cutover_order ELSE format('about %s rows, refers to tables %s deep', k.rows, k.depth) END
      FROM known k ORDER BY 1
$$;

-- A ladder of one's own: an array of stages in their order, each with its share of reads in percent and how long it lasts where nobody says otherwise:
-- [{"stage": "disabled"}, {"stage": "dual_write", "dwell": "1 hour"}, {"stage": "test_10", "share": 5, "dwell": "1 day"}, …, {"stage": "completed", "share": 100}].
-- Tables go by it from configure_cutover(table, '{"ladder": name}') on. Refused while one that is under way does.
CREATE OR REPLACE FUNCTION cutover.set_ladder(p_ladder text, p_stages jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_wrong text;
    v_table text;
BEGIN
    IF coalesce(btrim(p_ladder), '') IN ('', 'default') OR jsonb_typeof(p_stages) IS DISTINCT FROM 'array' THEN
        PERFORM cutover.refuse('SC002', 'a ladder has a name of its own, and an array of stages', '[{"stage": "dual_write", "share": 0, "dwell": "1 hour"}, …]');
    END IF;
    -- Nobody begins or moves by it meanwhile.
    PERFORM cutover.locked_route(c.table_name) FROM cutover.traffic_routing_config c WHERE c.ladder = p_ladder ORDER BY c.table_name;
    SELECT c.table_name INTO v_table FROM cutover.traffic_routing_config c WHERE c.ladder = p_ladder AND c.cutover_stage <> 'disabled' ORDER BY c.table_name LIMIT 1;
    IF v_table IS NOT NULL THEN
        PERFORM cutover.refuse('SC002', format('%s is under way on the ladder %s', v_table, p_ladder), 'give the new one another name');
    END IF;
    BEGIN
        DELETE FROM cutover.ladder_rung r WHERE r.ladder = p_ladder;
        INSERT INTO cutover.ladder_rung (ladder, place, stage, read_percentage, recommended_dwell)
        SELECT p_ladder, s.place - 1, (s.stage ->> 'stage')::cutover.cutover_stage, coalesce((s.stage ->> 'share')::numeric, 0), coalesce((s.stage ->> 'dwell')::interval, '0')
          FROM jsonb_array_elements(p_stages) WITH ORDINALITY AS s (stage, place);
    EXCEPTION WHEN data_exception OR invalid_text_representation OR integrity_constraint_violation THEN
        PERFORM cutover.refuse('SC002', format('such a ladder can''t be: %s', SQLERRM), 'each stage once, a share of 0 to 100 percent, and a dwell such as "6 hours"');
    END;
    WITH rungs AS (SELECT r.*, lag(r.stage) OVER w AS before, lag(r.read_percentage) OVER w AS share_before, lead(r.stage) OVER w AS behind
                     FROM cutover.ladder_rung r WHERE r.ladder = p_ladder WINDOW w AS (ORDER BY r.place))
    SELECT CASE WHEN (SELECT count(*) FROM rungs) < 4 THEN 'it has fewer than four stages'
                ELSE (SELECT string_agg(CASE
                    WHEN r.place < 2 AND (r.stage <> (ARRAY['disabled', 'dual_write']::cutover.cutover_stage[])[r.place + 1] OR r.read_percentage > 0)
                        THEN 'it begins with disabled and dual_write, at which nobody reads the shadow'
                    WHEN r.behind IS NULL AND r.stage <> 'completed' OR r.behind = 'completed' AND r.read_percentage <> 100 OR r.stage = 'completed' AND r.read_percentage <> 100
                        THEN 'it ends with all reads at the shadow, and then completed'
                    WHEN r.stage <= r.before OR r.read_percentage < r.share_before OR r.recommended_dwell < '0'
                        THEN 'its stages and shares only grow, and last no less than no time' END, '; ') FROM rungs r) END INTO v_wrong;
    IF v_wrong IS NOT NULL THEN
        PERFORM cutover.refuse('SC002', format('such a ladder can''t be: %s', v_wrong), 'SELECT * FROM cutover.ladder_rung WHERE ladder = ''default'' ORDER BY place shows one');
    END IF;
    PERFORM cutover.append_audit('set_ladder', NULL, NULL, jsonb_build_object('ladder', p_ladder, 'stages', p_stages));
END
$$;

-- C1: nothing advances on a layer that is not there.
CREATE OR REPLACE FUNCTION cutover.refuse_missing_layers(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_config cutover.dual_write_config := (SELECT c FROM cutover.dual_write_config c WHERE c.table_name = p_shadow.table_name);
    v_missing text := (SELECT string_agg(m.relation::text, ', ') FROM cutover.without_dual_write(p_shadow) AS m (relation));
BEGIN
    IF NOT v_config.enabled OR v_missing IS NOT NULL THEN
        PERFORM cutover.refuse('SC002', format('%s is not written twice%s', p_shadow.table_name, coalesce(': triggers are missing at ' || v_missing, '')),
                               format('SELECT cutover.enable_dual_write(%L)', p_shadow.table_name));
    END IF;
END
$$;

-- Takes the next step. Refused before the stage has lasted as long as it was to and was watched all the while, where errors, latency or the score are not
-- within the limits for it or were not measured, and where the comparison that is made now does not say that both are the same. p_force passes over all
-- that, for the reason that is given. Nothing is locked while it is found out, so a rollback never waits for it.
CREATE OR REPLACE FUNCTION cutover.advance_cutover_stage(p_table_name text, p_force boolean DEFAULT false, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config := cutover.route_of(p_table_name);
    v_next cutover.cutover_stage := cutover.next_stage(v_route);
    v_seen cutover.health_measure;
BEGIN
    IF v_route.cutover_stage = 'disabled' THEN
        PERFORM cutover.refuse('SC002', format('%s was not started', v_route.table_name), format('SELECT cutover.start_gradual_cutover(%L)', v_route.table_name));
    ELSIF v_next = 'completed' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s, and only completion is left', v_route.table_name, v_route.cutover_stage),
                               format('SELECT cutover.complete_cutover(%L, true)', v_route.table_name));
    ELSIF v_next IS NULL THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s, and no step is left to take', v_route.table_name, v_route.cutover_stage));
    ELSIF p_force AND coalesce(btrim(p_reason), '') = '' THEN
        PERFORM cutover.refuse('SC003', 'to pass over the checks wants a reason', format('SELECT cutover.advance_cutover_stage(%L, true, ''why'')', v_route.table_name));
    END IF;
    PERFORM cutover.refuse_missing_layers(v_shadow);
    IF NOT coalesce(p_force, false) THEN
        v_seen := cutover.refuse_unready(v_route);
    END IF;
    v_route := cutover.locked_route(p_table_name, v_route.epoch);
    IF v_seen.baseline IS NOT NULL THEN
        UPDATE cutover.traffic_routing_config c SET baseline = v_seen.baseline WHERE c.table_name = v_route.table_name;
    END IF;
    PERFORM cutover.set_stage(v_route, v_next, 'advance_cutover_stage', p_reason, jsonb_build_object('forced', coalesce(p_force, false), 'score', v_seen.validation_score,
                              'error_rate_percent', v_seen.error_rate_percent, 'latency_increase_percent', v_seen.latency_increase_percent, 'samples', v_seen.samples));
    RETURN format('%s is at %s', v_route.table_name, v_next);
END
$$;

-- The stage behind the one where a table is; none behind the last.
CREATE OR REPLACE FUNCTION cutover.next_stage(p_route cutover.traffic_routing_config) RETURNS cutover.cutover_stage
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.stage FROM cutover.ladder_rung r
     WHERE r.ladder = p_route.ladder
       AND r.place > (SELECT h.place FROM cutover.ladder_rung h WHERE h.ladder = p_route.ladder AND h.stage = p_route.cutover_stage)
     ORDER BY r.place LIMIT 1
$$;

-- All reads of every table that is on its way go to the primary, and none of them is started again before enable_dual_write() says so. One that can't
-- be rolled back keeps no other from it.
CREATE OR REPLACE FUNCTION cutover.emergency_stop_all_cutover(p_reason text DEFAULT 'emergency stop') RETURNS TABLE (table_name text, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN SELECT c.table_name FROM cutover.traffic_routing_config c WHERE c.cutover_stage NOT IN ('disabled', 'completed') ORDER BY c.table_name LOOP
        table_name := v_name;
        BEGIN
            outcome := format(CASE WHEN cutover.read_at_primary(v_name, p_reason) THEN '%s is read at the primary' ELSE '%s has just been completed' END, v_name);
            UPDATE cutover.dual_write_config c SET emergency_stop = true WHERE c.table_name = v_name;
            PERFORM cutover.alert(v_name, 'emergency_stop: ' || p_reason);
        EXCEPTION WHEN OTHERS THEN
            outcome := format('failed: %s', SQLERRM);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
