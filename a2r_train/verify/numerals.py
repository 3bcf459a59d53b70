"""Digits of other scripts, and whole numbers in Chinese: `٣٫٥`, `१२`, `二十一`."""

from __future__ import annotations

import re
import unicodedata

_DIGIT = re.compile(r"(?![0-9])\d")
_ARABIC = str.maketrans({"٫": ".", "٬": ","})
_ONES = dict(zip("〇零一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
_TENS = {"十": 10, "百": 100, "千": 1000}
_SCALES = {"万": 10**4, "亿": 10**8}
_CHINESE = re.compile(f"[{''.join([*_ONES, *_TENS, *_SCALES])}]{{1,20}}")


def in_digits(text: str) -> str:
    """The text with the digits 0 to 9; Chinese only if all of it is one number."""
    text = _DIGIT.sub(lambda match: str(unicodedata.digit(match.group())), text.translate(_ARABIC))
    found = _chinese(text.strip()) if _CHINESE.fullmatch(text.strip()) else None
    return text if found is None else str(found)


def _chinese(text: str) -> int | None:
    """`三百零五` is 305, `二〇二四` is 2024; None if the order of the characters is not that of a number."""
    if all(char in _ONES for char in text):
        return int("".join(str(_ONES[char]) for char in text))
    total, group, digit, last, scale = 0, 0, 0, 10**4, 10**12
    for char in text:
        if char in _ONES:
            if digit:
                return None
            digit = _ONES[char]
        elif char in _TENS and _TENS[char] < last:
            last = _TENS[char]
            group, digit = group + (digit or (last == 10)) * last, 0
        elif char in _SCALES and _SCALES[char] < scale and (group or digit):
            scale = _SCALES[char]
            total, group, digit, last = total + (group + digit) * scale, 0, 0, 10**4
        else:
            return None
    return total + group + digit
