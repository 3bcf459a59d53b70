"""Points between the zeros of what is in absolute values, roots, maxima and minima, and at steps of floors.

`|x^2-3x+2|` is `x^2-3x+2` everywhere but between 1 and 2, and no point that is drawn at random need be there.
Only the worker imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations, islice, pairwise, product
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

MOST_POINTS, MOST_INTERVALS = 24, 8  # for one comparison, and of them for one function
MOST_PIECES, MOST_DEGREE, MOST_INNER = 6, 12, 3  # functions, and absolute values within one of them
MOST_OPERATIONS, MOST_VALLEYS = 200, 20  # of a function that is searched, and of its places near zero
STEPS, CLOSER = 400, 40  # of the search for zeros, and of the search for the lowest point between two steps
SAME_EXACT, SAME_FOUND = 1e-9, 1e-6  # zeros nearer to each other, relative to their size, are one
NEAR_ZERO = 8.0  # where the search is finer
MISHAPS = (  # what sympy raises for an expression that it cannot compute
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    NameError,
    LookupError,
    sympy.polys.polyerrors.BasePolynomialError,
)
_LEFT_OUT = (
    AppliedUndef,
    sympy.factorial,
    sympy.binomial,
    sympy.I,
    sympy.concrete.expr_with_limits.ExprWithLimits,
)
Point = dict[Any, Any]


def window_points(x: Any, usual: Point, reach: int) -> list[Point]:
    """Points at which pieces of x may follow another formula than at the usual point. One symbol of a piece
    varies, up to `reach` from zero; all other symbols have their usual values.
    """
    places: dict[tuple[Any, Any], None] = {}
    for piece in islice(_pieces(x), MOST_PIECES):
        symbol = min(piece.free_symbols, key=str)
        inside = piece.subs({s: v for s, v in usual.items() if s != symbol})
        try:
            places |= {(symbol, place): None for place in _between(inside, symbol, reach)}
        except MISHAPS:
            continue
    for step in islice(_steps(x), MOST_PIECES):
        places |= dict.fromkeys(step)
    return [{**usual, symbol: place} for symbol, place in islice(places, MOST_POINTS)]


def _pieces(x: Any) -> Iterator[Any]:
    """The functions whose sign decides which formula holds."""
    found = []
    for part in sorted(x.atoms(sympy.Abs, sympy.Max, sympy.Min, sympy.Pow), key=sympy.default_sort_key):
        if isinstance(part, sympy.Abs):
            found.append(part.args[0])
        elif isinstance(part, sympy.Pow):
            found += _factors(part.base) if part.exp.is_Rational and not part.exp.is_Integer else []
        else:
            found += [one - other for one, other in islice(combinations(part.args, 2), 3)]
    for inside in dict.fromkeys(found):
        if inside.free_symbols and not inside.has(*_LEFT_OUT) and inside.count_ops() <= MOST_OPERATIONS:
            yield inside


def _factors(base: Any) -> list[Any]:
    """What may change its sign within a root: of a square, what is squared."""
    factors = sympy.Mul.make_args(base)
    return [factor.base if factor.is_Pow and factor.exp.is_Integer else factor for factor in factors]


def _steps(x: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Where a floor or ceiling of a linear function of one symbol steps, near zero."""
    for part in sorted(x.atoms(sympy.floor, sympy.ceiling), key=sympy.default_sort_key):
        inside, symbols = part.args[0], part.free_symbols
        if len(symbols) != 1 or not inside.is_polynomial(*symbols):
            continue
        line = sympy.Poly(inside, *symbols)
        if line.degree() == 1 and all(number.is_Rational for number in line.all_coeffs()):
            slope, shift = line.all_coeffs()
            (symbol,) = symbols
            found = [(number - shift) / slope for number in (-2, -1, 0, 1, 3)]
            yield [(symbol, place) for place in found if place.is_integer or not symbol.is_integer]


def _between(inside: Any, symbol: Any, reach: int) -> list[Any]:
    """A number in each interval between the zeros of a function of one symbol, and one beyond either end."""
    try:
        exact = _exact_zeros(inside, symbol)
    except MISHAPS:
        exact = []
    is_known = inside.is_polynomial(symbol) and len(exact) > 0
    zeros = sorted({*exact, *(() if is_known else _found_zeros(inside, symbol, reach))})
    apart = SAME_EXACT if is_known else SAME_FOUND
    zeros = [b for a, b in pairwise([-math.inf, *zeros]) if b - a > apart * max(1.0, abs(b))]
    if not zeros:
        return []
    intervals = _chosen(list(pairwise([zeros[0] - 1, *zeros, zeros[-1] + 1])))
    found = (_simple(low, high, bool(symbol.is_integer)) for low, high in intervals)
    return [place for place in found if place is not None]


def _chosen(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Some of many intervals, as between the zeros of a sine: those near zero, and the narrowest."""
    if len(intervals) <= MOST_INTERVALS:
        return intervals
    ordered = sorted(intervals, key=lambda ends: abs(ends[0] + ends[1]))
    rest = sorted(ordered[MOST_INTERVALS - 2 :], key=lambda ends: ends[1] - ends[0])
    return ordered[: MOST_INTERVALS - 2] + rest[:2]


def _exact_zeros(inside: Any, symbol: Any) -> list[float]:
    """The real zeros if it is a polynomial, or one of several polynomials with absolute values in it."""
    # The outer ones first.
    inner = sorted(inside.atoms(sympy.Abs), key=lambda part: (-part.count_ops(), str(part)))
    zeros: list[float] = []
    if len(inner) > MOST_INNER:
        return zeros
    for signs in product((1, -1), repeat=len(inner)):
        formula = inside
        for part, sign in zip(inner, signs, strict=True):
            formula = formula.xreplace({part: sign * part.args[0]})
        formula = sympy.numer(sympy.together(formula))
        if formula.has(sympy.Abs) or not formula.is_polynomial(symbol) or formula.free_symbols != {symbol}:
            continue
        polynomial = sympy.Poly(formula, symbol)
        if 0 < polynomial.degree() <= MOST_DEGREE:
            roots = polynomial.sqf_part().nroots(n=20, maxsteps=60)
            zeros += [float(sympy.re(root)) for root in roots if abs(sympy.im(root)) < 1e-9]
    return zeros


def _found_zeros(inside: Any, symbol: Any, reach: int) -> list[float]:
    """The zeros that a search with floating-point numbers finds, also two that lie between its steps."""
    compiled = sympy.lambdify(symbol, inside, modules=["math"])

    def height(place: float) -> float:
        try:
            return float(compiled(place))
        except MISHAPS:
            return math.nan

    zeros: list[float] = []
    for far in sorted({NEAR_ZERO, float(min(max(2 * reach, 20), 10**9))}):
        grid = [far * (2 * step / STEPS - 1) for step in range(STEPS + 1)]
        grid = [place + far * 1e-7 for place in grid]  # not at the numbers that are written
        heights = [height(place) for place in grid]
        for i, (a, b) in enumerate(pairwise(heights)):
            if a * b < 0:
                zeros.append(_zero(height, grid[i], grid[i + 1]))
        for i in _valleys(heights):
            lowest = _lowest(height, grid[i - 1], grid[i + 1], math.copysign(1, heights[i]))
            if height(lowest) * heights[i] < 0:
                zeros += [_zero(height, grid[i - 1], lowest), _zero(height, lowest, grid[i + 1])]
    return zeros


def _valleys(heights: list[float]) -> list[int]:
    """Where the numbers come nearest to zero without a change of sign; only some, the lowest first."""
    sizes = [abs(height) for height in heights]
    found = [
        i
        for i in range(1, len(heights) - 1)
        if sizes[i - 1] >= sizes[i] <= sizes[i + 1]
        and heights[i - 1] * heights[i] > 0 < heights[i] * heights[i + 1]
    ]
    return sorted(found, key=lambda i: sizes[i])[:MOST_VALLEYS]


def _zero(height: Callable[[float], float], low: float, high: float) -> float:
    """A zero between two places of different signs, by halving."""
    start = height(low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if height(middle) * start > 0 else (low, middle)
    return (low + high) / 2


def _lowest(height: Callable[[float], float], low: float, high: float, sign: float) -> float:
    """Where the function is nearest to zero, or beyond it, if there is one such place."""
    for _ in range(CLOSER):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, second) if sign * height(first) <= sign * height(second) else (first, high)
    return (low + high) / 2


def _simple(low: float, high: float, whole: bool) -> Any:
    """A number in the middle of an interval with a small denominator; None if a whole number is asked for and
    there is none.
    """
    if whole:
        number = math.floor((low + high) / 2)
        found = next((n for n in (number, number + 1) if low < n < high), None)
        return None if found is None else sympy.Integer(found)
    a, b = low + (high - low) / 4, high - (high - low) / 4
    middle = Fraction((a + b) / 2)
    for size in (1, 10, 100, 10**4, 10**8, 10**12):
        near = middle.limit_denominator(size)
        if a <= near <= b:
            return sympy.Rational(near.numerator, near.denominator)
    return None
