"""Drives the real binary with a plan file."""

import json
import os
import subprocess
import tempfile

from servers import run, tools

BINARY = os.environ.get("CUTOVER_BIN", "")


def call(*arguments):
    """Runs what needs no plan."""
    return run([BINARY, *arguments])


class Cutover:
    """One plan, in a folder of its own with its journal."""

    def __init__(self, folder, source, target, bouncer=None, more=""):
        os.makedirs(folder, exist_ok=True)
        self.plan = f"{folder}/cutover.toml"
        text = f'name = "bench"\nkind = "switch"\n\n[source]\nurl = "{source.url()}"\n\n[target]\nurl = "{target.url()}"\n'
        if bouncer:
            text += f'\n[[traffic]]\nkind = "pgbouncer"\nadmin_url = "{bouncer.url("pgbouncer", "admin")}"\n'
            text += f'database = "bench"\nconfig_file = "{bouncer.ini}"\n'
        with open(self.plan, "w", encoding="utf-8") as file:
            file.write(text + more)
        # Of the last call, with the programs that it started. Seconds, and the largest resident set of one process in MB.
        self.cpu_s = self.peak_mb = 0

    def call(self, *arguments, codes=(0,)):
        """Runs it, and returns what it answers as JSON."""
        environment = {**os.environ, "CUTOVER_PG_BIN": tools()}
        command = [BINARY, "--plan", self.plan, "--output", "json", *arguments]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_s, self.peak_mb = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
            said, complained = (file.seek(0) or file.read() for file in (out, err))
        if process.returncode not in codes:
            raise RuntimeError(f"cutover {' '.join(arguments)} ended with {process.returncode}\n{said[-2000:]}\n{complained[-4000:]}")
        return json.loads(said) if said.strip() else None

    def ready(self):
        return self.call("run", "--until", "ready")

    def entries(self):
        return self.call("audit")["entries"]

    def facts(self, step):
        """What a step of the preparation found out, from the journal."""
        return next(entry["body"]["facts"] for entry in self.entries() if entry["body"].get("step") == step)
