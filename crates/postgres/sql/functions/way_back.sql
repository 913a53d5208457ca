-- After completion: the way back, its end, keys that have yet to look at the rows, and what applications of two shapes ask.

-- All reads go to the primary, as of the next one that asks. What is written goes on to both, so nothing is lost and the way can be
-- begun again. Where the table is completed, both change their places once more, and that is its owner's to ask for.
CREATE OR REPLACE FUNCTION cutover.emergency_rollback(p_table_name text, p_reason text DEFAULT 'emergency rollback') RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_held_ms integer;
BEGIN
    IF cutover.read_at_primary(p_table_name, p_reason) THEN
        RETURN format('%s is read at the primary', p_table_name);
    END IF;
    v_held_ms := cutover.go_back(p_table_name, p_reason);
    RETURN format('%s is the old table again; its tables were held for %s ms%s', p_table_name, v_held_ms, cutover.left_to_validate(p_table_name));
END
$$;

-- The reads alone, with nobody's rights but those of the functions. False: it is completed, and this is not enough.
CREATE OR REPLACE FUNCTION cutover.read_at_primary(p_table_name text, p_reason text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_route cutover.traffic_routing_config := cutover.locked_route(p_table_name);
BEGIN
    IF coalesce(btrim(p_reason), '') = '' THEN
        PERFORM cutover.refuse('SC003', 'a rollback wants a reason', 'in a few words, for the audit');
    ELSIF v_route.cutover_stage NOT IN ('disabled', 'completed') THEN
        PERFORM cutover.set_stage(v_route, 'disabled', 'emergency_rollback', p_reason);
    END IF;
    RETURN v_route.cutover_stage <> 'completed';
END
$$;

-- The old table takes its place again, and the new one is its shadow. What could not be brought to it would be lost: refused.
CREATE OR REPLACE FUNCTION cutover.go_back(p_table_name text, p_reason text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config;
BEGIN
    PERFORM cutover.refuse_not_owner(v_shadow);
    PERFORM cutover.exchange_alone(v_shadow.table_name);
    v_shadow := cutover.shadow_of(p_table_name);
    SELECT * INTO v_route FROM cutover.traffic_routing_config c WHERE c.table_name = v_shadow.table_name;
    IF v_route.cutover_stage <> 'completed' THEN
        PERFORM cutover.refuse('SC006', format('somebody else has just moved %s to %s', v_shadow.table_name, v_route.cutover_stage), 'look where it stands, and decide again');
    END IF;
    PERFORM cutover.refuse_obstacles(v_shadow.table_name);
    RETURN cutover.exchange(v_shadow, v_route.epoch, 'disabled', p_reason);
END
$$;

-- Whoever has a pair change places, or ends it, is its owner: what is made belongs to them.
CREATE OR REPLACE FUNCTION cutover.refuse_not_owner(p_shadow cutover.shadow_table) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_owner text := (SELECT c.relowner::regrole::text FROM pg_class c WHERE c.oid IN (p_shadow.primary_table, p_shadow.shadow_table) AND c.relowner <> current_user::regrole LIMIT 1);
BEGIN
    IF v_owner IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', format('%s belongs to %s, and you are %I', p_shadow.table_name, v_owner, current_user), format('SET ROLE %s', v_owner));
    END IF;
END
$$;

-- Ends it: before the way is begun, or after a rollback, the shadow is dropped; after completion the old table is, and no way
-- back is left. Nobody reads them any more by then: applications ask where to read.
CREATE OR REPLACE FUNCTION cutover.drop_shadow_table(p_table_name text, p_confirm boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_route cutover.traffic_routing_config := (SELECT c FROM cutover.traffic_routing_config c WHERE c.table_name = v_shadow.table_name);
    v_stage text := coalesce(v_route.cutover_stage::text, 'disabled');
    v_dropped text := (SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = v_shadow.shadow_table);
    v_statement text;
    v_message text;
BEGIN
    IF v_stage NOT IN ('disabled', 'completed') THEN
        PERFORM cutover.refuse('SC002', format('%s is at %s, and its shadow may be read', v_shadow.table_name, v_stage), format('SELECT cutover.emergency_rollback(%L, ''why'')', v_shadow.table_name));
    ELSIF NOT coalesce(p_confirm, false) THEN
        PERFORM cutover.refuse('SC003', format('this drops %s%s', coalesce(v_dropped || ' with its rows', 'what is left of the pair'), CASE v_stage WHEN 'completed' THEN ', and ends the way back' ELSE '' END),
                               format('SELECT cutover.drop_shadow_table(%L, true)', v_shadow.table_name));
    END IF;
    PERFORM cutover.refuse_not_owner(v_shadow);
    -- The table that stays first, as whoever writes does.
    FOR v_statement IN
        SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
         WHERE t.tgparentid = 0 AND t.tgname LIKE 'cutover\_dual\_write\_%' AND t.tgrelid IN (SELECT * FROM cutover.written_tables(v_shadow.primary_table))
        UNION ALL SELECT format('DROP FUNCTION %s', f.oid::regprocedure) FROM cutover.pair_functions(v_shadow) f
        UNION ALL SELECT format('DROP VIEW %s', c.oid::regclass) FROM pg_class c WHERE c.oid = v_shadow.stand_in
        UNION ALL SELECT format('DROP TABLE %s', v_dropped) WHERE v_dropped IS NOT NULL
    LOOP
        BEGIN
            EXECUTE v_statement;
        EXCEPTION
            WHEN dependent_objects_still_exist THEN
                GET STACKED DIAGNOSTICS v_message = PG_EXCEPTION_DETAIL;
                PERFORM cutover.refuse('SC004', v_message, 'drop it first; nothing was changed');
            WHEN lock_not_available THEN
                PERFORM cutover.refuse('SC006', format('%s is in use by a long transaction', v_shadow.table_name), 'nothing was changed: try again when it has ended');
        END;
    END LOOP;
    PERFORM cutover.note_dropped(v_shadow.table_name, v_stage);
    RETURN format('%s has no shadow any more', v_shadow.table_name);
END
$$;

-- Forgets a pair whose shadow is gone. What was decided about it stays in the audit.
CREATE OR REPLACE FUNCTION cutover.note_dropped(p_table_name text, p_stage text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := (SELECT s FROM cutover.shadow_table s WHERE s.table_name = p_table_name);
    v_stage text;
BEGIN
    SELECT c.cutover_stage::text INTO v_stage FROM cutover.traffic_routing_config c WHERE c.table_name = p_table_name FOR UPDATE;
    IF coalesce(v_stage, 'disabled') <> p_stage OR p_stage NOT IN ('disabled', 'completed') THEN
        PERFORM cutover.refuse('SC006', format('somebody else has just moved %s to %s', p_table_name, v_stage), 'look where it stands, and decide again');
    ELSIF EXISTS (SELECT FROM pg_class c WHERE c.oid = v_shadow.shadow_table)
       OR EXISTS (SELECT FROM pg_class c WHERE c.oid = v_shadow.primary_table AND NOT pg_has_role(session_user, c.relowner, 'MEMBER')) THEN
        PERFORM cutover.refuse('SC004', format('the shadow of %s is there, or belongs to somebody else', p_table_name));
    END IF;
    DELETE FROM cutover.shadow_table s WHERE s.table_name = p_table_name;
    IF p_stage = 'disabled' THEN
        DELETE FROM cutover.new_table n WHERE n.table_name = p_table_name;
    END IF;
    PERFORM cutover.append_audit('drop_shadow_table', p_table_name, NULL, jsonb_build_object('stage', p_stage));
    PERFORM pg_notify('cutover_route', json_build_object('table', p_table_name, 'dropped', true)::text);
END
$$;

-- Foreign keys of a table, and to it, that hold for what is written but have not looked at the rows there are.
CREATE OR REPLACE FUNCTION cutover.unvalidated(p_table_name text) RETURNS TABLE (child regclass, name text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_table regclass := (SELECT s.primary_table FROM cutover.shadow_table s WHERE s.table_name = p_table_name);
BEGIN
    IF v_table IS NULL THEN
        -- Also once the pair has ended.
        v_table := cutover.table_named(p_table_name);
    END IF;
    RETURN QUERY
    SELECT c.conrelid::regclass, c.conname::text FROM pg_constraint c
     WHERE c.contype = 'f' AND NOT c.convalidated AND c.conparentid = 0 AND coalesce(to_jsonb(c) ->> 'conenforced', 'true') = 'true'
       AND v_table IN (c.conrelid, c.confrelid)
     ORDER BY 1, 2;
END
$$;

-- How many there are, for whoever has just made them.
CREATE OR REPLACE FUNCTION cutover.left_to_validate(p_table_name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) = 0 THEN ''
                ELSE format('. %s foreign keys have yet to look at the rows: SELECT * FROM cutover.validate_foreign_keys(%L)', count(*), p_table_name) END
      FROM cutover.unvalidated(p_table_name)
$$;

-- Has them look at the rows, beside whoever reads and writes. A key that finds a row without its parent stays as it is, and holds up no other.
CREATE OR REPLACE FUNCTION cutover.validate_foreign_keys(p_table_name text) RETURNS TABLE (child regclass, foreign_key text, outcome text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
    FOR child, foreign_key IN SELECT u.child, u.name FROM cutover.unvalidated(p_table_name) u LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', child, foreign_key);
            outcome := 'valid';
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS outcome = PG_EXCEPTION_DETAIL;
            outcome := format('failed: %s %s', SQLERRM, outcome);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- For applications that write one shape or the other: whether the new one is in charge. It stays so until the caller's transaction
-- ends, because it holds the lock that a write takes anyway.
CREATE OR REPLACE FUNCTION cutover.is_promoted(p_table_name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text := (SELECT format('%I.%I', p.parts[1], p.parts[2]) FROM (SELECT cutover.name_parts(p_table_name) AS parts) p WHERE cardinality(p.parts) = 2);
BEGIN
    IF v_name IS NULL THEN
        PERFORM cutover.table_named(p_table_name);
    END IF;
    -- By name: whoever waited here for the exchange has the table that has the name then.
    EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', v_name);
    RETURN cutover.is_new_table(v_name);
END
$$;

-- Answers from the catalogue as it is, whatever the caller's snapshot is: which table is the new one was written down when it was made.
CREATE OR REPLACE FUNCTION cutover.is_new_table(p_name text) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM cutover.new_table n WHERE n.relation = to_regclass(p_name))
$$;
