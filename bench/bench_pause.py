"""The write pause of a switch, as 50 clients see it, and what became of their writes."""

import os
import time

from figures import Bench, Figure
from load import Load
from runbook import Runbook, subscribe

CLIENTS, RATE, SCALE = 50, 1000, 5
# Before the switch begins, and after it ended, the load runs for this long. Unit: seconds.
BEFORE, AFTER = 2, 1.5

# A job that does not connect through PgBouncer, as every company has one: short work in a transaction held open.
JOB = """BEGIN;
INSERT INTO job (note) VALUES ('written past PgBouncer');
\\sleep 150 ms
END;
"""
JOB_CLIENTS = 4


def bench(stage, say):
    runs = 2 if stage.quick else 5
    cases = [("simple", False), ("prepared", False), ("simple", True)]
    seen = {case: {"cutover": [], "runbook": []} for case in cases}
    for at in range(runs):
        for case in cases:
            # Who goes first changes, so that drift of the machine hits both.
            for who in ("cutover", "runbook") if at % 2 == 0 else ("runbook", "cutover"):
                result = once(stage, say, who, *case)
                seen[case][who].append(result)
                say(f"pause {who:<8} {named(case)}: {result['gap']:.0f} ms, failed {result['failed']}, lost {result['lost']}")
    figures = [figure for case in cases for figure in figures_of(case, seen[case])]
    return Bench("pause", f"a switch under {CLIENTS} pgbench clients (TPC-B, {RATE}/s, scale {SCALE}) through PgBouncer", figures, NOTES)


NOTES = [
    "The pause is the longest time in which not one client got an acknowledgement, from before the command began until 1.5 s after it ended.",
    "With the job: 4 more clients write straight to the source, past PgBouncer, in transactions of 150 ms. When the source is fenced each of "
    "them fails once and stops: they know no other address.",
    "A lost write was acknowledged and is not at the target. Where a count of rows is above the acknowledged writes, "
    "the difference was committed and its acknowledgement cut off; that is no loss.",
    "The runbook's sessions are open before it begins, it waits for replay_lsn, and it has no way back; cutover has armed one when the pause ends.",
]


def named(case):
    mode, job = case
    return f"-M {mode}{', with a job past PgBouncer' if job else ''}"


def figures_of(case, seen):
    def each(key):
        return {who: [result[key] for result in results] for who, results in seen.items()}

    name = named(case)
    return [
        Figure(f"write pause, {name}", "ms", each("gap")),
        Figure(f"longest gap before the switch, {name}", "ms", each("quiet_gap")),
        Figure(f"whole command, {name}", "s", each("seconds")),
        Figure(f"failed transactions, {name}", "count", each("failed"), total=True),
        Figure(f"acknowledged writes, {name}", "count", each("acknowledged"), total=True),
        Figure(f"lost writes, {name}", "count", each("lost"), total=True),
        Figure(f"committed without an acknowledgement, {name}", "count", each("unacknowledged"), total=True),
    ]


def once(stage, say, who, mode, job):
    """One switch between fresh servers. The load is made longer where the machine is so slow that it would end first."""
    for seconds in (6, 12, 24):
        with stage.clusters(SCALE) as (source, target), stage.bouncer(source) as bouncer:
            result = switch(stage, who, source, target, bouncer, mode, job, seconds)
        if result:
            return result
        say(f"pause {who}: the load of {seconds} s ended before the switch did; again with a longer one")
    raise RuntimeError("the switch took longer than 20 s")


def switch(stage, who, source, target, bouncer, mode, job, seconds):
    with source.session() as session:
        session.ask("CREATE TABLE job (id bigserial PRIMARY KEY, note text NOT NULL)")
    do, close = prepare(stage, who, source, target, bouncer)
    stage.quiet.wait()
    began = time.time()
    loads = [Load(stage.folder("load"), bouncer.url(), clients=CLIENTS, seconds=seconds, rate=RATE, mode=mode)]
    if job:
        loads.append(Load(stage.folder("job"), source.url(), clients=JOB_CLIENTS, seconds=seconds, scripts=["-f", job_file(stage)]))
    time.sleep(BEFORE)
    start = time.time()
    do()
    end = time.time()
    saw = [load.wait() for load in loads]
    close()
    if end + AFTER > began + seconds:
        return None
    return judge(target, saw, began, start, end)


def prepare(stage, who, source, target, bouncer):
    """Copies and follows. What remains is the switch, and what is to be closed after it."""
    if who == "cutover":
        cutover = stage.cutover(source, target, bouncer)
        cutover.ready()
        return (lambda: cutover.call("run")), (lambda: None)
    subscribe(source, target, stage.folder("runbook"))
    runbook = Runbook(source, target, bouncer)
    return runbook.switch, runbook.close


def judge(target, saw, began, start, end):
    clients = saw[0]
    with target.session() as session:
        tables = ["pgbench_history", "job"][: len(saw)]
        rows = [int(session.one(f"SELECT count(*) FROM {table}")) for table in tables]
    acknowledged = [len(one.acknowledged) for one in saw]
    return {
        "gap": clients.longest_gap_ms(start, end + AFTER),
        "quiet_gap": clients.longest_gap_ms(began + 1, start),
        "seconds": end - start,
        "failed": sum(one.failed for one in saw),
        "acknowledged": sum(acknowledged),
        "lost": sum(max(0, told - there) for told, there in zip(acknowledged, rows)),
        "unacknowledged": sum(max(0, there - told) for told, there in zip(acknowledged, rows)),
    }


def job_file(stage):
    path = f"{stage.work}/job.sql"
    if not os.path.exists(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(JOB)
    return path
