"""Inverse functions, times of day, products of letters, letters of units, and decimals that go on."""

import time

import pytest

from a2r_train.records import CORRECT
from a2r_train.verify import judge
from a2r_train.verify.spelling import spell

RIGHT = {
    "inverse functions": [
        (r"\sec^{-1} 2", r"\frac{\pi}{3}"),
        (r"\cot^{-1}(1)", r"\frac{\pi}{4}"),
        (r"\sinh^{-1} x", r"\ln(x+\sqrt{x^2+1})"),
        (r"\tanh^{-1}(x)", r"\frac12\ln\frac{1+x}{1-x}"),
        (r"\coth^{-1} 2", r"\frac12\ln 3"),
        (r"\cosh^{-1} 2", r"\ln(2+\sqrt3)"),
        (r"\operatorname{csch}^{-1}(1)", r"\ln(1+\sqrt2)"),
        (r"\operatorname{sech}^{-1} x", r"\operatorname{arsech}(x)"),
        (r"\operatorname{arccsc} 2", r"\frac\pi6"),
        (r"\operatorname{argtanh}\frac12", r"\frac12\ln 3"),
        (r"\mathrm{arcosh}\,3", r"\ln(3+2\sqrt2)"),
        (r"x\sinh^{-1}x - \sqrt{x^2+1} + C", r"x\operatorname{arcsinh} x - \sqrt{1+x^2} + C"),
        ("asinh(1)", r"\ln(1+\sqrt2)"),
        (r"\arccot 1", r"\frac{\pi}{4}"),
        (r"\operatorname{sech} x", r"\frac{1}{\cosh x}"),
        (r"(\sin x)^{-1}", r"\csc x"),
        (r"\sec^{-2} x", r"\cos^2 x"),
    ],
    "times of day": [
        ("1:15", "2:30"),  # may be ratios
        ("10:20", "1:2"),
        ("1:0.5", "2:1"),
        ("01:15", "1:15"),
        ("03:00", "3:00"),
        ("0:30", "00:30"),
        ("1:05", "1:05 pm"),
        ("13:05", "1:05 p.m."),
        ("3:00", "3 pm"),
        ("6:30", "06:30 a.m."),
        ("01:15, 2:05", "1:15, 02:05"),
    ],
    "products of letters": [
        ("abc", "bca"),
        ("abc", r"a \cdot b \cdot c"),
        ("V = abc", "cba"),
        ("xya", "axy"),
        ("uvw", "wvu"),
        ("kaT", "kTa"),
        ("pqu", "upq"),
        ("mag", "gam"),
        ("F=ma", "F = am"),
        ("v^2 = 2am", "v^2=2ma"),
        ("15am", "15ma"),
        (r"2\pi hr", r"2\pi rh"),
        ("Cat", "cat"),
        ("CAT", r"\text{cat}"),
        ("sun", r"\text{Sun}"),
        ("8am", "8 a.m."),
        ("pm", "PM"),
    ],
    "letters of units": [
        ("5 CM", "5 cm"),
        ("5 KG", "5 kg"),
        ("5 Km", "5 km"),
        ("5 FT", "5 ft"),
        ("5 HRS", "5 hours"),
        ("5 nM", "5"),
        ("5 KW", "5 kW"),
        ("5 KPa", "5 kPa"),
        ("5 Mm", "5000 km"),
        ("5 KB", "5000 bytes"),
        ("16π cm³", r"16\pi"),
        ("36π in^3", r"36\pi"),
        (r"\frac{16}{3}\pi cm^3", r"\frac{16\pi}{3}"),
        ("16π cm³/s", r"16\pi"),
        ("25pi km^2", r"25\pi"),
        ("5π lb", r"5\pi"),
        ("12 \u00b5m", "12 μm"),
        ("12\u00b5m", "12"),
        ("5 \u00b5F", "5"),
        ("5 k\u2126", "5000 ohm"),
        ("300 \u212a", "300 K"),
        ("5 mℓ", "5 mL"),
        ("2ℓ", r"2\ell"),
        ("\u2206x", r"\Delta x"),
        (r"5 \frac{m}{s}", "5 m/s"),
        (r"60\frac{km}{h}", "60 km/h"),
        (r"5\frac{m}{s}", r"\frac{5m}{s}"),
        ("5 m/s/s", "5 m/s^2"),
        ("5 miles per hour per second", "5"),
    ],
    "commands without braces": [
        (r"\mathrm e^x", "e^x"),
        (r"2+3\mathrm i", "2+3i"),
        (r"5\mathrm m", r"5 \text{ m}"),
        (r"\mathrm\pi r", r"\pi r"),
        (r"\text x", "x"),
        (r"\operatorname e^{2}", "e^2"),
        (r"5\text cm", "5 cm"),
        (r"\mathrm e^{\mathrm i \pi}", "-1"),
        (r"\frac{\mathrm dy}{\mathrm dx} = 2x", r"\frac{dy}{dx}=2x"),
        (r"\int x \mathrm{d}x", r"\int x dx"),
    ],
    "decimals that go on": [
        ("2.718281828...", "e"),
        ("1.718281828...", "e-1"),
        ("2.645751311...", r"\sqrt7"),
        ("2.236067977...", r"\sqrt5"),
        (r"3.1415926535\ldots", r"\pi"),
        ("0.8660254037844...", r"\frac{\sqrt3}{2}"),
        (r"1.41421356...\text{ cm}", r"\sqrt2"),
        ("0.333...", r"\frac13"),
        ("0.1212...", r"\frac{4}{33}"),
        ("0.83636...", r"\frac{46}{55}"),
        ("0.4166...", r"\frac{5}{12}"),
        (r"0.1666\ldots", r"\frac16"),
        ("0.142857142857...", r"\frac17"),
    ],
    "other notations": [
        (r"\begin{pmatrix} 1 \\[2pt] 2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2\end{pmatrix}"),
        ("⌊7/2⌋", "3"),
        ("⌈7/2⌉", "4"),
        (r"\sqrt[3]{-x}", r"-\sqrt[3]{x}"),
        (r"\sqrt[5]{-2x^2}", r"-\sqrt[5]{2x^2}"),
    ],
}
WRONG = {
    "inverse functions": [
        (r"\sec^{-1} x", r"\cos x"),
        (r"\csc^{-1} x", r"\sin x"),
        (r"\cot^{-1} x", r"\tan x"),
        (r"\sinh^{-1}(x)", r"\frac{1}{\sinh x}"),
        (r"\cosh^{-1}(x)", r"\frac{1}{\cosh x}"),
        (r"\tanh^{-1}(x)", r"\coth x"),
        (r"\operatorname{sech}^{-1} x", r"\cosh x"),
        (r"\csc^{-1}(x)", r"\sec^{-1}(x)"),
    ],
    "times of day": [
        ("2:10", "1:05"),
        ("01:15", "02:30"),
        ("4:40", "03:30"),
        ("09:15", "3:05"),
        ("12:04", "3:01"),
        ("3:00", "4:00"),
        ("0:30", "0:45"),
        ("1:05", "1:5"),
        ("1:05", r"\frac15"),
        ("1:05.3", "2:10.6"),
        ("1:05:30", "2:10:60"),
        ("13:05", "1:05 a.m."),
    ],
    "products of letters": [
        ("aBc", "Abc"),
        ("abX", "abx"),
        ("aRx", "ArX"),
        ("xAe", "xae"),
        ("cat", "act"),
        (r"\text{cat}", r"\text{act}"),
        (r"\text{abc}", r"\text{bca}"),
        ("nat", "tan"),
        ("dog", "god"),
        ("8 pm", "8 am"),
        ("14:30 pm", "14:30 am"),
    ],
    "letters of units": [
        ("5 nM", "5 nm"),
        ("5 MS", "5 ms"),
        ("5 Mm", "5 mm"),
        ("5 MG", "5 mg"),
        ("5 MW", "5 mW"),
        ("5 kG", "5 kg"),
        ("5 Gm", "5 g"),
        ("5 NM", "5 nm"),
        ("5 fT", "5 ft"),
        ("5 KB", "5 kb"),
        ("5 \u00b5g", "5 mg"),
        ("16π cm²", r"16\pi c m^2"),
        ("16π cm²", r"16\pi cm^3"),
        (r"\pi rs", r"\pi"),
        (r"2\pi hr", r"2\pi"),
        ("9π m^2", r"9\pi"),
        ("5 m/s/s", "5 m"),
    ],
    "commands without braces": [(r"3\mathrm i", "3")],
    "decimals that go on": [
        ("2.645751312...", r"\sqrt7"),
        ("0.333127...", r"\frac13"),
        (r"3.14\ldots", r"\pi"),
    ],
    "other notations": [
        (r"\sqrt[3]{-x}", r"\sqrt[3]{x}"),
        (r"\sqrt{-x}", r"-\sqrt{x}"),
    ],
}


def judged(pairs: list[tuple[str, str]]) -> list[tuple[str, str, bool, bool]]:
    """Each pair with whether it is paid, in both directions."""
    return [
        (a, b, judge(rf"\boxed{{{a}}}", b) == CORRECT, judge(rf"\boxed{{{b}}}", a) == CORRECT)
        for a, b in pairs
    ]


@pytest.mark.parametrize("kind", RIGHT)
def test_right_answers_are_paid(kind: str) -> None:
    assert [found for found in judged(RIGHT[kind]) if found[2:] != (True, True)] == []


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_answers_are_not(kind: str) -> None:
    assert [found for found in judged(WRONG[kind]) if found[2:] != (False, False)] == []


@pytest.mark.parametrize(
    "part",
    [r"\mathrm ", "am ", r"\pi cm ", "1 " + " " * 9, r"\frac{m}{", "0.11...", r"\\[2", "µ", "abc ", "1:05"],
)
def test_long_texts_take_linear_time(part: str) -> None:
    started = time.process_time()
    spell(part * (4000 // len(part)))
    assert time.process_time() - started < 2
