-- The journal of one or several plans. Only ever added to: the triggers keep honest hands off, the chain of hashes
-- proves it. Times are milliseconds since 1970 (UTC). Names compare bytewise (COLLATE "C"), so that an upgrade of the
-- system's collations can't break an index.

CREATE TABLE cutover_journal.format (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL
);
INSERT INTO cutover_journal.format (version) VALUES (1);

CREATE TABLE cutover_journal.entry (
    plan      text COLLATE "C" NOT NULL,
    seq       bigint NOT NULL CHECK (seq > 0),
    epoch     bigint NOT NULL CHECK (epoch >= 0),
    at_ms     bigint NOT NULL,
    actor     text   NOT NULL,
    reason    text   NOT NULL,
    kind      text   NOT NULL,
    body      text   NOT NULL, -- the very bytes that were hashed; json would do, jsonb would not
    prev_hash bytea  NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash      bytea  NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (plan, seq)
);

-- The newest entry of each plan, moved in the same transaction, so that it shows when the newest entries are missing.
-- Appenders lock this row.
CREATE TABLE cutover_journal.head (
    plan  text COLLATE "C" PRIMARY KEY,
    seq   bigint NOT NULL CHECK (seq >= 0),
    epoch bigint NOT NULL CHECK (epoch >= 0),
    hash  bytea  NOT NULL CHECK (octet_length(hash) = 32)
);

-- Who took the right to drive last. Whether it is still held is for the advisory lock to say: `pid` is the backend
-- that holds it.
CREATE TABLE cutover_journal.driver (
    plan     text COLLATE "C" PRIMARY KEY,
    who      text    NOT NULL,
    pid      integer NOT NULL,
    since_ms bigint  NOT NULL
);

CREATE FUNCTION cutover_journal.refuse() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the journal is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION cutover_journal.announce() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('cutover_journal', NEW.plan);
    RETURN NULL;
END $$;

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE OR DELETE ON cutover_journal.entry
    FOR EACH ROW EXECUTE FUNCTION cutover_journal.refuse();
CREATE TRIGGER entry_is_never_emptied BEFORE TRUNCATE ON cutover_journal.entry
    FOR EACH STATEMENT EXECUTE FUNCTION cutover_journal.refuse();

CREATE TRIGGER head_moves_on BEFORE UPDATE ON cutover_journal.head
    FOR EACH ROW WHEN (NEW.plan <> OLD.plan OR NEW.seq <= OLD.seq OR NEW.epoch < OLD.epoch)
    EXECUTE FUNCTION cutover_journal.refuse();
CREATE TRIGGER head_is_never_removed BEFORE DELETE ON cutover_journal.head
    FOR EACH ROW EXECUTE FUNCTION cutover_journal.refuse();
CREATE TRIGGER head_is_never_emptied BEFORE TRUNCATE ON cutover_journal.head
    FOR EACH STATEMENT EXECUTE FUNCTION cutover_journal.refuse();

CREATE TRIGGER head_moved AFTER UPDATE ON cutover_journal.head
    FOR EACH ROW EXECUTE FUNCTION cutover_journal.announce();

-- Also for sessions with session_replication_role = replica.
ALTER TABLE cutover_journal.entry ENABLE ALWAYS TRIGGER entry_is_never_changed;
ALTER TABLE cutover_journal.entry ENABLE ALWAYS TRIGGER entry_is_never_emptied;
ALTER TABLE cutover_journal.head ENABLE ALWAYS TRIGGER head_moves_on;
ALTER TABLE cutover_journal.head ENABLE ALWAYS TRIGGER head_is_never_removed;
ALTER TABLE cutover_journal.head ENABLE ALWAYS TRIGGER head_is_never_emptied;
