"""Properties of the exact comparison and of the normal form, on generated numbers."""

import time
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE
from a2r_train.verify import equivalent, majority
from a2r_train.verify.compare import _at_once, normal
from a2r_train.verify.exact import limit, value
from a2r_train.verify.expression import parse

WHOLE = st.integers(-(10**12), 10**12)
POSITIVE = st.integers(1, 10**9)
GENERATED = settings(deadline=None, derandomize=True, max_examples=200)


def fraction(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


@given(WHOLE, POSITIVE, WHOLE, POSITIVE)
@GENERATED
def test_fractions_are_equal_if_their_values_are(a: int, b: int, c: int, d: int) -> None:
    one, other = Fraction(a, b), Fraction(c, d)
    expected = CORRECT if one == other else INCORRECT
    assert equivalent(rf"\frac{{{a}}}{{{b}}}", fraction(other)) == expected
    assert equivalent(fraction(one), rf"\frac{{{a}}}{{{b}}}") == CORRECT


@given(st.integers(1, 300), st.integers(1, 300))
@GENERATED
def test_powers_however_small_differ(m: int, n: int) -> None:
    expected = CORRECT if m == n else INCORRECT
    assert equivalent(f"1-2^{{-{m}}}", f"1-2^{{-{n}}}") == expected
    assert equivalent(f"3 \\times 10^{{-{m}}}", f"3 \\cdot 10^{{-{n}}}") == expected


@given(st.fractions(Fraction(1, 1000), 1000), st.integers(1, 12))
@GENERATED
def test_a_decimal_of_six_digits_or_more_is_the_rounded_fraction(exact: Fraction, digits: int) -> None:
    text = format(float(exact), f".{digits - 1}e")
    mantissa, power = text.split("e")
    shown = rf"{mantissa}\times 10^{{{int(power)}}}"
    decimal = Fraction(mantissa) * Fraction(10) ** int(power)
    near = digits >= 6 and exact.denominator > 1
    assert equivalent(shown, fraction(exact)) == (CORRECT if decimal == exact or near else INCORRECT)


@given(WHOLE.map(abs), st.sampled_from([r"\,", r"\ ", "~", ",", "{,}", r",\!", " "]))
@GENERATED
def test_thousands_separators(n: int, separator: str) -> None:
    assert equivalent(f"{n:,}".replace(",", separator), str(n)) == CORRECT


@given(st.sampled_from(["5", "-3", r"\frac12", "0.25", r"\sqrt{2}", "12,500"]))
@GENERATED
def test_looks_change_nothing(answer: str) -> None:
    looks = [
        r"\mathbf{%s}",
        r"\boldsymbol{%s}",
        r"{\bf %s}",
        r"\underline{%s}",
        r"\color{red}{%s}",
        r"\textcolor{blue}{%s}",
    ]
    looks += [
        "**%s**",
        "`%s`",
        "$%s$",
        r"\(%s\)",
        r"\displaystyle %s",
        r"\quad %s",
        "%s.",
        "~%s",
        r"%s\,",
        "\u200b%s",
        "%s\u00a0",
    ]
    assert [look for look in looks if equivalent(look % answer, answer) != CORRECT] == []


@given(st.text(max_size=60) | st.text(st.sampled_from('\\{}()[]$^_,.;:="0123456789abxU \n'), max_size=60))
@settings(deadline=None, derandomize=True, max_examples=400)
def test_any_text_has_a_normal_form_and_a_verdict_at_once_or_none(text: str) -> None:
    answer = normal(text)
    assert _at_once(answer, "5", "math") in (CORRECT, INCORRECT, UNPARSABLE, None)


@given(st.integers(-(10**9), 10**9).filter(bool))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_an_absolute_value_is_no_line_however_far_its_corner_is(corner: int) -> None:
    line = f"{corner}-x" if corner > 0 else f"x+{-corner}"
    assert equivalent(f"|x-({corner})|", line) == INCORRECT
    assert equivalent(f"|x-({corner})|", rf"\sqrt{{(x-({corner}))^2}}") == CORRECT


MONTHS = ("January", "March", "May", "September")


@given(st.sampled_from(MONTHS), st.integers(1, 31), st.sampled_from(MONTHS), st.integers(1, 31))
@GENERATED
def test_a_day_belongs_to_its_month(month: str, day: int, other_month: str, other: int) -> None:
    both, exchanged = f"{month} {day} to {other_month} {other}", f"{month} {other} to {other_month} {day}"
    assert equivalent(both, f"{day} {month} to {other} {other_month}") == CORRECT
    assert equivalent(both, exchanged) == (CORRECT if day == other else INCORRECT)


@given(st.integers(0, 999), st.text("0123456789", min_size=1, max_size=2))
@GENERATED
def test_a_decimal_comma_is_a_comma_without_a_space(whole: int, decimals: str) -> None:
    assert equivalent(f"{whole},{decimals}", f"{whole}.{decimals}") == CORRECT
    assert equivalent(f"{whole}.{decimals}", f"{whole},{decimals}") == CORRECT
    assert equivalent(f"{whole}, {decimals}", f"{whole}.{decimals}") == INCORRECT
    assert equivalent(f"({whole},{decimals})", f"{whole}.{decimals}") == INCORRECT


def test_no_large_number_is_made() -> None:
    started = time.process_time()
    for bomb in (
        "10^{10^{10}}",
        "999999!",
        "9^{9^{9^{9}}}",
        r"\binom{10^9}{5\cdot10^8}",
        "1e999999999",
        "(10^{10})!",
        "2^{65537}",
    ):
        assert equivalent(bomb, "5") == UNPARSABLE
    assert time.process_time() - started < 1
    assert equivalent("2^{60000}", "2^{60000}+1") == INCORRECT
    assert equivalent("4^{3000}", "2^{6000}") == CORRECT
    assert value(parse("2^{4000}")) == 2**4000
    assert limit.bits == 4096


def test_votes_do_not_depend_on_order() -> None:
    answers = [r"50\%", "0.5", "50", r"\frac12", "5", "5 m", "5 cm", "x=5"]
    expected = {frozenset(answers[i] for i in group) for group in majority(answers).groups}
    for turn in range(len(answers)):
        turned = answers[turn:] + answers[:turn]
        for order in (turned, turned[::-1]):
            assert {frozenset(order[i] for i in group) for group in majority(order).groups} == expected
