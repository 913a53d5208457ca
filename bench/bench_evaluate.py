"""Flags over HTTP: one flag, and all flags, as `cutover serve`, `cutover agent` and Unleash Edge answer for them."""

import contextlib
import json

from figures import Bench, Figure
from servers import eventually
from serving import UNLEASH_EDGE, agent, rig, serve, unleash_edge, unleash_edge_version

CONNECTIONS, RATE = 32, 2000
DATABASE = "db1.internal:5432/orders"
# Unleash Edge takes no request without one.
TOKEN = "*:development.bench"
WRITES = "database-writes-enabled"
KINDS = ("one flag", "all flags")


class Elsewhere:
    """A database that a plan names. Nobody connects to it: what is told follows from the journal alone."""

    def __init__(self, host):
        self.host = host

    def url(self):
        return f"postgres://app@{self.host}:5432/orders"


def bench(stage, say):
    runs, seconds = (1, 1) if stage.quick else (5, 3)
    with contextlib.ExitStack() as stack:
        servers, asks = start(stage, stack)
        seen = {(kind, pace): {who: [] for who in servers} for kind in KINDS for pace in (None, RATE)}
        for at in range(runs):
            for (kind, pace), results in seen.items():
                # Who goes first changes, so that drift of the machine hits all alike.
                for who in list(servers) if at % 2 == 0 else reversed(list(servers)):
                    stage.quiet.wait()
                    result = measure(servers[who], asks(who, kind), seconds, pace)
                    results[who].append(result)
                    say(f"evaluate {kind}, {who}: {result['per_s']:.0f}/s, p50 {result['p50_us']:.0f} µs, p99 {result['p99_us']:.0f} µs")
        memory = {who: [server.rss_kb() / 1024] for who, server in servers.items()}
    figures = [figure for kind in KINDS for figure in figures_of(kind, seen)] + [Figure("memory of the server", "MB", memory)]
    notes = list(NOTES)
    if UNLEASH_EDGE:
        notes.append(
            f"Unleash Edge {unleash_edge_version()} from crates.io, offline with a file of six toggles of the same names, each with a constraint on the "
            "database's names: POST /api/frontend/features/{name}, and POST /api/frontend, which leaves out toggles that are off (none is). Its answers say less: "
            "ours say of each flag until when, for which epoch and why."
        )
    else:
        notes.append("Unleash Edge is not installed here (bench/run.sh --peers fetches it): left out.")
    return Bench("evaluate", f"flags evaluated over HTTP, {CONNECTIONS} connections that are kept", figures, notes)


NOTES = [
    "The rig asks from one thread over the same connections, each with an instance's name of its own; for the rate each asks again as soon as it is answered. "
    f"With {RATE:,} requests a second, latency counts from when a request was due.",
    "CPU is the server's own, user and system, while it is asked as fast as it answers. Neighbours disturb it less than the rate.",
    "cutover's server reads an embedded journal and writes down who asked, its agent keeps a lease of the server; both run with their defaults.",
]


def start(stage, stack):
    """The servers by name, and how each is asked."""
    cutover = stage.cutover(Elsewhere("db1.internal"), Elsewhere("db2.internal"))
    server = stack.enter_context(serve(cutover, stage.folder("serve")))
    servers = {"cutover": server, "cutover agent": stack.enter_context(agent(server, stage.folder("agent")))}
    if UNLEASH_EDGE:
        servers["unleash-edge"] = stack.enter_context(unleash_edge(toggles(), TOKEN, stage.folder("unleash-edge")))

    def asks(who, kind):
        return of_edge(kind) if who == "unleash-edge" else of_ours(kind)

    for who, one in servers.items():
        eventually(f"{who} says yes", 30, lambda one=one, who=who: says_yes(one, asks(who, KINDS[0])))
    return servers, asks


def says_yes(server, ask):
    if server.process.poll() is not None:
        raise RuntimeError(f"it ended with {server.process.returncode}: {server.complaints()}")
    try:
        return rig("load", "--server", server.address, "--connections", 1, "--seconds", 1, "--rate", 10, *ask)
    except RuntimeError:
        # An agent that has not heard from its server yet; a server that does not listen yet.
        return None


def measure(server, ask, seconds, pace):
    before = server.cpu_s()
    paced = ["--rate", pace] if pace else []
    seen = rig("load", "--server", server.address, "--connections", CONNECTIONS, "--seconds", seconds, *paced, *ask)
    # The warm-up, a fifth, is in the server's CPU and not among the answers.
    return {**seen, "cpu_us": (server.cpu_s() - before) / 1.2 / seen["answers"] * 1e6}


def of_ours(kind):
    context = {"context": {"targetingKey": "checkout-{connection}", "instance": "checkout-{connection}", "database": DATABASE}}
    path = "/ofrep/v1/evaluate/flags" + (f"/{WRITES}" if kind == "one flag" else "")
    return ["--path", path, "--body", json.dumps(context), "--expect", f'"key":"{WRITES}","value":true']


def of_edge(kind):
    context = {"userId": "checkout-{connection}", "properties": {"database": DATABASE}}
    path = "/api/frontend" + (f"/features/{WRITES}" if kind == "one flag" else "")
    return ["--path", path, "--header", f"authorization: {TOKEN}", "--body", json.dumps(context), "--expect", '"enabled":true']


def toggles():
    """What Unleash has of the same: each toggle is on for instances of that database, and has a variant where ours has a text."""
    names = ["db1.internal", "db1.internal:5432", "db1.internal/orders", DATABASE]
    strategy = {"name": "default", "constraints": [{"contextName": "database", "operator": "IN", "values": names}]}
    texts = {
        "bench.write.permit": "0",
        "bench.database.read": "source",
        "bench.database.write": "source",
        "bench.stage": "source",
    }

    def toggle(name, text=None):
        variants = [{"name": text, "weight": 1000, "payload": {"type": "string", "value": text}}] if text else []
        return {"name": name, "type": "release", "enabled": True, "strategies": [strategy], "variants": variants}

    return {"version": 2, "features": [toggle(WRITES), toggle("bench.write.allowed"), *(toggle(*one) for one in texts.items())]}


def figures_of(kind, seen):
    def each(key, pace):
        return {who: [result[key] for result in results] for who, results in seen[kind, pace].items()}

    paced = f"{kind}, {RATE:,}/s"
    return [
        Figure(f"{kind}: answers a second", "1/s", each("per_s", None)),
        Figure(f"{kind}: half are answered within", "µs", each("p50_us", None)),
        Figure(f"{kind}: 99 of 100 are answered within", "µs", each("p99_us", None)),
        Figure(f"{kind}: CPU of the server per answer", "µs", each("cpu_us", None)),
        Figure(f"{paced}: half are answered within", "µs", each("p50_us", RATE)),
        Figure(f"{paced}: 99 of 100 are answered within", "µs", each("p99_us", RATE)),
        Figure(f"{kind}: an answer's body", "bytes", each("mean_bytes", None)),
    ]
