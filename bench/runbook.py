"""Peer: the hand-written runbook over native logical replication, at its best: every session it needs is open already."""

import os
import time

from servers import Session, eventually, run, tools

SEQUENCES = """
SELECT format('SELECT setval(%L, %s)', quote_ident(schemaname) || '.' || quote_ident(sequencename), last_value + 1000)
FROM pg_sequences WHERE last_value IS NOT NULL"""


def subscribe(source, target, folder):
    """Copies the schema, and lets a native subscription copy the rows and follow."""
    os.makedirs(folder, exist_ok=True)
    schema = f"{folder}/schema.sql"
    run([f"{tools()}/pg_dump", "--schema-only", "-f", schema, source.url()])
    # A newer pg_dump may set what an older server does not know; psql goes on, as the person would.
    run([f"{tools()}/psql", "-Xq", "-d", target.url(), "-f", schema])
    with source.session() as at_source, target.session() as at_target:
        at_source.ask("CREATE PUBLICATION runbook FOR ALL TABLES")
        at_target.ask(f"CREATE SUBSCRIPTION runbook CONNECTION '{source.url()}' PUBLICATION runbook")
        unready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        eventually("every table follows", 120, lambda: at_target.one(unready) == "0")


class Runbook:
    """The sessions of the night."""

    def __init__(self, source, target, bouncer):
        self.target, self.bouncer = target, bouncer
        self.at_source, self.at_target = source.session(), target.session()
        self.console = Session(bouncer.url("pgbouncer", "admin"))

    def switch(self):
        """The steps, as they stand in the runbook."""
        self.console.ask("PAUSE bench")
        self.at_source.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        self.at_source.ask("SELECT pg_reload_conf()")
        lsn = self.at_source.one("SELECT pg_current_wal_lsn()")
        lag = f"SELECT count(*) FROM pg_stat_replication WHERE application_name = 'runbook' AND replay_lsn >= '{lsn}'"
        eventually("lag 0", 30, lambda: self.at_source.one(lag) == "1")
        for statement in self.at_source.ask(SEQUENCES):
            self.at_target.ask(statement)
        self.bouncer.point_at(self.target)
        self.console.ask("RELOAD")
        self.console.ask("RESUME bench")
        self.at_target.ask("DROP SUBSCRIPTION runbook")
        return time.time()

    def close(self):
        for session in (self.at_source, self.at_target, self.console):
            session.close()
