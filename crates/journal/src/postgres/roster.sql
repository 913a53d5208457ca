-- The roster, from format 2 on: what each server that gives leases has last written down. No part of the chain. Not
-- unlogged: empty after a crash, it would say that nobody is there while leases are alive.

CREATE TABLE cutover_journal.server (
    plan          text COLLATE "C" NOT NULL,
    server        text COLLATE "C" NOT NULL,
    beat          bigint NOT NULL,
    lease_ms      bigint NOT NULL CHECK (lease_ms >= 0),
    body          text   NOT NULL,
    written_at_ms bigint NOT NULL,
    PRIMARY KEY (plan, server)
);
