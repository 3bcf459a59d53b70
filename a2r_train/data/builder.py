"""The only builder of bundles: for `a2r bundle`, and for evaluation rows that read other references."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from a2r_train.records import CORRECT, UNPARSABLE, Bundle, Problem, Reference, Rollout, Synthesis, seed_of
from a2r_train.verify import majority


def bundle_of(problem: Problem, references: Sequence[Reference], identity: str) -> Bundle:
    """A bundle of the references in their order, with their vote."""
    groups = majority([reference.answer for reference in references], problem.verifier).groups
    first = references[groups[0][0]] if groups else Reference("", verdict=UNPARSABLE)
    return Bundle(
        id=identity,
        problem_id=problem.id,
        problem=problem.problem,
        answer=problem.answer,
        verifier=problem.verifier,
        references=list(references),
        n_correct=sum(reference.verdict == CORRECT for reference in references),
        majority_answer=first.answer,
        majority_verdict=first.verdict,
        source=problem.source,
        metadata=problem.metadata,
    )


def with_references(bundle: Bundle, references: Sequence[Reference], name: str = "") -> Bundle:
    """The same problem with other references; `name` makes its id distinct."""
    return bundle_of(problem_in(bundle), references, f"{bundle.id}/{name}" if name else bundle.id)


def problem_in(bundle: Bundle) -> Problem:
    """The problem that a bundle is about."""
    return Problem(
        bundle.problem_id, bundle.problem, bundle.answer, bundle.verifier, bundle.source, bundle.metadata
    )


def reference_of(sample: Rollout | Synthesis) -> Reference:
    """A sample as a bundle holds it."""
    return Reference(sample.text, sample.answer, sample.verdict, sample.completion_tokens, sample.model)


def make_bundles(
    problem: Problem, rollouts: Sequence[Rollout], *, k: int, k_min: int, count: int, seed: int
) -> list[Bundle]:
    """Up to `count` bundles of one problem, no two of them alike.

    Their references are disjoint groups of the shuffled rollouts, then groups of new shuffles.
    """
    rng = random.Random(seed_of(seed, "bundle", problem.id))
    bundles: list[Bundle] = []
    seen: set[tuple[str, ...]] = set()
    pool: list[Rollout] = []
    for _ in range(4 * count):
        size = rng.randint(k_min or k, k)
        if len(pool) < size:
            pool = rng.sample(list(rollouts), len(rollouts))
        group, pool = pool[:size], pool[size:]
        key = tuple(sorted(rollout.text for rollout in group))
        if len(bundles) < count and len(group) == size and key not in seen:
            seen.add(key)
            bundles.append(
                bundle_of(problem, [reference_of(r) for r in group], f"{problem.id}/{len(bundles)}")
            )
    return bundles


def extended(bundle: Bundle, rollouts: Iterable[Rollout], n: int) -> list[Reference]:
    """The references of a bundle, then other rollouts of its problem; at most n in all."""
    return [*bundle.references, *map(reference_of, others(bundle, rollouts))][:n]


def others(bundle: Bundle, rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The rollouts that are not among the references.

    Rollouts of equal answer and length are interchangeable.
    """
    taken = Counter((reference.answer, reference.tokens) for reference in bundle.references)
    remaining = []
    for rollout in rollouts:
        key = (rollout.answer, rollout.completion_tokens)
        if taken[key]:
            taken[key] -= 1
        else:
            remaining.append(rollout)
    return remaining
