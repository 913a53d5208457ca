"""The first copy: rows and indexes of a filled database in another server."""

import os
import shutil
import time

from figures import Bench, Figure
from runbook import subscribe
from servers import run, tools

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_history", "pgbench_tellers")


def bench(stage, say):
    runs = 1 if stage.quick else 3
    whos = {"cutover": by_cutover, "native subscription": by_subscription, "pg_dump and pg_restore, -j2": by_dump}
    notes = list(NOTES)
    if shutil.which("pgcopydb"):
        whos["pgcopydb"] = by_pgcopydb
        notes.append(run(["pgcopydb", "--version"]).splitlines()[0] + ", `clone --table-jobs 2 --index-jobs 2`.")
    else:
        notes.append("pgcopydb is not installed here (apt-get install pgcopydb): left out.")
    seen = {who: [] for who in whos}
    for at in range(runs):
        for who in list(whos) if at % 2 == 0 else reversed(list(whos)):
            with stage.clusters(stage.scale) as (source, target):
                stage.quiet.wait()
                began = time.time()
                result = whos[who](stage, source, target, began)
                rows = compare(source, target)
            result["rows_per_s"] = rows / result["seconds"]
            seen[who].append(result)
            say(f"copy {who}: {rows} rows in {result['seconds']:.1f} s")
    figures = [
        Figure("rows and indexes there", "s", pick(seen, "seconds")),
        Figure("rows a second, indexes included", "rows/s", pick(seen, "rows_per_s")),
        Figure("rows a second, the copy step alone", "rows/s", pick(seen, "step")),
        Figure("ready: following and every row verified", "s", pick(seen, "ready")),
    ]
    return Bench("copy", f"the initial copy of pgbench scale {stage.scale} while nothing else runs", figures, notes)


NOTES = [
    "cutover's time runs from the start of `cutover run --until ready` until its journal says that indexes are built and the stream has caught up.",
    "The subscription's time includes the schema, and ends when every table is in state r. It and cutover follow from then on; the other two do not.",
]


def pick(seen, key):
    return {who: [one[key] for one in results] for who, results in seen.items() if key in results[0]}


def by_cutover(stage, source, target, began):
    cutover = stage.cutover(source, target)
    cutover.ready()
    ready = time.time() - began
    entries = cutover.entries()
    caught_up = next(entry["at_ms"] for entry in entries if entry["body"].get("step") == "catch_up") / 1000
    return {"seconds": caught_up - began, "step": cutover.facts("copy_rows")["rows_per_s"], "ready": ready}


def by_subscription(stage, source, target, began):
    subscribe(source, target, stage.folder("subscription"))
    return {"seconds": time.time() - began}


def by_dump(stage, source, target, began):
    folder = stage.folder("dump")
    run([f"{tools()}/pg_dump", "-Fd", "-j2", "-f", folder, source.url()])
    run([f"{tools()}/pg_restore", "-j2", "-d", target.url(), folder])
    seconds = time.time() - began
    shutil.rmtree(folder)
    return {"seconds": seconds}


def by_pgcopydb(stage, source, target, began):
    environment = {**os.environ, "PATH": f"{tools()}:{os.environ['PATH']}"}
    folder = stage.folder("pgcopydb")
    run(["pgcopydb", "clone", "--dir", folder, "--table-jobs", "2", "--index-jobs", "2", "--source", source.url(), "--target", target.url()],
        env=environment)
    seconds = time.time() - began
    shutil.rmtree(folder, ignore_errors=True)
    return {"seconds": seconds}


def compare(source, target):
    """Rows copied. A copy that lacks rows or indexes is no copy, however fast."""
    sql = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
    sql += ", (SELECT count(*) FROM pg_indexes WHERE schemaname = 'public')"
    with source.session() as at_source, target.session() as at_target:
        ours, theirs = at_source.one(sql), at_target.one(sql)
    if ours != theirs:
        raise RuntimeError(f"the copy differs: rows and indexes {ours} at the source, {theirs} at the target")
    return sum(int(count) for count in ours.split("|")[:-1])
