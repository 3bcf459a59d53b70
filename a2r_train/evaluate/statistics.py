"""Intervals and paired tests of the evaluation. The unit of resampling is always the problem.

Several bundles or samples of one problem are first averaged into its score. So resampling problems keeps
correlated scores together (a cluster bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from a2r_train.errors import InputError

Scores = NDArray[np.float64]
ALPHA = 0.05
DRAWS = 10_000
_CELLS_PER_CHUNK = 1_000_000  # weights of resamples held at a time: limits the memory to about 16 MB
_CELLS_IN_CACHE = 50_000  # resampled scores held at a time: beyond the cache they would take twice as long
TWO_SIDED, POWER = 1.959964, 0.841621  # standard errors for a two-sided 5 %, and for a power of 80 %


@dataclass(frozen=True, eq=False)
class Difference:
    """Mean of a - b over problems, its 95 % interval and two-sided p-value; the `_holm` fields are set by
    `holm`.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    resampled: Scores = field(repr=False)  # [draws], the bootstrap distribution of the mean difference
    p_holm: float = float("nan")
    low_holm: float = float("nan")
    high_holm: float = float("nan")


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that at least one of k samples is right, drawn without replacement from n of which
    `correct` are right.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, eq. 1), in the
    product form, which does not overflow. NaN if fewer than k samples exist.
    """
    if n < k:
        return float("nan")
    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def gain_ratio(
    a: Scores, base: Scores, reference: Scores, *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float, float]:
    """mean(a - base) / mean(reference - base) with its 95 % interval, problems resampled together.

    All three are NaN if the interval of the denominator includes 0, because such a ratio means nothing.
    """
    kept = ~np.isnan(a + base + reference)
    if not kept.any():
        return (float("nan"),) * 3
    upper, lower = (a - base)[kept], (reference - base)[kept]
    below = _resample(lower, seed, draws)
    low, high = _quantiles(below, ALPHA)
    if low <= 0 <= high:
        return (float("nan"),) * 3
    some = below != 0  # with few problems a draw may have no gain at all
    return (
        float(upper.mean() / lower.mean()),
        *_quantiles(_resample(upper, seed, draws)[some] / below[some], ALPHA),
    )


def interval(scores: Scores, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float, float]:
    """Mean and 95 % percentile bootstrap interval (Efron 1979) of scores [n_problems]; NaN scores are left
    out.

    Without any score all three are NaN. If all scores are equal, the interval has no width: the bootstrap
    cannot know what it has not seen.
    """
    values = scores[~np.isnan(scores)]
    if not values.size:
        return (float("nan"),) * 3
    return (float(values.mean()), *_quantiles(_resample(values, seed, draws), ALPHA))


def intervals(scores: Scores, *, seed: int = 0, draws: int = DRAWS) -> Scores:
    """Means and 95 % intervals, [3, columns], of many scores [n_problems, columns] over the same resamples.

    As `interval` for each column: a NaN score is left out of its column. Resampling only once keeps it fast.
    """
    random, n = np.random.default_rng(seed), len(scores)
    known = ~np.isnan(scores)
    values = np.where(known, scores, 0.0)
    chunk = max(1, _CELLS_PER_CHUNK // n)
    means = []
    for start in range(0, draws, chunk):
        weights = random.multinomial(n, np.full(n, 1 / n), size=min(chunk, draws - start)).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw may have no score of a column
            means.append((weights @ values) / (weights @ known.astype(float)))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(axis=0) / known.sum(axis=0)
    drawn = np.concatenate(means)
    found = np.full((3, scores.shape[1]), np.nan)
    some = known.any(axis=0)
    found[0] = mean
    found[1:, some] = np.nanquantile(drawn[:, some], [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return found


def paired(a: Scores, b: Scores, *, seed: int = 0, draws: int = DRAWS) -> Difference:
    """Paired bootstrap of mean(a - b) over the problems that both [n_problems] score.

    The resampled differences are shifted to mean 0 (the null hypothesis). The p-value is the share of them
    that are at least as far from 0 as the observed one, as (count + 1) / (draws + 1), so that it is never 0
    (Davison and Hinkley 1997, eq. 4.11). It is also never below 2^(1 - n), the smallest p of an exact test by
    n sign flips (Fisher 1935), because a few differences of one sign leave the bootstrap nothing to resample.
    Raises InputError if no problem is scored in both.
    """
    values = (a - b)[~np.isnan(a - b)]
    if not values.size:
        raise InputError(
            "paired comparison: no problem has a score in both rows; evaluate both on the same bundles"
        )
    resampled, mean = _resample(values, seed, draws), float(values.mean())
    # Differences of counts often tie; without the tolerance, rounding would decide whether a tie is counted.
    extreme = int(np.sum(np.abs(resampled - mean) >= abs(mean) - 1e-12))
    p_value = max((extreme + 1) / (draws + 1), 2.0 ** (1 - values.size))
    return Difference(mean, *_quantiles(resampled, ALPHA), p_value, values.size, resampled)


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Correct a family of m comparisons by Holm's step-down procedure (Holm 1979, Scand. J. Statist.
    6:65-70); same order.

    The i-th smallest p-value is multiplied by m - i + 1 and made monotone. Its interval has the confidence
    level of its step, 1 - 0.05 / (m - i + 1). From the first step that does not reject, the level stays the
    same, so that a later interval cannot exclude 0 only because its level is lower. The intervals that
    exclude 0 are claims with a family-wise error of at most 0.05; they are not simultaneous confidence
    intervals.
    """
    corrected = list(differences)
    p_holm, divisor, stopped = 0.0, len(corrected), False
    for step, at in enumerate(sorted(range(len(corrected)), key=lambda i: _strength(differences[i]))):
        one = differences[at]
        p_holm = min(1.0, max(p_holm, one.p_value * (len(corrected) - step)))
        divisor = divisor if stopped else len(corrected) - step
        stopped = stopped or p_holm > ALPHA
        low, high = _quantiles(one.resampled, ALPHA / divisor)
        corrected[at] = replace(one, p_holm=p_holm, low_holm=low, high_holm=high)
    return corrected


def fewest_problems(family: int) -> int:
    """The fewest problems that can show a difference: with fewer, no p of `paired` is small enough when
    corrected.
    """
    return 1 + math.ceil(math.log2(max(1, family) / ALPHA))


def detectable_difference(low: float, high: float, family: int) -> float:
    """The smallest true difference that 80 % of evaluations like this one detect, from its 95 % interval,
    when `family` comparisons are corrected together.
    """
    corrected = NormalDist().inv_cdf(1 - ALPHA / (2 * family)) + POWER
    return corrected * (high - low) / (2 * TWO_SIDED)


def _strength(one: Difference) -> tuple[float, float]:
    """Sort key: the p-value; ties at the smallest possible one by distance from 0 in standard errors."""
    return one.p_value, -abs(one.difference) / (float(one.resampled.std()) + 1e-12)


def _resample(values: Scores, seed: int, draws: int) -> Scores:
    """Means [draws] of resamples with replacement; the chunk size does not change them."""
    random = np.random.default_rng(seed)
    chunk = max(1, _CELLS_IN_CACHE // values.size)
    sizes = [min(chunk, draws - start) for start in range(0, draws, chunk)]
    return np.concatenate(
        [values.take(random.integers(values.size, size=(size, values.size))).mean(axis=1) for size in sizes]
    )


def _quantiles(resampled: Scores, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
