"""Targets from rollouts: for each bundle, a right solution of its problem that is not among its references.

They cost no generation. Where every reference is wrong, they show the model that this happens. They are
solutions in full, so a model trained on them does not start with bare answers.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from a2r_train.data.asked import check_same_problems
from a2r_train.data.builder import problem_in
from a2r_train.data.bundles import Bundles
from a2r_train.data.files import rows
from a2r_train.data.read import read
from a2r_train.data.rollouts import check_right, judged
from a2r_train.errors import InputError
from a2r_train.paths import paths_in
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import CHECK_VERDICT, CORRECT, Bundle, Rollout, seed_of

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

    Rollouts are judged again. Raises InputError if there is no such rollout, and for rollouts of other
    problems with the same ids.
    """
    left = _right(path, bundles, prompter.config)
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


def _right(path: str, bundles: Bundles, prompt: PromptConfig) -> dict[str, list[Rollout]]:
    """The finished rollouts of each problem of the bundles that are right by its gold, judged again.

    Raises InputError as `check_right`.
    """
    golds = {bundle.problem_id: problem_in(bundle) for bundle in bundles}
    asked = (CORRECT, CHECK_VERDICT)
    found = [
        rollout
        for rollout in read(Rollout, path)
        if rollout.problem_id in golds and rollout.finish_reason != "length" and rollout.verdict in asked
    ]
    check_same_problems(path, ((one.id, one.problem) for one in golds.values()), bundles.path)
    check_right(found, golds, path, bundles.path)
    right = defaultdict(list)
    for rollout in judged(found, golds, prompt):
        if rollout.verdict == CORRECT:
            right[rollout.problem_id].append(rollout)
    return right


def _fitting(
    bundle: Bundle, right: Sequence[Rollout], prompter: Prompter, max_tokens: int, seed: int
) -> Rollout | None:
    """A random rollout of these that the bundle does not show, and that is short enough."""
    shown = {reference.text for reference in bundle.references}
    unseen = [rollout for rollout in right if rollout.text not in shown]
    random.Random(seed_of(seed, "unshown", bundle.id)).shuffle(unseen)
    return next((rollout for rollout in unseen if prompter.count(rollout.text) <= max_tokens), None)
