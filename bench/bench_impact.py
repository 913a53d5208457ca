"""What the source's clients feel while their database is copied and compared."""

import time

from figures import Bench, Figure
from load import Load, Seen

CLIENTS, RATE = 4, 150
GENTLE = '\n[copy]\nmax_latency = "5ms"\n\n[verify]\nmax_rate = 100000\n'


def bench(stage, say):
    runs = 1 if stage.quick else 3
    seen = {who: {"copying": [], "comparing": [], "calm": []} for who in ("cutover", "cutover with limits")}
    took = {who: [] for who in seen}
    for at in range(runs):
        for who in list(seen) if at % 2 == 0 else reversed(list(seen)):
            with stage.clusters(stage.scale) as (source, target):
                stage.quiet.wait()
                cutover = stage.cutover(source, target, more=GENTLE if who != "cutover" else "")
                calm = felt(stage, source, lambda: time.sleep(4))
                began = time.time()
                copying = felt(stage, source, cutover.ready)
                took[who].append(time.time() - began)
                comparing = felt(stage, source, lambda: cutover.call("verify"))
            for what, latency in zip(("calm", "copying", "comparing"), (calm, copying, comparing)):
                seen[who][what].append(latency)
            say(f"impact {who}: p95 {calm[95]:.1f} ms calm, {copying[95]:.1f} ms copying, {comparing[95]:.1f} ms comparing")
    figures = []
    for what, words in (("calm", "while nothing else runs"), ("copying", "from copy to ready"), ("comparing", "while it verifies")):
        for percent in (50, 95, 99):
            values = {who: [one[percent] for one in seen[who][what]] for who in seen}
            figures.append(Figure(f"latency, {percent} %, {words}", "ms", values, peer="cutover with limits"))
    figures.append(Figure("ready", "s", took, peer="cutover with limits"))
    notes = [
        f"The source's clients: pgbench TPC-B, {CLIENTS} clients, {RATE} transactions a second. Two cores for both servers, the clients and cutover.",
        "With limits: copy.max_latency is 5 ms, and verify.max_rate 100,000 rows a second.",
    ]
    return Bench("impact", f"latency at the source, pgbench scale {stage.scale}", figures, notes)


def felt(stage, source, work):
    """Percentiles of the clients' latency while something is done."""
    load = Load(stage.folder("load"), source.url(), clients=CLIENTS, seconds=600, rate=RATE)
    try:
        work()
    finally:
        load.process.terminate()
        load.process.wait()
    seen = Seen(load.prefix, load.said())
    return {percent: seen.latency_ms(percent) for percent in (50, 95, 99)}
