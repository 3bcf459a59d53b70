"""Majority vote by equivalence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from a2r_train.records import CORRECT
from a2r_train.verify.compare import compare_all


@dataclass(frozen=True)
class Majority:
    """Groups of equivalent answers, as indices into the answers: the largest first, then by first appearance."""

    groups: list[list[int]]

    @property
    def top(self) -> list[list[int]]:
        """The largest group and all that tie with it; [] if nobody voted."""
        return [group for group in self.groups if len(group) == len(self.groups[0])]


def majority(answers: Sequence[str], verifier: str = "math") -> Majority:
    """Group equivalent extracted answers; "" does not vote.

    Answers are in one group if a chain of equivalent pairs joins them, with either of a pair as gold: equivalence is not
    transitive, and the vote must not depend on the order of the answers. Raises InputError as `judge_all`.
    """
    members: dict[str, list[int]] = {}
    for i, answer in enumerate(answers):
        if answer:
            members.setdefault(answer, []).append(i)
    group_of = {answer: {answer} for answer in members}
    for one, other in _equivalent(list(members), verifier):
        if group_of[one] is not group_of[other]:
            joined = group_of[one] | group_of[other]
            group_of |= dict.fromkeys(joined, joined)
    different = {id(group): group for group in group_of.values()}.values()
    groups = [sorted(i for answer in group for i in members[answer]) for group in different]
    return Majority(sorted(groups, key=lambda group: (-len(group), group[0])))


def _equivalent(answers: Sequence[str], verifier: str) -> list[tuple[str, str]]:
    pairs = list(permutations(answers, 2))
    verdicts = compare_all([(answer, gold, verifier) for answer, gold in pairs])
    return [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == CORRECT]
