"""Runs the benches and writes their table."""

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import time

import bench_copy
import bench_crowd
import bench_evaluate
import bench_gate
import bench_impact
import bench_pause
import bench_permit
import bench_shadow
import bench_verify
from figures import markdown
from servers import bouncer_program, said_version, tools
from stage import Stage

BENCHES = {
    "pause": bench_pause.bench,
    "gate": bench_gate.bench,
    "copy": bench_copy.dominated,
    "copy_many": bench_copy.many,
    "verify": bench_verify.bench,
    "impact": bench_impact.bench,
    "evaluate": bench_evaluate.bench,
    "permit": bench_permit.bench,
    "crowd": bench_crowd.bench,
    "shadow": bench_shadow.bench,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--before", required=True, help="the results of earlier runs; of each bench the latest is kept")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    # A stop unwinds the stack, so that every server is taken down on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage = Stage(args.work, args.quick)
    machine, benches = describe(stage), earlier(args.before)
    for name in args.names or BENCHES:
        began = time.monotonic()
        stage.quiet.begin()
        bench = BENCHES[name](stage, lambda line: print(line, file=sys.stderr, flush=True))
        bench.notes.append(stage.quiet.note())
        print(bench.text(), flush=True)
        benches[name] = {**bench.json(), **about(stage, began), "machine": machine}
    write(args.work, [benches[name] for name in BENCHES if name in benches])


def earlier(path):
    """Benches by name."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return {bench["name"]: bench for bench in json.load(file)["benches"]}


def about(stage, began):
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": os.environ.get("CUTOVER_COMMIT", "unknown"),
        "quick": stage.quick,
        "seconds": round(time.monotonic() - began),
    }


def describe(stage):
    """Where and with what."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        ram = int(next(line for line in file if line.startswith("MemTotal")).split()[1]) / 1048576
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {ram:.1f} GB of RAM, Linux {platform.release()}; "
        f"source PostgreSQL {said_version(stage.bins['source'] + '/postgres')}, target PostgreSQL {said_version(stage.bins['target'] + '/postgres')}, "
        f"PgBouncer {said_version(bouncer_program())}, pgbench {said_version(tools() + '/pgbench')}"
    )


def write(work, benches):
    with open(f"{work}/results.json", "w", encoding="utf-8") as file:
        json.dump({"version": 1, "benches": benches}, file, indent=1)
        file.write("\n")
    machines = list(dict.fromkeys(bench["machine"] for bench in benches))
    head = ["# Results", "", "Written by `bench/run.sh`; of each bench the latest run. [README.md](README.md) says how to read it.", ""]
    head += [f"- {machine}" for machine in machines]
    head += [
        "- clients, servers and cutover share the machine",
        "- `ours ÷ this` is cutover's figure divided by the peer's: for times and costs below 1 is better, for rates above 1",
        "",
        "",
    ]
    with open(f"{work}/RESULTS.md", "w", encoding="utf-8") as file:
        file.write("\n".join(head) + "\n".join(markdown(bench) for bench in benches))


main()
