"""Which bundles are trained on: five policies by name, contested bundles alone, and a cap on bundles without
a correct reference.

They need only a few numbers of each bundle, so the bundles need not be in memory.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from a2r_train.config import mapping_in
from a2r_train.errors import InputError
from a2r_train.verify import has_vote
from a2r_train.verify.vote import is_unanimous

MIXTURES = ("all", "hard_plus_easy", "accuracy_band", "balanced", "patterns")


@dataclass(frozen=True)
class Facts:
    """What a mixture needs to know of bundles: one entry each, in their order.

    problem: its number. size: references. share_correct: of all rollouts of the problem. agreement: the
    pattern, as bytes.
    """

    problem: np.ndarray
    size: np.ndarray
    n_correct: np.ndarray
    majority_right: np.ndarray
    share_correct: np.ndarray
    agreement: np.ndarray


def choose(
    facts: Facts,
    mixture: str,
    *,
    easy_percent: float,
    max_share_correct: float,
    rng: random.Random,
    pattern_shares: Mapping[str, float] | None = None,
) -> tuple[np.ndarray, Counter[str]]:
    """The numbers of the bundles that the mixture asks for, in order, and what was dropped by reason.

    all: everything.
    hard_plus_easy: every bundle whose majority is wrong, and easy ones numbering easy_percent of those,
        repeating each problem as little as possible (AggLM, arXiv 2509.06870).
    accuracy_band: bundles of problems with 0 < share_correct < max_share_correct among all their rollouts
        (PaCoRe, arXiv 2601.05593).
    balanced: at least one correct and one wrong reference, and no more correct than wrong ones (GenSelect,
        arXiv 2504.16891).
    patterns: the largest set with these shares of the agreement patterns, a random part of the bundles of
        each, so that its vote is right as often as among all of them.
    """
    if mixture == "all":
        return np.arange(len(facts.problem)), Counter()
    if mixture == "hard_plus_easy":
        return _hard_plus_easy(facts, easy_percent, rng)
    if mixture == "accuracy_band":
        share = facts.share_correct
        return _where((share > 0) & (share < max_share_correct), "outside the accuracy band")
    if mixture == "balanced":
        return _where((facts.n_correct >= 1) & (facts.n_correct <= facts.size / 2), "not balanced")
    if mixture == "patterns":
        return _by_pattern(facts.agreement.astype(str), pattern_shares or {}, rng)
    raise InputError(f"mixture {mixture!r}: expected one of {', '.join(MIXTURES)}")


def contested(facts: Facts) -> tuple[np.ndarray, Counter[str]]:
    """The numbers of the bundles whose references do not all agree, in order, and how many were dropped."""
    patterns, number = np.unique(facts.agreement.astype(str), return_inverse=True)
    agree = np.array([is_unanimous(pattern) for pattern in patterns.tolist()], dtype=bool)
    return _where(~agree[number], "unanimous, and contested_only")


def check_vote(mixture: str, verifier: str, contested_only: bool = False) -> None:
    """Raise InputError for a mixture that needs the vote, if answers of the verifier have none."""
    if has_vote(verifier):
        return
    if mixture in ("hard_plus_easy", "patterns"):
        raise InputError(
            f"mixture {mixture} needs the vote, but answers of {verifier} have none; "
            "expected accuracy_band, balanced or all"
        )
    if contested_only:
        raise InputError(
            f"contested_only needs the vote, but answers of {verifier} have none; remove the key"
        )


def shares_in(text: str, sizes: range) -> dict[str, float]:
    """The shares that `pattern_shares` asks for, by pattern; `sizes` are those of bundles.

    Raises InputError for anything that is not a pattern of these sizes, and for shares that are not from 0 to
    1 or add up to more than 1.
    """
    shares = mapping_in(text)
    if shares is None:
        raise InputError(
            f"pattern_shares {text!r}: expected patterns and their shares, such as {{3-1: 0.5, 2-1-1: 0.3}}"
        )
    for name, share in shares.items():
        groups = [int(size) for size in name.split("-")] if re.fullmatch(r"\d+(-\d+)*", name) else [0]
        if min(groups) < 1 or sum(groups) not in sizes or groups != sorted(groups, reverse=True):
            many = "-".join(dict.fromkeys(map(str, (sizes[0], sizes[-1]))))
            raise InputError(
                f"pattern_shares: {name!r} is not a pattern of {many} references; "
                "expected the sizes of the groups of equal answers, the largest first, such as 3-1"
            )
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InputError(f"pattern_shares: {name} is {share!r}; expected a share from 0 to 1")
    if sum(shares.values()) > 1 + 1e-9:
        raise InputError(f"pattern_shares add up to {sum(shares.values()):g}; expected at most 1")
    return shares


def cap_all_wrong(
    n_correct: np.ndarray, max_share: float, rng: random.Random
) -> tuple[np.ndarray, Counter[str]]:
    """Keep only so many bundles without a correct reference that their share is at most `max_share`."""
    wrong = np.flatnonzero(n_correct == 0).tolist()
    others = len(n_correct) - len(wrong)
    most = len(wrong) if max_share >= 1 else int(max_share * others / (1 - max_share) + 1e-9)
    keep = n_correct > 0
    keep[rng.sample(wrong, min(most, len(wrong)))] = True
    return _where(keep, "over the cap on all-wrong bundles")


def _by_pattern(
    patterns: np.ndarray, shares: Mapping[str, float], rng: random.Random
) -> tuple[np.ndarray, Counter[str]]:
    """Raises InputError for a requested pattern that does not occur."""
    asked = {name: share for name, share in shares.items() if share > 0}
    members = {name: np.flatnonzero(patterns == name) for name in asked}
    rest = max(0.0, 1.0 - sum(asked.values()))
    if rest > 1e-9:
        asked["others"], members["others"] = rest, np.flatnonzero(~np.isin(patterns, list(shares)))
    for name, some in members.items():
        if not len(some):
            found = ", ".join(np.unique(patterns).tolist())
            raise InputError(f"pattern_shares: no bundle of pattern {name}; the patterns are {found}")
    total = min(len(some) / asked[name] for name, some in members.items())
    keep = np.zeros(len(patterns), dtype=bool)
    for name, some in members.items():
        keep[rng.sample(some.tolist(), int(total * asked[name] + 1e-6))] = True
    return _where(keep, "over the share of their pattern")


def _where(keep: np.ndarray, reason: str) -> tuple[np.ndarray, Counter[str]]:
    return np.flatnonzero(keep), Counter({reason: int((~keep).sum())})


def _hard_plus_easy(facts: Facts, percent: float, rng: random.Random) -> tuple[np.ndarray, Counter[str]]:
    easy = np.flatnonzero(facts.majority_right).tolist()
    rng.shuffle(easy)
    turn: defaultdict[int, int] = defaultdict(int)
    ranked: list[tuple[int, int, int]] = []
    for at in easy:  # the first easy bundle of every problem comes before the second of any
        problem = int(facts.problem[at])
        ranked.append((turn[problem], len(ranked), at))
        turn[problem] += 1
    most = round((len(facts.problem) - len(easy)) * percent / 100)
    keep = ~facts.majority_right
    keep[[at for _, _, at in sorted(ranked)[:most]]] = True
    return _where(keep, "easy, over easy_percent")
