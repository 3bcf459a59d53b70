"""What the probe would have said of the bundles of an evaluation, in one line beside its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from a2r_train.evaluate.probe.power import shares_of, shown_pattern
from a2r_train.evaluate.probe.predict import ERROR, ERROR_ALONE
from a2r_train.evaluate.probe.selector import Selector, fit
from a2r_train.evaluate.report.pairs import TRAINED
from a2r_train.evaluate.report.tables import percent, points
from a2r_train.evaluate.rows.row import accuracies, by_bundle
from a2r_train.records import Bundle, Synthesis


def probe_line(
    bundles: Sequence[Bundle], base: Sequence[Synthesis], results: Mapping[str, Any] | None = None
) -> str:
    """The room over the vote, the prediction from these bundles and the untrained answers to them, and what
    was measured where `results` have a trained row.
    """
    patterns, shares = shares_of(bundles)
    weights = shares.mean(axis=0)
    selector = Selector()
    if base:
        right = accuracies(by_bundle(bundles, base))
        selector = fit([shown_pattern(b) for b in bundles], right, [1.0] * len(bundles))
    vote = float(weights @ [p.vote for p in patterns])
    room = float(weights @ [float(p.n_correct > 0) for p in patterns]) - vote
    trained = float(weights @ selector.trained().chances(patterns))
    error = 100 * (ERROR if base else ERROR_ALONE)
    said = (
        f"a2r probe: a room of {100 * room:.1f} points over the vote; {percent(trained)} % predicted for a "
        f"trained synthesizer, {points(trained - vote)} over the vote (error {error:.1f} points)"
    )
    rows = {row["name"]: row["accuracy"] for row in (results or {}).get("rows", ())}
    name = next((n for n in TRAINED if n in rows), "")
    return f"{said}; measured {percent(rows[name])} %" if name else said
