-- Completion: the shadow takes the table's place, and the table becomes its shadow. So dual writes, drain and comparison go on as
-- they are, and the way back is the same once more.

-- Refused, with everything that is in the way, and how to mend each.
CREATE OR REPLACE FUNCTION cutover.refuse_obstacles(p_table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_all text;
    v_fix text;
BEGIN
    SELECT string_agg(c.detail, '; '), string_agg(c.fix, '; ') INTO v_all, v_fix FROM cutover.check_completion(p_table_name) c WHERE c.blocks;
    IF v_all IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', v_all, v_fix);
    END IF;
END
$$;

-- The shadow takes the table's place, in one transaction that waits for the tables at most half a second at a time. What runs goes on:
-- statements that wait meanwhile find the new table by the old name. The old one, now with _old behind its name, is written
-- along until cutover.drop_shadow_table() ends the way back.
CREATE OR REPLACE FUNCTION cutover.complete_cutover(p_table_name text, p_confirm_completion boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config;
    v_held_ms integer;
BEGIN
    IF NOT coalesce(p_confirm_completion, false) THEN
        PERFORM cutover.refuse('SC003', format('completing %s has its shadow take its place', v_shadow.table_name),
                               format('SELECT * FROM cutover.check_completion(%L), then SELECT cutover.complete_cutover(%1$L, true)', v_shadow.table_name));
    END IF;
    PERFORM cutover.exchange_alone(v_shadow.table_name);
    v_shadow := cutover.shadow_of(p_table_name);
    PERFORM cutover.refuse_not_owner(v_shadow);
    v_route := cutover.refuse_not_last(v_shadow.table_name);
    PERFORM cutover.refuse_obstacles(v_shadow.table_name);
    PERFORM cutover.refuse_unready(v_route);
    PERFORM cutover.refuse_no_way_back(v_shadow);
    v_held_ms := cutover.exchange(v_shadow, v_route.epoch, 'completed', NULL);
    RETURN format('%s is completed; its tables were held for %s ms%s', v_shadow.table_name, v_held_ms, cutover.left_to_validate(v_shadow.table_name));
END
$$;

-- One who has a table and its shadow change places at a time, to the end of their transaction. Whoever waited looks anew.
CREATE OR REPLACE FUNCTION cutover.exchange_alone(p_table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1129665588, hashtext(p_table_name));
EXCEPTION WHEN lock_not_available THEN
    PERFORM cutover.refuse('SC006', format('somebody else has %s and its shadow change places', p_table_name), 'look where it stands when they are done');
END
$$;

-- Whether a table is where it can be completed from: at the last stage before, with all of its layers. Returns where that was.
CREATE OR REPLACE FUNCTION cutover.refuse_not_last(p_table_name text) RETURNS cutover.traffic_routing_config
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_route cutover.traffic_routing_config := cutover.route_of(p_table_name);
BEGIN
    IF cutover.next_stage(v_route) IS DISTINCT FROM 'completed' THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s, and can be completed only from the last stage before', v_route.table_name, v_route.cutover_stage),
                               format('SELECT cutover.%s(%L)', CASE v_route.cutover_stage WHEN 'disabled' THEN 'start_gradual_cutover' ELSE 'advance_cutover_stage' END, p_table_name));
    END IF;
    PERFORM cutover.refuse_missing_layers(cutover.shadow_of(p_table_name));
    RETURN v_route;
END
$$;

-- The last comparison, in the other direction: each row of the shadow makes its row again. What a way back could not restore is no completion.
CREATE OR REPLACE FUNCTION cutover.refuse_no_way_back(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_counts bigint[];
    v_function text;
BEGIN
    -- The functions of the way back are there for this, and made again behind the renaming.
    EXECUTE cutover.shadow_functions(p_shadow.shadow_table, p_shadow.primary_table, p_shadow.shadow_key_columns, p_shadow.key_columns, p_shadow.down);
    SELECT format('%I.%I', n.nspname, 'cutover_compare_' || c.oid) INTO v_function FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_shadow.shadow_table;
    EXECUTE format('SELECT %s(NULL)', v_function) INTO v_counts;
    IF v_counts[4] + v_counts[5] + v_counts[6] > 0 THEN
        PERFORM cutover.refuse('SC005', format('the way back would change %s rows of %s: their row in the shadow does not make them again', v_counts[4] + v_counts[5] + v_counts[6], p_shadow.table_name),
                               'change the mapping''s "down", or what the shadow''s columns hold');
    END IF;
END
$$;

-- Locks, brings what is queued, exchanges, and notes it: tried again where somebody is in the way, and each time from nothing. Returns
-- for how long the tables were held, in milliseconds.
CREATE OR REPLACE FUNCTION cutover.exchange(p_shadow cutover.shadow_table, p_epoch bigint, p_stage text, p_reason text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    v_back boolean := p_stage <> 'completed';
    v_began timestamptz;
    v_ms integer;
    v_swapped record;
    v_message text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM cutover.refuse('SC002', 'tables change places only where each statement sees what was committed before it', 'BEGIN ISOLATION LEVEL READ COMMITTED');
    END IF;
    PERFORM cutover.hold_off_vacuum(p_shadow);
    FOR v_try IN 1 .. 10 LOOP
        BEGIN
            PERFORM cutover.lock_all(p_shadow);
            v_began := clock_timestamp();
            -- Whoever was first has changed what is known here.
            IF p_epoch IS DISTINCT FROM (SELECT c.epoch FROM cutover.traffic_routing_config c WHERE c.table_name = p_shadow.table_name) THEN
                PERFORM cutover.refuse('SC006', format('somebody else has just moved %s', p_shadow.table_name), 'look where it stands, and decide again');
            END IF;
            PERFORM cutover.refuse_missing_layers(p_shadow);
            PERFORM cutover.refuse_obstacles(p_shadow.table_name);
            PERFORM cutover.bring_queued(p_shadow);
            SELECT * INTO v_swapped FROM cutover.swap(p_shadow, v_back);
            v_ms := extract(epoch FROM clock_timestamp() - v_began) * 1000;
            PERFORM cutover.note_swap(p_shadow.table_name, p_epoch, p_stage, v_swapped.stand_in, v_swapped.own_objects, p_reason,
                                      jsonb_build_object('statements', to_jsonb(v_swapped.statements), 'held_ms', v_ms));
            RETURN v_ms;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT;
        END;
        PERFORM pg_sleep(0.05 * v_try);
    END LOOP;
    PERFORM cutover.refuse('SC006', format('%s is in use: %s', p_shadow.table_name, v_message),
                           format('nothing was changed: try again when they are done%s', coalesce(', ' || cutover.in_the_way(p_shadow), '')));
END
$$;

-- The tables that are locked, in the order of those who write: the table, its shadow, what refers to it, what it refers to.
CREATE OR REPLACE FUNCTION cutover.tables_to_lock(p_shadow cutover.shadow_table) RETURNS TABLE (place integer, relation regclass)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT min(t.place), t.relation FROM (
        SELECT 1 AS place, p_shadow.primary_table AS relation UNION ALL SELECT 2, p_shadow.shadow_table
        UNION ALL SELECT 3, f.child FROM cutover.foreign_keys(p_shadow) f UNION ALL SELECT 4, f.parent FROM cutover.foreign_keys(p_shadow) f) t
      JOIN pg_class c ON c.oid = t.relation AND pg_has_role(c.relowner, 'USAGE') GROUP BY t.relation ORDER BY 1, 2
$$;

-- Takes the lock that only vacuum and definitions take, and keeps it: nobody who reads or writes waits for it or behind it. An
-- autovacuum, which may take hours, gives way to whoever waits for as long as the server takes to look for a deadlock, and later
-- nobody here waits that long.
CREATE OR REPLACE FUNCTION cutover.hold_off_vacuum(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_table regclass;
BEGIN
    PERFORM set_config('lock_timeout', (SELECT (s.setting::integer + 1000)::text FROM pg_settings s WHERE s.name = 'deadlock_timeout'), true);
    FOR v_table IN SELECT t.relation FROM cutover.tables_to_lock(p_shadow) t LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', v_table);
    END LOOP;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    PERFORM cutover.refuse('SC006', format('%s is being vacuumed, or its definition changed', v_table),
                           format('nothing was changed: try again when they are done%s', coalesce(', ' || cutover.in_the_way(p_shadow), '')));
END
$$;

-- Locks everything that is concerned, or says that somebody is in the way. From the first lock on, less than the server takes to look for
-- a deadlock is waited for all others together, so that it is never somebody else who is the victim of one.
CREATE OR REPLACE FUNCTION cutover.lock_all(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_left_ms integer := (SELECT least(500, s.setting::integer / 2 + 1) FROM pg_settings s WHERE s.name = 'deadlock_timeout');
    v_until timestamptz;
    v_statement text;
BEGIN
    IF NOT cutover.bring_alone(p_shadow) THEN
        RAISE lock_not_available USING MESSAGE = 'rows are being brought just now';
    END IF;
    FOR v_statement IN
        -- Views first, as whoever reads through them does. LOCK would take all tables of a view.
        SELECT v.statement FROM (
            SELECT 0 AS place, c.oid, format('ALTER VIEW %s OWNER TO %s', c.oid::regclass, c.relowner::regrole) AS statement FROM pg_class c
             WHERE pg_has_role(c.relowner, 'USAGE')
               AND (c.oid = p_shadow.stand_in OR c.oid IN (SELECT r.ev_class FROM cutover.to_carry(p_shadow) h JOIN pg_rewrite r ON r.oid = h.object_id WHERE h.kind = 'view'))
            UNION ALL
            SELECT t.place, t.relation, format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', t.relation) FROM cutover.tables_to_lock(p_shadow) t) v
         ORDER BY v.place, v.oid
    LOOP
        PERFORM set_config('lock_timeout', greatest(v_left_ms, 1)::text, true);
        EXECUTE v_statement;
        v_until := coalesce(v_until, clock_timestamp() + v_left_ms * interval '1 millisecond');
        v_left_ms := extract(epoch FROM v_until - clock_timestamp()) * 1000;
    END LOOP;
    -- For what is locked besides, such as a table of somebody else that is referred to.
    PERFORM set_config('lock_timeout', greatest(v_left_ms, 20)::text, true);
END
$$;

-- Who holds what is to be locked.
CREATE OR REPLACE FUNCTION cutover.in_the_way(p_shadow cutover.shadow_table) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'such as process ' || string_agg(DISTINCT l.pid::text, ', ') FROM pg_locks l
     WHERE l.granted AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND l.pid <> pg_backend_pid()
       AND l.relation IN (SELECT p_shadow.primary_table UNION SELECT p_shadow.shadow_table UNION SELECT f.child FROM cutover.foreign_keys(p_shadow) f
                          UNION SELECT f.parent FROM cutover.foreign_keys(p_shadow) f)
$$;

-- Brings what is queued while nobody can write: little, or it is refused.
CREATE OR REPLACE FUNCTION cutover.bring_queued(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_queued bigint;
    v_why text;
BEGIN
    v_queued := cutover.queued(p_shadow.table_name, 1001);
    IF v_queued > 1000 THEN
        PERFORM cutover.refuse('SC006', format('more than 1000 keys of %s are queued, too many to bring while everybody waits', p_shadow.table_name), 'cutover sql drain, then try again');
    ELSIF v_queued > 0 THEN
        PERFORM cutover.bring_dirty(p_shadow.table_name, 1000);
        SELECT count(DISTINCT d.key), string_agg(DISTINCT d.why, '; ') INTO v_queued, v_why FROM cutover.dirty_key d WHERE d.table_name = p_shadow.table_name;
        IF v_queued > 0 THEN
            PERFORM cutover.refuse('SC005', format('%s keys of %s can''t be brought to %s: %s', v_queued, p_shadow.table_name, p_shadow.shadow_table, v_why),
                                   format('their rows would be lost: mend them, or what %s refuses, and drain', p_shadow.shadow_table));
        END IF;
    END IF;
END
$$;

-- Notes down that they have changed places. Nobody who does not own both says so, and only of what the catalogue says as well.
CREATE OR REPLACE FUNCTION cutover.note_swap(p_table_name text, p_epoch bigint, p_stage text, p_stand_in regclass, p_own_objects text[], p_reason text, p_detail jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table;
    v_route cutover.traffic_routing_config;
BEGIN
    SELECT * INTO v_shadow FROM cutover.shadow_table s WHERE s.table_name = p_table_name FOR UPDATE;
    SELECT * INTO v_route FROM cutover.traffic_routing_config c WHERE c.table_name = p_table_name FOR UPDATE;
    IF cutover.name_of(v_shadow.shadow_table) IS DISTINCT FROM p_table_name OR p_stage NOT IN ('completed', 'disabled')
       OR EXISTS (SELECT FROM pg_class c WHERE c.oid IN (v_shadow.primary_table, v_shadow.shadow_table) AND NOT pg_has_role(session_user, c.relowner, 'MEMBER')) THEN
        PERFORM cutover.refuse('SC004', format('the tables of %s have not changed places, or belong to somebody else', p_table_name));
    ELSIF v_route.epoch IS DISTINCT FROM p_epoch THEN
        PERFORM cutover.refuse('SC006', format('somebody else has just moved %s to %s', p_table_name, v_route.cutover_stage), 'look where it stands, and decide again');
    END IF;
    UPDATE cutover.shadow_table s
       SET primary_table = s.shadow_table, shadow_table = s.primary_table, key_columns = s.shadow_key_columns, shadow_key_columns = s.key_columns, up = s.down, down = s.up,
           refresh_function = replace(s.refresh_function, format('_%s(', s.primary_table::oid), format('_%s(', s.shadow_table::oid)),
           next_keys_function = replace(s.next_keys_function, format('_%s(', s.primary_table::oid), format('_%s(', s.shadow_table::oid)),
           compare_function = replace(s.compare_function, format('_%s(', s.primary_table::oid), format('_%s(', s.shadow_table::oid)),
           stand_in = p_stand_in, own_objects = p_own_objects
     WHERE s.table_name = p_table_name;
    PERFORM cutover.set_stage(v_route, p_stage::cutover.cutover_stage, CASE p_stage WHEN 'completed' THEN 'complete_cutover' ELSE 'emergency_rollback' END, p_reason, p_detail);
END
$$;
