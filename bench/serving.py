"""Servers of flags, and the rig that asks them."""

import json
import os
import re
import signal
import subprocess

from product import BINARY
from servers import eventually, free_port, run

RIG = os.environ.get("CUTOVER_RIG", "")
# Empty where it was not fetched.
UNLEASH_EDGE = os.environ.get("CUTOVER_UNLEASH_EDGE", "")
# No measurement of the rig takes longer. Unit: seconds.
LIMIT = 600


def rig(*arguments):
    """What the rig answers."""
    return json.loads(run([RIG, *map(str, arguments)], timeout=LIMIT))


class Served:
    """A server that runs beside us, and what the kernel says of it."""

    def __init__(self, folder, command, address=None):
        os.makedirs(folder, exist_ok=True)
        self.log, self.out = f"{folder}/log", f"{folder}/out"
        # What bounds its connections is how many files it may open.
        with open(self.log, "w", encoding="utf-8") as log, open(self.out, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        with open(f"{folder}/served.pid", "w", encoding="utf-8") as file:
            file.write(f"{self.process.pid}\n")
        self.address = address or eventually("the server listens", 30, self.said_address)

    def said_address(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}: {self.complaints()}")
        with open(self.out, encoding="utf-8") as out:
            said = out.read()
        return json.loads(said)["address"].removeprefix("http://") if said.endswith("\n") else None

    def complaints(self):
        with open(self.log, encoding="utf-8") as log:
            return log.read()[-4000:]

    def cpu_s(self):
        """Seconds of CPU that it has used."""
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            # The second field, the program's name, may hold blanks.
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kb(self):
        """What of its memory is resident."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1])

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def serve(cutover, folder):
    """`cutover serve` of a plan."""
    return Served(folder, [BINARY, "--plan", cutover.plan, "--output", "json", "serve", "--listen", "127.0.0.1:0"])


def agent(server, folder):
    """`cutover agent` of that server. The file of tokens is none, and names our folder for whoever takes processes down."""
    command = [BINARY, "--output", "json", "agent", "--server", f"http://{server.address}", "--listen", "127.0.0.1:0"]
    return Served(folder, [*command, "--tokens", f"{folder}/tokens.json"])


def unleash_edge(toggles, token, folder):
    """Unleash Edge, which answers from a file of toggles and asks nobody."""
    os.makedirs(folder, exist_ok=True)
    file, port = f"{folder}/toggles.json", free_port()
    with open(file, "w", encoding="utf-8") as out:
        json.dump(toggles, out)
    command = [UNLEASH_EDGE, "--interface", "127.0.0.1", "--port", str(port), "offline", "--bootstrap-file", file]
    # It does not start without one of a backend, which nobody uses here.
    command += ["--client-tokens", "*:development.backend", "--frontend-tokens", token]
    return Served(folder, command, f"127.0.0.1:{port}")


def unleash_edge_version():
    """As cargo noted it: the program itself does not say."""
    with open(f"{os.path.dirname(UNLEASH_EDGE)}/../.crates.toml", encoding="utf-8") as file:
        return re.search(r'"unleash-edge ([\d.]+)', file.read()).group(1)
