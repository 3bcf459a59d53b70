"""Which bundles are trained on: four policies by name, and a cap on bundles without a correct reference.

They look at a few numbers of each bundle, so that all bundles need not be in memory.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from a2r_train.errors import InputError
from a2r_train.verify import has_vote

MIXTURES = ("all", "hard_plus_easy", "accuracy_band", "balanced")


@dataclass(frozen=True)
class Facts:
    """What a mixture asks of bundles: one entry each, in their order.

    problem: its number. size: references. share_correct: of all rollouts of the problem.
    """

    problem: np.ndarray
    size: np.ndarray
    n_correct: np.ndarray
    majority_right: np.ndarray
    share_correct: np.ndarray


def choose(
    facts: Facts, mixture: str, *, easy_percent: float, max_share_correct: float, rng: random.Random
) -> tuple[np.ndarray, Counter[str]]:
    """The numbers of the bundles that the mixture asks for, in order, and what was dropped by reason.

    all: everything.
    hard_plus_easy: every bundle whose majority is wrong, and easy ones numbering easy_percent of those,
    repeating each
        problem as little as possible (AggLM, arXiv 2509.06870).
    accuracy_band: bundles of problems with 0 < share_correct < max_share_correct among all their rollouts
    (PaCoRe,
        arXiv 2601.05593).
    balanced: at least one correct and one wrong reference, and no more correct than wrong ones (GenSelect,
        arXiv 2504.16891).
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
    raise InputError(f"mixture {mixture!r}: expected one of {', '.join(MIXTURES)}")


def check_vote(mixture: str, verifier: str) -> None:
    """Raise InputError for a mixture that goes by the vote, where answers of the verifier have none."""
    if mixture == "hard_plus_easy" and not has_vote(verifier):
        raise InputError(
            f"mixture hard_plus_easy goes by the vote, and answers of {verifier} have none; "
            "expected accuracy_band, balanced or all"
        )


def cap_all_wrong(
    n_correct: np.ndarray, max_share: float, rng: random.Random
) -> tuple[np.ndarray, Counter[str]]:
    """Keep so many bundles without a correct reference that they are at most `max_share` of what is kept."""
    wrong = np.flatnonzero(n_correct == 0).tolist()
    others = len(n_correct) - len(wrong)
    most = len(wrong) if max_share >= 1 else int(max_share * others / (1 - max_share))
    keep = n_correct > 0
    keep[rng.sample(wrong, min(most, len(wrong)))] = True
    return _where(keep, "over the cap on all-wrong bundles")


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
