"""Diagnostics of the synthesizer rows: what the means of the table hide. Pure functions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from a2r_train.data.unparsable import unparsable
from a2r_train.evaluate.rows.row import (
    accuracies,
    by_bundle,
    explorer_texts,
    mean,
    size_label,
    stage_tokens,
)
from a2r_train.evaluate.statistics import Scores
from a2r_train.records import CORRECT, VOTED, Bundle, Reference, Rollout, Synthesis
from a2r_train.verify import equivalent, majority

MOST_SOURCES = 12  # problem sets; more of them are templates or chapters, and a table would say nothing


def diagnose(
    bundles: Sequence[Bundle], votes: Scores, syntheses: Mapping[str, Sequence[Synthesis]]
) -> dict[str, Any]:
    """Diagnostics of each synthesizer row (name -> syntheses) against the majority, ready for results.json.

    `by_correct` and `by_majority`: accuracy, the majority's too, by number of correct references and by votes
    for the most frequent answer; `by_source`, if there are 2 to MOST_SOURCES; `flips`: counts of syntheses by
    `flip_kind`; `new_correct`: accuracy where every reference is wrong; `copy_rate`: share of the syntheses
    with the majority's answer; `tokens_by_stage`: means over problems. Comparisons with votes are left out if
    there are no votes.
    """
    keys: dict[str, Sequence[int | str]] = {"by_correct": [b.n_correct for b in bundles]}
    if is_voted := not any(map(math.isnan, votes)):
        keys["by_majority"] = [
            max(map(len, majority([r.answer for r in b.references], b.verifier).groups), default=0)
            for b in bundles
        ]
    if 1 < len({b.source for b in bundles}) <= MOST_SOURCES:
        keys["by_source"] = [b.source for b in bundles]
    found: dict[str, Any] = {
        key: {f"maj@{size_label(bundles)}": _cells(of, votes)} if is_voted else {} for key, of in keys.items()
    }
    found |= {key: {} for key in ("flips", "new_correct", "copy_rate", "tokens_by_stage")}
    for name, given in syntheses.items():
        grouped = by_bundle(bundles, given)
        for key, of in keys.items():
            found[key][name] = _cells(of, accuracies(grouped))
        found["new_correct"][name] = found["by_correct"][name].get("0", {"n": 0, "accuracy": float("nan")})
        counts = Counter(
            flip_kind(vote, s) for vote, group in zip(votes, grouped, strict=True) for s in group
        )
        if is_voted:
            found["flips"][name] = {kind: counts[kind] for kind in FLIP_KINDS}
            found["copy_rate"][name] = _copy_rate(bundles, grouped)
        found["tokens_by_stage"][name] = stage_tokens(bundles, grouped)
    return found


def unparsable_texts(
    bundles: Sequence[Bundle], rollouts: Sequence[Rollout], syntheses: Mapping[str, Sequence[Synthesis]]
) -> dict[str, Any]:
    """`unparsable`: for each row with many texts without a readable answer, what to do, and a sample."""
    counted = {"pass@1": unparsable(explorer_texts(bundles, rollouts))}
    counted |= {name: unparsable(made) for name, made in syntheses.items()}
    many = {name: one for name, one in counted.items() if one.many}
    told = {name: {"share": u.share, "sample": u.sample, "remedy": u.remedy} for name, u in many.items()}
    return {"unparsable": told} if told else {}


def by_explorer(bundles: Sequence[Bundle]) -> dict[str, Any]:
    """`by_explorer`: accuracy of the references of each model, if the bundles have those of several."""
    written: defaultdict[str, list[Reference]] = defaultdict(list)
    for reference in (r for bundle in bundles for r in bundle.references):
        written[reference.model].append(reference)
    if len(written) < 2:
        return {}
    found = {
        model: {
            "references": len(texts),
            "accuracy": mean(float(text.verdict == CORRECT) for text in texts),
            "unparsable": unparsable(texts).share,
        }
        for model, texts in sorted(written.items())
    }
    return {"by_explorer": found}


FLIP_KINDS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


def flip_kind(vote: float, synthesis: Synthesis) -> str:
    """The change from the majority to the synthesis; a tied majority is right if its expected accuracy is at
    least one half. Without a vote, the kind is that of the synthesis alone.
    """
    after = "right" if synthesis.verdict == CORRECT else "wrong"
    if math.isnan(vote):
        return after
    return f"{'right' if vote >= 0.5 else 'wrong'}_to_{after}"


def _cells(keys: Sequence[int | str], values: Iterable[float]) -> dict[str, dict[str, float]]:
    """Mean and number of the values of each key; NaN left out."""
    cells: defaultdict[Any, list[float]] = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        if not math.isnan(value):
            cells[key].append(value)
    return {str(key): {"n": len(cells[key]), "accuracy": mean(cells[key])} for key in sorted(cells)}


def _copy_rate(bundles: Sequence[Bundle], grouped: Sequence[Sequence[Synthesis]]) -> float:
    """Share of syntheses with the majority's answer, over bundles with a majority; no answer is no copy, and
    an answer that the vote gave is no synthesis.
    """
    pairs = [
        (b, s.answer)
        for b, group in zip(bundles, grouped, strict=True)
        for s in group
        if b.majority_answer and s.finish_reason != VOTED
    ]
    return mean(
        float(bool(answer) and equivalent(answer, b.majority_answer, b.verifier) == CORRECT)
        for b, answer in pairs
    )
