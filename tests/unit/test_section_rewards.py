"""What the sections of a synthesis earn: constant strategies nothing on average, a bare answer less."""

import random
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import bundle_with
from hypothesis import given
from hypothesis import strategies as st
from test_sections import PROMPT, written

from a2r_train.errors import InputError
from a2r_train.records import Problem
from a2r_train.train.rewards import VerifiableReward, _Opening, verifiable_reward
from a2r_train.train.section_rewards import (
    OwnSolutionReward,
    VerdictCredits,
    VerdictsReward,
    credits_of,
    section_rewards,
    settle_weights,
)

PROMPTER: Any = _Opening("", PROMPT)
# Bundles of recipes/tiny by their number of right references, of four.
TINY = {0: 276, 1: 431, 2: 288, 3: 129, 4: 39}


def bundles_of(by_correct: dict[int, int], k: int = 4, plain: frozenset[str] = frozenset()) -> Any:
    """What a training is given: so many bundles with each number of right references."""
    held = [
        bundle_with(Problem(f"{n}-{i}", "2 + 3?", "5"), ["5"] * n + ["6"] * (k - n))
        for n, count in by_correct.items()
        for i in range(count)
    ]
    columns = {name: [getattr(b, name) for b in held] for name in ("n_correct", "id")}
    read = SimpleNamespace(held=held, column=lambda name: np.array(columns[name], object).view(Column))
    rows = SimpleNamespace(plain_share=float(bool(plain)) / 2)
    return SimpleNamespace(bundles=read, plain=plain, prompter=PROMPTER, rows=rows)


class Column(np.ndarray):  # type: ignore[type-arg]
    def to_pylist(self) -> list[Any]:
        return list(self)


def right_of(bundles: Any) -> list[list[bool]]:
    return [[r.verdict == "correct" for r in b.references] for b in bundles.bundles.held]


@given(st.dictionaries(st.integers(0, 4), st.integers(1, 9), min_size=1))
def test_constant_verdicts_earn_nothing_on_average(by_correct: dict[int, int]) -> None:
    bundles = bundles_of(by_correct)
    credits, right = credits_of(bundles), right_of(bundles)
    for said in (True, False, None):
        assert np.mean([credits.earned([said] * 4, one) for one in right]) == pytest.approx(0, abs=1e-9)
    has_both = len({r for one in right for r in one}) == 2
    assert np.mean([credits.earned(one, one) for one in right]) == pytest.approx(float(has_both))


def test_on_the_shares_of_the_quickstart_constants_and_chance_earn_nothing() -> None:
    bundles = bundles_of(TINY)
    reward, right = VerdictsReward(PROMPTER, credits_of(bundles)), right_of(bundles)
    rng = random.Random(0)

    def mean(say: Any) -> float:
        lines = [[f"Reference {i}: {say(r)}" for i, r in enumerate(one, 1)] for one in right]
        texts = [[{"content": written(verdicts="\n".join(verdicts))}] for verdicts in lines]
        return float(np.mean(np.array(reward(texts, references_right=right), float)))

    assert mean(lambda _: "right") == pytest.approx(0, abs=1e-9)
    assert mean(lambda _: "wrong") == pytest.approx(0, abs=1e-9)
    assert mean(lambda _: "unclear") == 0
    assert abs(mean(lambda _: rng.choice(["right", "wrong"]))) < 0.1
    assert mean(lambda r: "right" if r else "wrong") == pytest.approx(1)
    assert mean(lambda r: "wrong" if r else "right") == pytest.approx(-1)


def test_each_part_earns_for_itself() -> None:
    """The answer, the own solution, and two verdicts on a right and a wrong reference."""
    texts = [
        written(solution, f"Reference 1: {first}\nReference 2: wrong", answer)
        for solution, first, answer in product(["5", "6"], ["right", "wrong"], ["5", "6"])
    ]
    texts += [r"\boxed{5}", written("5", "", "5"), written()[: written().index("## Final")]]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    columns: dict[str, Any] = {
        "answer": ["5"] * len(texts),
        "verifier": ["math"] * len(texts),
        "n_correct": [1] * len(texts),
        "majority_answer": [""] * len(texts),
        "references_right": [[True, False]] * len(texts),
    }
    said: list[tuple[str, float]] = []
    own = OwnSolutionReward(PROMPTER)(chats, **columns, log_metric=lambda *one: said.append(one))
    assert own == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert VerdictsReward(PROMPTER, VerdictCredits.of(0.5))(chats, **columns) == [
        *(1, 1, 0, 0, 1, 1, 0, 0),
        *(0, 0, 0.5),
    ]
    answers = [1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0]
    assert VerifiableReward(PROMPTER)(chats, **columns) == answers
    assert said == [("complete_sections", float(i < 8)) for i in range(11)]
    exported = {"opened": [""] * 11, "answer_pattern": [""] * 11}
    headings = ['{"solution": "My own solution", "verdicts": "Verdicts", "answer": "Final answer"}'] * 11
    assert verifiable_reward(chats, sections=headings, **exported, **columns) == answers


def test_rows_without_references_have_no_such_reward() -> None:
    chats = [[{"role": "assistant", "content": written()}]] * 2
    columns: dict[str, Any] = {"references_right": [[True], [True]], "plain": [True, False]}
    own = OwnSolutionReward(PROMPTER)(chats, answer=["5", "5"], verifier=["math", "math"], **columns)
    assert own == [None, 1.0]
    assert VerdictsReward(PROMPTER, VerdictCredits(2, 1))(chats, **columns) == [None, 2]
    assert section_rewards(SimpleNamespace(prompter=PROMPTER, rows=SimpleNamespace(plain_share=1))) == []  # type: ignore[arg-type]


def test_plain_bundles_do_not_count_for_the_shares() -> None:
    bundles = bundles_of({1: 2, 3: 2}, plain=frozenset({"3-0", "3-1"}))
    assert credits_of(bundles) == VerdictCredits.of(0.25)


@pytest.mark.parametrize(
    ("weights", "own", "expected"),
    [
        (None, 0, [1.0, 0.3, 0.2]),
        (None, 1, [1.0, 0.3, 0.2, 1.0]),
        ([1.0, 0.0, 0.5], 0, [1.0, 0.0, 0.5]),
        ([1.0], 0, "reward_weights has 1 weights for 3 rewards: the answer, the own solution, the verdicts"),
        ([1.0, 2.0, 3.0], 2, "reward_weights has 3 weights for 5 rewards"),
    ],
)
def test_each_reward_has_a_weight(weights: Any, own: int, expected: Any) -> None:
    args: Any = SimpleNamespace(reward_weights=weights, reward_funcs=["f"] * own)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            settle_weights(args, bundles_of({1: 1}))
    else:
        settle_weights(args, bundles_of({1: 1}))
        assert args.reward_weights == expected


def test_without_sections_the_weights_stay() -> None:
    bundles = bundles_of({1: 1})
    bundles.rows.plain_share = 1
    args: Any = SimpleNamespace(reward_weights=None, reward_funcs=[])
    settle_weights(args, bundles)
    assert args.reward_weights is None
    args.reward_weights = [1.0, 0.3, 0.2]
    with pytest.raises(InputError, match="3 weights for 1 rewards: the verified one"):
        settle_weights(args, bundles)
