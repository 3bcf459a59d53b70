"""From rollouts, bundles and syntheses to the rows of the result table. Pure functions.

Scores are in the order of `problem_ids(bundles)`; several bundles or samples of a problem are averaged. The
tokens of an answer are the completions of the first stage, and all that the synthesizer reads and writes. The
explorer's prompt is left out of every row, because any number of rollouts share it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from a2r_train.data.builder import extended
from a2r_train.data.unparsable import unparsable
from a2r_train.errors import InputError
from a2r_train.evaluate.rows.names import is_reference_vote
from a2r_train.evaluate.statistics import Scores, gain_ratio, pass_at_k
from a2r_train.records import CHECK_VERDICT, CORRECT, VOTED, Bundle, Reference, Rollout, Synthesis
from a2r_train.verify import has_vote, majority

EXPLORER = "explorer"  # stands for the models of the references; `cost.writers_of` names them


@dataclass(frozen=True)
class Part:
    """What one model does for an answer: it reads a prompt once and writes `completions` of a mean length.

    Below 1, `completions` are the share of the answers for which the model is asked; the tokens are those of
    one that it is asked for. `task` is the task whose measured time counts.
    """

    model: str
    prompt_tokens: float
    completion_tokens: float
    completions: float = 1.0
    task: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: scores [n_problems] in 0..1 (NaN: not available) and mean tokens of an answer.

    `parts` say how much each model reads and writes, for the cost. `unparsable` is the share of the row's
    texts without a readable answer, NaN if the row has no texts of its own.
    """

    name: str
    scores: Scores
    tokens: float
    note: str = ""
    parts: tuple[Part, ...] = ()
    unparsable: float = math.nan


def problem_ids(bundles: Iterable[Bundle]) -> list[str]:
    """The problems, in the order of their first bundles."""
    return list(dict.fromkeys(bundle.problem_id for bundle in bundles))


def expected_vote(answers: Sequence[str], verdicts: Sequence[str], verifier: str) -> float:
    """Expected accuracy of the majority vote: answers that tie for first are equally likely; "" does not
    vote.

    0 if nobody votes. If the verifier has no vote, all answers are equally likely.
    """
    if not has_vote(verifier):
        return float(np.mean([verdict == CORRECT for verdict in verdicts]))
    tied = majority(answers, verifier).top
    return (
        float(np.mean([np.mean([verdicts[i] == CORRECT for i in group]) for group in tied])) if tied else 0.0
    )


def vote_of(references: Sequence[Reference], verifier: str) -> float:
    """Expected accuracy of the references' majority."""
    return expected_vote([r.answer for r in references], [r.verdict for r in references], verifier)


def bundle_votes(bundles: Sequence[Bundle]) -> Scores:
    """Expected accuracy of the references' majority, [n_bundles]; NaN if there is no vote."""
    return np.array(
        [vote_of(b.references, b.verifier) if has_vote(b.verifier) else math.nan for b in bundles]
    )


def reference_rows(bundles: Sequence[Bundle], votes: Scores, rollouts: Sequence[Rollout] = ()) -> list[Row]:
    """pass@1, pass@k and, if all answers vote, maj@k; `votes` are those of `bundle_votes`.

    pass@1 and pass@k are unbiased estimates from all rollouts of a problem (`pass_at`). For a problem with
    too few rollouts they come from the references alone.
    """
    label, k = size_label(bundles), max(len(b.references) for b in bundles)
    sums = reference_tokens(bundles)
    single = mean_over_problems(
        bundles, [tokens / len(b.references) for tokens, b in zip(sums, bundles, strict=True)]
    )
    part = reference_part(bundles)
    (one, oracle), note = _pass_from_references(bundles), ""
    here = of_bundles(bundles, rollouts)
    if here and label != "k":
        every = pass_at(bundles, here, 1), pass_at(bundles, here, k)
        one, oracle = (np.where(np.isnan(e), own, e) for e, own in zip(every, (one, oracle), strict=True))
        note = f"unbiased, over {len(here) / len({r.problem_id for r in here}):g} rollouts a problem"
    total = mean_over_problems(bundles, sums)
    unread = unparsable(explorer_texts(bundles, here)).share
    rows = [
        Row("pass@1", one, single, note, (Part(EXPLORER, 0.0, single),), unread),
        Row(f"pass@{label}", oracle, total, "oracle: any correct" + (f"; {note}" if note else ""), (part,)),
    ]
    if np.isnan(votes).any():
        return rows
    return [*rows, Row(f"maj@{label}", by_problem(bundles, votes), total, "", (part,))]


def explorer_texts(
    bundles: Sequence[Bundle], rollouts: Sequence[Rollout] = ()
) -> list[Rollout] | list[Reference]:
    """All rollouts of the bundles' problems; if there are none, the references."""
    return of_bundles(bundles, rollouts) or [r for b in bundles for r in b.references]


def of_bundles(bundles: Sequence[Bundle], rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The rollouts of the bundles' problems; a file may hold those of other problems too."""
    ids = set(problem_ids(bundles))
    return [r for r in rollouts if r.problem_id in ids]


def _pass_from_references(bundles: Sequence[Bundle]) -> tuple[Scores, Scores]:
    right = [[r.verdict == CORRECT for r in b.references] for b in bundles]
    return by_problem(bundles, [float(np.mean(r)) for r in right]), by_problem(
        bundles, [float(any(r)) for r in right]
    )


def pass_at(bundles: Sequence[Bundle], rollouts: Iterable[Rollout], k: int) -> Scores:
    """pass@k [n_problems] of all rollouts of each problem; NaN if fewer than k exist.

    Raises InputError for a rollout without a verdict.
    """
    grouped = by_id(rollouts)
    values = []
    for identity in problem_ids(bundles):
        verdicts = [r.verdict for r in grouped[identity]]
        if CHECK_VERDICT in verdicts:
            raise InputError(
                f"pass@{k}: a rollout of problem {identity!r} has no verdict; verify the rollouts first"
            )
        values.append(pass_at_k(len(verdicts), verdicts.count(CORRECT), k))
    return np.array(values)


def token_sums(counts: Sequence[Sequence[int]]) -> list[float]:
    """Sums; all NaN if no count is known, as for rollouts made elsewhere, because those were not free."""
    sums = [float(sum(one)) for one in counts]
    return sums if any(sums) else [math.nan] * len(sums)


def reference_tokens(bundles: Sequence[Bundle]) -> list[float]:
    """Tokens of all references of each bundle."""
    return token_sums([[r.tokens for r in b.references] for b in bundles])


def reference_part(bundles: Sequence[Bundle]) -> Part:
    """The explorer's share of an answer that reads the references."""
    size = mean_over_problems(bundles, [len(b.references) for b in bundles])
    total = mean_over_problems(bundles, reference_tokens(bundles))
    return Part(EXPLORER, 0.0, total / size if size else 0.0, size)


def synthesis_row(name: str, bundles: Sequence[Bundle], syntheses: Iterable[Synthesis]) -> Row:
    """Accuracy of a synthesizer on the bundles; a bundle without a synthesis has no score."""
    grouped = by_bundle(bundles, syntheses)
    tokens = sum(stage_tokens(bundles, grouped).values())
    return Row(name, by_problem(bundles, accuracies(grouped)), tokens)


def part_of(
    model: str, bundles: Sequence[Bundle], grouped: Sequence[Sequence[Synthesis]], task: str = ""
) -> Part:
    """What a model reads and writes for an answer, if it was asked this about each bundle that no vote
    answered: means over problems, as of every row.
    """
    stages = stage_tokens(bundles, grouped)
    asked = [mean([float(s.finish_reason != VOTED) for s in group]) for group in grouped]
    share = mean_over_problems(bundles, asked)
    return asked_part(model, stages["synthesizer_prompt"], stages["synthesis"], share, task)


def asked_part(model: str, prompt: float, completion: float, share: float, task: str = "") -> Part:
    """The part of a model that is asked for a share of the answers, from its mean tokens over all of them.

    The more tokens precede a token, the more FLOPs it takes. So a long completion for some problems costs
    more than the same mean length for all of them.
    """
    some = share or 1.0
    return Part(model, prompt / some, completion / some, share, task)


def equal_budget(
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
    syntheses: Iterable[Synthesis],
    token_cost: float = 1.0,
) -> int:
    """How many rollouts the budget of a two-stage answer buys: the mean budget over problems, divided by the
    mean length of a completion, rounded up.

    The budget is the k reference completions plus what the synthesizer reads and writes. Each synthesizer
    token counts as `token_cost` explorer tokens: 1 for equal tokens; synthesizer parameters / explorer
    parameters for equal cost, because reading or writing a token takes 2 x parameters FLOPs (Kaplan et al.
    2020, arXiv 2001.08361, sec. 2.1). The explorer's prompt is computed once for any number of rollouts
    (prefix sharing), so it cancels on both sides.
    """
    stages = stage_tokens(bundles, by_bundle(bundles, syntheses))
    budget = stages["references"] + token_cost * (stages["synthesizer_prompt"] + stages["synthesis"])
    completions = [r.completion_tokens for r in of_bundles(bundles, rollouts)]
    completions = completions or [r.tokens for bundle in bundles for r in bundle.references]
    if not any(completions) or math.isnan(budget):
        raise InputError(
            "equal budget: no token counts in the rollouts or no syntheses; both come from the engine"
        )
    return math.ceil(budget / float(np.mean(completions)) - 1e-9)


def majority_row(name: str, bundles: Sequence[Bundle], rollouts: Iterable[Rollout], m: int) -> Row:
    """Majority over m rollouts: each bundle's references, then further rollouts of its problem in the order
    of their samples.

    If fewer than m exist, all of them vote, and the note says so. Raises InputError for rollouts without a
    verdict.
    """
    grouped = by_id(rollouts)
    scores, tokens, voters = [], [], []
    for bundle in bundles:
        voting = extended(bundle, grouped[bundle.problem_id], max(m, len(bundle.references)))
        if any(reference.verdict == CHECK_VERDICT for reference in voting):
            raise InputError(
                f"{name}: a rollout of problem {bundle.problem_id!r} has "
                "no verdict; verify the rollouts first"
            )
        scores.append(vote_of(voting, bundle.verifier))
        tokens.append(sum(reference.tokens for reference in voting))
        voters.append(len(voting))
    note = f"m={m}"
    if short := sum(n < m for n in voters):
        note += (
            f"; fewer rollouts exist for {short} of {len(bundles)} bundles "
            f"({np.mean(voters):.1f} vote on average)"
        )  # `is_short` reads it
    total = mean_over_problems(bundles, tokens)
    part = Part(EXPLORER, 0.0, total / float(np.mean(voters)), float(np.mean(voters)))
    return Row(name, by_problem(bundles, scores), total, note, (part,))


def is_short(note: str) -> bool:
    """Whether the note of `majority_row` says that fewer rollouts vote than the budget buys.

    m was rounded up, so up to one vote less on average is still at the budget.
    """
    found = re.match(r"m=(\d+); fewer .*\((\S+) vote on average\)", note)
    return bool(found and float(found[2]) <= int(found[1]) - 1)


def gains(rows: Sequence[Row], seed: int, draws: int) -> dict[str, dict[str, float]]:
    """Each row's gain over pass@1 as a ratio of the majority's gain, with its interval; {} without a majority
    or pass@1.

    If "75 % better than self-consistency" in A2R (arXiv 2509.22044) refers to the gain, it means 1.75 here.
    """
    scores = {row.name: row.scores for row in rows}
    vote = next((name for name in scores if is_reference_vote(name)), "")
    if not vote or "pass@1" not in scores:
        return {}
    found: dict[str, dict[str, float]] = {}
    for name in scores.keys() - {"pass@1"}:
        ratio, low, high = gain_ratio(scores[name], scores["pass@1"], scores[vote], seed=seed, draws=draws)
        found[name] = {"ratio": ratio, "low": low, "high": high}
    return {name: found[name] for name in scores if name in found}


def size_label(bundles: Iterable[Bundle]) -> str:
    """The number of references for row names, or "k" if it differs between bundles."""
    sizes = {len(bundle.references) for bundle in bundles}
    return str(sizes.pop()) if len(sizes) == 1 else "k"


def by_problem(bundles: Sequence[Bundle], values: Iterable[float]) -> Scores:
    """Means [n_problems] of one value per bundle, NaN left out."""
    grouped: dict[str, list[float]] = {i: [] for i in problem_ids(bundles)}
    for bundle, value in zip(bundles, values, strict=True):
        grouped[bundle.problem_id].append(float(value))
    return np.array([mean(group) for group in grouped.values()])


def mean_over_problems(bundles: Sequence[Bundle], values: Iterable[float]) -> float:
    return mean(by_problem(bundles, values))


def mean(values: Iterable[float]) -> float:
    """Mean without NaN; NaN if nothing is left."""
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def by_id(rollouts: Iterable[Rollout]) -> defaultdict[str, list[Rollout]]:
    grouped: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in sorted(rollouts, key=lambda r: r.sample):
        grouped[rollout.problem_id].append(rollout)
    return grouped


def by_bundle(bundles: Sequence[Bundle], syntheses: Iterable[Synthesis]) -> list[list[Synthesis]]:
    grouped: dict[str, list[Synthesis]] = {bundle.id: [] for bundle in bundles}
    for synthesis in syntheses:
        if synthesis.bundle_id in grouped:
            grouped[synthesis.bundle_id].append(synthesis)
    return list(grouped.values())


def accuracies(grouped: Iterable[Sequence[Synthesis]]) -> list[float]:
    return [mean([float(s.verdict == CORRECT) for s in group]) for group in grouped]


def stage_tokens(bundles: Sequence[Bundle], grouped: Sequence[Sequence[Synthesis]]) -> dict[str, float]:
    """Mean tokens per problem of each stage."""
    values = {
        "references": reference_tokens(bundles),
        "synthesizer_prompt": [mean([s.prompt_tokens for s in group]) for group in grouped],
        "synthesis": [mean([s.completion_tokens for s in group]) for group in grouped],
    }
    return {stage: mean_over_problems(bundles, tokens) for stage, tokens in values.items()}
