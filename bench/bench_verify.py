"""Comparing every row of both sides, while they stand still and while they move."""

import json
import os
import time

from figures import Bench, Figure
from load import Load, Seen
from servers import run, together

# A Python that has data-diff.
DATA_DIFF = os.environ.get("CUTOVER_DATA_DIFF", "")

CLIENTS, RATE = 8, 2000
# One row of a million, over and over.
UPDATE = "\\set aid random(1, 100000 * :scale)\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n"
KEYS = (("pgbench_accounts", "aid"), ("pgbench_branches", "bid"), ("pgbench_history", "id"), ("pgbench_tellers", "tid"))
# What most people type. The order is needed, or equal tables give different sums.
NAIVE = {table: f"SELECT md5(string_agg(t::text, '' ORDER BY {key})), count(*) FROM {table} t" for table, key in KEYS}
# The least that a comparison of rows can do: to read each once and hash it, by as many processes as there are cores.
SCAN = {table: f"SELECT sum(hashtextextended(t::text, 0)), count(*) FROM {table} t" for table, _ in KEYS}
PARALLEL = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"


def bench(stage, say):
    runs = 1 if stage.quick else 4
    with stage.clusters(stage.scale) as (source, target):
        cutover = stage.cutover(source, target)
        cutover.ready()
        ways = {"cutover": lambda: by_cutover(cutover), "hashing scan": lambda: by_scan(source, target), "md5 of each table": lambda: by_md5(source, target)}
        if DATA_DIFF:
            ways["data-diff"] = lambda: by_data_diff(source, target)
        size = int(source.session().one("SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relname LIKE 'pgbench%' AND relkind = 'r'"))
        seen = {moving: {who: [] for who in ways} for moving in (False, True)}
        rates = []
        for moving in seen:
            for at in range(runs):
                for who in list(ways) if at % 2 == 0 else reversed(list(ways)):
                    stage.quiet.wait()
                    if moving:
                        result, rate = under_load(stage, source, ways[who])
                        rates.append(rate)
                    else:
                        result = ways[who]()
                    seen[moving][who].append(result)
                    say(f"verify {who}, {state(moving)}: {result['rows'] / result['seconds']:.0f} rows/s, {result['false']} false")
        # What was called different above was not: both sides hold the same rows when they stand still.
        last = by_cutover(cutover)
        if last["false"] or by_md5(source, target)["false"]:
            raise RuntimeError("the two sides really differ, so the mismatches above mean nothing")
    figures = []
    for moving, results in seen.items():
        rows = {who: [one["rows"] / one["seconds"] for one in many] for who, many in results.items()}
        # A scan of one moment at each side compares nothing.
        false = {who: [one["false"] for one in many] for who, many in results.items() if who != "hashing scan"}
        figures.append(Figure(f"rows compared a second, {state(moving)}", "rows/s", rows))
        figures.append(Figure(f"false mismatches, {state(moving)}", "count", false, total=True))
    ours = {moving: results["cutover"] for moving, results in seen.items()}
    figures.append(Figure("table bytes compared a second, both stand still", "GB/s", {"cutover": [size / one["seconds"] / 1e9 for one in ours[False]]}))
    figures.append(Figure("rows looked at again, while writes flow", "count", {"cutover": [one["again"] for one in ours[True]]}, total=True))
    figures.append(Figure("memory of the command, at most", "MB", {"cutover": [one["peak_mb"] for one in ours[False] + ours[True]]}))
    figures.append(Figure("updates a second meanwhile", "tps", {"pgbench": rates}))
    notes = list(NOTES) if DATA_DIFF else [*NOTES, "data-diff is not installed here (bench/run.sh --peers fetches it): left out."]
    return Bench("verify", f"comparing both sides of pgbench scale {stage.scale}", figures, notes)


NOTES = [
    f"Writes: updates of single random rows, {CLIENTS} clients, {RATE}/s asked for, straight to the source, from 1 s before the comparison until after its end.",
    "A mismatch is false because both sides hold the same rows afterwards, as cutover and the sums then agree. cutover and data-diff count rows, cutover also "
    "what it could not settle; the naive sum counts tables, of which there are four.",
    "The rate is rows at the authority divided by the whole time of the command. Scans and sums run on both sides at once.",
    "The hashing scan is the limit: each server reads its rows once, with two parallel workers, and hashes their text once, which finds no row and tells no difference.",
]


def state(moving):
    return "while writes flow" if moving else "while both stand still"


def by_cutover(cutover):
    began = time.time()
    report = cutover.call("verify", codes=(0, 3, 4))
    seconds = time.time() - began
    false = report["differences_total"] + report["unsettled_total"]
    return {"rows": report["rows"], "seconds": seconds, "false": false, "again": report["rechecked_rows"], "peak_mb": cutover.peak_mb}


def by_data_diff(source, target):
    began = time.time()
    tables = [f"{table}:{key}" for table, key in KEYS]
    said = json.loads(run([DATA_DIFF, f"{os.path.dirname(__file__)}/peer_data_diff.py", source.url(), target.url(), *tables]))
    return {"rows": said["rows"], "seconds": time.time() - began, "false": said["different"]}


def by_scan(source, target):
    return sums(source, target, SCAN, PARALLEL)


def by_md5(source, target):
    return sums(source, target, NAIVE, "SET work_mem = '64MB'")


def sums(source, target, statements, settings):
    def at(cluster):
        with cluster.session() as session:
            session.ask(settings)
            return {table: session.one(sql) for table, sql in statements.items()}

    began = time.time()
    here, there = together(lambda: at(source), lambda: at(target))
    seconds = time.time() - began
    rows = sum(int(answer.split("|")[1]) for answer in here.values())
    return {"rows": rows, "seconds": seconds, "false": sum(here[table] != there[table] for table in here)}


def under_load(stage, source, method):
    """Runs a comparison while clients write, from its beginning to its end, and says how many writes there were a second."""
    folder = stage.folder("load")
    script = f"{folder}.sql"
    with open(script, "w", encoding="utf-8") as file:
        file.write(UPDATE.replace(":scale", str(stage.scale)))
    load = Load(folder, source.url(), clients=CLIENTS, seconds=600, rate=RATE, mode="prepared", scripts=["-f", script])
    try:
        time.sleep(1)
        result = method()
    finally:
        load.process.terminate()
        load.process.wait()
    return result, Seen(load.prefix, load.said()).tps()
