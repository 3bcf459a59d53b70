r"""Congruences: `x \equiv 3 \pmod 7`, `3 \pmod 7`, and several residues of one modulus."""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

from a2r_train.verify.exact import TooLarge, value
from a2r_train.verify.expression import Node, Unreadable, number, parse
from a2r_train.verify.kinds import False_, Group, Reading, Relation
from a2r_train.verify.naming import NAME, called
from a2r_train.verify.splitting import split

_WHOLE = re.compile(r"(.*?) ?\\mod ?\{([^{}]*)\}")
_SIGN = r"\equiv"


def read_congruence(text: str) -> Reading:
    """One congruence, or the list of several.

    Raises Unreadable for anything else, and for different moduli, which may be a system.
    """
    parts, separators = split(re.sub(r", ?(?=\\mod)", " ", text))
    whole = [_WHOLE.fullmatch(part) for part in parts]
    found = [match for match in whole if match]
    moduli = {_modulus(match[2]) for match in found}
    if whole[-1] is None or len(moduli) > 1 or ('"or"' in separators and '"and"' in separators):
        raise Unreadable(text)
    statements = [match[1].strip() for match in found]
    if len(found) < len(parts):
        if len(found) > 1:
            raise Unreadable(text)
        statements = _of_one_modulus([*parts[:-1], *statements])
    modulus = moduli.pop()
    items = [_congruence(one, modulus) for statement in statements for one in _both_signs(statement)]
    if len(items) == 1:
        return items[0]
    join = "or" if '"or"' in separators else "and" if '"and"' in separators else ""
    return Group(",", tuple(items), join)


def _modulus(text: str) -> int:
    found = value(parse(text))
    if not found or found.denominator != 1:
        raise Unreadable(text)
    return int(found)


def _of_one_modulus(parts: list[str]) -> list[str]:
    r"""Each of `x \equiv 3, 5 \pmod 7` as a statement.

    Raises Unreadable for `x = 3, 5 \pmod 7`, whose first part may be an ordinary equation.
    """
    left, found = "", []
    for part in parts:
        if "=" in part:
            raise Unreadable(part)
        before, sign, _ = part.rpartition(_SIGN)
        left = before + sign if sign else left
        found.append(part if sign else left + part)
    return found


def _both_signs(statement: str) -> list[str]:
    if r"\pm" not in statement:
        return [statement]
    return [statement.replace(r"\pm", sign) for sign in "+-"]


def _congruence(statement: str, modulus: int) -> Reading:
    """A residue with its name, or an equation. Numbers before the residue have to be congruent to it."""
    *before, last = (side.strip() for side in re.split(r"\\equiv ?|=", statement))
    right = parse(last)
    residue, sign = value(right), f"mod {modulus}"
    if residue is not None and residue.denominator == 1:
        right = number(int(residue % modulus))
    sides = [(side, _number(side)) for side in before if side]
    if residue is not None and any(x is not None and not _divides(modulus, x - residue) for _, x in sides):
        return False_()
    left = [side for side, x in sides if residue is None or x is None]
    if len(left) > 1:
        raise Unreadable(statement)
    if residue is None or (left and not NAME.fullmatch(left[0])):
        return Relation(sign, Node("add", (right, Node("neg", (parse(left[0]) if left else number(0),)))))
    if residue.denominator != 1:
        raise Unreadable(statement)
    return called(left[0], Relation(sign, right)) if left else Relation(sign, right)


def _number(side: str) -> Fraction | None:
    try:
        return None if NAME.fullmatch(side) else value(parse(side))
    except TooLarge:
        return None


def _divides(modulus: int, difference: Fraction) -> bool:
    r"""Whether two numbers are congruent; `2^{-1}` is an inverse."""
    return difference.numerator % modulus == 0 and gcd(difference.denominator, modulus) == 1
