"""Where a bench plays: fresh copies of filled servers."""

import contextlib
import os

from load import empty, fill
from product import Cutover
from quiet import Quiet
from servers import Bouncer, Cluster, installs, together


class Stage:
    """Keeps a filled source and an empty target as templates, and hands out copies."""

    def __init__(self, work, quick):
        self.work, self.quick = work, quick
        # Enough data that a rate means something; a quick run has to do with less.
        self.scale = 10 if quick else 20
        self.quiet = Quiet(0 if quick else 60)
        self.made = 0
        found = installs()
        # The oldest with its own client tools to the newest but one: a usual upgrade.
        self.source_major, self.target_major = (15 if 15 in found else min(found)), (17 if 17 in found else max(found))
        self.bins = {"source": found[self.source_major], "target": found[self.target_major]}
        self.templates = {}

    def folder(self, name):
        """A new name below the working folder."""
        self.made += 1
        return f"{self.work}/{self.made:03}-{name}"

    @contextlib.contextmanager
    def clusters(self, size, fill=fill):
        """A source that was filled, with pgbench's tables unless told otherwise, and a target with an empty database, for one run."""
        made = []
        try:
            source, target = self.template("source", fill, size), self.template("target", empty, 0)
            names = [os.path.basename(self.folder(side)) for side in ("source", "target")]
            made += together(
                lambda: Cluster(self.work, names[0], self.bins["source"], source), lambda: Cluster(self.work, names[1], self.bins["target"], target)
            )
            # What the copies left to be written would be written while we measure.
            os.sync()
            yield made
        finally:
            for cluster in made:
                cluster.destroy()

    @contextlib.contextmanager
    def bouncer(self, cluster):
        bouncer = Bouncer(self.work, os.path.basename(self.folder("pgbouncer")), cluster)
        try:
            yield bouncer
        finally:
            bouncer.destroy()

    def cutover(self, source, target, bouncer=None, more=""):
        """`more` is added to the plan."""
        return Cutover(self.folder("plan"), source, target, bouncer, more)

    def template(self, side, fill, size):
        """The data folder of a stopped server to copy."""
        name = f"template-{side}-{fill.__name__}-{size}"
        if name not in self.templates:
            cluster = Cluster(self.work, name, self.bins[side])
            fill(cluster, size)
            cluster.stop()
            self.templates[name] = cluster.data
        return self.templates[name]
