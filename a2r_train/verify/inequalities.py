"""Inequalities as regions: those linear in one unknown are solved, and several in one unknown are joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from a2r_train.verify.exact import value
from a2r_train.verify.expression import Node, number
from a2r_train.verify.kinds import INFINITY, MINUS_INFINITY, REALS, Interval, Region, has_symbol
from a2r_train.verify.naming import NAME

_SIGNS = re.compile(r"\\[gl]e(?![A-Za-z])|[<>]")
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
    limit, names = value(outer), sorted(_symbols(inside))
    found = linear(inside, names[0]) if len(names) == 1 else None
    if limit is None or limit <= 0 or found is None or not found[0]:
        return None
    slope, shift = found
    low, high = (fraction(end) for end in sorted(((limit - shift) / slope, (-limit - shift) / slope)))
    if right.kind == "abs":
        return Region((Interval(low, high, closed, closed),), (), names[0])
    below, above = Interval(MINUS_INFINITY, low, False, closed), Interval(high, INFINITY, closed, False)
    return Region((below, above), (), names[0])


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
    """The region of `x < 3`, `3 >= x`, `1 < x <= 3`, `x != 0`."""
    at = next((i for i, side in enumerate(sides) if NAME.fullmatch(side) and '"' not in side), -1)
    others = [tree for i, tree in enumerate(trees) if i != at]
    if at < 0 or any(has_symbol(tree) for tree in others):
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


def joined(regions: Sequence[Region]) -> Region | None:
    r"""What `x < 1, x > 3` and `1 < x, x < 3` and `x \ge 2, x \ne 5` mean: rays that do not meet are
    alternatives, rays that do meet hold together. None for anything else."""
    if len({region.name for region in regions}) != 1 or not regions[0].name:
        return None
    holes = [point for region in regions if region.parts == REALS.parts for point in region.without]
    rest = [region for region in regions if region.parts != REALS.parts]
    if holes and len(rest) == 1 and not rest[0].without:
        return replace(rest[0], without=tuple(holes))
    if holes or len(rest) != 2 or any(len(r.parts) != 1 or r.without for r in rest):
        return None
    parts = [part for region in rest for part in region.parts if isinstance(part, Interval)]
    up = [part for part in parts if part.high == INFINITY and part.low != MINUS_INFINITY]
    down = [part for part in parts if part.low == MINUS_INFINITY and part.high != INFINITY]
    if len(up) != 1 or len(down) != 1:
        return None
    low, high = value(up[0].low), value(down[0].high)
    if low is None or high is None or low == high:
        return None
    if high < low:
        return replace(regions[0], parts=(down[0], up[0]))
    both = Interval(up[0].low, down[0].high, up[0].with_low, down[0].with_high)
    return replace(regions[0], parts=(both,))


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
