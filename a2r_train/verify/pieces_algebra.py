"""Comparison of functions by their pieces with sympy, only in the worker.

Two are the same if they are defined for the same numbers, and any two of their pieces have the same values
wherever both apply. A function that has two values somewhere equals nothing.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import sympy

from a2r_train.verify.algebra import (
    FARTHEST,
    Algebra,
    expression,
    has_pieces,
    is_zero,
    largest_in,
    points_for,
    set_of,
    value_at,
)
from a2r_train.verify.kinds import Pieces, Region
from a2r_train.verify.windows import MISHAPS, window_points

# Where an interval is tried: parts of its length, or distances from its only end or from zero.
_PARTS = [sympy.Rational(2 * k + 1, 19) for k in range(9)]
_FAR = [sympy.Rational(p, q) for p, q in ((1, 37), (3, 11), (8, 7), (29, 9), (101, 13), (977, 3), (10**5, 7))]
_Part = tuple[Any, Any]  # the numbers where a value applies, and the value


class PiecesAlgebra(Algebra):
    """The same, and functions by their pieces."""

    def same_pieces(self, a: Pieces, b: Pieces) -> bool:
        names = {piece.when.name for piece in (*a.items, *b.items) if isinstance(piece.when, Region)}
        if len(names) != 1:
            return False
        name = names.pop()
        try:
            one, other = _parts_of(a), _parts_of(b)
            if not _same_set(_all(one), _all(other)):
                return False
            pairs = [*combinations(one, 2), *combinations(other, 2), *product(one, other)]
            return all(_agree(x, y, name) for x, y in pairs)
        except MISHAPS:
            return False


def _parts_of(pieces: Pieces) -> list[_Part]:
    """Each value with the numbers where it applies."""
    known = sympy.Union(*(set_of(p.when) for p in pieces.items if isinstance(p.when, Region)))
    return [
        (
            set_of(piece.when) if isinstance(piece.when, Region) else sympy.S.Reals - known,
            expression(piece.value.node),
        )
        for piece in pieces.items
    ]


def _all(parts: list[_Part]) -> Any:
    return sympy.Union(*(where for where, _ in parts))


def _same_set(a: Any, b: Any) -> bool:
    return bool(a == b) or bool(a.symmetric_difference(b) == sympy.S.EmptySet)


def _agree(one: _Part, other: _Part, name: str) -> bool:
    """Whether two values are equal wherever both apply."""
    common = one[0].intersect(other[0])
    if common == sympy.S.EmptySet or one[1] == other[1]:
        return True
    parts = common.args if isinstance(common, sympy.Union) else (common,)
    if not all(isinstance(part, sympy.Interval | sympy.FiniteSet) for part in parts):
        return False
    difference = one[1] - other[1]
    return all(_vanishes(difference, part, name) for part in parts)


def _vanishes(difference: Any, where: Any, name: str) -> bool:
    """Whether a difference is zero at points of an interval, or at all numbers of a set."""
    symbols = sorted(difference.free_symbols, key=str)
    own = [symbol for symbol in symbols if str(symbol) == name]
    if not own:
        return _is_zero_at(difference, points_for(symbols) if symbols else [{}])
    usual = points_for(symbols)
    whole = bool(own[0].is_integer)
    places = list(where) if isinstance(where, sympy.FiniteSet) else _places(where, whole)
    found = [{**usual[i % len(usual)], own[0]: place} for i, place in enumerate(places)]
    if isinstance(where, sympy.Interval) and has_pieces(difference):
        reach = min(largest_in(difference), FARTHEST[False])
        found += [p for p in window_points(difference, usual[0], reach) if where.contains(p[own[0]]) == True]  # noqa: E712
    return bool(found) and _is_zero_at(difference, found)


def _is_zero_at(difference: Any, points: list[dict[Any, Any]]) -> bool:
    """Whether it is zero wherever it has a value, which must be at two points or at the only one."""
    values = [value for point in points if (value := value_at(difference, point)) is not None]
    return len(values) >= min(2, len(points)) and all(map(is_zero, values))


def _places(where: Any, whole: bool) -> list[Any]:
    """Numbers of an interval, or whole numbers of it."""
    low, high = where.start, where.end
    if low.is_finite and high.is_finite:
        found = [low + (high - low) * part for part in _PARTS]
    elif low.is_finite:
        found = [low + far for far in _FAR]
    elif high.is_finite:
        found = [high - far for far in _FAR]
    else:
        found = [sign * far for far in _FAR for sign in (1, -1)]
    if not whole:
        return found
    return [n for n in dict.fromkeys(map(sympy.floor, found)) if where.contains(n) == True]  # noqa: E712
