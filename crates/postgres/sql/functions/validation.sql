-- Whether a table and its shadow say the same.

-- About how many rows a table has: by its size, and by how many rows a block has as the statistics say.
CREATE OR REPLACE FUNCTION cutover.estimated_rows(p_table regclass) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages * (pg_relation_size(c.oid) / current_setting('block_size')::integer) ELSE pg_relation_size(c.oid) / 100 END), 0)::bigint
      FROM (SELECT p_table AS relid UNION SELECT t.relid FROM pg_partition_tree(p_table) t) w JOIN pg_class c ON c.oid = w.relid AND c.relkind = 'r'
$$;

-- How many keys of a table are queued, counted up to so many.
CREATE OR REPLACE FUNCTION cutover.queued(p_table_name text, p_most integer) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FROM (SELECT FROM cutover.dirty_key d WHERE d.table_name = p_table_name LIMIT p_most) q
$$;

-- Compares a table and its shadow, both ways and through the mapping, in one snapshot: what is being written is either in both
-- or in neither. All rows, or about p_sample_size of each where that is given. The score is the share of rows that are the
-- same, in percent; none where there is nothing to compare or rows wait in the queue: no data is not good data.
CREATE OR REPLACE FUNCTION cutover.validate_table_consistency(p_table_name text, p_shadow_table_name text DEFAULT NULL, p_sample_size integer DEFAULT NULL)
RETURNS TABLE (primary_count bigint, shadow_count bigint, consistent_records bigint, inconsistent_records bigint, missing_in_shadow bigint,
               extra_in_shadow bigint, validation_score numeric, queued bigint, verdict text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shadow cutover.shadow_table := cutover.shadow_of(p_table_name);
    v_estimate bigint := greatest(cutover.estimated_rows(v_shadow.primary_table), 1);
    v_percent real;
    v_counts bigint[];
    v_of bigint;
BEGIN
    IF p_shadow_table_name IS NOT NULL AND cutover.table_named(p_shadow_table_name) <> v_shadow.shadow_table THEN
        PERFORM cutover.refuse('SC001', format('%s is not the shadow of %s', p_shadow_table_name, v_shadow.table_name), format('it is %s', v_shadow.shadow_table));
    ELSIF p_sample_size < 1 THEN
        PERFORM cutover.refuse('SC002', format('a sample of %s rows says nothing', p_sample_size), 'leave it away to compare all rows');
    END IF;
    IF p_sample_size < v_estimate THEN
        v_percent := least(100, greatest(0.001, 100.0 * p_sample_size / v_estimate));
    END IF;
    EXECUTE format('SELECT %s($1)', cutover.trusted(v_shadow.compare_function, v_shadow.primary_table)) INTO v_counts USING v_percent;
    queued := cutover.queued(v_shadow.table_name, 1000000);
    primary_count := v_counts[1];
    shadow_count := v_counts[2];
    consistent_records := v_counts[3];
    inconsistent_records := v_counts[4];
    missing_in_shadow := v_counts[5];
    extra_in_shadow := v_counts[6];
    v_of := v_counts[3] + v_counts[4] + v_counts[5] + v_counts[6];
    verdict := CASE WHEN v_of = 0 OR queued > 0 THEN 'inconclusive' WHEN consistent_records = v_of THEN 'same' ELSE 'different' END;
    IF verdict <> 'inconclusive' THEN
        -- Rounded down: what is not all is never 100.
        validation_score := trunc(100.0 * consistent_records / v_of, 4);
    END IF;
    RETURN NEXT;
END
$$;
