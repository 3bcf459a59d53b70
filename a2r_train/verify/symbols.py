r"""Symbols of units in a text whose words are already quoted: `5 kg m/s`, `5 \mu m`, `2 h 30 min`.

A letter is a unit only after a number and a space, and only if all that follows it belongs to the unit.
"""

from __future__ import annotations

import re

from a2r_train.verify.units import UNITS

_NAME = r'"?[A-Za-z]+"?'
_POWER = r"(?:\^ ?(?:\{-?\d\}|\d))?"
_RUN = re.compile(
    rf"(?<=[\d)}}])(\s+|\s*(?=\"))({_NAME}{_POWER}(?:(?:\s*/\s*|\s*\\cdot\s*|\s+){_NAME}{_POWER})+)\s*$"
)
_EACH = re.compile(rf"({_NAME})({_POWER})")
_PREFIXED = re.compile(r'(?<=[\d}]) +(?:\\mu|\\Omega|([km])\s*\\Omega)\s*("?[A-Za-z]*"?)\s*$')
_MICRO = {"m": "micrometer", "g": "microgram", "s": "microsecond", "L": "microliter", "A": "microampere"}
_MICRO |= {"F": "microfarad", "V": "microvolt"}
_SHORT = r"(?:d|h|hr|hrs|m|min|mins|s|sec|kg|g|lb|lbs|oz|ft|in|cm|km|mm)"
_SEVERAL = re.compile(rf'(?:\d[\d.]*\s*"?{_SHORT}"?,?\s*(?:"and"\s*)?){{2,}}')
_MEASURED = re.compile(
    r'(?<=\d)\s+(?:("?(?:sq|cu)"?)\s+)?("?[mg]"?)(\s+"?(?:tall|long|wide|high|deep|away)"?)?$'
)


def quote_units(text: str) -> str:
    """The same text with its units in quotes."""
    if not re.search(r"\d\s*[\"A-Za-z\\]", text):
        return text
    if _SEVERAL.fullmatch(text):
        named = re.sub(rf'(\d)\s*"?({_SHORT})"?(?![A-Za-z])', r'\1 "\2"', text)
        return re.sub(r'(\d) "m"(?=.*"(?:s|sec)")', r'\1 "min"', named)
    text = _PREFIXED.sub(_prefixed, text)
    if (match := _MEASURED.search(text)) and (match[1] or match[3]):
        before, unit, after = (re.sub(r"[\"\s]", "", group or "") for group in match.groups())
        words = " ".join(f'"{word}"' for word in (before, unit, after) if word)
        return f"{text[: match.start()]} {words}"
    return _RUN.sub(_run, text)


def _prefixed(match: re.Match[str]) -> str:
    name = match[2].strip('"')
    if r"\Omega" in match.group():
        prefix = {"k": "kilo", "m": "milli"}.get(match[1] or "", "")
        return f' "{prefix}ohm"' if not name else match.group()
    return f' "{_MICRO[name]}"' if name in _MICRO else match.group()


def _run(match: re.Match[str]) -> str:
    """A product or quotient of units; one of them has more than one letter or a negative power."""
    names = [name.strip('"') for name, _ in _EACH.findall(match[2].replace(r"\cdot", " "))]
    sure = any(len(name) > 1 for name in names) or "^{-" in match[2] or "/" in match[2]
    if not sure or not all(name in UNITS for name in names) or "in" in names:
        return match.group()
    parts = re.split(r"(\\cdot)", match[2])
    return " " + "".join(
        part if part == r"\cdot" else _EACH.sub(lambda m: f' "{m[1].strip(chr(34))}"{m[2]}', part)
        for part in parts
    )
