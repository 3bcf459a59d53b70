"""Adaptive exploring: when to stop sampling references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from a2r_train.errors import InputError
from a2r_train.verify import has_vote, majority
from a2r_train.verify.vote import agreed, check_agreement


@dataclass(frozen=True)
class Adaptive:
    """Adaptive exploring: `first` rollouts, then one at a time up to k, while another is worth its price.

    Another rollout can gain at most the chance that the runner-up overtakes the leading answer: with a and b
    votes, P(p < 1/2) with p ~ Beta(a + 1, b + 1) (Adaptive-Consistency, arXiv 2305.11860). Exploring stops
    where that chance is at most `price`, the cost of a rollout in right answers. skip_agreement: if at least
    this share of the rollouts agrees, their answer is returned directly; 0 for never.
    """

    price: float = 0.1
    first: int = 2
    skip_agreement: float = 0.0

    def __post_init__(self) -> None:
        if self.first < 1 or not 0 <= self.price <= 1:
            raise InputError(f"adaptive: {self} is out of range; expected first >= 1 and 0 <= price <= 1")
        check_agreement("skip_agreement", self.skip_agreement)

    def sizes(self, k: int) -> list[int]:
        """How many rollouts each call samples, if nothing stops it before k."""
        return [self.first, *[1] * (k - self.first)]

    def stops(self, answers: Sequence[str], verifier: str) -> bool:
        return len(answers) >= self.first and chance_of_change(answers, verifier) <= self.price

    def skips(self, answers: Sequence[str], verifier: str) -> bool:
        """Whether so many of the answers, two or more, agree that no synthesis is to be made."""
        return self.skip_agreement > 0 and agreed([(answers, verifier)], self.skip_agreement) != [None]


def check_votes(verifier: str) -> None:
    """Raise InputError if answers of the verifier have no vote."""
    if not has_vote(verifier):
        raise InputError(
            f"adaptive and skip_agreement need votes, but answers of {verifier} have none; remove them"
        )


def chance_of_change(answers: Sequence[str], verifier: str) -> float:
    """The chance that the runner-up overtakes the leading answer, as in `Adaptive`; 1/2 if no answer
    leads.
    """
    check_votes(verifier)
    sizes = [len(group) for group in majority(answers, verifier).groups]
    a, b = (*sizes, 0, 0)[:2]
    flips = a + b + 1  # the Beta distribution's tail at 1/2 equals that of this many fair coin flips
    return math.ldexp(sum(math.comb(flips, heads) for heads in range(a + 1, flips + 1)), -flips)
