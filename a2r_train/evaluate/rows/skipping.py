"""Row `skip_unanimous`: contested bundles by the synthesizer, unanimous ones by their vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.row import (
    Part,
    Row,
    by_problem,
    mean,
    mean_over_problems,
    reference_part,
    reference_tokens,
)
from a2r_train.evaluate.statistics import gain_ratio, paired
from a2r_train.records import CORRECT, Bundle
from a2r_train.verify.vote import agreements, is_unanimous


def skipping_row(
    config: EvaluateConfig, work: Answers, final: Task, bundles: Sequence[Bundle]
) -> tuple[Row, dict[str, Any]]:
    """The row, made from the answers of the most trained synthesizer, and what it saves compared with them.

    `vote` and `synthesizer` are the accuracies of both on the unanimous bundles; None if there are none.
    """
    made = work.syntheses(final, bundles)
    votes = [([r.answer for r in b.references], b.verifier) for b in bundles]
    skipped = np.array([is_unanimous(pattern) for pattern in agreements(votes)], dtype=bool)
    own = np.array([s.verdict == CORRECT for s in made], dtype=float)
    vote = np.array([b.majority_verdict == CORRECT for b in bundles], dtype=float)
    prompt, completion = (
        np.array([getattr(s, key) for s in made], dtype=float)
        for key in ("prompt_tokens", "completion_tokens")
    )
    before, scores = by_problem(bundles, own), by_problem(bundles, np.where(skipped, vote, own))
    read = np.array(reference_tokens(bundles))
    every = by_problem(bundles, read + prompt + completion)
    tokens = by_problem(bundles, read + np.where(skipped, 0, prompt + completion))
    drawn = {"seed": config.seed, "draws": config.draws}
    left, low, high = gain_ratio(tokens, 0 * tokens, every, **drawn)
    change = paired(scores, before, **drawn)
    share = mean(by_problem(bundles, skipped.astype(float)))
    found: dict[str, Any] = {"of": final.name, "skipped": share, "saved": 1 - left}
    found |= {"low": 1 - high, "high": 1 - low}
    found["change"] = {"difference": change.difference, "low": change.low, "high": change.high}
    found |= {"vote": mean(vote[skipped]), "synthesizer": mean(own[skipped])}
    note = f"{100 * share:.0f} % unanimous, answered by their vote"
    asked = [mean_over_problems(bundles, np.where(skipped, 0, values)) for values in (prompt, completion)]
    stage = Part(final.model, asked[0], asked[1])
    parts = (reference_part(bundles), stage)
    return Row("skip_unanimous", scores, mean(tokens), note, parts), found
