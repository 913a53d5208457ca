"""Figures, their medians and their ratios, as JSON and as tables."""

import statistics


class Figure:
    """One thing that was measured of the product and of its peers, in the same run."""

    def __init__(self, what, unit, values, *, peer=None, ours="cutover", total=False):
        # `values` maps who to the numbers of each run. `total` figures are counts that are added up over the runs.
        self.what, self.unit, self.values, self.ours, self.total = what, unit, values, ours, total
        self.peers = [who for who in values if who != ours] if peer is None else [peer]

    def middle(self, who):
        return sum(self.values[who]) if self.total else statistics.median(self.values[who])

    def ratio(self, who):
        """Ours divided by a peer's; none where there is nothing to divide by, or nothing to divide."""
        if self.total or who not in self.peers or self.ours not in self.values or not self.middle(who):
            return None
        ratio = self.middle(self.ours) / self.middle(who)
        # A cost that drowned in noise can be below 0, and is in no ratio to anything.
        return ratio if ratio > 0 else None

    def rows(self):
        for who, numbers in self.values.items():
            yield {
                "figure": self.what,
                "unit": self.unit,
                "who": who,
                "kind": "sum" if self.total else "median",
                "value": self.middle(who),
                "min": min(numbers),
                "max": max(numbers),
                "n": len(numbers),
                "ours_to_this": self.ratio(who),
                "values": numbers,
            }


class Bench:
    """The figures of one bench, and what a reader should know about them."""

    def __init__(self, name, title, figures, notes=()):
        self.name, self.title, self.figures, self.notes = name, title, figures, list(notes)

    def json(self):
        return {"name": self.name, "title": self.title, "notes": self.notes, "figures": self.rows()}

    def rows(self):
        return [row for figure in self.figures for row in figure.rows()]

    def text(self):
        """For a terminal."""
        rows = self.rows()
        wide = max(len(f"{row['figure']}, {row['unit']}") for row in rows)
        names = max(len(row["who"]) for row in rows)
        lines = [f"\n{self.name}: {self.title}"]
        for row in rows:
            ratio = "" if row["ours_to_this"] is None else f"  ours ÷ this {quotient(row['ours_to_this'])}"
            what = f"{row['figure']}, {row['unit']}"
            middle = middle_of(row)
            lines.append(f"  {what:<{wide}}  {row['who']:<{names}}  {middle:>14}  ({short(row['min'])} to {short(row['max'])}, n={row['n']}){ratio}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def markdown(bench):
    """The table of a bench that was written as JSON, maybe by an earlier run."""
    kind = "a quick run" if bench["quick"] else "a full run"
    lines = [f"## {bench['name']}: {bench['title']}", "", f"{bench['date']}, commit {bench['commit']}, {kind} of {bench['seconds']} s.", ""]
    lines += ["| figure | who | median | min | max | n | ours ÷ this |", "|---|---|--:|--:|--:|--:|--:|"]
    before = None
    for row in bench["figures"]:
        what = f"{row['figure']}, {row['unit']}"
        ratio = "" if row["ours_to_this"] is None else quotient(row["ours_to_this"])
        cells = ["" if what == before else what, row["who"], middle_of(row), short(row["min"]), short(row["max"]), str(row["n"]), ratio]
        lines.append(f"| {' | '.join(cells)} |")
        before = what
    return "\n".join(lines + [""] + [f"- {note}" for note in bench["notes"]]) + "\n"


def middle_of(row):
    return f"{short(row['value'])}{' in all' if row['kind'] == 'sum' else ''}"


def short(number):
    """Three digits that count, with thousands apart."""
    if isinstance(number, int) or number == int(number) or abs(number) >= 100:
        return f"{round(number):,}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def quotient(ratio):
    """Two digits behind the point, and of a small one the first two that count."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
