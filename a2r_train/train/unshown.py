"""Targets from rollouts: for each bundle, a right solution of its problem that is not among its references.

They cost no generation. Where every reference is wrong, they show the model that this happens. They are
solutions in full, so a model trained on them does not start with bare answers.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from a2r_train.data.bundles import Bundles
from a2r_train.data.files import rows
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.paths import paths_in
from a2r_train.prompts import Prompter
from a2r_train.records import CHECK_VERDICT, CORRECT, Bundle, Rollout, row_of, seed_of
from a2r_train.verify import judge_all

log = logging.getLogger(__name__)


def holds_rollouts(path: str) -> bool:
    """Whether the first row of a file of targets is of a problem, not of a bundle."""
    first = next((values for file in paths_in(path) for _, values in rows(file)), {})
    return "problem_id" in first and "bundle_id" not in first


def unshown(
    path: str, bundles: Bundles, prompter: Prompter, *, most: int, max_tokens: int, seed: int
) -> list[tuple[str, Rollout]]:
    """Ids of bundles, each with a right rollout that the bundle does not show: at most `most` of a problem,
    from its bundles with the fewest right references first, and no rollout twice.

    A rollout without a verdict is judged. Raises InputError if there is no such rollout.
    """
    left = _right(path, bundles)
    if not left:
        raise InputError(f"{path}: no right rollout of the bundles' problems; is it of other problems?")
    right_references = bundles.column("n_correct").to_pylist()
    taken = Counter[str]()
    chosen, unsolved = list[tuple[str, Rollout]](), 0
    for at in sorted(range(len(bundles)), key=right_references.__getitem__):
        bundle = bundles[at]
        if taken[bundle.problem_id] == most:
            continue
        fitting = _fitting(bundle, left.get(bundle.problem_id, []), prompter, max_tokens, seed)
        if fitting:
            left[bundle.problem_id].remove(fitting)
            taken[bundle.problem_id] += 1
            chosen.append((bundle.id, fitting))
            unsolved += not right_references[at]
    if not chosen:
        raise InputError(
            f"{path}: each right rollout is a reference already, or has more than {max_tokens} tokens; "
            "explore with more samples, or raise max_target_tokens"
        )
    log.info("%d targets are rollouts; %d of their bundles have no right reference", len(chosen), unsolved)
    return chosen


def _right(path: str, bundles: Bundles) -> dict[str, list[Rollout]]:
    """The right and finished rollouts of each problem of the bundles."""
    problems = set(bundles.column("problem_id").to_pylist())
    found = [r for r in read(Rollout, path) if r.problem_id in problems and r.finish_reason != "length"]
    unjudged = _judged([r for r in found if r.verdict == CHECK_VERDICT], bundles)
    right = defaultdict(list)
    for rollout in [r for r in found if r.verdict == CORRECT] + unjudged:
        right[rollout.problem_id].append(rollout)
    return right


def _judged(rollouts: Sequence[Rollout], bundles: Bundles) -> list[Rollout]:
    """The right ones among rollouts without a verdict."""
    if not rollouts:
        return []
    wanted = {rollout.problem_id for rollout in rollouts}
    problems = {bundle.problem_id: bundle for bundle in bundles if bundle.problem_id in wanted}
    theirs = [problems[rollout.problem_id] for rollout in rollouts]
    judged = judge_all(
        [(rollout.text, its.answer, its.verifier) for rollout, its in zip(rollouts, theirs, strict=True)],
        [row_of(its) for its in theirs],
    )
    return [rollout for rollout, one in zip(rollouts, judged, strict=True) if one.verdict == CORRECT]


def _fitting(
    bundle: Bundle, right: Sequence[Rollout], prompter: Prompter, max_tokens: int, seed: int
) -> Rollout | None:
    """A random rollout of these that the bundle does not show, and that is short enough."""
    shown = {reference.text for reference in bundle.references}
    unseen = [rollout for rollout in right if rollout.text not in shown]
    random.Random(seed_of(seed, "unshown", bundle.id)).shuffle(unseen)
    return next((rollout for rollout in unseen if prompter.count(rollout.text) <= max_tokens), None)
