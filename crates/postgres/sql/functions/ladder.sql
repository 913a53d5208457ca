-- The way of a table, stage by stage: who may take the next step, and when it is refused.
--
-- A stage is changed under a lock on the table's row, with an epoch that grows: of two who advance at once, the second finds
-- the table somewhere else and is refused.

-- Changes a table's stage, and tells whoever listens. The row is locked by the caller.
CREATE OR REPLACE FUNCTION cutover.set_stage(p_now cutover.traffic_routing_config, p_stage cutover.cutover_stage, p_action text, p_reason text,
                                             p_detail jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_share numeric := (SELECT r.read_percentage FROM cutover.ladder_rung r WHERE r.ladder = p_now.ladder AND r.stage = p_stage);
BEGIN
    UPDATE cutover.traffic_routing_config c
       SET cutover_stage = p_stage, read_percentage = v_share, epoch = c.epoch + 1, stage_started_at = clock_timestamp(),
           next_stage_eligible_at = clock_timestamp() + c.stage_duration_target_minutes * interval '1 minute',
           updated_at = clock_timestamp(), updated_by = session_user
     WHERE c.table_name = p_now.table_name;
    PERFORM cutover.append_audit(p_action, p_now.table_name, p_reason,
                                 p_detail || jsonb_build_object('from', p_now.cutover_stage, 'to', p_stage, 'read_percentage', v_share, 'epoch', p_now.epoch + 1));
    PERFORM pg_notify('cutover_route', json_build_object('table', p_now.table_name, 'stage', p_stage, 'read_percentage', v_share, 'epoch', p_now.epoch + 1)::text);
END
$$;

-- A table's row, locked until the end of the transaction; refused where the table is on no way, and for whoever decides by where
-- the table is: where somebody else has moved it meanwhile.
CREATE OR REPLACE FUNCTION cutover.locked_route(p_table_name text, p_as_it_was boolean) RETURNS cutover.traffic_routing_config
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '5s' AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_epoch bigint := (SELECT c.epoch FROM cutover.traffic_routing_config c WHERE c.table_name = v_shadow.table_name);
    v_route cutover.traffic_routing_config;
BEGIN
    SELECT * INTO v_route FROM cutover.traffic_routing_config c WHERE c.table_name = v_shadow.table_name FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM cutover.refuse('SC002', format('%s was not started', v_shadow.table_name), format('SELECT cutover.start_gradual_cutover(%L)', v_shadow.table_name));
    ELSIF p_as_it_was AND v_route.epoch <> v_epoch THEN
        PERFORM cutover.refuse('SC006', format('somebody else has just moved %s to %s', v_route.table_name, v_route.cutover_stage), 'look where it stands, and decide again');
    END IF;
    RETURN v_route;
EXCEPTION WHEN lock_not_available THEN
    PERFORM cutover.refuse('SC006', format('somebody else is deciding about %s', p_table_name), 'try again when they are done');
END
$$;

-- Begins: what is written goes to both, and all reads to the primary. Stages last at least so many minutes.
CREATE OR REPLACE FUNCTION cutover.start_gradual_cutover(p_table_name text, p_stage_duration_minutes integer DEFAULT 60) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config;
BEGIN
    IF coalesce(p_stage_duration_minutes, -1) < 0 THEN
        PERFORM cutover.refuse('SC002', format('a stage can''t last %s minutes', coalesce(p_stage_duration_minutes::text, 'no')), '0 or more');
    END IF;
    PERFORM cutover.refuse_missing_layers(v_shadow);
    INSERT INTO cutover.traffic_routing_config (table_name, salt, updated_by)
    VALUES (v_shadow.table_name, current_database() || '.' || v_shadow.table_name, session_user) ON CONFLICT DO NOTHING;
    v_route := cutover.locked_route(p_table_name, true);
    IF v_route.cutover_stage <> 'disabled' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s already', v_route.table_name, v_route.cutover_stage),
                               format('SELECT cutover.advance_cutover_stage(%L)', v_route.table_name));
    END IF;
    UPDATE cutover.traffic_routing_config c SET stage_duration_target_minutes = p_stage_duration_minutes WHERE c.table_name = v_route.table_name;
    PERFORM cutover.set_stage(v_route, 'dual_write', 'start_gradual_cutover', NULL, jsonb_build_object('minutes', p_stage_duration_minutes));
    RETURN format('%s is at dual_write: reads go to the primary', v_route.table_name);
END
$$;

-- C1: nothing advances on a layer that is not there.
CREATE OR REPLACE FUNCTION cutover.refuse_missing_layers(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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

-- Takes the next step. Refused before the stage has lasted as long as it was to, and where the comparison that is made now
-- does not say that both are the same. p_force passes over both, for the reason that is given.
CREATE OR REPLACE FUNCTION cutover.advance_cutover_stage(p_table_name text, p_force boolean DEFAULT false, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config := cutover.locked_route(p_table_name, true);
    v_next cutover.cutover_stage := cutover.next_stage(v_route);
    v_seen record;
    v_score numeric;
BEGIN
    IF v_route.cutover_stage = 'disabled' THEN
        PERFORM cutover.refuse('SC002', format('%s was not started', v_route.table_name), format('SELECT cutover.start_gradual_cutover(%L)', v_route.table_name));
    ELSIF v_next IS NULL OR v_next = 'completed' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s, and no step is left to take', v_route.table_name, v_route.cutover_stage),
                               CASE v_next WHEN 'completed' THEN format('SELECT cutover.complete_cutover(%L, true)', v_route.table_name) END);
    ELSIF p_force AND coalesce(btrim(p_reason), '') = '' THEN
        PERFORM cutover.refuse('SC003', 'to pass over the checks wants a reason', format('SELECT cutover.advance_cutover_stage(%L, true, ''why'')', v_route.table_name));
    END IF;
    PERFORM cutover.refuse_missing_layers(v_shadow);
    IF NOT coalesce(p_force, false) THEN
        IF clock_timestamp() < v_route.next_stage_eligible_at THEN
            PERFORM cutover.refuse('SC002', format('%s has to stay at %s until %s', v_route.table_name, v_route.cutover_stage, v_route.next_stage_eligible_at),
                                   format('%s minutes are left', ceil(extract(epoch FROM v_route.next_stage_eligible_at - clock_timestamp()) / 60)));
        END IF;
        SELECT * INTO v_seen FROM cutover.validate_table_consistency(p_table_name);
        v_score := v_seen.validation_score;
        IF v_seen.verdict <> 'same' THEN
            PERFORM cutover.refuse('SC005', format('the comparison of %s is %s: %s rows differ, %s are missing, %s are extra, %s keys are queued', v_route.table_name,
                                   v_seen.verdict, v_seen.inconsistent_records, v_seen.missing_in_shadow, v_seen.extra_in_shadow, v_seen.queued),
                                   'cutover sql drain, and cutover.backfill_step() where rows are missing; then try again');
        END IF;
    END IF;
    PERFORM cutover.set_stage(v_route, v_next, 'advance_cutover_stage', p_reason,
                              jsonb_build_object('forced', coalesce(p_force, false), 'score', v_score));
    RETURN format('%s is at %s', v_route.table_name, v_next);
END
$$;

-- The stage behind the one where a table is; none behind the last.
CREATE OR REPLACE FUNCTION cutover.next_stage(p_route cutover.traffic_routing_config) RETURNS cutover.cutover_stage
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT r.stage FROM cutover.ladder_rung r
     WHERE r.ladder = p_route.ladder
       AND r.place > (SELECT h.place FROM cutover.ladder_rung h WHERE h.ladder = p_route.ladder AND h.stage = p_route.cutover_stage)
     ORDER BY r.place LIMIT 1
$$;

-- All reads of every table that is on its way go to the primary. One that can't be rolled back keeps no other from it.
CREATE OR REPLACE FUNCTION cutover.emergency_stop_all_cutover(p_reason text DEFAULT 'emergency stop') RETURNS TABLE (table_name text, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN SELECT c.table_name FROM cutover.traffic_routing_config c WHERE c.cutover_stage NOT IN ('disabled', 'completed') ORDER BY c.table_name LOOP
        table_name := v_name;
        BEGIN
            outcome := format(CASE WHEN cutover.read_at_primary(v_name, p_reason) THEN '%s is read at the primary' ELSE '%s has just been completed' END, v_name);
        EXCEPTION WHEN OTHERS THEN
            outcome := format('failed: %s', SQLERRM);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
