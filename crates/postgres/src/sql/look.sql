-- Looks at rows where the stream passes: how verification compares rows that move, and how it mends them.
--
-- The verifier locks rows at the authority, writes their keys into `cutover.look` and deletes that again, all in one
-- short transaction. `cutover.look` is published. Where the follower applies that transaction it has applied every
-- commit before it and none behind it, so its rows are to be what was locked. A trigger that fires for the stream only
-- looks at them there and notes down what it saw, in tables that are not published.
--
-- What is looked at is said by statements that the verifier has put down here itself: nothing that comes through the
-- stream is run. The function holds up the stream for as long as it runs, and an error of its would stop it. So it
-- takes a few rows at a time, finds them by their key, waits for no lock for long, and notes down every error.

CREATE TABLE IF NOT EXISTS cutover.look (
    id text PRIMARY KEY,
    statement text NOT NULL,
    -- One line for each column of the key.
    keys text[] NOT NULL,
    -- To mend: each row as it is at the authority, NULL where it has none, and the version of the follower's row that
    -- may be deleted then.
    images text[],
    versions text[]
);

CREATE TABLE IF NOT EXISTS cutover.look_statement (
    id text PRIMARY KEY,
    look text NOT NULL,
    mend text[] NOT NULL,
    made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- One for each look that passed; `why` says what went wrong.
CREATE TABLE IF NOT EXISTS cutover.look_outcome (
    id text PRIMARY KEY,
    why text,
    made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- The rows that were there, by their number among the keys; a hash for each column, and what may be shown of it.
CREATE TABLE IF NOT EXISTS cutover.look_row (
    id text NOT NULL,
    n bigint NOT NULL,
    key text[] NOT NULL,
    version text NOT NULL,
    unclaimed boolean NOT NULL,
    columns bigint[] NOT NULL,
    shown text[],
    lengths integer[],
    PRIMARY KEY (id, n)
);

-- Settings: as the verifier's own sessions have them, because a row is compared by its text; and rows are found by an
-- index, whatever the statistics say.
CREATE OR REPLACE FUNCTION cutover.look_where_the_stream_is() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog SET row_security = off SET lock_timeout = '200ms' SET client_min_messages = error
SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET lc_monetary = 'C' SET quote_all_identifiers = off SET xmloption = 'content'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    v_statement cutover.look_statement;
    v_part text;
    v_why text;
BEGIN
    BEGIN
        SELECT s.* INTO STRICT v_statement FROM cutover.look_statement s WHERE s.id = NEW.statement;
        IF NEW.images IS NOT NULL THEN
            FOREACH v_part IN ARRAY v_statement.mend LOOP
                EXECUTE v_part USING NEW.keys, NEW.images, NEW.versions;
            END LOOP;
        END IF;
        DELETE FROM cutover.look_row r WHERE r.id = NEW.id;
        EXECUTE 'INSERT INTO cutover.look_row SELECT $2, q.* FROM (' || v_statement.look || ') q' USING NEW.keys, NEW.id;
        INSERT INTO cutover.look_outcome (id) VALUES (NEW.id) ON CONFLICT (id) DO UPDATE SET why = NULL;
    EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
        BEGIN
            v_why := left(format('%s [%s]', sqlerrm, sqlstate), 500);
            INSERT INTO cutover.look_outcome (id, why) VALUES (NEW.id, v_why) ON CONFLICT (id) DO UPDATE SET why = EXCLUDED.why;
        EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
            NULL;
        END;
    END;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION cutover.look_where_the_stream_is() FROM PUBLIC;

DROP TRIGGER IF EXISTS look_where_the_stream_is ON cutover.look;
CREATE TRIGGER look_where_the_stream_is AFTER INSERT ON cutover.look FOR EACH ROW EXECUTE FUNCTION cutover.look_where_the_stream_is();
ALTER TABLE cutover.look ENABLE REPLICA TRIGGER look_where_the_stream_is;
