"""`skip_unanimous`: bundles whose references all agree are answered by their vote, without a synthesis."""

from __future__ import annotations

from collections.abc import Sequence

from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.row import by_problem, mean
from a2r_train.records import VOTED, Bundle, Synthesis
from a2r_train.verify.vote import agreements, is_unanimous


def is_skipping(config: EvaluateConfig, task: Task) -> bool:
    """Whether the task is asked about contested bundles only."""
    return config.skip_unanimous and task.is_synthesis


def answers_to(work: Answers, task: Task, bundles: Sequence[Bundle]) -> list[Synthesis]:
    """The answers to a task, one for each sample of each bundle, in this order.

    With `skip_unanimous`, a synthesizer is asked about contested bundles only. The others get the answer of
    their references, for no token of the synthesizer's.
    """
    if not is_skipping(work.config, task):
        return work.syntheses(task, bundles)
    votes = [([r.answer for r in b.references], b.verifier) for b in bundles]
    asked = [not is_unanimous(pattern) for pattern in agreements(votes)]
    contested = [bundle for bundle, is_asked in zip(bundles, asked, strict=True) if is_asked]
    made = iter(work.syntheses(task, contested) if contested else [])
    return [
        next(made) if is_asked else _of_vote(bundle, sample, task.model)
        for bundle, is_asked in zip(bundles, asked, strict=True)
        for sample in range(task.samples)
    ]


def _of_vote(bundle: Bundle, sample: int, model: str) -> Synthesis:
    first = bundle.references[0]  # all have its answer
    return Synthesis(bundle.id, sample, first.text, first.answer, first.verdict, 0, 0, VOTED, model, 0)


def note_of(bundles: Sequence[Bundle], made: Sequence[Synthesis]) -> str:
    """How many bundles are answered by their vote, for the note of a row; "" if none is."""
    voted = {one.bundle_id for one in made if one.finish_reason == VOTED}
    share = mean(by_problem(bundles, [float(bundle.id in voted) for bundle in bundles]))
    return f"{100 * share:.0f} % unanimous, answered by their vote" if voted else ""
