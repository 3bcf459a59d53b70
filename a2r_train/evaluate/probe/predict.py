"""The accuracy that a trained synthesizer would have on these bundles, from how training changed others.

The two errors are root mean squares of predicted minus measured accuracy over the evaluations of
docs/probe.md, each predicted only from those of other explorers; scripts/proofs/check_probe.py measures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from a2r_train.data.probe import Floats
from a2r_train.evaluate.probe.facts import Facts, last_vote
from a2r_train.evaluate.probe.power import spread_against_base, spread_against_vote
from a2r_train.evaluate.probe.selector import Selector

ERROR = 0.028  # if the untrained synthesizer was asked
ERROR_ALONE = 0.038  # from rollouts alone
Found = dict[str, Any]


def predict(facts: Facts, base: Selector, greedy: float | None, equal: int | None) -> Found:
    """Accuracy of the trained synthesizer, and its gain over the untrained one, the vote and a vote of equal
    tokens. The intervals cover only the choice of problems; `error` comes on top.

    greedy: the measured accuracy of the untrained one; without it, that of its selector on all bundles.
    """
    trained = base.trained()
    of_trained = facts.of_problems(trained.right)
    columns: dict[str, Floats] = {
        "trained": of_trained,
        "base": facts.of_problems(base.right),
        "over_base": of_trained - facts.of_problems(base.right),
        "over_vote": of_trained - facts.of_problems(lambda p: p.vote),
    }
    if equal:
        columns["over_equal"] = of_trained - last_vote(facts, equal)[facts.kept]
    found: Found = dict(facts.with_intervals(**columns))
    selector = {"weight": trained.weight, "accuracy": trained.accuracy, "new": trained.new}
    untrained = {"weight": base.weight, "accuracy": base.accuracy, "new": base.new}
    return found | {
        "selector": selector,
        "untrained": untrained,
        "greedy": greedy,
        "error": ERROR_ALONE if greedy is None else ERROR,
        "equal": equal,
    }


def power(facts: Facts, base: Selector, predicted: Mapping[str, Any], bundles: int) -> Found:
    """For the vote and the untrained synthesizer: the smallest difference that this number of problems can
    detect, and the problems and bundles needed to detect the predicted gain.
    """
    trained, n = base.trained(), len(facts.shares)
    spreads = {
        "vote": spread_against_vote(facts.patterns, facts.shares, trained),
        "base": spread_against_base(facts.patterns, facts.shares, trained, base),
    }
    found: Found = {"problems": n, "bundles_per_problem": bundles}
    for rival, spread in spreads.items():
        gain = predicted[f"over_{rival}"]["value"]
        needed = spread.problems(gain, bundles) if gain > 0 else None
        found[rival] = {
            "smallest": spread.smallest(n, bundles),
            "gain": gain,
            "needed_problems": needed,
            "needed_bundles": needed and needed * bundles,
            "between": spread.between,
            "within": spread.within,
        }
    return found


def is_at_chance(told: Mapping[str, Any], low: float, high: float) -> bool:
    """Whether the interval allows that the consistent choices are as often wrong as right."""
    known = bool(told["pairs"]) and np.isfinite([low, high]).all()
    return bool(known and low <= 0.5 <= high)
