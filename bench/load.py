"""pgbench as the application: starts it, and reads from its logs what every client saw."""

import glob
import os
import re
import subprocess

from servers import run, tools


def empty(cluster, _size):
    """A database without a table."""
    psql(cluster.url("postgres"), "CREATE DATABASE bench")


def fill(cluster, scale):
    """pgbench's tables, 15 MB for each step of scale, nearly all in one of them. The history gets a key from a sequence,
    as a real application's table has one."""
    empty(cluster, 0)
    run([f"{tools()}/pgbench", "-i", "-I", "dtGvp", "-q", "-s", str(scale), cluster.url()])
    psql(cluster.url(), "ALTER TABLE pgbench_history ADD id bigserial PRIMARY KEY", "CHECKPOINT")


def fill_many(cluster, tables):
    """Small tables of a hundred rows, each with a key and an index."""
    empty(cluster, 0)
    table = "t_%s (id int PRIMARY KEY, at timestamptz NOT NULL, name text NOT NULL, amount numeric(12,2))"
    row = "i, now(), ''name '' || i, i / 7.0"
    # In steps: one transaction has to hold a lock for each table that it makes.
    steps = [
        f"DO $$ BEGIN FOR n IN {first}..{min(first + 499, tables)} LOOP EXECUTE format('CREATE TABLE {table}', n); "
        f"EXECUTE format('INSERT INTO t_%s SELECT {row} FROM generate_series(1, 100) i', n); EXECUTE format('CREATE INDEX ON t_%s (name)', n); END LOOP; END $$"
        for first in range(1, tables + 1, 500)
    ]
    psql(cluster.url(), *steps, "VACUUM ANALYZE", "CHECKPOINT")


def psql(url, *statements):
    """Runs statements, each in a transaction of its own."""
    run([f"{tools()}/psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", url, *(part for statement in statements for part in ("-c", statement))])


class Load:
    """A pgbench that runs beside us. Every transaction's end is in its logs."""

    def __init__(self, folder, url, *, clients, seconds, rate=None, mode="simple", scripts=()):
        os.makedirs(folder)
        self.prefix = f"{folder}/log"
        self.clients = clients
        # pgbench prepares a statement while its whole thread waits. Behind a pool smaller than the clients, clients that
        # share a thread would lock each other out for good.
        threads = clients if mode == "prepared" else 2
        command = [f"{tools()}/pgbench", "-n", "-M", mode, "-c", str(clients), "-j", str(threads), "-T", str(seconds)]
        command += ["-l", "--log-prefix", self.prefix]
        command += ["-R", str(rate)] if rate else []
        command += list(scripts) + [url]
        self.err = f"{folder}/err"
        with open(self.err, "w", encoding="utf-8") as err:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        with open(f"{folder}/pgbench.pid", "w", encoding="utf-8") as file:
            file.write(f"{self.process.pid}\n")

    def wait(self):
        """Lets it run to its end; clients that gave up are counted, not raised."""
        self.process.wait(120)
        said = self.said()
        if self.process.returncode not in (0, 2):
            raise RuntimeError(f"pgbench ended with {self.process.returncode}: {said[-2000:]}")
        return Seen(self.prefix, said)

    def said(self):
        with open(self.err, encoding="utf-8") as err:
            return err.read()


class Seen:
    """What the clients saw: when each transaction was acknowledged, how long it took, and what failed."""

    def __init__(self, prefix, said):
        self.acknowledged, self.latencies_ms = [], []
        failed = 0
        for path in glob.glob(f"{prefix}.*"):
            with open(path, encoding="utf-8") as log:
                for line in log:
                    # The last line of one that was ended may be half a line.
                    if not line.endswith("\n"):
                        continue
                    _client, _number, latency, _script, seconds, micros = line.split()[:6]
                    if latency in ("failed", "skipped"):
                        failed += 1
                        continue
                    self.acknowledged.append(int(seconds) + int(micros) / 1e6)
                    self.latencies_ms.append(int(latency) / 1000)
        self.acknowledged.sort()
        self.aborted = len(re.findall(r"client \d+ (?:script \d+ )?aborted", said))
        # A client that was aborted stops; its last transaction is the one that failed.
        self.failed = failed + self.aborted
        self.errors = re.findall(r"ERROR:  .*|FATAL:  .*|server closed.*", said)[:3]

    def longest_gap_ms(self, begin, end):
        """The longest time within these two instants in which no client at all got an acknowledgement."""
        inside = [begin] + [at for at in self.acknowledged if begin < at < end] + [end]
        return max(later - earlier for earlier, later in zip(inside, inside[1:])) * 1000

    def latency_ms(self, percent):
        """What so many of a hundred transactions did not exceed. With a rate, pgbench counts from when it was due."""
        return sorted(self.latencies_ms)[min(len(self.latencies_ms) - 1, len(self.latencies_ms) * percent // 100)]

    def tps(self):
        span = self.acknowledged[-1] - self.acknowledged[0]
        return len(self.acknowledged) / span
