"""Which rows are compared, which comparisons are corrected together, and the kind of each row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from a2r_train.evaluate.rows.names import (
    ALONE,
    BASE,
    CONTROL,
    FALLBACK,
    GREEDY,
    RANDOM,
    SFT,
    TRAINED,
    VOTED_CONTROL,
    is_vote,
    split,
)
from a2r_train.evaluate.statistics import ALPHA

RIVALS = (  # in addition to every majority
    *(BASE, SFT, ALONE, CONTROL, VOTED_CONTROL, GREEDY),
    *(RANDOM, "universal-self-consistency", "genselect", "self-refine", "rounds", "adaptive"),
    *("explorer/grpo", "monolith"),
)
SAMPLED = {GREEDY: "pass@1"}  # the rival of a sampled row in place of the greedy one
KINDS = ("baseline", "untrained", "trained")
_UNTRAINED = (BASE, ALONE, "universal-self-consistency", "genselect", "self-refine")
_FROM_TRAINING = (*TRAINED, CONTROL, VOTED_CONTROL, "explorer/grpo", "rounds", "adaptive")


def default_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons that say whether training paid: the trained synthesizer, greedy and sampled, against
    its rivals.

    A sampled row (`name@T`) is compared with its rival's sampled row if there is one, else with the plain
    row.
    """
    pairs = []
    rivals = [*RIVALS, *(name for name in names if is_vote(name) or name.startswith("best-of-"))]
    for suffix in dict.fromkeys(split(name)[1] for name in names if split(name)[0] in TRAINED):
        trained = next(name + suffix for name in TRAINED if name + suffix in names)
        for rival in rivals:
            other = rival + suffix if rival + suffix in names else rival
            other = SAMPLED.get(other, other) if suffix else other
            if other in names and other != trained:
                pairs.append((trained, other))
    return pairs + _longer(names)


def _longer(names: Sequence[str]) -> list[tuple[str, str]]:
    """Does the most trained synthesizer gain from more completion tokens, and is it still above pass@1 with
    as many?
    """
    final = next((name for name in (*TRAINED, BASE) if name in names), "")
    pairs = []
    for name in names:
        head, _, factor = name.rpartition("/")
        if head == final and re.fullmatch(r"\d+x", factor):
            pairs += [(name, other) for other in (head, f"pass@1/{factor}") if other in names]
    return pairs


def family(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What is corrected together, for results.json and the report."""
    return {
        "correction": "Holm 1979",
        "alpha": ALPHA,
        "size": len(pairs),
        "statement": (
            f"The {len(pairs)} paired differences, greedy and sampled, are one family and are corrected "
            "together. All other differences, between other rows or in the diagnostics, are descriptive: "
            "their intervals are for one comparison by itself, and nothing is claimed from them."
        ),
    }


def is_significant(pair: Mapping[str, Any]) -> bool:
    """Whether both the corrected interval and the corrected p show a difference; with few problems the two
    may disagree.
    """
    return bool(pair["p_holm"] <= ALPHA and not pair["low_holm"] <= 0 <= pair["high_holm"])


def is_undone_by_p(pair: Mapping[str, Any]) -> bool:
    """Whether the corrected interval excludes 0 but the corrected p does not reject, as with few problems."""
    return bool(pair["p_holm"] > ALPHA and not pair["low_holm"] <= 0 <= pair["high_holm"])


P_DECIDES = (
    "If the interval excludes 0 but the corrected p is over 0.05, the p decides, and no difference is "
    "claimed: the two may disagree near the limit, and with few problems the interval is too narrow."
)


def significant_side(pair: Mapping[str, Any]) -> str:
    """`above`, `below`, or `` if the two cannot be told apart."""
    return ("above" if pair["low_holm"] > 0 else "below") if is_significant(pair) else ""


def kind(name: str) -> str:
    """One of KINDS. Rows that use no model of the training are baselines."""
    head = split(name.partition(" ")[0])[0].removesuffix(FALLBACK)
    head = head if head in (*_UNTRAINED, *_FROM_TRAINING) else head.rpartition("/")[0] or head
    if head in _FROM_TRAINING:
        return "trained"
    return "untrained" if head in _UNTRAINED else "baseline"
