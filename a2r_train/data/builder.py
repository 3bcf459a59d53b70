"""The only builder of bundles: for `a2r bundle`, and for evaluation rows that read other references."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

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
    """The rollouts that are not among the references."""
    return _unpaired(bundle, rollouts)[0]


def unfound(bundle: Bundle, rollouts: Iterable[Rollout]) -> list[Reference]:
    """The references that are not among the rollouts."""
    return _unpaired(bundle, rollouts)[1]


def _unpaired(bundle: Bundle, rollouts: Iterable[Rollout]) -> tuple[list[Rollout], list[Reference]]:
    """Rollouts and references that are left when each reference has taken its rollout: an equal one, else one
    of its text, as where tokens were counted later, else one of its answer and length, as where texts were
    cut since.
    """
    rest, lacking = list(rollouts), list(bundle.references)
    keys: tuple[Callable[[Reference], object], ...] = (
        lambda one: (one.text, one.answer, one.tokens),
        lambda one: one.text,
        lambda one: (one.answer, one.tokens),
    )
    for key in keys:
        for reference in list(lacking):
            asked = key(reference)
            at = next((i for i, rollout in enumerate(rest) if key(reference_of(rollout)) == asked), None)
            if at is not None:
                _take(rest, at)
                lacking.remove(reference)
    return rest, lacking


def _take(rest: list[Rollout], at: int) -> None:
    """Remove a rollout; the first one of equal answer and length moves to its place.

    So a vote over some of the rest depends on the answers and lengths of the references alone, which are all
    that a vote knows of them.
    """
    sizes = [(rollout.answer, rollout.completion_tokens) for rollout in rest]
    first = sizes.index(sizes[at])
    rest[at] = rest[first]
    del rest[first]
