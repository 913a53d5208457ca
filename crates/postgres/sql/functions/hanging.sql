-- What hangs on a table and has to come along when its shadow takes its place: foreign keys, views, sequences, names.
--
-- The world is closed: what none of these functions knows how to carry is refused by name (completion.sql).

-- Whether words as the server writes them out name a table, and what follows looks so.
CREATE OR REPLACE FUNCTION cutover.mentions(p_words text, p_table regclass, p_behind text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_words ~ (regexp_replace(p_table::text, '(\W)', '\\\1', 'g') || p_behind)
$$;

-- Everything that depends on a table, its row type, its indexes, constraints and identity, or its partitions. `kind` says what
-- can be done about it; `other`: nothing.
CREATE OR REPLACE FUNCTION cutover.hanging_on(p_table regclass) RETURNS TABLE (kind text, class_id oid, object_id oid, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH tree AS (SELECT w.relation::oid AS id FROM cutover.written_tables(p_table) AS w (relation)),
    ours AS (
        SELECT 'pg_class'::regclass::oid AS class_id, t.id AS object_id FROM tree t
        UNION SELECT 'pg_type'::regclass, y.oid FROM tree t JOIN pg_class c ON c.oid = t.id
                JOIN pg_type r ON r.oid = c.reltype JOIN pg_type y ON y.oid IN (r.oid, r.typarray)
        UNION SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i JOIN tree t ON t.id = i.indrelid
        UNION SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c JOIN tree t ON t.id = c.conrelid
        UNION SELECT 'pg_attrdef'::regclass, a.oid FROM pg_attrdef a JOIN tree t ON t.id = a.adrelid
        -- A serial's sequence goes along as it is; one of an identity is made anew.
        UNION SELECT d.classid, d.objid FROM pg_depend d JOIN tree t ON t.id = d.refobjid JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
    ), found AS (
        SELECT d.classid, d.objid, max(d.objsubid) AS part, bool_or(d.refobjid = p_table AND d.refclassid = 'pg_class'::regclass) AS by_table,
               bool_or(NOT (d.refobjid = p_table AND d.refclassid = 'pg_class'::regclass) AND d.refclassid <> 'pg_constraint'::regclass) AS by_part
          -- One look at an index for each: the catalogue may be large, and everybody waits.
          FROM ours o, LATERAL (SELECT * FROM pg_depend e WHERE e.refclassid = o.class_id AND e.refobjid = o.object_id OFFSET 0) d
         WHERE d.deptype IN ('n', 'a') AND NOT EXISTS (SELECT FROM ours x WHERE x.class_id = d.classid AND x.object_id = d.objid)
         GROUP BY d.classid, d.objid
    )
    SELECT CASE f.classid
             WHEN 'pg_rewrite'::regclass THEN
               (SELECT CASE WHEN r.rulename = '_RETURN' AND c.relkind = 'v' AND f.by_table AND NOT f.by_part THEN 'view' ELSE 'other' END
                  FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid = f.objid)
             WHEN 'pg_constraint'::regclass THEN
               (SELECT CASE WHEN c.conparentid <> 0 THEN 'part' WHEN c.contype = 'f' AND c.confrelid = p_table THEN 'foreign key' ELSE 'other' END
                  FROM pg_constraint c WHERE c.oid = f.objid)
             WHEN 'pg_trigger'::regclass THEN
               (SELECT CASE WHEN t.tgisinternal OR t.tgparentid <> 0 OR t.tgname LIKE 'cutover\_%' THEN 'part'
                            WHEN t.tgrelid = p_table THEN 'trigger' ELSE 'other' END FROM pg_trigger t WHERE t.oid = f.objid)
             WHEN 'pg_policy'::regclass THEN
               (SELECT CASE WHEN p.polrelid <> p_table OR cutover.mentions(concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), p_table, '($|[^\w$"])')
                            THEN 'other' ELSE 'policy' END FROM pg_policy p WHERE p.oid = f.objid)
             WHEN 'pg_statistic_ext'::regclass THEN
               (SELECT CASE WHEN s.stxrelid = p_table THEN 'statistics' WHEN s.stxrelid IN (SELECT id FROM tree) THEN 'part' ELSE 'other' END
                  FROM pg_statistic_ext s WHERE s.oid = f.objid)
             WHEN 'pg_publication_rel'::regclass THEN
               (SELECT CASE WHEN r.prrelid = p_table THEN 'publication' ELSE 'other' END FROM pg_publication_rel r WHERE r.oid = f.objid)
             WHEN 'pg_class'::regclass THEN
               (SELECT CASE WHEN c.relkind = 'S' AND f.by_table THEN 'part' ELSE 'other' END FROM pg_class c WHERE c.oid = f.objid)
             ELSE 'other' END,
           f.classid, f.objid,
           CASE WHEN f.classid = 'pg_rewrite'::regclass
                THEN (SELECT CASE WHEN r.rulename <> '_RETURN' THEN pg_describe_object(f.classid, f.objid, 0)
                                  ELSE format('%s %s', CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, c.oid::regclass) END
                        FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid = f.objid)
                ELSE pg_describe_object(f.classid, f.objid, f.part) END
      FROM found f
$$;

-- Those of them that are to be carried or refused: without what hung on the shadow before it was completed.
CREATE OR REPLACE FUNCTION cutover.to_carry(p_shadow cutover.shadow_table) RETURNS TABLE (kind text, class_id oid, object_id oid, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.kind, h.class_id, h.object_id, h.name FROM cutover.hanging_on(p_shadow.primary_table) h
     WHERE h.kind <> 'part' AND h.class_id || ':' || h.object_id <> ALL (p_shadow.own_objects)
       -- The view in the shadow's place is ours, and goes.
       AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE h.class_id = 'pg_rewrite'::regclass AND r.oid = h.object_id AND r.ev_class = p_shadow.stand_in)
$$;

-- Columns of the primary, and the column of the shadow that is the same: as it is in one direction at least, since a type may be
-- narrower in the other, and rows were compared in both.
CREATE OR REPLACE FUNCTION cutover.column_pairs(p_shadow cutover.shadow_table) RETURNS TABLE (name text, shadow_name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname::text,
           coalesce((SELECT k.shadow_name FROM unnest(p_shadow.key_columns, p_shadow.shadow_key_columns) AS k (name, shadow_name) WHERE k.name = a.attname),
                    (SELECT u.key FROM jsonb_each_text(p_shadow.up) AS u WHERE u.value = quote_ident(a.attname) ORDER BY u.key <> a.attname LIMIT 1),
                    (SELECT s.attname::text FROM pg_attribute s WHERE s.attrelid = p_shadow.shadow_table AND s.attnum > 0 AND NOT s.attisdropped
                        AND quote_ident(s.attname) = p_shadow.down ->> a.attname::text),
                    -- What both make themselves is in no mapping.
                    (SELECT s.attname::text FROM pg_attribute s WHERE s.attrelid = p_shadow.shadow_table AND s.attname = a.attname AND s.attgenerated <> ''
                        AND a.attgenerated <> '' AND NOT s.attisdropped))
      FROM pg_attribute a WHERE a.attrelid = p_shadow.primary_table AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- Columns of a table that another does not have in the same type.
CREATE OR REPLACE FUNCTION cutover.unlike_columns(p_table regclass, p_other regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') FROM pg_attribute a
     WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped
       AND NOT EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = p_other AND o.attname = a.attname AND o.attnum > 0 AND NOT o.attisdropped
                          AND (o.atttypid, o.atttypmod, o.attcollation) = (a.atttypid, a.atttypmod, a.attcollation))
$$;

-- Those of them that one object uses: a view's rule, a policy.
CREATE OR REPLACE FUNCTION cutover.unlike_columns_of(p_class oid, p_object oid, p_table regclass, p_other regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT u.name FROM unnest(cutover.unlike_columns(p_table, p_other)) AS u (name)
                  WHERE EXISTS (SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = p_table AND a.attnum = d.refobjsubid
                                 WHERE d.classid = p_class AND d.objid = p_object AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p_table AND a.attname = u.name))
$$;

-- Foreign keys of the primary and to it. `make` makes it again where it then belongs, without looking at the rows; none where the
-- shadow has the like, whose name is `like_name`. `wrong`: why it can't be carried.
CREATE OR REPLACE FUNCTION cutover.foreign_keys(p_shadow cutover.shadow_table)
RETURNS TABLE (object_id oid, name text, child regclass, parent regclass, make text, like_name text, wrong text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_key record;
    v_version integer := current_setting('server_version_num')::integer;
BEGIN
    FOR v_key IN
        SELECT c.*, x.columns, x.parents, x.new_columns, x.new_parents, pg_get_constraintdef(c.oid) AS definition,
               c.conrelid = p_shadow.primary_table AS outgoing, c.confrelid = p_shadow.primary_table AS incoming, k.relkind AS child_kind, k.relowner AS child_owner
          FROM pg_constraint c JOIN pg_class k ON k.oid = c.conrelid, LATERAL (
               SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY n.place) AS columns, string_agg(quote_ident(b.attname), ', ' ORDER BY n.place) AS parents,
                      CASE WHEN count(*) = count(m.shadow_name) OR c.conrelid <> p_shadow.primary_table
                           THEN array_agg(CASE WHEN c.conrelid = p_shadow.primary_table THEN m.shadow_name ELSE a.attname::text END ORDER BY n.place) END AS new_columns,
                      CASE WHEN count(*) = count(o.shadow_name) OR c.confrelid <> p_shadow.primary_table
                           THEN array_agg(CASE WHEN c.confrelid = p_shadow.primary_table THEN o.shadow_name ELSE b.attname::text END ORDER BY n.place) END AS new_parents
                 FROM unnest(c.conkey, c.confkey) WITH ORDINALITY AS n (child_column, parent_column, place)
                 JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = n.child_column JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = n.parent_column
                 LEFT JOIN cutover.column_pairs(p_shadow) m ON m.name = a.attname LEFT JOIN cutover.column_pairs(p_shadow) o ON o.name = b.attname) x
         WHERE c.contype = 'f' AND c.conparentid = 0
           AND c.oid IN (SELECT o.oid FROM pg_constraint o WHERE o.conrelid = p_shadow.primary_table
                         UNION SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = p_shadow.primary_table AND d.classid = 'pg_constraint'::regclass)
           AND p_shadow.primary_table IN (c.conrelid, c.confrelid)
           AND 'pg_constraint'::regclass::oid || ':' || c.oid <> ALL (p_shadow.own_objects)
         ORDER BY c.oid
    LOOP
        object_id := v_key.oid;
        name := v_key.conname;
        child := v_key.conrelid;
        parent := v_key.confrelid;
        make := format('FOREIGN KEY (%s) REFERENCES %s(%s)', v_key.columns, parent, v_key.parents);
        -- The like of it: the same columns to the same table, which is itself where this is to itself.
        like_name := (SELECT c.conname FROM pg_constraint c
                       WHERE v_key.outgoing AND c.conrelid = p_shadow.shadow_table AND c.contype = 'f' AND c.conparentid = 0
                         AND (c.confrelid = parent OR v_key.incoming AND c.confrelid = p_shadow.shadow_table)
                         AND (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
                                JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number) = v_key.new_columns
                       ORDER BY c.conname <> name LIMIT 1);
        wrong := CASE
            WHEN child = p_shadow.shadow_table THEN format('%s is to take the place of %s: let it refer to itself', child, parent)
            WHEN v_key.new_columns IS NULL OR v_key.new_parents IS NULL THEN format('not each of its columns is as it is in %s', p_shadow.shadow_table)
            -- On the way back the table would get the shadow's.
            WHEN EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = p_shadow.shadow_table AND c.conname = like_name
                            AND (c.confupdtype, c.confdeltype, c.confmatchtype, c.condeferrable, c.condeferred)
                                <> (v_key.confupdtype, v_key.confdeltype, v_key.confmatchtype, v_key.condeferrable, v_key.condeferred))
                 THEN format('%I of %s does something else; without that it is carried', like_name, p_shadow.shadow_table)
            WHEN NOT starts_with(v_key.definition, make) THEN 'it is of a kind that can''t be made again'
            WHEN v_key.child_kind = 'p' AND NOT v_key.outgoing THEN format('%s is partitioned, and its rows would have to be looked at under a lock', child)
            WHEN NOT pg_has_role(v_key.child_owner, 'USAGE') THEN format('%s belongs to %s', child, v_key.child_owner::regrole)
            WHEN v_key.outgoing AND NOT v_key.incoming AND NOT has_table_privilege(parent, 'REFERENCES') THEN format('you may not refer to %s', parent)
            WHEN v_key.outgoing AND like_name IS NULL AND (SELECT c.relkind FROM pg_class c WHERE c.oid = p_shadow.shadow_table) = 'p'
                 THEN format('%s is partitioned, and its rows would have to be looked at under a lock', p_shadow.shadow_table)
            WHEN v_key.incoming AND NOT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = p_shadow.shadow_table AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                   AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C") FROM unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) AS k (number)
                          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number)
                       = (SELECT array_agg(n.name ORDER BY n.name COLLATE "C") FROM unnest(v_key.new_parents) AS n (name)))
                 THEN format('%s has no unique key over %s', p_shadow.shadow_table, array_to_string(v_key.new_parents, ', ')) END;
        make := CASE WHEN like_name IS NULL OR NOT v_key.outgoing THEN
            format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES %s (%s)%s', child, name,
                   (SELECT string_agg(quote_ident(n.name), ', ' ORDER BY n.place) FROM unnest(v_key.new_columns) WITH ORDINALITY AS n (name, place)), parent,
                   (SELECT string_agg(quote_ident(n.name), ', ' ORDER BY n.place) FROM unnest(v_key.new_parents) WITH ORDINALITY AS n (name, place)),
                   regexp_replace(substr(v_key.definition, length(make) + 1), ' NOT VALID$', '')
                   || CASE WHEN v_version >= 180000 AND v_key.definition LIKE '% NOT ENFORCED%' THEN '' ELSE ' NOT VALID' END) END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Indexes of the primary and their equivalents, whose names are exchanged: the primary keys; else what is the same but for the
-- names of columns. Twice over, it is as it was.
CREATE OR REPLACE FUNCTION cutover.index_pairs(p_shadow cutover.shadow_table) RETURNS TABLE (index regclass, shadow_index regclass)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH described AS (
        SELECT i.indrelid, i.indexrelid,
               CASE WHEN i.indisprimary THEN 'primary' ELSE concat_ws(' ', c.relam, i.indisunique, i.indnkeyatts, i.indoption::text, i.indcollation::text,
                   to_jsonb(i) ->> 'indnullsnotdistinct', pg_get_expr(i.indpred, i.indrelid),
                   (SELECT string_agg(CASE k.number WHEN 0 THEN pg_get_indexdef(i.indexrelid, k.place::integer, false)
                                      ELSE quote_ident(CASE i.indrelid WHEN p_shadow.shadow_table THEN a.attname::text ELSE m.shadow_name END) END, ',' ORDER BY k.place)
                      FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
                      LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                      LEFT JOIN cutover.column_pairs(p_shadow) m ON m.name = a.attname),
                   (SELECT string_agg(o.opcfamily::text, ',' ORDER BY k.place) FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k (id, place) JOIN pg_opclass o ON o.oid = k.id)) END AS what
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid IN (p_shadow.primary_table, p_shadow.shadow_table)
    ), numbered AS (SELECT d.*, row_number() OVER (PARTITION BY d.indrelid, d.what ORDER BY d.indexrelid) AS place FROM described d)
    SELECT p.indexrelid::regclass, s.indexrelid::regclass FROM numbered p
      LEFT JOIN numbered s ON s.indrelid = p_shadow.shadow_table AND s.what = p.what AND s.place = p.place
     WHERE p.indrelid = p_shadow.primary_table
$$;

-- The same for statistics that were made by name.
CREATE OR REPLACE FUNCTION cutover.statistics_pairs(p_shadow cutover.shadow_table) RETURNS TABLE (statistics oid, shadow_statistics oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH numbered AS (
        SELECT s.stxrelid, s.oid, x.what, row_number() OVER (PARTITION BY s.stxrelid, x.what ORDER BY s.oid) AS place
          FROM pg_statistic_ext s, LATERAL (
               -- Kinds, columns by their names, expressions.
               SELECT concat_ws(' ', s.stxkind::text, regexp_replace(substr(y.definition, strpos(y.definition, ' ON ')), ' FROM [^)]*$', '')) AS what
                 FROM (SELECT pg_get_statisticsobjdef(s.oid) AS definition) y) x
         WHERE s.stxrelid IN (p_shadow.primary_table, p_shadow.shadow_table))
    SELECT p.oid, s.oid FROM numbered p LEFT JOIN numbered s ON s.stxrelid = p_shadow.shadow_table AND s.what = p.what AND s.place = p.place
     WHERE p.stxrelid = p_shadow.primary_table
$$;

-- Sequences that belong to columns of the primary, and the column of the shadow that takes them over. `kind`: i for an identity,
-- a for a serial.
CREATE OR REPLACE FUNCTION cutover.sequences(p_shadow cutover.shadow_table)
RETURNS TABLE (sequence regclass, kind "char", column_name text, shadow_column text, default_words text, shadow_default text, shadow_sequence regclass,
               shadow_may_be_null boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.objid::regclass, d.deptype, a.attname::text, m.shadow_name, pg_get_expr(f.adbin, f.adrelid), pg_get_expr(g.adbin, g.adrelid),
           (SELECT o.objid::regclass FROM pg_depend o JOIN pg_class k ON k.oid = o.objid AND k.relkind = 'S'
             WHERE o.classid = 'pg_class'::regclass AND o.refclassid = 'pg_class'::regclass AND o.refobjid = s.attrelid AND o.refobjsubid = s.attnum AND o.deptype IN ('a', 'i') LIMIT 1),
           NOT s.attnotnull
      FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
      JOIN cutover.column_pairs(p_shadow) m ON m.name = a.attname AND m.shadow_name IS NOT NULL
      JOIN pg_attribute s ON s.attrelid = p_shadow.shadow_table AND s.attname = m.shadow_name LEFT JOIN pg_attrdef g ON g.adrelid = s.attrelid AND g.adnum = s.attnum
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p_shadow.primary_table AND d.deptype IN ('a', 'i')
$$;
