"""Exact values of arithmetic, without sympy: rationals, powers, factorials, binomials, roots of squares.

The rule for sizes: no numerator or denominator of more than `limit.bits` bits is ever computed. Larger ones
are left to a worker, which can be killed; over MAX_BITS they are unparsable there too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from a2r_train.verify.expression import Node

MAX_BITS = 65_536  # of a worker's numbers: 2^65536 has 19,729 digits, and 5000! has 54,233 bits
FEW_BITS = 4_096  # of numbers outside a worker
FLOAT_DIGITS = 15  # significant digits that a float always holds
MIN_DIGITS = 6  # significant digits of a decimal that stands for a fraction or an irrational number


class TooLarge(Exception):
    """A number over the limit."""


@dataclass
class Limit:
    """How large numbers may be in this process."""

    bits: int = FEW_BITS


limit = Limit()


def value(node: Node) -> Fraction | None:
    """The exact value of a tree; None unless it is a rational number by arithmetic alone. Raises TooLarge."""
    if node.kind == "num":
        return _decimal(node.text)
    if node.kind in _OPERATIONS:
        parts = [value(part) for part in node.parts]
        known = [part for part in parts if part is not None]
        return _bounded(_OPERATIONS[node.kind](known)) if len(known) == len(parts) else None
    return None


def approximation(node: Node) -> float | None:
    """The value of a tree of real numbers in double precision; None if it has none or contains a symbol."""
    try:
        exact = value(node)
        if exact is not None:
            return float(exact)
        if node.kind == "sym":
            return {r"\pi": math.pi, "e": math.e}.get(node.text)
        parts = [approximation(part) for part in node.parts]
        known = [part for part in parts if part is not None]
        make = _FLOATS.get(node.kind + node.text)
        return make(known) if make and len(known) == len(parts) else None
    except (TooLarge, ValueError, OverflowError, ZeroDivisionError, TypeError):
        return None


def digits(node: Node) -> tuple[int, int] | None:
    """Significant digits of a decimal, and the power of ten of its last one; None for anything else."""
    if node.kind == "neg":
        return digits(node.parts[0])
    if node.kind == "num":
        text, _, exponent = node.text.lower().partition("e")
        whole, point, decimals = text.partition(".")
        if not (point or exponent):
            return None
        return len((whole + decimals).lstrip("0")), int(exponent or 0) - len(decimals)
    if node.kind == "mul" and node.parts[1].kind == "pow":
        ten, power = node.parts[1].parts
        shift, first = value(power), node.parts[0]
        if value(ten) == 10 and shift is not None and shift.denominator == 1:
            found = digits(first)
            if found is None and first.kind == "num":
                found = len(first.text.lstrip("0")), 0
            return found and (found[0], found[1] + int(shift))
    return None


def rounds_to(decimal: Fraction, last: int, other: Fraction) -> bool:
    """Whether both numbers, rounded or cut at the place 10^last, are equal."""
    place = Fraction(10) ** last
    if abs(decimal - other) * 2 <= place:
        return True
    return int(decimal / place) == int(other / place)  # int cuts towards 0


def _decimal(text: str) -> Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 4000 or abs(int(exponent or 0)) > limit.bits // 4:
        raise TooLarge(text[:20])
    whole, _, decimals = mantissa.partition(".")
    return Fraction(int(whole + decimals), 10 ** len(decimals)) * Fraction(10) ** int(exponent or 0)


def _bounded(found: Fraction | None) -> Fraction | None:
    if found is not None and max(found.numerator.bit_length(), found.denominator.bit_length()) > limit.bits:
        raise TooLarge
    return found


def _sum(parts: list[Fraction]) -> Fraction:
    return sum(parts, Fraction(0))


def _quotient(parts: list[Fraction]) -> Fraction | None:
    return parts[0] / parts[1] if parts[1] else None


def power(parts: list[Fraction]) -> Fraction | None:
    """A power, if it is rational, else None. Raises TooLarge before computing a number that is."""
    base, exponent = parts
    if exponent.denominator != 1:
        root = rational_root(base, exponent.denominator) if base >= 0 else None
        return None if root is None else power([root, Fraction(exponent.numerator)])
    if base == 0:
        return Fraction(0) if exponent > 0 else None
    if abs(base) == 1:
        return base ** (int(exponent) % 2)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > 2 * limit.bits:
        raise TooLarge
    return base ** int(exponent)


def rational_root(base: Fraction, index: int) -> Fraction | None:
    """The real root if it is rational; for negative numbers only with odd indices."""
    if base < 0:
        root = rational_root(-base, index) if index % 2 else None
        return None if root is None else -root
    parts = [_integer_root(part, index) for part in (base.numerator, base.denominator)]
    top, bottom = parts
    return None if top is None or bottom is None else Fraction(top, bottom)


def _integer_root(n: int, index: int) -> int | None:
    if index < 1 or index > 64 or n.bit_length() > 4096:
        return None
    low, high = 0, 1 << (n.bit_length() // index + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**index <= n else (low, middle - 1)
    return low if low**index == n else None


def _root(parts: list[Fraction]) -> Fraction | None:
    return rational_root(parts[0], int(parts[1])) if parts[1].denominator == 1 and parts[1] >= 1 else None


def _factorial(parts: list[Fraction], step: int = 1) -> Fraction | None:
    n = parts[0]
    if n.denominator != 1 or n < 0:
        return None
    if n * int(n).bit_length() > 2 * limit.bits:
        raise TooLarge
    return Fraction(math.factorial(int(n)) if step == 1 else math.prod(range(int(n), 0, -step)))


def _binomial(parts: list[Fraction]) -> Fraction | None:
    n, k = parts
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        return None
    if n > 10**6 or min(k, n - k) * int(n).bit_length() > 2 * limit.bits:
        raise TooLarge
    return Fraction(math.comb(int(n), int(k)))


_OPERATIONS: dict[str, Callable[[list[Fraction]], Fraction | None]] = {
    "add": _sum,
    "neg": lambda parts: -parts[0],
    "mul": lambda parts: parts[0] * parts[1],
    "div": _quotient,
    "pow": power,
    "root": _root,
    "fact": _factorial,
    "double_fact": lambda parts: _factorial(parts, step=2),
    "binom": _binomial,
    "abs": lambda parts: abs(parts[0]),
    "floor": lambda parts: Fraction(math.floor(parts[0])),
    "ceil": lambda parts: Fraction(math.ceil(parts[0])),
}
_FLOATS: dict[str, Callable[[list[float]], float]] = {
    "add": sum,
    "neg": lambda parts: -parts[0],
    "mul": lambda parts: parts[0] * parts[1],
    "div": lambda parts: parts[0] / parts[1],
    "pow": lambda parts: math.pow(parts[0], parts[1]),
    "root": lambda parts: math.pow(parts[0], 1 / parts[1]),
    "fnln": lambda parts: math.log(parts[0]),
    "fnlog": lambda parts: math.log(parts[0], parts[1] if len(parts) > 1 else 10),
    "fnsin": lambda parts: math.sin(parts[0]),
    "fncos": lambda parts: math.cos(parts[0]),
    "fntan": lambda parts: math.tan(parts[0]),
    "fnarctan": lambda parts: math.atan(parts[0]),
}
