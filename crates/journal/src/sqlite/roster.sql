-- The roster, from format 2 on: what each server that gives leases has last written down. No part of the chain.

CREATE TABLE server (
    plan          TEXT    NOT NULL,
    server        TEXT    NOT NULL,
    beat          INTEGER NOT NULL,
    lease_ms      INTEGER NOT NULL CHECK (lease_ms >= 0),
    body          TEXT    NOT NULL,
    written_at_ms INTEGER NOT NULL,
    PRIMARY KEY (plan, server)
) STRICT;
