-- What is in the way of completing a table, and once it is completed of going back; and what to know before. `blocks`: it is
-- refused. It can be asked at any time, and is asked again under the lock.
CREATE OR REPLACE FUNCTION cutover.check_completion(p_table_name text) RETURNS TABLE (check_name text, blocks boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_x regclass := v_shadow.primary_table;
    v_y regclass := v_shadow.shadow_table;
    v_back boolean := v_shadow.stand_in IS NOT NULL;
    v_version integer := current_setting('server_version_num')::integer;
    v_p pg_class;
    v_s pg_class;
    -- Columns that triggers might read without anybody seeing it.
    v_unlike text[] := cutover.unlike_columns(v_x, v_y);
BEGIN
    SELECT * INTO v_p FROM pg_class c WHERE c.oid = v_x;
    SELECT * INTO v_s FROM pg_class c WHERE c.oid = v_y;
    IF v_p.oid IS NULL OR v_s.oid IS NULL THEN
        RETURN QUERY SELECT 'tables', true, format('one of the two tables of %s was dropped', v_shadow.table_name), 'SELECT cutover.drop_shadow_table(…), or restore it';
        RETURN;
    END IF;
    RETURN QUERY
    SELECT 'owner', true, format('%s belongs to %s, and you are %I', c.oid::regclass, c.relowner::regrole, current_user), format('SET ROLE %s', c.relowner::regrole)
      FROM pg_class c WHERE c.oid IN (v_x, v_y) AND c.relowner <> current_user::regrole
    UNION ALL
    SELECT 'name', true, format('%s is not called %s any more', v_x, v_shadow.table_name), 'give it its name back' WHERE cutover.name_of(v_x) <> v_shadow.table_name
    UNION ALL
    SELECT 'name', true, format('%s and %s are in different schemas', v_x, v_y), format('ALTER TABLE %s SET SCHEMA %s', v_y, v_p.relnamespace::regnamespace)
     WHERE v_p.relnamespace <> v_s.relnamespace
    UNION ALL
    SELECT 'name', true, format('the name %I is taken', o.name), format('rename it: %s gets that name', v_x)
      FROM (SELECT cutover.other_name(v_shadow, v_back) AS name) o
     WHERE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = v_p.relnamespace AND c.relname = o.name AND c.oid IS DISTINCT FROM v_shadow.stand_in)
        OR EXISTS (SELECT FROM pg_type t WHERE t.typnamespace = v_p.relnamespace AND t.typname = o.name AND (t.typrelid = 0 OR t.typrelid IS DISTINCT FROM v_shadow.stand_in))
    UNION ALL
    SELECT 'kind', true, format('%s has children by inheritance', i.inhparent::regclass), 'make a partitioned table of them'
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent WHERE i.inhparent IN (v_x, v_y) AND c.relkind = 'r'
    UNION ALL
    SELECT 'kind', true, format('%s is a child of %s', i.inhrelid::regclass, i.inhparent::regclass), 'ALTER TABLE … NO INHERIT, or DETACH PARTITION'
      FROM pg_inherits i WHERE i.inhrelid IN (v_x, v_y);
    RETURN QUERY
    SELECT 'constraints', true, format('%I of %s is looked at when a transaction ends, and would break the writes of users while %2$s is the shadow', c.conname, v_x), 'make it NOT DEFERRABLE'
      FROM pg_constraint c WHERE c.conrelid = v_x AND c.condeferrable AND c.contype IN ('p', 'u', 'x')
    UNION ALL
    SELECT 'policies', true, format('%s has FORCE ROW LEVEL SECURITY, and %s does not see all of its rows', c.oid::regclass, c.relowner::regrole),
           format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, or ALTER ROLE %s BYPASSRLS', c.oid::regclass, c.relowner::regrole)
      FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid IN (v_x, v_y) AND c.relforcerowsecurity AND NOT r.rolbypassrls AND NOT r.rolsuper
    UNION ALL
    SELECT 'policies', true, format('%s has row-level security, and %s has none', v_y, v_x), format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or ENABLE it on %s', v_y, v_x)
     WHERE v_s.relrowsecurity AND NOT v_p.relrowsecurity
    UNION ALL
    SELECT 'policies', true, format('%s has row-level security, which the view that stays at the shadow''s name would pass over before PostgreSQL 15', v_x),
           'upgrade the server, or go without the policies'
     WHERE NOT v_back AND v_p.relrowsecurity AND v_version < 150000
    UNION ALL
    SELECT 'policies', true, format('%s uses %s, which %s does not have as it is', h.name, array_to_string(u.columns, ', '), v_y), format('CREATE POLICY of that name ON %s', v_y)
      FROM cutover.to_carry(v_shadow) h, LATERAL (SELECT cutover.unlike_columns_of(h.class_id, h.object_id, v_x, v_y) AS columns) u
     WHERE h.kind = 'policy' AND cardinality(u.columns) > 0
       AND NOT EXISTS (SELECT FROM pg_policy p JOIN pg_policy s ON s.polname = p.polname AND s.polrelid = v_y WHERE p.oid = h.object_id)
    UNION ALL
    SELECT 'policies', true, format('the policy %I says something else for %s', p.polname, v_y), format('DROP POLICY %I ON %s: it is carried then', p.polname, v_y)
      FROM cutover.to_carry(v_shadow) h JOIN pg_policy p ON p.oid = h.object_id JOIN pg_policy s ON s.polrelid = v_y AND s.polname = p.polname
     WHERE h.kind = 'policy' AND cardinality(cutover.unlike_columns_of(h.class_id, h.object_id, v_x, v_y)) = 0
       AND replace(cutover.policy_statement(s.oid, v_y, ''), quote_ident(v_s.relname) || '.', quote_ident(v_p.relname) || '.') <> cutover.policy_statement(p.oid, v_x, '');
    RETURN QUERY
    SELECT 'foreign keys', true, format('%I of %s can''t be carried: %s', f.name, f.child, f.wrong),
           format('ALTER TABLE %s DROP CONSTRAINT %I', CASE WHEN f.like_name IS NULL THEN f.child ELSE v_y END, coalesce(f.like_name, f.name))
      FROM cutover.foreign_keys(v_shadow) f WHERE f.wrong IS NOT NULL
    UNION ALL
    SELECT 'foreign keys', true, format('%I belongs to %s, a partition', c.conname, c.conrelid::regclass), format('ALTER TABLE %s DROP CONSTRAINT %I', c.conrelid::regclass, c.conname)
      FROM pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0 AND c.conrelid <> v_x AND c.conrelid IN (SELECT * FROM cutover.written_tables(v_x));
    RETURN QUERY
    SELECT 'views', true, CASE WHEN cardinality(u.columns) > 0 THEN format('%s uses %s, which %s does not have as it is', h.name, array_to_string(u.columns, ', '), v_y)
                               WHEN NOT pg_has_role(c.relowner, 'USAGE') THEN format('%s belongs to %s', h.name, c.relowner::regrole)
                               ELSE format('%s names columns by their places, which are others in %s', h.name, v_y) END, format('DROP VIEW %s, and make it again afterwards', c.oid::regclass)
      FROM cutover.to_carry(v_shadow) h JOIN pg_rewrite r ON r.oid = h.object_id JOIN pg_class c ON c.oid = r.ev_class,
           LATERAL (SELECT cutover.unlike_columns_of(h.class_id, h.object_id, v_x, v_y) AS columns) u
     WHERE h.kind = 'view' AND (cardinality(u.columns) > 0 OR NOT pg_has_role(c.relowner, 'USAGE')
           OR cutover.column_order(v_x) <> cutover.column_order(v_y)
              AND cutover.mentions(pg_get_viewdef(c.oid), v_x, '( [^ ,()]+)?\('))
    UNION ALL
    SELECT 'triggers', true, format('%s may read %s, which %s does not have as it is', h.name, array_to_string(v_unlike, ', '), v_y),
           format('make a trigger of that name ON %s for its own columns, and DISABLE it until then', v_y)
      FROM cutover.to_carry(v_shadow) h JOIN pg_trigger t ON t.oid = h.object_id
     WHERE h.kind = 'trigger' AND cardinality(v_unlike) > 0 AND NOT EXISTS (SELECT FROM pg_trigger s WHERE s.tgrelid = v_y AND s.tgname = t.tgname);
    RETURN QUERY
    SELECT 'sequences', true, format('%I of %s may be null, and can''t get the identity of %I', s.shadow_column, v_y, s.column_name), format('ALTER TABLE %s ALTER %I SET NOT NULL', v_y, s.shadow_column)
      FROM cutover.sequences(v_shadow) s WHERE s.kind = 'i' AND s.shadow_sequence IS NULL AND s.shadow_default IS NULL AND s.shadow_may_be_null
    UNION ALL
    -- On the way back they are no reason to wait.
    SELECT 'statistics', NOT v_back, format('%s has nothing like %s', v_y, pg_describe_object('pg_statistic_ext'::regclass, s.statistics, 0)), format('CREATE STATISTICS … FROM %s', v_y)
      FROM cutover.statistics_pairs(v_shadow) s WHERE s.shadow_statistics IS NULL
       AND 'pg_statistic_ext'::regclass::oid || ':' || s.statistics <> ALL (v_shadow.own_objects)
    UNION ALL
    SELECT 'replica identity', true, format('%s is identified by %s to subscribers, and %s has nothing like it', v_x, p.index, v_y), format('make such an index on %s', v_y)
      FROM cutover.index_pairs(v_shadow) p JOIN pg_index i ON i.indexrelid = p.index WHERE i.indisreplident AND p.shadow_index IS NULL;
    RETURN QUERY
    SELECT 'publications', true, CASE WHEN NOT pg_has_role(p.pubowner, 'USAGE') THEN format('the publication %I belongs to %s', p.pubname, p.pubowner::regrole)
                                      WHEN r.words ->> 'prqual' IS NOT NULL OR r.words ->> 'prattrs' IS NOT NULL THEN format('the publication %I has some rows or columns of %s only', p.pubname, v_x)
                                      WHEN r.twice THEN format('the publication %I has both %s and %s', p.pubname, v_x, v_y)
                                      ELSE format('subscribers of the publication %I have not the columns of %s', p.pubname, v_y) END,
           format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, CASE WHEN r.twice THEN v_y ELSE v_x END)
      FROM cutover.to_carry(v_shadow) h,
           LATERAL (SELECT to_jsonb(x) AS words, x.prpubid, EXISTS (SELECT FROM pg_publication_rel y WHERE y.prpubid = x.prpubid AND y.prrelid = v_y) AS twice
                      FROM pg_publication_rel x WHERE x.oid = h.object_id) r JOIN pg_publication p ON p.oid = r.prpubid
     WHERE h.kind = 'publication' AND (NOT pg_has_role(p.pubowner, 'USAGE') OR r.words ->> 'prqual' IS NOT NULL OR r.words ->> 'prattrs' IS NOT NULL OR r.twice
                                       OR cardinality(cutover.unlike_columns(v_y, v_x)) > 0)
    UNION ALL
    SELECT 'rights', false, format('there are rights on %I of %s, a column that %s does not have', a.attname, v_x, v_y), format('GRANT … ON %s, as far as its readers need them', v_y)
      FROM pg_attribute a WHERE a.attrelid = v_x AND a.attacl IS NOT NULL AND NOT a.attisdropped
       AND NOT EXISTS (SELECT FROM pg_attribute s WHERE s.attrelid = v_y AND s.attname = a.attname AND NOT s.attisdropped);
    RETURN QUERY
    SELECT 'subscriptions', true, format('%s is fed by a subscription, which would lose it', v_x), 'complete it once nothing is replicated into it any more'
     WHERE EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = v_x)
    UNION ALL
    SELECT 'labels', true, format('%s has a security label', v_x), 'SECURITY LABEL … IS NULL, and give it to the new table'
     WHERE EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = v_x)
    UNION ALL
    SELECT 'extensions', true, format('%s belongs to the extension %I', v_x, e.extname), format('ALTER EXTENSION %I DROP TABLE %s', e.extname, v_x)
      FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_class'::regclass AND d.objid = v_x AND d.deptype = 'e';
    RETURN QUERY
    SELECT 'dependants', true, format('%s can''t be carried', h.name), 'drop it, and make it again afterwards' FROM cutover.to_carry(v_shadow) h WHERE h.kind = 'other'
    UNION ALL
    SELECT 'dependants', true, format('%s hangs on the view %s, which has to go', d.name, v_shadow.stand_in), 'drop it, and make it again afterwards'
      FROM cutover.hanging_on(v_shadow.stand_in) d WHERE v_back AND d.object_id NOT IN (SELECT r.oid FROM pg_rewrite r WHERE r.ev_class = v_shadow.stand_in);
    -- What to know.
    RETURN QUERY
    SELECT 'indexes', false, format('%s has nothing like %s', v_y, p.index), format('make one before, or do without it: %s', pg_get_indexdef(p.index))
      FROM cutover.index_pairs(v_shadow) p WHERE p.shadow_index IS NULL
    UNION ALL
    SELECT 'defaults', false, format('%I of %s has a default, and %I of %s has none', a.attname, v_x, s.attname, v_y), format('ALTER TABLE %s ALTER %I SET DEFAULT %s', v_y, s.attname, pg_get_expr(d.adbin, d.adrelid))
      FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated = '' JOIN cutover.column_pairs(v_shadow) m ON m.name = a.attname
      JOIN pg_attribute s ON s.attrelid = v_y AND s.attname = m.shadow_name AND NOT s.atthasdef AND s.attidentity = ''
     WHERE d.adrelid = v_x AND a.attname NOT IN (SELECT q.column_name FROM cutover.sequences(v_shadow) q)
    UNION ALL
    SELECT 'sequences', false, format('%s ends at %s, before %I of %s does', q.sequence, s.seqmax, q.shadow_column, v_y), format('ALTER SEQUENCE %s AS bigint MAXVALUE …, when it is completed', q.sequence)
      FROM cutover.sequences(v_shadow) q JOIN pg_sequence s ON s.seqrelid = q.sequence JOIN pg_attribute a ON a.attrelid = v_y AND a.attname = q.shadow_column
     WHERE q.shadow_sequence IS NULL AND a.atttypid = 'bigint'::regtype AND s.seqmax < 9223372036854775807 AND s.seqtypid <> 'bigint'::regtype
    UNION ALL
    SELECT 'publications', false, format('the publication %I has all tables, and so both', p.pubname), 'its subscribers need both' FROM pg_publication p WHERE p.puballtables
    UNION ALL
    SELECT 'statistics', false, format('%s has never been analysed, so the server would plan without knowing it', v_y), format('ANALYZE %s', v_y)
     WHERE v_s.relkind = 'r' AND v_p.reltuples > 0 AND NOT EXISTS (SELECT FROM pg_stats t WHERE t.schemaname = v_s.relnamespace::regnamespace::text AND t.tablename = v_s.relname)
    UNION ALL
    SELECT 'foreign keys', false, format('%s foreign keys are made again without looking at the rows', count(*)), format('SELECT * FROM cutover.validate_foreign_keys(%L), when it is completed', v_shadow.table_name)
      FROM cutover.foreign_keys(v_shadow) f HAVING count(*) > 0;
END
$$;

CREATE OR REPLACE FUNCTION cutover.column_order(p_table regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped
$$;
