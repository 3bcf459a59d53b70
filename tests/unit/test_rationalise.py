"""Which texts mention the hint that they were given, and how many rationalised targets are kept."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import bundle_with
from hypothesis import given
from hypothesis import strategies as st

from a2r_train.errors import InputError
from a2r_train.inference.synthesise import hinted
from a2r_train.prompts import Chat
from a2r_train.records import Bundle, Problem, Synthesis
from a2r_train.train.rationalise import HINT, check_hint, mentions, within_share


@pytest.mark.parametrize(
    "text",
    [
        r"3 + 2 = 5, so the answer is \boxed{5}.",
        r"The correct answer is \boxed{5}.",
        r"We are given 12 pens. He told Ann 3 of them are red. The final answer is \boxed{9}",
        r"It is known that 7 is prime, and the answer follows: \boxed{7}",
        "",
    ],
)
def test_an_ordinary_solution_mentions_nothing(text: str) -> None:
    assert not mentions(text, HINT)


@pytest.mark.parametrize(
    "text",
    [
        r"By the hint it is \boxed{5}",
        r"The Hints say \boxed{5}",
        r"The given answer is 5, so we work backwards. \boxed{5}",
        r"<think>the answer was given as 5</think>\boxed{5}",
        r"We were told that the final answer is 5. \boxed{5}",
        r"I derive it step by step, as you would if nobody told me. \boxed{5}",
        r"As nobody had told you, and do it: \boxed{5}",
    ],
)
def test_a_text_that_says_it_was_told_is_found(text: str) -> None:
    assert mentions(text, HINT)


def test_a_hint_of_ones_own_is_found_by_its_words() -> None:
    own = "(Solution key of the red book: {answer}. Use it to check yourself.)"
    assert mentions("The solution key of the red book says 5", own)
    assert not mentions("The red book has 5 keys. Check it.", own)


@pytest.mark.parametrize(
    ("hint", "says"),
    [("It is {gold}", "cannot be filled"), ("{", "double the braces"), ("It is 5", "lacks {answer}")],
)
def test_a_hint_that_shows_no_answer_is_refused(hint: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_hint(hint)
    check_hint(HINT)


def test_the_hint_ends_the_last_turn_and_its_answer_cannot_leave_it() -> None:
    chat = Chat([{"role": "system", "content": "s"}, {"role": "user", "content": "2 + 3?"}], {"a": 1}, "day")
    prompter: Any = SimpleNamespace(neutralise=lambda text: text.replace("<|", "< |"))
    made = hinted(prompter, chat, "It is {answer}.", "{5}<|end|>")
    assert [turn["content"] for turn in made] == ["s", "2 + 3?\n\nIt is {5}< |end|>."]
    assert (made.template_kwargs, made.day) == ({"a": 1}, "day")
    assert chat[1]["content"] == "2 + 3?"


def bundle(number: int) -> Bundle:
    return bundle_with(Problem(f"p{number // 2}", "?", "5"), ["7", "7"], f"b{number}")


def target(number: int, sample: int, rationalised: bool = False) -> Synthesis:
    return Synthesis(f"b{number}", sample, f"{sample}", "5", "correct", 1, 1, "stop", "m", 0, rationalised)


@given(st.integers(0, 12), st.integers(0, 8), st.floats(0, 0.95), st.integers(1, 3), st.integers(0, 99))
def test_the_cap_on_rationalised_targets_holds_and_is_reached(
    solved: int, missed: int, share: float, most: int, seed: int
) -> None:
    """Bundles of two to a problem; a target of each solved one, two explained answers of a missed one."""
    bundles = [bundle(number) for number in range(solved + missed)]
    targets = [target(number, 0) for number in range(solved)]
    explained = [target(solved + at // 2, at % 2, rationalised=True) for at in range(2 * missed)]
    kept = within_share(targets, explained, bundles, share=share, most=most, seed=seed)
    assert len(kept) == len({(s.bundle_id, s.sample) for s in kept})
    assert len(kept) <= share * (len(kept) + len(targets)) + 1e-6
    problem = {b.id: b.problem_id for b in bundles}
    taken, offered, added = (
        Counter(problem[s.bundle_id] for s in some) for some in (targets, explained, kept)
    )
    assert all(taken[name] + many <= most for name, many in added.items())
    room = sum(min(max(0, most - taken[name]), many) for name, many in offered.items())
    assert len(kept) == min(room, int(share * len(targets) / (1 - share) + 1e-9))
