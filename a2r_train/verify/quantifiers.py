r"""Remarks that say what a letter stands for: `k\pi, k \in \Z` and `f(x) = 2x "for" "all" x`.

An answer may leave such a remark out if it says what the letter stands for anyway. Others restrict the answer
and stay, such as `n \in \N`.
"""

from __future__ import annotations

import re

_WHOLE = "jklmnKN"  # letters that stand for any whole number; all others stand for any real one
_LETTER = r"(?:[A-Za-z]|\\(?!pi(?![a-z]))[a-z]+ ?)(?:_(?:\d|\{\d+\}))?"
_LETTERS = rf"(?P<letters>{_LETTER}(?:, ?{_LETTER})*)"
_OPENS = (
    r'(?:(?:[,;:]|\\mid|\|| (?=\())+ ?\(? ?(?:"(?:where|with|when)" ?)?(?:"(?:for|and)" ?)?'
    r'| "(?:where|with|when|for)" ?)'
)
_EVERY = r'(?:"(?:all|any|every|each|some)" ?|\\forall ?)?'
_NUMBERS = r'"(?:reals?|integers?|constants?)"(?: ?"(?:numbers?|constants?)")?'
_IS = r'(?:"(?:is|are|be|being)" ?)?(?:"(?:an|any|all|arbitrary)" ?|a ?)*'
_REMARK = re.compile(
    rf"(?P<what>.*?\S) ?{_OPENS}{_EVERY}"
    rf"(?:{_LETTERS} ?(?:\\in ?\\?(?P<set>[RZ])|{_IS}(?P<kind>{_NUMBERS}))"
    rf"|(?P<first>{_NUMBERS}) ?(?P<named>{_LETTER})) ?\)?"
)
_SIZE = r'(?:"(?:positive|nonnegative|non-negative|natural|real|integers?|reals?|numbers?|values?|of)" ?)*'
_EVERYWHERE = re.compile(
    r"(?P<what>[A-Za-z]\((?P<letter>[a-z])\)=[^,;]*?),? ?"
    rf'(?:"for" ?"(?:all|any|every|each)"|\\forall) ?{_SIZE}(?P<named>[a-z])'
    r"(?: ?\\in ?\\[RZN](?: ?\^ ?\{?\+\}?)?)?"
)


def unquantified(text: str) -> str:
    """The normal form without a remark at its end that says what everyone reads its letters as."""
    if r"\in" not in text and '"' not in text and r"\forall" not in text:
        return text
    if (match := _EVERYWHERE.fullmatch(text)) and match["letter"] == match["named"]:
        return match["what"]
    if not (match := _REMARK.fullmatch(text)):
        return text
    letters = [name.strip() for name in (match["letters"] or match["named"]).split(",")]
    whole = match["set"] == "Z" or "integer" in (match["kind"] or match["first"] or "")
    usual = all((name[0] in _WHOLE) == whole for name in letters)
    return match["what"].rstrip() if usual and all(_has(match["what"], name) for name in letters) else text


def family_in(inner: str) -> str:
    r"""What a set holds for all whole numbers, as `k\pi` in `\{k\pi \mid k \in \Z\}`; "" for other sets."""
    whole = r"\Z" in inner or '"integer' in inner
    found = unquantified(inner) if whole else inner
    return "" if found == inner or len(found) == 1 else found


def _has(text: str, letter: str) -> bool:
    """Whether a letter occurs in what a text says, and not only in the name of what is given."""
    said = re.sub(r'"[^"]*"', " ", text)
    said = said.partition("=")[2] or said
    return letter in (said if letter[0] == "\\" else re.sub(r"\\[A-Za-z]+", " ", said))
