"""Intervals hold their coverage, tests and corrections agree with hand-computed cases."""

import itertools
import math
import warnings

import numpy as np
import pytest

from a2r_train.errors import InputError
from a2r_train.evaluate.statistics import Difference, gain_ratio, holm, interval, paired, pass_at_k


def test_intervals_hold_the_truth_in_95_of_100_simulations() -> None:
    """1,000 evaluations of known truth: 120 problems of unlike difficulty, 2 bundles of each, 2 syntheses a
    bundle.

    What the bundles and syntheses of a problem have in common must count: resampling single syntheses, as if
    there were 480 problems, holds the truth far too seldom.
    """
    random = np.random.default_rng(1)
    held = np.zeros(3)
    for simulation in range(1000):
        ability = random.beta(1.0, 1.5, size=120)  # mean 0.4
        bundles = random.beta(4 * ability[:, None], 4 * (1 - ability[:, None]), size=(120, 2))
        right = random.binomial(1, bundles[:, :, None], size=(120, 2, 2))
        rival = random.binomial(4, ability * 0.75) / 4  # mean 0.3
        scores = right.mean(axis=(1, 2))
        low, high = interval(scores, seed=simulation, draws=500)[1:]
        difference = paired(scores, rival, seed=simulation, draws=500)
        naive = right.std() / 480**0.5 * 1.96
        held += [
            low <= 0.4 <= high,
            difference.low <= 0.1 <= difference.high,
            abs(scores.mean() - 0.4) <= naive,
        ]
    interval_held, difference_held, naive_held = held / 1000
    assert 0.93 <= interval_held <= 0.97
    assert 0.93 <= difference_held <= 0.97
    assert naive_held < 0.85


@pytest.mark.parametrize(
    ("n", "correct", "k", "expected"),
    [
        (4, 0, 2, 0.0),
        (4, 4, 2, 1.0),
        (4, 1, 4, 1.0),
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),
        (4, 2, 2, 1 - 1 / 6),
        (10, 3, 5, 1 - 21 / 252),
        (200, 1, 100, 0.5),
    ],
)
def test_pass_at_k_is_the_published_formula(n: int, correct: int, k: int, expected: float) -> None:
    assert pass_at_k(n, correct, k) == pytest.approx(expected)


def test_pass_at_k_agrees_with_binomials_and_wants_k_samples() -> None:
    for n, k in itertools.product((5, 16, 36), (1, 3, 5)):
        for correct in range(n + 1):
            assert pass_at_k(n, correct, k) == pytest.approx(1 - math.comb(n - correct, k) / math.comb(n, k))
    assert np.isnan(pass_at_k(3, 3, 4))


def test_gain_as_a_ratio_of_another_gain() -> None:
    random = np.random.default_rng(3)
    base = random.random(300) * 0.4
    vote, trained = base + random.normal(0.1, 0.02, 300), base + random.normal(0.175, 0.02, 300)
    ratio, low, high = gain_ratio(trained, base, vote)
    assert 1.6 < low < ratio < high < 1.9
    assert ratio == pytest.approx(1.75, abs=0.05)
    assert all(np.isnan(gain_ratio(trained, base, base)))  # majority gains nothing: no ratio


def test_a_gain_ratio_of_few_problems_has_no_draw_without_gain() -> None:
    vote = np.array([0.0] * 6 + [1.0] * 4)  # in 0.6 % of the draws the vote gains nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ratio, low, high = gain_ratio(vote, np.zeros(10), vote)
    assert (ratio, low, high) == (1.0, 1.0, 1.0)


def test_interval_has_the_width_of_the_normal_approximation_and_repeats() -> None:
    scores = np.array([1.0] * 300 + [0.0] * 700)
    mean, low, high = interval(scores, seed=3)
    assert mean == pytest.approx(0.3)
    assert high - low == pytest.approx(2 * 1.96 * (0.3 * 0.7 / 1000) ** 0.5, rel=0.05)
    assert interval(scores, seed=3) == (mean, low, high)
    assert interval(scores, seed=4) != (mean, low, high)


def test_interval_leaves_nan_out() -> None:
    scores = np.array([1.0, 0.0, 1.0, 1.0])
    with_gaps = np.array([1.0, np.nan, 0.0, 1.0, np.nan, 1.0])
    assert interval(scores) == interval(with_gaps)
    assert all(np.isnan(interval(np.array([np.nan]))))


def test_a_large_table_is_resampled_in_bounded_chunks() -> None:
    scores = np.tile([0.0, 1.0], 200_000)
    mean, low, high = interval(scores, draws=12)
    assert mean == 0.5
    assert 0.49 < low <= high < 0.51


def test_paired_sees_a_known_difference_that_unpaired_intervals_hide() -> None:
    random = np.random.default_rng(0)
    difficulty = random.random(400)
    a, b = difficulty + 0.02, difficulty + random.normal(0, 0.02, 400)
    found = paired(a, b)
    assert found.difference == pytest.approx(0.02, abs=0.005)
    assert 0 < found.low < 0.02 < found.high
    assert found.p_value == pytest.approx(1 / 10_001)
    assert interval(a)[1] < interval(b)[0] < interval(a)[2]


def test_paired_without_difference_has_p_of_one_and_is_antisymmetric() -> None:
    a = np.array([0.0, 1.0, 1.0, 0.0, np.nan])
    assert paired(a, a).p_value == 1.0
    assert paired(a, a).n == 4
    b = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    assert paired(a, b).difference == 0.0
    c = np.array([1.0, 1.0, 1.0, 0.0, 1.0])
    assert paired(c, a).difference == -paired(a, c).difference == 0.25
    with pytest.raises(InputError, match="no problem has a score in both"):
        paired(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))


def test_few_equal_differences_are_no_proof() -> None:
    """Of three problems that all gain, an exact test of signs has 2 / 2^3."""
    assert paired(np.ones(3), np.zeros(3)).p_value == 0.25
    assert paired(np.ones(20), np.zeros(20)).p_value == pytest.approx(1 / 10_001)


def test_p_values_are_uniform_under_the_null() -> None:
    random = np.random.default_rng(2)
    values = [paired(random.random(80), random.random(80), seed=i, draws=300).p_value for i in range(300)]
    assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.09
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)


def _difference(p_value: float, spread: float = 1.0) -> Difference:
    resampled = np.linspace(-spread, spread, 10_001)
    return Difference(0.0, -spread, spread, p_value, 10, resampled)


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone: 0.02, 0.03, 0.06, 0.06."""
    corrected = holm([_difference(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [one.p_holm for one in corrected] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Levels 0.05/3 for the second step; the third does not reject, so it and the fourth stay at 0.05/2;
    # 0.05/4 for the first.
    assert [one.high_holm for one in corrected] == pytest.approx(
        [1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2, 1 - 0.05 / 4]
    )
    assert [one.low_holm for one in corrected] == pytest.approx([-one.high_holm for one in corrected])


def test_holm_of_none_one_and_large_p() -> None:
    assert holm([]) == []
    (alone,) = holm([_difference(0.03)])
    assert (alone.p_holm, alone.high_holm) == (0.03, pytest.approx(0.95))
    assert [one.p_holm for one in holm([_difference(0.9), _difference(0.8)])] == [1.0, 1.0]
