-- Which table is meant, and what is said when something can't be done.
--
-- Errors have SQLSTATEs of our own, so that a program need not read the words:
--   SC001 no such table, or it has no shadow     SC002 not possible from where things stand     SC003 not confirmed
--   SC004 such a shadow can't be                 SC005 what was compared forbids it             SC006 busy: try again

-- Ends a call.
CREATE OR REPLACE FUNCTION cutover.refuse(p_state text, p_message text, p_hint text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message, HINT = coalesce(p_hint, '');
END
$$;

-- A table as callers say it, without `public`.
CREATE OR REPLACE FUNCTION cutover.name_of(p_table regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_table
$$;

-- A name's parts: `table` of public, `schema.table`, or either with quotes.
CREATE OR REPLACE FUNCTION cutover.name_parts(p_table_name text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_parts text[];
BEGIN
    BEGIN
        v_parts := parse_ident(p_table_name);
    EXCEPTION WHEN invalid_parameter_value THEN
        v_parts := ARRAY[p_table_name];
    END;
    RETURN CASE cardinality(v_parts) WHEN 1 THEN ARRAY['public', v_parts[1]] ELSE v_parts END;
END
$$;

-- The table of that name.
CREATE OR REPLACE FUNCTION cutover.table_named(p_table_name text) RETURNS regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_parts text[] := cutover.name_parts(p_table_name);
    v_found oid;
BEGIN
    SELECT c.oid INTO v_found FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE cardinality(v_parts) = 2 AND n.nspname = v_parts[1] AND c.relname = v_parts[2] AND c.relkind IN ('r', 'p');
    IF v_found IS NULL THEN
        PERFORM cutover.refuse('SC001', format('there is no table %s', coalesce(p_table_name, 'without a name')),
                               'name it as table (of the schema public) or schema.table');
    END IF;
    RETURN v_found;
END
$$;

-- The table of that name and its shadow.
CREATE OR REPLACE FUNCTION cutover.shadow_of(p_table_name text) RETURNS cutover.shadow_table
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table;
BEGIN
    SELECT * INTO v_shadow FROM cutover.shadow_table s WHERE s.table_name = p_table_name;
    IF NOT FOUND THEN
        SELECT * INTO v_shadow FROM cutover.shadow_table s WHERE s.primary_table = cutover.table_named(p_table_name);
    END IF;
    IF v_shadow.table_name IS NULL THEN
        PERFORM cutover.refuse('SC001', format('%s has no shadow table', p_table_name),
                               format('SELECT cutover.create_shadow_table(%L)', p_table_name));
    END IF;
    RETURN v_shadow;
END
$$;
