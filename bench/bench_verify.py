"""Comparing every row of both sides, while they stand still and while they move."""

import time

from figures import Bench, Figure
from load import Load
from servers import together

CLIENTS, RATE = 16, 300
# What most people type. The order is needed, or equal tables give different sums.
NAIVE = {
    table: f"SELECT md5(string_agg(t::text, '' ORDER BY {key})), count(*) FROM {table} t"
    for table, key in (("pgbench_accounts", "aid"), ("pgbench_branches", "bid"), ("pgbench_history", "id"), ("pgbench_tellers", "tid"))
}


def bench(stage, say):
    runs = 1 if stage.quick else 4
    seen = {moving: {"cutover": [], "md5 of each table": []} for moving in (False, True)}
    with stage.clusters(stage.scale) as (source, target):
        cutover = stage.cutover(source, target)
        cutover.ready()
        methods = {"cutover": lambda: by_cutover(cutover), "md5 of each table": lambda: by_md5(source, target)}
        for moving in seen:
            for at in range(runs):
                for who in list(methods) if at % 2 == 0 else reversed(list(methods)):
                    stage.quiet.wait()
                    result = under_load(stage, source, methods[who]) if moving else methods[who]()
                    seen[moving][who].append(result)
                    say(f"verify {who}, {state(moving)}: {result['rows'] / result['seconds']:.0f} rows/s, {result['false']} false")
        # What was called different above was not: both sides hold the same rows when they stand still.
        last = by_cutover(cutover)
        if last["false"] or by_md5(source, target)["false"]:
            raise RuntimeError("the two sides really differ, so the mismatches above mean nothing")
    figures = []
    for moving, results in seen.items():
        rates = {who: [one["rows"] / one["seconds"] for one in many] for who, many in results.items()}
        false = {who: [one["false"] for one in many] for who, many in results.items()}
        figures.append(Figure(f"rows compared a second, {state(moving)}", "rows/s", rates))
        figures.append(Figure(f"false mismatches, {state(moving)}", "count", false, total=True))
    figures.append(Figure("rows looked at again, while writes flow", "count", {"cutover": [one["again"] for one in seen[True]["cutover"]]}, total=True))
    return Bench("verify", f"comparing both sides of pgbench scale {stage.scale}", figures, NOTES)


NOTES = [
    f"Writes: pgbench TPC-B, {CLIENTS} clients, {RATE}/s, straight to the source, from 1 s before the comparison until after its end.",
    "A mismatch is false because both sides hold the same rows afterwards, as both methods then agree. cutover counts rows, and also what it could "
    "not settle; the naive sum counts tables, of which there are four.",
    "The rate is rows at the authority divided by the whole time of the command. The naive sums run on both sides at once.",
]


def state(moving):
    return "while writes flow" if moving else "while both stand still"


def by_cutover(cutover):
    began = time.time()
    report = cutover.call("verify", codes=(0, 3, 4))
    seconds = time.time() - began
    false = report["differences_total"] + report["unsettled_total"]
    return {"rows": report["rows"], "seconds": seconds, "false": false, "again": report["rechecked_rows"]}


def by_md5(source, target):
    def sums(cluster):
        with cluster.session() as session:
            return {table: session.one(sql) for table, sql in NAIVE.items()}

    began = time.time()
    here, there = together(lambda: sums(source), lambda: sums(target))
    seconds = time.time() - began
    rows = sum(int(answer.split("|")[1]) for answer in here.values())
    return {"rows": rows, "seconds": seconds, "false": sum(here[table] != there[table] for table in NAIVE), "again": 0}


def under_load(stage, source, method):
    """Runs a comparison while clients write, from its beginning to its end."""
    load = Load(stage.folder("load"), source.url(), clients=CLIENTS, seconds=600, rate=RATE)
    try:
        time.sleep(1)
        return method()
    finally:
        load.process.terminate()
        load.process.wait()
