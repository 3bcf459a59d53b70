r"""Sets by a condition: `\{x \mid x > 3\}`, and `\{n \in \Z : |n| < 3\}` by its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from a2r_train.verify.exact import value
from a2r_train.verify.expression import Node, Unreadable
from a2r_train.verify.inequalities import fraction
from a2r_train.verify.kinds import (
    INFINITY,
    MINUS_INFINITY,
    Group,
    Interval,
    Named,
    Quantity,
    Reading,
    Region,
    points_in,
)
from a2r_train.verify.quantifiers import unquantified

_BUILDER = re.compile(
    r'([a-z]) ?(?:\\in ?\\R ?)? ?(?:\\mid ?|\||:) ?(?:\1 ?\\in ?\\R ?(?:[,;]|"and"|\|) ?)?(.*)'
)
_WHOLE_SET = r"\\in ?\\(?:(?P<{0}>[ZN])(?P<{0}_sign> ?(?:\^|_) ?\{{?\+\}}?)?) ?"
_WHOLE = re.compile(
    rf"(?P<name>[a-z]) ?(?:{_WHOLE_SET.format('first')})?(?:\\mid ?|\||:) ?"
    rf'(?:(?P=name) ?{_WHOLE_SET.format("second")}(?:[,;]|"and"|\|) ?)?(?P<condition>.*)'
)
_MOST_NUMBERS = 200


def read_builder(inner: str, read: Callable[[str], Reading]) -> Reading | None:
    """What is in the braces of a set with a condition; None for a set without one. Raises Unreadable."""
    if (whole := _WHOLE.fullmatch(inner)) and (whole["first"] or whole["second"]):
        return _whole_numbers(whole, read(whole["condition"]))
    if not (builder := _BUILDER.fullmatch(inner)):
        return None
    found = read(unquantified(builder[2]))
    if isinstance(found, Region) and found.name == builder[1]:
        return replace(found, name="")
    if isinstance(found, Named) and found.name == builder[1] and (points := points_in(found.what)):
        return Group("{", tuple(map(Quantity, points)))
    raise Unreadable(inner)


def _whole_numbers(match: re.Match[str], region: Reading) -> Group:
    """The whole numbers of a bounded region. Whether 0 is in N is not known, so it must not matter."""
    if not isinstance(region, Region) or region.name != match["name"] or region.within:
        raise Unreadable(match.group())
    sign = match["first_sign"] or match["second_sign"]
    natural = "N" in (match["first"], match["second"])
    lowest = 1 if sign else 0 if natural else None
    found = {number for part in region.parts for number in _numbers_in(part, lowest)}
    for taken in region.without:
        found -= set(_numbers_in(taken, lowest)) if isinstance(taken, Interval) else {_exact(taken)}
    if natural and not sign and 0 in found:
        raise Unreadable(match.group())
    return Group("{", tuple(Quantity(fraction(Fraction(number))) for number in sorted(found)))


def _numbers_in(part: Interval | Group, lowest: int | None) -> list[Fraction]:
    if isinstance(part, Group):
        numbers = [_exact(node) for node in points_in(part) or ()]
        return [n for n in numbers if n.denominator == 1 and (lowest is None or n >= lowest)]
    if part.high == INFINITY or (part.low == MINUS_INFINITY and lowest is None):
        raise Unreadable("without end")
    high = _exact(part.high)
    last = math.ceil(high) - 1 if not part.with_high else math.floor(high)
    first = lowest or 0
    if part.low != MINUS_INFINITY:
        low = _exact(part.low)
        above = math.floor(low) + 1 if not part.with_low else math.ceil(low)
        first = above if lowest is None else max(above, lowest)
    if last - first > _MOST_NUMBERS:
        raise Unreadable("too many")
    return [Fraction(n) for n in range(first, last + 1)]


def _exact(node: Node) -> Fraction:
    found = value(node)
    if found is None:
        raise Unreadable("not exact")
    return found
