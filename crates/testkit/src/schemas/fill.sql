-- Puts rows into every table of a schema that others wrote: a value for each column by its type, and for what refers to
-- another table one that is there. What constraints refuse is left out; what refers to a table filled later comes in
-- another round. Answers with how many tables hold rows, in the setting schemas.filled.
DO $$
DECLARE
    v_table record;
    v_filled bigint := 0;
    v_holds boolean;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR v_round IN 1..3 LOOP
        v_filled := 0;
        FOR v_table IN
            SELECT format('%I.%I', n.nspname, c.relname) AS name, string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) AS columns,
                   string_agg(COALESCE(
                       (SELECT format('(SELECT %I FROM %s OFFSET g %% 10 LIMIT 1)', r.attname, k.confrelid::regclass) FROM pg_constraint k
                          JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = k.confkey[array_position(k.conkey, a.attnum)]
                         WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey) LIMIT 1),
                       CASE WHEN t.typname IN ('int2', 'int4', 'int8', 'numeric', 'float4', 'float8') THEN format('g + %s', v_round * 10)
                            WHEN t.typname IN ('text', 'varchar', 'bpchar') THEN format('left(''t'' || g || ''r%s'', %s)', v_round, CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 20 END)
                            WHEN t.typname = 'bool' THEN 'g % 2 = 0' WHEN t.typname = 'bytea' THEN 'decode(lpad(to_hex(g), 8, ''0''), ''hex'')'
                            WHEN t.typname IN ('timestamp', 'timestamptz', 'date') THEN '''2026-01-01''::timestamp + g * interval ''1 day'''
                            WHEN t.typname = 'inet' THEN '(''10.0.0.'' || g)::inet' WHEN t.typname = 'uuid' THEN 'md5(g::text)::uuid'
                            WHEN t.typname IN ('json', 'jsonb') THEN format('jsonb_build_object(''g'', g)::%s', t.typname)
                            WHEN t.typtype = 'e' THEN format('(SELECT e FROM unnest(enum_range(NULL::%s)) e LIMIT 1)', t.oid::regtype) ELSE 'NULL' END), ', ' ORDER BY a.attnum) AS vals
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              JOIN pg_type t ON t.oid = a.atttypid
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attgenerated = '' AND a.attidentity <> 'a'
               AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'cutover', 'bank')
             GROUP BY 1, c.oid ORDER BY c.oid
        LOOP
            FOR g IN 1..20 LOOP
                BEGIN
                    EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM (SELECT %s AS g) g ON CONFLICT DO NOTHING', v_table.name, v_table.columns, v_table.vals, g);
                EXCEPTION WHEN OTHERS THEN
                    EXIT WHEN g > 3;
                END;
            END LOOP;
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', v_table.name) INTO v_holds;
            v_filled := v_filled + v_holds::int;
        END LOOP;
    END LOOP;
    PERFORM set_config('schemas.filled', v_filled::text, false);
END
$$;
