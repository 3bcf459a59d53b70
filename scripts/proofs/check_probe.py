"""Compare the predictions of `a2r probe` with every stored evaluation that has a trained synthesizer.

    python scripts/proofs/check_probe.py     # the table and the errors of docs/probe.md, and docs/probe.png

Reads docs/measured/probe.jsonl, which collect_probe.py writes. Each evaluation is predicted only from those
of other explorers. MAWPS is never used to predict, because nothing was trained on it.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from a2r_train.data.probe import Pattern
from a2r_train.evaluate.probe.predict import ERROR
from a2r_train.evaluate.probe.selector import Selector, fit
from a2r_train.evaluate.probe.words import word_of
from a2r_train.evaluate.report.plots import COLOURS, save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, PLOT = Path("docs/measured/probe.jsonl"), Path("docs/probe.png")
LESSONS = ("0.5B", "1.5B", "trained 0.5B", "trained 1.5B", "tiny")
Json = dict[str, Any]


def as_patterns(one: Json) -> list[Pattern]:
    return [Pattern(tuple((size, good) for size, good in c["groups"]), c["unread"]) for c in one["cells"]]


def fitted(one: Json, who: str) -> Selector:
    """The selector that fits a row's untrained or trained synthesizer; the default if there is no data."""
    known = [
        (p, c) for p, c in zip(as_patterns(one), one["cells"], strict=True) if c[who] is not None and c["n"]
    ]
    if not known:
        return Selector()
    return fit([p for p, _ in known], [c[who] for _, c in known], [c["n"] for _, c in known])


def learnt(one: Json) -> tuple[float, float]:
    """The trained weight and the log of the lift of one row; cached in it, because every other row needs
    them.
    """
    if "learnt" not in one:
        base, trained = fitted(one, "base"), fitted(one, "trained")
        one["learnt"] = trained.weight, log_odds(trained) - log_odds(base)
    weight, lift = one["learnt"]
    return weight, lift


def lessons(rows: Iterable[Json]) -> tuple[float, float]:
    """Weight and lift of trained synthesizers: medians over explorers of the medians of their evaluations."""
    weights, lifts = defaultdict(list), defaultdict(list)
    for one in rows:
        weight, lift = learnt(one)
        weights[one["explorer"]].append(weight)
        lifts[one["explorer"]].append(lift)
    return median(map(median, weights.values())), math.exp(median(map(median, lifts.values())))


def log_odds(selector: Selector) -> float:
    return math.log(selector.accuracy / (1 - selector.accuracy))


def predicted(one: Json, weight: float, lift: float) -> float:
    """The trained synthesizer's accuracy that the probe predicts with this weight and lift."""
    base = fitted(one, "base")
    odds = lift * base.accuracy / (1 - base.accuracy)
    trained = replace(base, weight=max(base.weight, weight), accuracy=odds / (1 + odds))
    shares = np.array([c["share"] for c in one["cells"]])
    return float(shares @ trained.chances(as_patterns(one)) / shares.sum())


@dataclass(frozen=True)
class Checked:
    """One evaluation, and what the probe predicts from other explorers only."""

    row: Json
    trained: float  # predicted accuracy

    @property
    def base(self) -> float | None:
        """The untrained accuracy as measured: on these bundles, or else on those of the cells."""
        if self.row["base"] is not None:
            return float(self.row["base"])
        known = [(c["base"], c["n"]) for c in self.row["cells"] if c["base"] is not None]
        return sum(b * n for b, n in known) / sum(n for _, n in known) if known else None

    @property
    def equal(self) -> float | None:
        """The vote at equal tokens: as measured, or else with as many rollouts as the probe counts."""
        return self.row["equal"] if self.row["equal"] is not None else self.row.get("equal_counted")

    def gain(self, rival: str, predicted: bool) -> float | None:
        """The trained synthesizer's gain over `base`, `vote` or `equal`, predicted or measured."""
        of = {"base": self.base, "vote": self.row["vote"], "equal": self.equal}[rival]
        return None if of is None else (self.trained if predicted else self.row["trained"]) - of

    def said(self, error: float) -> str:
        """The probe's advice, by the rule of a2r_train/evaluate/probe/words.py."""
        if self.row["alone"] is not None and self.row["alone"] > self.row["oracle"]:
            return "alone"
        gain = min(g for rival in ("vote", "equal") if (g := self.gain(rival, True)) is not None)
        return word_of(gain, error)

    def right(self, error: float) -> str:
        """Whether the advice was right: to train if the trained synthesizer beats both votes, and not to
        train otherwise.
        """
        gain = min(g for rival in ("vote", "equal") if (g := self.gain(rival, False)) is not None)
        pays = gain > 2 * self.row["se"].get("vote", 0.02)
        if self.said(error) == "alone":
            return "yes" if self.row["alone"] > self.row["trained"] else "no"
        return "yes" if (self.said(error) == "train") == pays else "no"


def without_base(one: Json) -> list[Json]:
    """The cells without the untrained model's answers."""
    return [{**cell, "base": None} for cell in one["cells"]]


def check(rows: Sequence[Json]) -> list[Checked]:
    found = []
    for one in rows:
        others = [o for o in rows if o["explorer"] != one["explorer"] and o["explorer"] in LESSONS]
        found.append(Checked(one, predicted(one, *lessons(others))))
    return found


def root_mean_square(checked: Sequence[Checked]) -> float:
    """Root mean square error of accuracy, with equal weight for each explorer."""
    by_explorer: defaultdict[str, list[float]] = defaultdict(list)
    for one in checked:
        by_explorer[one.row["explorer"]].append((one.trained - one.row["trained"]) ** 2)
    return math.sqrt(float(np.mean([np.mean(errors) for errors in by_explorer.values()])))


def naive(rows: Sequence[Json]) -> float:
    """The same error for a naive prediction: the vote plus the other explorers' mean gain over it."""
    squares: defaultdict[str, list[float]] = defaultdict(list)
    for one in rows:
        others = [o for o in rows if o["explorer"] != one["explorer"] and o["explorer"] in LESSONS]
        gains: defaultdict[str, list[float]] = defaultdict(list)
        for o in others:
            gains[o["explorer"]].append(o["trained"] - o["vote"])
        mean = float(np.mean([np.mean(g) for g in gains.values()]))
        squares[one["explorer"]].append((one["vote"] + mean - one["trained"]) ** 2)
    return math.sqrt(float(np.mean([np.mean(q) for q in squares.values()])))


def table(checked: Sequence[Checked], error: float) -> list[str]:
    head = [
        "evaluation",
        "explorer",
        "trained: predicted",
        "measured",
        "over the untrained",
        "measured",
        "over the vote",
        "measured",
        "over equal tokens",
        "measured",
        "says",
        "right",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in checked:
        gains = [points(one.gain(r, p)) for r in ("base", "vote", "equal") for p in (True, False)]
        accuracy = [f"{100 * one.trained:.1f}", f"{100 * one.row['trained']:.1f}"]
        cells = [one.row["name"], one.row["explorer"], *accuracy, *gains, one.said(error), one.right(error)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def report(rows: Sequence[Json]) -> list[str]:
    """The table and the errors, as shown in docs/probe.md."""
    checked = check(rows)
    inside = [one for one in checked if one.row["explorer"] in LESSONS]
    error, weight_lift = root_mean_square(inside), lessons([o for o in rows if o["explorer"] in LESSONS])
    lines = table(checked, ERROR)
    lines += ["", f"lessons of all: weight {weight_lift[0]:g}, lift {weight_lift[1]:.2f}"]
    lines += [f"root mean square error, each explorer the same: {100 * error:.1f} points"]
    for name in dict.fromkeys(one.row["explorer"] for one in checked):
        here = [100 * (one.trained - one.row["trained"]) for one in checked if one.row["explorer"] == name]
        span = f"{min(here):+.1f} to {max(here):+.1f}"
        lines.append(f"  {name}: {len(here)} evaluations, mean {np.mean(here):+.1f}, {span}")
    blind = [
        Checked(
            one.row,
            predicted(
                {**one.row, "cells": without_base(one.row)},
                *lessons(
                    [o for o in rows if o["explorer"] != one.row["explorer"] and o["explorer"] in LESSONS]
                ),
            ),
        )
        for one in inside
    ]
    lines += [
        f"from rollouts alone, without the untrained answers: {100 * root_mean_square(blind):.1f} points"
    ]
    lines += [f"the vote plus the others' mean gain: {100 * naive([o.row for o in inside]):.1f} points"]
    ratios = [
        o["predicted_se"][r] / o["se"][r]
        for o in rows
        for r in ("vote", "base")
        if r in o["se"] and r in o["predicted_se"]
    ]
    lines += [
        f"expected over measured standard error of {len(ratios)} differences: {median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    ]
    return lines


def draw(checked: Sequence[Checked], path: Path) -> None:
    """Plot predicted against measured gains, over the untrained synthesizer and over the vote."""

    def panels(figure: Figure) -> None:
        names = list(dict.fromkeys(one.row["explorer"] for one in checked))
        for at, (rival, title) in enumerate((("base", "over the untrained"), ("vote", "over the vote")), 1):
            axes = figure.add_subplot(1, 2, at)
            for color, name in zip(COLOURS, names, strict=False):
                pairs = [
                    (one.gain(rival, True), one.gain(rival, False))
                    for one in checked
                    if one.row["explorer"] == name
                ]
                known = [(100 * p, 100 * m) for p, m in pairs if p is not None and m is not None]
                axes.plot(
                    [p for p, _ in known], [m for _, m in known], "o", color=color, label=name, alpha=0.8
                )
            axes.axline((0, 0), slope=1, color="#888888", linewidth=0.8)
            axes.set(xlabel="predicted gain, points", ylabel="measured gain, points", title=title)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)

    save_png(path, (9.0, 4.6), panels)


def main() -> None:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    sys.stdout.write("\n".join(report(rows)) + "\n")
    draw(check(rows), PLOT)


if __name__ == "__main__":
    main()
