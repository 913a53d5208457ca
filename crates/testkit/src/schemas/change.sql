-- Changes and removes rows in every table that holds any, as a client would: what its constraints refuse is left out.
-- Answers with how many tables were changed, in the setting schemas.changed.
DO $$
DECLARE
    v_table record;
    v_first text;
    v_sql text;
    v_rows bigint;
    v_all bigint;
    v_changed bigint := 0;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR v_table IN
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name,
               (SELECT string_agg(format('%I = %s', a.attname, CASE WHEN t.typname IN ('text', 'bpchar', 'varchar') THEN format('left(%I || ''~'', %s)', a.attname,
                            CASE WHEN a.atttypmod > 0 THEN a.atttypmod - 4 ELSE 2000000 END)
                        WHEN t.typname IN ('int4', 'int8', 'float8') THEN format('%I + 1', a.attname)
                        WHEN t.typname = 'bool' THEN format('NOT %I', a.attname) ELSE format('%I', a.attname) END), ', ')
                  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity <> 'a'
                   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey))) AS changes,
               (SELECT format('%I', a.attname) FROM pg_attribute a JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)
                 WHERE a.attrelid = c.oid AND a.attidentity <> 'a' AND a.atttypid IN (20, 21, 23) ORDER BY a.attnum LIMIT 1) AS number
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'cutover', 'bank')
         ORDER BY 2
    LOOP
        v_all := 0;
        v_first := format('ctid = ANY (ARRAY(SELECT ctid FROM ONLY %s ORDER BY ctid ', v_table.name);
        FOREACH v_sql IN ARRAY ARRAY[
            'UPDATE ONLY ' || v_table.name || ' SET ' || v_table.changes || ' WHERE ' || v_first || 'LIMIT 5))',
            'UPDATE ONLY ' || v_table.name || ' SET ' || v_table.number || ' = ' || v_table.number || ' + 100000 WHERE ' || v_first || 'OFFSET 7 LIMIT 2))',
            'DELETE FROM ONLY ' || v_table.name || ' WHERE ' || v_first || 'OFFSET 6 LIMIT 1))']
        LOOP
            CONTINUE WHEN v_sql IS NULL;
            BEGIN
                EXECUTE v_sql;
                GET DIAGNOSTICS v_rows = ROW_COUNT;
                v_all := v_all + v_rows;
            EXCEPTION
                -- The fence is no constraint.
                WHEN read_only_sql_transaction THEN
                    RAISE;
                WHEN OTHERS THEN
                    NULL;
            END;
        END LOOP;
        v_changed := v_changed + (v_all > 0)::int;
    END LOOP;
    PERFORM set_config('schemas.changed', v_changed::text, false);
END
$$;
