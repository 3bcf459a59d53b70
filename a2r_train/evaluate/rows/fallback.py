"""`vote_fallback`: a synthesis that cannot be read is answered by the vote of its references, as in solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.names import CONTROL, FALLBACK, split
from a2r_train.evaluate.rows.panel import task_row, tasks
from a2r_train.evaluate.rows.row import Row, synthesis_row
from a2r_train.evaluate.rows.skipping import in_the_synthesizers_place
from a2r_train.records import UNPARSABLE, Bundle, Synthesis


def fallback_rows(
    config: EvaluateConfig, bundles: Sequence[Bundle], found: Mapping[str, Sequence[Synthesis]]
) -> list[Row]:
    """For each synthesizer, and for the control in its place, a row in which the vote answers what cannot be
    read. The synthesis has been paid for, so tokens and the share of unparsable answers stay.
    """
    rows = []
    for task in tasks(config) if config.vote_fallback else ():
        if not (task.has_verdicts or split(task.name)[0] == CONTROL):
            continue
        made = found[task.name]
        if not task.is_synthesis:
            task, made = in_the_synthesizers_place(config, task, bundles, made)
        answered = _with_fallback(bundles, made)
        voted = sum(one is not other for one, other in zip(made, answered, strict=True))
        name, suffix = split(task.name)
        note = f"{100 * voted / len(made):.0f} % not readable, answered by their vote" if made else ""
        row = task_row(task, bundles, made, note)
        scores = synthesis_row(task.name, bundles, answered).scores
        rows.append(replace(row, name=f"{name}{FALLBACK}{suffix}", scores=scores))
    return rows


def _with_fallback(bundles: Sequence[Bundle], made: Sequence[Synthesis]) -> list[Synthesis]:
    """The syntheses; one that cannot be read has the answer and the verdict of its bundle's vote, if any."""
    by_id = {bundle.id: bundle for bundle in bundles}
    return [_of_vote(by_id[one.bundle_id], one) if one.verdict == UNPARSABLE else one for one in made]


def _of_vote(bundle: Bundle, synthesis: Synthesis) -> Synthesis:
    if not bundle.majority_answer:
        return synthesis
    return replace(synthesis, answer=bundle.majority_answer, verdict=bundle.majority_verdict)
