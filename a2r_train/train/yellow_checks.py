"""Checks that pass without telling anything: the preflight shows them in yellow, not green."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from a2r_train.records import CORRECT, Bundle
from a2r_train.verify.traits import SHIPPED

FEW_TARGETS = 32  # fewer do not fill a batch of SFT
FEW_GROUPS = 8  # fewer with different rewards do not fill a step of GRPO
MOSTLY_DEAD = 0.5  # share of groups expected to have no signal
NEARLY_ALL = 0.9  # share of a training's groups that had no signal


def one_sided_verifiers(bundles: Sequence[Bundle]) -> list[str]:
    """User-defined verifiers that call all references of the bundles right, or none."""
    said: defaultdict[str, list[bool]] = defaultdict(list)
    for bundle in bundles:
        if bundle.verifier not in SHIPPED:
            said[bundle.verifier] += [r.verdict == CORRECT for r in bundle.references]
    return [
        f"{name} never says {'no' if verdicts[0] else 'yes'} on {len(verdicts)} references; "
        "try it on answers whose verdict you know"
        for name, verdicts in said.items()
        if len(set(verdicts)) == 1
    ]


def few_targets(targets: int, remedy: str) -> str:
    """What is wrong with so few targets, and what to do; "" if there are enough."""
    if targets >= FEW_TARGETS:
        return ""
    says = "1 target" if targets == 1 else f"{targets} targets"
    return f"{says}, too few for SFT to learn anything general; {remedy}"


def few_live_groups(no_signal: float, groups: int) -> bool:
    """Whether most groups have no signal, or few have one; `no_signal` is the share of groups whose rewards
    are all equal.
    """
    return no_signal > MOSTLY_DEAD or (1 - no_signal) * groups < FEW_GROUPS


def few_had_signal(no_signal: float) -> str:
    """What was wrong with a training in which this share of the groups had equal rewards; "" if it was not
    large.
    """
    if no_signal == 1:
        return "in every logged step the rewards of each group were equal, so nothing was learnt"
    if no_signal > NEARLY_ALL:
        return f"in {no_signal:.0%} of all logged groups the rewards were equal, so little was learnt"
    return ""
