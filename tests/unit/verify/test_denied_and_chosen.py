"""What is denied, rejected, or one of several choices is no answer; and the last number as it is written."""

import time

import pytest

from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE
from a2r_train.verify import extract, judge
from a2r_train.verify.compare import compare_all
from a2r_train.verify.options import chosen

DENIED = [
    "I don't think",
    "I do not believe that",
    "There is no way",
    "It is impossible that",
    "It cannot be that",
    "It is not the case that",
    "We can rule out that",
    "We cannot conclude that",
    "We disproved that",
    "This contradicts the claim that",
    "It would be wrong to say that",
    "A common mistake is to say",
    "I’m not convinced that",
    "Nothing suggests that",
    "It is unlikely that",
    "I refuse to believe that",
    "It is tempting to say that",
    "Some might say",
    "It is a misconception that",
    "I can't see how",
    "There's no evidence that",
    "By no means is it clear that",
    "Under the assumption that",
]
SAID = [
    "I think",
    "So I don't see another case;",
    "There is no doubt",
    "Without a doubt",
    "I cannot deny that",
    "It is not hard to see that",
    "Since x is not 0,",
    "Because A is false we conclude that",
    "As 3 is impossible,",
    "Don't forget that",
    "After fixing the error",
    "This proves the claim that",
    "It must be the case that",
]


@pytest.mark.parametrize(
    ("answer", "verifier"), [("5", "math"), ("Paris", "exact"), ("B", "multiple_choice")]
)
def test_an_answer_that_is_denied_is_not_said(answer: str, verifier: str) -> None:
    for before in DENIED:
        assert judge(f"{before} the answer is {answer}.", answer, verifier) == UNPARSABLE, before
    for before in SAID:
        assert judge(f"{before} the answer is {answer}.", answer, verifier) == CORRECT, before
    taken_back = f"Many students claim that the answer is {answer}. This is wrong."
    assert judge(taken_back, answer, verifier) == UNPARSABLE
    assert judge(f"So the answer is {answer}. That can't be right.", answer, verifier) == UNPARSABLE


NO_CHOICE = [
    "B is incorrect",
    "B is not the answer",
    "B is not correct, C is",
    r"\text{(B) is not correct}",
    "B is, I think, wrong",
    "B (wrong)",
    "B: wrong",
    "(B) cannot be right",
    "B. 25 C. 30 D. 35",
    "B. 25 or C. 30",
    "B. 25, C. 30",
    "B) 25 C) 30",
    "(B) 25 or (A) 10",
    "B, or maybe C",
    "B, but also C",
    "B as well as C",
    "B. Or C.",
    "B, wait, C.",
    "B: no; C: yes",
    "B - not C",
    "B, C is right",
    "B or option C",
    "B. 25. No, it is C",
    "B because x > 0, or C",
    "B is correct and so is C",
    "B/C",
]
CHOICE_B = [
    r"\boxed{B}",
    '"B"',
    r"\textit{B}",
    r"B\text{ (25)}",
    "Ｂ",
    "B. A square",
    "B. vitamin C",
    "B) 25 cm",
    "B. I and II",
    "B, because C is too large",
    "B is the best answer because A is wrong",
    "B is 25",
    "B, not C",
    "B. points A and C",
    "B. No solution",
    "B. Not enough information",
    "B. y = Ce^x",
    "B. C = 3",
    "B. (2, C)",
    "B. f(A) = C",
    "B. Yes, I can",
]


@pytest.mark.parametrize("answer", NO_CHOICE)
def test_a_denied_choice_and_two_choices_are_none(answer: str) -> None:
    assert chosen(answer) == ""


@pytest.mark.parametrize("answer", CHOICE_B)
def test_an_option_may_say_more_than_its_letter(answer: str) -> None:
    assert chosen(answer) == "B"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The answer is B. or C.", ""),
        ("Answer: A. 25 B. 10 C. 30 D. 35", ""),
        ("Answer: A. Yes B. No", ""),
        ("Answer:\nA. 25\nB. 10\nC. 30", ""),
        ("Answer: B is wrong", ""),
        ("The answer is B. Wait, no, C.", ""),
        ('The answer is "B".', "B"),
        ("The answer is B. (A) is too large. (C) ignores the sign.", "B"),
        ("The answer is B. We eliminated A and C. Therefore", "B"),
        ("The answer is B.\n\nA. 25 is wrong", "B"),
    ],
)
def test_choices_in_a_sentence(text: str, choice: str) -> None:
    assert extract(text, "multiple_choice") == choice


REJECTED = [
    r"x = 5 \text{ (extraneous)}",
    r"5 \text{ extraneous}",
    r"5 \text{ (bogus)}",
    r"5 \text{ fails}",
    r"5 \text{ (fails)}",
    r"5 \text{ (since it fails)}",
    r"5 \text{ (as an extraneous root)}",
    r"5 \text{ (by mistake)}",
    "Extraneous: 5",
    r"\text{extraneous root: } 5",
    "Excluded: 5",
    "discarded = 5",
    "Ruled out: 5",
    r"5 \text{ (because 5 is rejected)}",
    r"5 \text{ extraneous solution}",
    r"5 \text{ (since it doesn't work)}",
    r"5 \text{ contradicts constraints}",
]
COUNTED = [
    r"5 \text{ extraneous solutions}",
    r"5 \text{ mistakes}",
    r"5 \text{ invalid votes}",
    "Cards removed: 5",
    r"5 \text{ (by contradiction)}",
    r"5 \text{ (since -3 is rejected)}",
    "five (5)",
    "5 (five)",
    r"5 \text{ (multiplicity 2)}",
]


def test_what_is_rejected_is_no_answer_and_what_is_counted_is() -> None:
    refused = compare_all([(answer, "5", "math") for answer in REJECTED])
    assert [a for a, verdict in zip(REJECTED, refused, strict=True) if verdict == CORRECT] == []
    counted = compare_all([(answer, "5", "math") for answer in COUNTED])
    assert [a for a, verdict in zip(COUNTED, counted, strict=True) if verdict != CORRECT] == []


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("3 fewer apples", "3 more apples", INCORRECT),
        ("5 hours more", "5 hours fewer", INCORRECT),
        ("3 older children", "3 younger children", INCORRECT),
        ("3 fewer apples", "3 apples", CORRECT),
        ("3 more apples", "3", CORRECT),
        ("60 more minutes", "1 more hour", CORRECT),
        ("3 additional apples", "3 more apples", CORRECT),
        ("five (6)", "5", INCORRECT),
    ],
)
def test_more_is_not_fewer(answer: str, gold: str, verdict: str) -> None:
    assert compare_all([(answer, gold, "math"), (gold, answer, "math")]) == [verdict, verdict]


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The result is −5", "-5"),
        ("The result is –5", "-5"),
        ("5–3", "3"),
        ("The value is .5", "0.5"),
        ("The result is 2e5", "200000"),
        ("that is 1.5e-3.", "0.0015"),
        ("that is 2×10⁵ of them", "200000"),
        ("that makes 1 000", "1000"),
        ("that makes 1\u202f000.5", "1000.5"),
        ("that makes $1{,}234$", "1234"),
        ("₹1,20,000", "120000"),
    ],
)
def test_the_last_number_is_read_as_written(text: str, gold: str) -> None:
    assert judge(text, gold, "math_last_number") == CORRECT


@pytest.mark.parametrize(
    "text", ["the answer is 5." + " " * 50_000 + "x", "I doubt the answer is 5. " * 2000, "1 " * 30_000]
)
def test_long_texts_are_read_quickly(text: str) -> None:
    start = time.perf_counter()
    for verifier in ("multiple_choice", "math_last_number"):
        extract(text, verifier)
    assert time.perf_counter() - start < 10
