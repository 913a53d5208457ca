-- What was decided, in a chain for each table, so that nobody who decides about one waits for somebody who decides about another.

-- Appends an entry. One at a time for each table: each builds on the one before.
CREATE OR REPLACE FUNCTION cutover.append_audit(p_action text, p_table_name text, p_reason text, p_detail jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    v_new cutover.audit_log;
BEGIN
    -- Held to the end of the transaction.
    PERFORM pg_advisory_xact_lock(1129665587, hashtext(coalesce(p_table_name, '')));
    v_new.seq := nextval(pg_get_serial_sequence('cutover.audit_log', 'seq'));
    v_new.at := clock_timestamp();
    v_new.actor := session_user;
    v_new.client := concat_ws(' ', coalesce(host(inet_client_addr()), 'local'), nullif(current_setting('application_name'), ''));
    v_new.action := p_action;
    v_new.table_name := p_table_name;
    v_new.reason := p_reason;
    v_new.detail := p_detail;
    v_new.previous_hash := coalesce((SELECT l.hash FROM cutover.audit_log l WHERE l.table_name IS NOT DISTINCT FROM p_table_name ORDER BY l.seq DESC LIMIT 1), '');
    v_new.hash := cutover.audit_hash(v_new);
    INSERT INTO cutover.audit_log OVERRIDING SYSTEM VALUE SELECT v_new.*;
    RETURN v_new.seq;
EXCEPTION WHEN lock_not_available THEN
    PERFORM cutover.refuse('SC006', format('somebody else is deciding about %s', coalesce(p_table_name, 'all tables')), 'try again when they are done');
END
$$;

-- A time as a whole number, exactly: before PostgreSQL 14 the server's own epoch is a float, and of 16 digits it rounds one.
CREATE OR REPLACE FUNCTION cutover.microseconds(p_at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT extract(epoch FROM date_trunc('minute', p_at AT TIME ZONE 'UTC'))::bigint * 1000000 + extract(microseconds FROM p_at AT TIME ZONE 'UTC')::bigint
$$;

-- What an entry's hash has to be. Each part has its length in front, so that no two entries have the same parts.
CREATE OR REPLACE FUNCTION cutover.audit_hash(p_entry cutover.audit_log) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(convert_to(string_agg(coalesce(length(part) || ':' || part, '-'), ',' ORDER BY place), 'UTF8')), 'hex')
      FROM unnest(ARRAY[p_entry.previous_hash, p_entry.seq::text, cutover.microseconds(p_entry.at)::text, p_entry.actor,
                        p_entry.client, p_entry.action, p_entry.table_name, p_entry.reason, p_entry.detail::text])
           WITH ORDINALITY AS parts (part, place)
$$;

-- The entries that are not as they were written, or that one is missing in front of. None: every chain holds.
CREATE OR REPLACE FUNCTION cutover.verify_audit() RETURNS TABLE (seq bigint, problem text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT found.seq, found.problem
      FROM (SELECT l.seq,
                   CASE WHEN l.hash <> cutover.audit_hash(l) THEN 'it was changed after it was written'
                        WHEN l.previous_hash <> coalesce(lag(l.hash) OVER w, '') THEN 'an entry in front of it is missing, or another' END AS problem
              FROM cutover.audit_log l WINDOW w AS (PARTITION BY l.table_name ORDER BY l.seq)) found
     WHERE found.problem IS NOT NULL
     ORDER BY found.seq
$$;

-- Nothing that was written is changed, by nobody's mistake either.
CREATE OR REPLACE FUNCTION cutover.keep_audit() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'SC002', MESSAGE = 'entries of the audit are neither changed nor removed';
END
$$;

DROP TRIGGER IF EXISTS keep_audit ON cutover.audit_log;
CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE OR TRUNCATE ON cutover.audit_log FOR EACH STATEMENT EXECUTE FUNCTION cutover.keep_audit();
ALTER TABLE cutover.audit_log ENABLE ALWAYS TRIGGER keep_audit;
