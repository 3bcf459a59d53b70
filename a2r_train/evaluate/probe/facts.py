"""What the rollouts alone say, with intervals over problems. Pure functions of the counted rollouts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from a2r_train.data.probe import Floats, Pattern, Pools, patterns, votes
from a2r_train.evaluate.cost import flops
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.selector import TRAINED_WEIGHT, Selector
from a2r_train.evaluate.rows.row import Part
from a2r_train.evaluate.statistics import intervals, pass_at_k
from a2r_train.models import Size

Found = dict[str, Any]


class Facts:
    """The counted rollouts at the probe's k, over problems with at least k of them.

    shares [P, U] of `patterns`; vote and oracle [P, n] for k = 1 to n.
    """

    def __init__(self, config: ProbeConfig, pools: Pools) -> None:
        self.config, self.pools, self.k = config, pools, config.k
        self.vote, self.oracle = votes(pools, config.seed), _oracle(pools)
        self.patterns, shares = patterns(pools, config.k, config.seed)
        self.kept = ~np.isnan(shares).any(axis=1)
        self.shares = shares[self.kept]

    @property
    def weights(self) -> Floats:
        """The share of each pattern, [U]."""
        weights: Floats = self.shares.mean(axis=0)
        return weights

    def each(self, value: Callable[[Pattern], float]) -> Floats:
        """The value of each pattern, [U]."""
        return np.array([value(pattern) for pattern in self.patterns])

    def of_problems(self, value: Callable[[Pattern], float]) -> Floats:
        """The mean value over the bundles of each problem, [P]."""
        found: Floats = self.shares @ self.each(value)
        return found

    def with_intervals(self, **columns: Floats) -> dict[str, Found]:
        """Means of scores [problems], with intervals, by name."""
        made = intervals(
            np.stack(list(columns.values()), axis=1), seed=self.config.seed, draws=self.config.draws
        )
        return {
            name: {"value": value, "low": low, "high": high}
            for name, (value, low, high) in zip(columns, made.T.tolist(), strict=True)
        }


def _oracle(pools: Pools) -> Floats:
    """Unbiased pass@k [P, n] for k = 1 to n; NaN if a problem has fewer rollouts."""
    estimate = cache(pass_at_k)
    correct = (pools.right & (pools.group != -2)).sum(axis=1).tolist()
    return np.array(
        [
            [estimate(n, c, k) for k in range(1, pools.group.shape[1] + 1)]
            for n, c in zip(pools.sizes.tolist(), correct, strict=True)
        ]
    )


def by_k(facts: Facts) -> list[Found]:
    """pass@k, maj@k and the headroom for each k, with the number of problems that have k rollouts.

    over_k: pass@k less that at the probe's k, over the problems that have both.
    """
    n = facts.vote.shape[1]
    over = facts.oracle - facts.oracle[:, [facts.k - 1]]
    names = ("pass", "maj", "headroom")
    values = np.concatenate([facts.oracle, facts.vote, facts.oracle - facts.vote], axis=1)
    made = intervals(values, seed=facts.config.seed, draws=facts.config.draws)
    return [
        {
            "k": at + 1,
            "problems": int((facts.pools.sizes > at).sum()),
            "over_k": float(np.nanmean(over[:, at])),
        }
        | {
            name: dict(zip(("value", "low", "high"), made[:, column * n + at].tolist(), strict=True))
            for column, name in enumerate(names)
        }
        for at in range(n)
    ]


def by_correct(facts: Facts) -> list[Found]:
    """Shares of bundles by number of right references, and how often the vote of these is right."""
    found = []
    for count in range(facts.k + 1):
        here = facts.each(lambda p, count=count: float(p.n_correct == count))  # type: ignore[misc]
        share = facts.with_intervals(share=facts.shares @ here)["share"]
        found.append({"correct": count, "share": share, "vote": _within(facts, here)})
    return found


def by_agreement(facts: Facts) -> list[Found]:
    """By agreement pattern, the most frequent first: the share of the bundles, P(vote right), and the share
    with a right reference.
    """
    grouped: defaultdict[str, list[int]] = defaultdict(list)
    for at, pattern in enumerate(facts.patterns):
        grouped[pattern.label].append(at)
    found = []
    for label, members in grouped.items():
        here = np.zeros(len(facts.patterns))
        here[members] = 1.0
        share = facts.with_intervals(share=facts.shares @ here)["share"]
        some = facts.each(lambda p: float(p.n_correct > 0))
        found.append(
            {
                "pattern": label,
                "share": share,
                "vote": _within(facts, here),
                "some": _ratio(facts, here, some),
            }
        )
    return sorted(found, key=lambda one: (-one["share"]["value"], one["pattern"]))


def _within(facts: Facts, here: Floats) -> float:
    """P(vote right) among the bundles of some patterns; NaN without any."""
    return _ratio(facts, here, facts.each(lambda p: p.vote))


def _ratio(facts: Facts, here: Floats, value: Floats) -> float:
    total = float(facts.weights @ here)
    return float(facts.weights @ (here * value)) / total if total else math.nan


def shares(facts: Facts) -> dict[str, Found]:
    """Shares of bundles: unanimous, unanimous and wrong, no reference right, the majority wrong while a
    minority is right, and a tie that includes the right answer.
    """
    return facts.with_intervals(
        unanimous=facts.of_problems(lambda p: float(p.unanimous)),
        unanimous_wrong=facts.of_problems(lambda p: float(p.unanimous and not p.n_correct)),
        none_right=facts.of_problems(lambda p: float(not p.n_correct)),
        all_right=facts.of_problems(lambda p: float(p.n_correct == facts.k)),
        minority_right=facts.of_problems(lambda p: float(p.vote == 0 and p.n_correct > 0)),
        tied=facts.of_problems(lambda p: float(0 < p.vote < 1)),
    )


def tokens(facts: Facts, asked: Mapping[str, float], problem_tokens: float) -> Found:
    """Mean tokens of a reference, of k references, of the synthesizer's prompt and answer, of an answer
    alone, and of both stages; NaN if no rollout has counts.

    `asked` are the counts of a model's answers. Without them, the prompt is estimated as k references and a
    problem, and an answer as long as a reference.
    """
    counted = facts.pools.tokens[facts.pools.tokens > 0]
    one = float(counted.mean()) if counted.size else math.nan
    prompt = asked.get("prompt", facts.k * one + problem_tokens)
    answer = asked.get("answer", one)
    whole = facts.k * one + prompt + answer
    return {
        "reference": one,
        "references": facts.k * one,
        "prompt": prompt,
        "synthesis": answer,
        "alone": asked.get("alone", one),
        "problem": problem_tokens,
        "two_stages": whole,
        "measured": bool(asked),
        "equal": math.ceil(whole / one - 1e-9) if one > 0 else None,
    }


def cost(found: Found, k: int, explorer: Size | None, synthesizer: Size | None, larger: Size | None) -> Found:
    """FLOPs of a two-stage answer over those of one answer of the larger model; {} if sizes are not known.

    Without a larger model, the synthesizer alone takes its place.
    """
    larger = larger or synthesizer
    if explorer is None or synthesizer is None or larger is None or math.isnan(found["two_stages"]):
        return {}
    first = flops(explorer, Part("", found["problem"], found["reference"], k))
    second = flops(synthesizer, Part("", found["prompt"], found["synthesis"]))
    alone = flops(larger, Part("", found["problem"], found["alone"]))
    return {"two_stages": first + second, "alone": alone, "ratio": (first + second) / alone}


def gains(facts: Facts, equal: int | None) -> dict[str, Found]:
    """What a perfect selector, and one with the recipe's accuracy, would gain over the vote of k, and over a
    vote of equal tokens.

    The latter has `equal` rollouts, or all if there are fewer.
    """
    selector = Selector(TRAINED_WEIGHT, facts.config.accuracy, 0.0)
    perfect = facts.of_problems(lambda p: float(p.n_correct > 0))
    chosen = facts.of_problems(selector.right)
    vote = facts.of_problems(lambda p: p.vote)
    found = {"perfect": perfect - vote, "selector": chosen - vote}
    if equal:
        more = last_vote(facts, equal)[facts.kept]
        found |= {"perfect_equal": perfect - more, "selector_equal": chosen - more}
    return facts.with_intervals(**found)


def last_vote(facts: Facts, m: int) -> Floats:
    """The vote of m rollouts of each problem, [P], or of all if it has fewer."""
    at = np.minimum(facts.pools.sizes, m) - 1
    found: Floats = facts.vote[np.arange(len(at)), at]
    return found


def next_k(found: Sequence[Found], k: int) -> Found | None:
    """The row nearest to 2k, of those above k that have at least half of its problems; None without one."""
    rows = [row for row in found if row["k"] > k and row["problems"] >= found[k - 1]["problems"] / 2]
    return min(rows, key=lambda row: abs(row["k"] - 2 * k)) if rows else None
