r"""Vectors in unit vectors: `3\mathbf{i} + 4\mathbf{j}` is (3, 4).

A letter is a unit vector only if it is marked as one and occurs with another one: a bold i alone may be the
imaginary unit, and 3i + 4j in plain letters may be anything. spelling.py writes a bold letter as `\unit {i}`.
"""

from __future__ import annotations

import re

from a2r_train.verify.expression import Node, Unreadable, number, parse
from a2r_train.verify.kinds import Quantity, Vector
from a2r_train.verify.quantities import read_quantity, without_tail

LETTERS = "ijk"
BOLD = r"\unit "
_MARK = re.compile(r"\\(?:unit|hat|vec) ?\{([ijk])\}")
# Makes the cosine in `\cos t \hat {i}` that of t alone.
_BEHIND_FACTOR = re.compile(rf"(?<=[A-Za-z0-9)}}|!]) ?(?={_MARK.pattern})")
_TWICE = re.compile(r"\\cdot ?\\cdot ")
_NONE, _ONE = number(0), number(1)


def read_vector(text: str) -> Vector | None:
    """A sum over two or three different unit vectors; the last one determines the number of components."""
    if ("{j}" not in text and "{k}" not in text) or len(set(_MARK.findall(text))) < 2:
        return None
    try:
        plain = read_quantity(_MARK.sub(r" {\1}", text))
        marked = _TWICE.sub(r"\\cdot ", _BEHIND_FACTOR.sub(r"\\cdot ", without_tail(text)))
        found = _coefficients(parse(_MARK.sub(r"\\hat {\1}", marked)))
    except Unreadable:
        return None
    if len(found) < 2 or not isinstance(plain, Quantity):
        return None
    nodes = [found.get(letter, _NONE) for letter in LETTERS[: _last(found) + 1]]
    return Vector(tuple(Quantity(node, plain.tail) for node in nodes), plain)


def _last(found: dict[str, Node]) -> int:
    return max(map(LETTERS.index, found))


def _coefficients(node: Node) -> dict[str, Node]:
    """The coefficient of each unit vector. Raises Unreadable unless it is a sum of their multiples."""
    if letter := _letter(node):
        return {letter: _ONE}
    if node.kind == "neg":
        return {letter: Node("neg", (x,)) for letter, x in _coefficients(node.parts[0]).items()}
    if node.kind == "add":
        terms = [_coefficients(part) for part in node.parts]
        return {
            letter: _sum([term[letter] for term in terms if letter in term])
            for letter in LETTERS
            if any(letter in term for term in terms)
        }
    if node.kind == "div" and not _has_letter(node.parts[1]):
        return {at: Node("div", (x, node.parts[1])) for at, x in _coefficients(node.parts[0]).items()}
    if node.kind == "mul":
        scalars = [part for part in node.parts if not _has_letter(part)]
        vectors = [part for part in node.parts if _has_letter(part)]
        if len(scalars) == len(vectors) == 1:
            return {at: _times(scalars[0], x) for at, x in _coefficients(vectors[0]).items()}
    raise Unreadable("no sum of unit vectors")


def _sum(terms: list[Node]) -> Node:
    return terms[0] if len(terms) == 1 else Node("add", tuple(terms))


def _times(scalar: Node, x: Node) -> Node:
    return scalar if x == _ONE else Node("mul", (scalar, x))


def _letter(node: Node) -> str:
    name = node.text.removeprefix(r"\hat ") if node.kind == "sym" else ""
    return name if name != node.text and name in LETTERS else ""


def _has_letter(node: Node) -> bool:
    return bool(_letter(node)) or any(map(_has_letter, node.parts))
