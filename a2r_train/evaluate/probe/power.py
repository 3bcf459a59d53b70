"""Which differences an evaluation with given numbers of problems and bundles can detect.

A difference of two rows is detected if its 95 % interval excludes 0; for a true difference of 2.80 standard
errors, this happens in 80 % of such evaluations. Bundles of one problem have much in common, so the variance
between problems falls only with the number of problems (cluster sampling, Cochran 1977, ch. 9).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from a2r_train.data.probe import Floats, Pattern, pattern_of
from a2r_train.evaluate.probe.selector import Selector
from a2r_train.evaluate.statistics import POWER, TWO_SIDED
from a2r_train.records import Bundle

STANDARD_ERRORS = TWO_SIDED + POWER


@dataclass(frozen=True)
class Spread:
    """Variances of the difference of two rows: between the means of problems, and within a problem."""

    between: float
    within: float

    def smallest(self, problems: int, bundles: float) -> float:
        """The smallest true difference that 80 % of such evaluations detect, in 0..1."""
        return STANDARD_ERRORS * math.sqrt((self.between + self.within / bundles) / problems)

    def problems(self, difference: float, bundles: float) -> int:
        """How many problems it takes to detect a difference, with `bundles` bundles of each."""
        return math.ceil((STANDARD_ERRORS / difference) ** 2 * (self.between + self.within / bundles))


def spread_against_vote(patterns: Sequence[Pattern], shares: Floats, trained: Selector) -> Spread:
    """A trained synthesizer's greedy answers against the vote of the same bundles.

    shares [P, U]: of each pattern among a problem's bundles. The variance of a synthesizer's answers to one
    pattern counts as variance within a problem.
    """
    chances, votes = trained.chances(patterns), np.array([p.vote for p in patterns])
    return _spread(shares, chances - votes, chances * (1 - chances))


def spread_against_base(
    patterns: Sequence[Pattern], shares: Floats, trained: Selector, base: Selector
) -> Spread:
    """A trained synthesizer against the untrained one, as if their answers were independent. In fact they
    correlate, so this is on the safe side.
    """
    a, b = trained.chances(patterns), base.chances(patterns)
    return _spread(shares, a - b, a * (1 - a) + b * (1 - b))


def _spread(shares: Floats, means: Floats, variances: Floats) -> Spread:
    kept = shares[~np.isnan(shares).any(axis=1)]
    of_problems = kept @ means
    within = kept @ means**2 - of_problems**2 + kept @ variances
    return Spread(float(of_problems.var()), float(within.mean()))


def shown_pattern(bundle: Bundle) -> Pattern:
    """The pattern of a bundle's references."""
    references = bundle.references
    return pattern_of([r.answer for r in references], [r.verdict for r in references], bundle.verifier)


def shares_of(bundles: Sequence[Bundle]) -> tuple[list[Pattern], Floats]:
    """The patterns of the bundles, and their shares [P, U] among the bundles of each problem."""
    found = [shown_pattern(bundle) for bundle in bundles]
    patterns = list(dict.fromkeys(found))
    column = {pattern: at for at, pattern in enumerate(patterns)}
    row = {identity: at for at, identity in enumerate(dict.fromkeys(b.problem_id for b in bundles))}
    shares = np.zeros((len(row), len(patterns)))
    for bundle, pattern in zip(bundles, found, strict=True):
        shares[row[bundle.problem_id], column[pattern]] += 1
    return patterns, shares / shares.sum(axis=1, keepdims=True)


def power_line(bundles: Sequence[Bundle]) -> str:
    """Which differences an evaluation on these bundles can detect, in one line."""
    patterns, shares = shares_of(bundles)
    base = Selector()
    trained = base.trained()
    weights = shares.mean(axis=0)
    gain = float(weights @ (trained.chances(patterns) - [p.vote for p in patterns]))
    sizes = Counter(b.problem_id for b in bundles)
    each = len(bundles) / len(sizes)
    # With one bundle per problem the variance between the bundles of a problem is unknown, but not needed.
    return line(spread_against_vote(patterns, shares, trained), len(sizes), each, gain)


def line(spread: Spread, problems: int, bundles: float, gain: float) -> str:
    """The smallest detectable difference to the vote, and what detecting the predicted gain would take."""
    smallest = spread.smallest(problems, bundles)
    each = f"{bundles:.3g} bundle{'s' * (bundles != 1)}"
    said = (
        f"{problems:,} problems x {each} tell a trained synthesizer apart from the vote at "
        f"{100 * smallest:.1f} points or more (power 80 %, by problem)"
    )
    if gain <= 0:
        return f"{said}; no gain over the vote is predicted ({100 * gain:+.1f} points)"
    needed = spread.problems(gain, bundles)
    return (
        f"{said}; the predicted gain of {100 * gain:.1f} points takes {needed:,} problems, "
        f"{math.ceil(needed * bundles):,} bundles"
    )
