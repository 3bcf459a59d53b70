"""Rollouts made elsewhere: bundles of them, and whether our verdicts agree with the labels in the file."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from a2r_train.data.builder import make_bundles
from a2r_train.data.files import literal, rows
from a2r_train.data.read import ALIASES, Columns, Row, is_untested
from a2r_train.data.rollouts import load_rollouts, problem_beside, samples_in
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import prompt_of_references
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.row import mean
from a2r_train.paths import paths_in
from a2r_train.records import CORRECT, Bundle, Problem, Rollout

log = logging.getLogger(__name__)
MAX_LISTED = 50
TEXTS = {name for field in ("text", "texts") for name in (field, *ALIASES[field])}


def is_outside(path: str) -> bool:
    """Whether a file holds rollouts made elsewhere rather than bundles."""
    first = islice(rows(paths_in(path)[0]), 1)
    return any("references" not in row and row.keys() & TEXTS for _, row in first)


def load(config: EvaluateConfig) -> tuple[list[Bundle], list[Rollout], dict[str, Any]]:
    """One bundle of each problem that has k rollouts, all rollouts with our verdicts, and the comparison with
    their labels.

    Raises InputError for what `a2r bundle` refuses, and if no problem has k rollouts.
    """
    problems, rollouts = load_rollouts(
        "",
        config.bundles,
        prompt=prompt_of_references(config),
        leave_out_bad_golds=config.leave_out_bad_golds,
    )
    by_problem: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        by_problem[rollout.problem_id].append(rollout)
    bundles = [
        b
        for p in problems
        for b in make_bundles(p, by_problem[p.id], k=config.k, k_min=0, count=1, seed=config.seed)
    ]
    if not bundles:
        raise InputError(f"{config.bundles}: no problem has {config.k} rollouts; lower k")
    columns = Columns()
    files = map(columns.rows, paths_in(config.bundles))
    labelled = (row for row in chain.from_iterable(files) if not is_untested(row))
    if config.leave_out_bad_golds:
        kept = {problem.problem for problem in problems}
        labelled = (row for row in labelled if problem_beside(row, "").problem in kept)
    labels = [one for row in labelled for one in _labels(row, config.label)]
    if config.label not in {EvaluateConfig.label, *columns.met}:  # named, and not there
        there = ", ".join(sorted(columns.met))
        raise InputError(f"{config.bundles}: no column {config.label!r} for `label`; the columns are {there}")
    counts = {"problems": len(problems), "without_a_bundle": len(problems) - len(bundles)}
    if without := counts["without_a_bundle"]:
        log.warning(
            "%s: %d of %d problems have fewer than %d rollouts and are left out",
            config.bundles, without, len(problems), config.k,
        )  # fmt: skip
    return bundles, rollouts, _against_labels(problems, rollouts, labels) | counts


def _labels(row: Row, column: str) -> list[bool | None]:
    """The verdict in the file on each rollout of a row: one value, or a list beside a list of texts.

    Raises InputError for another number of them: a single verdict beside several texts may be on any of them.
    """
    value, count = row.values.get(column), len(samples_in(row, "", 0))
    values = literal(value) if isinstance(value, str) else value
    if not isinstance(values, list):
        values = [value] if value not in (None, "") else [None] * count
    if len(values) != count:
        raise InputError(
            f"{row.place}: {column} is {repr(value)[:40]}, but the row has {count} texts; expected a list "
            "with a value for each"
        )
    return [_label(one, column, row.place) for one in values]


def _label(value: Any, column: str, place: str) -> bool | None:
    """The verdict; None without one. Raises InputError unless it is true or false."""
    if value is None or value == "":
        return None
    known = {"true": True, "1": True, "false": False, "0": False}
    if (text := str(value).lower()) not in known:
        raise InputError(f"{place}: {column} is {value!r}; expected true or false")
    return known[text]


def _against_labels(
    problems: Sequence[Problem], rollouts: Sequence[Rollout], labels: Sequence[bool | None]
) -> dict[str, Any]:
    """By model: rollouts, accuracy by our verdicts, agreement with the labels; and the first
    disagreements.
    """
    golds = {problem.id: problem for problem in problems}
    pairs = list(zip(rollouts, labels, strict=True))
    labelled = [(r, label) for r, label in pairs if label is not None]
    differing = [(r, label) for r, label in labelled if (r.verdict == CORRECT) != label]
    models = {}
    for model in dict.fromkeys(r.model for r in rollouts):
        own = [(r, label) for r, label in pairs if r.model == model]
        agreed = [float((r.verdict == CORRECT) == label) for r, label in own if label is not None]
        models[model] = {
            "rollouts": len(own),
            "accuracy": float(np.mean([r.verdict == CORRECT for r, _ in own])),
            "agreement": mean(agreed),
        }
    listed = [
        {
            "problem": golds[r.problem_id].problem[:200],
            "gold": golds[r.problem_id].answer,
            "answer": r.answer,
            "verdict": r.verdict,
            "label": label,
            "model": r.model,
        }
        for r, label in differing[:MAX_LISTED]
    ]
    counts = {
        "labelled": len(labelled),
        "differing": len(differing),
        "label_right": sum(label for _, label in differing),
    }
    return {"models": models, "disagreements": listed, **counts}
