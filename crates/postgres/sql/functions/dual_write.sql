-- What is written to a table is written to its shadow: by triggers for each statement, in the writer's own transaction, or
-- by a queue of keys that are brought after it.
--
-- Nothing that goes wrong in the shadow breaks a write: the keys are queued instead, and what went wrong is counted.

-- The statements that make the trigger function of a pair; it belongs to the table's owner.
CREATE OR REPLACE FUNCTION cutover.dual_write_function(p_shadow cutover.shadow_table, p_sync_mode text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_words cutover.shadow_text :=
        cutover.shadow_text(p_shadow.primary_table, p_shadow.shadow_table, p_shadow.key_columns, p_shadow.shadow_key_columns, p_shadow.up);
    v_name text := format('%s.cutover_dual_write_%s()', v_words.schema, p_shadow.primary_table::oid);
    v_same text := (SELECT string_agg(format('n.%1$I = t.%1$I', k.name), ' AND ') FROM unnest(p_shadow.key_columns) AS k (name));
    v_work text;
BEGIN
    v_work := CASE p_sync_mode WHEN 'async' THEN format('    v_dirty := %L;', 'queued') ELSE format($f$    BEGIN
        IF TG_OP = 'INSERT' THEN
            %1$s FROM cutover_new t %2$s;
        ELSIF TG_OP = 'UPDATE' THEN
            -- Keys that these rows have no more. Where keys stay, there are none.
            DELETE FROM %3$s s USING cutover_old t WHERE %4$s AND NOT EXISTS (SELECT FROM cutover_new n WHERE %5$s);
            %1$s FROM cutover_new t %2$s;
        ELSIF TG_OP = 'DELETE' THEN
            DELETE FROM %3$s s USING cutover_old t WHERE %4$s;
        ELSE
            TRUNCATE %3$s;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS v_error = MESSAGE_TEXT;
        v_dirty := v_error;
    END;$f$, v_words.upsert, v_words.on_conflict, p_shadow.shadow_table,
        (SELECT string_agg(format('s.%I = t.%I', k.shadow_name, k.name), ' AND ') FROM unnest(p_shadow.shadow_key_columns, p_shadow.key_columns) AS k (shadow_name, name)),
        v_same) END;
    RETURN format('CREATE OR REPLACE FUNCTION %1$s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER %2$s SET lock_timeout = %3$L AS %4$L; REVOKE ALL ON FUNCTION %1$s FROM PUBLIC',
                  v_name, v_words.settings, '1s', format($f$
#variable_conflict use_column
DECLARE
    v_began timestamptz := clock_timestamp();
    v_error text;
    v_dirty text;
    v_keys jsonb[];
BEGIN
%1$s
    IF v_dirty IS NOT NULL THEN
        IF TG_OP IN ('INSERT', 'UPDATE') THEN
            v_keys := (SELECT array_agg(jsonb_build_array(%2$s)) FROM cutover_new t);
        END IF;
        IF TG_OP IN ('UPDATE', 'DELETE') THEN
            v_keys := v_keys || (SELECT array_agg(jsonb_build_array(%2$s)) FROM cutover_old t);
        ELSIF TG_OP = 'TRUNCATE' THEN
            v_keys := (SELECT array_agg(jsonb_build_array(%3$s)) FROM %4$s t);
        END IF;
        PERFORM cutover.mark_dirty(%5$L, v_keys, v_dirty);
    END IF;
    PERFORM cutover.note_dual_write(%5$L, TG_OP, v_error, extract(epoch FROM clock_timestamp() - v_began) * 1000);
    RETURN NULL;
END
$f$, v_work, v_words.key_text, v_words.shadow_key_text, p_shadow.shadow_table, p_shadow.table_name));
END
$$;

-- Queues keys whose row in the shadow may be another. Called by triggers that belong to owners of tables.
CREATE OR REPLACE FUNCTION cutover.mark_dirty(p_table_name text, p_keys jsonb[], p_why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO cutover.dirty_key (table_name, key, why) SELECT p_table_name, k.key, p_why FROM (SELECT DISTINCT unnest(p_keys) AS key) k;
END
$$;

-- Counts a statement that was written twice, or was to be.
CREATE OR REPLACE FUNCTION cutover.note_dual_write(p_table_name text, p_operation text, p_error text, p_ms double precision) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO cutover.dual_write_stats (table_name, operation, success, duration_ms, error_message)
    VALUES (p_table_name, lower(p_operation), p_error IS NULL, p_ms, p_error);
    IF random() < 0.002 THEN
        PERFORM cutover.roll_up_unattended();
    END IF;
END
$$;

-- The tables that need triggers: the table itself, and where it is partitioned each partition, which can be written to by its own name.
CREATE OR REPLACE FUNCTION cutover.written_tables(p_table regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.relid FROM pg_partition_tree(p_table) t UNION SELECT p_table
$$;

-- Those of them that lack one of the four triggers, as after a partition was attached: what is written there is missed.
CREATE OR REPLACE FUNCTION cutover.without_dual_write(p_shadow cutover.shadow_table) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.relation FROM cutover.written_tables(p_shadow.primary_table) AS w (relation)
     WHERE (SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = p_shadow.primary_table
             WHERE t.tgrelid = w.relation AND t.tgenabled = 'A' AND t.tgname LIKE 'cutover\_dual\_write\_%'
               AND p.proname = 'cutover_dual_write_' || c.oid AND p.proowner = c.relowner) < 4
$$;

-- From now on, what is written to the table is written to its shadow. `sync`: in the same transaction. `async`: the key is
-- queued there, and cutover.drain() brings the row. It is idempotent; with another mode it changes the mode.
-- Waits at most two seconds for the table, since whoever writes waits behind it.
CREATE OR REPLACE FUNCTION cutover.enable_dual_write(p_table_name text, p_sync_mode text DEFAULT 'sync') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
BEGIN
    IF coalesce(p_sync_mode, '') NOT IN ('sync', 'async') THEN
        PERFORM cutover.refuse('SC002', format('there is no mode %L', p_sync_mode), 'sync, or async');
    END IF;
    PERFORM cutover.make_triggers(v_shadow, p_sync_mode);
    PERFORM cutover.note_enabled(v_shadow.table_name, p_sync_mode);
END
$$;

-- Makes the trigger function anew, and the triggers where they are missing.
CREATE OR REPLACE FUNCTION cutover.make_triggers(p_shadow cutover.shadow_table, p_sync_mode text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_function text;
    v_table regclass;
BEGIN
    EXECUTE cutover.dual_write_function(p_shadow, p_sync_mode);
    v_function := format('%s.cutover_dual_write_%s()', (SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                                         WHERE c.oid = p_shadow.primary_table), p_shadow.primary_table::oid);
    FOR v_table IN SELECT * FROM cutover.written_tables(p_shadow.primary_table) LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = v_table AND t.tgname = 'cutover_dual_write_insert');
        BEGIN
            EXECUTE format('CREATE TRIGGER cutover_dual_write_insert AFTER INSERT ON %1$s REFERENCING NEW TABLE AS cutover_new FOR EACH STATEMENT EXECUTE FUNCTION %2$s;'
                           'CREATE TRIGGER cutover_dual_write_update AFTER UPDATE ON %1$s REFERENCING OLD TABLE AS cutover_old NEW TABLE AS cutover_new FOR EACH STATEMENT EXECUTE FUNCTION %2$s;'
                           'CREATE TRIGGER cutover_dual_write_delete AFTER DELETE ON %1$s REFERENCING OLD TABLE AS cutover_old FOR EACH STATEMENT EXECUTE FUNCTION %2$s;'
                           'CREATE TRIGGER cutover_dual_write_truncate AFTER TRUNCATE ON %1$s FOR EACH STATEMENT EXECUTE FUNCTION %2$s;'
                           -- Also for what a subscription applies, and for whoever says session_replication_role.
                           'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER cutover_dual_write_insert, ENABLE ALWAYS TRIGGER cutover_dual_write_update,'
                           ' ENABLE ALWAYS TRIGGER cutover_dual_write_delete, ENABLE ALWAYS TRIGGER cutover_dual_write_truncate', v_table, v_function);
        EXCEPTION WHEN lock_not_available THEN
            PERFORM cutover.refuse('SC006', format('%s is in use by a long transaction', v_table), 'nothing was changed: try again when it has ended');
        END;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION cutover.note_enabled(p_table_name text, p_sync_mode text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_before cutover.dual_write_config;
    v_missing text := (SELECT string_agg(m.relation::text, ', ') FROM cutover.without_dual_write(cutover.shadow_of(p_table_name)) AS m (relation));
BEGIN
    IF v_missing IS NOT NULL THEN
        PERFORM cutover.refuse('SC002', format('%s has not all of its triggers', v_missing), format('SELECT cutover.enable_dual_write(%L)', p_table_name));
    END IF;
    SELECT * INTO v_before FROM cutover.dual_write_config c WHERE c.table_name = p_table_name FOR UPDATE;
    IF v_before.enabled AND v_before.sync_mode = p_sync_mode AND NOT v_before.emergency_stop THEN
        RETURN;
    END IF;
    UPDATE cutover.dual_write_config c
       SET enabled = true, sync_mode = p_sync_mode, emergency_stop = false, updated_at = clock_timestamp(), updated_by = session_user,
           -- What was written while it was off is in no queue: everything is brought once more.
           enabled_at = CASE WHEN v_before.enabled THEN v_before.enabled_at ELSE clock_timestamp() END,
           backfill_after = CASE WHEN v_before.enabled THEN v_before.backfill_after END,
           backfill_until = CASE WHEN v_before.enabled THEN v_before.backfill_until END,
           backfill_rows = CASE WHEN v_before.enabled THEN v_before.backfill_rows ELSE 0 END,
           backfill_began_at = CASE WHEN v_before.enabled THEN v_before.backfill_began_at END,
           backfilled_at = CASE WHEN v_before.enabled THEN v_before.backfilled_at END
     WHERE c.table_name = p_table_name;
    UPDATE cutover.dual_write_config c SET failure_count = 0, last_failure_at = NULL, last_failure = NULL WHERE c.table_name = p_table_name AND NOT v_before.enabled;
    UPDATE cutover.traffic_routing_config c SET write_shadow_enabled = true WHERE c.table_name = p_table_name;
    PERFORM cutover.append_audit('enable_dual_write', p_table_name, NULL, jsonb_build_object('sync_mode', p_sync_mode));
END
$$;

-- Writes go to the primary alone. The shadow gets older from here on: when it is enabled again, everything is brought once more.
CREATE OR REPLACE FUNCTION cutover.disable_dual_write(p_table_name text, p_reason text DEFAULT 'asked for') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_trigger record;
BEGIN
    FOR v_trigger IN
        SELECT t.tgname, t.tgrelid::regclass AS relation FROM pg_trigger t
         WHERE t.tgname LIKE 'cutover\_dual\_write\_%' AND t.tgparentid = 0 AND t.tgrelid IN (SELECT * FROM cutover.written_tables(v_shadow.primary_table))
    LOOP
        BEGIN
            EXECUTE format('DROP TRIGGER %I ON %s', v_trigger.tgname, v_trigger.relation);
        EXCEPTION WHEN lock_not_available THEN
            PERFORM cutover.refuse('SC006', format('%s is in use by a long transaction', v_trigger.relation), 'nothing was changed: try again when it has ended');
        END;
    END LOOP;
    PERFORM cutover.note_disabled(v_shadow.table_name, p_reason);
END
$$;

CREATE OR REPLACE FUNCTION cutover.note_disabled(p_table_name text, p_reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM cutover.shadow_table s WHERE s.table_name = p_table_name AND s.stand_in IS NOT NULL) THEN
        PERFORM cutover.refuse('SC002', format('%s is completed, and without dual writes its way back would lose what is written', p_table_name),
                               format('SELECT cutover.drop_shadow_table(%L, true) ends the way back', p_table_name));
    END IF;
    UPDATE cutover.dual_write_config c SET enabled = false, enabled_at = NULL, backfilled_at = NULL, updated_at = clock_timestamp(), updated_by = session_user
     WHERE c.table_name = p_table_name AND c.enabled;
    IF FOUND THEN
        -- A shadow that is not written is not read.
        PERFORM cutover.read_at_primary(p_table_name, format('dual writes are turned off: %s', coalesce(p_reason, '')));
        UPDATE cutover.traffic_routing_config c SET write_shadow_enabled = false WHERE c.table_name = p_table_name;
        PERFORM cutover.append_audit('disable_dual_write', p_table_name, p_reason);
    END IF;
END
$$;
