"""Lists of answers: lists within them, names of their parts, and commas that may be those of decimals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from a2r_train.verify.expression import Node
from a2r_train.verify.kinds import Group, Named, Quantity, Reading
from a2r_train.verify.units import Tail

_WITH_POINTS = re.compile(r"[1-9]\d{0,2}\.\d{3}")  # more than one point is no list: see notation.py


def each_named(items: Sequence[Reading]) -> Sequence[Reading]:
    r"""`x = \pm 2, \pm 3` with each value of x by itself; other names have their values together."""
    names = {item.name for item in items if isinstance(item, Named)}
    if len(names) != 1 or all(isinstance(item, Named) for item in items):
        return items
    return [
        Group(",", tuple(replace(item, what=one) for one in item.what.items))
        if isinstance(item, Named) and isinstance(item.what, Group) and item.what.kind == ","
        else item
        for item in items
    ]


def flat(items: Sequence[Reading]) -> tuple[Reading, ...]:
    r"""The items with those of lists among them: `3, \pm 5` has three."""
    found: list[Reading] = []
    for item in items:
        parted = isinstance(item, Group) and (item.kind == "," or item.join == "=")
        found += item.items if isinstance(item, Group) and parted else (item,)
    return tuple(found)


def with_comma(items: tuple[Reading, ...]) -> Quantity | None:
    """`3,50 €` as 3.50 and `1.234,50` as 1234.50, which they may also be."""
    found = [item for item in items if isinstance(item, Quantity)]
    if len(found) < 2 or found[1].node.kind != "num":
        return None
    whole, decimals = found[0].node, found[1].node.text
    sign, size = ("-", whole.parts[0]) if whole.kind == "neg" else ("", whole)
    tails = [item.tail for item in found]
    digits = size.text.replace(".", "") if _WITH_POINTS.fullmatch(size.text) else size.text
    if size.kind != "num" or not (digits + decimals).isdigit() or Tail() not in tails:
        return None
    node = Node("num", text=f"{digits}.{decimals}")
    tail = tails[1] if tails[0] == Tail() else tails[0]
    return Quantity(Node("neg", (node,)) if sign else node, tail)
