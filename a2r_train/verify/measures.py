"""Whether two amounts in several units, times of day, angles, or numbers in a base are the same."""

from __future__ import annotations

from fractions import Fraction

from a2r_train.verify.exact import value
from a2r_train.verify.expression import Node, number
from a2r_train.verify.kinds import Based, Clock, Measure, Quantity, Reading
from a2r_train.verify.units import Tail


def same_time(time: Reading, other: Reading) -> bool:
    """Whether the other is the same time without a.m. or p.m.: `3:30`, `15:30`, and 5 for `5 pm`."""
    if not isinstance(time, Clock) or not isinstance(other, Quantity):
        return False
    node, (hour, minute) = other.node, divmod(time.minutes, 60)
    hours = {str(hour), f"{hour:02}", str((hour - 1) % 12 + 1)}
    if other.tail.mark != ":":
        return time.is_hour and other.tail == Tail() and node == number((hour - 1) % 12 + 1)
    return node.kind == "div" and node.parts[0].text in hours and node.parts[1].text == f"{minute:02}"


def same_amount(a: Reading, b: Reading) -> bool:
    """Whether `1 hour 30 minutes` is the other amount, or the other is how many of one of its units it is."""
    one, other = _total(a), _total(b)
    if one is not None and one == other:
        return True
    measure, plain = (a, b) if isinstance(a, Measure) else (b, a)
    return isinstance(plain, Quantity) and plain.tail == Tail() and _counts(measure, plain)


def _total(reading: Reading) -> tuple[Fraction, tuple[tuple[str, int], ...]] | None:
    """The amount in base units, and these units."""
    parts = (
        reading.parts if isinstance(reading, Measure) else (reading,) if isinstance(reading, Quantity) else ()
    )
    values = [value(part.node) for part in parts]
    if (
        not parts
        or not parts[0].tail.unit.dimensions
        or len({part.tail.unit.dimensions for part in parts}) > 1
    ):
        return None
    sizes = [part.tail.multiplier * part.tail.unit.factor for part in parts]
    total = sum((v * size for v, size in zip(values, sizes, strict=True) if v is not None), Fraction(0))
    return None if None in values else (total, parts[0].tail.unit.dimensions)


def _counts(measure: Reading, plain: Quantity) -> bool:
    """Whether a number is how many of one of its units a measure has: 90 or 1.5 for 1 hour 30 minutes."""
    total, number_ = _total(measure), value(plain.node)
    units = [part.tail for part in measure.parts] if isinstance(measure, Measure) else []
    return total is not None and total[0] in [
        (number_ or 0) * unit.multiplier * unit.unit.factor for unit in units
    ]


def based(based: Reading, other: Reading) -> bool:
    """Whether the other is the digits of a number in a base, written without the base."""
    if not isinstance(based, Based) or not isinstance(other, Quantity) or other.tail != Tail():
        return False
    node = other.node
    return node.kind == "num" and (node.text.lstrip("0") or "0") == based.digits


def angles_of(a: Quantity, b: Quantity) -> tuple[Node, Node] | None:
    """Both as numbers of radians, if one is in degrees and the other in radians, or a bare number."""
    units = [dict(q.tail.unit.dimensions) for q in (a, b)]
    if {"degree": 1} not in units or not all(u in ({}, {"degree": 1}, {"radian": 1}) for u in units):
        return None
    if units[0] == units[1] or a.tail.percent or b.tail.percent:
        return None
    if {} in units and value(a.node) is not None and value(b.node) is not None:
        return None  # radians are multiples of pi
    one, other = (_radians(q) if u == {"degree": 1} else q.node for q, u in zip((a, b), units, strict=True))
    return one, other


def _radians(angle: Quantity) -> Node:
    degrees = Fraction(180) / angle.tail.unit.factor / angle.tail.multiplier
    parts = (number(degrees.numerator), number(degrees.denominator))
    return Node("div", (Node("mul", (angle.node, Node("sym", text=r"\pi"))), Node("div", parts)))
