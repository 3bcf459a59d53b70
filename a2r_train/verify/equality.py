"""Whether two readings are the same answer. Symmetric: neither side is the gold one.

Exact rationals decide what they can here. `Leaves` decide the rest, with sympy in the worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from typing import Protocol

from a2r_train.verify.chains import value_of_terms
from a2r_train.verify.exact import FLOAT_DIGITS, MIN_DIGITS, digits, rounds_to, value
from a2r_train.verify.expression import Node, number
from a2r_train.verify.kinds import (
    Based,
    Clock,
    False_,
    Group,
    Interval,
    Matrix,
    Measure,
    Named,
    Piece,
    Pieces,
    Quantity,
    Reading,
    Region,
    Relation,
    Vector,
    Words,
    as_product,
    as_region,
    decimal_comma,
    has_symbol,
    is_set,
    linked,
)
from a2r_train.verify.letters import figure, is_double, is_product, letters
from a2r_train.verify.matrices import rows_of
from a2r_train.verify.measures import angles_of, based, same_amount, same_time
from a2r_train.verify.piecewise import by_numbers
from a2r_train.verify.renaming import constant_in, mentions, period_in, renamed, symbols
from a2r_train.verify.spelling import GREEK_ORDER
from a2r_train.verify.units import Tail, is_temperature, may_be_same

_UNIT_LETTERS = {"i", "j", "k"}
Same = Callable[[Reading, Reading], bool]


class Undecided(Exception):
    """What the exact rationals alone cannot decide."""


class Leaves(Protocol):
    """What needs computer algebra."""

    def equal(self, a: Node, b: Node, ratio: Fraction, /) -> bool:
        """Whether a is ratio times b."""
        ...

    def constant_apart(self, a: Node, b: Node, /) -> bool:
        """Whether a is b plus a constant."""
        ...

    def proportional(self, a: Node, b: Node, positive: bool, /) -> bool:
        """Whether a is a constant times b; the constant is above zero if `positive`."""
        ...

    def same_points(self, a: Region, b: Region, /) -> bool:
        """Whether two regions hold the same numbers."""
        ...

    def same_pieces(self, a: Pieces, b: Pieces, /) -> bool:
        """Whether two functions whose pieces belong to regions are the same."""
        ...


class Unasked:
    """Leaves that leave everything to the worker."""

    def equal(self, _a: Node, _b: Node, _ratio: Fraction, /) -> bool:
        raise Undecided

    def constant_apart(self, _a: Node, _b: Node, /) -> bool:
        raise Undecided

    def proportional(self, _a: Node, _b: Node, _positive: bool, /) -> bool:
        raise Undecided

    def same_points(self, _a: Region, _b: Region, /) -> bool:
        raise Undecided

    def same_pieces(self, _a: Pieces, _b: Pieces, /) -> bool:
        raise Undecided


@dataclass(frozen=True)
class Equality:
    """The comparison of readings over some leaves."""

    leaves: Leaves

    def same(self, a: Reading, b: Reading) -> bool:
        """Whether the two are the same answer. Raises Undecided if the leaves do, and TooLarge."""
        if isinstance(a, False_) or isinstance(b, False_):
            return False
        if a == b:
            return True
        a, b = linked(a, b) or a, linked(b, a) or b
        a, b = as_product(a, b), as_product(b, a)
        if isinstance(a, Named) or isinstance(b, Named):
            return self._named(a, b)
        if isinstance(a, Pieces) or isinstance(b, Pieces):
            return self._pieces(a, b)
        if isinstance(a, Region) or isinstance(b, Region):
            return self._regions(as_region(a), as_region(b))
        if isinstance(a, Vector) or isinstance(b, Vector):
            return self._vectors(a, b)
        if isinstance(a, Quantity) and isinstance(b, Quantity):
            return self._quantities(a, b)
        if isinstance(a, Group) and isinstance(b, Group):
            return self._groups(a, b)
        if (several := _alternatives(a) or _alternatives(b)) is not None:
            single = b if _alternatives(a) else a
            return all(self.same(one, single) for one in several)
        if (pair := decimal_comma(a, b)) is not None:
            return self._quantities(*pair)
        if isinstance(a, Relation) or isinstance(b, Relation):
            return self._related(a, b)
        if isinstance(a, Matrix) or isinstance(b, Matrix):
            return self._matrices(a, b)
        if isinstance(a, Clock) or isinstance(b, Clock):
            return same_time(a, b) or same_time(b, a)
        if isinstance(a, Measure) or isinstance(b, Measure):
            return self._measures(a, b)
        if isinstance(a, Based) or isinstance(b, Based):
            return based(a, b) or based(b, a)
        return False

    def equal(self, a: Node, b: Node, ratio: Fraction = Fraction(1)) -> bool:
        """Whether a is ratio times b, by the rule for numbers."""
        if a == b and ratio == 1:
            return True
        ends = constant_in(a), constant_in(b)
        if ratio == 1 and "C" in ends and None not in ends:
            return self.leaves.constant_apart(a, renamed(b, ends[1] or "", ends[0] or ""))
        periods = period_in(a), period_in(b)
        if ratio == 1 and None not in periods and periods[0] != periods[1]:
            b = renamed(b, periods[1] or "", periods[0] or "")
        if (named := figure(a) or figure(b)) and named in (letters(a), letters(b)):
            return ratio == 1
        x, y = value(a), value(b)
        if x is None or y is None:
            spoken = _in_thousands(a) if y is not None else _in_thousands(b) if x is not None else None
            if ratio == 1 and spoken is not None and spoken == (x if y is None else y):
                return True
            return self.leaves.equal(a, b, ratio)
        return x == ratio * y or agrees(a, x, b, ratio * y) or agrees(b, y, a, x / ratio)

    def _named(self, a: Reading, b: Reading) -> bool:
        if isinstance(a, Named) and isinstance(b, Named):
            if a.name == b.name or {a.name, b.name} == {"y", "f(x)"}:
                return self.same(a.what, b.what)
            if (mended := _same_argument(a, b)) is not None:
                return self.same(a.what, mended)
            one, other = _as_relation(a), _as_relation(b)
            return one is not None and other is not None and self._relations(one, other)
        named, other_side = (a, b) if isinstance(a, Named) else (b, a)
        assert isinstance(named, Named)
        if (
            isinstance(other_side, Relation)
            and (relation := _as_relation(named))
            and not _is_residue(other_side)
        ):
            return self._relations(relation, other_side)
        if (
            isinstance(other_side, Quantity)
            and named.name[0] == "("
            and other_side.node.text == named.name.strip("()")
        ):
            return True  # (C) 12 is the choice C, and 12
        if isinstance(other_side, Words) or (isinstance(other_side, Group) and _names(other_side)):
            return False
        return self.same(named.what, other_side)

    def _quantities(self, a: Quantity, b: Quantity) -> bool:
        s, t = a.tail, b.tail
        if s.percent != t.percent and (s.unit.dimensions or t.unit.dimensions):
            return False
        ratio = t.multiplier / s.multiplier
        if (angles := angles_of(a, b)) is not None:
            return self.equal(*angles) or (
                not (s.unit.dimensions and t.unit.dimensions) and self.equal(a.node, b.node, ratio)
            )
        if s.unit.dimensions and t.unit.dimensions:
            if s.unit.dimensions != t.unit.dimensions and not may_be_same(s, t):
                return False
            if not is_temperature(s, t):
                ratio *= t.unit.factor / s.unit.factor
        if s.percent == t.percent:
            return self.equal(a.node, b.node, ratio)
        hundredth = Fraction(1, 100) if t.percent else Fraction(100)
        return self._any_of(a.node, b.node, (ratio, ratio * hundredth))

    def _any_of(self, a: Node, b: Node, ratios: Sequence[Fraction]) -> bool:
        return any(self.equal(a, b, ratio) for ratio in ratios)

    def _groups(self, a: Group, b: Group) -> bool:
        if a.kind == b.kind == ":":
            if "time" in (a.join, b.join):
                return self._in_order(a.items, b.items)
            return len(a.items) == len(b.items) and self._in_proportion(a.items, b.items)
        if {a.kind, b.kind} <= {",", "{", "="}:
            one, other = _names(a), _names(b)
            if "{" in (a.kind, b.kind):
                if "=" in (a.kind, b.kind):
                    return False
                return self._same_members(a.items, b.items)
            named, plain = (a, b) if one else (b, a)
            if (one is None) != (other is None) and not any(isinstance(i, Named) for i in plain.items):
                return self._in_order(_by_name(named), plain.items)  # x = 1, y = 2 beside 1, 2
            if (one is None) != (other is None) and len(_names(named) or ()) > 1:
                return False  # x = 1, 2 are two values of x, and not x = 1, y = 2
            return not _other_join(a, b) and self._paired(a.items, b.items)
        for named, plain in ((a, b), (b, a)):
            if _names(named) and plain.kind in ("()", "[]"):
                return self._in_order(_by_name(named), plain.items)
        bare = {a.kind, b.kind} <= {",", "()", "[]"} and len(a.items) > 2  # neither pairs nor intervals
        return (a.kind == b.kind or bare) and self._in_order(a.items, b.items)

    def _in_order(self, a: Sequence[Reading], b: Sequence[Reading]) -> bool:
        return len(a) == len(b) and all(self.same(x, y) for x, y in zip(a, b, strict=True))

    def _in_proportion(self, a: Sequence[Reading], b: Sequence[Reading]) -> bool:
        first, other = a[0], b[0]
        for x, y in zip(a[1:], b[1:], strict=True):
            nodes = [item.node for item in (first, x, other, y) if isinstance(item, Quantity)]
            if len(nodes) < 4 or not self.equal(
                Node("mul", (nodes[0], nodes[3])), Node("mul", (nodes[1], nodes[2]))
            ):
                return False
        return True

    def _paired(self, a: Sequence[Reading], b: Sequence[Reading], same: Same | None = None) -> bool:
        """Whether each item of one list has a counterpart of its own in the other."""
        left = list(b)
        if len(a) != len(b):
            return False
        for item in a:
            like = self._like(item, left, same or self.same)
            if like is None:
                return False
            left.pop(like)
        return True

    def _like(self, item: Reading, among: Sequence[Reading], same: Same) -> int | None:
        if item in among:
            return among.index(item)
        undecided = False
        for i, other in enumerate(among):
            try:
                if same(item, other):
                    return i
            except Undecided:
                undecided = True
        if undecided:
            raise Undecided
        return None

    def _same_members(self, a: Sequence[Reading], b: Sequence[Reading]) -> bool:
        """Whether two sets are equal. Each member has a counterpart of its own, because HT and TH may be two
        outcomes as well as one product.
        """
        one, other = list(dict.fromkeys(a)), list(dict.fromkeys(b))
        same = self._same_outcome if any(map(is_double, (*one, *other))) else self._same_member
        if len(one) != len(other):
            one, other = self._distinct(one, same), self._distinct(other, same)
        return self._paired(one, other, same)

    def _distinct(self, items: Sequence[Reading], same: Same) -> list[Reading]:
        """The items without those that an earlier one equals; products of letters may be words, and stay."""
        found: list[Reading] = []
        for item in items:
            others = [other for other in found if not (is_product(item) and is_product(other))]
            if self._like(item, others, same) is None:
                found.append(item)
        return found

    def _same_member(self, a: Reading, b: Reading) -> bool:
        """Inside a set, a number is not the set of this number."""
        return is_set(a) == is_set(b) and self.same(a, b)

    def _same_outcome(self, a: Reading, b: Reading) -> bool:
        """Beside HH, HT is a word: its letters have an order."""
        return a == b if is_product(a) and is_product(b) else self._same_member(a, b)

    def _regions(self, a: Region | None, b: Region | None) -> bool:
        if a is None or b is None or (a.name and b.name and a.name != b.name):
            return False
        if len(a.parts) == len(b.parts) and a.is_union and b.is_union:
            one, other = _intervals(a), _intervals(b)
            alike = len(one) == len(other) == len(a.parts) and self._same_intervals(one, other)
            if alike or len(one) == len(other) == len(a.parts) == 1:
                return alike
        return self.leaves.same_points(a, b)

    def _same_intervals(self, a: list[Interval], b: list[Interval]) -> bool:
        """Whether each interval of one union is one of the other; the ends may be irrational."""
        left = list(b)
        for one in a:
            like = next((other for other in left if self._same_interval(one, other)), None)
            if like is None:
                return False
            left.remove(like)
        return True

    def _same_interval(self, a: Interval, b: Interval) -> bool:
        flags = (a.with_low, a.with_high) == (b.with_low, b.with_high)
        return flags and self.equal(a.low, b.low) and self.equal(a.high, b.high)

    def _pieces(self, a: Reading, b: Reading) -> bool:
        """Functions by their pieces; a plain one has one piece."""
        one, other = _as_pieces(a), _as_pieces(b)
        if one is None or other is None:
            return False
        if by_numbers(one) or by_numbers(other):
            plain = [pieces for pieces in (one, other) if not by_numbers(pieces)]
            comparable = all(len(pieces.items) == 1 for pieces in plain)
            return comparable and self.leaves.same_pieces(one, other)
        left = list(other.items)
        for piece in one.items:
            like = next((p for p in left if p.when == piece.when and self.same(p.value, piece.value)), None)
            if like is None:
                return False
            left.remove(like)
        return not left

    def _related(self, a: Reading, b: Reading) -> bool:
        if isinstance(a, Relation) and isinstance(b, Relation):
            return self._relations(a, b)
        relation, other = (a, b) if isinstance(a, Relation) else (b, a)
        asked = value_of_terms(relation) if isinstance(relation, Relation) else None
        return asked is not None and isinstance(other, Quantity) and self._quantities(Quantity(asked), other)

    def _relations(self, a: Relation, b: Relation) -> bool:
        if a.sign != b.sign:
            return False
        if a.sign.startswith("mod "):
            return self._congruent(a.node, b.node, Fraction(a.sign[4:]))
        if not (has_symbol(a.node) or has_symbol(b.node)):
            return self._same_sides(a, b)
        return self.leaves.proportional(a.node, b.node, a.sign in ("<", "<="))

    def _same_sides(self, a: Relation, b: Relation) -> bool:
        """Whether two statements about numbers say the same: all true ones would be equivalent, 2 < 3 and
        3 < 4.
        """
        (left, right), (low, high) = _sides(a), _sides(b)
        if self.equal(left, low) and self.equal(right, high):
            return True
        return a.sign in ("=", "!=") and self.equal(left, high) and self.equal(right, low)

    def _congruent(self, a: Node, b: Node, modulus: Fraction) -> bool:
        x, y = value(a), value(b)
        if x is not None and y is not None:
            return (x - y) % modulus == 0
        return self.leaves.equal(a, b, Fraction(1))

    def _vectors(self, a: Reading, b: Reading) -> bool:
        """A vector against a column, or against another sum of i, j and k, whose letters may be plain."""
        if isinstance(a, Vector) and isinstance(b, Vector):
            nothing = Quantity(number(0))
            pairs = zip_longest(a.components, b.components, fillvalue=nothing)
            return all(self._quantities(x, y) for x, y in pairs)
        vector, other = (a, b) if isinstance(a, Vector) else (b, a)
        if not isinstance(vector, Vector):
            return False
        if isinstance(other, Quantity):
            plain = not any(symbols(one.node) & _UNIT_LETTERS for one in vector.components)
            several = len(symbols(other.node) & _UNIT_LETTERS) > 1  # 3i alone may be imaginary
            return plain and several and self._quantities(vector.plain, other)
        if isinstance(other, Group):
            return other.kind == "()" and self._in_order(vector.components, other.items)
        return self._matrices(vector, other)

    def _matrices(self, a: Reading, b: Reading) -> bool:
        one, other = rows_of(a), rows_of(b)
        if one is None or other is None or [len(row) for row in one] != [len(row) for row in other]:
            return False
        pairs = zip((x for row in one for x in row), (y for row in other for y in row), strict=True)
        return all(self.equal(x, y) for x, y in pairs)

    def _measures(self, a: Reading, b: Reading) -> bool:
        return same_amount(a, b)


def _alternatives(reading: Reading) -> tuple[Reading, ...] | None:
    """The parts of `1/2 or 0.5`, each of which must be the other answer; None for anything else."""
    if not isinstance(reading, Group) or reading.join != "or":
        return None
    return reading.items if all(isinstance(item, Quantity) for item in reading.items) else None


def _intervals(region: Region) -> list[Interval]:
    return [part for part in region.parts if isinstance(part, Interval)]


def agrees(decimal: Node, x: Fraction, other: Node, y: Fraction) -> bool:
    """Whether the decimal is the other number, itself no decimal, rounded or cut to at least MIN_DIGITS
    digits.

    These are significant digits; digits beyond those that a float holds do not count.
    """
    found = digits(decimal)
    if found is None or found[0] < MIN_DIGITS or digits(other) is not None:
        return False
    return rounds_to(x, found[1] + max(0, found[0] - FLOAT_DIGITS), y)


def _in_thousands(node: Node) -> Fraction | None:
    """The number that `5k` and `5M` may stand for."""
    if node.kind != "mul" or node.parts[0].kind != "num" or node.parts[1].kind != "sym":
        return None
    size, first = {"k": 1000, "K": 1000, "M": 10**6}.get(node.parts[1].text), value(node.parts[0])
    return first * size if size and first is not None else None


def _same_argument(a: Named, b: Named) -> Quantity | None:
    """The value of b, written in the letter of a, as for `f(t) = 2t + 1` and `f(x) = 2x + 1`."""
    one, other = (re.fullmatch(r"([A-Za-z]'*)\(([a-z])\)", named.name) for named in (a, b))
    if not one or not other or one[1] != other[1] or not isinstance(b.what, Quantity):
        return None
    if mentions(b.what.node, one[2]):
        return None
    return replace(b.what, node=renamed(b.what.node, other[2], one[2]))


def _as_relation(named: Named) -> Relation | None:
    what = named.what.plain if isinstance(named.what, Vector) else named.what
    if named.tree is None or not isinstance(what, Quantity) or what.tail != Tail():
        return None
    return Relation("=", Node("add", (named.tree, Node("neg", (what.node,)))))


def _sides(relation: Relation) -> tuple[Node, Node]:
    left, right = relation.node.parts
    return left, right.parts[0]


def _is_residue(relation: Relation) -> bool:
    return relation.sign.startswith("mod ")


def _as_pieces(reading: Reading) -> Pieces | None:
    if isinstance(reading, Quantity) and reading.tail == Tail():
        return Pieces((Piece(reading, None),))
    return reading if isinstance(reading, Pieces) else None


def _names(group: Group) -> list[str] | None:
    """The names of `x = 1, y = 2`, all different; None for any other group."""
    names = [item.name for item in group.items if isinstance(item, Named)]
    return names if len(names) == len(group.items) > 1 and len(set(names)) == len(names) else None


def _by_name(group: Group) -> list[Reading]:
    named = [item for item in group.items if isinstance(item, Named)]
    if any(item.tree is None for item in named):  # labels in words have no order
        return [item.what for item in named]
    return [item.what for item in sorted(named, key=lambda item: _rank(item.name))]


def _rank(name: str) -> tuple[int, str]:
    r"""The place of a name in a tuple: Greek letters last, but `(\rho, \theta)` and `(r, \theta, z)`."""
    plain = name.lstrip("\\")
    if plain == name:
        return (2 if name == "z" else 0), name
    return (-1 if plain == "rho" else 1), f"{GREEK_ORDER.get(plain, 99):02}{plain}"


def _other_join(a: Group, b: Group) -> bool:
    """Whether one list says `or` and the other does not, for words or different unknowns."""
    words = any(
        isinstance(item, Words) or (isinstance(item, Quantity) and item.node.kind == "sym")
        for item in (*a.items, *b.items)
    )
    unknowns = {item.name for item in (*a.items, *b.items) if isinstance(item, Named)}
    return (words or len(unknowns) > 1) and ("or" in (a.join, b.join)) and a.join != b.join
