-- Whether what is installed does what it is to do, in this database: on two tables that are gone again at the end, and by looking at those that are there.

-- Tries everything that can be tried without a trace. Each assertion can fail; what it found stands beside it.
CREATE OR REPLACE FUNCTION cutover.run_cutover_system_tests() RETURNS TABLE (test_name text, test_status text, test_result text, execution_time_ms numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    v_began timestamptz;
    v_tried record;
BEGIN
    FOR v_tried IN SELECT * FROM (VALUES
        ('bucketing', 'cutover.test_bucketing'), ('dual write', 'cutover.test_dual_write'), ('comparison', 'cutover.test_comparison'),
        ('ladder', 'cutover.test_ladder'), ('routing', 'cutover.test_routing'), ('operations', 'cutover.test_operations'),
        ('safety check', 'cutover.test_safety_check'), ('refusals', 'cutover.test_refusals'), ('audit', 'cutover.test_audit'), ('tables', 'cutover.test_tables'))
        AS t (name, function)
    LOOP
        test_name := v_tried.name;
        v_began := clock_timestamp();
        BEGIN
            BEGIN
                PERFORM cutover.make_test_pair();
                EXECUTE format('SELECT %s()', v_tried.function) INTO test_result;
                RAISE EXCEPTION USING ERRCODE = 'SC000';
            EXCEPTION WHEN SQLSTATE 'SC000' THEN
                -- Nothing of it stays.
                test_status := 'PASS';
            END;
        EXCEPTION WHEN assert_failure THEN
            test_status := 'FAIL';
            test_result := SQLERRM;
        WHEN OTHERS THEN
            test_status := 'ERROR';
            test_result := format('%s: %s', SQLSTATE, SQLERRM);
        END;
        execution_time_ms := round((extract(epoch FROM clock_timestamp() - v_began) * 1000)::numeric, 3);
        RETURN NEXT;
    END LOOP;
END
$$;

-- An assertion of a test.
CREATE OR REPLACE FUNCTION cutover.expect(p_holds boolean, p_what text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_holds IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'assert_failure', MESSAGE = p_what;
    END IF;
END
$$;

-- That a call is refused as it should be.
CREATE OR REPLACE FUNCTION cutover.expect_refusal(p_sql text, p_state text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    BEGIN
        EXECUTE p_sql;
    EXCEPTION WHEN OTHERS THEN
        PERFORM cutover.expect(SQLSTATE = p_state, format('%s was refused with %s rather than %s: %s', p_sql, SQLSTATE, p_state, SQLERRM));
        RETURN;
    END;
    PERFORM cutover.expect(false, format('%s was not refused', p_sql));
END
$$;

-- Two tables, of which one is the shadow of the other, with ten rows that were brought.
CREATE OR REPLACE FUNCTION cutover.make_test_pair() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_primary regclass;
    v_shadow regclass;
    v_words jsonb := '{"id": "id", "name": "name"}';
BEGIN
    CREATE TABLE cutover.self_test (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE cutover.self_test_shadow (id integer PRIMARY KEY, name text NOT NULL CHECK (name <> 'refused'));
    v_primary := to_regclass('cutover.self_test');
    v_shadow := to_regclass('cutover.self_test_shadow');
    INSERT INTO cutover.self_test SELECT i, 'row ' || i FROM generate_series(1, 10) i;
    EXECUTE cutover.shadow_functions(v_primary, v_shadow, ARRAY['id'], ARRAY['id'], v_words);
    PERFORM cutover.note_shadow_table('self_test', v_primary, v_shadow, ARRAY['id'], ARRAY['id'], v_words, v_words);
    PERFORM cutover.enable_dual_write('self_test');
    PERFORM cutover.backfill_step('self_test');
    PERFORM cutover.backfill_step('self_test');
    PERFORM cutover.configure_cutover('self_test', '{"min_samples": 1}');
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_bucketing() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_in bigint := (SELECT count(*) FROM generate_series(1, 10000) i WHERE cutover.bucket('salt', i::text) < 1000);
BEGIN
    PERFORM cutover.expect(cutover.bucket('checkout', 'user-1') BETWEEN 0 AND 9999, 'a bucket is from 0 to 9999');
    PERFORM cutover.expect(v_in BETWEEN 910 AND 1090, format('%s of 10000 keys are in a tenth of the buckets', v_in));
    PERFORM cutover.expect(NOT EXISTS (SELECT FROM generate_series(1, 1000) i WHERE cutover.bucket('salt', i::text) <> cutover.bucket('salt', i::text)), 'a key has one bucket');
    RETURN format('%s of 10000 keys are in a tenth of the buckets', v_in);
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_dual_write() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO cutover.self_test VALUES (11, 'new');
    UPDATE cutover.self_test SET name = 'changed' WHERE id = 1;
    DELETE FROM cutover.self_test WHERE id = 2;
    PERFORM cutover.expect((SELECT count(*) = 10 FROM cutover.self_test_shadow), 'the shadow has the rows');
    PERFORM cutover.expect((SELECT name = 'changed' FROM cutover.self_test_shadow WHERE id = 1), 'the shadow has what was changed');
    INSERT INTO cutover.self_test VALUES (12, 'refused');
    PERFORM cutover.expect((SELECT count(*) = 1 FROM cutover.dirty_key WHERE table_name = 'self_test'), 'what the shadow refuses is queued, and written all the same');
    PERFORM cutover.expect((SELECT d.failed_operations = 1 AND d.total_operations = 4 FROM cutover.get_dual_write_performance_summary(1) d WHERE d.table_name = 'self_test'),
                           'four statements were counted, one of them as failed');
    RETURN 'three statements were written twice, one that the shadow refused is queued';
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_comparison() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_seen record;
BEGIN
    SELECT * INTO v_seen FROM cutover.validate_table_consistency('self_test');
    PERFORM cutover.expect(v_seen.verdict = 'same' AND v_seen.consistent_records = 10, format('ten rows that are the same: %s', v_seen));
    UPDATE cutover.self_test_shadow SET name = 'another' WHERE id = 1;
    DELETE FROM cutover.self_test_shadow WHERE id = 2;
    INSERT INTO cutover.self_test_shadow VALUES (99, 'ghost');
    SELECT * INTO v_seen FROM cutover.validate_table_consistency('self_test');
    PERFORM cutover.expect(v_seen.verdict = 'different' AND v_seen.inconsistent_records = 1 AND v_seen.missing_in_shadow = 1 AND v_seen.extra_in_shadow = 1,
                           format('each planted difference is found: %s', v_seen));
    DELETE FROM cutover.self_test;
    DELETE FROM cutover.self_test_shadow;
    SELECT * INTO v_seen FROM cutover.validate_table_consistency('self_test');
    PERFORM cutover.expect(v_seen.verdict = 'inconclusive' AND v_seen.validation_score IS NULL, format('nothing to compare is no score: %s', v_seen));
    RETURN 'a difference, a missing row and an extra one were found; nothing has no score';
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_ladder() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
BEGIN
    PERFORM cutover.start_gradual_cutover('self_test', 0);
    PERFORM cutover.expect_refusal('SELECT cutover.advance_cutover_stage(''self_test'')', 'SC005');
    UPDATE cutover.self_test SET name = 'written' WHERE id = 1;
    PERFORM cutover.advance_cutover_stage('self_test');
    PERFORM cutover.expect((cutover.route_of('self_test')).cutover_stage = 'test_1', 'it is at test_1');
    PERFORM cutover.expect_refusal('SELECT cutover.advance_cutover_stage(''self_test'')', 'SC005');
    PERFORM cutover.emergency_rollback('self_test', 'a test');
    PERFORM cutover.expect((cutover.route_of('self_test')).cutover_stage = 'disabled', 'it is back');
    PERFORM cutover.start_gradual_cutover('self_test', 60);
    UPDATE cutover.self_test SET name = 'again' WHERE id = 1;
    PERFORM cutover.expect_refusal('SELECT cutover.advance_cutover_stage(''self_test'')', 'SC002');
    RETURN 'started, refused without samples, advanced, refused, rolled back, refused before its time';
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_routing() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    v_share bigint;
BEGIN
    PERFORM cutover.start_gradual_cutover('self_test', 0);
    PERFORM cutover.expect(NOT cutover.should_route_to_shadow('self_test', 'read'), 'no read goes to the shadow at dual_write');
    FOR v_try IN 1..3 LOOP
        PERFORM cutover.advance_cutover_stage('self_test', true, 'a test');
    END LOOP;
    SELECT count(*) INTO v_share FROM generate_series(1, 10000) i WHERE cutover.should_route_to_shadow('self_test', 'read', i::text);
    PERFORM cutover.expect(v_share BETWEEN 4850 AND 5150, format('half of 10000 keys are read at the shadow: %s', v_share));
    PERFORM cutover.expect(NOT cutover.should_route_to_shadow('self_test', 'write', '1'), 'a write goes to the primary');
    PERFORM cutover.emergency_rollback('self_test', 'a test');
    PERFORM cutover.expect(NOT EXISTS (SELECT FROM generate_series(1, 1000) i WHERE cutover.should_route_to_shadow('self_test', 'read', i::text)), 'after a rollback none is');
    RETURN format('%s of 10000 keys at half_50, none after a rollback', v_share);
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_operations() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_seen record;
BEGIN
    PERFORM cutover.record_cutover_operation('self_test', 'read', i, i > 5, true) FROM generate_series(1, 100) i;
    SELECT * INTO v_seen FROM cutover.operation_figures('self_test', clock_timestamp() - interval '1 minute') f WHERE f.store = 'shadow';
    PERFORM cutover.expect(v_seen.operations = 100 AND v_seen.failed = 5 AND v_seen.p50 = 50 AND v_seen.p95 = 95 AND v_seen.p99 = 99, format('figures of 100 operations: %s', v_seen));
    PERFORM cutover.expect_refusal('SELECT cutover.record_cutover_operation(''self_test'', ''read'', -1)', 'SC002');
    RETURN '100 operations: p50 50, p95 95, p99 99, 5 failed';
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_safety_check() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    v_seen record;
BEGIN
    PERFORM cutover.start_gradual_cutover('self_test', 0);
    PERFORM cutover.advance_cutover_stage('self_test', true, 'a test');
    PERFORM cutover.record_cutover_operation('self_test', 'read', 10, i > 50, true), cutover.record_cutover_operation('self_test', 'read', 10) FROM generate_series(1, 100) i;
    SELECT * INTO v_seen FROM cutover.check_safety('self_test');
    PERFORM cutover.expect(v_seen.action_taken = 'rolled_back', format('half of the reads fail, and it is rolled back: %s', v_seen));
    PERFORM cutover.expect((cutover.route_of('self_test')).cutover_stage = 'disabled', 'it is back');
    RETURN v_seen.reason;
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_refusals() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM cutover.expect_refusal('SELECT cutover.emergency_rollback(''no_such_table'', ''a test'')', 'SC001');
    PERFORM cutover.expect_refusal('SELECT cutover.advance_cutover_stage(''self_test'')', 'SC002');
    PERFORM cutover.expect_refusal('SELECT cutover.reset_cutover_state(''self_test'')', 'SC003');
    PERFORM cutover.expect_refusal('SELECT cutover.rollback_cutover_system()', 'SC003');
    PERFORM cutover.expect_refusal('SELECT cutover.configure_cutover(''self_test'', ''{"max_error_rate_percent": -1}'')', 'SC002');
    RETURN 'an unknown table, a step from nowhere, what was not confirmed, a limit that can''t be';
END
$$;

CREATE OR REPLACE FUNCTION cutover.test_audit() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_broken text := (SELECT string_agg(v.seq || ': ' || v.problem, ', ') FROM cutover.verify_audit() v);
BEGIN
    PERFORM cutover.expect(v_broken IS NULL, 'the chain is broken at ' || v_broken);
    PERFORM cutover.expect((SELECT a.action = 'configure_cutover' FROM cutover.audit_log a ORDER BY a.seq DESC LIMIT 1), 'the last decision is the last entry');
    PERFORM cutover.expect_refusal('DELETE FROM cutover.audit_log', 'SC002');
    RETURN format('%s entries in a chain', (SELECT count(*) FROM cutover.audit_log));
END
$$;

-- Of the tables that are there: that those written twice have their triggers, and that their functions are ours.
CREATE OR REPLACE FUNCTION cutover.test_tables() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table;
BEGIN
    FOR v_shadow IN SELECT s.* FROM cutover.shadow_table s JOIN cutover.dual_write_config c USING (table_name) WHERE c.enabled LOOP
        PERFORM cutover.expect(NOT EXISTS (SELECT FROM cutover.without_dual_write(v_shadow)), format('%s lacks triggers', v_shadow.table_name));
        PERFORM cutover.trusted(v_shadow.refresh_function, v_shadow.primary_table), cutover.trusted(v_shadow.next_keys_function, v_shadow.primary_table),
                cutover.trusted(v_shadow.compare_function, v_shadow.primary_table);
    END LOOP;
    RETURN format('%s tables', (SELECT count(*) - 1 FROM cutover.shadow_table));
END
$$;
