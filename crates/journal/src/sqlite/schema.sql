-- The journal of one or several plans. Only ever added to: the triggers keep honest hands off, the chain of hashes
-- proves it. Times are milliseconds since 1970 (UTC).

CREATE TABLE entry (
    plan      TEXT    NOT NULL,
    seq       INTEGER NOT NULL CHECK (seq > 0),
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    at_ms     INTEGER NOT NULL,
    actor     TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    body      TEXT    NOT NULL, -- the very bytes that were hashed
    prev_hash BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (plan, seq)
) STRICT;

-- The newest entry of each plan, moved in the same transaction, so that it shows when the newest entries are missing.
CREATE TABLE head (
    plan  TEXT    NOT NULL PRIMARY KEY,
    seq   INTEGER NOT NULL CHECK (seq >= 0),
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    hash  BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER entry_is_never_removed BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

-- Also keeps INSERT OR REPLACE from replacing: that fires no DELETE trigger.
CREATE TRIGGER entry_has_no_gap BEFORE INSERT ON entry
WHEN NEW.seq <> 1 + (SELECT coalesce(max(seq), 0) FROM entry WHERE plan = NEW.plan)
BEGIN SELECT RAISE(ABORT, 'the journal has no gaps'); END;

CREATE TRIGGER head_moves_on BEFORE UPDATE ON head
WHEN NEW.plan <> OLD.plan OR NEW.seq <= OLD.seq OR NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'the head of the journal only moves on'); END;

CREATE TRIGGER head_is_never_removed BEFORE DELETE ON head
BEGIN SELECT RAISE(ABORT, 'the head of the journal only moves on'); END;
