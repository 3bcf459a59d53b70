"""Rows that choose one reference without a model, for answers that do not vote: a random one, one with the
most frequent behaviour, the medoid.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from a2r_train.evaluate.rows.names import RANDOM
from a2r_train.evaluate.rows.row import (
    EXPLORER,
    Part,
    Row,
    by_problem,
    mean_over_problems,
    reference_part,
    reference_tokens,
    size_label,
)
from a2r_train.evaluate.statistics import Scores
from a2r_train.records import CORRECT, Bundle, row_of
from a2r_train.verify import has_vote, programs

_TOKEN = re.compile(r"\w+|[^\w\s]")


def no_vote(bundles: Sequence[Bundle]) -> str:
    """Why there are no rows of votes; "" if all answers vote."""
    silent = sorted({b.verifier for b in bundles if not has_vote(b.verifier)})
    if not silent:
        return ""
    return (
        f"No vote: answers of {', '.join(silent)} cannot be counted, so there are no rows maj@k. "
        f"In their place stand {RANDOM}, the mean of the references, and rows best-of-k."
    )


def selected_rows(bundles: Sequence[Bundle]) -> list[Row]:
    """The rows that replace those of votes; ties are equally likely."""
    label, part = size_label(bundles), reference_part(bundles)
    total = mean_over_problems(bundles, reference_tokens(bundles))
    one = part.completion_tokens
    rows = [
        Row(RANDOM, _scores(bundles, [[*range(len(b.references))] for b in bundles]), one,
            "one of the references at random; the answers have no vote", (Part(EXPLORER, 0.0, one),))
    ]  # fmt: skip
    if all(b.verifier == programs.NAME for b in bundles):
        note = "the most frequent behaviour on the inputs of the hidden tests (MBR-exec, arXiv 2204.11454)"
        rows.append(
            Row(f"best-of-{label}/mbr-exec", _scores(bundles, behaving_most(bundles)), total, note, (part,))
        )
    note = "the answer that is most like the others, by tokens"
    medoids = [medoid([r.answer for r in b.references]) for b in bundles]
    return [*rows, Row(f"best-of-{label}/medoid", _scores(bundles, medoids), total, note, (part,))]


def _scores(bundles: Sequence[Bundle], chosen: Sequence[Sequence[int]]) -> Scores:
    """Expected accuracy of the chosen references, [n_problems]; 0 if none is chosen."""
    values = [
        float(np.mean([b.references[i].verdict == CORRECT for i in few])) if few else 0.0
        for b, few in zip(bundles, chosen, strict=True)
    ]
    return by_problem(bundles, values)


def behaving_most(bundles: Sequence[Bundle]) -> list[list[int]]:
    """By bundle: the references with the most frequent behaviour, or with any that ties for first. A program
    that returns nothing does not count.
    """
    places = [(at, i) for at, b in enumerate(bundles) for i, r in enumerate(b.references) if r.answer]
    done = programs.behaviours(
        [bundles[at].references[i].answer for at, i in places], [row_of(bundles[at]) for at, _ in places]
    )
    found: list[dict[str, list[int]]] = [{} for _ in bundles]
    for (at, i), behaviour in zip(places, done, strict=True):
        if behaviour:
            found[at].setdefault(behaviour, []).append(i)
    most = [max(map(len, groups.values()), default=0) for groups in found]
    return [
        sorted(i for group in groups.values() if len(group) == size for i in group)
        for groups, size in zip(found, most, strict=True)
    ]


def medoid(answers: Sequence[str]) -> list[int]:
    """The answers with the largest mean similarity to the others: Dice's coefficient of their bags of tokens.

    Empty answers are ignored.
    """
    bags = {i: Counter(_TOKEN.findall(answer)) for i, answer in enumerate(answers) if answer}
    if not bags:
        return []
    means = {
        i: round(sum(_dice(bag, other) for j, other in bags.items() if j != i), 9) for i, bag in bags.items()
    }
    return [i for i, value in means.items() if value == max(means.values())]


def _dice(one: Counter[str], other: Counter[str]) -> float:
    return 2 * (one & other).total() / max(1, one.total() + other.total())
