"""Majority vote by equivalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2r_train.errors import InputError
from a2r_train.records import CORRECT
from a2r_train.verify import own, pool
from a2r_train.verify.compare import VERIFIERS, compare_all
from a2r_train.verify.traits import traits_of

ROUNDED = 0.005  # a share of two decimals is off by at most this


@dataclass(frozen=True)
class Majority:
    """Groups of equivalent answers, as indices: the largest first, then by first appearance."""

    groups: list[list[int]]

    @property
    def top(self) -> list[list[int]]:
        """The largest group and all that tie with it; [] if nobody voted."""
        return [group for group in self.groups if len(group) == len(self.groups[0])]


def majority(answers: Sequence[str], verifier: str = "math") -> Majority:
    """Group equivalent extracted answers; "" does not vote, and nobody does where the verifier has no vote.

    Each answer joins the first group whose first member it is equivalent to, so the grouping is transitive by
    construction. The most frequent answers come first, then the shortest, so the groups do not depend on the
    order of the votes. Two answers are equivalent if either is correct with the other as gold; the direction
    only matters for a custom verifier. If it gives canonical forms, equal forms are one answer. Raises
    InputError as `judge_all`.
    """
    return majorities([(answers, verifier)])[0]


def majorities(votes: Sequence[tuple[Sequence[str], str]]) -> list[Majority]:
    """`majority` of many (answers, verifier). Each round of comparisons is one request, which keeps the
    workers busy.
    """
    members = [_members(answers, verifier) for answers, verifier in votes]
    groups: list[list[list[int]]] = [[] for _ in votes]
    left = [_in_order(one) for one in members]
    while open_ := [i for i, remaining in enumerate(left) if remaining]:
        joined = _equivalent_to_first([(left[i], votes[i][1]) for i in open_])
        for i, same in zip(open_, joined, strict=True):
            groups[i].append(sorted(at for answer in same for at in members[i][answer]))
            left[i] = [answer for answer in left[i] if answer not in same]
    return [Majority(sorted(one, key=lambda group: (-len(group), group[0]))) for one in groups]


def agreement_of(answers: Sequence[str], verifier: str = "math") -> str:
    """The agreement pattern of the answers: the sizes of their groups, the largest first, such as `3-1`.

    "" agrees with nothing and is a group of one: two equal answers and two texts without any are `2-1-1`.
    Raises InputError as `majority`.
    """
    return agreements([(answers, verifier)])[0]


def agreements(votes: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """`agreement_of` many (answers, verifier), compared as `majorities` does."""
    sizes = [[len(group) for group in found.groups] for found in majorities(votes)]
    silent = [len(answers) - sum(some) for (answers, _), some in zip(votes, sizes, strict=True)]
    return ["-".join(map(str, some + [1] * ones)) for some, ones in zip(sizes, silent, strict=True)]


def agreed(votes: Sequence[tuple[Sequence[str], str]], share: float) -> list[int | None]:
    """For each (answers, verifier): the first of two or more equal answers that are at least `share` of all,
    as an index; None if no answers agree so far. A missing answer counts among all. A share may be rounded to
    two decimals: two of three are enough for 0.67.
    """
    leading = [(found.groups or [[]])[0] for found in majorities(votes)]
    return [
        group[0] if len(group) > 1 and len(group) >= (share - ROUNDED) * len(answers) else None
        for group, (answers, _) in zip(leading, votes, strict=True)
    ]


def check_agreement(name: str, share: float) -> None:
    """Raise InputError unless it is 0, or a share that only one answer can have."""
    if share != 0 and not 0.5 < share <= 1:
        raise InputError(
            f"{name} is {share:g}; expected the share of the references that must agree, above 0.5 and at "
            "most 1, or 0 to ask the synthesizer always"
        )


def is_unanimous(agreement: str) -> bool:
    """Whether it is the pattern of two or more answers, none missing and all the same."""
    return agreement.isdigit() and agreement != "1"


def _members(answers: Sequence[str], verifier: str) -> dict[str, list[int]]:
    """Who gave each answer, or its canonical form; "" does not vote, and no answer does without a vote."""
    vote = traits_of(verifier).vote
    if vote == "none":
        return {}
    members: dict[str, list[int]] = {}
    for i, answer in enumerate(forms_of(answers, verifier) if vote == "canonical" else answers):
        if answer:
            members.setdefault(answer, []).append(i)
    return members


def _in_order(members: Mapping[str, Sequence[int]]) -> list[str]:
    return sorted(members, key=lambda answer: (-len(members[answer]), len(answer), answer))


def _equivalent_to_first(left: Sequence[tuple[Sequence[str], str]]) -> list[set[str]]:
    """For each list of answers, the first and those equivalent to it."""
    joined = [{answers[0]} for answers, _ in left]
    compared = [i for i, (_, verifier) in enumerate(left) if traits_of(verifier).vote == "equivalence"]
    asked = [(i, other) for i in compared for other in left[i][0][1:]]
    _join(joined, asked, [(other, left[i][0][0], left[i][1]) for i, other in asked])
    rest = [(i, o) for i, o in asked if left[i][1] not in VERIFIERS and o not in joined[i]]
    _join(joined, rest, [(left[i][0][0], other, left[i][1]) for i, other in rest])
    return joined


def _join(
    joined: Sequence[set[str]], asked: Sequence[tuple[int, str]], pairs: Sequence[tuple[str, str, str]]
) -> None:
    for (i, other), verdict in zip(asked, compare_all(pairs), strict=True):
        if verdict == CORRECT:
            joined[i].add(other)


def forms_of(answers: Sequence[str], verifier: str) -> list[str]:
    """The canonical form of each answer; "" stays "". Raises InputError as `judge_all`."""
    if verifier not in own.PATHS:
        asked = list(dict.fromkeys(answer for answer in answers if answer))
        known = dict(zip(asked, pool.forms([(answer, "", verifier) for answer in asked]), strict=True))
        return [known.get(answer, "") for answer in answers]
    return [" ".join(answer.split()) for answer in answers]
