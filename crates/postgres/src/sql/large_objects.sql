-- Large objects: their fence, and what is known of them. Installed where the plan copies them, by a superuser, and can
-- be run again at any time.
--
-- No trigger stops a write to a large object, and replication does not carry it. What stops it is the right to call the
-- functions that write: it is taken from everyone but their owner while this side's gate is closed, in this database
-- only. Reading goes on. Superusers need no right.

-- What this side's clients and we had written by then has been compared or brought over, in a round that the other side
-- knows by the same name. Where it knows another, as after a fail-over, nothing is known.
CREATE TABLE IF NOT EXISTS cutover.large_object_look (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seen pg_catalog.pg_snapshot NOT NULL,
    round text NOT NULL
);

-- The large objects that were made or altered here by us. Others that are newer than the last look are somebody else's.
CREATE TABLE IF NOT EXISTS cutover.large_object_made (
    id oid PRIMARY KEY
);

-- Who could call which function before the fence, so that it can be given back. 'PUBLIC' is spelled so.
CREATE TABLE IF NOT EXISTS cutover.large_object_right (
    function text NOT NULL,
    grantee text NOT NULL,
    grantable boolean NOT NULL,
    PRIMARY KEY (function, grantee)
);

-- Who may write large objects, but for the functions' owner.
CREATE OR REPLACE VIEW cutover.large_object_writer AS
    SELECT p.oid::pg_catalog.regprocedure::text AS function,
           CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE r.rolname::text END AS grantee,
           pg_catalog.bool_or(x.is_grantable) AS grantable
      FROM pg_catalog.pg_proc p
     CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) x
      LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
     WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND x.grantee <> p.proowner
       AND p.proname = ANY (ARRAY['lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'lo_put', 'lo_truncate', 'lo_truncate64', 'lo_unlink',
                                  'lowrite']::name[])
     GROUP BY 1, 2;

CREATE OR REPLACE FUNCTION cutover.fence_large_objects() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_right record;
BEGIN
    INSERT INTO cutover.large_object_right SELECT w.function, w.grantee, w.grantable FROM cutover.large_object_writer w ON CONFLICT DO NOTHING;
    FOR v_right IN SELECT w.function, w.grantee FROM cutover.large_object_writer w
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', v_right.function,
                       CASE WHEN v_right.grantee = 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(v_right.grantee) END);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION cutover.fence_large_objects() FROM PUBLIC;

-- A role that is gone meanwhile has no right to be given back; nothing may keep the others from writing.
CREATE OR REPLACE FUNCTION cutover.lift_large_objects() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_right record;
BEGIN
    FOR v_right IN DELETE FROM cutover.large_object_right RETURNING function, grantee, grantable
    LOOP
        CONTINUE WHEN v_right.grantee <> 'PUBLIC' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_right.grantee);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', v_right.function,
                       CASE WHEN v_right.grantee = 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(v_right.grantee) END,
                       CASE WHEN v_right.grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION cutover.lift_large_objects() FROM PUBLIC;

-- Gives a large object the owner, rights and comment of the other side's. The rights come as statements, and none where
-- the owner alone has them.
CREATE OR REPLACE FUNCTION cutover.describe_large_object(p_id oid, p_owner text, p_rights text, p_comment text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_found record;
    v_grantee text;
BEGIN
    SELECT pg_get_userbyid(m.lomowner)::text AS owner, m.lomacl AS acl INTO v_found FROM pg_largeobject_metadata m WHERE m.oid = p_id;
    IF v_found.owner <> p_owner THEN
        EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %I', p_id, p_owner);
    END IF;
    IF v_found.acl IS NOT NULL OR p_rights <> '' THEN
        FOR v_grantee IN
            SELECT DISTINCT CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
              FROM pg_largeobject_metadata m CROSS JOIN LATERAL aclexplode(COALESCE(m.lomacl, acldefault('L', m.lomowner))) x WHERE m.oid = p_id
        LOOP
            EXECUTE format('REVOKE ALL ON LARGE OBJECT %s FROM %s CASCADE', p_id, v_grantee);
        END LOOP;
        EXECUTE CASE WHEN p_rights = '' THEN format('GRANT ALL ON LARGE OBJECT %s TO %I', p_id, p_owner) ELSE p_rights END;
    END IF;
    IF p_comment IS DISTINCT FROM obj_description(p_id, 'pg_largeobject') THEN
        EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', p_id, p_comment);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION cutover.describe_large_object(oid, text, text, text) FROM PUBLIC;
