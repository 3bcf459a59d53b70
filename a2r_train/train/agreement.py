"""The preflight's check of agreement: majorities must be right as often in training as in validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from a2r_train.data.agreement import FEWEST_PROBLEMS, Compared, Side, by_pattern, compared
from a2r_train.train.bundles import TrainingBundles
from a2r_train.train.preflight import Check
from a2r_train.verify.vote import is_unanimous

MOST_COMPARED = 4000  # bundles of a set, spread over it, because each needs several comparisons of answers


def agreement_checks(training: TrainingBundles, validation: TrainingBundles | None) -> list[Check]:
    """Red if the vote of some pattern is right far more often in one of the two sets; yellow if that may be
    chance.

    No line without validation bundles or votes, nor for the control, which reads no references.
    """
    if validation is None or training.rows.plain_share >= 1:
        return []
    trained, validated = (by_pattern(one.bundles.some(MOST_COMPARED)) for one in (training, validation))
    if not trained or not validated:
        return []
    return [
        _check([one for one in compared(trained, validated) if one.has_enough_problems], trained, validated)
    ]


def _check(patterns: Sequence[Compared], trained: Mapping[str, Side], validated: Mapping[str, Side]) -> Check:
    few = f"no pattern has {FEWEST_PROBLEMS} problems in both training and validation bundles"
    off = [one for one in patterns if one.is_off]
    shown = "; ".join(map(str, off or patterns)) or few
    says = f"right votes in training and in validation bundles, {shown}"
    if off:
        remedy = "bundle with mixture all or patterns, which keep the shares of the rollouts"
        return Check("agreement", False, f"{says}; {remedy}")
    if far := [one.pattern for one in patterns if one.is_far]:
        says += f"; over 10 points apart in {', '.join(far)}, which with so few problems may be chance"
    if any(map(is_unanimous, validated)) and not any(map(is_unanimous, trained)):
        says += "; no unanimous bundle is trained on, so answer such problems by the vote (skip_agreement 1)"
    return Check("agreement", True, says, yellow=bool(far) or not patterns)
