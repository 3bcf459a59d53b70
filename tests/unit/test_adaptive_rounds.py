"""When adaptive exploring stops, and which subsets rounds read."""

import pytest

from a2r_train.inference.adaptive import chance_of_change
from a2r_train.inference.rounds import Rounds


def test_subsets_are_drawn_without_replacement_and_repeat() -> None:
    rounds = Rounds(8, 3, 2)
    drawn = rounds.subsets(0, "p", 1)
    assert drawn == rounds.subsets(0, "p", 1) != rounds.subsets(0, "p", 0)
    assert len(drawn) == 8
    assert all(len(set(members)) == 3 and max(members) < 8 for members in drawn)


@pytest.mark.parametrize(
    ("answers", "chance"),
    [
        ([], 0.5),
        (["1"], 0.25),
        (["1", "1"], 0.125),
        (["1", "2"], 0.5),
        (["1", "1", "2"], 5 / 16),
        (["1", ""], 0.25),
    ],
)
def test_the_chance_of_change_is_the_tail_of_the_beta_distribution(answers: list[str], chance: float) -> None:
    """I_1/2(a + 1, b + 1): for 2 of 2 it is (1/2)^3; for 2 against 1 the chance of 3 or more heads of 4
    coins.
    """
    assert chance_of_change(answers, "exact") == pytest.approx(chance)
