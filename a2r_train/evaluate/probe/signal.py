"""Which bundles GRPO would learn from, in groups of which size: a group has signal if it is neither all right
nor all wrong.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from a2r_train.data.probe import Floats, Pattern
from a2r_train.evaluate.probe.facts import Facts
from a2r_train.evaluate.probe.selector import Selector

GROUP_SIZES = (4, 8, 16, 32)
ENOUGH = 0.9  # of the share with signal in the largest groups: beyond it, more completions bring little
LIKENESS = 0.5  # of two answers to one bundle, if no model was asked
EASY, BAND = 0.5, 0.375  # the defaults of `a2r bundle`: easy_percent, max_share_correct
Found = dict[str, Any]


def mixtures(facts: Facts) -> dict[str, Floats]:
    """By mixture of `a2r bundle`, how much of each pattern of each problem is kept, [P, U], as shares of all
    bundles.
    """
    shares = facts.shares / len(facts.shares)
    vote = facts.each(lambda p: p.vote)
    hard = shares * (1 - vote)
    easy = shares * vote
    percent = min(1.0, EASY * hard.sum() / easy.sum()) if easy.sum() else 0.0
    one = facts.oracle[facts.kept, 0][:, None]
    balanced = facts.each(lambda p: float(1 <= p.n_correct <= facts.k / 2))
    return {
        "all": shares,
        "hard_plus_easy": hard + percent * easy,
        "accuracy_band": shares * ((one > 0) & (one < BAND)),
        "balanced": shares * balanced,
    }


def signal(facts: Facts, base: Selector, likeness: float) -> Found:
    """By mixture, the share of bundles kept, and for each group size the share of groups with signal.

    The probability of a right answer is beta-distributed over the bundles of one pattern; `likeness` is the
    intraclass correlation. `mixture` has the most signal, and `group_size` is the smallest with ENOUGH of it.
    """
    likeness = LIKENESS if math.isnan(likeness) else likeness
    with_signal = {
        size: facts.each(lambda p, size=size: chance(base, p, likeness, size))  # type: ignore[misc]
        for size in GROUP_SIZES
    }
    rows: list[Found] = []
    for name, kept in mixtures(facts).items():
        total = float(kept.sum())
        found = {
            str(size): float(kept.sum(axis=0) @ of) / total if total else None
            for size, of in with_signal.items()
        }
        rows.append({"mixture": name, "kept": total, "signal": found})
    best = max(rows, key=lambda row: row["signal"][str(GROUP_SIZES[-1])] or 0.0)
    most = best["signal"][str(GROUP_SIZES[-1])] or 0.0
    size = next(s for s in GROUP_SIZES if (best["signal"][str(s)] or 0.0) >= ENOUGH * most)
    return {"rows": rows, "mixture": best["mixture"], "group_size": size, "likeness": likeness}


def chance(base: Selector, pattern: Pattern, likeness: float, size: int) -> float:
    """The probability that a group of answers to a bundle of this pattern has signal."""
    p = min(max(base.right(pattern), 0.0), 1.0)
    if p in (0.0, 1.0) or likeness >= 1:
        return 0.0
    if likeness <= 0:
        return 1 - p**size - (1 - p) ** size
    total = 1 / likeness - 1
    drawn = np.arange(size)
    all_right = np.prod((p * total + drawn) / (total + drawn))
    all_wrong = np.prod(((1 - p) * total + drawn) / (total + drawn))
    return float(1 - all_right - all_wrong)
