r"""What an answer says, as far as its form goes: a quantity, a list, a tuple, an equation, a region of numbers, or words.

`read` takes a normal form of spelling.py. Everything is read from its first to its last character; what is left over
makes words of the whole, which equal nothing but the same words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache

from a2r_train.verify.exact import approximation, digits, value
from a2r_train.verify.expression import Node, Unreadable, number, parse
from a2r_train.verify.spelling import words_of
from a2r_train.verify.units import Tail, named, number_word, read_tail


@dataclass(frozen=True)
class Quantity:
    """An expression with what stands behind it; `ratio` for `3:4`, which is also written as a fraction."""

    node: Node
    tail: Tail = Tail()


@dataclass(frozen=True)
class Measure:
    """One quantity in several units: `2 hours 15 minutes`."""

    parts: tuple[Quantity, ...]


@dataclass(frozen=True)
class Group:
    """Several answers: `,` a list, `{` a set, `:` a ratio of three or more, else a pair of brackets such as `(]`."""

    kind: str
    items: tuple[Reading, ...]


@dataclass(frozen=True)
class Named:
    """`x = 5`: a name and what it stands for."""

    name: str
    what: Reading
    tree: Node | None = None


@dataclass(frozen=True)
class Relation:
    """An equation or inequality, as a tree that is zero, above zero, or something else."""

    sign: str  # =, <, <=, !=, mod M
    node: Node


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; the flags say whether the ends belong to it."""

    low: Node
    high: Node
    with_low: bool
    with_high: bool


@dataclass(frozen=True)
class Region:
    """A union of intervals and sets of points, without some points; of the variable `name`, if it has one."""

    parts: tuple[Interval | Group, ...]
    without: tuple[Node, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Matrix:
    """Entries row by row; all kinds of brackets are one."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Based:
    """Digits in a number base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Words:
    """A text in lower case; a date has its words in order of the alphabet."""

    text: str


@dataclass(frozen=True)
class False_:
    """A chain of equations that does not hold, such as `5 = 6`; it equals nothing."""


Reading = Quantity | Measure | Group | Named | Relation | Region | Matrix | Based | Words | False_
INFINITY = Node("sym", text=r"\infty")
MINUS_INFINITY = Node("neg", (INFINITY,))
REALS = Region((Interval(MINUS_INFINITY, INFINITY, False, False),))
EMPTY = Group("{", ())
_EMPTY_WORDS = set(
    "no solution|no solutions|no real solution|no real solutions|empty set|the empty set|empty".split("|")
)
_ALL_WORDS = {
    "all real numbers",
    "all reals",
    "the real numbers",
    "real numbers",
    "all real x",
    "the set of real numbers",
}
_MONTHS = set("january february march april may june july august september october november december".split())
_RELATIONS = re.compile(r"\\(?:le|ge|ne|approx|in)(?![A-Za-z])|[=<>]")
_OPENING, _CLOSING = "([{", ")]}"
_NAME = re.compile(
    r"[A-Za-z](?:_(?:[A-Za-z0-9]|\{[^{}]*\}))?'*(?:\([A-Za-z0-9\\ ,+-]*\))?|\\[A-Za-z]+ ?(?:_(?:\w|\{[^{}]*\}))?"
    r"|\\(?:angle|triangle) ?[A-Z]{1,3}|m\\angle ?[A-Z]{1,3}|\\(?:overline|vec|overrightarrow) ?(?:\{[A-Za-z]+\}|[A-Za-z])"
    r'|[A-Z]{2,3}|"[^"]+"(?: "[^"]+"){0,3}(?: ?\([^()]*\))?|P\([^()]*\)|\|?[A-Z]{2}\|?|\[[A-Z]{3,}\]|\\R|\\Z'
)
_LABEL = re.compile(
    r'(?:"the" )?(?:"final" )?"(?:answer|ans|solution|result)"(?: "is")? ?[:=]? ?', re.IGNORECASE
)
_CURRENCY = r'[$£€¥₹]|"(?:rs|usd|eur|gbp|inr)"'
_MONEY_FIRST = re.compile(rf"(-?) ?({_CURRENCY}) ?(-?)(?=[\d.(\\])", re.IGNORECASE)
_MONEY_LAST = re.compile(rf"(?<=[\d)}}]) ?({_CURRENCY})$", re.IGNORECASE)
_UNIT_WORD = r'"[^"]*"(?: ?\^ ?\{?-?\d\}?)?'
_TAIL = re.compile(
    rf"(?:\s*(?:{_UNIT_WORD}|/(?= ?\")|\\cdot(?= ?\")|-(?=\")|%|\\deg|\\frac ?\{{{_UNIT_WORD}\}}\{{{_UNIT_WORD}\}}))+ ?$"
)
_TAIL_ITEM = re.compile(r'"([^"]*)"(?: ?\^ ?\{?(-?\d)\}?)?|(/)|(%)|(\\deg)|\\cdot|-')
_PIECE = re.compile(
    rf'(-?[$£€]?(?:\d[\d,]*(?:\.\d+)?|\(\d+\+\\frac\{{\d+\}}\{{\d+\}}\)))((?: ?(?:"(?!and"|or")[^"]*"(?:\^\d)?|\\deg))+)'
    r'(?:,? ?"and" ?|, ?| |$)?'
)
_BASED = re.compile(r"(-?)\(?([0-9A-Z]+(?:\.[0-9A-Z]+)?)\)? ?_ ?(?:\{([^{}]*)\}|(\d))")
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
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d]|,\d)")
_MATRIX = re.compile(r"\\begin ?\{([pbBs]?(?:mall)?matrix|array)\}")
_PLAIN = re.compile(r"""[\w\s"'.,:;!?()&%$£€/#+<>=*-]*""")


@lru_cache(maxsize=20_000)
def read(text: str) -> Reading:
    """What a normal form says. Raises Unreadable for what is neither mathematics nor words, TooLarge as `value`."""
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) and _LABEL.sub("", text, count=1) else text
    try:
        return _read(text)
    except Unreadable:
        return _words(text)


def nodes_of(reading: object) -> list[Node]:
    """All trees of a reading."""
    if isinstance(reading, Node):
        return [reading]
    if isinstance(reading, tuple):
        return [node for part in reading for node in nodes_of(part)]
    if is_dataclass(reading):
        return [node for part in vars(reading).values() for node in nodes_of(part)]
    return []


def is_sentence(reading: Reading) -> bool:
    """Words that say too much for an answer."""
    if not isinstance(reading, Words):
        return False
    found = reading.text.split()
    verbs = {
        "is",
        "are",
        "was",
        "were",
        "has",
        "have",
        "had",
        "because",
        "can",
        "will",
        "we",
        "he",
        "she",
        "it",
        "they",
    }
    return len(found) > 8 or (len(found) > 3 and bool(verbs & set(found)))


def _words(text: str) -> Words:
    plain = words_of(text)
    letters = sum(c.isalpha() for c in plain)
    if not letters or not (_PLAIN.fullmatch(text) or '"' in text or re.fullmatch(r"\\[a-z]+", text)):
        raise Unreadable(text)
    parts = plain.replace(",", " ").split()
    return Words(" ".join(sorted(parts)) if _MONTHS & set(parts) else plain)


def _read(text: str) -> Reading:
    text = text.strip()
    plain = words_of(text)
    if not text or len(text) > 2500:
        raise Unreadable(text)
    if plain in _EMPTY_WORDS or text in (r"\emptyset", r"\{\}", r"\{\emptyset\}"):
        return EMPTY
    if plain in _ALL_WORDS:
        return REALS
    if (spoken := number_word(plain.replace("-", " ").split())) is not None and not text[0].isdigit():
        return Quantity(number(spoken))
    if re.fullmatch(r"[A-Z]{3,}|\d+[A-Z]{2,}|(?=.*[aeiouAEIOU])[A-Za-z]{3,}", text):
        return Words(text.casefold())
    if len(text) == 3 and text[0] == text[2] == '"':
        text = text[1]
    if r"\mod" in text:
        return _congruence(text)
    if r"\approx" in text:
        return _approximate(text)
    pieces = _pieces(text)
    if pieces:
        return pieces
    text = _with_thousands(text)
    parts, separators = _split(text)
    if len(parts) > 1:
        return _several(parts, separators)
    return _single(text)


def _approximate(text: str) -> Reading:
    """What stands before the sign; what stands behind it where that is a mere name or nothing."""
    before, sign, after = text.partition(r"\approx")
    before, after = before.strip(), after.strip()
    if not before or _NAME.fullmatch(before):
        return _read(before + "=" + after if before else after)
    exact = _read(before)
    inner, rounded = exact.what if isinstance(exact, Named) else exact, _read(after)
    if not (isinstance(inner, Quantity) and isinstance(rounded, Quantity)):
        raise Unreadable(text)
    a, b = approximation(inner.node), approximation(rounded.node)
    if a is None or b is None:
        raise Unreadable(text)
    place = digits(rounded.node)
    return exact if abs(a - b) <= 10.0 ** (place[1] if place else 0) else False_()


def _with_thousands(text: str) -> str:
    """Without the commas of numbers, where no comma of a list can be meant: outside of brackets, and next to no space."""
    inside = re.search(r"[(\[{]", text)
    if inside and not re.search(r"\d, +\S", text):
        head, tail = text[: inside.start()], text[inside.start() :]
        return _THOUSANDS.sub(lambda m: m.group().replace(",", ""), head) + _deep_thousands(tail)
    return _THOUSANDS.sub(lambda m: m.group().replace(",", ""), text)


def _deep_thousands(text: str) -> str:
    r"""The same within `\frac{1,000}{3}` and behind brackets, but not in brackets that may hold a list."""
    text = re.sub(r"(?<=[^\\]\{)\d{1,3}(?:,\d{3})+(?=\})", lambda m: m.group().replace(",", ""), text)
    depth, found, at = 0, "", 0
    while at < len(text):
        depth += (text[at] in _OPENING) - (text[at] in _CLOSING)
        match = _THOUSANDS.match(text, at) if depth == 0 else None
        found += match.group().replace(",", "") if match else text[at]
        at = match.end() if match else at + 1
    return found


def _split(text: str, pattern: str = r'[,;]|"and"|"or"') -> tuple[list[str], list[str]]:
    """The parts between top-level separators, and the separators; `, and` is one."""
    separator = re.compile(pattern)
    parts, separators, depth, start, at = [], [], 0, 0, 0
    while at < len(text):
        char = text[at]
        if char in _OPENING or char in _CLOSING:
            depth += 1 if char in _OPENING else -1
        elif depth == 0 and (match := separator.match(text, at)):
            part, start, at = text[start:at].strip(), match.end(), match.end() - 1
            if part:
                parts.append(part)
                separators.append(match.group())
            elif separators and '"' in match.group():
                separators[-1] = match.group()
            else:
                raise Unreadable(text)
        at += 1
    if depth or not text[start:].strip():
        raise Unreadable(text)
    return [*parts, text[start:].strip()], separators


def _several(parts: list[str], separators: list[str]) -> Reading:
    items = tuple(_single(part) for part in parts)
    if all(isinstance(item, Region) for item in items):
        regions = [item for item in items if isinstance(item, Region)]
        if (
            set(separators) == {'"or"'}
            and len({r.name for r in regions}) == 1
            and not any(r.without for r in regions)
        ):
            return Region(tuple(part for r in regions for part in r.parts), (), regions[0].name)
        if set(separators) == {'"and"'} and len(regions) == 2 and (both := _overlap(*regions)):
            return both
    if '"or"' in separators and '"and"' in separators:
        raise Unreadable("or, and")
    return Group(
        ",", tuple(one for item in items for one in (item.items if _is_pair_of_signs(item) else (item,)))
    )


def _overlap(one: Region, other: Region) -> Region | None:
    """The interval of `x > 1 and x < 3`."""
    for a, b in ((one.parts[0], other.parts[0]), (other.parts[0], one.parts[0])):
        rays = isinstance(a, Interval) and isinstance(b, Interval) and one.name == other.name
        if rays and a.high == INFINITY and b.low == MINUS_INFINITY and INFINITY != b.high:  # type: ignore[union-attr]
            return Region((replace(a, high=b.high, with_high=b.with_high),), (), one.name)  # type: ignore
    return None


def _is_pair_of_signs(item: Reading) -> bool:
    return isinstance(item, Group) and item.kind == ","


def _single(text: str) -> Reading:
    """One answer: no comma, and, or, at its top level."""
    signs = [match.group() for match in _top_level(_RELATIONS, text)]
    if signs:
        return _relation(text, signs)
    if r"\cup" in text or r"\setminus" in text:
        return _region(text)
    if text.strip() == r"\R":
        return REALS
    if r"\pm" in text or r"\mp" in text:
        upper = text.replace(r"\pm", "+").replace(r"\mp", "-")
        lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
        return Group(",", (_single(upper), _single(lower)))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return _set(text[2:-2])
    if text[0] in "([" and text[-1] in ")]":
        parts, _ = _bracket_parts(text[1:-1])
        if len(parts) > 1:
            items = tuple(_single(part) for part in parts)
            return Group(text[0] + text[-1], items)
    for reading in (_matrix, _based, _ratio):
        if (found := reading(text)) is not None:
            return found
    return _quantity(text)


def _bracket_parts(inner: str) -> tuple[list[str], list[str]]:
    try:
        return _split(inner, "[,;]")
    except Unreadable:
        return [inner], []


def _top_level(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    depth, depths = 0, []
    for char in text:
        depth += (char in _OPENING) - (char in _CLOSING)
        depths.append(depth)
    return [match for match in pattern.finditer(text) if depths[match.start()] == 0]


def _set(inner: str) -> Reading:
    if not inner.strip():
        return EMPTY
    builder = re.fullmatch(r"([a-z])(?:\\in ?\\R ?)? ?(?:\\mid ?|\||:) ?(.*)", inner)
    if builder:
        found = _read(builder[2])
        if isinstance(found, Region) and found.name == builder[1]:
            return replace(found, name="")
        raise Unreadable(inner)
    parts, _ = _split(inner, "[,;]")
    return Group("{", tuple(_single(part) for part in parts))


def _relation(text: str, signs: list[str]) -> Reading:
    sides, _ = _split(text, _RELATIONS.pattern)
    if len(sides) != len(signs) + 1:
        raise Unreadable(text)
    if set(signs) == {"="}:
        return _equation(sides)
    if signs == [r"\in"] and _NAME.fullmatch(sides[0]):
        found = _single(sides[1])
        if isinstance(found, Group):
            found = as_region(found) or found
        return replace(found, name=sides[0]) if isinstance(found, Region) else Named(sides[0], found)
    trees = [parse(side) for side in sides]
    found_region = _ray(sides, trees, signs)
    if found_region:
        return found_region
    if len(sides) == 2 and signs[0] != r"\in":
        left, right = trees if signs[0] in (">", r"\ge", r"\ne") else trees[::-1]
        sign = {"<": "<", ">": "<", r"\le": "<=", r"\ge": "<="}.get(signs[0], "!=")
        return Relation(sign, Node("add", (left, Node("neg", (right,)))))
    raise Unreadable(text)


def _equation(sides: list[str]) -> Reading:
    """A name and its value, a chain whose last part counts, or an equation between two sides."""
    first, last = sides[0].strip(), sides[-1].strip()
    if (
        len(sides) == 2
        and _NAME.fullmatch(last)
        and not _NAME.fullmatch(first)
        and not _mentions(first, last)
    ):
        first, last = last, first
    if _NAME.fullmatch(first) and not _mentions(last, first):
        for side in sides[1:-1]:
            if not _holds(side, last):
                return False_()
        return _named(first, _single(last))
    group = _single(first) if first[:1] == "(" and "," in first else None
    if isinstance(group, Group):  # (x, y) = (1, 2)
        names = [
            item.node.text for item in group.items if isinstance(item, Quantity) and item.node.kind == "sym"
        ]
        if len(names) == len(group.items):
            return _single(last)
    trees = [parse(side) for side in sides]
    values = [value(tree) for tree in trees]
    if None not in values:
        return _single(last) if len(set(values)) == 1 else False_()
    if len(sides) > 2:
        raise Unreadable("=".join(sides))
    return Relation("=", Node("add", (trees[0], Node("neg", (trees[1],)))))


def _named(name: str, what: Reading) -> Named:
    try:
        tree = None if '"' in name else parse(name)
    except Unreadable:
        tree = None
    return Named(" ".join(name.replace('"', "").split()), what, tree)


def _mentions(side: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z\\]){re.escape(name)}(?![A-Za-z])", side) is not None


def _holds(side: str, last: str) -> bool:
    """Whether a middle part of a chain may stand: false only where both are known, and differ."""
    try:
        a, b = _quantity(side), _quantity(last)
    except Unreadable:
        return True
    if not (isinstance(a, Quantity) and isinstance(b, Quantity)):
        return True
    x, y = value(a.node), value(b.node)
    return x is None or y is None or x == y


def _ray(sides: list[str], trees: list[Node], signs: list[str]) -> Region | None:
    """The region of `x < 3`, `3 >= x`, `1 < x <= 3`, `x != 0`."""
    at = next((i for i, side in enumerate(sides) if _NAME.fullmatch(side) and '"' not in side), -1)
    others = [tree for i, tree in enumerate(trees) if i != at]
    if at < 0 or any(_has_symbol(tree) for tree in others):
        return None
    if signs == [r"\ne"]:
        return Region(REALS.parts, (others[0],), sides[at])
    low, high, with_low, with_high = MINUS_INFINITY, INFINITY, False, False
    for i, sign in enumerate(signs):
        if sign not in ("<", ">", r"\le", r"\ge") or at not in (i, i + 1):
            return None
        bound, closed = trees[i + 1 if at == i else i], sign in (r"\le", r"\ge")
        if (at == i) == (sign in ("<", r"\le")):
            high, with_high = bound, closed
        else:
            low, with_low = bound, closed
    if len(signs) == 2 and MINUS_INFINITY == low and INFINITY == high:
        return None
    return Region((Interval(low, high, with_low, with_high),), (), sides[at])


def _has_symbol(node: Node) -> bool:
    if node.kind in ("sym", "call"):
        return node.text not in (r"\pi", "e", r"\infty")
    return node.kind == "opaque" or any(_has_symbol(part) for part in node.parts)


def _region(text: str) -> Region:
    before, *after = _split_at(text, r"\setminus")
    if len(after) > 1:
        raise Unreadable(text)
    parts: list[Interval | Group] = []
    for part in _split_at(before, r"\cup"):
        found = _single(part)
        region = found if isinstance(found, Region) else as_region(found)
        if region is None or region.without:
            raise Unreadable(text)
        parts += region.parts
    without: tuple[Node, ...] = ()
    if after:
        points = _single(after[0])
        if not (isinstance(points, Group) and points.kind == "{"):
            raise Unreadable(text)
        without = tuple(item.node for item in points.items if isinstance(item, Quantity))
    return Region(tuple(parts), without)


def _split_at(text: str, command: str) -> list[str]:
    return _split(text, re.escape(command) + r"(?![A-Za-z])")[0] if command in text else [text]


def as_region(reading: Reading) -> Region | None:
    """A pair in brackets as an interval, a set as points; None for anything else."""
    if isinstance(reading, Region):
        return reading
    if not isinstance(reading, Group):
        return None
    if reading.kind == "{":
        return Region((reading,))
    if reading.kind in ("()", "[]", "(]", "[)") and len(reading.items) == 2:
        nodes = [item.node for item in reading.items if isinstance(item, Quantity)]
        if len(nodes) == 2:
            return Region((Interval(nodes[0], nodes[1], reading.kind[0] == "[", reading.kind[1] == "]"),))
    return None


def _congruence(text: str) -> Reading:
    match = re.fullmatch(r"(?:(.*?)\\equiv ?)?(.*?),? ?\\mod ?\{([^{}]*)\}", text)
    if not match:
        raise Unreadable(text)
    right, modulus, left = parse(match[2].strip()), value(parse(match[3])), (match[1] or "").strip()
    if not modulus or modulus.denominator != 1:
        raise Unreadable(text)
    residue = value(right)
    if residue is not None and (not left or _NAME.fullmatch(left)):
        found = (
            Relation(f"mod {modulus}", number(int(residue % modulus))) if residue.denominator == 1 else None
        )
        if found is None:
            raise Unreadable(text)
        return _named(left, found) if left else found
    left_tree = parse(left) if left else number(0)
    return Relation(f"mod {modulus}", Node("add", (right, Node("neg", (left_tree,)))))


def _pieces(text: str) -> Reading | None:
    """`2 hours 15 minutes` as one measure, `9 apples 4 pears` as a list; None for anything else."""
    found, at = [], 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if not match or match.end() == at:
            return None
        found.append(match[1] + match[2])
        at = match.end()
    if len(found) < 2 or (re.search(r",\s|,$", text) and '"and"' not in text and len(found) == 2):
        return None
    items = [_quantity(piece.replace(",", "")) for piece in found]
    quantities = [item for item in items if isinstance(item, Quantity)]
    units = [quantity.tail.unit for quantity in quantities]
    same = len({unit.dimensions for unit in units}) == 1 and len({unit.factor for unit in units}) == len(
        units
    )
    if len(quantities) == len(items) and same and units[0].dimensions:
        return Measure(tuple(quantities))
    return Group(",", tuple(items))


def _matrix(text: str) -> Reading | None:
    match = _MATRIX.search(text)
    if not match:
        return None
    node, scale = parse(text), []
    while node.kind in ("mul", "neg"):
        scale.append(node.parts[0] if node.kind == "mul" else number(-1))
        node = node.parts[-1]
    if node.kind != "matrix":
        return None
    rows = [row.parts for row in node.parts]
    for factor in scale:
        rows = [tuple(Node("mul", (factor, entry)) for entry in row) for row in rows]
    return Matrix(tuple(rows))


def _based(text: str) -> Reading | None:
    match = _BASED.fullmatch(text)
    if not match or not re.search(r"\d", match[2]):
        return None
    base = (match[3] or match[4]).replace('"', "").strip().lower().removeprefix("base").strip()
    number_base = _BASE_WORDS.get(base) or (int(base) if base.isdigit() and len(base) < 4 else 0)
    if not 2 <= number_base <= 36 or any(int(c, 36) >= number_base for c in match[2].replace(".", "")):
        raise Unreadable(text)
    return Based(match[1] + (match[2].lstrip("0") or "0"), number_base)


def _ratio(text: str) -> Reading | None:
    parts = [match.start() for match in _top_level(re.compile(r':|"to"'), text)]
    if not parts:
        return None
    sides, _ = _split(text, r':|"to"')
    if len(sides) == 2:
        last = _quantity(sides[1])
        if not isinstance(last, Quantity) or last.tail.unit.dimensions:
            return None
        return Quantity(
            Node("div", (parse(sides[0]), last.node)), replace(last.tail, mark=last.tail.mark or ":")
        )
    items = [_quantity(side) for side in sides]
    return Group(":", tuple(items))


def _quantity(text: str) -> Reading:
    """An expression with its unit; a leading `negative` is a sign."""
    if text[:1] == '"' and (match := re.match(r'"(?:negative|minus)" ?(?=[\d.(\\])', text, re.IGNORECASE)):
        text = "-" + text[match.end() :]
    money = ""
    if match := _MONEY_FIRST.match(text):
        text, money = match[1] + match[3] + text[match.end() :], match[2].strip('"').lower()
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
        and re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", head)
    ):
        return Quantity(parse(text))
    items = _tail_items(tail_match.group()) if tail_match else []
    if items and re.search(r"[A-Za-z]$", head) and not re.search(r"\\pi ?$", head):
        raise Unreadable(text)
    node = parse(head.strip())
    tail = read_tail([*([(money, 1)] if money and not items else []), *items], node.text == "1")
    if tail is None:
        raise Unreadable(text)
    if money and items:
        base, factor = named(money) or ("", None)
        if factor is None or tail.unit.dimensions not in ((), ((base, 1),)):
            raise Unreadable(text)
        tail = replace(tail, unit=replace(tail.unit, factor=factor, dimensions=((base, 1),)))
    return Quantity(node, tail)


def _spoken(text: str) -> Quantity | None:
    """`five apples`, `two thirds`, `one half`."""
    words = [match[1].lower() for match in _TAIL_ITEM.finditer(text) if match[1]]
    for n in (2, 1):
        found = number_word(words[:n])
        if found is not None and len(words) > n and '"/"' not in text:
            tail = read_tail([(word, 1) for word in words[n:]], found == 1)
            return Quantity(number(found), tail) if tail else None
    return None


def _tail_items(text: str) -> list[tuple[str, int]]:
    r"""The words behind a number with their powers; `\frac{m}{s}` is `m/s`."""
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
