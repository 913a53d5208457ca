-- Shadow tables: a table of the same or another shape beside the primary, and the functions that bring rows there and back.
--
-- What runs a caller's own words (definitions, expressions) runs with the caller's rights: these functions are not SECURITY
-- DEFINER, and what they make belongs to whoever called them, who has to own the table. What they note down goes through
-- functions that are.

-- What is in the way of a shadow of this table, and how to mend it. `blocks`: none can be made.
CREATE OR REPLACE FUNCTION cutover.check_shadow_table(p_table_name text)
RETURNS TABLE (check_name text, blocks boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_table regclass := cutover.table_named(p_table_name);
BEGIN
    RETURN QUERY
    SELECT 'key', true, format('%s has no primary key', v_table), format('ALTER TABLE %s ADD PRIMARY KEY (…)', v_table)
     WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = v_table AND i.indisprimary)
    UNION ALL
    SELECT 'key', true, format('the primary key of %s is deferrable, so a row can''t be looked up by it while it is written', v_table),
           'make it a key that is not deferrable'
     WHERE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = v_table AND i.indisprimary AND NOT i.indimmediate)
    UNION ALL
    SELECT 'owner', true, format('%s belongs to %s, and you are %I', v_table, c.relowner::regrole, current_user), format('SET ROLE %s', c.relowner::regrole)
      FROM pg_class c WHERE c.oid = v_table AND c.relowner <> current_user::regrole
    UNION ALL
    SELECT 'owner', true, format('%s may not queue keys, so its triggers would break writes', c.relowner::regrole), format('GRANT cutover_operator TO %s', c.relowner::regrole)
      FROM pg_class c WHERE c.oid = v_table AND NOT pg_has_role(c.relowner, 'cutover_operator', 'USAGE')
    UNION ALL
    SELECT 'kind', true, format('%s is %s', v_table, CASE c.relpersistence WHEN 't' THEN 'temporary' ELSE 'unlogged: a crash empties it' END),
           format('ALTER TABLE %s SET LOGGED', v_table)
      FROM pg_class c WHERE c.oid = v_table AND c.relpersistence <> 'p'
    UNION ALL
    SELECT 'kind', true, format('%s is a partition of %s', v_table, h.inhparent::regclass), format('make a shadow of %s', h.inhparent::regclass)
      FROM pg_inherits h WHERE h.inhrelid = v_table AND (SELECT c.relispartition FROM pg_class c WHERE c.oid = v_table)
    UNION ALL
    SELECT 'kind', true, format('%s has children by inheritance, whose rows would not come along', v_table), 'make a partitioned table of them'
      FROM pg_class c WHERE c.oid = v_table AND c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = v_table)
    UNION ALL
    SELECT 'ours', true, format('%s belongs to cutover itself', v_table), NULL
      FROM pg_class c WHERE c.oid = v_table AND c.relnamespace = 'cutover'::regnamespace
    UNION ALL
    SELECT 'policies', true, format('%s has FORCE ROW LEVEL SECURITY, and %s does not see all of its rows', v_table, c.relowner::regrole),
           format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, or ALTER ROLE %s BYPASSRLS', v_table, c.relowner::regrole)
      FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = v_table AND c.relforcerowsecurity AND NOT r.rolbypassrls AND NOT r.rolsuper
    UNION ALL
    SELECT 'policies', false, format('%s has row-level security, and so has the shadow, with those policies whose columns it has', v_table),
           'CREATE POLICY on the shadow for the others: until then whoever needs them sees no rows there'
      FROM pg_class c WHERE c.oid = v_table AND c.relrowsecurity
    UNION ALL
    SELECT 'rights', false, format('there are rights on %I of %s alone', a.attname, v_table), 'they are given on a column of that name; where the shadow has none, GRANT them there'
      FROM pg_attribute a WHERE a.attrelid = v_table AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'publications', false, format('%s is published by %I', v_table, p.pubname), 'it is carried over, or refused, when the table is completed'
      FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = v_table
    UNION ALL
    SELECT 'dependants', false, format('%s depends on it', pg_describe_object(d.classid, d.objid, 0)), 'it is carried over, or refused, when the table is completed'
      FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = v_table AND d.deptype = 'n'
       AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass);
END
$$;

-- Makes a shadow of a table.
--
-- p_shadow_definition is what stands behind CREATE TABLE name: `(id bigint PRIMARY KEY, full_name text NOT NULL)`; none makes
-- a copy. p_mapping says what a column is made of where it is not the one of the same name:
--   {"up": {"full_name": "first || ' ' || last"}, "down": {"first": "split_part(full_name, ' ', 1)", …}}
-- Returns the shadow's name.
CREATE OR REPLACE FUNCTION cutover.create_shadow_table(p_table_name text, p_shadow_definition text DEFAULT NULL, p_mapping jsonb DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_primary regclass := cutover.table_named(p_table_name);
    v_name text := cutover.name_of(v_primary);
    v_obstacle record;
    v_shadow text;
    v_schema text;
    v_words record;
BEGIN
    FOR v_obstacle IN SELECT * FROM cutover.check_shadow_table(p_table_name) c WHERE c.blocks LOOP
        PERFORM cutover.refuse('SC004', v_obstacle.detail, v_obstacle.fix);
    END LOOP;
    SELECT n.nspname, format('%I.%I', n.nspname, left(c.relname, 56) || '_shadow') INTO v_schema, v_shadow
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = v_primary;
    IF to_regclass(v_shadow) IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', format('there is a table %s already', v_shadow), 'drop or rename it, or go on with the shadow that you have');
    END IF;

    PERFORM set_config('search_path', format('pg_catalog, %I, pg_temp', v_schema), true);
    IF p_shadow_definition IS NULL THEN
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY)', v_shadow, v_primary);
    ELSE
        EXECUTE format('CREATE TABLE %s %s', v_shadow, p_shadow_definition);
    END IF;
    -- Whoever reads and writes the primary may do the same with the shadow, and sees the same rows.
    PERFORM cutover.carry_rights(v_primary, v_shadow::regclass);
    PERFORM cutover.carry_policies(v_primary, v_shadow::regclass);
    EXECUTE format('COMMENT ON TABLE %s IS %L', v_shadow, format('the shadow of %s, made by cutover', v_name));

    SELECT * INTO v_words FROM cutover.shadow_words(v_primary, v_shadow::regclass, coalesce(p_mapping, '{}'));
    PERFORM cutover.try_words(v_primary, v_shadow::regclass, v_words.up, v_words.down);
    EXECUTE cutover.shadow_functions(v_primary, v_shadow::regclass, v_words.key_columns, v_words.shadow_key_columns, v_words.up);
    PERFORM cutover.register_shadow_table(v_name, v_primary, v_shadow::regclass, v_words.key_columns, v_words.shadow_key_columns, v_words.up, v_words.down);
    RETURN v_shadow;
END
$$;

-- What each column of both tables is made of, and which columns are the key.
CREATE OR REPLACE FUNCTION cutover.shadow_words(p_primary regclass, p_shadow regclass, p_mapping jsonb,
                                                OUT key_columns text[], OUT shadow_key_columns text[], OUT up jsonb, OUT down jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_wrong text;
BEGIN
    SELECT m.key INTO v_wrong FROM jsonb_object_keys(p_mapping) AS m (key) WHERE m.key NOT IN ('up', 'down') LIMIT 1;
    IF v_wrong IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', format('the mapping has %L', v_wrong), 'it has up (what shadow columns are made of) and down (what primary columns are)');
    END IF;
    up := cutover.column_words(p_primary, p_shadow, coalesce(p_mapping -> 'up', '{}'), 'up');
    down := cutover.column_words(p_shadow, p_primary, coalesce(p_mapping -> 'down', '{}'), 'down');
    SELECT array_agg(a.attname::text ORDER BY k.place) INTO key_columns
      FROM pg_index i, LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attrelid = p_primary AND a.attnum = k.number
     WHERE i.indrelid = p_primary AND i.indisprimary;
    -- The column of the shadow that is the key's column as it is.
    SELECT array_agg((SELECT u.key FROM jsonb_each_text(up) AS u (key, words) WHERE u.words = quote_ident(k.name) ORDER BY u.key <> k.name LIMIT 1) ORDER BY k.place)
      INTO shadow_key_columns
      FROM unnest(key_columns) WITH ORDINALITY AS k (name, place);
    IF array_position(shadow_key_columns, NULL) IS NOT NULL
       OR NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = p_shadow AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid
                         AND i.indnkeyatts = cardinality(key_columns)
                         AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) AS k (number)
                                JOIN pg_attribute a ON a.attrelid = p_shadow AND a.attnum = k.number)
                             = (SELECT array_agg(s.name ORDER BY s.name COLLATE "C") FROM unnest(shadow_key_columns) AS s (name))) THEN
        PERFORM cutover.refuse('SC004', format('the shadow has no unique key that is %s of %s as it is', array_to_string(key_columns, ', '), p_primary),
                               'give it PRIMARY KEY (…) over columns that carry the key unchanged; a column of another name needs {"up": {"name": "old_name"}}');
    END IF;
    SELECT format('%s has a constraint that is looked at when a transaction ends, and would break the writes of users there', c.conrelid::regclass) INTO v_wrong
      FROM pg_constraint c WHERE c.conrelid = p_shadow AND c.condeferrable LIMIT 1;
    IF v_wrong IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', v_wrong, 'make it NOT DEFERRABLE; it can be altered once the shadow is in charge');
    END IF;
END
$$;

-- What each column of one table is made of, in words of another.
CREATE OR REPLACE FUNCTION cutover.column_words(p_from regclass, p_to regclass, p_words jsonb, p_direction text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_words jsonb := '{}';
    v_column record;
    v_wrong text;
BEGIN
    SELECT w.key INTO v_wrong FROM jsonb_object_keys(p_words) AS w (key)
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = p_to AND a.attname = w.key AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF v_wrong IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', format('%s has no column %I, which the mapping''s %L names', p_to, v_wrong, p_direction));
    END IF;
    FOR v_column IN
        SELECT a.attname::text AS name, a.attgenerated <> '' AS generated, a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS needed,
               EXISTS (SELECT FROM pg_attribute f WHERE f.attrelid = p_from AND f.attname = a.attname AND f.attnum > 0 AND NOT f.attisdropped) AS same
          FROM pg_attribute a WHERE a.attrelid = p_to AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    LOOP
        -- What a table makes itself is brought by nobody.
        CONTINUE WHEN v_column.generated;
        IF p_words ? v_column.name THEN
            v_words := v_words || jsonb_build_object(v_column.name, p_words ->> v_column.name);
        ELSIF v_column.same THEN
            v_words := v_words || jsonb_build_object(v_column.name, quote_ident(v_column.name));
        ELSIF v_column.needed THEN
            PERFORM cutover.refuse('SC004', format('nothing says what %I of %s is made of, and it must not be null', v_column.name, p_to),
                                   format('{%s: {%s: "an expression over the columns of %s"}}', to_jsonb(p_direction), to_jsonb(v_column.name), p_from));
        END IF;
    END LOOP;
    RETURN v_words;
END
$$;

-- Whether both directions can be said to this server at all: nothing is read or written.
CREATE OR REPLACE FUNCTION cutover.try_words(p_primary regclass, p_shadow regclass, p_up jsonb, p_down jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_direction record;
    v_message text;
BEGIN
    FOR v_direction IN SELECT 'up' AS name, p_primary AS origin, p_shadow AS goal, p_up AS words UNION ALL SELECT 'down', p_shadow, p_primary, p_down LOOP
        PERFORM set_config('search_path', cutover.search_path_of(p_primary), true);
        BEGIN
            EXECUTE (SELECT format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s WHERE false', v_direction.goal,
                                   string_agg(quote_ident(w.key), ', ' ORDER BY w.key), string_agg(w.value, ', ' ORDER BY w.key), v_direction.origin)
                       FROM jsonb_each_text(v_direction.words) AS w);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT;
            PERFORM cutover.refuse('SC004', format('the mapping''s %L does not fit: %s', v_direction.name, v_message),
                                   format('each column of %s has to be made of columns of %s, and in its own type', v_direction.goal, v_direction.origin));
        END;
    END LOOP;
END
$$;

-- Where the words of a mapping find their functions: the server's, and those beside the table.
CREATE OR REPLACE FUNCTION cutover.search_path_of(p_primary regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('pg_catalog, %I, pg_temp', n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_primary
$$;

-- The statements that make the functions of one pair. They belong to the table's owner, and lend out that owner's rights on
-- these two tables to operators: to bring rows as they are, and to compare. Keys are text, spelled alike by all of them.
CREATE OR REPLACE FUNCTION cutover.shadow_functions(p_primary regclass, p_shadow regclass, p_key text[], p_shadow_key text[], p_up jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_words cutover.shadow_text := cutover.shadow_text(p_primary, p_shadow, p_key, p_shadow_key, p_up);
    v_refresh text := format('%s.cutover_refresh_%s(p_keys jsonb[])', v_words.schema, p_primary::oid);
    v_next_keys text := format('%s.cutover_next_keys_%s(p_which text, p_after jsonb, p_until jsonb, p_rows integer)', v_words.schema, p_primary::oid);
    v_compare text := format('%s.cutover_compare_%s(p_percent real)', v_words.schema, p_primary::oid);
    v_function text;
    v_text text;
BEGIN
    v_text := format('CREATE FUNCTION %s RETURNS jsonb[] LANGUAGE plpgsql SECURITY DEFINER %s AS %L;', v_refresh, v_words.settings, format($f$
#variable_conflict use_column
-- Brings rows to the shadow as they are now, and takes away those that are no more. Waits for nobody who writes: returns the
-- keys of rows that are being written, to be looked at again.
DECLARE
    v_taken jsonb[];
    v_gone jsonb[];
    v_back jsonb[];
BEGIN
    -- Under a lock that nobody who writes these rows gets past: what is read is what holds when this commits.
    SELECT array_agg(k.cutover_key) INTO v_taken
      FROM (SELECT k.cutover_key FROM unnest(p_keys) AS k (cutover_key) JOIN %1$s t ON %2$s FOR SHARE OF t SKIP LOCKED) k;
    %3$s FROM unnest(v_taken) AS k (cutover_key) JOIN %1$s t ON %2$s %4$s;
    IF cardinality(v_taken) = cardinality(p_keys) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(k.cutover_key) INTO v_gone FROM unnest(p_keys) AS k (cutover_key) WHERE NOT EXISTS (SELECT FROM %1$s t WHERE %2$s);
    IF v_gone IS NOT NULL THEN
        -- By key: a row's place says which it is in one partition only.
        DELETE FROM %5$s t USING (SELECT k.cutover_key FROM unnest(v_gone) AS k (cutover_key) JOIN %5$s t ON %6$s FOR UPDATE OF t SKIP LOCKED) k WHERE %6$s;
        -- One of them may have been written anew since it was looked for.
        SELECT array_agg(k.cutover_key) INTO v_back
          FROM (SELECT k.cutover_key FROM unnest(v_gone) AS k (cutover_key) JOIN %1$s t ON %2$s FOR SHARE OF t SKIP LOCKED) k;
        %3$s FROM unnest(v_back) AS k (cutover_key) JOIN %1$s t ON %2$s %4$s;
    END IF;
    RETURN (SELECT array_agg(k.cutover_key)
              FROM (SELECT unnest(p_keys) EXCEPT SELECT unnest(v_taken) EXCEPT SELECT unnest(v_back)) AS k (cutover_key)
             WHERE (EXISTS (SELECT FROM %1$s t WHERE %2$s) OR EXISTS (SELECT FROM %5$s t WHERE %6$s)));
END
$f$, p_primary, v_words.is_key, v_words.upsert, v_words.on_conflict, p_shadow, v_words.is_shadow_key));

    v_text := v_text || format('CREATE FUNCTION %s RETURNS jsonb[] LANGUAGE plpgsql STABLE SECURITY DEFINER %s AS %L;', v_next_keys, v_words.settings, format($f$
#variable_conflict use_column
-- Keys of the primary: the `next` behind one and up to another, or the `last`; or `extra` keys, of the shadow alone.
BEGIN
    IF p_which = 'extra' THEN
        RETURN (SELECT array_agg(t.cutover_key) FROM (SELECT jsonb_build_array(%1$s) AS cutover_key FROM %2$s t
                 WHERE NOT EXISTS (SELECT FROM %3$s p WHERE %4$s) LIMIT p_rows) t);
    ELSIF p_which = 'last' THEN
        RETURN (SELECT array_agg(t.cutover_key) FROM (SELECT jsonb_build_array(%5$s) AS cutover_key FROM %3$s t ORDER BY %8$s LIMIT 1) t);
    ELSIF p_after IS NULL THEN
        RETURN (SELECT array_agg(t.cutover_key) FROM (SELECT jsonb_build_array(%5$s) AS cutover_key FROM %3$s t
                 WHERE (%6$s) <= (%9$s) ORDER BY %6$s LIMIT p_rows) t);
    END IF;
    RETURN (SELECT array_agg(t.cutover_key) FROM (SELECT jsonb_build_array(%5$s) AS cutover_key FROM %3$s t
             WHERE (%6$s) > (%7$s) AND (%6$s) <= (%9$s) ORDER BY %6$s LIMIT p_rows) t);
END
$f$, v_words.shadow_key_text, p_shadow, p_primary, v_words.same_key, v_words.key_text, v_words.key, v_words.after,
        replace(v_words.key, ',', ' DESC,') || ' DESC', replace(v_words.after, 'p_after', 'p_until')));

    v_text := v_text || format('CREATE FUNCTION %s RETURNS bigint[] LANGUAGE plpgsql STABLE SECURITY DEFINER %s AS %L;', v_compare, v_words.settings, format($f$
#variable_conflict use_column
-- Compares both in one snapshot: some percent of the blocks of each, or all rows where none is given. How many rows the
-- primary has, the shadow has, are the same, are not, are missing in the shadow, and are there and nowhere else.
BEGIN
    IF p_percent IS NULL THEN
        RETURN (SELECT ARRAY[count(p.%1$I), count(s.%1$I), count(*) FILTER (WHERE p.cutover_row = s.cutover_row),
                             count(*) FILTER (WHERE p.cutover_row <> s.cutover_row), count(*) FILTER (WHERE s.%1$I IS NULL), count(*) FILTER (WHERE p.%1$I IS NULL)]
                  FROM (SELECT %2$s, row(%2$s)::text AS cutover_row FROM (SELECT %3$s FROM %4$s) u) p
                  FULL JOIN (SELECT %2$s, row(%2$s)::text AS cutover_row FROM %5$s) s ON %6$s);
    END IF;
    RETURN (SELECT ARRAY[count(*), count(s.%1$I), count(*) FILTER (WHERE p.cutover_row = s.cutover_row),
                         count(*) FILTER (WHERE p.cutover_row <> s.cutover_row), count(*) FILTER (WHERE s.%1$I IS NULL),
                         (SELECT count(*) FROM %5$s s TABLESAMPLE SYSTEM (p_percent) WHERE NOT EXISTS (SELECT FROM (SELECT %3$s FROM %4$s) p WHERE %6$s))]
              FROM (SELECT %2$s, row(%2$s)::text AS cutover_row FROM (SELECT %3$s FROM %4$s TABLESAMPLE SYSTEM (p_percent)) u) p
              LEFT JOIN LATERAL (SELECT %2$s, row(%2$s)::text AS cutover_row FROM %5$s s WHERE %6$s) s ON true);
END
$f$, p_shadow_key[1], v_words.shadow_columns, v_words.row_words, p_primary, p_shadow, v_words.match));

    FOREACH v_function IN ARRAY ARRAY[v_refresh, v_next_keys, v_compare] LOOP
        v_text := v_text || format('REVOKE ALL ON FUNCTION %1$s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO cutover_operator;', v_function);
    END LOOP;
    RETURN v_text;
END
$$;

-- The parts that statements about a pair are put together from.
CREATE OR REPLACE FUNCTION cutover.shadow_text(p_primary regclass, p_shadow regclass, p_key text[], p_shadow_key text[], p_up jsonb)
RETURNS cutover.shadow_text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_words cutover.shadow_text;
BEGIN
    SELECT quote_ident(n.nspname) INTO v_words.schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_primary;
    -- What a key or a row looks like must not depend on whose session it is.
    v_words.settings := format('SET search_path = %s SET datestyle = ''ISO, YMD'' SET intervalstyle = ''postgres'' SET timezone = ''UTC'' SET extra_float_digits = 1',
                               cutover.search_path_of(p_primary));
    SELECT string_agg(format('t.%I = (k.cutover_key ->> %s)::%s', a.attname, k.place - 1, format_type(a.atttypid, a.atttypmod)), ' AND ' ORDER BY k.place),
           string_agg(format('t.%I::text', a.attname), ', ' ORDER BY k.place), string_agg(format('t.%I', a.attname), ', ' ORDER BY k.place),
           string_agg(format('(p_after ->> %s)::%s', k.place - 1, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY k.place)
      INTO v_words.is_key, v_words.key_text, v_words.key, v_words.after
      FROM unnest(p_key) WITH ORDINALITY AS k (name, place) JOIN pg_attribute a ON a.attrelid = p_primary AND a.attname = k.name;
    SELECT string_agg(format('t.%I = (k.cutover_key ->> %s)::%s', a.attname, k.place - 1, format_type(a.atttypid, a.atttypmod)), ' AND ' ORDER BY k.place),
           string_agg(format('t.%I::text', a.attname), ', ' ORDER BY k.place), string_agg(format('p.%I = t.%I', p_key[k.place], a.attname), ' AND ' ORDER BY k.place),
           string_agg(format('p.%1$I = s.%1$I', a.attname), ' AND ' ORDER BY k.place)
      INTO v_words.is_shadow_key, v_words.shadow_key_text, v_words.same_key, v_words.match
      FROM unnest(p_shadow_key) WITH ORDINALITY AS k (name, place) JOIN pg_attribute a ON a.attrelid = p_shadow AND a.attname = k.name;
    SELECT format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s', p_shadow, string_agg(quote_ident(u.key), ', ' ORDER BY u.key),
                  string_agg(u.value, ', ' ORDER BY u.key)),
           format('ON CONFLICT (%s) DO %s', (SELECT string_agg(quote_ident(k.name), ', ') FROM unnest(p_shadow_key) AS k (name)),
                  coalesce('UPDATE SET ' || string_agg(format('%1$I = EXCLUDED.%1$I', u.key), ', ') FILTER (WHERE u.key <> ALL (p_shadow_key)), 'NOTHING')),
           string_agg(quote_ident(u.key), ', ' ORDER BY u.key),
           -- As a column of the shadow would hold it.
           string_agg(format('(%s)::%s AS %I', u.value, format_type(a.atttypid, a.atttypmod), u.key), ', ' ORDER BY u.key)
      INTO v_words.upsert, v_words.on_conflict, v_words.shadow_columns, v_words.row_words
      FROM jsonb_each_text(p_up) AS u JOIN pg_attribute a ON a.attrelid = p_shadow AND a.attname = u.key;
    RETURN v_words;
END
$$;

-- Notes a pair down, for whoever owns it. The functions exist: whoever registers has made them.
CREATE OR REPLACE FUNCTION cutover.register_shadow_table(p_name text, p_primary regclass, p_shadow regclass, p_key text[], p_shadow_key text[],
                                                         p_up jsonb, p_down jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Nobody who does not own both tables speaks for them.
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid IN (p_primary, p_shadow) AND NOT pg_has_role(session_user, c.relowner, 'MEMBER')) THEN
        PERFORM cutover.refuse('SC004', format('%s belongs to somebody else', p_name));
    END IF;
    PERFORM cutover.note_shadow_table(p_name, p_primary, p_shadow, p_key, p_shadow_key, p_up, p_down);
END
$$;

CREATE OR REPLACE FUNCTION cutover.note_shadow_table(p_name text, p_primary regclass, p_shadow regclass, p_key text[], p_shadow_key text[],
                                                     p_up jsonb, p_down jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_schema text := (SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_primary);
BEGIN
    INSERT INTO cutover.shadow_table (table_name, primary_table, shadow_table, key_columns, shadow_key_columns, up, down,
                                      refresh_function, next_keys_function, compare_function, created_by)
    VALUES (p_name, p_primary, p_shadow, p_key, p_shadow_key, p_up, p_down,
            format('%s.cutover_refresh_%s(jsonb[])', v_schema, p_primary::oid),
            format('%s.cutover_next_keys_%s(text, jsonb, jsonb, integer)', v_schema, p_primary::oid),
            format('%s.cutover_compare_%s(real)', v_schema, p_primary::oid), session_user);
    INSERT INTO cutover.dual_write_config (table_name, updated_by) VALUES (p_name, session_user);
    INSERT INTO cutover.traffic_routing_config (table_name, salt, updated_by) VALUES (p_name, current_database() || '.' || p_name, session_user);
    INSERT INTO cutover.new_table (table_name, relation) VALUES (p_name, p_shadow) ON CONFLICT (table_name) DO UPDATE SET relation = p_shadow;
    PERFORM cutover.append_audit('create_shadow_table', p_name, NULL, jsonb_build_object('shadow', p_shadow::text, 'up', p_up, 'down', p_down));
END
$$;
