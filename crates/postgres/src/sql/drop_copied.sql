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
                                     WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, n.nspname, c.relname)
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover'])
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
         WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typelem = 0 AND n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'i'))
    LOOP
        EXECUTE v_drop;
    END LOOP;
    FOR v_drop IN
        SELECT format('DROP COLLATION IF EXISTS %I.%I CASCADE', n.nspname, l.collname)
          FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
         WHERE n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'cutover'])
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_collation'::regclass AND d.objid = l.oid AND d.deptype = 'e')
    LOOP
        EXECUTE v_drop;
    END LOOP;
END
$$;
