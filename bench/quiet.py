"""Waits for a moment in which nobody else uses the machine, and tells how often there was none."""

import time

# A measurement should not begin while more than this share of all CPUs is busy with something else.
BUSY = 0.25
SAMPLE_S = 0.25


class Quiet:
    def __init__(self, patience_s):
        # How long all the waiting together may take; a machine that is never quiet is measured as it is.
        self.patience_s = patience_s
        self.begin()

    def begin(self):
        """A new bench."""
        self.shares = []

    def wait(self):
        """Called before each measurement, when nothing of ours runs."""
        began = time.monotonic()
        share = busy_share()
        while share > BUSY and time.monotonic() - began < self.patience_s:
            share = busy_share()
        self.patience_s -= max(0, time.monotonic() - began - 2 * SAMPLE_S)
        self.shares.append(share)

    def note(self):
        loud = sum(share > BUSY for share in self.shares)
        average = sum(self.shares) / len(self.shares)
        return (
            f"Others on the machine: right before its {len(self.shares)} measurements {average:.0%} of the CPUs were busy on average; "
            f"{loud} began while more than {BUSY:.0%} were."
        )


def busy_share():
    """The share of all CPUs that was not idle for a moment."""
    before = jiffies()
    time.sleep(SAMPLE_S)
    busy, total = (after - then for after, then in zip(jiffies(), before))
    return busy / total if total else 0.0


def jiffies():
    with open("/proc/stat", encoding="utf-8") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    # Idle, and waiting for a disk.
    return sum(fields) - fields[3] - fields[4], sum(fields)
