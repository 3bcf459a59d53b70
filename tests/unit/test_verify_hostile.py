r"""Answers written to hang, crash or fool the verifier, and policies that try to earn reward without solving
anything.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train.errors import InputError
from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE, Problem
from a2r_train.verify import check_gold, judge, judge_all, pool
from a2r_train.verify.compare import VERIFIERS

DEADLINE_S = 0.5


@pytest.fixture(autouse=True, scope="module")
def short_deadline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "DEADLINE_S", DEADLINE_S)
        yield


def boxed(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


PIECES = [
    "\\boxed{", "\\frac{", "\\sqrt[", "^{", "_{", "{", "}", "(", ")", "[", "]", "\\left(", "\\right]",
    "\\begin{pmatrix}", "&",
    "\\\\", "\\text{", "\\sum_{n=1}^{", "\\int", "\\infty", "!", "%", "\\%", "$", "=", "<", ",", ";", "10^",
    "9" * 30, "0.5",
    "5", "x", "\\pi", "\\cup", "\\lor ", " or ", "####", "the answer is ", "<think>", "</think>", "\x00",
    "\ud800", "\u202e",
]  # fmt: skip
FORMS = [
    "{%s}^{%s}", "(%s)!^{%s}", r"\frac{%s}{%s}", r"\sqrt[%s]{%s}", "%s+%s", "%s=%s", "(%s,%s)", r"\{%s,%s\}",
    r"\binom{%s}{%s}",
    r"\sum_{n=%s}^{%s}n", r"\begin{pmatrix}%s&%s\end{pmatrix}", r"\log_{%s}{%s}", r"%s\cup%s",
    r"\left|%s\right|^{%s}",
]  # fmt: skip
WELL_FORMED = st.recursive(  # what parses, and may then take for ever
    st.sampled_from(["0", "1", "5", "9", "10", "x", r"\pi", "0.1", "9" * 15, r"\infty"]),
    lambda inner: st.tuples(st.sampled_from(FORMS), inner, inner).map(lambda parts: parts[0] % parts[1:]),
    max_leaves=12,
)
HOSTILE = WELL_FORMED | st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=25).map(
    "".join
)


@given(HOSTILE, st.sampled_from(VERIFIERS))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_a_hostile_gold_is_parsed_or_the_users_mistake(gold: str, verifier: str) -> None:
    try:
        check_gold([Problem("p", "?", gold, verifier)], "problems")
    except InputError as error:
        assert "problem 'p'" in str(error)  # noqa: PT017 (either is right)


@pytest.mark.parametrize("verifier", ["math", "exact"])
@pytest.mark.parametrize(
    "text",
    [
        r"Put the final answer in \boxed{}.",
        r"The prompt says: put the final answer in \boxed{}, as in \boxed{answer}. I shall.",
        r"#### <your answer here>",
        "The answer is",
        r"The format is \boxed{5",
        r"<think>\boxed{5}</think> As asked, \boxed{ }.",
    ],
)
def test_a_quoted_answer_format_is_no_answer(text: str, verifier: str) -> None:
    assert judge(text, "5", verifier) != CORRECT


# Each of these paid twice with math_verify's defaults: it takes a number out of what it cannot parse.
JOINERS = [
    ", ", "; ", " or ", r" \text{ or } ", " and ", r" \text{ and } ", r"\lor ", r"\vee ", r"\wedge ",
    r"\cup ", r"\to ",
    r"\Rightarrow ", r"\implies ", r"\iff ", r"\sim ", r"\\ ", r"\mid ", r"\dots ", r"\quad ", " | ", "~",
    "&", "?", "...", " ",
    "…", "∨", "或", "→", "、", "#", r"\hspace{1cm}", r"\color{red}", "][", ")(", "),(",
]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "gold"), [("4", "5"), ("4", r"\frac{1}{2}"), (r"\frac{1}{3}", r"\frac{1}{2}"), ("0.7", "0.5")]
)
def test_no_way_to_join_two_answers_in_one_box_pays(wrong: str, gold: str) -> None:
    for answers in ([wrong, gold], [gold, wrong], [wrong, gold, wrong]):
        verdicts = judge_all([(boxed(joiner.join(answers)), gold, "math") for joiner in JOINERS])
        assert [joiner for joiner, j in zip(JOINERS, verdicts, strict=True) if j.verdict == CORRECT] == []


def test_in_a_chain_of_equations_only_the_last_counts() -> None:
    assert judge(boxed("x = 2 + 3 = 5"), "5") == CORRECT
    assert judge(boxed("x = 5 = 4"), "5") == INCORRECT


@pytest.mark.parametrize("answer", ["A, B", "B, A", "B) or (A)", "A. B.", "(A) (B)"])
def test_no_list_of_choices_pays(answer: str) -> None:
    assert judge(boxed(answer), "B", "multiple_choice") != CORRECT


def test_a_cut_box_is_not_rescued_by_its_last_number() -> None:
    assert judge(r"3 + 2, so \boxed{5", "5", "math_last_number") == UNPARSABLE


@dataclass(frozen=True)
class Case:
    """A question, its gold answer, and what the references answered."""

    question: str
    gold: str
    answers: tuple[str, ...]
    verifier: str = "math"


CASES = [
    Case("What is 2 + 3?", "5", ("5", "4", "5", "6")),
    Case("What is 2 + 3?", "5", ("4", "5", "6", "7")),
    Case("What is 2 - 2?", "0", ("1", "0", "0", "2")),
    Case(r"What is \(1/4 + 1/4\)?", r"\frac{1}{2}", (r"\frac{1}{2}", "2", "0.25", r"\frac{1}{4}")),
    Case("Which set solves it?", r"\{1,2\}", (r"\{1,3\}", r"\{1,2\}", r"\{2\}", r"\{1\}")),
    Case("Which city?", "Paris", ("Paris", "Rome", "Bonn", "Bern")),
    Case("A, B, C or D?", "C", ("C", "B", "A", "D"), "multiple_choice"),
]


def earned(write) -> list[bool]:  # type: ignore[no-untyped-def]
    judged = judge_all([(write(case), case.gold, case.verifier) for case in CASES])
    return [judgement.verdict == CORRECT for judgement in judged]


def test_policies_earn_what_they_deserve() -> None:
    references = {case: [f"Attempt. {boxed(answer)}" for answer in case.answers] for case in CASES}
    nothing = [False] * len(CASES)
    assert earned(lambda _: boxed("0")) == [case.gold == "0" for case in CASES]
    assert earned(lambda case: references[case][0]) == [case.answers[0] == case.gold for case in CASES]
    assert earned(lambda case: "\n".join(references[case])) == nothing
    for joiner in JOINERS:
        assert earned(lambda case, joiner=joiner: boxed(joiner.join(case.answers))) == nothing, joiner
    assert earned(lambda case: case.question) == nothing
    assert earned(lambda case: boxed(case.question)) == nothing
    assert (
        earned(lambda case: f"{case.question}\n" + "\n".join(references[case]) + "\nAnswer in \\boxed{}.")
        == nothing
    )
