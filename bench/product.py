"""Drives the real binary with a plan file."""

import json
import os
import subprocess

from servers import tools

BINARY = os.environ.get("CUTOVER_BIN", "")


class Cutover:
    """One plan, in a folder of its own with its journal."""

    def __init__(self, folder, source, target, bouncer=None):
        os.makedirs(folder, exist_ok=True)
        self.plan = f"{folder}/cutover.toml"
        text = f'name = "bench"\nkind = "switch"\n\n[source]\nurl = "{source.url()}"\n\n[target]\nurl = "{target.url()}"\n'
        if bouncer:
            text += f'\n[[traffic]]\nkind = "pgbouncer"\nadmin_url = "{bouncer.url("pgbouncer", "admin")}"\n'
            text += f'database = "bench"\nconfig_file = "{bouncer.ini}"\n'
        with open(self.plan, "w", encoding="utf-8") as file:
            file.write(text)

    def call(self, *arguments, codes=(0,)):
        """Runs it, and returns what it answers as JSON."""
        environment = {**os.environ, "CUTOVER_PG_BIN": tools()}
        command = [BINARY, "--plan", self.plan, "--output", "json", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
        if done.returncode not in codes:
            raise RuntimeError(f"cutover {' '.join(arguments)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def ready(self):
        return self.call("run", "--until", "ready")

    def entries(self):
        return self.call("audit")["entries"]

    def facts(self, step):
        """What a step of the preparation found out, from the journal."""
        return next(entry["body"]["facts"] for entry in self.entries() if entry["body"].get("step") == step)
