"""What the armed gate costs in throughput while it stands open, and what a gate of one key would cost."""

import re
import time

from figures import Bench, Figure
from load import Load

WORKLOADS = [("-N, 16 clients", 16, ["-N"]), ("-N, 50 clients", 50, ["-N"]), ("TPC-B, 50 clients", 50, [])]

# The simplest gate that fences: every writer of every backend meets in one lock.
ONE_KEY = """
CREATE SCHEMA one_key;
CREATE FUNCTION one_key.pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    IF (SELECT last_value FROM cutover.gate) & 1 = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction', MESSAGE = 'fenced';
    END IF;
    RETURN NULL;
END $$"""

GATES = """
SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgname = 'cutover_gate' AND c.relname LIKE 'pgbench%' AND c.relkind = 'r' ORDER BY 1"""


def bench(stage, say):
    rounds, seconds = (2, 2) if stage.quick else (8, 2)
    workloads = WORKLOADS[1:] if stage.quick else WORKLOADS
    figures = []
    with stage.clusters(stage.scale) as (source, target):
        gates = armed_by_cutover(stage, source, target)
        for name, clients, options in workloads:
            seen = {"cutover": [], "not armed": [], "one advisory key": []}
            order = list(seen)
            measure(stage, target, gates, "not armed", clients, options, seconds)
            for at in range(rounds):
                # The order is turned round each time, so that what drifts hits all alike.
                for who in order if at % 2 == 0 else reversed(order):
                    seen[who].append(measure(stage, target, gates, who, clients, options, seconds))
                say(f"gate {name}: " + ", ".join(f"{who} {numbers[-1]['tps']:.0f} tps" for who, numbers in seen.items()))
            figures += figures_of(name, seen)
    return Bench("gate", f"throughput with the gate armed and open, pgbench scale {stage.scale}, straight to the server", figures, NOTES)


NOTES = [
    "The gate is the one that a real switch left behind on the target; its triggers are dropped for `not armed` and made again as they were. "
    "The old side is shut down.",
    "The cost is 1 - armed / not armed within one round, each gate against its neighbour in time; the aim is 5 %. Below 0 is noise.",
    "CPU is what the server's backends took, per transaction. Neighbours disturb it less than throughput, but they do.",
]


def armed_by_cutover(stage, source, target):
    """Lets the product arm a database, and returns the statements that arm it again."""
    cutover = stage.cutover(source, target)
    cutover.call("run")
    source.stop()
    with target.session() as session:
        session.ask("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
        session.ask("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        session.ask(ONE_KEY)
        # A copy and its indexes are fresh: without this the first rounds pay for hint bits.
        session.ask("VACUUM ANALYZE")
        session.ask("CHECKPOINT")
        return session.ask(GATES)


def measure(stage, cluster, gates, who, clients, options, seconds):
    """One stretch of load behind one kind of gate."""
    with cluster.session() as session:
        session.ask("DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT tgrelid FROM pg_trigger WHERE tgname IN ('cutover_gate', 'one_key') "
                    "LOOP EXECUTE format('DROP TRIGGER IF EXISTS cutover_gate ON %s', t); "
                    "EXECUTE format('DROP TRIGGER IF EXISTS one_key ON %s', t); END LOOP; END $$")
        for gate in gates if who != "not armed" else []:
            session.ask(gate if who == "cutover" else re.sub("cutover_gate", "one_key", gate).replace("cutover.pass_gate", "one_key.pass_gate"))
    stage.quiet.wait()
    cpu = children_cpu(cluster)
    saw = Load(stage.folder("load"), cluster.url(), clients=clients, seconds=seconds, scripts=options).wait()
    if saw.failed:
        raise RuntimeError(f"{saw.failed} transactions failed behind an open gate: {saw.errors}")
    # The backends' time is added up when the server has seen them end.
    time.sleep(0.1)
    return {"tps": saw.tps(), "cpu": (children_cpu(cluster) - cpu) * 1000 / len(saw.acknowledged)}


def children_cpu(cluster):
    """CPU seconds of all backends that have ended."""
    with open(f"/proc/{cluster.pid()}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / 100


def figures_of(name, seen):
    bare = seen["not armed"]

    def cost(who, key):
        sign = 1 if key == "tps" else -1
        return [sign * (1 - with_gate[key] / without[key]) * 100 for with_gate, without in zip(seen[who], bare)]

    gates = ["cutover", "one advisory key"]
    return [
        Figure(f"throughput, {name}", "tps", {who: [one["tps"] for one in numbers] for who, numbers in seen.items()}),
        Figure(f"cost in throughput, {name}", "%", {who: cost(who, "tps") for who in gates}),
        Figure(f"cost in CPU per transaction, {name}", "%", {who: cost(who, "cpu") for who in gates}),
    ]
