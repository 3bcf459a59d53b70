"""From rollouts, bundles and syntheses to the rows of the result table and the diagnostics. Pure functions.

Scores run parallel to `problem_ids(bundles)`; several bundles or samples of a problem are averaged. Tokens of an answer
are the completions of the first stage and all that the synthesizer reads and writes; the explorer's prompt, which any
number of rollouts share, is left out on every side.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from a2r_train.errors import InputError
from a2r_train.evaluate.statistics import Scores
from a2r_train.records import CHECK_VERDICT, CORRECT, Bundle, Rollout, Synthesis
from a2r_train.verify import equivalent, majority


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: scores [n_problems] in 0..1 (NaN: not available) and mean tokens of an answer."""

    name: str
    scores: Scores
    tokens: float
    note: str = ""


def problem_ids(bundles: Iterable[Bundle]) -> list[str]:
    """The problems, in the order of their first bundles."""
    return list(dict.fromkeys(bundle.problem_id for bundle in bundles))


def expected_vote(answers: Sequence[str], verdicts: Sequence[str], verifier: str) -> float:
    """Expected accuracy of the majority vote: answers that tie for first are equally likely; "" does not vote.

    0 if nobody votes.
    """
    tied = majority(answers, verifier).top
    return float(np.mean([np.mean([verdicts[i] == CORRECT for i in group]) for group in tied])) if tied else 0.0


def bundle_votes(bundles: Sequence[Bundle]) -> Scores:
    """Expected accuracy of the references' majority, [n_bundles]."""
    return np.array([expected_vote(b.reference_answers, b.reference_verdicts, b.verifier) for b in bundles])


def reference_rows(bundles: Sequence[Bundle], votes: Scores) -> list[Row]:
    """pass@1, pass@k and maj@k of the references themselves; `votes` are those of `bundle_votes`."""
    k = size_label(bundles)
    right = [[verdict == CORRECT for verdict in b.reference_verdicts] for b in bundles]
    total = _mean_over_problems(bundles, [sum(b.reference_tokens) for b in bundles])
    single = _mean_over_problems(bundles, [float(np.mean(b.reference_tokens)) for b in bundles])
    return [
        Row("pass@1", _by_problem(bundles, [float(np.mean(r)) for r in right]), single),
        Row(f"pass@{k}", _by_problem(bundles, [float(any(r)) for r in right]), total, "oracle: any reference correct"),
        Row(f"maj@{k}", _by_problem(bundles, votes), total),
    ]


def synthesis_row(name: str, bundles: Sequence[Bundle], syntheses: Iterable[Synthesis]) -> Row:
    """Accuracy of a synthesizer on the bundles; a bundle without a synthesis has no score."""
    grouped = _by_bundle(bundles, syntheses)
    tokens = sum(_stage_tokens(bundles, grouped).values())
    return Row(name, _by_problem(bundles, _accuracies(grouped)), tokens)


def equal_budget(
    bundles: Sequence[Bundle], rollouts: Sequence[Rollout], syntheses: Iterable[Synthesis], token_cost: float = 1.0
) -> int:
    """How many rollouts the budget of the two-stage answer buys: its mean over problems, in mean completions, rounded up.

    The budget is the k reference completions plus what the synthesizer reads and writes, each of its tokens counted as
    `token_cost` explorer tokens: 1 for equal tokens, synthesizer parameters / explorer parameters for equal cost, as a
    token that is read or written takes 2 x parameters FLOPs (Kaplan et al. 2020, arXiv 2001.08361, sec. 2.1). The
    explorer's prompt is computed once for any number of rollouts (prefix sharing), so it cancels on both sides.
    """
    stages = _stage_tokens(bundles, _by_bundle(bundles, syntheses))
    budget = stages["references"] + token_cost * (stages["synthesizer_prompt"] + stages["synthesis"])
    ids = set(problem_ids(bundles))
    completions = [r.completion_tokens for r in rollouts if r.problem_id in ids]
    completions = completions or [tokens for bundle in bundles for tokens in bundle.reference_tokens]
    if not any(completions) or math.isnan(budget):
        raise InputError("equal budget: no token counts in the rollouts or no syntheses; both come from the engine")
    return math.ceil(budget / float(np.mean(completions)) - 1e-9)


def majority_row(name: str, bundles: Sequence[Bundle], rollouts: Iterable[Rollout], m: int) -> Row:
    """Majority over m rollouts: each bundle's references and, in the order of their samples, further ones of its problem.

    Where fewer than m exist all of them vote, and the note says so. Raises InputError for rollouts without a verdict.
    """
    grouped = _by_id(rollouts)
    scores, tokens, voters = [], [], []
    for bundle in bundles:
        more = _others(bundle, grouped[bundle.problem_id])[: max(0, m - len(bundle.references))]
        answers = bundle.reference_answers + [r.answer for r in more]
        verdicts = bundle.reference_verdicts + [r.verdict for r in more]
        if CHECK_VERDICT in verdicts:
            raise InputError(f"{name}: a rollout of problem {bundle.problem_id!r} has no verdict; verify the rollouts first")
        scores.append(expected_vote(answers, verdicts, bundle.verifier))
        tokens.append(sum(bundle.reference_tokens) + sum(r.completion_tokens for r in more))
        voters.append(len(answers))
    note = f"m={m}"
    if short := sum(n < m for n in voters):
        note += f"; fewer rollouts exist for {short} of {len(bundles)} bundles ({np.mean(voters):.1f} vote on average)"
    return Row(name, _by_problem(bundles, scores), _mean_over_problems(bundles, tokens), note)


def diagnose(bundles: Sequence[Bundle], votes: Scores, syntheses: Mapping[str, Sequence[Synthesis]]) -> dict[str, Any]:
    """Diagnostics of each synthesizer row (name -> syntheses) against the majority, ready for results.json.

    `by_correct`: accuracy by number of correct references, the majority's too; `flips`: counts of syntheses by
    `flip_kind`; `new_correct`: accuracy where every reference is wrong; `copy_rate`: share of the syntheses whose answer
    is the majority's; `tokens_by_stage`: means over problems.
    """
    majority_name = f"maj@{size_label(bundles)}"
    found: dict[str, Any] = {"by_correct": {majority_name: _by_correct(bundles, votes)}}
    found |= {key: {} for key in ("flips", "new_correct", "copy_rate", "tokens_by_stage")}
    for name, given in syntheses.items():
        grouped = _by_bundle(bundles, given)
        cells = _by_correct(bundles, _accuracies(grouped))
        found["by_correct"][name] = cells
        found["new_correct"][name] = cells.get("0", {"n": 0, "accuracy": float("nan")})
        counts = Counter(flip_kind(vote, s) for vote, group in zip(votes, grouped, strict=True) for s in group)
        found["flips"][name] = {kind: counts[kind] for kind in FLIP_KINDS}
        found["copy_rate"][name] = _copy_rate(bundles, grouped)
        found["tokens_by_stage"][name] = _stage_tokens(bundles, grouped)
    return found


FLIP_KINDS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


def flip_kind(vote: float, synthesis: Synthesis) -> str:
    """From the majority to the synthesis; a tied majority is right if its expected accuracy is at least one half."""
    after = "right" if synthesis.verdict == CORRECT else "wrong"
    return f"{'right' if vote >= 0.5 else 'wrong'}_to_{after}"


def size_label(bundles: Iterable[Bundle]) -> str:
    """The number of references for row names, or "k" where bundles differ in it."""
    sizes = {len(bundle.references) for bundle in bundles}
    return str(sizes.pop()) if len(sizes) == 1 else "k"


def _by_problem(bundles: Sequence[Bundle], values: Iterable[float]) -> Scores:
    """Means [n_problems] of one value a bundle, NaN left out."""
    grouped: dict[str, list[float]] = {i: [] for i in problem_ids(bundles)}
    for bundle, value in zip(bundles, values, strict=True):
        grouped[bundle.problem_id].append(float(value))
    return np.array([_mean(group) for group in grouped.values()])


def _mean_over_problems(bundles: Sequence[Bundle], values: Iterable[float]) -> float:
    return _mean(_by_problem(bundles, values))


def _mean(values: Iterable[float]) -> float:
    """Mean without NaN; NaN if nothing is left."""
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def _by_id(rollouts: Iterable[Rollout]) -> defaultdict[str, list[Rollout]]:
    grouped: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in sorted(rollouts, key=lambda r: r.sample):
        grouped[rollout.problem_id].append(rollout)
    return grouped


def _by_bundle(bundles: Sequence[Bundle], syntheses: Iterable[Synthesis]) -> list[list[Synthesis]]:
    grouped: dict[str, list[Synthesis]] = {bundle.id: [] for bundle in bundles}
    for synthesis in syntheses:
        if synthesis.bundle_id in grouped:
            grouped[synthesis.bundle_id].append(synthesis)
    return list(grouped.values())


def _accuracies(grouped: Iterable[Sequence[Synthesis]]) -> list[float]:
    return [_mean([float(s.verdict == CORRECT) for s in group]) for group in grouped]


def _others(bundle: Bundle, rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The rollouts that are not among the references; which of two with one answer and length is which does not matter."""
    taken = Counter(zip(bundle.reference_answers, bundle.reference_tokens, strict=True))
    others = []
    for rollout in rollouts:
        key = (rollout.answer, rollout.completion_tokens)
        if taken[key]:
            taken[key] -= 1
        else:
            others.append(rollout)
    return others


def _by_correct(bundles: Sequence[Bundle], values: Iterable[float]) -> dict[str, dict[str, float]]:
    cells: defaultdict[int, list[float]] = defaultdict(list)
    for bundle, value in zip(bundles, values, strict=True):
        if not math.isnan(value):
            cells[bundle.n_correct].append(value)
    return {str(count): {"n": len(cells[count]), "accuracy": _mean(cells[count])} for count in sorted(cells)}


def _copy_rate(bundles: Sequence[Bundle], grouped: Sequence[Sequence[Synthesis]]) -> float:
    """Share of syntheses with the majority's answer, where there is a majority; no answer is no copy."""
    pairs = [(b, s.answer) for b, group in zip(bundles, grouped, strict=True) for s in group if b.majority_answer]
    return _mean(float(bool(answer) and equivalent(answer, b.majority_answer, b.verifier) == CORRECT) for b, answer in pairs)


def _stage_tokens(bundles: Sequence[Bundle], grouped: Sequence[Sequence[Synthesis]]) -> dict[str, float]:
    """Mean tokens a problem of each stage."""
    values = {
        "references": [float(sum(b.reference_tokens)) for b in bundles],
        "synthesizer_prompt": [_mean([s.prompt_tokens for s in group]) for group in grouped],
        "synthesis": [_mean([s.completion_tokens for s in group]) for group in grouped],
    }
    return {stage: _mean_over_problems(bundles, tokens) for stage, tokens in values.items()}
