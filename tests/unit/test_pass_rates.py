"""Dynamic sampling: which further groups are drawn, and which groups are kept."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2r_train.train.pass_rates import Bank, Known, chosen, has_signal, learn, signal_chance


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 20))
def test_groups_with_signal_come_first_and_the_batch_is_full(alive: list[bool], count: int) -> None:
    count = min(count, len(alive))
    kept = chosen(alive, count)
    live = [at for at, one in enumerate(alive) if one]
    assert len(kept) == count
    assert kept == sorted(set(kept))
    assert [at for at in kept if alive[at]] == live[:count]
    dead = [at for at in range(len(alive)) if not alive[at]]
    assert [at for at in kept if not alive[at]] == dead[: max(0, count - len(live))]


def test_where_all_have_signal_those_of_the_sampler_are_kept_in_order() -> None:
    assert chosen([True] * 16, 8) == list(range(8))


def test_signal_is_a_difference_and_a_missing_reward_is_none() -> None:
    nan = math.nan
    rewards = np.array([[1, 1, 1], [0, 0, 0], [0, 1, 0], [nan, 1, 1], [nan, 0, 1], [nan, nan, nan]])
    assert has_signal(rewards).tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize("group", [2, 8])
def test_the_chance_of_a_signal_is_that_of_many_groups(group: int) -> None:
    draws = np.random.default_rng(0)
    for a, b in ((0.5, 4.5), (2.5, 2.5), (8.5, 0.5)):
        right = draws.binomial(group, draws.beta(a, b, 200_000))
        expected = np.mean((right > 0) & (right < group))
        assert signal_chance(np.array([a]), np.array([b]), group)[0] == pytest.approx(expected, abs=0.005)


def bank() -> Bank:
    return Bank([f"b{n}" for n in range(5)], [0, 1, 2, 3, 4], [4] * 5)


def test_bundles_near_one_half_are_drawn_most() -> None:
    drawn = [bank().draw(1, [], {}, 8, seed)[0] for seed in range(3000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[2] > 1.5 * max(counts[0], counts[4])
    assert min(counts) > 200, "those that are known little are drawn, too"


def test_earlier_groups_take_the_place_of_the_references() -> None:
    known: Known = {}
    for _ in range(3):
        learn(known, {"b2": [1.0] * 8})
    assert known == {"b2": [14.0, 14.0]}, "older groups count half"
    chances = bank().chances(known, 8)
    assert chances[2] < min(chances[0], chances[4])
    assert chances[1] == bank().chances({}, 8)[1]


def test_a_draw_leaves_out_the_samplers_and_follows_from_what_is_saved() -> None:
    known: Known = {}
    learn(known, {"b1": [0.0, 1.0, 1.0], "b3": [1 / 3, 0.0, 0.0]})
    saved = json.loads(json.dumps(known))
    for seed in range(20):
        drawn = bank().draw(3, [1, 2], known, 8, seed)
        assert sorted(drawn) == [0, 3, 4]
        assert drawn == bank().draw(3, [1, 2], saved, 8, seed)


def test_a_training_that_resumes_with_other_bundles_forgets_those_of_before() -> None:
    bank = Bank(["a", "b"], [1, 0], [2, 2])
    assert bank.chances({"gone": [1.0, 2.0]}, 4).tolist() == bank.chances({}, 4).tolist()
    assert bank.chances({"gone": [1.0, 2.0], "b": [4.0, 8.0]}, 4)[1] > bank.chances({}, 4)[1]
