"""Inequalities as regions: those linear in one unknown are solved, and several in one unknown are joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from a2r_train.verify.exact import approximation, value
from a2r_train.verify.expression import Node, number
from a2r_train.verify.kinds import (
    INFINITY,
    MINUS_INFINITY,
    REALS,
    Group,
    Interval,
    Named,
    Quantity,
    Reading,
    Region,
    has_symbol,
    points_in,
)
from a2r_train.verify.naming import NAME

_SIGNS = re.compile(r"\\[gl]e(?![A-Za-z])|[<>]")
_UNKNOWNS, _LIMITS = ("x", "y", "z", "t"), ("a", "b", "c", "d")  # of `a < x < b`
NEAR = 1e-9  # relative to their size: irrational numbers that are nearer than this may be equal
_CONSTANTS = ("\\pi", "e", "i", "\\infty")


def solved(left: Node, right: Node, sign: str) -> Region | None:
    r"""The region of `2x < 6`, `-x \ge 3`, `|x - 2| < 3`; None unless it is linear in one unknown.

    The sign is `<`, `>`, `\le` or `\ge`.
    """
    if sign in ("<", r"\le"):
        left, right = right, left
    closed = sign in (r"\le", r"\ge")  # from here on, left is above right
    if left.kind == "abs" or right.kind == "abs":
        return _absolute(left, right, closed)
    names = sorted(_symbols(left) | _symbols(right))
    if len(names) != 1:
        return None
    one, other = linear(left, names[0]), linear(right, names[0])
    if one is None or other is None or one[0] == other[0]:
        return None
    slope, bound = one[0] - other[0], Fraction(other[1] - one[1]) / (one[0] - other[0])
    end = fraction(bound)
    above = Interval(end, INFINITY, closed, False)
    return Region((above if slope > 0 else Interval(MINUS_INFINITY, end, False, closed),), (), names[0])


def _absolute(left: Node, right: Node, closed: bool) -> Region | None:
    """The region where left is above right, one of them an absolute value, the other a number above zero."""
    inside, outer = (right.parts[0], left) if right.kind == "abs" else (left.parts[0], right)
    names = sorted(_symbols(inside))
    found = linear(inside, names[0]) if len(names) == 1 else None
    if found is None or not found[0] or has_symbol(outer) or not is_below(number(0), outer):
        return None
    low, high = _ends(outer, *found)
    if right.kind == "abs":
        return Region((Interval(low, high, closed, closed),), (), names[0])
    below, above = Interval(MINUS_INFINITY, low, False, closed), Interval(high, INFINITY, closed, False)
    return Region((below, above), (), names[0])


def _ends(limit: Node, slope: Fraction, shift: Fraction) -> tuple[Node, Node]:
    """Where `slope x + shift` is minus and plus a limit above zero; the smaller one first."""
    exact = value(limit)
    if exact is not None:
        first, second = sorted(((exact - shift) / slope, (-exact - shift) / slope))
        return fraction(first), fraction(second)
    middle = fraction(-shift / slope)
    width = limit if abs(slope) == 1 else Node("div", (limit, fraction(abs(slope))))
    low, high = Node("neg", (width,)), width
    return (Node("add", (middle, low)), Node("add", (middle, high))) if shift else (low, high)


def linear(node: Node, name: str) -> tuple[Fraction, Fraction] | None:
    """Slope and constant of a tree that is linear in a symbol with rational numbers; None for any other."""
    exact = value(node)
    if exact is not None:
        return Fraction(0), exact
    if node.kind == "sym":
        return (Fraction(1), Fraction(0)) if node.text == name else None
    parts = (
        [linear(part, name) for part in node.parts] if node.kind in ("add", "neg", "mul", "div") else [None]
    )
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if node.kind == "add":
        return sum((a for a, _ in known), Fraction(0)), sum((b for _, b in known), Fraction(0))
    if node.kind == "neg":
        return -known[0][0], -known[0][1]
    (a, b), (c, d) = known
    if node.kind == "div":
        return (a / d, b / d) if not c and d else None
    return (a * d + c * b, b * d) if not (a and c) else None


def ray(sides: list[str], trees: list[Node], signs: list[str]) -> Region | None:
    """The region of `x < 3`, `3 >= x`, `1 < x <= 3`, `x != 0`, and of `a < x < b`."""
    at = next((i for i, side in enumerate(sides) if NAME.fullmatch(side) and '"' not in side), -1)
    is_middle = len(sides) == 3 and sides[1].strip() in _UNKNOWNS
    at = 1 if is_middle else at
    others = [tree for i, tree in enumerate(trees) if i != at]
    if at < 0 or any(has_symbol(tree) and not (is_middle and tree.text in _LIMITS) for tree in others):
        return None
    if signs == [r"\ne"]:
        return Region(REALS.parts, (others[0],), sides[at])
    low, high, with_low, with_high = MINUS_INFINITY, INFINITY, False, False
    for i, sign in enumerate(signs):
        if sign not in ("<", ">", r"\le", r"\ge") or at not in (i, i + 1):
            return None
        bound, closed = trees[i + 1 if at == i else i], sign in (r"\le", r"\ge")
        if (at == i) == (sign in ("<", r"\le")):
            high, with_high = bound, closed
        else:
            low, with_low = bound, closed
    if len(signs) == 2 and low == MINUS_INFINITY and high == INFINITY:
        return None
    return Region((Interval(low, high, with_low, with_high),), (), sides[at])


def combined(items: Sequence[Reading], separators: Sequence[str]) -> Region | None:
    r"""The one region that several answers in one unknown are: `x > 1 and x < 3`, `x = 1 or x > 3`,
    `x \ne 1, 2`; None for anything else.
    """
    if found := _more_holes(items):
        return found
    regions = [item for item in items if isinstance(item, Region)]
    said = set(separators)
    if '"or"' in said:
        is_list = set(separators[:-1]) <= {","} and separators[-1] == '"or"'  # a, b or c
        return _alternatives(items) if is_list or len(said) == 1 else None
    if len(regions) < len(items):
        return _alternatives(items) if said == {","} and _are_apart(items) else None
    return _overlap(regions) if said == {'"and"'} else joined(regions)


def _more_holes(items: Sequence[Reading]) -> Region | None:
    r"""`x \ne 1, 2`, whose second number is excluded too."""
    first, *others = items
    more = [points_in(item) for item in others]
    known = [point for points in more if points for point in points]
    if not isinstance(first, Region) or not (first.name and first.without) or first.parts != REALS.parts:
        return None
    if None in more or any(has_symbol(point) for point in known):
        return None
    return replace(first, without=(*first.without, *known))


def _alternatives(items: Sequence[Reading]) -> Region | None:
    """The union of regions and of points, as in `x = 1 or x > 3`."""
    regions = [item for item in items if isinstance(item, Region)]
    if not regions or len({item.name for item in items if isinstance(item, Region | Named)}) > 1:
        return None
    parts: list[Interval | Group] = []
    for item in items:
        if isinstance(item, Region) and item.is_union:
            parts += item.parts
        elif isinstance(item, Named) and (points := points_in(item.what)):
            parts.append(Group("{", tuple(map(Quantity, points))))
        else:
            return None
    return Region(tuple(parts), (), regions[0].name)


def _are_apart(items: Sequence[Reading]) -> bool:
    """Whether no named point can lie in an interval, so that a comma between them means `or`."""
    points = [points_in(item.what) for item in items if isinstance(item, Named)]
    parts = [part for item in items if isinstance(item, Region) for part in item.parts]
    return all(
        found is not None and isinstance(part, Interval) and _is_outside(point, part)
        for found in points
        for point in found or ()
        for part in parts
    )


def _is_outside(point: Node, part: Interval) -> bool:
    below = part.low != MINUS_INFINITY and (point == part.low or is_below(point, part.low) is True)
    above = part.high != INFINITY and (point == part.high or is_below(part.high, point) is True)
    return below or above


def _overlap(regions: Sequence[Region]) -> Region | None:
    """What lies in all of several regions: an interval for two rays that meet."""
    if len({region.name for region in regions}) > 1 or not regions[0].name:
        return None
    first, *others = regions
    if len(others) == 1 and all(region.is_union for region in regions):
        up, down = _rays([part for region in regions for part in region.parts])
        if up and down and len(first.parts) == len(others[0].parts) == 1 and is_below(up.low, down.high):
            return replace(first, parts=(_between(up, down),))
    return replace(first, within=(*first.within, *others))


def joined(regions: Sequence[Region]) -> Region | None:
    r"""What `x < 1, x > 3` and `1 < x, x < 3` and `x \ge 2, x \ne 5` mean: rays that do not meet are
    alternatives, rays that do meet hold together. None for anything else."""
    if len({region.name for region in regions}) != 1 or not regions[0].name:
        return None
    holes = tuple(point for region in regions if region.parts == REALS.parts for point in region.without)
    rest = [region for region in regions if region.parts != REALS.parts]
    if not all(region.is_union for region in rest) or any(region.within for region in regions):
        return None
    if len(rest) < 2:
        return replace(rest[0] if rest else regions[0], without=holes)
    up, down = _rays([part for region in rest for part in region.parts])
    if len(rest) > 2 or any(len(region.parts) > 1 for region in rest) or not up or not down:
        return None
    meet = is_below(up.low, down.high)
    if meet is None:
        return None
    return replace(rest[0], parts=(_between(up, down),) if meet else (down, up), without=holes)


def _rays(parts: Sequence[Interval | Group]) -> tuple[Interval | None, Interval | None]:
    """The ray upwards and the ray downwards of two parts."""
    found = [part for part in parts if isinstance(part, Interval)]
    up = [part for part in found if part.high == INFINITY and part.low != MINUS_INFINITY]
    down = [part for part in found if part.low == MINUS_INFINITY and part.high != INFINITY]
    return (up[0], down[0]) if len(up) == len(down) == 1 else (None, None)


def _between(up: Interval, down: Interval) -> Interval:
    return Interval(up.low, down.high, up.with_low, down.with_high)


def is_below(low: Node, high: Node) -> bool | None:
    """Whether one number is smaller than another; None if they are equal, or nearly so and irrational."""
    x, y = value(low), value(high)
    if x is not None and y is not None:
        return None if x == y else x < y
    a, b = approximation(low), approximation(high)
    if a is None or b is None or abs(a - b) <= NEAR * max(abs(a), abs(b), 1):
        return None
    return a < b


def ascending(text: str) -> str:
    """`c > b > a` as `a < b < c`; any other text as it is."""
    signs = _SIGNS.findall(text)
    if len(signs) < 2 or not set(signs) <= {">", r"\ge"}:
        return text
    parts = [part.strip() for part in _SIGNS.split(text)]
    turned = ["<" if sign == ">" else r"\le " for sign in reversed(signs)]
    return "".join(part + sign for part, sign in zip(reversed(parts), [*turned, ""], strict=True))


def fraction(number_: Fraction) -> Node:
    """A rational number as a tree."""
    top = number(abs(number_.numerator))
    node = top if number_.denominator == 1 else Node("div", (top, number(number_.denominator)))
    return Node("neg", (node,)) if number_ < 0 else node


def _symbols(node: Node) -> set[str]:
    if node.kind in ("opaque", "call"):
        return {"", "?"}  # more than one unknown
    own = {node.text} if node.kind == "sym" and node.text not in _CONSTANTS else set()
    return own.union(*(_symbols(part) for part in node.parts))
