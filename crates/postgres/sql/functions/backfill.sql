-- Rows that the shadow does not have yet, or not as they are: the backfill, and the queue of keys.
--
-- Both are the same: a row is read as it is now, under a lock, and brought. So nothing newer is overwritten, whatever the
-- order; whoever writes is never waited for, and waits for no more than one batch.

-- The name of a function of a pair, to be called: the owner's, with the owner's rights, as it was registered. Else whoever calls
-- it would lend it theirs.
CREATE OR REPLACE FUNCTION cutover.trusted(p_function text, p_table regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text;
BEGIN
    SELECT format('%I.%I', n.nspname, p.proname) INTO v_name
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_class c ON c.oid = p_table
     WHERE p.oid = to_regprocedure(p_function) AND p.prosecdef AND p.proowner = c.relowner;
    IF v_name IS NULL THEN
        PERFORM cutover.refuse('SC002', format('%s is no longer what cutover made for the owner of %s', p_function, p_table),
                               'remove the shadow table and make it again');
    END IF;
    RETURN v_name;
END
$$;

-- Brings rows by their keys. What is being written is queued and brought after it; so is what the shadow refuses, with why.
-- Returns how many were brought.
CREATE OR REPLACE FUNCTION cutover.refresh(p_shadow cutover.shadow_table, p_keys jsonb[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_refresh text := cutover.trusted(p_shadow.refresh_function, p_shadow.primary_table);
    v_left jsonb[];
    v_half integer := cardinality(p_keys) / 2;
    v_began timestamptz := clock_timestamp();
    v_message text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM cutover.refuse('SC002', 'rows can be brought only where each statement sees what was committed before it', 'BEGIN ISOLATION LEVEL READ COMMITTED');
    END IF;
    BEGIN
        EXECUTE format('SELECT %s($1)', v_refresh) INTO v_left USING p_keys;
    EXCEPTION WHEN OTHERS THEN
        IF v_half > 0 THEN
            -- One of them is refused; the others are not to wait for it.
            RETURN cutover.refresh(p_shadow, p_keys[:v_half]) + cutover.refresh(p_shadow, p_keys[v_half + 1:]);
        END IF;
        GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT;
        PERFORM cutover.mark_dirty(p_shadow.table_name, p_keys, v_message);
        PERFORM cutover.note_dual_write(p_shadow.table_name, 'refresh', v_message, extract(epoch FROM clock_timestamp() - v_began) * 1000);
        RETURN 0;
    END;
    PERFORM cutover.mark_dirty(p_shadow.table_name, v_left, 'being written');
    RETURN cardinality(p_keys) - coalesce(cardinality(v_left), 0);
END
$$;

-- One bringer of a table at a time, so that two never wait for each other. False: somebody else is at it.
CREATE OR REPLACE FUNCTION cutover.bring_alone(p_shadow cutover.shadow_table) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_try_advisory_xact_lock(1129665585, hashtext(p_shadow.table_name))
$$;

-- Brings the rows whose keys are queued, at most so many keys. Returns how many rows it brought; 0: none is left, or none that
-- the shadow takes, or somebody else drains. Call it again and again, from `cutover sql drain`, from pg_cron, or by hand.
CREATE OR REPLACE FUNCTION cutover.drain(p_table_name text, p_rows integer DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM cutover.roll_up_operations(p_table_name => (cutover.shadow_of(p_table_name)).table_name);
    RETURN cutover.bring_dirty(p_table_name, p_rows);
END
$$;

-- The same for whoever has no time for more.
CREATE OR REPLACE FUNCTION cutover.bring_dirty(p_table_name text, p_rows integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_keys jsonb[];
BEGIN
    IF NOT cutover.bring_alone(v_shadow) THEN
        RETURN 0;
    END IF;
    -- What is marked after this stays, though its key is the same.
    WITH taken AS (
        DELETE FROM cutover.dirty_key d
         WHERE d.id IN (SELECT q.id FROM cutover.dirty_key q WHERE q.table_name = v_shadow.table_name ORDER BY q.id LIMIT p_rows FOR UPDATE SKIP LOCKED)
        RETURNING d.key)
    SELECT array_agg(DISTINCT t.key) INTO v_keys FROM taken t;
    RETURN CASE WHEN v_keys IS NULL THEN 0 ELSE cutover.refresh(v_shadow, v_keys) END;
END
$$;

-- Brings the next rows of a table, in the order of its key, and notes how far it has come: one transaction, no more.
-- `done` once every row was brought, and what the shadow had besides was taken away. 0 rows and not done: somebody else is at it.
CREATE OR REPLACE FUNCTION cutover.backfill_step(p_table_name text, p_rows integer DEFAULT 1000,
                                                 OUT rows bigint, OUT total bigint, OUT done boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_config cutover.dual_write_config;
    v_keys jsonb[];
    v_next text;
BEGIN
    IF coalesce(p_rows, 0) NOT BETWEEN 1 AND 100000 THEN
        PERFORM cutover.refuse('SC002', format('%s rows can''t be brought at once', p_rows), 'from 1 to 100000');
    END IF;
    rows := 0;
    done := false;
    SELECT * INTO v_config FROM cutover.dual_write_config c WHERE c.table_name = v_shadow.table_name;
    total := v_config.backfill_rows;
    IF NOT v_config.enabled THEN
        PERFORM cutover.refuse('SC002', format('%s is not written twice, so its shadow would be old at once', v_shadow.table_name),
                               format('SELECT cutover.enable_dual_write(%L)', v_shadow.table_name));
    END IF;
    IF v_config.backfilled_at IS NOT NULL THEN
        done := true;
        RETURN;
    ELSIF NOT cutover.bring_alone(v_shadow) THEN
        RETURN;
    END IF;
    -- Somebody may have been at it until now.
    SELECT * INTO v_config FROM cutover.dual_write_config c WHERE c.table_name = v_shadow.table_name FOR UPDATE;
    v_next := cutover.trusted(v_shadow.next_keys_function, v_shadow.primary_table);
    IF v_config.backfill_began_at IS NULL THEN
        -- What is written behind this is written twice already: rows that are added are not chased.
        EXECUTE format('SELECT %s(''last'', NULL, NULL, 1)', v_next) INTO v_keys;
        UPDATE cutover.dual_write_config c SET backfill_began_at = clock_timestamp(), backfill_until = v_keys[1]
         WHERE c.table_name = v_shadow.table_name RETURNING * INTO v_config;
    END IF;
    EXECUTE format('SELECT %s(''next'', $1, $2, $3)', v_next) INTO v_keys USING v_config.backfill_after, v_config.backfill_until, p_rows;
    IF v_keys IS NOT NULL THEN
        PERFORM cutover.refresh(v_shadow, v_keys);
        rows := cardinality(v_keys);
        UPDATE cutover.dual_write_config c
           SET backfill_after = v_keys[cardinality(v_keys)], backfill_rows = c.backfill_rows + rows
         WHERE c.table_name = v_shadow.table_name RETURNING c.backfill_rows INTO total;
        RETURN;
    END IF;
    -- What has been there from before, and is no row of the primary any more.
    EXECUTE format('SELECT %s(''extra'', NULL, NULL, $1)', v_next) INTO v_keys USING p_rows;
    IF v_keys IS NOT NULL THEN
        rows := cutover.refresh(v_shadow, v_keys);
        RETURN;
    END IF;
    UPDATE cutover.dual_write_config c SET backfilled_at = clock_timestamp(), backfill_after = NULL, backfill_until = NULL
     WHERE c.table_name = v_shadow.table_name;
    PERFORM cutover.append_audit('backfilled', v_shadow.table_name, NULL, jsonb_build_object('rows', total));
    done := true;
END
$$;

-- The whole backfill in plain SQL, a transaction for each batch: CALL cutover.backfill('orders', p_rows_per_second => 5000).
CREATE OR REPLACE PROCEDURE cutover.backfill(p_table_name text, p_batch integer DEFAULT 1000, p_rows_per_second integer DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    v_began timestamptz := pg_catalog.clock_timestamp();
    v_brought bigint := 0;
    v_step record;
BEGIN
    LOOP
        SELECT * INTO v_step FROM cutover.backfill_step(p_table_name, p_batch);
        COMMIT;
        EXIT WHEN v_step.done;
        v_brought := v_brought OPERATOR(pg_catalog.+) v_step.rows;
        IF v_step.rows OPERATOR(pg_catalog.=) 0 THEN
            PERFORM pg_catalog.pg_sleep(0.1);
        ELSIF p_rows_per_second IS NOT NULL THEN
            PERFORM pg_catalog.pg_sleep(v_brought::double precision OPERATOR(pg_catalog./) p_rows_per_second
                                        OPERATOR(pg_catalog.-) EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) v_began)::double precision);
        END IF;
    END LOOP;
END
$$;
