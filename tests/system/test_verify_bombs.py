"""Answers that hang or kill a worker of verify cost their deadline, and earn nothing."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verify_hostile import DEADLINE_S, HOSTILE, boxed

from a2r_train.records import CORRECT, INCORRECT, TIMEOUT, UNPARSABLE
from a2r_train.verify import judge, judge_all, pool
from a2r_train.verify.compare import VERIFIERS, compare_all

RESTART_S = 5.0  # for a killed worker to be replaced, on a busy machine
MEGABYTE = 10**6


SYMPY_BOMBS = [
    "10^{10^{10}}", "10^{10^{10}}!", "9!!!!!!!!", "(10^{10})!", "7^{7^{7^7}}", "10^{-10^{10}}",
    r"\binom{10^9}{5\cdot 10^8}",
    r"\sum_{n=1}^{10^9}\frac1n", r"\prod_{n=1}^{10^9}n", r"\int_0^1 \sin(x^{x^x})e^{x^3}dx",
    "(x+y+z+w)^{300}",
    r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{10^9}", r"\log_{10}{10^{10^{10^{10}}}}",
    "x^{" * 300 + "2" + "}" * 300,
    r"\lim_{x\to0}\frac{\sin x^{x^x}}{x}", "1e999999999", r"\{" + ",".join(map(str, range(500))) + r"\}",
]  # fmt: skip
PARSER_BOMBS = [
    "{" * 5000 + "5" + "}" * 5000, "{" * 900 + "5" + "}" * 900, "(" * 900 + "5" + ")" * 900, "[" * 1900,
    "-" * 1900 + "5",
    r"\sqrt{" * 250 + "5" + "}" * 250, r"\frac{1}{" * 200 + "2" + "}" * 200, r"\frac" * 300, r"\left(" * 300,
    "x=" * 900 + "4", "a" * 1999 + "!", "1," * 990, "1 " * 990, "%" * 1999, "$" * 1999, r"\text{a}" * 220,
    "4" + " kg" * 600,
    r"\begin{array}" * 140, r"(0,1)\cup" * 190 + "(1,2)", "9" * 2000, "9" * 998 + "." + "9" * 998,
]  # fmt: skip
STRANGE = [
    "\x00", "5\x00", "\ud800", "5\udfff", "\u202e4", "\uffff", "5" + "\u0301" * 1900,
    '4\n"]\n["5", "5", "math", 5]\n',
    "__import__('os').abort()", r"\text{__import__('os').abort()}", "nan", r"\infty", "4\r\n5", "\\" * 999,
]  # fmt: skip
LONG = [
    "9" * MEGABYTE, r"\boxed{" * MEGABYTE, "}" * MEGABYTE, "the answer is " * 10**5,
    "<think>" * 10**5 + "</think>" * 10**5,
    "#### " * 10**5, "1," * MEGABYTE, " " * MEGABYTE + ".",
]  # fmt: skip


def within_deadlines(texts: list[str], gold: str, verifier: str = "math") -> list[str]:
    started = time.monotonic()
    verdicts = [judgement.verdict for judgement in judge_all([(text, gold, verifier) for text in texts])]
    rounds = -(-len(texts) // pool.WORKERS) + 1
    assert time.monotonic() - started < rounds * (DEADLINE_S + RESTART_S)
    assert set(verdicts) <= {CORRECT, INCORRECT, UNPARSABLE, TIMEOUT}
    return verdicts


@pytest.fixture(autouse=True, scope="module")
def short_deadline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "DEADLINE_S", DEADLINE_S)
        yield


@pytest.mark.parametrize("gold", ["5", r"\frac{1}{3}"])
def test_fixed_list(gold: str) -> None:
    texts = [*map(boxed, SYMPY_BOMBS + PARSER_BOMBS + STRANGE), *LONG]
    verdicts = within_deadlines(texts, gold)
    assert CORRECT not in verdicts
    assert verdicts[0] == UNPARSABLE
    assert judge(boxed(r"\frac{10}{2}"), "5") == CORRECT, "the workers still serve"


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_fixed_list_with_every_verifier(verifier: str) -> None:
    assert CORRECT not in within_deadlines([*map(boxed, PARSER_BOMBS[:2] + STRANGE), *LONG], "B", verifier)


@given(
    st.lists(HOSTILE, min_size=10, max_size=10),
    st.sampled_from(["5", r"\frac{1}{3}", r"\{1,2\}", "(0,1]", "Paris"]),
)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_500_generated_answers(answers: list[str], gold: str) -> None:
    within_deadlines([boxed(answer) for answer in answers], gold)
    started = time.monotonic()
    compare_all([(answer, gold, "math") for answer in answers])  # also where no complete box is in the text
    assert time.monotonic() - started < len(answers) * (DEADLINE_S + RESTART_S)
