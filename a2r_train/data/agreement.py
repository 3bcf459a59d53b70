"""What agreement means in a set of bundles: how often the vote is right, by the pattern of the references."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2r_train.records import CORRECT, Bundle
from a2r_train.verify import has_vote
from a2r_train.verify.vote import agreements

FEWEST_PROBLEMS = 30  # on each side; with fewer, a pattern tells nothing
MOST_DIFFERENT = 0.10  # between the two shares of right votes
ERRORS_APART = 3  # standard errors; chance exceeds them once in 400 times


@dataclass(frozen=True)
class Side:
    """One pattern in a set: its bundles, their problems, and the share of right votes."""

    bundles: int
    problems: int
    right: float


@dataclass(frozen=True)
class Compared:
    """One pattern in training and in validation."""

    pattern: str
    training: Side
    validation: Side

    @property
    def has_enough_problems(self) -> bool:
        """Whether both sides have enough problems to tell."""
        return min(self.training.problems, self.validation.problems) >= FEWEST_PROBLEMS

    @property
    def is_far(self) -> bool:
        """Whether the shares differ by more than MOST_DIFFERENT."""
        return self.has_enough_problems and abs(self.training.right - self.validation.right) > MOST_DIFFERENT

    @property
    def is_off(self) -> bool:
        """Whether the shares are far apart, and by more than chance explains.

        The standard error assumes equal shares. It counts problems, not bundles, because bundles of one
        problem are alike.
        """
        one, other = self.training, self.validation
        share = (one.right * one.problems + other.right * other.problems) / (one.problems + other.problems)
        error = math.sqrt(share * (1 - share) * (1 / one.problems + 1 / other.problems))
        return self.is_far and abs(one.right - other.right) > ERRORS_APART * error

    def __str__(self) -> str:
        one, other = self.training, self.validation
        shares = f"{100 * one.right:.0f} % of {one.bundles} and {100 * other.right:.0f} % of {other.bundles}"
        return f"{self.pattern}: {shares}"


def compared(training: Mapping[str, Side], validation: Mapping[str, Side]) -> list[Compared]:
    """The patterns that both sets have, in training order."""
    return [Compared(name, side, validation[name]) for name, side in training.items() if name in validation]


def by_pattern(bundles: Sequence[Bundle]) -> dict[str, Side]:
    """The sides by agreement pattern, most frequent first; bundles whose verifier has no vote are left out.

    On a tie the first answer wins, as in `majority_verdict`.
    """
    voting = [bundle for bundle in bundles if has_vote(bundle.verifier)]
    patterns = agreements([([r.answer for r in b.references], b.verifier) for b in voting])
    found: defaultdict[str, list[Bundle]] = defaultdict(list)
    for bundle, pattern in zip(voting, patterns, strict=True):
        found[pattern].append(bundle)
    return {name: _side(found[name]) for name in sorted(found, key=lambda name: (-len(found[name]), name))}


def _side(bundles: Sequence[Bundle]) -> Side:
    right = sum(bundle.majority_verdict == CORRECT for bundle in bundles)
    return Side(len(bundles), len({bundle.problem_id for bundle in bundles}), right / len(bundles))
