"""`skip_agreement`: where enough references agree, their vote answers, without a synthesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.names import CONTROL, VOTED_CONTROL, split
from a2r_train.evaluate.rows.panel import task_row, tasks
from a2r_train.evaluate.rows.row import Row, by_problem, mean
from a2r_train.records import VOTED, Bundle, Synthesis
from a2r_train.verify.vote import agreed


def is_skipping(config: EvaluateConfig, task: Task) -> bool:
    """Whether the task is asked only about bundles in which too few references agree."""
    return config.skip_agreement > 0 and task.is_synthesis


def answers_to(work: Answers, task: Task, bundles: Sequence[Bundle]) -> list[Synthesis]:
    """The answers to a task, one for each sample of each bundle, in this order.

    With `skip_agreement`, a synthesizer is asked only where too few references agree. The other bundles get
    the answer of their references, for no token of the synthesizer's.
    """
    if not is_skipping(work.config, task):
        return work.syntheses(task, bundles)
    leading = _agreed(work.config, bundles)
    asked = [bundle for bundle, agreed_on in zip(bundles, leading, strict=True) if agreed_on is None]
    return _with_votes(task, bundles, leading, work.syntheses(task, asked) if asked else [])


def voted_control_rows(
    config: EvaluateConfig, bundles: Sequence[Bundle], found: Mapping[str, Sequence[Synthesis]]
) -> list[Row]:
    """With `skip_agreement`, the no-reference control in the synthesizer's place: where enough references
    agree, their vote answers instead. So the vote alone is no lead over the control.
    """
    controls = [task for task in tasks(config) if split(task.name)[0] == CONTROL]
    if not config.skip_agreement or not controls:
        return []
    if not any(place is not None for place in _agreed(config, bundles)):  # it would repeat the control
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
    """The no-reference control as stage 2 of the system: its task, and its answers. With `skip_agreement`,
    those to bundles in which enough references agree are the votes'.
    """
    task = replace(control, view="references")
    if not config.skip_agreement:
        return task, list(made)
    leading = _agreed(config, bundles)
    asked = {bundle.id for bundle, agreed_on in zip(bundles, leading, strict=True) if agreed_on is None}
    own = [one for one in made if one.bundle_id in asked]
    return task, _with_votes(task, bundles, leading, own)


def _agreed(config: EvaluateConfig, bundles: Sequence[Bundle]) -> list[int | None]:
    """By bundle: the first of the references on which enough agree, as an index; None if too few do."""
    return agreed([([r.answer for r in b.references], b.verifier) for b in bundles], config.skip_agreement)


def _with_votes(
    task: Task, bundles: Sequence[Bundle], leading: Sequence[int | None], of_asked: Sequence[Synthesis]
) -> list[Synthesis]:
    """The answers to bundles that the model is asked about, and between them those of the votes."""
    made = iter(of_asked)
    return [
        next(made) if agreed_on is None else _of_vote(bundle, agreed_on, sample, task.model)
        for bundle, agreed_on in zip(bundles, leading, strict=True)
        for sample in range(task.samples)
    ]


def _of_vote(bundle: Bundle, at: int, sample: int, model: str) -> Synthesis:
    leader = bundle.references[at]
    return Synthesis(bundle.id, sample, leader.text, leader.answer, leader.verdict, 0, 0, VOTED, model, 0)


def note_of(bundles: Sequence[Bundle], made: Sequence[Synthesis]) -> str:
    """How many bundles are answered by their vote, for the note of a row; "" if none is."""
    voted = {one.bundle_id for one in made if one.finish_reason == VOTED}
    share = mean(by_problem(bundles, [float(bundle.id in voted) for bundle in bundles]))
    return f"{100 * share:.0f} % agree, answered by their vote" if voted else ""
