"""What the probe would have said about the bundles of an evaluation, in one line beside its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from a2r_train.evaluate.probe.power import shares_of, shown_pattern
from a2r_train.evaluate.probe.predict import ERROR, ERROR_ALONE
from a2r_train.evaluate.probe.selector import Selector, fit
from a2r_train.evaluate.report.tables import percent, points
from a2r_train.evaluate.rows.names import TRAINED
from a2r_train.evaluate.rows.row import accuracies, by_bundle
from a2r_train.evaluate.statistics import TWO_SIDED
from a2r_train.records import VOTED, Bundle, Synthesis

FEWEST = 50  # problems: with fewer, chance is above 14 points, whatever is predicted


def probe_line(
    bundles: Sequence[Bundle], base: Sequence[Synthesis], results: Mapping[str, Any] | None = None
) -> str:
    """The headroom over the vote, the prediction from these bundles and the untrained answers to them, and
    the measured accuracy if `results` have a trained row; "" if there are so few problems that chance
    decides.
    """
    patterns, shares = shares_of(bundles)
    if len(shares) < FEWEST:
        return ""
    weights = shares.mean(axis=0)
    selector = Selector()
    if base := [one for one in base if one.finish_reason != VOTED]:  # a vote says nothing about the model
        right = accuracies(by_bundle(bundles, base))
        selector = fit([shown_pattern(b) for b in bundles], right, [1.0] * len(bundles))
    vote = float(weights @ [p.vote for p in patterns])
    headroom = float(weights @ [float(p.n_correct > 0) for p in patterns]) - vote
    chances = selector.trained().chances(patterns)
    trained, error = float(weights @ chances), 100 * (ERROR if base else ERROR_ALONE)
    # for one answer per problem, assuming that the prediction is right
    chance = 100 * TWO_SIDED * math.sqrt(float(weights @ (chances * (1 - chances))) / len(shares))
    said = (
        f"a2r probe: a headroom of {100 * headroom:.1f} points over the vote; {percent(trained)} % predicted "
        f"for a trained synthesizer, {points(trained - vote)} over the vote (it erred by {error:.1f} points "
        f"in the runs of docs/probe.md, of other models; {len(shares):,} problems add {chance:.1f} by chance)"
    )
    rows = {row["name"]: row["accuracy"] for row in (results or {}).get("rows", ())}
    name = next((n for n in TRAINED if n in rows), "")
    return f"{said}; measured {percent(rows[name])} %" if name else said
