r"""Chains of equations: `3 \cdot 5 = 15 "dollars"`, whose last part counts, and `x = y = 1`, where each name
has the value.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from a2r_train.verify.exact import value
from a2r_train.verify.expression import Node, Unreadable
from a2r_train.verify.kinds import False_, Group, Named, Quantity, Reading, Relation, Words, has_symbol
from a2r_train.verify.naming import called
from a2r_train.verify.quantities import read_quantity, read_sum, without_money
from a2r_train.verify.renaming import symbols

_ROWS = re.compile(
    r"(?:\\\{ ?)?\\begin ?\{(cases|aligned|array|align\*?|gathered|matrix)\}(?: ?\{[lcr| ]*\})?"
    r"(.*?)\\end ?\{\1\}"
)
_UNKNOWN = re.compile(r"(?:[A-Za-z]|\\[a-z]+ ?)(?:_(?:\w|\{\w+\}))?'*")  # no function of another one
_TERMS = set("abcdfghjklmnopqrstuvw")  # letters of numbers that are asked for, not of an unknown or a point
_CONSTANTS = {"e", "i", r"\pi", r"\infty", r"\emptyset"}


def holds(side: str, last: str) -> bool:
    """Whether a middle part of a chain may be right: false only if both values are known and differ."""
    try:
        a, b = read_quantity(side), read_quantity(last)
    except Unreadable:
        return True
    if not (isinstance(a, Quantity) and isinstance(b, Quantity)):
        return True
    x, y = value(a.node), value(b.node)
    return x is None or y is None or x == y


def named_parts(names: list[str], values: Reading, text: str) -> Reading:
    """`(x, y) = (1, 2)` as x = 1 and y = 2."""
    if not isinstance(values, Group) or len(values.items) != len(names) or len(set(names)) != len(names):
        raise Unreadable(text)
    items = zip(names, values.items, strict=True)
    return Group("=", tuple(Named(name, item, Node("sym", text=name)) for name, item in items))


def members(names: Reading, found: Reading, text: str) -> Reading:
    r"""`(x, y) \in \{(1, 2), (3, 4)\}` as x = 1, y = 2 and x = 3, y = 4."""
    if not isinstance(names, Group) or not isinstance(found, Group) or found.kind != "{":
        raise Unreadable(text)
    nodes = [item.node for item in names.items if isinstance(item, Quantity)]
    if len(nodes) < len(names.items) or any(node.kind != "sym" for node in nodes):
        raise Unreadable(text)
    items = [named_parts([node.text for node in nodes], item, text) for item in found.items]
    return items[0] if len(items) == 1 else Group("{", tuple(items))


def system(text: str) -> str:
    """The equations of a system, one in each row, as a list; "" for other rows, as those of a matrix."""
    match = _ROWS.fullmatch(text)
    rows = (
        [re.sub(r" ?& ?=|= ?& ?", "=", row).strip(" ,;") for row in match[2].split("\\\\")] if match else []
    )
    rows = [row for row in rows if row]
    is_system = len(rows) > 1 and all(row.count("=") == 1 and not re.search(r'[&,"]', row) for row in rows)
    return ", ".join(rows) if is_system else ""


def equal_names(names: list[str], last: Reading | None) -> Reading | None:
    """`x = y = 1` as x = 1 and y = 1; without a value, `a = b = c` in one order. None for anything else."""
    names = [name.strip() for name in names]
    if len(set(names)) < len(names) or not all(map(_is_unknown, names)):
        return None
    if last is None:
        return Words("=".join(sorted(names))) if len(names) > 2 else None
    return Group("=", tuple(called(name, last) for name in names), "=") if len(names) > 1 else None


def value_of_terms(equation: Relation) -> Node | None:
    """7 for `m+n = 7`, which says what an expression of several letters is; None for other equations, such as
    `2x = 14` and lines in x and y.
    """
    if equation.sign != "=" or equation.node.kind != "add" or len(equation.node.parts) != 2:
        return None
    left, right = equation.node.parts[0], equation.node.parts[1].parts[0]
    terms, result = (left, right) if has_symbol(left) else (right, left)
    names = symbols(terms)
    if len(names) < 2 or not names <= _TERMS or not _is_arithmetic(terms) or value(result) is None:
        return None
    return result


def _is_arithmetic(node: Node) -> bool:
    return node.kind in ("num", "sym", "add", "neg", "mul", "div") and all(map(_is_arithmetic, node.parts))


def _is_unknown(name: str) -> bool:
    return _UNKNOWN.fullmatch(name) is not None and name not in _CONSTANTS


def equal_amounts(sides: list[str], mark: str) -> Reading | None:
    r"""The last of `3 \cdot 5 = 15 "dollars"` and `60 "minutes" = 1 "hour"`; False_ if a part is another
    amount. None unless all are exact and at least one has a unit.
    """
    found = [_amount(without_money(side, mark)) for side in sides]
    known = [amount for amount in found if amount is not None]
    if len(known) < len(found):
        return None
    units = {one.tail.unit.dimensions for one in known if one.tail.unit.dimensions}
    if len(units) != 1 or any(one.tail.percent or one.tail.mark for one in known):
        return None
    last = known[-1]
    sizes = {_size(one) for one in known if one.tail.unit.dimensions}
    counts = {value(one.node) for one in known if one.tail.unit.dimensions}
    bare = {value(one.node) for one in known if not one.tail.unit.dimensions}
    if any(one.tail.multiplier != 1 for one in known) or not bare <= counts or len(sizes) != 1:
        return False_()
    return last if last.tail.unit.dimensions else replace(last, tail=known[0].tail)


def _amount(side: str) -> Quantity | None:
    try:
        found = read_sum(side) or read_quantity(side)
    except Unreadable:
        return None
    return found if isinstance(found, Quantity) and value(found.node) is not None else None


def _size(amount: Quantity) -> Fraction:
    return (value(amount.node) or Fraction(0)) * amount.tail.unit.factor
