"""Rows whose later questions depend on earlier answers: self-refine and rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from a2r_train.data.builder import extended, reference_of, with_references
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.names import ALONE
from a2r_train.evaluate.rows.row import (
    EXPLORER,
    Part,
    Row,
    by_bundle,
    by_id,
    by_problem,
    expected_vote,
    mean_over_problems,
    part_of,
    token_sums,
)
from a2r_train.inference.rounds import Rounds
from a2r_train.records import CORRECT, Bundle, Reference, Rollout


def self_refine_row(config: EvaluateConfig, work: Answers, bundles: Sequence[Bundle]) -> Row:
    """The base rewrites its own greedy solution (Self-Refine, arXiv 2303.17651, feedback and rewrite in one
    answer).
    """
    made = work.syntheses(Task(ALONE, config.base, "alone"), bundles)
    written = [float(s.completion_tokens) for s in made]
    parts = [part_of(config.base, bundles, by_bundle(bundles, made), ALONE)]
    for turn in range(1, config.self_refine + 1):
        drafts = [with_references(bundle, [reference_of(s)]) for bundle, s in zip(bundles, made, strict=True)]
        made = work.syntheses(Task(f"self-refine/{turn}", config.base, "refine"), drafts)
        parts.append(part_of(config.base, bundles, by_bundle(bundles, made), f"self-refine/{turn}"))
        written = [
            before + s.prompt_tokens + s.completion_tokens for before, s in zip(written, made, strict=True)
        ]
    scores = by_problem(bundles, [float(s.verdict == CORRECT) for s in made])
    note = f"{config.self_refine} rewritings" + (f"; {config.methods_note}" if config.methods_note else "")
    return Row("self-refine", scores, mean_over_problems(bundles, written), note, tuple(parts))


def first_populations(
    config: EvaluateConfig, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> list[list[Reference]]:
    """What the first round reads.

    Raises InputError if a problem has fewer rollouts than the population.
    """
    grouped, n = by_id(rollouts), config.rounds_population
    populations = [extended(bundle, grouped[bundle.problem_id], n) for bundle in bundles]
    if short := [
        bundle for bundle, population in zip(bundles, populations, strict=True) if len(population) < n
    ]:
        raise InputError(
            f"rounds: problem {short[0].problem_id!r} has fewer rollouts than rounds_population {n}; "
            "name `rollouts:` with more, or lower rounds_population"
        )
    return populations


def rounds_row(
    config: EvaluateConfig, work: Answers, final: Task, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> Row:
    """Recursive aggregation as in `TwoStage`; the answer is the majority of the last population."""
    rounds = Rounds(config.rounds_population, config.rounds_subset, config.rounds)
    n = rounds.population
    populations = first_populations(config, bundles, rollouts)
    first = token_sums([[m.tokens for m in population] for population in populations])
    tokens, parts = first, [Part(EXPLORER, 0.0, mean_over_problems(bundles, first) / n, n)]
    for turn in range(rounds.rounds):
        asked = [
            with_references(bundle, [population[i] for i in members], f"round{turn}.{at}")
            for bundle, population in zip(bundles, populations, strict=True)
            for at, members in enumerate(rounds.subsets(config.seed, bundle.id, turn))
        ]
        made = work.syntheses(replace(final, name=f"rounds/{turn + 1}", sampled=True), asked)
        groups = [made[at : at + n] for at in range(0, len(made), n)]
        tokens = [
            t + sum(s.prompt_tokens + s.completion_tokens for s in g)
            for t, g in zip(tokens, groups, strict=True)
        ]
        populations = [[reference_of(s) for s in group] for group in groups]
        parts += [part_of(final.model, bundles, groups, f"rounds/{turn + 1}")] * n
    votes = [
        expected_vote([m.answer for m in population], [m.verdict for m in population], bundle.verifier)
        for bundle, population in zip(bundles, populations, strict=True)
    ]
    note = f"N={rounds.population}, K={rounds.subset}, T={rounds.rounds}, majority of the last"
    return Row("rounds", by_problem(bundles, votes), mean_over_problems(bundles, tokens), note, tuple(parts))
