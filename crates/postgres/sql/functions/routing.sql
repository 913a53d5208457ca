-- Where a read goes: asked by applications before each, so it reads one row and decides.

-- The bucket of a key, from 0 to 9999: the same in every language that cutover speaks. It pins no search_path, which would keep it from being
-- put into the query that asks it; so each name in it is qualified.
CREATE OR REPLACE FUNCTION cutover.bucket(p_salt text, p_key text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ((('x' OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.md5(pg_catalog.convert_to(
               p_salt OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) p_key, 'UTF8')), 1, 8))::pg_catalog.bit(32)::bigint OPERATOR(pg_catalog.*) 10000)
            OPERATOR(pg_catalog.>>) 32)::integer
$$;

-- Whether a read goes to the shadow: by the bucket of the key, so that a key stays where it is; without one by chance. A write never does:
-- it goes to the primary, and from there to the shadow. A table that is not on its way, or that is unhealthy, is read at the primary.
CREATE OR REPLACE FUNCTION cutover.should_route_to_shadow(p_table_name text, p_operation_type text, p_routing_key text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_share numeric;
    v_salt text;
BEGIN
    IF p_operation_type IS DISTINCT FROM 'read' THEN
        RETURN false;
    END IF;
    SELECT c.read_percentage, c.salt INTO v_share, v_salt FROM cutover.traffic_routing_config c
     WHERE c.table_name = p_table_name AND c.health_status <> 'unhealthy';
    IF v_share IS NULL OR v_share = 0 THEN
        RETURN false;
    ELSIF v_share >= 100 THEN
        RETURN true;
    END IF;
    RETURN coalesce(cutover.bucket(v_salt, p_routing_key) < v_share * 100, false);
END
$$;

CREATE OR REPLACE FUNCTION cutover.should_route_to_shadow(p_table_name text, p_operation_type text DEFAULT 'read') RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN cutover.should_route_to_shadow(p_table_name, p_operation_type, random()::text);
END
$$;
