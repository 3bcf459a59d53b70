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
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_YEARS = re.compile(r"([12]\d{3}) ?[-–] ?([12]\d{3})")


def in_one_order(said: str) -> str | None:
    """Words in lower case with each day behind its month; None if they name no month."""
    words = [word.strip(".,") for word in said.replace(",", " ").split()]
    if not set(words) & set(_MONTHS) or not any(word.isdigit() for word in words):
        return None
    text = re.sub(rf"\b({'|'.join(_MONTHS)}) the (?=\d)", r"\1 ", " ".join(filter(None, words)))
    ordered = _DAY_FIRST.sub(r"\2 \1", text)
    return " ".join(_MONTHS.get(word, word) for word in ordered.split())


def date_alone(text: str) -> str | None:
    """`2015-03-14`, `14/3/2015`, `1914-1918` and `25 Dec`, which would be arithmetic otherwise, as words, and
    `Tue` as Tuesday.

    None for anything else.
    """
    if (name := _NAME_ALONE.fullmatch(text)) and (full := _ALONE.get(name[1].lower())):
        return full
    if _NAMED.search(text) and re.fullmatch(r'[\w",. ]+', text):
        words = re.sub('[",.]', " ", text).casefold().split()
        if all(word in _MONTHS or word in _BETWEEN or re.fullmatch(r"\d{1,4}", word) for word in words):
            return in_one_order(" ".join(words))
    text = text[1:-1] if text[:1] + text[-1:] == "()" else text
    if (years := _YEARS.fullmatch(text)) and years[1] < years[2]:
        return f"{years[1]} to {years[2]}"
    return _in_numbers(text)


def _in_numbers(text: str) -> str | None:
    """A date without words; where either number may be the month, and no point says that the day is first, it
    equals only the same numbers.
    """
    if match := _YEAR_FIRST.fullmatch(text):
        return _named(int(match[4]), int(match[3]), match[1])
    if not (match := _YEAR_LAST.fullmatch(text)):
        return None
    first, second, year = int(match[1]), int(match[3]), match[4]
    if match[2] == "." or first > 12:
        return _named(first, second, year)
    if second > 12 or first == second:
        return _named(second, first, year)
    return f"{first}/{second}/{year}" if first and second else None


def _named(day: int, month: int, year: str) -> str | None:
    return f"{_NAMES[month - 1]} {day} {year}" if 1 <= month <= 12 and 1 <= day <= 31 else None
