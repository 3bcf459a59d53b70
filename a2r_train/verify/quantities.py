"""Quantities: an expression with its unit, several units together, ratios, number bases, matrices."""

from __future__ import annotations

import re
from dataclasses import replace

from a2r_train.verify.expression import Node, Unreadable, number, parse
from a2r_train.verify.kinds import Based, Clock, Group, Measure, Quantity, Reading
from a2r_train.verify.splitting import split, top_level
from a2r_train.verify.units import Tail, named, number_word, read_tail, times

_CURRENCY = r'[$£€¥₹¢]|"(?:rs|usd|eur|gbp|inr)"'
CURRENCY = re.compile(_CURRENCY, re.IGNORECASE)
_MONEY_FIRST = re.compile(rf"(-?) ?({_CURRENCY}) ?(-?)(?=[\d.(\\])", re.IGNORECASE)
_MONEY_LAST = re.compile(rf"(?<=[\d)}}]) ?({_CURRENCY})$", re.IGNORECASE)
_MONEY_TERM = re.compile(rf"((?:^|[-+]|\\cdot)) ?({_CURRENCY}) ?(?=\d)", re.IGNORECASE)
_UNIT_WORD = r'"[^"]*"(?: ?\^ ?\{?-?\d\}?)?'
_TAIL = re.compile(
    rf"(?:\s*(?:{_UNIT_WORD}|/(?= ?\")|\\cdot(?= "
    r"?\")|-(?=\")|%|\\deg|\\frac "
    rf"?\{{{_UNIT_WORD}\}}\{{{_UNIT_WORD}\}}))+ ?$"
)
_TAIL_ITEM = re.compile(r'"([^"]*)"(?: ?\^ ?\{?(-?\d)\}?)?|(/)|(%)|(\\deg)|\\cdot|-')
_PIECE = re.compile(
    r"(-?[$£€]?(?:\d[\d,]*(?:\.\d+)?|\(\d+\+\\frac\{\d+\}\{\d+\}\)))((?: "
    r""
    r'?(?:"(?!and"|or")[^"]*"(?:\^\d)?|\\deg))+)'
    r'(?:,? ?"and" ?|, ?| |$)?'
)
_LETTERS_LAST = re.compile(r'(.*[\d})])"([a-z]{2,3})"(\^ ?(?:\d|\{\d+\}))?')  # without a space
_SIGN = re.compile(r'(?:[+]|(?<=["}\d])-|(?<=["}\d] )-|\\cdot)(?= ?[\d(\\])')
_CLOCK = re.compile(r'(\d{1,2})(?::(\d\d))? ?(?:o\'"clock" ?)?"([ap]m)"', re.IGNORECASE)
_BASED = re.compile(r"(-?)\(?([0-9A-Z]+(?:\.[0-9A-Z]+)?)\)? ?_ ?(?:\{([^{}]*)\}|(\d))")
_HEXADECIMAL = re.compile(r'(-?\(?)"?([0-9a-f]{2,})"?(\)? ?_ ?\{16\})')
_BASE_WORDS = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}
_BASE_WORDS |= {"twelve": 12, "sixteen": 16}


def read_pieces(text: str) -> Reading | None:
    """`2 hours 15 minutes` as one measure, `9 apples 4 pears` as a list; None for anything else."""
    found, at = [], 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if not match or match.end() == at:
            return None
        found.append(match[1] + match[2])
        at = match.end()
    if len(found) < 2:
        return None
    items = [read_quantity(piece.replace(",", "")) for piece in found]
    quantities = [item for item in items if isinstance(item, Quantity)]
    units = [quantity.tail.unit for quantity in quantities]
    same = len({unit.dimensions for unit in units}) == 1 and len({unit.factor for unit in units}) == len(
        units
    )
    if len(quantities) == len(items) and same and units[0].dimensions:
        return Measure(tuple(quantities))
    if re.search(r",\s|,$", text) and '"and"' not in text and len(found) == 2:
        return None
    return Group(",", tuple(items))


def read_based(text: str) -> Reading | None:
    text = _HEXADECIMAL.sub(lambda m: m[1] + m[2].upper() + m[3], text) if "16" in text else text
    match = _BASED.fullmatch(re.sub(r'"([0-9A-Z]+)"(?= ?_)', r"\1", text))
    if not match or not (re.search(r"\d", match[2]) or (match[2].isupper() and len(match[2]) > 1)):
        return None
    base = (match[3] or match[4]).strip("()").replace('"', "").strip().lower().removeprefix("base").strip()
    number_base = _BASE_WORDS.get(base) or (int(base) if base.isdigit() and len(base) < 4 else 0)
    if not 2 <= number_base <= 36 or any(int(c, 36) >= number_base for c in match[2].replace(".", "")):
        raise Unreadable(text)
    return Based(match[1] + (match[2].lstrip("0") or "0"), number_base)


def read_clock(text: str) -> Reading | None:
    """A time of day with a.m. or p.m.; `12:05 a.m.` is five minutes after midnight."""
    if plain := re.fullmatch(r'(?:12(?::00)? ?)?"(noon|midnight)"', text, re.IGNORECASE):
        return Clock(720 if plain[1].lower() == "noon" else 0)
    match = _CLOCK.fullmatch(text)
    if not match:
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    if not 1 <= hour <= 12 or minute > 59:
        raise Unreadable(text)
    return Clock(hour % 12 * 60 + minute + (720 if match[3].lower() == "pm" else 0), not match[2])


def read_ratio(text: str) -> Reading | None:
    parts = [match.start() for match in top_level(re.compile(r':|"to"'), text)]
    if not parts:
        return None
    sides, _ = split(text, r':|"to"')
    if '"' not in text and (time := _time(sides)):
        return time
    if len(sides) == 2:
        last = read_quantity(sides[1])
        if not isinstance(last, Quantity) or last.tail.unit.dimensions:
            return None
        return Quantity(Node("div", (parse(sides[0]), last.node)), replace(last.tail, mark=":"))
    items = [read_quantity(side) for side in sides]
    return Group(":", tuple(items))


def _time(sides: list[str]) -> Reading | None:
    """`1:05`, which is no ratio, because one of its parts has a zero in front; None for anything else.

    `05` becomes a symbol, so that it has no size. `01:15` is read as a time of day instead, which also equals
    `1:15`.
    """
    first, *others = sides
    parts = all(re.fullmatch(r"\d\d(?:\.\d+)?", part) for part in others)
    if len(others) not in (1, 2) or not parts or not re.fullmatch(r"\d{1,3}", first):
        return None
    if not any(side[0] == "0" for side in (first if len(first) == 2 else "1", *others)) and first != "0":
        return None
    hour, minute = first.lstrip("0") or "0", others[0]
    if len(sides) == 2 and first[0] == "0" and 0 < int(hour) < 24 and minute.isdigit() and int(minute) < 60:
        return Clock(60 * int(hour) + int(minute), False)
    nodes = [Node("sym" if part[0] == "0" else "num", text=part) for part in (hour, *others)]
    tail = Tail(mark=":")
    if len(nodes) == 2:
        return Quantity(Node("div", (nodes[0], nodes[1])), tail)
    return Group(":", tuple(Quantity(node) for node in nodes), "time")


def read_sum(text: str) -> Reading | None:
    """`3 cm + 2 cm`, `3 cm * 2 cm`: amounts with units combined into one; None for anything else."""
    signs = [match.group() for match in top_level(_SIGN, text)] if text.count('"') > 2 else []
    if not signs or (len(set(signs)) > 1 and r"\cdot" in signs):
        return None
    parts = split(text, _SIGN.pattern)[0]
    items = [item for part in parts if isinstance(item := read_quantity(part), Quantity)]
    if (
        len(items) < len(parts)
        or len(parts) != len(signs) + 1
        or not all(i.tail.unit.dimensions for i in items)
    ):
        return None
    node, tail = items[0].node, items[0].tail
    for sign, item in zip(signs, items[1:], strict=True):
        if sign == r"\cdot":
            node, tail = Node("mul", (node, item.node)), replace(tail, unit=times(tail.unit, item.tail.unit))
        elif item.tail != tail:
            return None
        else:
            term = item.node if sign == "+" else Node("neg", (item.node,))
            node = Node("add", (node, term))
    return Quantity(node, tail)


def read_quantity(text: str) -> Reading:
    """An expression with its unit; a leading `negative` is a sign."""
    if text[:1] == '"' and (match := re.match(r'"(?:negative|minus)" ?(?=[\d.(\\])', text, re.IGNORECASE)):
        text = "-" + text[match.end() :]
    money = ""
    if match := _MONEY_FIRST.match(text):
        text, money = match[1] + match[3] + text[match.end() :], match[2].strip('"').lower()
        text = without_money(text, match[2])
    elif match := _MONEY_LAST.search(text):
        text, money = text[: match.start()], match[1].strip('"').lower()
    tail_match = _TAIL.search(text)
    head = text[: tail_match.start()] if tail_match else text
    if tail_match and not head.strip():
        if (spoken := _spoken(text)) is not None:
            return spoken
        raise Unreadable(text)
    if (
        tail_match
        and r"\deg" in tail_match.group()
        and re.search(r"\\(?:sin|cos|tan|cot|sec|csc|cis|deg)(?![A-Za-z])", head)
    ):
        return Quantity(parse(text))
    items = _tail_items(tail_match.group()) if tail_match else []
    is_symbol = re.search(r"[A-Za-z]$", head.strip()) is not None and not re.search(r"\\pi ?$", head)
    if is_symbol and not all(word in ("/", "per", "degree") or named(word) for word, _ in items):
        raise Unreadable(text)
    node = parse(head.strip())
    single = node.text == "1" or _is_part(node)
    tail = read_tail([*([(money, 1)] if money and not items else []), *items], single)
    if tail is None:
        raise Unreadable(text)
    if money and items:
        base, factor = named(money) or ("", None)
        if factor is None:
            raise Unreadable(text)
        if items[0][0].lower() in ("per", "/"):  # $5 per hour
            rate = read_tail([(money, 1), *items], node.text == "1")
            if rate is None:
                raise Unreadable(text)
            return Quantity(node, rate)
        if tail.unit.dimensions not in ((), ((base, 1),)):
            raise Unreadable(text)
        tail = replace(tail, unit=replace(tail.unit, factor=factor, dimensions=((base, 1),)))
    return Quantity(node, tail, None if money else product_of(text))


def _is_part(node: Node) -> bool:
    """Whether it is a fraction below 1: `3/4 pizza`."""
    if node.kind != "div" or any(part.kind != "num" or not part.text.isdigit() for part in node.parts):
        return False
    return 0 < int(node.parts[0].text) < int(node.parts[1].text)


def product_of(text: str) -> Node | None:
    """`3nm` as a product of letters; None for `3 nm` and for longer words."""
    match = _LETTERS_LAST.fullmatch(text)
    try:
        return parse("".join(match.groups(""))) if match else None
    except Unreadable:
        return None


def without_tail(text: str) -> str:
    """The expression before a unit."""
    return _TAIL.sub("", text).strip()


def without_money(text: str, mark: str) -> str:
    """A sum of amounts in one currency as a sum of numbers: `$50+$48` is `50+48`."""
    return _MONEY_TERM.sub(lambda m: m[1] if m[2] == mark else m.group(), text)


def _spoken(text: str) -> Quantity | None:
    """`five apples`, `two thirds`, `one half`."""
    if text.lstrip()[:1] == "-":
        return None
    words = [match[1].lower() for match in _TAIL_ITEM.finditer(text) if match[1]]
    if re.search(r'" ?\^', text):  # six^2
        return None
    for n in (2, 1):
        found = number_word(words[:n])
        if found is not None and len(words) >= n and '"/"' not in text:
            tail = read_tail([(word, 1) for word in words[n:]], found == 1)
            return Quantity(number(found), tail) if tail else None
    return None


def _tail_items(text: str) -> list[tuple[str, int]]:
    r"""The words after a number with their powers; `\frac{m}{s}` is `m/s`."""
    text = re.sub(r"\\frac ?\{([^{}]*(?:\{-?\d\})?[^{}]*)\}\{([^{}]*(?:\{-?\d\})?[^{}]*)\}", r"\1/\2", text)
    items: list[tuple[str, int]] = []
    for match in _TAIL_ITEM.finditer(text):
        word, power, slash, percent, degree = match.groups()
        if word is not None:
            items += [(one, int(power or 1)) for one in word.split() or [""]]
        elif slash or percent or degree:
            items.append(("/" if slash else "percent" if percent else "degree", 1))
    if (
        len(items) > 1
        and items[0][0] in ("degree", "degrees")
        and items[1][0].lower() in ("c", "f", "celsius", "fahrenheit")
    ):
        items[:2] = [("celsius" if items[1][0].lower()[0] == "c" else "fahrenheit", 1)]
    return items
