"""Which bundles are trained on: four policies by name, and a cap on bundles without a correct reference."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from a2r_train.errors import InputError
from a2r_train.records import CORRECT, Bundle
from a2r_train.verify import has_vote

MIXTURES = ("all", "hard_plus_easy", "accuracy_band", "balanced")


def choose(
    bundles: Sequence[Bundle],
    mixture: str,
    *,
    easy_percent: float,
    max_share_correct: float,
    share_correct: Mapping[str, float],
    rng: random.Random,
) -> tuple[list[Bundle], Counter[str]]:
    """Keep the bundles that the mixture asks for, in their order; also counts what was dropped by reason.

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
        return list(bundles), Counter()
    if mixture == "hard_plus_easy":
        return _hard_plus_easy(bundles, easy_percent, rng)
    if mixture == "accuracy_band":
        return _where(
            bundles,
            lambda b: 0 < share_correct[b.problem_id] < max_share_correct,
            "outside the accuracy band",
        )
    if mixture == "balanced":
        return _where(bundles, lambda b: 1 <= b.n_correct <= len(b.references) / 2, "not balanced")
    raise InputError(f"mixture {mixture!r}: expected one of {', '.join(MIXTURES)}")


def cap_all_wrong(
    bundles: Sequence[Bundle], max_share: float, rng: random.Random
) -> tuple[list[Bundle], Counter[str]]:
    """Keep so many bundles without a correct reference that they are at most `max_share` of what is kept."""
    wrong = [b for b in bundles if b.n_correct == 0]
    others = len(bundles) - len(wrong)
    most = len(wrong) if max_share >= 1 else int(max_share * others / (1 - max_share))
    kept = {b.id for b in rng.sample(wrong, min(most, len(wrong)))}
    return _where(bundles, lambda b: b.n_correct > 0 or b.id in kept, "over the cap on all-wrong bundles")


def _where(
    bundles: Sequence[Bundle], keep: Callable[[Bundle], bool], reason: str
) -> tuple[list[Bundle], Counter[str]]:
    kept = [b for b in bundles if keep(b)]
    return kept, Counter({reason: len(bundles) - len(kept)})


def _hard_plus_easy(
    bundles: Sequence[Bundle], percent: float, rng: random.Random
) -> tuple[list[Bundle], Counter[str]]:
    if silent := sorted({b.verifier for b in bundles if not has_vote(b.verifier)}):
        raise InputError(
            f"mixture hard_plus_easy goes by the vote, and answers of {silent[0]} have none; "
            "expected accuracy_band, balanced or all"
        )
    easy = [b for b in bundles if b.majority_verdict == CORRECT]
    rng.shuffle(easy)
    turn: defaultdict[str, int] = defaultdict(int)
    ranked: list[tuple[int, int, str]] = []
    for bundle in easy:  # the first easy bundle of every problem comes before the second of any
        ranked.append((turn[bundle.problem_id], len(ranked), bundle.id))
        turn[bundle.problem_id] += 1
    most = round((len(bundles) - len(easy)) * percent / 100)
    chosen = {identity for _, _, identity in sorted(ranked)[:most]}
    return _where(
        bundles, lambda b: b.majority_verdict != CORRECT or b.id in chosen, "easy, over easy_percent"
    )
