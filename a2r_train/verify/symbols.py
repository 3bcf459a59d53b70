r"""Symbols of units in a text whose words are already quoted: `5 kg m/s`, `5 \mu m`, `2 h 30 min`.

A letter is a unit only after a number and a space, and only if all that follows it belongs to the unit.
"""

from __future__ import annotations

import re

from a2r_train.verify.units import SYMBOLS, UNITS

_NAME = r'"?[A-Za-z]+"?'
_POWER = r"(?:\^ ?(?:\{-?\d\}|\d))?"
_RUN = re.compile(
    rf"(?<=[\d)}}])(\s+|\s*(?=\"))({_NAME}{_POWER}(?:(?:\s*/\s*|\s*\\cdot\s*|\s+){_NAME}{_POWER})+)\s*$"
)
_EACH = re.compile(rf"({_NAME})({_POWER})")
_EACH_POWER = re.compile(r"([A-Za-z]+)(?:\^ ?\{?-?\d\}?)?")
_SPACED = re.compile(r"(?:(?<![\^_\w\\{.])[\d.,]+|\})\s+$")
_PREFIXED = re.compile(r'(?<=[\d}]) +(?:\\mu|\\Omega|([km])\s*\\Omega)\s*("?[A-Za-z]*"?)\s*$')
_JOINED = rf"{_NAME}{_POWER}(?:(?:\s*/\s*|\s*\\cdot\s*|\s+){_NAME}{_POWER})*"
_BELOW = re.compile(rf"(?<=[\d}}])(\s+|\s*(?=\"))({_JOINED})\s*/\s*\(\s*({_JOINED})\s*\)\s*$")
_MICRO = {"m": "micrometer", "g": "microgram", "s": "microsecond", "L": "microliter", "A": "microampere"}
_MICRO |= {"F": "microfarad", "V": "microvolt", "C": "microcoulomb", "T": "microtesla", "H": "microhenry"}
_MICRO |= {"mol": "micromole"}
_SHORT = r"(?:d|h|hr|hrs|m|min|mins|s|sec|kg|g|lb|lbs|oz|ft|in|cm|km|mm)"
_SEVERAL = re.compile(rf'(?:\d[\d.]*\s*"?{_SHORT}"?,?\s*(?:"and"\s*)?){{2,}}')
_MEASURED = re.compile(
    r'(?<=\d)\s+(?:("?(?:sq|cu)"?)\s+)?("?[mg]"?)(\s+"?(?:tall|long|wide|high|deep|away)"?)?$'
)


def quote_units(text: str) -> str:
    """The same text with its units in quotes."""
    if not re.search(r"\d\s*[\"A-Za-z\\]", text):
        return text
    text = _BELOW.sub(_below, text)
    if _SEVERAL.fullmatch(text):
        named = re.sub(rf'(\d)\s*"?({_SHORT})"?(?![A-Za-z])', r'\1 "\2"', text)
        return re.sub(r'(\d) "m"(?=.*"(?:s|sec)")', r'\1 "min"', named)
    text = _PREFIXED.sub(_prefixed, text)
    if (match := _MEASURED.search(text)) and (match[1] or match[3]):
        before, unit, after = (re.sub(r"[\"\s]", "", group or "") for group in match.groups())
        words = " ".join(f'"{word}"' for word in (before, unit, after) if word)
        return f"{text[: match.start()]} {words}"
    return _RUN.sub(_run, text)


def _below(match: re.Match[str]) -> str:
    """`J/(mol K)` as `J/mol K`, which says the same."""
    above, below = match[2], match[3]
    known = all_units(above.replace('"', ""), True) and all_units(below.replace('"', ""), True)
    return f"{match[1]}{above}/{below}" if known else match.group()


def all_units(text: str, behind_number: bool) -> bool:
    """Whether a text is units and nothing else; behind a number, symbols that may be products are units."""
    parts = [_EACH_POWER.fullmatch(part) for part in re.split(r"\s*/\s*|\s*\\cdot\s*|\s+", text)]
    names = [part[1] for part in parts if part]
    known = all(name in UNITS or (behind_number and name in SYMBOLS) for name in names)
    return known and len(names) == len(parts)


def is_symbol(run: str, before: str, after: str) -> bool:
    """Whether letters are a unit because they end a text, after a number and a space: `5 nC`, `3 in^2`."""
    squared = run == "in" and re.fullmatch(r"\s*\^ ?\{?[23]\}?\s*", after) is not None
    letters = run not in SYMBOLS or len(run) < 2 or (run.islower() and len(run) == 2)
    if not squared and (letters or not re.fullmatch(r"\s*(?:\^ ?\{?-?\d\}?)?\s*", after)):
        return False
    return _SPACED.search(before) is not None


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
    if not sure or not all(name in UNITS or name in SYMBOLS for name in names) or "in" in names:
        return match.group()
    parts = re.split(r"(\\cdot)", match[2])
    return " " + "".join(
        part if part == r"\cdot" else _EACH.sub(lambda m: f' "{m[1].strip(chr(34))}"{m[2]}', part)
        for part in parts
    )
