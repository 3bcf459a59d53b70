r"""What `\pm` and `\mp` stand for: `a \pm b` is two answers, `\pm a \pm b` four."""

from __future__ import annotations

import re
from itertools import combinations, product

from a2r_train.verify.expression import Unreadable
from a2r_train.verify.splitting import CLOSING, OPENING

MOST_SIGNS = 4  # of which each is plus or minus by itself: 16 answers
_SIGN = re.compile(r"\\pm(?![A-Za-z])")


def each_sign(text: str) -> list[str]:
    r"""The text with the signs that it may have. In one sum, or in a part of one of its terms, each sign is
    plus or minus by itself. In tuples, in two factors and with `\mp` all signs go together.
    """
    places = [match.start() for match in _SIGN.finditer(text)]
    if r"\mp" not in text and len(places) > 1 and not re.search("[,;]", text):
        paths = [_brackets_around(text, place) for place in places]
        nested = [one[: len(other)] == other[: len(one)] for one, other in combinations(paths, 2)]
        if all(nested) and len(places) <= MOST_SIGNS:
            return [_signed(text, signs) for signs in product("+-", repeat=len(places))]
        if any(nested):
            raise Unreadable(text)
    upper = text.replace(r"\pm", "+").replace(r"\mp", "-")
    lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
    return [upper, lower]


def _brackets_around(text: str, place: int) -> list[int]:
    """Where the brackets open that are still open at a place."""
    still: list[int] = []
    for at, char in enumerate(text[:place]):
        if char in OPENING:
            still.append(at)
        elif char in CLOSING and still:
            still.pop()
    return still


def _signed(text: str, signs: tuple[str, ...]) -> str:
    found = iter(signs)
    return _SIGN.sub(lambda _: next(found), text)
