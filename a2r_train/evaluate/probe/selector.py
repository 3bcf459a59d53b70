"""A synthesizer as a selector of references, and how training changes it.

It takes the answer of a group of equal answers with a probability proportional to size ** weight, times the
odds accuracy / (1 - accuracy) if the group is right. So `accuracy` is how often it chooses the right one of a
right and a wrong reference. Weight 1 and accuracy 0.5 name a reference at random (pass@1), and a large weight
is the vote. docs/probe.md says how well this fits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from a2r_train.data.probe import Floats, Pattern

# Medians over the models of docs/probe.md, before and after training.
UNTRAINED_WEIGHT, UNTRAINED_ACCURACY, NEW = 1.0, 0.5, 0.005
TRAINED_WEIGHT, LIFT = 2.0, 1.8
# The values that `fit` tries.
WEIGHTS = np.arange(0.5, 6.1, 0.5)
LOG_ODDS = np.arange(-2.0, 6.01, 0.1)


@dataclass(frozen=True)
class Selector:
    """`accuracy` of choosing between a right and a wrong reference, `weight` of agreement, and `new`, how
    often it is right although no reference is.
    """

    weight: float = UNTRAINED_WEIGHT
    accuracy: float = UNTRAINED_ACCURACY
    new: float = NEW

    def right(self, pattern: Pattern) -> float:
        """The probability of a right answer to a bundle of this pattern."""
        if not pattern.n_correct:
            return self.new
        odds = self.accuracy / (1 - self.accuracy)
        drawn = [(size**self.weight * (odds if good else 1.0), good) for size, good in pattern.groups]
        return float(sum(w for w, good in drawn if good) / sum(w for w, _ in drawn))

    def chances(self, patterns: Sequence[Pattern]) -> Floats:
        """The probabilities for many patterns, [U]."""
        return np.array([self.right(pattern) for pattern in patterns])

    def trained(self) -> Selector:
        """The selector after training, by the runs of docs/probe.md: its odds times LIFT."""
        odds = LIFT * self.accuracy / (1 - self.accuracy)
        return replace(self, weight=max(self.weight, TRAINED_WEIGHT), accuracy=odds / (1 + odds))


def fit(patterns: Sequence[Pattern], right: Sequence[float], counts: Sequence[float]) -> Selector:
    """The selector with the largest likelihood among those tried. `right` are shares of right answers to
    `counts` bundles of a pattern; a pattern may occur several times.

    Patterns without a right reference only determine `new`; those without a wrong one determine nothing.
    """
    sums: defaultdict[Pattern, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pattern, share, count in zip(patterns, right, counts, strict=True):
        if not math.isnan(share):
            sums[pattern][0] += share * count
            sums[pattern][1] += count
    none = [total for pattern, total in sums.items() if not pattern.n_correct]
    new = sum(good for good, _ in none) / sum(n for _, n in none) if none else NEW
    some = {p: t for p, t in sums.items() if p.n_correct and len(p.groups) > 1}
    if not some:
        return Selector(new=new)
    shown, totals = list(some), np.array(list(some.values()))
    tried = [
        Selector(weight, 1 / (1 + math.exp(-log_odds)), new)
        for weight, log_odds in product(WEIGHTS.tolist(), LOG_ODDS.tolist())
    ]
    return max(tried, key=lambda one: _likelihood(one.chances(shown), totals))


def _likelihood(chances: Floats, totals: Floats) -> float:
    """Log-likelihood of right answers and counts, [U, 2]; rounded, so that the first selector tried wins
    ties.
    """
    p, good, n = chances.clip(0.005, 0.995), totals[:, 0], totals[:, 1]
    return round(float(np.sum(good * np.log(p) + (n - good) * np.log(1 - p))), 9)
