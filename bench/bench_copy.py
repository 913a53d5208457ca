"""The first copy: rows and indexes of a filled database in another server."""

import os
import shutil
import time

from figures import Bench, Figure
from load import fill, fill_many
from runbook import subscribe
from servers import run, tools

WHOS = ("cutover", "native subscription", "pg_dump and pg_restore, -j2", "pgcopydb")


def dominated(stage, say):
    """Two gigabytes, nearly all in one table."""
    scale = 15 if stage.quick else 130
    return bench(stage, say, "copy", f"the initial copy of pgbench scale {scale}, nearly all of it in one table, while nothing else runs", scale, fill)


def many(stage, say):
    """Thousands of small tables."""
    tables = 200 if stage.quick else 2000
    return bench(stage, say, "copy_many", f"the initial copy of {tables} small tables while nothing else runs", tables, fill_many)


def bench(stage, say, name, title, size, filled):
    runs = 1 if stage.quick else 3
    ways = dict(zip(WHOS, (by_cutover, by_subscription, by_dump, by_pgcopydb)))
    notes = list(NOTES)
    if shutil.which("pgcopydb"):
        notes.append(run(["pgcopydb", "--version"]).splitlines()[0] + ", `clone --table-jobs 2 --index-jobs 2`.")
    else:
        del ways["pgcopydb"]
        notes.append("pgcopydb is not installed here (apt-get install pgcopydb): left out.")
    seen = {who: [] for who in ways}
    for at in range(runs):
        for who in list(ways) if at % 2 == 0 else reversed(list(ways)):
            with stage.clusters(size, filled) as (source, target):
                stage.quiet.wait()
                before = [cluster.cpu_s() for cluster in (source, target)]
                began = time.time()
                result = ways[who](stage, source, target, began)
                result["source_cpu"], result["target_cpu"] = (cluster.cpu_s() - cpu for cluster, cpu in zip((source, target), before))
                rows = compare(source, target)
            result["rows_per_s"] = rows / result["seconds"]
            seen[who].append(result)
            say(f"{name} {who}: {rows} rows in {result['seconds']:.1f} s")
    figures = [
        Figure("rows and indexes there", "s", pick(seen, "seconds")),
        Figure("rows a second, indexes included", "rows/s", pick(seen, "rows_per_s")),
        Figure("CPU of the source's server", "s", pick(seen, "source_cpu")),
        Figure("CPU of the target's server", "s", pick(seen, "target_cpu")),
        Figure("CPU of the command itself", "s", pick(seen, "own_cpu")),
        Figure("memory of the command, at most", "MB", pick(seen, "peak_mb")),
        Figure("rows a second, the copy step alone", "rows/s", pick(seen, "step")),
        Figure("ready: following and every row verified", "s", pick(seen, "ready")),
    ]
    return Bench(name, title, figures, notes)


NOTES = [
    "cutover's time runs from the start of `cutover run --until ready` until its journal says that indexes are built and the stream has caught up.",
    "The subscription's time includes the schema, and ends when every table is in state r. It and cutover follow from then on; the other two do not.",
    "CPU of the servers is what their processes used from the beginning until the rows were counted; cutover's includes its comparison of every row.",
]


def pick(seen, key):
    return {who: [one[key] for one in results] for who, results in seen.items() if key in results[0]}


def by_cutover(stage, source, target, began):
    cutover = stage.cutover(source, target)
    cutover.ready()
    ready, own = time.time() - began, {"own_cpu": cutover.cpu_s, "peak_mb": cutover.peak_mb}
    entries = cutover.entries()
    caught_up = next(entry["at_ms"] for entry in entries if entry["body"].get("step") == "catch_up") / 1000
    return {"seconds": caught_up - began, "step": cutover.facts("copy_rows")["rows_per_s"], "ready": ready, **own}


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
    ours, theirs = count(source), count(target)
    if ours != theirs:
        raise RuntimeError(f"the copy differs: tables, rows and indexes {ours} at the source, {theirs} at the target")
    return ours[1]


def count(cluster):
    """Tables, rows and indexes of the benchmark's own schema."""
    with cluster.session() as session:
        tables = session.ask("SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'")
        parts = [tables[at : at + 100] for at in range(0, len(tables), 100)]
        one = "SELECT sum(n) FROM ({}) x(n)"
        rows = [session.one(one.format(" UNION ALL ".join(f"SELECT count(*) FROM {table}" for table in part))) for part in parts]
        indexes = session.one("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'")
    return len(tables), sum(map(int, rows)), int(indexes)
