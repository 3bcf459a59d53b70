"""Majority vote by equivalence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from a2r_train.records import CORRECT
from a2r_train.verify.compare import VERIFIERS, compare_all


@dataclass(frozen=True)
class Majority:
    """Groups of equivalent answers, as indices: the largest first, then by first appearance."""

    groups: list[list[int]]

    @property
    def top(self) -> list[list[int]]:
        """The largest group and all that tie with it; [] if nobody voted."""
        return [group for group in self.groups if len(group) == len(self.groups[0])]


def majority(answers: Sequence[str], verifier: str = "math") -> Majority:
    """Group equivalent extracted answers; "" does not vote.

    Each answer joins the first group whose first member it is equivalent to, so the grouping is transitive by
    construction. First are the most frequent answers, then the shortest: the groups do not depend on the
    order of the votes. Two answers are equivalent if either is with the other as gold, which only makes a
    difference for an own verifier. Raises InputError as `judge_all`.
    """
    members: dict[str, list[int]] = {}
    for i, answer in enumerate(answers):
        if answer:
            members.setdefault(answer, []).append(i)
    groups: list[list[int]] = []
    left = sorted(members, key=lambda answer: (-len(members[answer]), len(answer), answer))
    while left:
        first, *others = left
        joined = _equivalent_to(first, others, verifier)
        groups.append(sorted(i for answer in (first, *joined) for i in members[answer]))
        left = [other for other in others if other not in joined]
    return Majority(sorted(groups, key=lambda group: (-len(group), group[0])))


def _equivalent_to(first: str, others: Sequence[str], verifier: str) -> set[str]:
    verdicts = compare_all([(other, first, verifier) for other in others])
    joined = {other for other, verdict in zip(others, verdicts, strict=True) if verdict == CORRECT}
    if verifier not in VERIFIERS:
        rest = [other for other in others if other not in joined]
        verdicts = compare_all([(first, other, verifier) for other in rest])
        joined |= {other for other, verdict in zip(rest, verdicts, strict=True) if verdict == CORRECT}
    return joined
