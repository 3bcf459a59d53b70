"""Intervals hold their coverage, tests and corrections agree with hand-computed cases."""

import numpy as np
import pytest

from a2r_train.errors import InputError
from a2r_train.evaluate.statistics import Difference, holm, interval, paired


def test_interval_covers_the_truth_in_simulation() -> None:
    random = np.random.default_rng(1)
    held = 0
    for simulation in range(300):
        ability = random.beta(1.0, 1.5, size=150)  # problems differ in difficulty: mean 0.4
        scores = random.binomial(4, ability) / 4
        _, low, high = interval(scores, seed=simulation, draws=400)
        held += low <= 0.4 <= high
    assert 0.90 <= held / 300 <= 0.99


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
    # Levels 0.05/3 for the second step; the third does not reject, so it and the fourth stay at 0.05/2; 0.05/4 for the first.
    assert [one.high_holm for one in corrected] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2, 1 - 0.05 / 4])
    assert [one.low_holm for one in corrected] == pytest.approx([-one.high_holm for one in corrected])


def test_holm_of_none_one_and_large_p() -> None:
    assert holm([]) == []
    (alone,) = holm([_difference(0.03)])
    assert (alone.p_holm, alone.high_holm) == (0.03, pytest.approx(0.95))
    assert [one.p_holm for one in holm([_difference(0.9), _difference(0.8)])] == [1.0, 1.0]
