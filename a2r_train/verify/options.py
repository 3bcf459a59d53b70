"""The options in a multiple-choice problem, and the one that an answer gives as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from a2r_train.verify.equality import Equality, Unasked, Undecided
from a2r_train.verify.exact import TooLarge
from a2r_train.verify.expression import Unreadable
from a2r_train.verify.kinds import False_, Words
from a2r_train.verify.reading import read
from a2r_train.verify.spelling import spell

LETTERS = "ABCDEFGHIJ"
MOST_CHARACTERS = 300  # of an answer or option that is read as a number
_LINE = re.compile(r"[ \t]*\(?([A-J])[.):][ \t]+(\S.*)")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox) ?\{([^{}]*)\}")
_ESCAPE = re.compile(r"\\(?=[%$&#_])")
_EXACT = Equality(Unasked())


@lru_cache(maxsize=20_000)
def options_in(problem: str) -> Mapping[str, str]:
    """The texts of the last lines `A. ...`, `B. ...` and so on, by letter; {} for fewer than two.

    An option continues over lines without a letter, up to a blank line.
    """
    lines = problem.splitlines()
    begins = [at for at, line in enumerate(lines) if (match := _LINE.fullmatch(line)) and match[1] == "A"]
    found: list[str] = []
    for line in lines[begins[-1] :] if begins else ():
        match = _LINE.fullmatch(line)
        if match and match[1] == LETTERS[len(found) : len(found) + 1]:
            found.append(match[2].strip())
        elif not line.strip():
            break
        else:
            found[-1] += f" {line.strip()}"
    return dict(zip(LETTERS, found, strict=False)) if len(found) > 1 else {}


def option_named(answer: str, problem: str, clean: Callable[[str], str]) -> str:
    """The letter of the only option of a problem that equals a cleaned answer, as text or else as a number.
    "" for no or several such options, and for an answer that is itself a letter.
    """
    options = options_in(problem) if answer else {}
    if not options or answer.strip("()").rstrip(".").upper() in options:
        return ""
    for same in (_same_text, _same_number):
        if equal := [letter for letter, text in options.items() if same(answer, clean(text))]:
            return equal[0] if len(equal) == 1 else ""
    return ""


def _same_text(answer: str, option: str) -> bool:
    return _bare(answer) == _bare(option)


def _bare(text: str) -> str:
    return _ESCAPE.sub("", _TEXT.sub(r"\1", text)).casefold()


def _same_number(answer: str, option: str) -> bool:
    """Whether both are the same number or the same formula, by arithmetic alone."""
    if max(len(answer), len(option)) > MOST_CHARACTERS:
        return False
    try:
        one, other = read(spell(answer)), read(spell(option))
        return not isinstance(one, Words | False_) and _EXACT.same(one, other)
    except (Undecided, TooLarge, Unreadable):
        return False
