"""Matrices and columns: their sums, products and transposes, and what else is written for them."""

from __future__ import annotations

import re
from collections.abc import Callable

from a2r_train.verify.expression import Node, number, parse
from a2r_train.verify.kinds import Group, Matrix, Quantity, Reading, Vector

_TRANSPOSE = re.compile(r"(.*[)\]}]) ?\^(?: ?\{)* ?(?:T|\\top|\\intercal) ?(?:\} ?)*")
_MATRIX = re.compile(r"\\begin ?\{([pbBs]?(?:mall)?matrix|array)\}")
_MOST_NODES = 4000  # of a product
Rows = tuple[tuple[Node, ...], ...]


def read_matrix(text: str) -> Reading | None:
    """A matrix, or a sum, product or power of matrices; None for anything else."""
    if not _MATRIX.search(text):
        return None
    found = _combined(parse(text))
    return Matrix(found) if found else None


def _combined(node: Node) -> Rows | None:
    """The rows of a tree whose value is a matrix; None for a number, and for what is not defined."""
    if node.kind == "matrix":
        return tuple(row.parts for row in node.parts)
    found = [_combined(part) for part in node.parts]
    known = [rows for rows in found if rows]
    if node.kind == "neg" and known:
        return _scaled(number(-1), known[0])
    if node.kind == "add" and len(known) == len(found):
        return _sum(known)
    if node.kind == "mul" and len(known) == 2:
        return _product(*known)
    if node.kind == "mul" and known:
        return _scaled(node.parts[1] if found[0] else node.parts[0], known[0])
    if node.kind == "div" and found[0] and not found[1]:
        return _scaled(Node("div", (number(1), node.parts[1])), found[0])
    if node.kind == "pow" and found[0] and re.fullmatch(r"\d\d?", node.parts[1].text):
        return _power(found[0], int(node.parts[1].text))
    return None


def _scaled(factor: Node, rows: Rows) -> Rows:
    return tuple(tuple(Node("mul", (factor, entry)) for entry in row) for row in rows)


def _sum(terms: list[Rows]) -> Rows | None:
    first = terms[0]
    if any([len(row) for row in rows] != [len(row) for row in first] for rows in terms):
        return None
    return tuple(
        tuple(Node("add", tuple(rows[i][j] for rows in terms)) for j in range(len(row)))
        for i, row in enumerate(first)
    )


def _product(a: Rows, b: Rows) -> Rows | None:
    """Their product, but no larger than trees may be, because each factor multiplies their size."""
    if len(a[0]) != len(b) or len(a) * _size(b) + len(b[0]) * _size(a) > _MOST_NODES:
        return None
    return tuple(
        tuple(
            Node("add", tuple(Node("mul", (row[k], b[k][j])) for k in range(len(b))))
            for j in range(len(b[0]))
        )
        for row in a
    )


def _size(rows: Rows) -> int:
    return sum(_nodes(entry) for row in rows for entry in row)


def _nodes(node: Node) -> int:
    return 1 + sum(map(_nodes, node.parts))


def _power(rows: Rows, exponent: int) -> Rows | None:
    found: Rows | None = rows if exponent else None
    for _ in range(exponent - 1):
        if not (found := _product(found, rows) if found else None):
            return None
    return found


def read_transpose(text: str, read: Callable[[str], Reading]) -> Reading | None:
    """The columns of `(1, 2)^T` and of a matrix; None for anything else."""
    match = _TRANSPOSE.fullmatch(text)
    if not match:
        return None
    found = read(match[1])
    if isinstance(found, Group) and found.kind in ("()", "[]"):
        nodes = tuple((item.node,) for item in found.items if isinstance(item, Quantity))
        return Matrix(nodes) if len(nodes) == len(found.items) else None
    return Matrix(tuple(zip(*found.rows, strict=True))) if isinstance(found, Matrix) else None


def rows_of(reading: Reading) -> tuple[tuple[Node, ...], ...] | None:
    """The rows of a matrix; a tuple is a column, as is a sum of unit vectors; `[[1, 2], [3, 4]]` has rows."""
    if isinstance(reading, Vector):
        return tuple((component.node,) for component in reading.components)
    if isinstance(reading, Matrix):
        return reading.rows
    if not isinstance(reading, Group):
        return None
    if reading.kind == "()":
        column = _entries(reading)
        return tuple((node,) for node in column) if column else None
    rows = [_entries(row) for row in reading.items if isinstance(row, Group) and row.kind == "[]"]
    found = tuple(row for row in rows if row)
    return found if reading.kind == "[]" and len(found) == len(reading.items) else None


def _entries(group: Group) -> tuple[Node, ...] | None:
    nodes = tuple(item.node for item in group.items if isinstance(item, Quantity))
    return nodes if len(nodes) == len(group.items) else None
