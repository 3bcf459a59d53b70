"""Dates: `March 14, 2015`, `14 March 2015`, `the 14th of March` and `2015-03-14` in one order of words."""

from __future__ import annotations

import re

from a2r_train.verify.units import in_order, vocabulary

_NAMES = in_order("january february march april may june july august september october november december")
_MONTHS = {name: name for name in _NAMES} | {name[:3]: name for name in _NAMES if name != "may"}
_MONTHS["sept"] = "september"
_DAY_FIRST = re.compile(rf"(?:the )?(?<!\d )\b(\d{{1,2}}) (?:of )?({'|'.join(_MONTHS)})\b(?! \d{{1,2}}\b)")
_NAMED = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(name.title() for name in _MONTHS)})(?![A-Za-z])")
_BETWEEN = vocabulary("of the to until through monday tuesday wednesday thursday friday saturday sunday")
_DAYS = in_order("monday tuesday wednesday thursday friday saturday")
_ALONE = _MONTHS | {"may": "may"} | {name[:size]: name for name in _DAYS for size in (3, 4, 5, len(name))}
_ALONE["sunday"] = "sunday"  # the sun is no day
_NAME_ALONE = re.compile(r'(?:"?(?:[Oo]n|[Ii]n)"? )?"?([A-Z][a-z]{2,8})"?\.?')
_ISO = re.compile(r"(\d{4})([-/])(\d\d)\2(\d\d)")


def in_one_order(said: str) -> str | None:
    """Words in lower case with each day behind its month; None if they name no month."""
    words = [word.strip(".,") for word in said.replace(",", " ").split()]
    if not set(words) & set(_MONTHS) or not any(word.isdigit() for word in words):
        return None
    text = re.sub(rf"\b({'|'.join(_MONTHS)}) the (?=\d)", r"\1 ", " ".join(filter(None, words)))
    ordered = _DAY_FIRST.sub(r"\2 \1", text)
    return " ".join(_MONTHS.get(word, word) for word in ordered.split())


def date_alone(text: str) -> str | None:
    """`2015-03-14` and `25 Dec`, which would be arithmetic otherwise, as words, and `Tue` as Tuesday.

    None for anything else.
    """
    if (name := _NAME_ALONE.fullmatch(text)) and (full := _ALONE.get(name[1].lower())):
        return full
    if _NAMED.search(text) and re.fullmatch(r'[\w",. ]+', text):
        words = re.sub('[",.]', " ", text).casefold().split()
        if all(word in _MONTHS or word in _BETWEEN or re.fullmatch(r"\d{1,4}", word) for word in words):
            return in_one_order(" ".join(words))
    match = _ISO.fullmatch(text)
    if not match or not (1 <= int(match[3]) <= 12 and 1 <= int(match[4]) <= 31):
        return None
    return f"{_NAMES[int(match[3]) - 1]} {int(match[4])} {match[1]}"
