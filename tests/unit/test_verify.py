r"""The policy table of a2r_train.verify row by row, extraction, own verifiers, and majorities."""

import itertools
import os
import random
import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train import verify
from a2r_train.errors import InputError
from a2r_train.records import CORRECT, INCORRECT, TIMEOUT, UNPARSABLE, Problem
from a2r_train.verify import check_gold, compare, equivalent, extract, judge, judge_all, majority, pool
from a2r_train.verify.extract import MAX_ANSWER_CHARS, clean
from a2r_train.verify.worker import MEMORY_BYTES


def own(answer: str, gold: str) -> bool:
    """An own verifier, which the workers import from this file."""
    print("noise on the standard output", flush=True)
    if answer == "hang":
        time.sleep(60)
    if answer == "die":
        os._exit(3)
    if answer == "hog":
        return len(bytearray(2 * MEMORY_BYTES)) > 0
    if answer == "raise":
        raise ValueError("no such case")
    if answer == "torch":
        return "torch" in sys.modules or "transformers" in sys.modules
    return answer == gold


OWN = f"{__name__}:own"


def boxed(answer: str) -> str:
    return rf"So it is \boxed{{{answer}}}."


PMATRIX, BMATRIX = (rf"\begin{{{kind}matrix}}1&2\\3&4\end{{{kind}matrix}}" for kind in "pb")
POLICY = [
    ("no answer", "I do not know.", "5", UNPARSABLE),
    ("empty box", r"\boxed{ }", "5", UNPARSABLE),
    ("incomplete box", r"\boxed{5", "5", UNPARSABLE),
    ("thinking only", r"<think>\boxed{5}</think> Done.", "5", UNPARSABLE),
    ("thinking never closed", r"<think>\boxed{5}", "5", UNPARSABLE),
    ("box in thinking does not count", r"<think>\boxed{4}</think> \boxed{5}", "5", CORRECT),
    ("text after the answer", r"\boxed{5} is what we wanted.", "5", CORRECT),
    ("equal boxes", r"\boxed{x=5}, so \boxed{5.0} or \boxed{5}", "5", CORRECT),
    ("different boxes, last right", r"\boxed{4} or \boxed{5}", "5", INCORRECT),
    ("different boxes, first right", r"\boxed{5} or \boxed{4}", "5", INCORRECT),
    ("an unparsable box beside the right one", r"\boxed{€} or \boxed{5}", "5", INCORRECT),
    ("too many boxes", "".join(boxed("5" + ".0" * (i > 0) + "0" * i) for i in range(12)), "5", INCORRECT),
    ("a list for one", boxed("5, 6"), "5", INCORRECT),
    ("an or for one", boxed(r"5 \text{ or } 6"), "6", INCORRECT),
    ("another number in words beside it", boxed("5 dollars or six dollars"), "5", INCORRECT),
    ("a denial", boxed("5 cannot be right"), "5", INCORRECT),
    ("a power in words", boxed("3 squared"), "3", INCORRECT),
    ("decimals in words", boxed("7 point five"), "7", INCORRECT),
    ("a fraction in words", boxed("10 over two"), "10", INCORRECT),
    ("a sentence is no unit", boxed("15 more than she had last year"), "15", UNPARSABLE),
    ("how often", boxed("3 times"), "3", CORRECT),
    ("coins", boxed("3 quarters"), "3", CORRECT),
    ("units of several words", boxed("5 miles per hour"), "5", CORRECT),
    ("units with a number in their name", boxed("3 fortnights"), "3", CORRECT),
    ("units", boxed(r"18 \text{ dollars}"), "18", CORRECT),
    ("units in plain words", "The answer is 18 dollars per day. Good.", "18", CORRECT),
    ("a number word is no unit", boxed("18 million"), "18", INCORRECT),
    ("percent as a share", boxed(r"50\%"), "0.5", CORRECT),
    ("percent as a number", boxed(r"50\%"), "50", CORRECT),
    ("fraction and decimal", boxed("0.5"), r"\frac12", CORRECT),
    ("fraction, short of 6 places", boxed("0.33"), r"\frac13", INCORRECT),
    ("fraction, 6 places", boxed("0.333333"), r"\frac13", CORRECT),
    ("thousands separators", boxed("1,234"), "1234", CORRECT),
    ("currency", boxed(r"\$1,234.50"), "1234.5", CORRECT),
    ("trailing zeros and stop", boxed("+18.00."), "18", CORRECT),
    ("interval", boxed("(0,1)"), "(0, 1)", CORRECT),
    ("interval, other brackets", boxed("[0,1)"), "(0,1)", INCORRECT),
    ("set, other order", boxed(r"\{2,1\}"), r"\{1,2\}", CORRECT),
    ("pair, other order", boxed("(2,1)"), "(1,2)", INCORRECT),
    ("matrix, other brackets", boxed(PMATRIX), BMATRIX, CORRECT),
    ("words", boxed(r"\text{paris}"), "Paris", CORRECT),
    ("an anagram", boxed("Pairs"), "Paris", INCORRECT),
    ("cannot be parsed", boxed(r"\frac{}"), "5", UNPARSABLE),
    ("too long", boxed("1+" * MAX_ANSWER_CHARS + "1"), "5", UNPARSABLE),
    ("unparsable gold", boxed("5"), r"\frac{", UNPARSABLE),
]


@pytest.mark.parametrize(
    ("text", "gold", "verdict"), [row[1:] for row in POLICY], ids=[row[0] for row in POLICY]
)
def test_policy(text, gold, verdict):
    assert judge(text, gold) == verdict


def rows_of_the_table() -> list[tuple[str, list[str], list[str], list[str]]]:
    """(case, answers, golds, verdicts that are right) of each row of the package's table."""
    lines = [line.strip("| ") for line in verify.__doc__.splitlines() if line.startswith("| ")]
    rows = []
    for line in lines[1:]:
        case, rest = line.split(" | ", 1)
        example, verdict = rest.rsplit(" | ", 1)
        answers, _, golds = example.rpartition(" -> ")
        right = [
            word
            for word in (CORRECT, INCORRECT, UNPARSABLE, TIMEOUT)
            if re.match(rf"(\w+ or )?{word}\b", verdict)
        ]
        rows.append((case, re.findall(r"`([^`]*)`", answers), golds.split(" or "), right))
    return rows


@pytest.mark.parametrize(("answers", "golds", "verdicts"), [row[1:] for row in rows_of_the_table()])
def test_the_table_of_the_package_row_by_row(answers, golds, verdicts, monkeypatch):
    monkeypatch.setattr(pool, "DEADLINE_S", 1.0)
    assert answers
    assert verdicts
    for answer, gold in itertools.product(answers, golds):
        assert judge(answer, gold) in verdicts
        assert judge(answer, gold, "math_last_number") in verdicts


def test_the_table_names_every_case():
    cases = " ".join(case for case, *_ in rows_of_the_table())
    asked = (
        "no answer, boxed answers, list, units, "
        "percent, fraction, "
        "thousands, "
        "interval, set, matrix, "
        "words, thinking"
    )
    assert [word for word in [*asked.split(", "), "text after", "unparsable gold"] if word not in cases] == []


def test_policy_in_one_batch_keeps_the_order_and_unparsable_has_no_answer():
    judgements = judge_all([(text, gold, "math") for _, text, gold, _ in POLICY])
    assert [judgement.verdict for judgement in judgements] == [verdict for *_, verdict in POLICY]
    assert all((j.answer == "") == (j.verdict == UNPARSABLE) for j in judgements)
    assert judge_all([]) == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{\frac{1}{2}} and more", r"\frac{1}{2}"),
        (r"\boxed{4} then \boxed{5}", "5"),
        (r"\boxed{5} then \boxed{6", "5"),
        (r"\boxed {\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{1 \boxed{5", ""),
        (r"\boxed{1 + \boxed{5}", "5"),
        (r"so\\\boxed{$5$}", "5"),
        ("12 + 3\n#### 1,234", "1,234"),
        ("The answer is: **5**. Really.", "5"),
        ("the answer is 4. No, the final answer is $5.5$.", "5.5"),
        ("The answer is 4. The final answer is \\(\\", "4"),
        ("So 25. The final answer is \\(2", ""),
        ("the answer is \\(2\\)", "2"),
        (r"the answer is $\begin{pmatrix}1\\[2pt]2\end{pmatrix}$", r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}"),
        (r"#### 4 but \boxed{5}", "5"),
        ("I count 5", ""),
    ],
)
def test_extract(text, answer):
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("from 3 to -1,234.5.", "-1,234.5"),
        ("5-3", "3"),
        ("nothing", ""),
        (r"\boxed{4} and 5", "4"),
        ("x2 7", "7"),
    ],
)
def test_last_number(text, answer):
    assert extract(text, "math_last_number") == answer
    assert judge(text, answer or "1", "math_last_number") == (CORRECT if answer else UNPARSABLE)


def test_exact():
    assert judge(boxed(r"\text{New  York}"), "new york", "exact") == CORRECT
    assert judge(boxed("0.5"), r"\frac12", "exact") == INCORRECT


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B.", r"\text{B}", r"\textbf{(B)}", "B) because", "**B**", "$B$"]
)
def test_multiple_choice(answer):
    assert judge(boxed(answer), "B", "multiple_choice") == CORRECT
    assert judge(f"The answer is {answer}", "(C)", "multiple_choice") == INCORRECT


@pytest.mark.parametrize("answer", ["A dog", "K", "Because", "", "12"])
def test_multiple_choice_without_a_letter(answer):
    assert judge(boxed(answer), "B", "multiple_choice") == UNPARSABLE


MARKS = [
    "\\boxed{",
    "{",
    "}",
    "\\",
    "####",
    "the answer is ",
    "<think>",
    "</think>",
    "$",
    "1",
    ",",
    ".",
    "\n",
    "**",
]
TEXT = st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=20).map("".join)


@given(TEXT, st.sampled_from([*compare.VERIFIERS, OWN]))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_extract_takes_any_text(text, verifier):
    answer = extract(text, verifier)
    assert len(answer) <= MAX_ANSWER_CHARS
    assert clean(answer) == answer


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="\\{}<>", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
)


@given(BALANCED, st.text(st.characters(exclude_characters="\\<>"), max_size=20))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_a_boxed_answer_comes_back(answer, around):
    expected = clean(answer)
    got = extract(f"{around}\n" + rf"\boxed{{{answer}}} and so on")
    assert got == expected or not answer.strip()


def test_long_texts_take_linear_time():
    million = 10**6
    texts = [
        r"\boxed{" * million,
        "{" * million,
        r"\boxed{{" + "}" * million,
        r"\boxed{1}" * 10**5,
        "#" * million,
    ]
    texts += [
        "the answer is " * 10**5,
        "the " * million,
        boxed("$" * million),
        boxed("1" * million),
        "1,234" * million,
    ]
    started = time.process_time()
    verdicts = [judge(text, "5", "math_last_number") for text in texts]
    assert time.process_time() - started < 15
    assert CORRECT not in verdicts


def test_short_cut_agrees_with_math_verify():
    from a2r_train.verify.worker import compare as ask_math_verify

    seeded = random.Random(0)
    forms = (
        "18 18. +18 -18 $18 \\$18 $-18 018 18.0 "
        "18.00 18.0000001 17.9999999 "
        "18.0001 0 -0 0.0 "
        ".5 0.5 -.5 "
        "-0.5 +.5 5. 5,000"
    )
    forms += (
        " +5,000.0 5000 1,234.50 1234.5 "
        "1,234,567 1234567 0.1234567 "
        "0.1234568 0.000001 "
        "0.0000001 "
        "999999999999.999"
    )
    forms += (
        " 123456789012345678901234567890 "
        "123456789012345678901234567891 "
        "12345678901234.5 "
        "12345678901234.50 "
        "0,123 12,34"
    )
    numbers = forms.split() + [f"{seeded.randint(-(10**n), 10**n):,}" for n in range(1, 14)]
    pairs = [pair for pair in itertools.product(numbers, repeat=2) if seeded.random() < 0.2] + [
        (n, n + "0") for n in numbers
    ]
    keys = [compare._key(answer, gold, "math") for answer, gold in pairs]
    decided = {key: verdict for key in keys if (verdict := compare._at_once(*key))}
    assert len(decided) > 300
    assert set(decided.values()) == {CORRECT, INCORRECT}
    assert {key: ask_math_verify(*key[:2]) for key in decided if key[0] != key[1]}.items() <= decided.items()


def test_own_verifier():
    assert judge(boxed("5"), "5", OWN) == CORRECT
    assert judge(boxed("5"), "5.0", OWN.replace(":", ".")) == INCORRECT
    assert judge("no answer", "5", OWN) == UNPARSABLE
    assert judge(boxed("torch"), "5", OWN) == INCORRECT, "a worker must stay light"


@pytest.mark.parametrize(
    ("answer", "verifier", "words"),
    [
        ("raise", OWN, "own.*ValueError: no such case"),
        ("hog", OWN, "own.*MemoryError"),
        ("5", "no_such_package.check", "no_such_package"),
        ("5", "json:no_such_function", "no_such_function"),
        ("5", "maths", "verifier 'maths': expected math"),
    ],
)
def test_a_broken_own_verifier_is_the_users_mistake(answer, verifier, words):
    with pytest.raises(InputError, match=words):
        judge(boxed(answer), "5", verifier)
    assert judge(boxed("6"), "5", OWN) == INCORRECT, "the workers still serve"


def test_an_own_verifier_is_that_of_the_working_directory(tmp_path, monkeypatch):
    for name, verdict in (("first", True), ("second", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "close.py").write_text(f"def near(answer, gold): return {verdict}\n")
    monkeypatch.chdir(tmp_path / "first")
    assert judge(boxed("5"), "6", "close.near") == CORRECT
    monkeypatch.chdir(tmp_path / "second")
    assert judge(boxed("5"), "7", "close.near") == INCORRECT
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("first")
    assert judge(boxed("5"), "8", "close.near") == CORRECT


def test_hostile_answers(monkeypatch):
    monkeypatch.setattr(pool, "DEADLINE_S", 1.0)
    hostile = [
        "10^{10^{10}}",
        "(10^{10})!",
        "9**9**9**9",
        "{" * 900 + "5" + "}" * 900,
        r"\sqrt{" * 250 + "5" + "}" * 250,
    ]
    hostile += ["\x00", "\ud800", "5\x00", "\\" * 999, "9" * MAX_ANSWER_CHARS, "%" * 99, "١٢"]
    verdicts = [
        judgement.verdict for judgement in judge_all([(boxed(answer), "5", "math") for answer in hostile])
    ]
    assert verdicts[0] == UNPARSABLE, "a number that large is never made"
    assert CORRECT not in verdicts
    assert judge(boxed(r"\frac{10}{2}"), "5") == CORRECT


def test_check_gold():
    golds = [
        ("5", "math"),
        (r"\frac12", "math"),
        ("Paris", "math"),
        ("B", "multiple_choice"),
        ("a b", "exact"),
        ("x", OWN),
    ]
    check_gold(
        [Problem(f"p{i}", f"{i}?", gold, verifier) for i, (gold, verifier) in enumerate(golds)], "problems"
    )
    for gold, verifier in [
        (r"\frac{", "math"),
        ("1" * 3000, "math"),
        ("Z", "multiple_choice"),
        ("$", "math"),
        ("NA", "math"),
        ("null", "math"),
        ("Add 2 and 3.\n#### 5", "math"),
        (r"so \boxed 5", "math"),
        (" ", "exact"),
    ]:
        with pytest.raises(InputError, match="problem 'p7'"):
            check_gold([Problem("p6", "?", "5"), Problem("p7", "?", gold, verifier)], "problems")
    with pytest.raises(InputError, match="no_such_package"):
        check_gold([Problem("p8", "?", "5", "no_such_package.check")], "problems")


def test_majority():
    vote = majority(["0.5", "3", "", r"\frac12", "1/2", "3", "4"])
    assert vote.groups == [[0, 3, 4], [1, 5], [6]]
    assert vote.top == [[0, 3, 4]]
    assert majority(["4", "3", "4.0", "3"]).top == [[0, 2], [1, 3]]
    assert majority(["", ""]).top == []
    assert majority(["Paris", "paris", "Rome"]).top == [[0, 1]]
    assert majority(["B", "A", "B"], "multiple_choice").groups == [[0, 2], [1]]


def test_majority_compares_with_the_first_member():
    # 50 % equals both 0.5 and 50, which differ: the shortest answer is the first, in whatever order they
    # come.
    assert majority([r"50\%", "0.5", "50"]).groups == [[0, 2], [1]]
    assert majority(["0.5", "50", r"50\%"]).groups == [[1, 2], [0]]


def test_equivalent():
    assert equivalent(r"\frac12", "0.5") == CORRECT
    assert equivalent("", "5") == UNPARSABLE
