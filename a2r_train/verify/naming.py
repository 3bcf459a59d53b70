r"""Names of what an answer gives: `x`, `f(x)`, `\angle ABC`, and what stands for them."""

from __future__ import annotations

import re

from a2r_train.verify.expression import Unreadable, parse
from a2r_train.verify.kinds import Named, Reading
from a2r_train.verify.phrases import DENIED

NAME = re.compile(
    r"(?:d[a-z]/d[a-z]|\\frac ?\{d(?:[A-Za-z]|\\[a-z]+ ?)\}\{d[a-z]\}|[A-Za-z]\^\{-1\} ?\([a-z]\))|"
    r"[A-Za-z](?:_(?:[A-Za-z0-9]|\{[^{}]*\}))?'*(?:\([A-Za-z0-9\\ ,+-]*\))?|\\nabla ?[A-Za-z]|"
    r"\\[A-Za-z]+ ?(?:_(?:\w"
    r"|\{[^{}]*\}))?"
    r"|\\(?:angle|triangle) ?[A-Z]{1,3}|m\\angle ?[A-Z]{1,3}|\\(?:overline|vec"
    r"|overrightarrow) ?(?:\{[A-Za-z]+\}|[A-Za-z])(?:\([a-z]\))?"
    r'|[A-Z]{2,3}|"[^"]+"(?: "[^"]+"){0,3}(?: ?\([^()]*\))?|P\([^()]*\)'
    r"|\|[A-Z]\||\|?[A-Z]{2}\|?|\[[A-Z]{3,}\]|\\R|\\Z"
)


def called(name: str, what: Reading) -> Named:
    """A name and what it stands for; also the name as a tree, if it is mathematics.

    Raises Unreadable for `not (x, y)`: what is denied is no answer.
    """
    if '"' in name and DENIED & set(name.replace('"', " ").casefold().split()):
        raise Unreadable(name)
    try:
        tree = None if '"' in name else parse(name)
    except Unreadable:
        tree = None
    return Named(" ".join(name.replace('"', "").split()), what, tree)


def mentions(side: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z\\]){re.escape(name)}(?![A-Za-z])", side) is not None
