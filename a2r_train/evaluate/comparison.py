"""The final synthesizers of several kept evaluations on the same problems, side by side."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from a2r_train.data.rollouts import judged_bundles
from a2r_train.errors import InputError
from a2r_train.evaluate.kept import Kept, find_evaluations, opened
from a2r_train.evaluate.kept_bundles import NO_TEXT
from a2r_train.evaluate.report.pairs import is_undone_by_p
from a2r_train.evaluate.report.tables import points, span
from a2r_train.evaluate.rows.names import is_reference_vote
from a2r_train.evaluate.rows.panel import final_task, tasks
from a2r_train.evaluate.rows.row import bundle_votes
from a2r_train.evaluate.rows.skipping import answers_to
from a2r_train.evaluate.run import read_inputs
from a2r_train.evaluate.statistics import Scores, holm, paired
from a2r_train.records import CORRECT, Bundle

SAME = 1e-6  # tables are rounded to six digits


@dataclass(frozen=True, eq=False)
class Setting:
    """One evaluation: scores [n_bundles] in 0..1 of the vote and of the final synthesizer, greedy and, if the
    recipe asked for it, sampled.
    """

    name: str
    problems: list[str]  # [n_bundles], the problem of each bundle
    n_correct: Scores  # [n_bundles], its right references
    vote: Scores
    greedy: Scores
    sampled: Scores | None
    texts: str = ""  # a hash of the texts of the problems; "" if they are not kept
    told: float = math.nan  # the accuracy of the vote in its own table, if that has one
    skip_agreement: float = 0.0  # from this share of agreeing references on, their vote answers; 0: never

    def right(self, with_sampled: bool) -> Scores:
        """How often the synthesizer is right, [n_bundles]: greedy, or the mean of greedy and sampled."""
        if not with_sampled or self.sampled is None:
            return self.greedy
        return (self.greedy + self.sampled) / 2

    def by_problem(self, values: Scores) -> Scores:
        """Means over the bundles of each problem, [n_problems]."""
        at = {problem: i for i, problem in enumerate(dict.fromkeys(self.problems))}
        places = [at[problem] for problem in self.problems]
        return np.bincount(places, weights=values) / np.bincount(places)

    def differs_from(self, other: Setting) -> str:
        """How its problems differ from another's, in words; "" if they are the same. Texts count if both have
        them.
        """
        mine, theirs = set(self.problems), set(other.problems)
        if mine != theirs:
            both = f"{len(mine & theirs)} problems with the same id and gold are in both"
            return f"{both}, {len(mine - theirs)} only here, {len(theirs - mine)} only there"
        texts_differ = self.texts != other.texts and "" not in (self.texts, other.texts)
        return "problems with the same id have other texts" if texts_differ else ""

    def in_order_of(self, other: Setting) -> Setting:
        """The same setting with its problems in the order of another, which has the same ones."""
        at = {problem: i for i, problem in enumerate(dict.fromkeys(other.problems))}
        order = sorted(range(len(self.problems)), key=lambda i: at[self.problems[i]])
        scores = {name: getattr(self, name)[order] for name in ("n_correct", "vote", "greedy")}
        sampled = None if self.sampled is None else self.sampled[order]
        return replace(self, problems=[self.problems[i] for i in order], sampled=sampled, **scores)


def compare(roots: Sequence[str], against: str = "") -> list[str]:
    """The lines of a Markdown table of the evaluations below the roots; "" compares with the first of them.

    An evaluation is named by its path; with a single root, by its path below that root. Raises InputError as
    `load` and `table`.
    """
    folders = [folder for root in roots for folder in find_evaluations(root)]
    # A folder under two spellings would be its own rival, and be corrected for.
    once = {folder.resolve(): folder for folder in reversed(folders)}
    named = {_name(folder, roots): folder for folder in reversed(once.values())}
    return table([load(folder, name) for name, folder in named.items()], against or next(iter(named)))


def _name(folder: Path, roots: Sequence[str]) -> str:
    inside = len(roots) == 1 and folder != Path(roots[0])
    return (folder.relative_to(roots[0]) if inside else folder).as_posix()


def load(folder: Path, name: str) -> Setting:
    """Judge the kept answers of a folder again.

    Raises InputError for a folder without a synthesizer that reads references.
    """
    with opened(folder) as (results, config):
        kept, named = Kept(config, folder), tasks(config)
        bundles, _, _ = read_inputs(config, lambda _: [])  # no rollout is needed, and they can be large
        bundles = judged_bundles(bundles, config.bundles, kept.prompt_of_references)
    final = final_task(named)
    if final is None:
        raise InputError(f"{folder}: no synthesizer that reads references; expected base, sft or grpo")
    scores: dict[str, Scores] = {}
    for task in named:
        if task.name in (final.name, f"{final.name}@T"):
            right = np.array([s.verdict == CORRECT for s in answers_to(kept, task, bundles)], dtype=float)
            scores[task.name] = right.reshape(len(bundles), -1).mean(axis=1)
    problems = [json.dumps([b.problem_id, b.answer]) for b in bundles]
    counts = np.array([b.n_correct for b in bundles], dtype=float)
    greedy, sampled = scores[final.name], scores.get(f"{final.name}@T")
    votes, told = bundle_votes(bundles), _vote_in(results)
    texts = _texts(bundles)
    return Setting(name, problems, counts, votes, greedy, sampled, texts, told, config.skip_agreement)


def _vote_in(results: Mapping[str, Any]) -> float:
    """The accuracy of the references' vote in kept results; NaN if they have none."""
    rows = (row for row in results.get("rows", ()) if is_reference_vote(row["name"]))
    return next((float(row["accuracy"]) for row in rows), math.nan)


def _texts(bundles: Sequence[Bundle]) -> str:
    texts = {bundle.problem_id: bundle.problem for bundle in bundles}
    if NO_TEXT in texts.values():
        return ""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def table(settings: Sequence[Setting], against: str) -> list[str]:
    """The lines of a Markdown table, the best first: by the mean of greedy and sampled, or by greedy alone if
    a setting has no sampled answers.

    Raises InputError if the problems differ, or if there is no evaluation `against`.
    """
    base = next((one for one in settings if one.name == against), None)
    if base is None:
        names = ", ".join(one.name for one in settings)
        raise InputError(f"--against {against}: no such evaluation; expected one of {names}")
    for one in settings:
        if says := one.differs_from(base):
            raise InputError(f"{one.name}: not the same problems as {against} ({says}); use the same bundles")
    settings = [one.in_order_of(base) for one in settings]
    greedy_only = [one.name for one in settings if one.sampled is None]
    with_sampled = not greedy_only
    scores = {one.name: one.by_problem(one.right(with_sampled)) for one in settings}
    ordered = sorted(settings, key=lambda one: -float(scores[one.name].mean()))
    said = _differences(scores, against)
    most = int(max(one.n_correct.max() for one in settings))
    head = ["setting", "vote", "greedy", "sampled", "mean"]
    head += [f"{'mean' if with_sampled else 'greedy'} against {against}"]
    head += [f"{i} right" for i in range(most + 1)]
    lines = [head, *(_cells(one, said.get(one.name, ""), most, with_sampled) for one in ordered)]
    head_line, *others = ["| " + " | ".join(cells) + " |" for cells in lines]
    notes = [note for one in ordered if (note := _of_changed_vote(one))]
    if greedy_only and len(greedy_only) < len(settings):
        names = ", ".join(greedy_only)
        notes.append(f"Only greedy answers are compared, because there are no sampled ones in {names}.")
    if len({one.skip_agreement for one in settings}) > 1:
        systems = [f"{one.name} ({one.skip_agreement:g})" for one in settings if one.skip_agreement]
        notes.append(f"Only in {', '.join(systems)} the vote answers agreeing references (skip_agreement).")
    return [head_line, "|---" * len(head) + "|", *others, *(line for note in notes for line in ("", note))]


def _of_changed_vote(one: Setting) -> str:
    """A note on an evaluation whose vote is another now; "" for the same one, and where none is known.

    Its answers are read from its folder, but references from where its recipe says: they may have been
    bundled again since.
    """
    now = float(one.by_problem(one.vote).mean())
    if math.isnan(one.told) or abs(now - one.told) < SAME:
        return ""
    return (
        f"The vote of {one.name} is {100 * one.told:.1f} in its own table: since then its bundles were made "
        "again, or the verifier has changed. Its answers are to the bundles of that time."
    )


def _differences(scores: Mapping[str, Scores], against: str) -> dict[str, str]:
    """By setting, its difference from `against` with the corrected interval; with the corrected p where that
    does not reject although the interval excludes 0.
    """
    rivals = [name for name in scores if name != against]
    corrected = holm([paired(scores[name], scores[against]) for name in rivals])
    return {
        name: f"{points(d.difference)} ({span({'low': d.low_holm, 'high': d.high_holm, 'n': d.n})})"
        + (f", p {d.p_holm:.3f}" if is_undone_by_p(vars(d)) else "")
        for name, d in zip(rivals, corrected, strict=True)
    }


def _cells(one: Setting, difference: str, most: int, with_sampled: bool) -> list[str]:
    """A line of the table. The last cells are means over bundles, as in the reports: bundles of one problem
    can have different numbers of right references.
    """
    right = one.right(with_sampled)
    vote, greedy = (percent(one.by_problem(values)) for values in (one.vote, one.greedy))
    sampled = "" if one.sampled is None else percent(one.by_problem(one.sampled))
    mean = percent(one.by_problem(right)) if with_sampled else ""
    by_right = [percent(right[one.n_correct == i]) for i in range(most + 1)]
    return [one.name, vote, greedy, sampled, mean, difference, *by_right]


def percent(scores: Scores) -> str:
    if not scores.size:
        return ""
    return "-" if np.isnan(scores).all() else f"{100 * scores.mean():.1f}"
