"""Rollouts as `a2r probe` counts them: which answers agree, how often the vote of k is right, and the
patterns.

All numbers of k use the same random orders of each problem's rollouts: the first k of an order are a bundle.
`ORDERS` orders per problem leave a noise of about 0.1 points in a mean over 200 problems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import load_rollouts
from a2r_train.data.task import inherit, task_of
from a2r_train.errors import InputError
from a2r_train.paths import paths_in
from a2r_train.prompts import PromptConfig
from a2r_train.records import CHECK_VERDICT, CORRECT, Problem, Rollout
from a2r_train.verify import has_vote, majority
from a2r_train.verify.compare import check_verifier
from a2r_train.verify.vote import majorities

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ORDERS = 64
MOST_CELLS = 8_000_000  # of orders x rollouts x answers in memory at once
NO_ANSWER, NO_ROLLOUT = -1, -2


@dataclass(frozen=True)
class Pattern:
    """How the answers of a bundle agree: the size of each group of equal answers, and whether it is right.

    The largest come first; `unread` references have no answer.
    """

    groups: tuple[tuple[int, bool], ...]
    unread: int = 0

    @cached_property
    def n_correct(self) -> int:
        return sum(size for size, right in self.groups if right)

    @cached_property
    def vote(self) -> float:
        """Expected accuracy of the majority, ties broken at random."""
        top = [right for size, right in self.groups if size == self.groups[0][0]]
        return sum(top) / len(top) if top else 0.0

    @property
    def unanimous(self) -> bool:
        return len(self.groups) == 1 and not self.unread

    @property
    def label(self) -> str:
        """Such as `2-1-1`, or `2-1 (1 unread)`."""
        sizes = "-".join(str(size) for size, _ in self.groups) or "no answer"
        return f"{sizes} ({self.unread} unread)" if self.unread and self.groups else sizes


@dataclass(frozen=True, eq=False)
class Pools:
    """The rollouts of P problems, at most n each: `group` [P, n] numbers equal answers of a problem, or is
    NO_ANSWER or NO_ROLLOUT; `right` [P, n]; `tokens` [P, n] of the completions, 0 if not known.
    """

    ids: list[str]
    group: Ints
    right: NDArray[np.bool_]
    tokens: Ints

    @property
    def n(self) -> int:
        """The most rollouts of a problem."""
        return int(self.group.shape[1])

    @property
    def sizes(self) -> Ints:
        """Rollouts of each problem, [P]."""
        counted: Ints = (self.group != NO_ROLLOUT).sum(axis=1)
        return counted


def load_pools(
    rollouts: str, problems: str, columns: Columns, verifier: str, leave_out_bad_golds: bool = False
) -> tuple[list[Problem], list[Rollout], str]:
    """Problems, judged rollouts, and the verifier by which they vote ("": each problem's own).

    Our own rollouts have verdicts and need no problems: the list is then empty, and the verdicts of the file
    count. Raises InputError as `load_rollouts` does.
    """
    task = task_of(rollouts)
    verifier = inherit(verifier, "verifier", task)
    if not columns.names:
        columns = Columns(dict(task.columns), met=set(task.columns.values()))
    if problems or not _are_judged(rollouts, columns):
        prompt = task.prompt or PromptConfig()
        known, samples = load_rollouts(problems, rollouts, columns, verifier, prompt, leave_out_bad_golds)
        columns.check_met()
        return known, samples, ""
    check_verifier(verifier or "math")
    samples = read(Rollout, rollouts, columns)
    columns.check_met()
    unjudged = next((r for r in samples if r.verdict == CHECK_VERDICT), None)
    if unjudged:
        raise InputError(
            f"{rollouts}: sample {unjudged.sample} of problem {unjudged.problem_id!r} has no verdict; "
            "name the problems with `problems:`"
        )
    return [], samples, verifier or "math"


def _are_judged(path: str, columns: Columns) -> bool:
    """Whether the first row is a rollout of ours: with a verdict, and without its problem."""
    row = next(iter(columns.rows(paths_in(path)[0])), None)
    if row is None:
        raise InputError(f"{path}: no rows; expected at least one rollout")
    return all(row.column(key) in row.values for key in ("problem_id", "verdict", "text")) and (
        row.column("problem") not in row.values
    )


def pools_of(rollouts: Sequence[Rollout], verifiers: dict[str, str], verifier: str) -> Pools:
    """The rollouts by problem; `verifiers` are those of problems that have their own.

    Raises InputError if answers have no vote, which the probe needs.
    """
    silent = next((name for name in {*verifiers.values(), verifier or "math"} if not has_vote(name)), "")
    if silent:
        raise InputError(f"the probe needs votes, but answers of {silent} have none; evaluate some bundles")
    grouped: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in sorted(rollouts, key=lambda r: r.sample):
        grouped[rollout.problem_id].append(rollout)
    shape = len(grouped), max(map(len, grouped.values()))
    group, right = np.full(shape, NO_ROLLOUT), np.zeros(shape, bool)
    tokens = np.zeros(shape, np.int64)
    asked = [([r.answer for r in pool], verifiers.get(i, verifier or "math")) for i, pool in grouped.items()]
    for at, (pool, voted) in enumerate(zip(grouped.values(), majorities(asked), strict=True)):
        n = len(pool)
        group[at, :n] = NO_ANSWER
        for number, members in enumerate(voted.groups):
            group[at, members] = number
        right[at, :n] = [r.verdict == CORRECT for r in pool]
        tokens[at, :n] = [r.completion_tokens for r in pool]
    return Pools(list(grouped), group, right, tokens)


def votes(pools: Pools, seed: int) -> Floats:
    """Expected accuracy of the majority of k rollouts, [P, n] for k = 1 to n; NaN where there are fewer."""
    found: Floats = np.full((len(pools.ids), pools.n), np.nan)
    for part, group in _orders(pools, seed):
        shares, counts = _shares_right(pools, part), _no_votes(group)
        for k in range(pools.n):
            _add(counts, group[:, :, k])
            top = counts == np.maximum(counts.max(axis=2, keepdims=True), 1)
            right = (top * shares[:, None, : counts.shape[2]]).sum(axis=2) / np.maximum(top.sum(axis=2), 1)
            found[part, k] = right.mean(axis=1)
    found[:, 0] = pools.right.sum(axis=1) / pools.sizes  # as pass@1 is, without the noise of the orders
    found[np.arange(pools.n) >= pools.sizes[:, None]] = np.nan
    return found


def patterns(pools: Pools, k: int, seed: int) -> tuple[list[Pattern], Floats]:
    """The patterns that bundles of k rollouts have, and the share of each among those of a problem, [P, U].

    Rows of problems with fewer than k rollouts are NaN.
    """
    coded = []
    for part, group in _orders(pools, seed):
        counts = _no_votes(group)
        for at in range(k):
            _add(counts, group[:, :, at])
        right = _shares_right(pools, part)[:, None, : counts.shape[2]] >= 0.5
        codes = np.sort(np.where(counts > 0, 2 * counts + right, 0), axis=2)[:, :, ::-1]
        padded = np.zeros((*group.shape[:2], k), int)
        width = min(k, codes.shape[2])
        padded[:, :, :width] = codes[:, :, :width]
        coded.append(padded)
    whole: Ints = np.concatenate(coded)
    distinct, numbers = np.unique(whole.reshape(-1, k), axis=0, return_inverse=True)
    shares = np.zeros((len(whole), len(distinct)))
    np.add.at(shares, (np.repeat(np.arange(len(whole)), whole.shape[1]), numbers.reshape(-1)), 1)
    shares /= whole.shape[1]
    shares[pools.sizes < k] = np.nan
    return [_pattern(row, k) for row in distinct.tolist()], shares


def pattern_of(answers: Sequence[str], verdicts: Sequence[str], verifier: str) -> Pattern:
    """The pattern of one bundle."""
    groups = majority(answers, verifier).groups
    coded = [2 * len(g) + (2 * sum(verdicts[i] == CORRECT for i in g) >= len(g)) for g in groups]
    return _pattern(sorted(coded, reverse=True), len(answers))


def _pattern(codes: Sequence[int], k: int) -> Pattern:
    groups = tuple((code // 2, bool(code % 2)) for code in codes if code)
    return Pattern(groups, k - sum(size for size, _ in groups))


def _orders(pools: Pools, seed: int) -> Iterator[tuple[slice, Ints]]:
    """Some problems at a time: the groups of their rollouts in random orders, [p, ORDERS, n].

    Rollouts that a problem lacks come last.
    """
    rng = np.random.default_rng(seed)
    problems, n = pools.group.shape
    step = max(1, MOST_CELLS // (ORDERS * n * max(1, int(pools.group.max()) + 1)))
    for start in range(0, problems, step):
        part = slice(start, min(start + step, problems))
        group = pools.group[part]
        keys = rng.random((len(group), ORDERS, n))
        keys += 2 * (group == NO_ROLLOUT)[:, None, :]
        order = keys.argsort(axis=2)
        yield part, np.take_along_axis(np.broadcast_to(group[:, None, :], order.shape), order, axis=2)


def _shares_right(pools: Pools, part: slice) -> Floats:
    """Share of right rollouts in each group, [p, groups]; equal answers have equal verdicts, except with a
    custom verifier.
    """
    group, right = pools.group[part], pools.right[part]
    width = max(1, int(pools.group.max()) + 1)
    total, good = np.zeros((len(group), width)), np.zeros((len(group), width))
    at, column = np.nonzero(group >= 0)
    np.add.at(total, (at, group[at, column]), 1)
    np.add.at(good, (at, group[at, column]), right[at, column])
    shares: Floats = good / np.maximum(total, 1)
    return shares


def _no_votes(group: Ints) -> Ints:
    """Votes [p, ORDERS, answers] before any is counted."""
    return np.zeros((*group.shape[:2], max(1, int(group.max()) + 1)), np.int64)


def _add(counts: Ints, group: Ints) -> None:
    """Count one more vote of each order, [p, ORDERS]; a rollout without an answer does not vote."""
    at, order = np.nonzero(group >= 0)
    counts[at, order, group[at, order]] += 1
