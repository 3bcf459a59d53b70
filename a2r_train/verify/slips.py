"""Golds that are slips of a file, not answers: cells that say nothing, objects and lists, text that was
decoded wrongly, and macros whose backslash was read as an escape.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable
from html.entities import html5
from typing import Any

from a2r_train.records import Bundle, Problem

READERS = ("math", "math_last_number", "exact")  # verifiers whose golds are read here
MOST_CHARACTERS = 2000  # of a gold that is a list or an object
ESCAPED = r"; in JSON and Python \f, \t and the like are control characters, so write `\\frac`, with two"
ESCAPED_TEXTS = f"problem(s) whose text holds control characters where a macro was meant{ESCAPED}"
MEANT = "gold(s) such as None, a list or a tag, which only count as answers because their problems show them"

_NO_ANSWER = re.compile(
    r"(?-i:None)|todo|tbd|unknown|missing|see (?:the )?solution|#(?:ref!|div/0!|value!|name\?|num!|null!)",
    re.IGNORECASE,
)
_TAG = re.compile(r"</[a-z]+[1-6]?>|<br ?/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:([A-Za-z]{2,8}[0-9]{0,2};)|#[0-9]{2,6};|#x[0-9A-Fa-f]{2,5};)")
_WRONGLY_DECODED = re.compile("[\u00c2-\u00f4][^\x00-\x7f]")
# What is left of a macro: \f, \b, \a and \v never stand in a text; a tab or a line end may.
_CONTROL = re.compile(r"[\x07\x08\x0b\x0c]")
_TAB = r"\t(?:imes|ext[a-z]*|heta|frac|au|an|anh|ilde|riangle|herefore|op|o)"
_RETURN = r"\r(?:ho|ight[a-z]*|angle|m|floor|ceil)"
_FEED = r"\n(?:u|eq?|abla|mid|ot|otin|subseteq|less|geq|leq)"
BACKSPACED = re.compile(r"\x08oxed|\x0crac|\x08egin")  # what JSON makes of `\boxed`
_MACRO = re.compile(rf"{_CONTROL.pattern}|(?:{_TAB}|{_RETURN}|{_FEED})(?![A-Za-z])")
_IN_TEXT = re.compile(
    rf"{_CONTROL.pattern}|(?:\t(?:imes|ext(?=\{{)|heta|frac(?=\{{))|\r(?:ho|ight|angle))(?![A-Za-z])"
)


def is_slip(problem: Problem | Bundle) -> bool:
    """Whether the gold is a slip. A word, a list or a tag that the problem itself shows is meant."""
    gold = problem.answer.strip(" ")
    if problem.verifier not in READERS or (gold.isalnum() and gold.isascii() and not gold.isalpha()):
        return False
    return is_escaped(gold) or is_wrongly_decoded(gold) or _says_nothing(gold, problem.problem)


def is_escaped(gold: str) -> bool:
    """Whether a macro's backslash was read as an escape, as in a form feed and `rac{1}{7}`."""
    return bool(_MACRO.search(gold))


def doubts(problems: Iterable[Problem | Bundle]) -> Counter[str]:
    """How many problem texts hold such a macro, and how many golds look like slips but seem to be meant; by
    what a warning says about them.
    """
    found: Counter[str] = Counter()
    for problem in problems:
        found[ESCAPED_TEXTS] += bool(_IN_TEXT.search(problem.problem))
        found[MEANT] += problem.verifier in READERS and not is_slip(problem) and _says_nothing(problem.answer)
    return +found


def is_wrongly_decoded(text: str) -> bool:
    """Whether a text is UTF-8 that was read as another encoding, such as `5Â°`."""
    if not _WRONGLY_DECODED.search(text):
        return False
    for codec in ("cp1252", "latin-1"):
        try:
            if text.encode(codec).decode("utf-8") != text:
                return True
        except UnicodeError:
            pass
    return False


def _says_nothing(gold: str, problem: str = "") -> bool:
    """Whether a gold is no answer; what the problem itself shows is one."""
    if _NO_ANSWER.fullmatch(gold):
        return not re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", problem, re.IGNORECASE)
    if gold[:1] in ("[", "{") and _is_structure(gold):
        return gold[0] not in problem
    if _TAG.search(gold):
        return not _TAG.search(problem)
    named = _ENTITY.search(gold)
    return named is not None and (not named[1] or named[1] in html5) and not _ENTITY.search(problem)


def _is_structure(gold: str) -> bool:
    """Whether a gold is the text of an object, or of a list that is not one of numbers."""
    if len(gold) > MOST_CHARACTERS or not ("'" in gold or '"' in gold or ":" in gold):
        return False
    for reads in (json.loads, ast.literal_eval):
        try:
            found: Any = reads(gold)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return isinstance(found, dict | list)
    return False


def one_text(problem: str) -> str:
    """What two problems share that are the same but for spaces and case."""
    return " ".join(problem.casefold().split())
