"""Compare the final synthesizers of several evaluations on the same problems, such as one for each setting of
a training.

    python scripts/compare_evaluations.py runs/levers --against reference

Each folder below the root that `a2r evaluate` wrote becomes a line: accuracy greedy and sampled, the mean of
both, and its difference to that of the folder after --against, paired over problems. The intervals are 95 %,
Holm-corrected for all lines. They are of the problems alone: how far two trainings with the same settings
come apart is seen by training one twice. The last columns say how often the synthesizer is right, greedy and
sampled, where so many references are. Run it from the root of the repository. Exit status 2 for wrong input.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate.kept import Kept, config_of, find_evaluations, load_json
from a2r_train.evaluate.rows.panel import final_task, tasks
from a2r_train.evaluate.rows.row import bundle_votes, by_problem, problem_ids
from a2r_train.evaluate.statistics import Scores, holm, paired
from a2r_train.records import CORRECT, Bundle


@dataclass(frozen=True, eq=False)
class Setting:
    """One evaluation: scores [n_problems] in 0..1 of the vote and of the final synthesizer, greedy and where
    asked sampled.
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


def load(folder: Path, name: str) -> Setting:
    """Judge the kept answers of a folder anew.

    Raises InputError for one without a synthesizer that reads references.
    """
    config = config_of(folder, load_json(folder / "results.json"))
    bundles, kept, named = read(Bundle, config.bundles), Kept(config, folder), tasks(config)
    final = final_task(named)
    if final is None:
        raise InputError(f"{folder}: no synthesizer over references; expected one of base, sft and grpo")
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


def table(settings: list[Setting], against: str) -> list[str]:
    """The lines of a Markdown table, the best mean first.

    Raises InputError for other problems, or nothing to compare with.
    """
    base = next((one for one in settings if one.name == against), None)
    if base is None:
        raise InputError(
            f"--against {against}: no such evaluation; expected one of {', '.join(s.name for s in settings)}"
        )
    ordered = sorted(settings, key=lambda one: -float(one.both.mean()))
    rivals = [one for one in ordered if one is not base]
    for one in rivals:
        if one.problems != base.problems:
            raise InputError(
                f"{one.name}: not the problems of {against}, in their order; evaluate all on the same bundles"
            )
    corrected = holm([paired(one.both, base.both) for one in rivals])
    said = {
        one.name: f"{100 * d.difference:+.1f} ({100 * d.low_holm:+.1f} to {100 * d.high_holm:+.1f})"
        for one, d in zip(rivals, corrected, strict=True)
    }
    most = int(max(one.n_correct.max() for one in settings))
    head = [
        "setting",
        "vote",
        "greedy",
        "sampled",
        "mean",
        f"mean against {against}",
        *(f"{i} right" for i in range(most + 1)),
    ]
    lines = [head]
    for one in ordered:
        sampled = "" if one.sampled is None else percent(one.sampled)
        by_right = [percent(one.both[one.n_correct == i]) for i in range(most + 1)]
        difference = said.get(one.name, "")
        lines.append(
            [
                one.name,
                percent(one.vote),
                percent(one.greedy),
                sampled,
                percent(one.both),
                difference,
                *by_right,
            ]
        )
    head_line, *others = ["| " + " | ".join(cells) + " |" for cells in lines]
    return [head_line, "|---" * len(head) + "|", *others]


def percent(scores: Scores) -> str:
    return f"{100 * scores.mean():.1f}" if scores.size else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a folder with evaluations below it")
    parser.add_argument(
        "--against",
        required=True,
        help="the folder, as seen from the root, that the others are compared with",
    )
    given = parser.parse_args(arguments)
    try:
        folders = find_evaluations(given.root)
        settings = [load(folder, folder.relative_to(given.root).as_posix()) for folder in folders]
        print("\n".join(table(settings, given.against)))
    except InputError as error:
        logging.getLogger(__name__).error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
