"""The final synthesizers of several kept evaluations on the same problems, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate.kept import Kept, find_evaluations, opened
from a2r_train.evaluate.report.tables import points, span
from a2r_train.evaluate.rows.panel import final_task, tasks
from a2r_train.evaluate.rows.row import bundle_votes, by_problem, problem_ids
from a2r_train.evaluate.statistics import Scores, holm, paired
from a2r_train.records import CORRECT, Bundle


@dataclass(frozen=True, eq=False)
class Setting:
    """One evaluation: scores [n_problems] in 0..1 of the vote and of the final synthesizer, greedy and, if
    the recipe asked for it, sampled.
    """

    name: str
    problems: list[str]
    n_correct: Scores  # [n_problems], right references of the problem's first bundle
    vote: Scores
    greedy: Scores
    sampled: Scores | None

    @property
    def both(self) -> Scores:
        return self.greedy if self.sampled is None else (self.greedy + self.sampled) / 2


def compare(roots: Sequence[str], against: str = "") -> list[str]:
    """The lines of a Markdown table of the evaluations below the roots; "" compares with the first of them.

    An evaluation is named by its path; with a single root, by its path below that root. Raises InputError as
    `load` and `table`.
    """
    folders = [folder for root in roots for folder in find_evaluations(root)]
    named = {_name(folder, roots): folder for folder in folders}
    return table([load(folder, name) for name, folder in named.items()], against or next(iter(named)))


def _name(folder: Path, roots: Sequence[str]) -> str:
    inside = len(roots) == 1 and folder != Path(roots[0])
    return (folder.relative_to(roots[0]) if inside else folder).as_posix()


def load(folder: Path, name: str) -> Setting:
    """Judge the kept answers of a folder again.

    Raises InputError for a folder without a synthesizer that reads references.
    """
    with opened(folder) as (_, config):
        bundles, kept, named = read(Bundle, config.bundles), Kept(config, folder), tasks(config)
    final = final_task(named)
    if final is None:
        raise InputError(f"{folder}: no synthesizer that reads references; expected base, sft or grpo")
    scores: dict[str, Scores] = {}
    for task in named:
        if task.name in (final.name, f"{final.name}@T"):
            right = np.array([s.verdict == CORRECT for s in kept.syntheses(task, bundles)], dtype=float)
            scores[task.name] = by_problem(bundles, right.reshape(len(bundles), -1).mean(axis=1))
    first = {b.problem_id: b.n_correct for b in reversed(bundles)}
    ids = problem_ids(bundles)
    counts = np.array([first[one] for one in ids], dtype=float)
    vote = by_problem(bundles, bundle_votes(bundles))
    return Setting(name, ids, counts, vote, scores[final.name], scores.get(f"{final.name}@T"))


def table(settings: Sequence[Setting], against: str) -> list[str]:
    """The lines of a Markdown table, the best mean first.

    Raises InputError if the problems differ, or if there is no evaluation `against`.
    """
    base = next((one for one in settings if one.name == against), None)
    if base is None:
        names = ", ".join(one.name for one in settings)
        raise InputError(f"--against {against}: no such evaluation; expected one of {names}")
    ordered = sorted(settings, key=lambda one: -float(one.both.mean()))
    rivals = [one for one in ordered if one is not base]
    for one in rivals:
        if one.problems != base.problems:
            raise InputError(
                f"{one.name}: not the same problems in the same order as {against}; use the same bundles"
            )
    corrected = holm([paired(one.both, base.both) for one in rivals])
    said = {
        one.name: f"{points(d.difference)} ({span({'low': d.low_holm, 'high': d.high_holm, 'n': d.n})})"
        for one, d in zip(rivals, corrected, strict=True)
    }
    most = int(max(one.n_correct.max() for one in settings))
    head = ["setting", "vote", "greedy", "sampled", "mean", f"mean against {against}"]
    head += [f"{i} right" for i in range(most + 1)]
    lines = [head, *(_cells(one, said.get(one.name, ""), most) for one in ordered)]
    head_line, *others = ["| " + " | ".join(cells) + " |" for cells in lines]
    return [head_line, "|---" * len(head) + "|", *others]


def _cells(one: Setting, difference: str, most: int) -> list[str]:
    sampled = "" if one.sampled is None else percent(one.sampled)
    by_right = [percent(one.both[one.n_correct == i]) for i in range(most + 1)]
    return [
        one.name,
        percent(one.vote),
        percent(one.greedy),
        sampled,
        percent(one.both),
        difference,
        *by_right,
    ]


def percent(scores: Scores) -> str:
    return f"{100 * scores.mean():.1f}" if scores.size else ""
