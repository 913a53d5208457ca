-- Drops what an earlier copy of the schema made in the target, and nothing of an extension or of ours. Does nothing
-- unless the copy says that it had filled this database.
DO $$
DECLARE
    v_drop text;
BEGIN
    IF NOT (SELECT filled FROM cutover.owner) THEN
        RETURN;
    END IF;
    FOR v_drop IN
        SELECT format('DROP SCHEMA %I CASCADE', n.nspname)
          FROM pg_catalog.pg_namespace n
         WHERE n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover', 'public'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extnamespace = n.oid)
    LOOP
        EXECUTE v_drop;
    END LOOP;
    FOR v_drop IN
        SELECT format('DROP %s IF EXISTS %I.%I CASCADE',
                      CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE'
                                     ELSE 'TABLE' END, n.nspname, c.relname)
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))
    LOOP
        EXECUTE v_drop;
    END LOOP;
    FOR v_drop IN
        SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure)
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
    LOOP
        EXECUTE v_drop;
    END LOOP;
    FOR v_drop IN
        SELECT format('DROP TYPE IF EXISTS %I.%I CASCADE', n.nspname, t.typname)
          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
         WHERE (t.typtype IN ('e', 'd', 'r', 'b') OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
           AND t.typelem = 0 AND n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'i'))
    LOOP
        EXECUTE v_drop;
    END LOOP;
    -- What is rare, and spelled by the server itself: operators, casts, text search, foreign servers and the like.
    FOR v_drop IN
        SELECT format('DROP %s IF EXISTS %s CASCADE', replace(i.type, '-', ' '), i.identity)
          FROM (SELECT tableoid AS classid, oid AS objid FROM pg_catalog.pg_collation UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_operator
                UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_opfamily UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_ts_config
                UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_ts_dict UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_conversion
                UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_cast UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_foreign_server
                UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_foreign_data_wrapper UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_event_trigger
                UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_transform UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_am
                UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_language) o
         CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
         -- Those below are the server's own.
         WHERE o.objid >= 16384 AND i.schema IS DISTINCT FROM 'cutover' AND i.identity <> ALL (ARRAY['cutover_ddl_gate', 'cutover_arm_new_table'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype IN ('e', 'i'))
    LOOP
        EXECUTE v_drop;
    END LOOP;
END
$$;
