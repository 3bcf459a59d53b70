"""Which answers to the training bundles become SFT targets: verified ones alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import CORRECT, Bundle, Synthesis
from a2r_train.verify import judge_all


def select(
    syntheses: Sequence[Synthesis], bundles: Sequence[Bundle], max_per_problem: int
) -> list[Synthesis]:
    """The correct, finished, different syntheses: at most so many a problem, those of its hardest bundles
    first.

    The fewer samples of a bundle are correct, the harder it is; ties go by the order of the bundles and the
    samples.
    """
    position = {bundle.id: i for i, bundle in enumerate(bundles)}
    correct = Counter(s.bundle_id for s in syntheses if s.verdict == CORRECT)
    kept: dict[str, list[Synthesis]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for s in sorted(syntheses, key=lambda s: (correct[s.bundle_id], position[s.bundle_id], s.sample)):
        right = s.verdict == CORRECT and s.finish_reason != "length" and (s.bundle_id, s.text) not in seen
        problem = kept[bundles[position[s.bundle_id]].problem_id]
        if right and len(problem) < max_per_problem:
            problem.append(s)
            seen.add((s.bundle_id, s.text))
    chosen = [s for problem in kept.values() for s in problem]
    return sorted(chosen, key=lambda s: (position[s.bundle_id], s.sample))


def supplied_targets(path: str, bundles: Sequence[Bundle]) -> list[Synthesis]:
    """Read targets from a Synthesis file and verify them anew; only the correct ones stay.

    Raises InputError for a bundle id that the bundles lack, and if no target is correct.
    """
    by_id = {bundle.id: bundle for bundle in bundles}
    given = read(Synthesis, path)
    for s in given:
        if s.bundle_id not in by_id:
            raise InputError(f"{path}: target of bundle {s.bundle_id!r}, which is not among the bundles")
    judged = judge_all([(s.text, by_id[s.bundle_id].answer, by_id[s.bundle_id].verifier) for s in given])
    correct = [s for s, judgement in zip(given, judged, strict=True) if judgement.verdict == CORRECT]
    if not correct:
        raise InputError(f"{path}: none of {len(given)} targets is correct; SFT needs verified ones")
    return correct
