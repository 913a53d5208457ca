-- A table and its shadow exchange their places: names, and everything that hangs on them. The way back is the same once more.
--
-- Everything is written out as statements, from what the catalogue says, before the first is executed: so what is carried is in
-- the audit word by word. Statements in front of the renaming say the names there are; those behind it mean the shadow where
-- they say the primary's name.

-- Exchanges them, with the rights of whoever calls, in front of whom everything concerned is locked. Returns what was executed.
CREATE OR REPLACE FUNCTION cutover.swap(p_shadow cutover.shadow_table, p_back boolean, OUT statements text[], OUT stand_in regclass, OUT own_objects text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_schema name;
    v_name name;
    v_other name := cutover.other_name(p_shadow, p_back);
    v_shadow_name name := cutover.shadow_name(p_shadow);
    v_mode text := (SELECT d.sync_mode FROM cutover.dual_write_config d WHERE d.table_name = p_shadow.table_name);
    v_turned cutover.shadow_table := p_shadow;
    v_statement text;
    v_left text;
BEGIN
    SELECT n.nspname, c.relname INTO v_schema, v_name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_shadow.primary_table;
    own_objects := CASE WHEN p_back THEN '{}' ELSE ARRAY(
        SELECT h.class_id || ':' || h.object_id FROM cutover.hanging_on(p_shadow.shadow_table) h
         WHERE h.kind <> 'part'
           -- Where both have one of the name, they change places.
           AND NOT EXISTS (SELECT FROM pg_trigger s JOIN pg_trigger p ON p.tgname = s.tgname WHERE s.oid = h.object_id AND h.kind = 'trigger' AND p.tgrelid = p_shadow.primary_table)
           AND NOT EXISTS (SELECT FROM pg_policy s JOIN pg_policy p ON p.polname = s.polname WHERE s.oid = h.object_id AND h.kind = 'policy' AND p.polrelid = p_shadow.primary_table)) END;
    statements := ARRAY(SELECT s.statement FROM cutover.swap_statements(p_shadow, v_schema, v_name, v_other, p_back) s ORDER BY s.place, s.number);
    FOREACH v_statement IN ARRAY statements LOOP
        EXECUTE v_statement;
    END LOOP;
    PERFORM cutover.carry_rights(p_shadow.primary_table, p_shadow.shadow_table);
    IF NOT p_back THEN
        -- Readers that were sent to the shadow find it by its name; what they may, they may with the same rights.
        EXECUTE format('CREATE VIEW %I.%I %s AS SELECT * FROM %s', v_schema, v_shadow_name,
                       CASE WHEN current_setting('server_version_num')::integer >= 150000 THEN 'WITH (security_invoker = true)' ELSE '' END, p_shadow.shadow_table);
        stand_in := format('%I.%I', v_schema, v_shadow_name)::regclass;
        EXECUTE format('COMMENT ON VIEW %s IS %L', stand_in, format('%s, for readers that were sent to its shadow; made by cutover', p_shadow.table_name));
        PERFORM cutover.carry_rights(p_shadow.shadow_table, stand_in);
    END IF;
    v_turned.primary_table := p_shadow.shadow_table;
    v_turned.shadow_table := p_shadow.primary_table;
    v_turned.key_columns := p_shadow.shadow_key_columns;
    v_turned.shadow_key_columns := p_shadow.key_columns;
    v_turned.up := p_shadow.down;
    v_turned.down := p_shadow.up;
    EXECUTE cutover.shadow_functions(v_turned.primary_table, v_turned.shadow_table, v_turned.key_columns, v_turned.shadow_key_columns, v_turned.up);
    PERFORM cutover.make_triggers(v_turned, v_mode);
    -- The world is closed: nothing has stayed behind unseen.
    SELECT string_agg(h.name, ', ') INTO v_left FROM cutover.to_carry(p_shadow) h
     WHERE h.kind IN ('view', 'foreign key', 'publication', 'other');
    IF v_left IS NOT NULL THEN
        PERFORM cutover.refuse('SC004', format('%s would stay with the old table', v_left), 'nothing was changed; cutover.check_completion() says what is in the way');
    END IF;
END
$$;

-- The name of the shadow: its own, and once it is completed that of the view in its place.
CREATE OR REPLACE FUNCTION cutover.shadow_name(p_shadow cutover.shadow_table) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_shadow.stand_in IS NULL THEN (SELECT c.relname FROM pg_class c WHERE c.oid = p_shadow.shadow_table)
                -- Somebody may have dropped it.
                ELSE coalesce((SELECT c.relname FROM pg_class c WHERE c.oid = p_shadow.stand_in),
                              (SELECT (left(c.relname, 56) || '_shadow')::name FROM pg_class c WHERE c.oid = p_shadow.primary_table)) END
$$;

-- The name that the table gets whose place is taken.
CREATE OR REPLACE FUNCTION cutover.other_name(p_shadow cutover.shadow_table, p_back boolean) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_back THEN cutover.shadow_name(p_shadow) ELSE (SELECT (left(c.relname, 59) || '_old')::name FROM pg_class c WHERE c.oid = p_shadow.primary_table) END
$$;

-- All statements, by their place. The renaming is at 50.
CREATE OR REPLACE FUNCTION cutover.swap_statements(p_shadow cutover.shadow_table, p_schema name, p_name name, p_other name, p_back boolean)
RETURNS TABLE (place integer, number bigint, statement text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Behind the renaming.
    v_new text := format('%I.%I', p_schema, p_name);
    v_old text := format('%I.%I', p_schema, p_other);
BEGIN
    RETURN QUERY
    SELECT 10, 0::bigint, format('DROP VIEW %s', c.oid::regclass) FROM pg_class c WHERE p_back AND c.oid = p_shadow.stand_in
    UNION ALL
    SELECT 20, t.oid::bigint, format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
     WHERE t.tgparentid = 0 AND (t.tgname LIKE 'cutover\_dual\_write\_%' AND t.tgrelid IN (SELECT * FROM cutover.written_tables(p_shadow.primary_table))
                                 OR t.tgname = 'cutover_fence' AND t.tgrelid IN (SELECT * FROM cutover.written_tables(p_shadow.shadow_table)))
    UNION ALL
    SELECT 22, f.oid::bigint, format('DROP FUNCTION %s', f.oid::regprocedure) FROM cutover.pair_functions(p_shadow) f
    UNION ALL
    -- Keys of the table that is not in charge would hold up whoever deletes what a late row of it refers to.
    SELECT 30, f.object_id::bigint, format('ALTER TABLE %s DROP CONSTRAINT %I', f.child, f.name) FROM cutover.foreign_keys(p_shadow) f
    UNION ALL
    SELECT 50, 0, format('ALTER TABLE %s RENAME TO %I', p_shadow.primary_table, p_other)
    UNION ALL
    SELECT 50, 1, format('ALTER TABLE %s RENAME TO %I', p_shadow.shadow_table, p_name)
    UNION ALL
    SELECT 55, i.index::oid::bigint * 3 + s.number, s.statement FROM cutover.index_pairs(p_shadow) i,
           cutover.exchange_names('INDEX', i.index, i.shadow_index) s WHERE i.shadow_index IS NOT NULL
    UNION ALL
    SELECT 56, o.statistics::bigint, format('ALTER STATISTICS %I.%I RENAME TO %I; ALTER STATISTICS %I.%I RENAME TO %I; ALTER STATISTICS %I.%I RENAME TO %I',
               n.nspname, s.stxname, 'cutover_' || s.oid, m.nspname, t.stxname, s.stxname, n.nspname, 'cutover_' || s.oid, t.stxname)
      FROM cutover.statistics_pairs(p_shadow) o JOIN pg_statistic_ext s ON s.oid = o.statistics JOIN pg_namespace n ON n.oid = s.stxnamespace
      JOIN pg_statistic_ext t ON t.oid = o.shadow_statistics JOIN pg_namespace m ON m.oid = t.stxnamespace AND m.oid = n.oid
    UNION ALL
    SELECT 60, s.sequence::oid::bigint * 10 + w.number, w.statement FROM cutover.sequences(p_shadow) s, cutover.sequence_statements(s, v_new, v_old) w
    UNION ALL
    SELECT 70, f.object_id::bigint, coalesce(f.make, format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', v_new, f.like_name, f.name))
      FROM cutover.foreign_keys(p_shadow) f WHERE f.make IS NOT NULL OR f.like_name <> f.name
    UNION ALL
    SELECT 75, h.object_id::bigint, format('CREATE OR REPLACE VIEW %s %s AS %s', r.ev_class::regclass,
               'WITH (' || nullif(array_to_string(c.reloptions, ', '), '') || ')', pg_get_viewdef(r.ev_class))
      FROM cutover.to_carry(p_shadow) h JOIN pg_rewrite r ON r.oid = h.object_id JOIN pg_class c ON c.oid = r.ev_class WHERE h.kind = 'view'
    UNION ALL
    SELECT 80, t.oid::bigint,
           CASE WHEN s.oid IS NULL THEN format('DROP TRIGGER %I ON %s; %s', t.tgname, v_old, pg_get_triggerdef(t.oid))
                ELSE format('ALTER TABLE %s DISABLE TRIGGER %I', v_old, t.tgname) END
           || format('; ALTER TABLE %s %s TRIGGER %I', v_new,
                     CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE' END, t.tgname)
           || coalesce(format('; COMMENT ON TRIGGER %I ON %s IS ', t.tgname, v_new) || quote_literal(obj_description(t.oid, 'pg_trigger')), '')
      FROM cutover.to_carry(p_shadow) h JOIN pg_trigger t ON t.oid = h.object_id
      LEFT JOIN pg_trigger s ON s.tgrelid = p_shadow.shadow_table AND s.tgname = t.tgname WHERE h.kind = 'trigger'
    UNION ALL
    SELECT 84, p.oid::bigint, cutover.policy_statement(p.oid, p_shadow.primary_table, v_new) FROM cutover.to_carry(p_shadow) h JOIN pg_policy p ON p.oid = h.object_id
     WHERE h.kind = 'policy' AND NOT EXISTS (SELECT FROM pg_policy s WHERE s.polrelid = p_shadow.shadow_table AND s.polname = p.polname)
    UNION ALL
    SELECT 85, 0, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_new) FROM pg_class p, pg_class s
     WHERE p.oid = p_shadow.primary_table AND s.oid = p_shadow.shadow_table AND p.relrowsecurity AND NOT s.relrowsecurity
    UNION ALL
    SELECT 86, 0, format('ALTER TABLE %s REPLICA IDENTITY %s', x.goal, CASE x.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' WHEN 'd' THEN 'DEFAULT'
                         ELSE format('USING INDEX %I', x.index_name) END)
      FROM (SELECT v_new AS goal, p.relreplident, s.relreplident AS now, (SELECT n.relname FROM pg_index i JOIN pg_class n ON n.oid = i.indexrelid WHERE i.indrelid = p.oid AND i.indisreplident) AS index_name
              FROM pg_class p, pg_class s WHERE p.oid = p_shadow.primary_table AND s.oid = p_shadow.shadow_table
            UNION ALL
            SELECT v_old, s.relreplident, p.relreplident, (SELECT n.relname FROM pg_index i JOIN pg_class n ON n.oid = i.indexrelid WHERE i.indrelid = s.oid AND i.indisreplident)
              FROM pg_class p, pg_class s WHERE p.oid = p_shadow.primary_table AND s.oid = p_shadow.shadow_table) x
     WHERE x.relreplident <> x.now
    UNION ALL
    SELECT 87, r.oid::bigint, format('ALTER PUBLICATION %I DROP TABLE %s; ALTER PUBLICATION %1$I ADD TABLE %3$s', p.pubname, v_old, v_new)
      FROM cutover.to_carry(p_shadow) h JOIN pg_publication_rel r ON r.oid = h.object_id JOIN pg_publication p ON p.oid = r.prpubid WHERE h.kind = 'publication'
    UNION ALL
    -- What is said about a table is said about whichever has its name.
    SELECT 88, 0, format('COMMENT ON TABLE %s IS %L; COMMENT ON TABLE %s IS %L', v_new, obj_description(p_shadow.primary_table, 'pg_class'), v_old,
                         obj_description(p_shadow.shadow_table, 'pg_class'))
    UNION ALL
    SELECT 88, a.attnum, format('COMMENT ON COLUMN %s.%I IS %L; COMMENT ON COLUMN %s.%2$I IS %5$L', v_new, a.attname, x.said, v_old, x.shadow_said)
      FROM pg_attribute a JOIN pg_attribute s ON s.attrelid = p_shadow.shadow_table AND s.attname = a.attname AND NOT s.attisdropped,
           LATERAL (SELECT col_description(a.attrelid, a.attnum) AS said, col_description(s.attrelid, s.attnum) AS shadow_said) x
     WHERE a.attrelid = p_shadow.primary_table AND a.attnum > 0 AND NOT a.attisdropped AND x.said IS DISTINCT FROM x.shadow_said
    UNION ALL
    -- Partitions of the old table keep their names. Whoever writes there by name must hear that it is the old one; what is
    -- written to the table as a whole does not fire this.
    SELECT 90, w.relation::oid::bigint, format('CREATE TRIGGER cutover_fence BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION cutover.refuse_old_partition();'
                           'ALTER TABLE %1$s ENABLE ALWAYS TRIGGER cutover_fence', w.relation)
      FROM cutover.written_tables(p_shadow.primary_table) AS w (relation) WHERE NOT p_back AND w.relation <> p_shadow.primary_table;
END
$$;

CREATE OR REPLACE FUNCTION cutover.refuse_old_partition() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Said here: whoever writes may call nothing of this schema.
    RAISE EXCEPTION USING ERRCODE = 'SC002', HINT = 'write to the table itself',
        MESSAGE = format('%I.%I is a partition of a table whose place its shadow has taken', TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$$;

-- The functions that belong to a pair, whichever of both is in charge.
CREATE OR REPLACE FUNCTION cutover.pair_functions(p_shadow cutover.shadow_table) RETURNS TABLE (oid oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid FROM pg_proc p JOIN pg_class c ON c.oid IN (p_shadow.primary_table, p_shadow.shadow_table)
     WHERE p.proname IN ('cutover_refresh_' || c.oid, 'cutover_next_keys_' || c.oid, 'cutover_compare_' || c.oid, 'cutover_dual_write_' || c.oid)
       AND p.pronamespace = c.relnamespace AND p.proowner = c.relowner
$$;

-- Three renamings by which two exchange their names. Both have to be in one schema.
CREATE OR REPLACE FUNCTION cutover.exchange_names(p_what text, p_one regclass, p_other regclass) RETURNS TABLE (number bigint, statement text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.number, s.statement FROM pg_class a JOIN pg_class b ON b.relnamespace = a.relnamespace JOIN pg_namespace n ON n.oid = a.relnamespace, LATERAL (VALUES
           (0::bigint, format('ALTER %s %I.%I RENAME TO %I', p_what, n.nspname, a.relname, 'cutover_' || a.oid)),
           (1, format('ALTER %s %I.%I RENAME TO %I', p_what, n.nspname, b.relname, a.relname)),
           (2, format('ALTER %s %I.%I RENAME TO %I', p_what, n.nspname, 'cutover_' || a.oid, b.relname))) AS s (number, statement)
     WHERE a.oid = p_one AND b.oid = p_other
$$;

-- How a column's numbers go on. A serial's sequence goes along as it is. An identity's is made anew with the same options and goes on
-- where it was, and so does one that the shadow has of its own: one that was never used stays so.
CREATE OR REPLACE FUNCTION cutover.sequence_statements(p_sequence record, p_new text, p_old text) RETURNS TABLE (number bigint, statement text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_schema name;
    v_name name;
    v_words text;
    v_now text;
BEGIN
    SELECT n.nspname, c.relname INTO v_schema, v_name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_sequence.sequence;
    v_now := format('%I.%I', v_schema, 'cutover_' || p_sequence.sequence::oid);
    IF p_sequence.shadow_sequence IS NOT NULL THEN
        RETURN QUERY SELECT s.number, s.statement FROM cutover.exchange_names('SEQUENCE', p_sequence.sequence, p_sequence.shadow_sequence) s;
        number := 3;
        statement := format('SELECT setval(%L, last_value, is_called) FROM %s', p_sequence.sequence, p_sequence.shadow_sequence);
        RETURN NEXT;
    ELSIF p_sequence.kind = 'a' AND (p_sequence.shadow_default IS NULL OR p_sequence.shadow_default = p_sequence.default_words) THEN
        number := 0;
        statement := format('ALTER SEQUENCE %s OWNED BY %s.%I', p_sequence.sequence, p_new, p_sequence.shadow_column);
        RETURN NEXT;
        number := 1;
        statement := format('ALTER TABLE %s ALTER %I SET DEFAULT %s; ALTER TABLE %s ALTER %I DROP DEFAULT', p_new, p_sequence.shadow_column, p_sequence.default_words,
                            p_old, p_sequence.column_name);
        IF p_sequence.shadow_default IS NULL AND p_sequence.default_words IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    ELSIF p_sequence.kind = 'i' AND p_sequence.shadow_default IS NULL THEN
        number := 0;
        -- From here on nobody takes a number.
        statement := format('ALTER SEQUENCE %s RENAME TO %I', p_sequence.sequence, 'cutover_' || p_sequence.sequence::oid);
        RETURN NEXT;
        SELECT format('START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s %s', s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
          INTO v_words FROM pg_sequence s WHERE s.seqrelid = p_sequence.sequence;
        number := 1;
        SELECT format('ALTER TABLE %s ALTER %I ADD GENERATED %s AS IDENTITY (SEQUENCE NAME %s %s)', p_new, p_sequence.shadow_column,
                      CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, p_sequence.sequence, v_words)
          INTO statement FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = p_sequence.sequence AND d.deptype = 'i';
        RETURN NEXT;
        number := 2;
        statement := format('SELECT setval(%L, last_value, is_called) FROM %s', p_sequence.sequence, v_now);
        RETURN NEXT;
        number := 3;
        SELECT string_agg(format('GRANT %s ON SEQUENCE %s TO %s%s', a.privilege_type, p_sequence.sequence, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                                 CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ')
          INTO statement FROM pg_class c, LATERAL aclexplode(c.relacl) a WHERE c.oid = p_sequence.sequence AND a.grantee <> c.relowner;
        IF statement IS NOT NULL THEN
            RETURN NEXT;
        END IF;
        number := 4;
        statement := format('ALTER TABLE %s ALTER %I DROP IDENTITY', p_old, p_sequence.column_name);
        RETURN NEXT;
    END IF;
END
$$;

-- The statement that makes a policy again at another table. Its words are those of p_words, whose columns have the same numbers
-- where it is not the policy's own table; with p_new in them where they say p_old.
CREATE OR REPLACE FUNCTION cutover.policy_statement(p_policy oid, p_words regclass, p_goal text, p_old text DEFAULT '', p_new text DEFAULT '') RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, p_goal, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                  CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                  (SELECT string_agg(CASE r.id WHEN 0 THEN 'PUBLIC' ELSE r.id::regrole::text END, ', ') FROM unnest(p.polroles) AS r (id)))
           || coalesce(' USING (' || replace(pg_get_expr(p.polqual, p_words), p_old, p_new) || ')', '')
           || coalesce(' WITH CHECK (' || replace(pg_get_expr(p.polwithcheck, p_words), p_old, p_new) || ')', '')
           || coalesce(format('; COMMENT ON POLICY %I ON %s IS ', p.polname, p_goal) || quote_literal(obj_description(p.oid, 'pg_policy')), '')
      FROM pg_policy p WHERE p.oid = p_policy
$$;

-- Makes a table's policies again at its shadow. What does not fit is left out, and then its readers see too little rather than too
-- much: without a policy that restricts, there is none that permits.
CREATE OR REPLACE FUNCTION cutover.carry_policies(p_from regclass, p_to regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_policy record;
    v_same_places boolean;
    v_statement text;
    -- What stands in front of columns where words look at other tables too.
    v_old text := (SELECT quote_ident(c.relname) || '.' FROM pg_class c WHERE c.oid = p_from);
    v_new text := (SELECT quote_ident(c.relname) || '.' FROM pg_class c WHERE c.oid = p_to);
BEGIN
    IF (SELECT c.relrowsecurity FROM pg_class c WHERE c.oid = p_from) THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', p_to);
    END IF;
    FOR v_policy IN SELECT p.oid, p.polpermissive, concat(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS words FROM pg_policy p WHERE p.polrelid = p_from ORDER BY p.polpermissive, p.oid LOOP
        -- Words that look at other tables name the table whose rows they are about: at the shadow, itself.
        v_same_places := NOT EXISTS (
            SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = p_from AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_policy'::regclass AND d.objid = v_policy.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p_from
               AND NOT EXISTS (SELECT FROM pg_attribute s WHERE s.attrelid = p_to AND s.attname = a.attname AND s.attnum = a.attnum AND NOT s.attisdropped));
        BEGIN
            IF EXISTS (SELECT FROM cutover.hanging_on(p_from) h WHERE h.object_id = v_policy.oid AND h.class_id = 'pg_policy'::regclass AND h.kind = 'other') THEN
                RAISE feature_not_supported USING MESSAGE = 'it looks at the table itself';
            END IF;
            v_statement := CASE WHEN v_same_places THEN cutover.policy_statement(v_policy.oid, p_to, p_to::text)
                                -- What looks like a column might stand in somebody's text.
                                WHEN strpos(v_policy.words, '''') > 0 THEN cutover.policy_statement(v_policy.oid, p_from, p_to::text)
                                ELSE cutover.policy_statement(v_policy.oid, p_from, p_to::text, v_old, v_new) END;
            EXECUTE v_statement;
        EXCEPTION WHEN OTHERS THEN
            EXIT WHEN NOT v_policy.polpermissive;
        END;
    END LOOP;
END
$$;

-- Gives everybody the rights on one table that they have on another, and on columns of the same name, and takes from everybody
-- what they have not there.
CREATE OR REPLACE FUNCTION cutover.carry_rights(p_from regclass, p_to regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        WITH rights AS (
            SELECT c.oid AS relation, NULL::name AS column_name, a.grantee, a.privilege_type, bool_or(a.is_grantable AND a.grantee <> c.relowner) AS grantable
              FROM pg_class c, LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid IN (p_from, p_to) GROUP BY 1, 2, 3, 4
            UNION ALL
            SELECT t.attrelid, t.attname, a.grantee, a.privilege_type, bool_or(a.is_grantable) FROM pg_attribute t, LATERAL aclexplode(t.attacl) a
             WHERE t.attrelid IN (p_from, p_to) AND NOT t.attisdropped
               AND t.attname IN (SELECT o.attname FROM pg_attribute o WHERE o.attrelid IN (p_from, p_to) AND o.attrelid <> t.attrelid AND NOT o.attisdropped) GROUP BY 1, 2, 3, 4)
        SELECT format(CASE WHEN f.privilege_type IS NULL THEN 'REVOKE %1$s%2$s ON TABLE %3$s FROM %4$s CASCADE'
                           WHEN t.grantable AND NOT f.grantable THEN 'REVOKE GRANT OPTION FOR %1$s%2$s ON TABLE %3$s FROM %4$s CASCADE'
                           WHEN f.grantable THEN 'GRANT %1$s%2$s ON TABLE %3$s TO %4$s WITH GRANT OPTION' ELSE 'GRANT %1$s%2$s ON TABLE %3$s TO %4$s' END,
                      coalesce(f.privilege_type, t.privilege_type), coalesce(' (' || quote_ident(coalesce(f.column_name, t.column_name)) || ')', ''), p_to,
                      CASE coalesce(f.grantee, t.grantee) WHEN 0 THEN 'PUBLIC' ELSE coalesce(f.grantee, t.grantee)::regrole::text END)
          FROM (SELECT * FROM rights r WHERE r.relation = p_from) f
          FULL JOIN (SELECT * FROM rights r WHERE r.relation = p_to) t
            ON coalesce(t.column_name, '') = coalesce(f.column_name, '') AND t.grantee = f.grantee AND t.privilege_type = f.privilege_type
         WHERE f.privilege_type IS NULL OR t.privilege_type IS NULL OR f.grantable <> t.grantable
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
