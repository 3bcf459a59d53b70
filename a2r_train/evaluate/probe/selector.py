"""A synthesizer as a selector of references, and what training makes of one.

It takes the answer of a group of equal answers with a chance in proportion to size ** weight, times the odds
accuracy / (1 - accuracy) where the group is right. So `accuracy` is that of choosing between one right and
one wrong reference, weight 1 and accuracy 0.5 name a reference at random (pass@1), and a large weight is the
vote. docs/probe.md says how well that fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from a2r_train.data.probe import Floats, Pattern

# Of the untrained models of docs/probe.md, and what training made of them there: the medians.
UNTRAINED_WEIGHT, UNTRAINED_ACCURACY, NEW = 1.5, 0.5, 0.005
TRAINED_WEIGHT, LIFT = 2.5, 2.5
# What `fit` tries.
WEIGHTS = np.arange(0.5, 6.1, 0.5)
LOG_ODDS = np.arange(-2.0, 6.01, 0.1)


@dataclass(frozen=True)
class Selector:
    """`accuracy` of choosing between a right and a wrong reference, `weight` of agreement, and how often it is
    right where no reference is, `new`.
    """

    weight: float = UNTRAINED_WEIGHT
    accuracy: float = UNTRAINED_ACCURACY
    new: float = NEW

    def right(self, pattern: Pattern) -> float:
        """The chance of a right answer to a bundle of that pattern."""
        if not pattern.n_correct:
            return self.new
        odds = self.accuracy / (1 - self.accuracy)
        drawn = [(size**self.weight * (odds if good else 1.0), good) for size, good in pattern.groups]
        return sum(w for w, good in drawn if good) / sum(w for w, _ in drawn)

    def chances(self, patterns: Sequence[Pattern]) -> Floats:
        """Those of many patterns, [U]."""
        return np.array([self.right(pattern) for pattern in patterns])

    def trained(self) -> Selector:
        """What training made of such a selector in the runs of docs/probe.md: its odds times LIFT."""
        odds = LIFT * self.accuracy / (1 - self.accuracy)
        return replace(self, weight=max(self.weight, TRAINED_WEIGHT), accuracy=odds / (1 + odds))


def fit(patterns: Sequence[Pattern], right: Sequence[float], counts: Sequence[float]) -> Selector:
    """The likeliest selector, of those that are tried: `right` are shares of right answers to `counts` bundles
    of each pattern.

    Patterns without a right reference give `new` alone, those without a wrong one nothing.
    """
    none = [(r, n) for p, r, n in zip(patterns, right, counts, strict=True) if not p.n_correct]
    some = [x for x in zip(patterns, right, counts, strict=True) if x[0].n_correct and len(x[0].groups) > 1]
    new = sum(r * n for r, n in none) / sum(n for _, n in none) if none else NEW
    if not some:
        return Selector(new=new)
    shown, shares, sizes = zip(*some, strict=True)
    best, found = -math.inf, Selector(new=new)
    for weight, log_odds in product(WEIGHTS.tolist(), LOG_ODDS.tolist()):
        tried = Selector(weight, 1 / (1 + math.exp(-log_odds)), new)
        likelihood = _likelihood(tried.chances(shown), np.array(shares), np.array(sizes))
        if likelihood > best + 1e-9:
            best, found = likelihood, tried
    return found


def _likelihood(chances: Floats, shares: Floats, sizes: Floats) -> float:
    p = chances.clip(0.005, 0.995)
    return float(np.sum(sizes * (shares * np.log(p) + (1 - shares) * np.log(1 - p))))
