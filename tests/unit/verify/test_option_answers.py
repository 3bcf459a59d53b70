"""Multiple choice: an answer that is the text of one option of its problem is read as that option."""

import pytest

from a2r_train.data.options import with_options
from a2r_train.verify import extract, judge_all
from a2r_train.verify.options import options_in

PROBLEM = with_options("Which one?", {"A": "8", "B": "16", "C": "a dog", "D": "1/2"})


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{16}", "B"),
        (r"\boxed{\text{16}}", "B"),
        (r"\boxed{16.0}", "B"),
        (r"\boxed{16 \text{ dollars}}", "B"),
        ("The answer is 16.", "B"),
        ("#### 16", "B"),
        (r"\boxed{a dog}", "C"),
        (r"\boxed{\text{A dog}}", "C"),
        ("The answer is: **a dog**", "C"),
        (r"\boxed{0.5}", "D"),
        (r"\boxed{\frac12}", "D"),
        (r"\boxed{B}", "B"),
        (r"\boxed{(b)}", "B"),
        (r"\boxed{B. 16}", "B"),
        (r"\boxed{D) 16}", "D"),  # the letter says it, whatever stands behind it
        (r"\boxed{D. 16}", "D"),
        (r"\boxed{(D) 16}", "D"),
        (r"\boxed{16} and \boxed{B}", "B"),
        (r"\boxed{17}", ""),
        (r"\boxed{16, 8}", ""),
        (r"\boxed{16 or 8}", ""),
        (r"\boxed{dog}", ""),
        ("16", ""),
    ],
)
def test_the_text_of_an_option_is_its_letter(text: str, letter: str) -> None:
    assert extract(text, "multiple_choice", PROBLEM) == letter
    (judged,) = judge_all([(text, letter or "B", "multiple_choice")], [{"problem": PROBLEM}])
    assert (judged.answer, judged.verdict) == (letter, "correct" if letter else "unparsable")


def test_two_options_in_two_boxes_are_hedging() -> None:
    (judged,) = judge_all([(r"\boxed{8} \boxed{16}", "B", "multiple_choice")], [{"problem": PROBLEM}])
    assert judged.verdict == "incorrect"


def test_texts_of_options_count_beside_a_verifier_that_sees_the_row() -> None:
    items = [(r"\boxed{16}", "B", "multiple_choice"), ("I cannot", "def f(): ...", "python_tests")]
    assert judge_all(items, [{"problem": PROBLEM}, {}])[0].verdict == "correct"


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        ({"A": "50%", "B": "0.5"}, r"\boxed{50\%}", "A"),  # equal as a text goes before equal as a number
        ({"A": "50%", "B": "0.5"}, r"\boxed{1/2}", ""),  # two are equal
        ({"A": "B", "B": "A"}, r"\boxed{A}", "A"),
        ({"A": "II", "B": "I"}, r"\boxed{I}", "B"),  # no letter of these options
        ({"A": "p. 1", "B": "I. Newton"}, r"\boxed{I. Newton}", "B"),
        ({"A": "x", "B": "one\ntwo"}, r"\boxed{one two}", "B"),
    ],
)
def test_what_an_answer_may_be(options: dict[str, str], answer: str, letter: str) -> None:
    assert extract(answer, "multiple_choice", with_options("?", options)) == letter


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        ("Which?\n(A) 1\n(B) 2\n\nGive the letter.", {"A": "1", "B": "2"}),
        ("Which?\nA) 1\nB) 2", {"A": "1", "B": "2"}),
        ("A. Smith has 2.\n\nA. 1\nB. 2", {"A": "1", "B": "2"}),
        ("A. Smith has 2.\nHow many?", {}),
        ("Which?", {}),
    ],
)
def test_options_are_found_in_the_text(problem: str, options: dict[str, str]) -> None:
    assert options_in(problem) == options
