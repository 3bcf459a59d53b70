"""What a synthesizer's verdicts on its references are worth, if its prompt has sections.

This is how well they tell right from wrong within a bundle, and a vote of the references weighted by them.
The weights are the words or, if the engine reports them, the probabilities of `right`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.panel import task_row, tasks
from a2r_train.evaluate.rows.row import Row, by_bundle, by_problem, mean
from a2r_train.evaluate.verdict_words import UNSAID
from a2r_train.prompts import PromptConfig
from a2r_train.records import CORRECT, VOTED, Bundle, Synthesis, row_of
from a2r_train.sections import Parts
from a2r_train.verify import has_vote, judge_all, majority

log = logging.getLogger(__name__)
SUFFIX = "/verdict-vote"
NOTE = "the vote of the references, weighted by its verdicts"
SURE = NOTE + ", as sure as it was of them"


@dataclass(frozen=True)
class Judged:
    """The syntheses of one row, split into parts, with their bundles: one entry per synthesis. Bundles that
    `skip_agreement` left to their vote have none.
    """

    bundles: list[Bundle]
    made: list[Synthesis]
    parts: list[Parts]

    @staticmethod
    def of(bundles: Sequence[Bundle], made: Sequence[Synthesis], prompt: PromptConfig) -> Judged:
        grouped = zip(bundles, by_bundle(bundles, made), strict=True)
        pairs = [(bundle, one) for bundle, group in grouped for one in group if one.finish_reason != VOTED]
        parts = [prompt.parts_of(one.text) or Parts() for _, one in pairs]
        return Judged([bundle for bundle, _ in pairs], [one for _, one in pairs], parts)

    def said_and_true(self) -> list[tuple[list[bool | None], list[bool]]]:
        """For each synthesis, by reference: the verdict that it gives, and the true one."""
        return [
            (parts.judged(len(b.references)), [r.verdict == CORRECT for r in b.references])
            for b, parts in zip(self.bundles, self.parts, strict=True)
        ]

    def words(self) -> dict[str, list[float]]:
        """By bundle: the mean verdict on each reference over the samples; 1 is right, 0 is wrong."""
        return self._means(
            [UNSAID if one is None else float(one) for one in said] for said, _ in self.said_and_true()
        )

    def probabilities(self) -> dict[str, list[float]]:
        """By bundle: the mean probability of `right` for each reference; {} if the engine reports none."""
        told = [one.verdict_probabilities for one in self.made]
        return self._means(told) if told and all(told) else {}

    def _means(self, values: Iterable[list[float]]) -> dict[str, list[float]]:
        found: dict[str, list[list[float]]] = {}
        for bundle, scores in zip(self.bundles, values, strict=True):
            found.setdefault(bundle.id, []).append(scores)
        return {identity: np.mean(scores, axis=0).tolist() for identity, scores in found.items()}


def verdict_rows(
    config: EvaluateConfig,
    work: Answers,
    bundles: Sequence[Bundle],
    found: Mapping[str, list[Synthesis]],
) -> tuple[list[Row], dict[str, Any]]:
    """A row of the weighted vote for each greedy synthesizer, and the diagnostics `verdicts` of all that read
    references. Models whose prompt has no sections are left out.
    """
    rows: list[Row] = []
    details: dict[str, Any] = {}
    is_voted = all(has_vote(bundle.verifier) for bundle in bundles)
    for task in tasks(config):
        prompt = work.prompt(task.model)
        if not task.has_verdicts or not prompt.sections:
            continue
        judged = Judged.of(bundles, found[task.name], prompt)
        words, probabilities = judged.words(), judged.probabilities()
        details[task.name] = {**_shares(judged), **within_bundles(bundles, words)}
        if details[task.name]["unsaid"] == 1:
            log.warning(
                "%s: no text has a verdict on a reference, so there is no vote weighted by verdicts",
                task.name,
            )
            continue
        if probabilities:
            details[task.name]["sure_auc"] = within_bundles(bundles, probabilities)["auc"]
        if is_voted and not task.sampled:
            voted = _vote_row(task, bundles, found[task.name], probabilities or words)
            rows.append(replace(voted, note=SURE) if probabilities else voted)
    return rows, {"verdicts": details} if details else {}


def _vote_row(
    task: Task,
    bundles: Sequence[Bundle],
    made: Sequence[Synthesis],
    scores: Mapping[str, Sequence[float]],
) -> Row:
    values = [weighted_vote(b, scores.get(b.id, [0.0] * len(b.references))) for b in bundles]
    row = task_row(task, bundles, made)
    name = f"{task.name}{SUFFIX}"
    return replace(row, name=name, scores=by_problem(bundles, values), note=NOTE, unparsable=math.nan)


def weighted_vote(bundle: Bundle, weights: Sequence[float]) -> float:
    """Expected accuracy of the answer with the largest sum of weights.

    If sums are equal, the more frequent answer wins, so that without any verdict it is the plain vote.
    Answers that still tie are equally likely. 0 if nobody votes.
    """
    groups = majority([r.answer for r in bundle.references], bundle.verifier).groups
    if not groups:
        return 0.0
    sizes = [(round(sum(weights[i] for i in group), 9), len(group)) for group in groups]
    tied = [group for group, size in zip(groups, sizes, strict=True) if size == max(sizes)]
    return mean(mean(float(bundle.references[i].verdict == CORRECT) for i in group) for group in tied)


def within_bundles(bundles: Sequence[Bundle], scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """`pairs`: the number of pairs of a right and a wrong reference of one bundle; `auc`: the share of them
    in which the right one has the better verdict; a tie counts one half.
    """
    better: list[float] = []
    for bundle in bundles:
        if bundle.id not in scores:
            continue
        by_class: dict[bool, list[float]] = {True: [], False: []}
        for reference, score in zip(bundle.references, scores[bundle.id], strict=True):
            by_class[reference.verdict == CORRECT].append(score)
        better += [
            1.0 if right > wrong else 0.5 if right == wrong else 0.0
            for right in by_class[True]
            for wrong in by_class[False]
        ]
    return {"auc": mean(better), "pairs": len(better)}


def _shares(judged: Judged) -> dict[str, float]:
    """Shares of the syntheses that are complete, and of those whose own solution is right; of the right
    references that are called right, and of the wrong ones that are called wrong; and of references without a
    verdict.
    """
    whole = [p.are_whole(len(b.references)) for b, p in zip(judged.bundles, judged.parts, strict=True)]
    asked = [(p.solution, b.answer, b.verifier) for b, p in zip(judged.bundles, judged.parts, strict=True)]
    own = judge_all(asked, [row_of(b) for b in judged.bundles])
    pairs = [pair for said, so in judged.said_and_true() for pair in zip(said, so, strict=True)]
    return {
        "complete": mean(map(float, whole)),
        "own_solution": mean(float(one.verdict == CORRECT) for one in own),
        "right_called_right": mean(float(said is True) for said, so in pairs if so),
        "wrong_called_wrong": mean(float(said is False) for said, so in pairs if not so),
        "unsaid": mean(float(said is None) for said, _ in pairs),
    }
