"""Decimals in the normal form: those that repeat as fractions, others that go on as they are written; also
mixed numbers.
"""

from __future__ import annotations

import re

REPEATS = re.compile(r"(?:\.\d*(\d{1,6})\1|[,;]\s*)\.\.\.$")  # a decimal or a list that goes on
_START = r"(?<!\d)(\d{0,20})\.(\d{0,20})"  # of a repeating decimal
_GOES_ON = re.compile(r"(?<![\d.])(\d{0,20})\.(\d{1,60}) ?(?:\.\.\.|\\ldots ?)")
_LONGEST_BLOCK = 6
_BY_CHANCE = "718281828"  # decimals of e, whose 1828 does not come a third time
_SURE_DIGITS = 6  # significant ones, with which the dots may be left out
_MIXED = re.compile(
    r"(?<![\w.^_}])(\d+) \\frac ?(?:\{(\d+)\}|(\d)) ?(?:\{(\d+)\}|(\d))"
    r"|(?<![\w.^_}])(\d+) (\d+)/(\d+)(?![\d.])"
)


def numbers(text: str) -> str:
    """Digits in groups joined by spaces, and repeating decimals as fractions."""
    text = re.sub(r"(?<![\d.,^_])\d{1,3}(?: \d{3})+(?![\d])", lambda m: m.group().replace(" ", ""), text)
    if "." in text:
        text = re.sub(rf"{_START}\\(?:overline|bar|dot) ?\{{?(\d{{1,20}})\}}?(?!\d)", _repeating, text)
        text = re.sub(rf"(?<![\w(]){_START}\((\d{{1,20}})\)(?!\d)", _repeating, text)
        if "..." in text or r"\ldots" in text:
            text = _GOES_ON.sub(_going_on, text)
    text = re.sub(r"(?<=\d)\\frac", r" \\frac", text)
    return _MIXED.sub(_mixed, text)


def _repeating(match: re.Match[str]) -> str:
    whole, start, block = match.groups()
    return match.group() if len(whole + start + block) > 60 else _fraction(whole, start, block)


def _fraction(whole: str, start: str, block: str) -> str:
    top = int(whole + start + block or "0") - int(whole + start or "0")
    return rf"\frac{{{top}}}{{{(10 ** len(block) - 1) * 10 ** len(start)}}}"


def _going_on(match: re.Match[str]) -> str:
    """`0.1666...` as a fraction; `2.645751311...` without its dots, as it repeats only by chance."""
    whole, decimals = match.groups()
    if (found := _block(decimals)) is not None:
        return _fraction(whole, *found)
    return f"{whole}.{decimals}" if len((whole + decimals).lstrip("0")) >= _SURE_DIGITS else match.group()


def _block(decimals: str) -> tuple[str, str] | None:
    """The digits before the repeating ones, and the shortest block of these; None if they do not repeat.

    A block comes three times, or twice if it is no shorter than what stands before it: `0.41666`, but not the
    77 of `2.236067977`.
    """
    if decimals == _BY_CHANCE:
        return None
    for size in range(1, _LONGEST_BLOCK + 1):
        at = len(decimals) - size
        while at > 0 and decimals[at - 1] == decimals[at - 1 + size]:
            at -= 1
        length = len(decimals) - at
        before = len(decimals[:at].lstrip("0"))
        if length >= 3 * size or (length >= 2 * size and length >= before):
            return decimals[:at], decimals[at : at + size]
    return None


def _mixed(match: re.Match[str]) -> str:
    whole, *parts = (group for group in match.groups() if group is not None)
    top, bottom = parts
    return rf"({whole}+\frac{{{top}}}{{{bottom}}})" if int(top) < int(bottom) else match.group()
