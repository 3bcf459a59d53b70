"""The credit of a rollout in joint training."""

import itertools

import pytest

from a2r_train.train.rewards import pass_at_k_credits


@pytest.mark.parametrize("k", [1, 2, 4, 6])
@pytest.mark.parametrize("right", range(7))
def test_credits_are_shares_of_subsets(right: int, k: int) -> None:
    """Of all subsets of k that hold a completion: the share with a correct one."""
    correct = [True] * right + [False] * (6 - right)
    for i, credit in enumerate(pass_at_k_credits(correct, k)):
        subsets = [subset for subset in itertools.combinations(range(6), k) if i in subset]
        assert credit == pytest.approx(
            sum(any(correct[j] for j in subset) for subset in subsets) / len(subsets)
        )
