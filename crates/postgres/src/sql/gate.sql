-- The armed gate: what a cutover installs in a user's database, in the schema `cutover`.
--
-- The gate's state is the last value of a sequence, 2 * epoch + open. A sequence is not subject to MVCC, so a
-- transaction with an old snapshot sees it move; logical replication does not copy it; and it survives a crash once it
-- was committed synchronously. A flag in a table leaks under REPEATABLE READ, and a row lock taken FOR KEY SHARE does
-- not wait for writers.
--
-- Every statement that writes first takes one of sixteen advisory locks, shared, for the rest of its transaction. Who
-- closes the gate takes all sixteen, exclusive: that waits for every transaction that wrote, and only then moves the
-- sequence. There are sixteen because one would be one partition of the lock table, where every statement of every
-- backend would meet.
--
-- Needs CREATE on the database and ownership of the tables; no superuser. Can be run again at any time.

CREATE SCHEMA IF NOT EXISTS cutover;
GRANT USAGE ON SCHEMA cutover TO PUBLIC;

-- Whose installation this is. One plan at a time may use a database.
CREATE TABLE IF NOT EXISTS cutover.owner (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    plan text NOT NULL,
    side text NOT NULL CHECK (side IN ('source', 'target')),
    -- Whether the tables of this database are our copy, so that a copy that begins anew may drop them.
    filled boolean NOT NULL DEFAULT false,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- 2 * epoch + open. Readable by everyone, because the gate's function runs as whoever writes.
CREATE SEQUENCE IF NOT EXISTS cutover.gate AS bigint MINVALUE 0 START WITH 0 NO CYCLE;
GRANT SELECT ON SEQUENCE cutover.gate TO PUBLIC;

-- A row here travels through the stream behind the last commit of the side that was fenced.
CREATE TABLE IF NOT EXISTS cutover.marker (
    id text PRIMARY KEY,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- Never published: written to make a synchronous commit happen here; and when a stream was last let flow to here.
CREATE TABLE IF NOT EXISTS cutover.flush (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    times bigint NOT NULL DEFAULT 0,
    worker_started_at timestamptz
);
INSERT INTO cutover.flush (times) VALUES (0) ON CONFLICT DO NOTHING;

-- Sessions that may write while the gate is closed: ours, while they copy. The token is known to the session alone, so
-- that a later one with the same pid has no pass.
CREATE TABLE IF NOT EXISTS cutover.pass (
    token text PRIMARY KEY,
    pid integer NOT NULL,
    purpose text NOT NULL
);

-- Roles that may write while the gate is closed: a migration hook's, for as long as it may take.
CREATE TABLE IF NOT EXISTS cutover.pass_role (
    role_name text PRIMARY KEY,
    purpose text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Who could connect before this database was isolated, so that it can be given back. 'PUBLIC' is spelled so. And who
-- was granted it by us, because the right came through PUBLIC or a group; that is taken back.
CREATE TABLE IF NOT EXISTS cutover.admission (
    grantee text PRIMARY KEY,
    granted boolean NOT NULL DEFAULT false
);

-- Also sweeps up after sessions that are gone; what another transaction sweeps at the moment is left to it, so that
-- somebody's open transaction never stops a driver here.
CREATE OR REPLACE FUNCTION cutover.let_pass(p_purpose text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog AS $$
    DELETE FROM cutover.pass p
     WHERE p.ctid = ANY (ARRAY(
         SELECT o.ctid FROM cutover.pass o
          WHERE NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = o.pid)
            FOR UPDATE SKIP LOCKED));
    INSERT INTO cutover.pass (token, pid, purpose)
    SELECT set_config('cutover.pass', gen_random_uuid()::text, false), pg_backend_pid(), p_purpose;
$$;
REVOKE ALL ON FUNCTION cutover.let_pass(text) FROM PUBLIC;

-- In PL/pgSQL, which plans it once in a session: it is asked at each definition, and at each write behind a closed gate.
CREATE OR REPLACE FUNCTION cutover.has_pass() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM cutover.pass p WHERE p.token = current_setting('cutover.pass', true) AND p.pid = pg_backend_pid())
    OR EXISTS (SELECT FROM cutover.pass_role r WHERE r.role_name = session_user AND r.expires_at > clock_timestamp());
END
$$;

-- The gate itself. One simple expression, so that PL/pgSQL evaluates it without a query: the lock first, the state
-- after it. A state that can't be read is NULL and counts as closed.
CREATE OR REPLACE FUNCTION cutover.pass_gate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF (CASE WHEN pg_catalog.pg_advisory_xact_lock_shared(1129665584, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.&) 15)::pg_catalog.text
                  OPERATOR(pg_catalog.=) ''
             THEN (pg_catalog.pg_sequence_last_value('cutover.gate') OPERATOR(pg_catalog.&) 1) OPERATOR(pg_catalog.=) 1 END)
    THEN
        RETURN NULL;
    END IF;
    IF NOT cutover.has_pass() THEN
        RAISE EXCEPTION USING
            ERRCODE = 'read_only_sql_transaction',
            MESSAGE = pg_catalog.format('cannot write to %I.%I: a cutover has fenced this database', TG_TABLE_SCHEMA, TG_TABLE_NAME),
            HINT = 'Writes go on in a moment, here or at the other side. Connect again and repeat the transaction.';
    END IF;
    RETURN NULL;
END
$$;

-- Keeps out a driver that lost the cutover: every effect on this database begins with this call, and holds the lock
-- until it commits. A newer epoch is noted down, so that the older ones are refused from then on.
CREATE OR REPLACE FUNCTION cutover.guard(p_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_state bigint := pg_sequence_last_value('cutover.gate');
BEGIN
    IF v_state >> 1 < p_epoch THEN
        PERFORM pg_advisory_xact_lock(1129665584, 1000);
        v_state := pg_sequence_last_value('cutover.gate');
        IF v_state >> 1 < p_epoch THEN
            PERFORM setval('cutover.gate', p_epoch * 2 + (v_state & 1));
        END IF;
    ELSE
        PERFORM pg_advisory_xact_lock_shared(1129665584, 1000);
        v_state := pg_sequence_last_value('cutover.gate');
    END IF;
    IF v_state IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'CU002', MESSAGE = 'the gate of this database has no state';
    ELSIF v_state >> 1 > p_epoch THEN
        RAISE EXCEPTION USING ERRCODE = 'CU001',
            MESSAGE = format('this database has seen epoch %s, ours is %s', v_state >> 1, p_epoch);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION cutover.guard(bigint) FROM PUBLIC;

-- Refuses while a prepared transaction exists: it was let through the gate once and can commit at any time.
CREATE OR REPLACE FUNCTION cutover.refuse_prepared() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_found text := (SELECT string_agg(format('%L of %s since %s', gid, owner, prepared), ', ')
                       FROM pg_prepared_xacts WHERE database = current_database());
BEGIN
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'CU002', MESSAGE = 'prepared transactions could commit behind the fence: ' || v_found;
    END IF;
END
$$;

-- Moves the gate. To close it is to wait for every writer under way; lock_timeout bounds the wait for each lock.
CREATE OR REPLACE FUNCTION cutover.move_gate(p_epoch bigint, p_open boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_state bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1129665584, 1000);
    v_state := pg_sequence_last_value('cutover.gate');
    IF v_state >> 1 > p_epoch THEN
        RAISE EXCEPTION USING ERRCODE = 'CU001',
            MESSAGE = format('this database has seen epoch %s, ours is %s', v_state >> 1, p_epoch);
    END IF;
    IF NOT p_open THEN
        PERFORM cutover.refuse_prepared();
        FOR v_key IN 0..15 LOOP
            PERFORM pg_advisory_xact_lock(1129665584, v_key);
        END LOOP;
        PERFORM cutover.refuse_prepared();
    END IF;
    PERFORM setval('cutover.gate', p_epoch * 2 + p_open::integer);
END
$$;
REVOKE ALL ON FUNCTION cutover.move_gate(bigint, boolean) FROM PUBLIC;

-- What the cutover covers, and what its target gets a definition of: everything, until the plan's [tables] is put in
-- their place. Their bodies are plain expressions, so that they cost a catalogue query nothing to call.
DO $$
BEGIN
    IF pg_catalog.to_regprocedure('cutover.covers(name, name)') IS NULL THEN
        CREATE FUNCTION cutover.covers(p_schema name, p_relation name) RETURNS boolean LANGUAGE sql IMMUTABLE AS $all$ SELECT true $all$;
        CREATE FUNCTION cutover.defines(p_schema name, p_relation name) RETURNS boolean LANGUAGE sql IMMUTABLE AS $all$ SELECT true $all$;
    END IF;
END
$$;

-- The user's tables that are covered and have no gate before them, or one that is switched off.
CREATE OR REPLACE VIEW cutover.unarmed AS
    SELECT c.oid AS table_oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS table_name
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema', 'pg_toast', 'cutover']::name[]) AND n.nspname !~ '^pg_(toast_)?temp_'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x
                        WHERE x.classid = 'pg_catalog.pg_class'::regclass AND x.objid = c.oid AND x.deptype = 'e')
       AND cutover.covers(n.nspname, c.relname)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'cutover_gate' AND t.tgenabled = 'O');
GRANT SELECT ON cutover.unarmed TO PUBLIC;

CREATE OR REPLACE FUNCTION cutover.unarmed_tables() RETURNS TABLE (table_oid oid, table_name text)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT u.table_oid, u.table_name FROM cutover.unarmed u ORDER BY 2;
$$;
