"""What one check costs in the application's own process: the SDK's, and those of flag libraries that evaluate there."""

from figures import Bench, Figure
from serving import rig


def bench(stage, say):
    stage.quiet.wait()
    folder = stage.work
    seen = rig("permit", "--rounds", 5 if stage.quick else 25, "--folder", folder)
    figures = [Figure(asked, "ns", {who: [round(one, 2) for one in rounds] for who, rounds in results.items()}) for asked, results in seen.items()]
    for figure in figures:
        say(f"permit {figure.what}: " + ", ".join(f"{who} {figure.middle(who):.1f} ns" for who in figure.values))
    notes = list(NOTES)
    if not any(figure.peers for figure in figures):
        notes.append("The flag libraries are not built in here (bench/run.sh --peers does it): left out.")
    return Bench("permit", "one check in the application's own process", figures, notes)


NOTES = [
    "All in one process, by turns in rounds of about 10 ms; a figure is the mean of a round's calls, and where two threads ask, that of the slower one.",
    "The keys are 4,096, in turn. What is asked about (a context of flagd's or Unleash's) is made beforehand; an application makes one for each request.",
    "flagd's provider (open-feature-flagd 0.3.0, by file, without its cache, which keeps nothing that a context decides) evaluates the rule that `cutover serve` hands to such "
    "providers; Unleash's client (unleash-api-client 0.17.1) a toggle with a constraint on the same names, and a gradual roll-out by key.",
    "cutover's check also knows by itself that its lease has run out; the rule of flagd's has such an end, which has to be told anew, and the toggle has none.",
]
