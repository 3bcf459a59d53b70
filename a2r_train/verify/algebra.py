"""Comparison with sympy, only in the worker: irrational numbers, symbols, equations, regions, sums,
integrals.

Two numbers are different if sympy can prove that a digit of their difference is not zero. Two expressions are
different if they differ at one of several points. Numbers are exact throughout, and the rule for sizes of
exact.py limits them.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy

from a2r_train.verify.exact import MAX_BITS, MIN_DIGITS, TooLarge, digits, value
from a2r_train.verify.expression import Node, Unreadable
from a2r_train.verify.kinds import Group, Interval, Quantity, Region
from a2r_train.verify.windows import MISHAPS, window_points

SIGNS = ("+", "+", "-", "+", "+", "-")  # of the symbols at the points where two expressions are compared
DEEP = 4  # of these points, with both signs, are those where the difference is computed to all digits
MIXED = 4  # further points for several symbols, at which their signs differ
NEAREST_FAR = 20  # from zero are the further points, for functions with pieces
FARTHEST = {
    False: 2 << MAX_BITS,
    True: 10_000,
}  # are these points, also for factorials and powers by a symbol
DIGITS, DEPTHS = 15, (60, 600)  # of a difference: how many must be proven, and to what depth
MAX_POWER = 10**6  # of an irrational number
INTEGERS = set("nmkNK")  # symbols that stand for whole numbers
_FUNCTIONS: dict[str, Any] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec,
    "csc": sympy.csc, "cis": lambda angle: sympy.cos(angle) + sympy.I * sympy.sin(angle),
    "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth, "arcsin": sympy.asin,
    "arccos": sympy.acos, "arctan": sympy.atan, "acot": sympy.acot, "exp": sympy.exp, "max": sympy.Max,
    "min": sympy.Min,
}  # fmt: skip
_CONSTANTS = {r"\pi": sympy.pi, "e": sympy.E, "i": sympy.I, r"\infty": sympy.oo}
_PIECES = (sympy.Abs, sympy.Max, sympy.Min, sympy.floor, sympy.ceiling, sympy.binomial, sympy.factorial)


class Divisor(sympy.Function):  # type: ignore[misc]  # sympy has no types
    """The greatest common divisor of numbers. sympy's own takes letters for polynomials: gcd(n, 10) is 1."""

    @classmethod
    def eval(cls, *numbers: Any) -> Any:
        return _of_numbers(cls, sympy.gcd_list, numbers)


class Multiple(sympy.Function):  # type: ignore[misc]
    """The least common multiple of numbers."""

    @classmethod
    def eval(cls, *numbers: Any) -> Any:
        return _of_numbers(cls, sympy.lcm_list, numbers)


def _of_numbers(kind: Any, found: Any, numbers: tuple[Any, ...]) -> Any:
    """The value for numbers; with letters the function itself, its arguments in one order."""
    if all(number.is_Rational for number in numbers):
        return found(list(numbers))
    ordered = tuple(sorted(numbers, key=sympy.default_sort_key))
    return None if ordered == numbers else kind(*ordered)


_FUNCTIONS |= {"gcd": Divisor, "lcm": Multiple}
_PARTIAL = (
    sympy.Pow,
    sympy.log,
    sympy.asin,
    sympy.acos,
    sympy.binomial,
    Divisor,
    Multiple,
)  # not defined everywhere


class Algebra:
    """The leaves of equality.Equality."""

    def equal(self, a: Node, b: Node, ratio: Fraction) -> bool:
        x, y = expression(a), expression(b)
        scale = sympy.Rational(ratio.numerator, ratio.denominator)
        if _same(x, scale * y):
            return True
        return _rounded(a, x, b, scale * y) or _rounded(b, y, a, x / scale)

    def constant_apart(self, a: Node, b: Node) -> bool:
        x, y = expression(a), expression(b)
        constants = {
            symbol: 0 for symbol in x.free_symbols & y.free_symbols if str(symbol) in ("C", "c", "K")
        }
        x, y = x.subs(constants), y.subs(constants)
        symbols = sorted((x - y).free_symbols, key=str)
        found = (value_at(x - y, point) for point in (*points_for(symbols), *_small_points(symbols)))
        apart = next((number for number in found if number is not None and _is_real(number)), None)
        return apart is not None and _same(x, y if is_zero(apart, DEPTHS[:1]) else y + apart)

    def proportional(self, a: Node, b: Node, positive: bool) -> bool:
        x, y = expression(a), expression(b)
        if not positive and any(power.exp.is_negative for power in (x + y).atoms(sympy.Pow)):
            x, y = (sympy.fraction(sympy.together(side))[0] for side in (x, y))  # xy = 1 is y = 1/x
        symbols = sorted(x.free_symbols | y.free_symbols, key=str)
        if x == 0 or y == 0 or not symbols:
            return False  # all identities would be equivalent
        if x.free_symbols != y.free_symbols:
            return _same(x, y)
        factor = None
        for point in points_for(symbols):
            top, bottom = value_at(x, point), value_at(y, point)
            if top is not None and bottom is not None and bottom != 0 and not is_zero(bottom):
                factor = sympy.nsimplify(top / bottom) if (top / bottom).is_Rational else top / bottom
                break
        if factor is None or is_zero(factor) or (positive and not factor.is_positive):
            return False
        return _same(x, factor * y)

    def same_points(self, a: Region, b: Region) -> bool:
        try:
            one, other = set_of(a), set_of(b)
            return bool(one == other) or bool(one.symmetric_difference(other) == sympy.S.EmptySet)
        except MISHAPS:
            return False


def expression(node: Node) -> Any:
    """The tree as a sympy expression. Raises Unreadable, TooLarge."""
    exact = value(node)
    if exact is not None:
        return sympy.Rational(exact.numerator, exact.denominator)
    try:
        return _MAKERS[node.kind](node)
    except (TooLarge, Unreadable):
        raise
    except MISHAPS as error:
        raise Unreadable(str(error)) from None


def _symbol(node: Node) -> Any:
    if node.text in _CONSTANTS:
        return _CONSTANTS[node.text]
    return sympy.Symbol(node.text, integer=True) if node.text in INTEGERS else sympy.Symbol(node.text)


def _braced(text: str) -> str:
    r"""`\frac12` as `\frac{1}{2}`, which is the only one that math-verify's parser reads."""
    text = re.sub(r"\\(frac|binom|sqrt) ?([A-Za-z\d]|\\pi(?![a-z]))", r"\\\1{\2}", text)
    return re.sub(
        r"(\\(?:frac|binom) ?\{(?:[^{}]|\{[^{}]*\})*\}) ?([A-Za-z\d]|\\pi(?![a-z]))", r"\1{\2}", text
    )


def _opaque(node: Node) -> Any:
    """What only math-verify's parser can read: sums, integrals, limits, derivatives."""
    try:
        found = latex2sympy(_braced(node.text.replace('"', "")), normalization_config=None)
    except Exception as error:  # noqa: BLE001 (the parser raises bare Exceptions for what it cannot read)
        raise Unreadable(str(error)) from None
    if not isinstance(found, sympy.Expr):
        raise Unreadable(node.text)
    unknown = {
        rate: sympy.Symbol(str(rate))
        for rate in found.atoms(sympy.Derivative)
        if not rate.expr.free_symbols & set(rate.variables)
    }  # not zero: the name that is derived stands for a function
    found = found.xreplace(unknown).subs({sympy.Symbol("e"): sympy.E, sympy.Symbol("i"): sympy.I}).doit()
    whole = {symbol: sympy.Symbol(symbol.name, integer=True) for symbol in found.free_symbols}
    return found.xreplace({old: new for old, new in whole.items() if old.name in INTEGERS})


def _power(node: Node) -> Any:
    base, exponent = (expression(part) for part in node.parts)
    if base.is_number and exponent.is_number and exponent.is_real and abs(exponent) > MAX_POWER:
        raise TooLarge
    return base**exponent


def _root(node: Node) -> Any:
    base, index = (expression(part) for part in node.parts)
    if index.is_Integer and index % 2 and index > 1:
        return sympy.real_root(base, index) if base.is_number or base.is_real else sympy.root(base, index)
    return sympy.root(base, index)


def _function(node: Node) -> Any:
    arguments = [expression(part) for part in node.parts]
    if node.text in ("log", "lg"):
        return (
            sympy.log(*arguments)
            if node.text == "log" and len(arguments) > 1
            else sympy.log(arguments[0], 10)
        )
    if node.text == "ln":
        return sympy.log(arguments[0])
    return _FUNCTIONS[node.text](*arguments)


def _determinant(node: Node) -> Any:
    return sympy.Matrix([[expression(entry) for entry in row.parts] for row in node.parts]).det()


def _cross(node: Node) -> Any:
    """A product that does not commute; for two vectors, swapping them changes its sign."""
    left, right = (expression(part) for part in node.parts)
    vectors = all(
        part.kind == "sym" and part.text != r"\nabla" and (part.text[0] == "\\" or part.text.islower())
        for part in node.parts
    )
    if not vectors:
        return sympy.Function("cross")(left, right)
    if left == right:
        return sympy.Integer(0)
    first, second = sorted((left, right), key=str)
    return (1 if first == left else -1) * sympy.Function("cross")(first, second)


_MAKERS: dict[str, Any] = {
    "sym": _symbol,
    "opaque": _opaque,
    "pow": _power,
    "root": _root,
    "fn": _function,
    "det": _determinant,
    "cross": _cross,
    "add": lambda node: sympy.Add(*map(expression, node.parts)),
    "neg": lambda node: -expression(node.parts[0]),
    "mul": lambda node: expression(node.parts[0]) * expression(node.parts[1]),
    "div": lambda node: expression(node.parts[0]) / expression(node.parts[1]),
    "fact": lambda node: sympy.factorial(expression(node.parts[0])),
    "double_fact": lambda node: sympy.factorial2(expression(node.parts[0])),
    "binom": lambda node: sympy.binomial(*map(expression, node.parts)),
    "abs": lambda node: sympy.Abs(expression(node.parts[0])),
    "floor": lambda node: sympy.floor(expression(node.parts[0])),
    "ceil": lambda node: sympy.ceiling(expression(node.parts[0])),
    "call": lambda node: sympy.Function(node.text)(*map(expression, node.parts)),
}


def _same(x: Any, y: Any) -> bool:
    if x == y:
        return True
    if x.is_infinite or y.is_infinite or x.has(sympy.nan, sympy.zoo) or y.has(sympy.nan, sympy.zoo):
        return False
    difference = x - y
    if not difference.free_symbols:
        return is_zero(difference)
    return _vanishes(x, y, sorted(x.free_symbols | y.free_symbols, key=str))


def _vanishes(x: Any, y: Any, symbols: list[Any]) -> bool:
    """Whether two expressions agree at points where both have a real value; the symbols fix most points."""
    points = points_for(symbols)
    met = _agreements(x, y, points[:DEEP] + points[len(SIGNS) :], points[DEEP : len(SIGNS)])
    if met is not None and has_pieces(x - y):
        met = _and_more(met, _agreements(x, y, _far_points(symbols, x - y), []))
    if met and has_pieces(x - y):  # only now, because most wrong answers have differed
        windows = window_points(x - y, points[0], min(largest_in(x - y), FARTHEST[False]))
        met = _and_more(met, _agreements(x, y, [], windows))
    if met is not None and met < 2:  # as for arcsin, which is real only near zero
        met = _and_more(met, _agreements(x, y, _small_points(symbols), []))
    return met is not None and (met >= 2 or (met == 0 and sympy.simplify(x - y) == 0))


def _and_more(met: int, more: int | None) -> int | None:
    return None if more is None else met + more


def _agreements(x: Any, y: Any, deep: list[dict[Any, Any]], others: list[dict[Any, Any]]) -> int | None:
    """At how many points both have a real value, the same; None if they differ at one of them. At the deep
    points their difference is computed to 600 digits, at the others to 60.
    """
    depths = [DEPTHS] * len(deep) + [DEPTHS[:1]] * len(others)
    met = 0
    for point, to in zip([*deep, *others], depths, strict=True):
        a, b = value_at(x, point), value_at(y, point)
        if a is None or b is None or not (x.has(sympy.I) or y.has(sympy.I) or (_is_real(a) and _is_real(b))):
            continue
        met += 1
        if not is_zero(a - b, to):
            return None
    return met


def _is_real(x: Any) -> bool:
    """Whether a number is real; its digits decide what sympy does not know, as for |tan(1 + pi)|."""
    if x.is_real is not None or x.has(sympy.core.function.AppliedUndef, sympy.Derivative):
        return bool(x.is_real)
    try:
        return bool(x.evalf(DIGITS).is_Float)
    except MISHAPS:
        return False


def points_for(symbols: list[Any]) -> list[dict[Any, Any]]:
    seeded = random.Random(len(symbols))
    points = []
    for number in range(len(SIGNS) + (MIXED if len(symbols) > 1 else 0)):
        point = {}
        mixed = number >= len(SIGNS)
        for place, symbol in enumerate(symbols):
            whole = bool(symbol.is_integer)
            size = (
                seeded.randint(2, 14)
                if whole
                else sympy.Rational(seeded.randint(200, 3000), seeded.randint(501, 999))
            )
            negative = (place + number) % (2 + number % 2) == 0 if mixed else SIGNS[number] == "-"
            point[symbol] = -size if negative else size
        points.append(point)
    return points


def _small_points(symbols: list[Any]) -> list[dict[Any, Any]]:
    """The same points nearer to zero than 1, but for symbols of whole numbers."""
    if all(symbol.is_integer for symbol in symbols):
        return []  # they would be the same points
    return [
        {s: n if s.is_integer else n / (1 + abs(n)) for s, n in point.items()}
        for point in points_for(symbols)
    ]


def has_pieces(x: Any) -> bool:
    """Whether it may follow one formula near zero and another one far from it, as |x - 10| does.

    Towers of powers are left out, as their values far from zero are never computed.
    """
    if any(inner.exp.free_symbols for outer in x.atoms(sympy.Pow) for inner in outer.exp.atoms(sympy.Pow)):
        return False
    return x.has(*_PIECES, Divisor, Multiple) or any(
        power.exp.is_integer is not True for power in x.atoms(sympy.Pow)
    )


def _far_points(symbols: list[Any], x: Any) -> list[dict[Any, Any]]:
    """Points of both signs and both orders of the symbols, beyond all numbers that are written in x."""
    grows = x.has(sympy.binomial, sympy.factorial) or any(p.exp.free_symbols for p in x.atoms(sympy.Pow))
    size = min(max(2 * largest_in(x), NEAREST_FAR), FARTHEST[grows])
    points = []
    for ordered, beside in ((symbols, 1), (symbols[::-1], 0)):  # 0: multiples of a number that is written
        for sign in (1, -1):
            sizes = [(size + beside) * place for place in range(1, len(ordered) + 1)]
            pairs = zip(ordered, sizes, strict=True)
            points.append(
                {s: sign * (n if s.is_integer else n + sympy.Rational(beside, n + 2)) for s, n in pairs}
            )
    return points


def largest_in(x: Any) -> int:
    """The largest number that is written in x, also as a divisor: x/1000 is large far beyond 1000."""
    largest = 0
    for part in sympy.preorder_traversal(x):
        if part.is_Rational:
            largest = max(largest, abs(part.p), part.q)
        elif part.is_number and part.is_real and (size := part.evalf(DIGITS)).is_Float and size:
            bits = abs(size._mpf_[2] + size._mpf_[3])  # of its whole part, or of that of 1/size
            largest = max(largest, 1 << min(bits, MAX_BITS))
    return int(largest)


def value_at(x: Any, point: dict[Any, Any]) -> Any:
    """The value at a point; None if there is none."""
    try:
        if not x.has(sympy.I) and not all(_is_defined(part, point) for part in x.atoms(*_PARTIAL)):
            return None
        found = x.subs(point).doit()
    except MISHAPS:
        return None
    if found.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) or found.free_symbols:
        return None
    return found


def _is_defined(part: Any, point: dict[Any, Any]) -> bool:
    """Whether a part has a real value: with a root of a negative number, the whole has none."""
    if isinstance(part, sympy.binomial):
        return all(argument.subs(point).is_nonnegative is not False for argument in part.args)
    if isinstance(part, Divisor | Multiple):
        return all(argument.subs(point).is_positive is not False for argument in part.args)
    if isinstance(part, sympy.Pow) and (part.exp.is_integer or part.base.is_positive):
        return True
    return part.subs(point).is_real is not False


def is_zero(x: Any, depths: tuple[int, ...] = DEPTHS) -> bool:
    """False if a nonzero digit is proven; true if the number is zero, or none is found down to `depths`."""
    if x.is_Rational:
        return bool(x == 0)
    if x.has(sympy.core.function.AppliedUndef):
        return bool(sympy.simplify(x) == 0)
    for depth in depths:
        try:
            return bool(x.evalf(DIGITS, maxn=depth, strict=True) == 0)
        except sympy.core.evalf.PrecisionExhausted:
            parts = x.evalf(DIGITS, maxn=depth).as_real_imag()
            noise = sympy.Float(10) ** (20 - depth) * _size(x)
            if any(part.is_Float and abs(part) > noise for part in parts):
                return False  # one part is zero, or near it, and the other is not
        except MISHAPS:
            return False
    return True


def _size(x: Any) -> Any:
    """That of the largest term of a sum, at least 1: digits that cancel are as large as the terms."""
    sizes = [abs(term.evalf(DIGITS)) for term in sympy.Add.make_args(x)]
    return max([size for size in sizes if size.is_Float], default=1) + 1


def _rounded(decimal: Node, x: Any, other: Node, y: Any) -> bool:
    """The rule of equality.agrees for an irrational number."""
    found = digits(decimal)
    if (
        found is None
        or found[0] < MIN_DIGITS
        or digits(other) is not None
        or not (x.is_Rational and y.is_number)
    ):
        return False
    if not y.is_real:
        return False
    exact, place = y.evalf(found[0] + 20), sympy.Rational(10) ** found[1]
    is_cut = exact * x > 0 and 0 <= abs(exact) - abs(x) < place
    return bool(is_cut or abs(exact - x) * 2 <= place)


def set_of(region: Region) -> Any:
    whole = sympy.Union(*map(_points_of, region.parts))
    for other in region.within:
        whole = whole.intersect(set_of(other))
    for taken in region.without:
        whole -= _points_of(taken) if isinstance(taken, Interval) else sympy.FiniteSet(expression(taken))
    return whole


def _points_of(part: Interval | Group) -> Any:
    """An interval or a set of points. Raises ValueError for `(3, 1)`, which is no interval."""
    if not isinstance(part, Interval):
        return sympy.FiniteSet(*_members(part))
    low, high = expression(part.low), expression(part.high)
    if (low >= high) == True and not (low == high and part.with_low and part.with_high):  # noqa: E712
        raise ValueError(part)
    return sympy.Interval(low, high, not part.with_low, not part.with_high)


def _members(group: Group) -> list[Any]:
    nodes = [item.node for item in group.items if isinstance(item, Quantity)]
    if len(nodes) != len(group.items):
        raise Unreadable("no set of numbers")
    return [expression(node) for node in nodes]
