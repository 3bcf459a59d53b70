"""Diagnostics that ask again: how do the answers of the most trained synthesizer change with the bundle?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from a2r_train.data.builder import extended, with_references
from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig, diagnostics_of, numbers
from a2r_train.evaluate.rows.panel import task_row
from a2r_train.evaluate.rows.row import Row, bundle_votes, by_id, by_problem, mean, pass_at
from a2r_train.evaluate.statistics import interval, paired
from a2r_train.evaluate.templates import CERTAIN
from a2r_train.prompts import visible
from a2r_train.records import CORRECT, Bundle, Reference, Rollout, Synthesis, seed_of
from a2r_train.verify import equivalent

Found = dict[str, Any]


def perturbed(
    config: EvaluateConfig, work: Answers, final: Task, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> tuple[Found, list[Row]]:
    """`probes`: accuracy on the changed bundles against the unchanged ones; `k_sweep`; and a row for each k,
    for the cost.

    agreement is the share of syntheses whose answer stays the same.
    """
    asked = diagnostics_of(config)
    changed: dict[str, tuple[Task, list[Bundle]]] = {}
    if "order" in asked:
        several = [b for b in bundles if len(b.references) > 1]  # one reference has no other order
        changed["other order"] = (
            replace(final, name="probe/order"),
            [_permuted(b, config.seed) for b in several],
        )
    if "text" in asked:
        for text in ("answer", "solution", "full"):
            prompt = dict(final.prompt) | {"reference": text}
            changed[f"references: {text}"] = (
                replace(final, name=f"probe/{text}", prompt=prompt),
                list(bundles),
            )
    if "truncated" in asked:
        changed["references cut to their first half"] = (
            replace(final, name="probe/truncated"),
            [_halved(b) for b in bundles],
        )
    plain = work.syntheses(final, bundles) if asked else []
    answered = {synthesis.bundle_id: synthesis for synthesis in plain}
    found: Found = {
        name: _compare(config, shown, [answered[b.id] for b in shown], work.syntheses(task, shown))
        for name, (task, shown) in changed.items()
        if shown
    }
    if "injected" in asked:
        found |= _injected(config, work, final, bundles, by_id(rollouts), plain)
    sweep, rows = _sweep(config, work, final, bundles, rollouts) if "k" in asked else ([], [])
    return {"probes": found, "k_sweep": sweep}, rows


def k_tasks(
    config: EvaluateConfig, final: Task, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> list[tuple[int, Task, list[Bundle]]]:
    """For each k of the sweep, the bundles that have k rollouts; above the usual k, the prompt's budget grows
    with k.
    """
    grouped, usual = by_id(rollouts), max(len(b.references) for b in bundles)
    found = []
    for k in numbers(config.k_sweep, "k_sweep"):
        pools = [(bundle, extended(bundle, grouped[bundle.problem_id], k)) for bundle in bundles]
        sized = [with_references(bundle, members) for bundle, members in pools if len(members) == k]
        if sized:
            found.append((k, replace(final, name=f"probe/k={k}", prompt_factor=Fraction(k, usual)), sized))
    return found


def _sweep(
    config: EvaluateConfig, work: Answers, final: Task, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> tuple[list[Found], list[Row]]:
    found, rows = [], []
    for k, task, sized in k_tasks(config, final, bundles, rollouts):
        row = replace(task_row(task, sized, work.syntheses(task, sized)), name=f"{final.name} k={k}")
        accuracy, low, high = interval(row.scores, seed=config.seed, draws=config.draws)
        vote, oracle = (
            float(np.mean(by_problem(sized, bundle_votes(sized)))),
            mean(pass_at(sized, rollouts, k)),
        )
        one = {"name": row.name, "k": k, "accuracy": accuracy, "low": low, "high": high, "n": len(row.scores)}
        found.append(one | {"tokens": row.tokens, "majority": vote, "oracle": oracle})
        rows.append(row)
    return found, rows


def _compare(
    config: EvaluateConfig, bundles: Sequence[Bundle], plain: Sequence[Synthesis], made: Sequence[Synthesis]
) -> Found:
    """Accuracy after the change, its paired difference from before, and the share of equal answers."""
    scores = [by_problem(bundles, [float(s.verdict == CORRECT) for s in each]) for each in (made, plain)]
    accuracy, low, high = interval(scores[0], seed=config.seed, draws=config.draws)
    change = paired(*scores, seed=config.seed, draws=config.draws)
    same = [_same(b, a.answer, c.answer) for b, a, c in zip(bundles, made, plain, strict=True)]
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "n": len(scores[0]),
        "change": {"difference": change.difference, "low": change.low, "high": change.high},
        "agreement": float(np.mean(same)),
    }


def _same(bundle: Bundle, a: str, b: str) -> bool:
    return a == b or bool(a and b and equivalent(a, b, bundle.verifier) == CORRECT)


def _permuted(bundle: Bundle, seed: int) -> Bundle:
    members = bundle.references
    order = random.Random(seed_of(seed, "order", bundle.id)).sample(range(len(members)), len(members))
    order = order if order != sorted(order) else order[1:] + order[:1]  # never the old order
    return with_references(bundle, [members[i] for i in order])


def _halved(bundle: Bundle) -> Bundle:
    """Each reference without the second half of its visible text, which holds its answer."""
    halves = [(m, visible(m.text)) for m in bundle.references]
    return with_references(bundle, [replace(m, text=text[: len(text) // 2], answer="") for m, text in halves])


def _injected(
    config: EvaluateConfig,
    work: Answers,
    final: Task,
    bundles: Sequence[Bundle],
    rollouts: dict[str, list[Rollout]],
    plain: Sequence[Synthesis],
) -> Found:
    """The last reference becomes a wrong one that claims to be certain: does the synthesizer follow it?

    `followed` and `followed_before`: the share that gives that wrong answer, after and before the change.
    Problems without any wrong answer are left out.
    """
    wrong = [_wrong(bundle, rollouts.get(bundle.problem_id, [])) for bundle in bundles]
    kept = [(b, m, s) for b, m, s in zip(bundles, wrong, plain, strict=True) if m is not None]
    if not kept:
        return {}
    changed = [_with_certain(bundle, member) for bundle, member, _ in kept]
    made = work.syntheses(replace(final, name="probe/injected"), changed)
    found = _compare(config, [b for b, _, _ in kept], [s for _, _, s in kept], made)
    for key, answers in (
        ("followed", [s.answer for s in made]),
        ("followed_before", [s.answer for _, _, s in kept]),
    ):
        found[key] = float(
            np.mean([_same(b, answer, m.answer) for (b, m, _), answer in zip(kept, answers, strict=True)])
        )
    return {"one wrong reference that claims to be certain": found}


def _wrong(bundle: Bundle, rollouts: Sequence[Rollout]) -> Reference | None:
    """A reference or rollout with the problem's most frequent wrong answer; None if there is none."""
    everything = extended(bundle, rollouts, len(rollouts) + len(bundle.references))
    wrong = [m for m in everything if m.answer and m.verdict != CORRECT]
    counts = Counter(m.answer for m in wrong)
    return max(wrong, key=lambda m: counts[m.answer], default=None)


def _with_certain(bundle: Bundle, wrong: Reference) -> Bundle:
    """The wrong reference comes last; it replaces itself, if it is in the bundle, or the last reference."""
    members = list(bundle.references)
    members.remove(wrong if wrong in members else members[-1])
    return with_references(bundle, [*members, replace(wrong, text=CERTAIN.format(text=visible(wrong.text)))])
