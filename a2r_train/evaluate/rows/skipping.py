"""`skip_unanimous`: bundles whose references all agree are answered by their vote, without a synthesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.names import CONTROL, VOTED_CONTROL, split
from a2r_train.evaluate.rows.panel import task_row, tasks
from a2r_train.evaluate.rows.row import Row, by_problem, mean
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
    asked = _are_contested(bundles)
    contested = [bundle for bundle, is_asked in zip(bundles, asked, strict=True) if is_asked]
    return _with_votes(task, bundles, asked, work.syntheses(task, contested) if contested else [])


def voted_control_rows(
    config: EvaluateConfig, bundles: Sequence[Bundle], found: Mapping[str, Sequence[Synthesis]]
) -> list[Row]:
    """With `skip_unanimous`, the no-reference control in the synthesizer's place: it answers contested
    bundles, and the others get the answer of their references. So the vote alone is no lead over the control.
    """
    controls = [task for task in tasks(config) if split(task.name)[0] == CONTROL]
    if not config.skip_unanimous or not controls:
        return []
    if all(_are_contested(bundles)):  # it would repeat the control
        return []
    rows = []
    for control in controls:
        task, made = in_the_synthesizers_place(config, control, bundles, found[control.name])
        row = task_row(task, bundles, made, note_of(bundles, made))
        rows.append(replace(row, name=VOTED_CONTROL + split(control.name)[1]))
    return rows


def in_the_synthesizers_place(
    config: EvaluateConfig, control: Task, bundles: Sequence[Bundle], made: Sequence[Synthesis]
) -> tuple[Task, list[Synthesis]]:
    """The no-reference control as stage 2 of the system: its task, and its answers, of which, with
    `skip_unanimous`, those to unanimous bundles are the votes'.
    """
    task = replace(control, view="references")
    if not config.skip_unanimous:
        return task, list(made)
    asked = _are_contested(bundles)
    contested = {bundle.id for bundle, is_asked in zip(bundles, asked, strict=True) if is_asked}
    own = [one for one in made if one.bundle_id in contested]
    return task, _with_votes(task, bundles, asked, own)


def _are_contested(bundles: Sequence[Bundle]) -> list[bool]:
    votes = [([r.answer for r in b.references], b.verifier) for b in bundles]
    return [not is_unanimous(pattern) for pattern in agreements(votes)]


def _with_votes(
    task: Task, bundles: Sequence[Bundle], asked: Sequence[bool], of_contested: Sequence[Synthesis]
) -> list[Synthesis]:
    """The answers to contested bundles, and between them those of the votes."""
    made = iter(of_contested)
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
