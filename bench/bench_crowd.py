"""From freeze to the last acknowledgement, with a crowd of clients that each keep a lease, and what each costs the server."""

import json
import resource
import subprocess
import time

from figures import Bench, Figure
from serving import RIG, serve

# Clients, and their lease. Together they ask for clients / (lease / 3) leases a second.
SIZES, QUICK = ((1_000, "2s"), (10_000, "10s")), ((200, "2s"), (1_000, "2s"))
# Through which they say they write: it leads to the side in charge, so no opening waits for them to go.
POOL = "pool.internal:6432"
# So many files are open besides the clients' connections; and more than this are never wanted.
OTHER_FILES, MOST_FILES = 200, 65_536


def bench(stage, say):
    freezes, idle_s = (4, 2) if stage.quick else (20, 10)
    figures, notes = [], list(NOTES)
    most = raise_files()
    for clients, lease in QUICK if stage.quick else SIZES:
        if clients + OTHER_FILES > most:
            notes.append(f"{clients:,} clients are left out: a process may open {most:,} files here (ulimit -H -n).")
            continue
        figures += figures_of(clients, play(stage, say, clients, lease, freezes, idle_s))
        notes.append(f"{clients:,} clients: a lease of {lease}, asked for anew after a third of it.")
    if not figures:
        raise RuntimeError(f"a process may open {most} files here, which is too few for any crowd: raise ulimit -H -n")
    return Bench("crowd", "from freeze to the last acknowledgement, and what a client costs the server", figures, notes)


NOTES = [
    "A freeze is that of a real switch: `cutover run` and `cutover rollback` by turns, of a database of pgbench's at scale 1, driven beside the server.",
    "The clients are simulated by a few processes on the same machine, with a connection each, and speak the protocol of the SDK: they wait for news, and acknowledge at once.",
    "Journalled is the time from the beginning of the pause until the driver knew that every client had acknowledged. A client has heard when it has read the answer; "
    "that counts from the journal entry that begins the pause, whose time is in whole milliseconds.",
    "Memory is what is resident more than before the first client came, divided by the clients.",
]


def raise_files():
    """Each client is an open file of the server's: has whatever we start open as many as it may, and returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def play(stage, say, clients, lease, freezes, idle_s):
    """Everything that was seen with so many clients."""
    with stage.clusters(1) as (source, target):
        more = f'\n[pause]\nbudget = "30s"\n\n[[traffic]]\nkind = "flags"\nlease = "{lease}"\nthrough = ["{POOL}"]\n'
        cutover = stage.cutover(source, target, more=more)
        # Preflight wants a server where a plan has flags.
        with serve(cutover, stage.folder("serve")) as server:
            cutover.ready()
            stage.quiet.wait()
            alone_kb = server.rss_kb()
            crowd = Crowd(server, clients)
            try:
                before = server.cpu_s()
                time.sleep(idle_s)
                idle = (server.cpu_s() - before) / idle_s * 100
                connected_kb = server.rss_kb()
                for at in range(freezes):
                    cutover.call("run") if at % 2 == 0 else cutover.call("rollback", "--reason", "the way back, measured")
                    say(f"crowd {clients}: freeze {at + 1} of {freezes}")
                after_kb = server.rss_kb()
                seen = crowd.finish()
            finally:
                crowd.close()
        per_client = [(kb - alone_kb) / clients for kb in (connected_kb, after_kb)]
        return {"freezes": frozen(cutover.entries(), seen, clients), "idle": idle, "per_client": per_client, "seen": seen}


def frozen(entries, seen, clients):
    """Of each freeze: when the last had acknowledged, and when each client had heard, in milliseconds."""
    found, begun = [], None
    for entry in entries:
        if entry["kind"] == "fencing_started":
            begun = entry
        elif entry["kind"] == "fenced":
            acknowledged = entry["body"]["acknowledged"]
            if acknowledged["clients"] != clients:
                raise RuntimeError(f"{acknowledged['clients']} clients were waited for, and {clients} are there")
            heard = sorted(at - begun["at_ms"] for one in seen for at in one["held"].get(str(begun["epoch"]), []))
            if len(heard) != clients:
                raise RuntimeError(f"{len(heard)} of {clients} clients heard of the freeze under epoch {begun['epoch']}")
            found.append({"acknowledged": acknowledged["after_ms"], "half": percentile(heard, 50), "nearly_all": percentile(heard, 99)})
    return found


def percentile(ordered, percent):
    """The nearest rank."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class Crowd:
    """Processes of the rig, each with its part of the clients."""

    def __init__(self, server, clients):
        processes = 4 if clients >= 4_000 else 2
        self.processes = []
        try:
            for at in range(processes):
                part = clients * (at + 1) // processes - clients * at // processes
                command = [RIG, "crowd", "--server", server.address, "--clients", str(part), "--name", f"c{at}", "--database", POOL]
                command += ["--seconds", "3600"]
                self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for process in self.processes:
                if "ready" not in process.stdout.readline():
                    raise RuntimeError(f"not every client got a lease: {server.complaints()}")
        except BaseException:
            self.close()
            raise

    def finish(self):
        """Lets go of them, and returns what each process has seen."""
        return [json.loads(process.communicate(timeout=60)[0]) for process in self.processes]

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stdin.close()


def figures_of(clients, played):
    def ours(what, unit, numbers, **more):
        return Figure(f"{clients:,} clients: {what}", unit, {"cutover": numbers}, **more)

    freezes = played["freezes"]
    acknowledged = [one["acknowledged"] for one in freezes]
    connected, after = played["per_client"]
    return [
        ours("freeze until the last has acknowledged, journalled", "ms", acknowledged),
        ours("the same, 99 of 100 freezes", "ms", [percentile(sorted(acknowledged), 99)]),
        ours("freeze until half have heard", "ms", [one["half"] for one in freezes]),
        ours("freeze until 99 of 100 have heard", "ms", [one["nearly_all"] for one in freezes]),
        ours("memory of the server per client, connected", "kB", [connected]),
        ours("memory of the server per client, after the freezes", "kB", [after]),
        ours("CPU of the server while nothing happens", "% of a core", [played["idle"]]),
        ours("requests that failed", "count", [one["failures"] for one in played["seen"]], total=True),
        ours("leases that ran out", "count", [one["lapses"] for one in played["seen"]], total=True),
    ]
