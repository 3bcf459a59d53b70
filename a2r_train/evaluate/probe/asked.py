"""What the untrained synthesizer is asked: bundles, problems alone, and pairs of solutions in two orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from a2r_train.data.builder import bundle_of, make_bundles, reference_of
from a2r_train.data.probe import Floats
from a2r_train.engines import ENGINE_KEYS, check_engine, warn_failed
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import Generator, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.power import shown_pattern
from a2r_train.evaluate.probe.selector import Selector, fit
from a2r_train.evaluate.rows.names import ALONE, BASE
from a2r_train.evaluate.rows.panel import chosen
from a2r_train.evaluate.rows.row import accuracies, by_bundle
from a2r_train.models import trust
from a2r_train.records import CORRECT, UNPARSABLE, Bundle, Problem, Rollout, Synthesis, seed_of
from a2r_train.verify import equivalent

ORDERS = ("right first", "wrong first")
ANSWER, NAME = "two-orders/answered", "two-orders/named"
Found = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """Bundles, one per problem, and pairs of one right and one wrong solution, each in both orders."""

    bundles: list[Bundle]
    pairs: list[tuple[Bundle, Bundle]]  # right first, wrong first

    @property
    def ordered(self) -> list[Bundle]:
        return [bundle for pair in self.pairs for bundle in pair]


def bundles_to_ask(config: ProbeConfig, problems: Sequence[Problem], rollouts: Sequence[Rollout]) -> Asked:
    """Bundles of k and pairs of solutions for the first `max_bundles` problems in a random order.

    Raises InputError if no problem has k rollouts.
    """
    pools: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        pools[rollout.problem_id].append(rollout)
    shuffled = sorted(problems, key=lambda p: seed_of(config.seed, "probe", p.id))
    made = (
        bundle
        for problem in shuffled
        for bundle in make_bundles(problem, pools[problem.id], k=config.k, k_min=0, count=1, seed=config.seed)
    )
    bundles = list(islice(made, config.max_bundles or None))
    pairs = (pair for problem in shuffled for pair in _pair(problem, pools[problem.id], config.seed))
    return Asked(bundles, list(islice(pairs, config.max_pairs)))


def _pair(problem: Problem, pool: Sequence[Rollout], seed: int) -> list[tuple[Bundle, Bundle]]:
    """One right and one wrong solution of a problem that has both, in both orders."""
    right = [r for r in pool if r.verdict == CORRECT]
    wrong = [r for r in pool if r.verdict != CORRECT and r.answer]
    if not right or not wrong:
        return []
    rng = Random(seed_of(seed, "pair", problem.id))
    a, b = reference_of(rng.choice(right)), reference_of(rng.choice(wrong))
    first, second = (
        bundle_of(problem, order, f"{problem.id}/{name}")
        for order, name in zip(([a, b], [b, a]), ORDERS, strict=True)
    )
    return [(first, second)]


def tasks(config: ProbeConfig) -> dict[str, Task]:
    """What is asked about the bundles and, under ANSWER and NAME, about the pairs."""
    found = {
        "base": Task(BASE, config.model),
        "alone": Task(ALONE, config.model, "alone"),
        ANSWER: Task(ANSWER, config.model),
        NAME: Task(NAME, config.model, "select"),
    }
    if config.temperature:
        found["base@T"] = Task(f"{BASE}@T", config.model, sampled=True, samples=config.samples)
    return found


def generator(config: ProbeConfig, asked: Asked) -> Generator:
    """The generator. Loads no weights.

    Raises InputError if the model is unfit or a problem is too long for its prompt.
    """
    engine = {key: getattr(config, key) for key in ENGINE_KEYS}
    own = {f.name for f in fields(EvaluateConfig)} & {f.name for f in fields(ProbeConfig)}
    shared = {
        key: getattr(config, key) for key in own - {*ENGINE_KEYS, "k", "explorer", "monolith", "rollouts"}
    }
    as_evaluated = EvaluateConfig(bundles=config.rollouts, base=config.model, **{**shared, **engine})
    if config.trust_remote_code:
        trust(config.model)
    check_engine(config.model, as_evaluated)
    work = Generator(as_evaluated, Path(config.output_dir))
    for name, task in tasks(config).items():
        work.chats(task, asked.ordered if name in (ANSWER, NAME) else asked.bundles)
    return work


def answers(config: ProbeConfig, work: Generator, asked: Asked) -> dict[str, list[Synthesis]]:
    """The answers to each task."""
    found = {
        name: work.syntheses(task, asked.ordered if name in (ANSWER, NAME) else asked.bundles)
        for name, task in tasks(config).items()
    }
    warn_failed(work.folder.parent, [reason for reasons in work.reasons.values() for reason in reasons])
    return found


def base_of(asked: Asked, made: Mapping[str, Sequence[Synthesis]]) -> tuple[Selector, Floats, Floats]:
    """The untrained synthesizer as a selector; its greedy accuracy with references and alone, [bundles]."""
    greedy = np.array(accuracies(by_bundle(asked.bundles, made["base"])))
    alone = np.array(accuracies(by_bundle(asked.bundles, made["alone"])))
    shown = [shown_pattern(bundle) for bundle in asked.bundles]
    return fit(shown, greedy.tolist(), [1.0] * len(shown)), greedy, alone


def likeness(asked: Asked, made: Sequence[Synthesis]) -> float:
    """How alike two sampled answers to one bundle are: the intraclass correlation of their verdicts, 0 to 1.

    NaN if all verdicts are equal.
    """
    grouped = [[float(s.verdict == CORRECT) for s in group] for group in by_bundle(asked.bundles, made)]
    mean = float(np.mean([np.mean(group) for group in grouped]))
    if not 0 < mean < 1:
        return float("nan")
    both = np.mean([(sum(g) ** 2 - sum(g)) / (len(g) * (len(g) - 1)) for g in grouped])
    return float(np.clip((both - mean**2) / (mean * (1 - mean)), 0, 1))


def two_orders(asked: Asked, made: Sequence[Synthesis], task: Task) -> Found:
    """For pairs in both orders: `right` and `wrong`, the shares of pairs in which it chooses that solution in
    both orders; `first` and `second`, those in which it chooses that place in both; `neither`, the rest.

    scores [pairs]: 1 for a consistent right choice, 0 for a consistent wrong one, else 0.5.
    """
    answered = {s.bundle_id: s for s in chosen(task, asked.ordered, made)}
    counts = dict.fromkeys(("right", "wrong", "first", "second", "neither"), 0)
    scores = []
    for right_first, wrong_first in asked.pairs:
        picked = (_pick(right_first, answered[right_first.id]), _pick(wrong_first, answered[wrong_first.id]))
        kind = {
            ("right", "right"): "right", ("wrong", "wrong"): "wrong",
            ("right", "wrong"): "first", ("wrong", "right"): "second",
        }.get(picked, "neither")  # fmt: skip
        counts[kind] += 1
        scores.append({"right": 1.0, "wrong": 0.0}.get(kind, 0.5))
    n = len(asked.pairs)
    return {"pairs": n, "scores": scores} | {kind: count / n if n else None for kind, count in counts.items()}


def _pick(bundle: Bundle, synthesis: Synthesis) -> str:
    """Which of the two solutions an answer agrees with: `right`, `wrong`, or `` for neither."""
    if synthesis.verdict == CORRECT:
        return "right"
    wrong = next(r for r in bundle.references if r.verdict != CORRECT)
    if synthesis.verdict == UNPARSABLE or not synthesis.answer:
        return ""
    same = equivalent(synthesis.answer, wrong.answer, bundle.verifier) == CORRECT
    return "wrong" if same else ""


def check_enough(config: ProbeConfig, pools: Mapping[str, int]) -> None:
    """Raise InputError if no problem has k rollouts."""
    if max(pools.values(), default=0) < config.k:
        raise InputError(
            f"{config.rollouts}: no problem has k = {config.k} rollouts, at most "
            f"{max(pools.values(), default=0)}; lower k, or explore with more samples"
        )
