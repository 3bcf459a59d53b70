r"""Functions by their pieces: `\begin{cases} x & x \ge 0 \\ -x & \text{otherwise} \end{cases}`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from a2r_train.verify.expression import Unreadable
from a2r_train.verify.kinds import (
    Group,
    Named,
    Piece,
    Pieces,
    Quantity,
    Reading,
    Region,
    Words,
    points_in,
)
from a2r_train.verify.naming import NAME, called
from a2r_train.verify.spelling import words_of
from a2r_train.verify.splitting import split
from a2r_train.verify.units import Tail

_ENVIRONMENT = re.compile(
    r"(?:(?P<name>[^=<>&]+?) ?= ?)?(?:\\\{ ?)?\\begin ?\{(?P<kind>cases|array)\}(?: ?\{[lcr| ]*\})?"
    r"(?P<rows>.*)\\end ?\{(?P=kind)\}"
)
_WHERE = re.compile(r'^[ ,;&]*(?:"(?:if|for|when|where)" ?)?')
_BEFORE_CONDITION = re.compile(r'(?P<value>.+?)[ ,]*(?="(?:if|for|when|where|otherwise|else)")')
_OTHERWISE = re.compile(r'"(?:otherwise|else|elsewhere)"', re.IGNORECASE)
_PARITY = re.compile(r"([a-z]) (?:is )?(?:an )?(even|odd)(?: integer)?")
_MOST_PIECES = 10
_OTHER_PARITY = {"even": "odd", "odd": "even"}


def read_piecewise(text: str, read: Callable[[str], Reading]) -> Reading | None:
    """The pieces of a function, and its name if there is one; None for anything else."""
    match = _ENVIRONMENT.fullmatch(text)
    if not match or (match["name"] and not NAME.fullmatch(match["name"])):
        return None
    rows = [row for row in match["rows"].split("\\\\") if row.strip(" ,;.")]
    try:
        pieces = Pieces(_with_parity([_piece(row, read) for row in rows]))
    except Unreadable:
        return None
    others = [piece for piece in pieces.items if piece.when is None]
    if not 2 <= len(pieces.items) <= _MOST_PIECES or len(others) > 1:
        return None
    return called(match["name"], pieces) if match["name"] else pieces


def _piece(row: str, read: Callable[[str], Reading]) -> Piece:
    value, condition = _parts(row)
    found = read(value)
    if not isinstance(found, Quantity) or found.tail != Tail():
        raise Unreadable(row)
    return Piece(found, _condition(condition, read))


def _parts(row: str) -> tuple[str, str]:
    """The value and the condition of one row. Raises Unreadable for a row of anything else."""
    value, sign, condition = row.partition("&")
    if not sign and (match := _BEFORE_CONDITION.match(row)):
        value, condition = match["value"], row[match.end() :]
    elif not sign:
        value, *rest = split(row, ",")[0]
        condition = ", ".join(rest)
    value, condition = value.strip(" ,;"), _WHERE.sub("", condition).strip(" ,;.&")
    if not value or not condition or '"' in value:
        raise Unreadable(row)
    return value, condition


def _condition(text: str, read: Callable[[str], Reading]) -> Reading | None:
    if _OTHERWISE.fullmatch(text):
        return None
    if parity := _PARITY.fullmatch(words_of(text)):
        return Words(f"{parity[1]} {parity[2]}")
    found = read(text)
    if isinstance(found, Named) and (points := points_in(found.what)):
        return Region((Group("{", tuple(map(Quantity, points))),), (), found.name)
    return found


def _with_parity(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Otherwise, beside `n even`, is `n odd`."""
    said = [piece.when.text for piece in pieces if isinstance(piece.when, Words)]
    if len(pieces) != 2 or len(said) != 1 or not (match := _PARITY.fullmatch(said[0])):
        return tuple(pieces)
    other = Words(f"{match[1]} {_OTHER_PARITY[match[2]]}")
    return tuple(replace(piece, when=other) if piece.when is None else piece for piece in pieces)


def by_numbers(pieces: Pieces) -> bool:
    """Whether its conditions are regions of one unknown."""
    regions = [piece.when for piece in pieces.items if isinstance(piece.when, Region)]
    others = [piece for piece in pieces.items if piece.when is None]
    return len(regions) + len(others) == len(pieces.items) and len({region.name for region in regions}) == 1
