r"""Extraction: headings, Markdown, asides, run-ons, choices, and boxes that are the parts of one answer; and
refused golds."""

import pytest

from a2r_train.errors import InputError
from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE, Problem
from a2r_train.verify import check_gold, extract, judge, judge_all


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### Step 2: add\n5+3", ""),
        ("#### 1. Find the total\nIt is large.\n#### **5**", "5"),
        ("#### Solution\nsome words\n#### 72", "72"),
        ("#### Final Answer: 73", "73"),
        ("It is in France.\n#### Paris", "Paris"),
        ("**The answer is 72.**", "72"),
        ("Final Answer: **73**", "73"),
        ("**Final Answer:**\n\n73", "73"),
        ("**Answer**: 8", "8"),
        ("The answer is 72, in total", "72"),
        ("The answer is 18 dollars because she sold two.", "18 dollars"),
        ("The answer is 72, maybe 73.", "72, maybe 73"),
        ("The answer is 3, 4 and 5.", "3, 4 and 5"),
        ("The answer is not 5.", "not 5"),
        ("The answer is Rs. 500.", "Rs. 500"),
        ("The answer is St. Paul. It is a city.", "St. Paul"),
        ("The answer is approx. 3.5.", "approx. 3.5"),
        ("The answer is 12 sq. ft.", "12 sq. ft"),
        ("The answer is 8:00 a.m. and 5:00 p.m.", "8:00 a.m. and 5:00 p.m"),
        ("The answer is 8:00 a.m. That is early.", "8:00 a.m"),
        ("The answer is 8:00 a.m. on Monday.", "8:00 a.m"),
        ("The answer is 7, i.e. a prime.", "7"),
        ("### Final Answer\n\n73", "73"),
        ("### **Answer**\n\n**73**\n\nDone.", "73"),
        ("**Final Answer**\n\n$x = 3$", "x = 3"),
        ("## Answer\n\nWe find 3 of them.", ""),
        ("## Answer\n\n1. two\n2. three", ""),
        ("## Answer Key\n\n73", ""),
        ("x = 3\n# Final answer\nprint(x)", ""),
        ("## Answer\n\n\\boxed{264 \\text{ minutes}", ""),
        ("The answer is\n\n$$\n\\frac{1}{2}\n$$\nas required.", "\\frac{1}{2}"),
        ("## Answer\n\n\\[\nx = 1.5\n\\]", "x = 1.5"),
        ("The final answer is: $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("#### 7\n\nQuestion: what else?\n#### 12", "7"),
        ("#### 7\nNatalia sold clips to 48 friends.\n#### 12", "7"),
        ("The answer is 5.\n\nQ: and then?\nThe answer is 9.", "5"),
        ("So \\boxed{7}.\n\nProblem 2: more\n\\boxed{9}", "7"),
        ("So \\boxed{7}.<|im_end|>\n<|im_start|>user\nMore. \\boxed{9}", "7"),
        ("Problem: think.\nSo \\boxed{7}.", "7"),
        ("Answer:\n```\n12\n```", "12"),
        ("The answer is:\n```latex\n\\frac12\n```\nDone.", "\\frac12"),
        ("Answer:\n```python\nx = 7\nprint(x)\n```", ""),
        ("So $\\boxed 7$.", "7"),
        ("So \\(\\boxed5\\) is it.", "5"),
        ("So \\boxed -2.5.", "-2.5"),
        ("So $\\boxed 3x$ or $\\boxed 2^3$.", ""),
        ("It is \\fbox{12}.", "12"),
        ("First \\fbox{12}, then \\boxed{13}.", "13"),
        ("Thus our final answer is 7.", "7"),
        ("The answer is 5. Our answer is accurate.", "5"),
        ("Hence our answer is consistent with the problem.", ""),
        ("My answer is right triangle.", "right triangle"),
        ("Ans: 7", "7"),
        ("所以答案是 \\(3\\)，因为它最小。", "3"),
        ("答案：7。因为 8 太大。", "7"),
        ("答案不是 7。", ""),
        ("如果答案是 7，那么", ""),
        ("La respuesta es 7.", "7"),
        ("Die Antwort ist 7.", "7"),
        ("ans = 0\nfor x in y:", ""),
        ("It is not true that the answer is 7.", ""),
        ("Suppose the answer is 7.", ""),
        ("The answer is 7. If the answer is 8, the sum is odd.", "7"),
        ("If x = 2, the answer is 7.", "7"),
        ("The answer is 7, which is wrong.", "7, which is wrong"),
        ("The answer is 7, which is prime.", "7"),
    ],
)
def test_where_an_answer_stands(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The answer is B because A is too small.", "B"),
        ("**Answer: D**", "D"),
        (r"\boxed{\text{Option B}}", "B"),
        ("The correct option is B.", "B"),
        ("The correct answer is option (D)", "D"),
        (r"\boxed{\textbf{(B)}\ 12}", "B"),
        ("Answer: C. 25", "C"),
        ("The answer is A dog", ""),
        ("The answer is B or C", ""),
        ("The answer is A, B", ""),
    ],
)
def test_choices(text: str, choice: str) -> None:
    assert extract(text, "multiple_choice") == choice


@pytest.mark.parametrize(
    ("text", "gold", "verdict"),
    [
        (r"\boxed{(2,2)} and \boxed{(6,2)}", "(2,2), (6,2)", CORRECT),
        (r"\boxed{(6,2)} and \boxed{(2,2)}", "(2,2), (6,2)", CORRECT),
        (r"\boxed{(2,2)} and \boxed{(6,3)}", "(2,2), (6,2)", INCORRECT),
        (r"\boxed{(2,2)}", "(2,2), (6,2)", INCORRECT),
        (r"$x=\boxed{1}$, $y=\boxed{3}$", "(1,3)", CORRECT),
        (r"$x=\boxed{1}$, $y=\boxed{3}$", "(3,1)", INCORRECT),
        (r"$y=\boxed{3}$, $x=\boxed{1}$", "(1,3)", CORRECT),
        (r"$x=\boxed{1}$, $y=\boxed{3}$", "x=1, y=3", CORRECT),
        (r"$y=\boxed{1}$, $x=\boxed{3}$", "x=1, y=3", INCORRECT),
        (r"$x=\boxed{1}$, $x=\boxed{3}$", "3, 1", CORRECT),
        (r"\boxed{1}, \boxed{3}, so \boxed{1, 3}", "1, 3", CORRECT),
        (r"\boxed{1}, \boxed{4}, so \boxed{1, 3}", "1, 3", INCORRECT),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", "1, 3", INCORRECT),
        (r"\boxed{1}, \boxed{3}", r"\{1, 3\}", CORRECT),
        (r"\boxed{3}, \boxed{1}", "(1, 3)", INCORRECT),
        (r"\boxed{x<1} or \boxed{x>3}", r"(-\infty,1)\cup(3,\infty)", CORRECT),
        (r"\boxed{1}, \boxed{3}", "3", INCORRECT),
        (r"\boxed{3}, \boxed{1}", "3", INCORRECT),
    ],
)
def test_boxes_that_together_are_the_parts_of_the_gold(text: str, gold: str, verdict: str) -> None:
    assert judge(text, gold) == verdict


def test_the_answer_of_several_boxes_is_all_of_them() -> None:
    assert judge_all([(r"\boxed{6}, \boxed{2}", "2, 6", "math")])[0].answer == "6, 2"


@pytest.mark.parametrize(
    "gold",
    [
        "She sold more of them than he did.",
        "NaN",
        "nan",
        "inf",
        "-Infinity",
        "b'72'",
        r"\frac{",
        "$",
        "5 = 6",
    ],
)
def test_golds_that_are_no_mathematics(gold: str) -> None:
    with pytest.raises(InputError, match="row 2, problem 'q'"):
        check_gold([Problem("p", "?", "5"), Problem("q", "?", gold)], "problems")


@pytest.mark.parametrize(
    "gold",
    [
        r"\infty",
        "Paris",
        r"\text{two lines}",
        r"\text{June 20}",
        "A, B",
        r"p \to q",
        r"\mathbb{Z}",
        "f(2) < f(1) < f(4)",
    ],
)
def test_golds_that_are_accepted(gold: str) -> None:
    check_gold([Problem("p", "?", gold)], "problems")
    assert judge(rf"\boxed{{{gold}}}", gold) == CORRECT


def test_all_bad_golds_are_named_at_once() -> None:
    golds = ["5", "NaN", r"\frac12", r"\frac{", "Paris", "b'5'"]
    with pytest.raises(InputError) as raised:
        check_gold([Problem(f"p{i}", "?", gold) for i, gold in enumerate(golds, 1)], "problems")
    message = str(raised.value)
    assert "cannot parse the gold answer of 3 problems" in message
    assert [f"row {i}, problem 'p{i}'" in message for i in range(1, 7)] == [
        False,
        True,
        False,
        True,
        False,
        True,
    ]
    assert judge(r"\boxed{5}", "NaN") in (INCORRECT, UNPARSABLE)
