r"""Reads an answer by its form: a quantity, a list, a tuple, an equation, a region of numbers, or words.

`read` takes a normal form of spelling.py. It reads all of it; if anything is left over, the whole counts as
words, which equal nothing but the same words.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

from a2r_train.verify.builders import read_builder
from a2r_train.verify.chains import equal_amounts, equal_names, holds, members, named_parts, system
from a2r_train.verify.chemistry import formula
from a2r_train.verify.congruences import read_congruence
from a2r_train.verify.dates import date_alone, in_one_order
from a2r_train.verify.exact import approximation, digits, value
from a2r_train.verify.expression import (
    ACCENTS,
    FIGURES,
    FUNCTIONS,
    GREEK,
    MAX_DEPTH,
    Node,
    Unreadable,
    number,
    parse,
)
from a2r_train.verify.inequalities import NEAR, ascending, combined, ray, solved
from a2r_train.verify.kinds import (
    EMPTY,
    INFINITY,
    REALS,
    False_,
    Group,
    Interval,
    Named,
    Quantity,
    Reading,
    Region,
    Relation,
    Words,
    as_region,
    has_symbol,
    points_in,
)
from a2r_train.verify.lists import each_named, flat, with_comma
from a2r_train.verify.matrices import read_matrix, read_transpose
from a2r_train.verify.naming import NAME, called, mentions
from a2r_train.verify.phrases import plain
from a2r_train.verify.piecewise import read_piecewise
from a2r_train.verify.products import is_word
from a2r_train.verify.quantifiers import family_in, unquantified
from a2r_train.verify.quantities import (
    CURRENCY,
    read_based,
    read_clock,
    read_pieces,
    read_quantity,
    read_ratio,
    read_sum,
    without_money,
)
from a2r_train.verify.signs import each_sign
from a2r_train.verify.spelling import words_of
from a2r_train.verify.splitting import CLOSING, OPENING, bracket_parts, split, split_at, top_level
from a2r_train.verify.units import NO_UNIT, is_unit, number_word, vocabulary
from a2r_train.verify.vectors import BOLD, read_vector

_EMPTY_WORDS = {
    "no solution",
    "no solutions",
    "no real solution",
    "no real solutions",
    "empty set",
    "the empty set",
    "empty",
}
_ALL_WORDS = {
    "all real numbers",
    "all reals",
    "the real numbers",
    "real numbers",
    "all real x",
    "the set of real numbers",
}
_RELATIONS = re.compile(r"\\(?:le|ge|ne|approx|in)(?![A-Za-z])|[=<>]")
_UNIT_BEHIND = re.compile(r'(?<=[\d})])"([a-z]{2,3})"')
_NEW_LINE = r"\\\\(?![A-Za-z]{2})"  # where words are in quotes; `\\\\frac` is a backslash too many
_IMPLIES = re.compile(r"\\(?:implies|Rightarrow|Longrightarrow|iff|Leftrightarrow)(?![A-Za-z])")
_UNIONS = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])")
_NAMES_OF_RATIO = re.compile(r"(?:[A-Za-z]|[A-Z]{2})(?: ?: ?(?:[A-Za-z]|[A-Z]{2}))+")
_POSITIVE = re.compile(r"\\R ?(?:\^ ?\{?\+\}?|_ ?\{?(?:\+|>0)\}?)")
_BOLD_NAME = re.compile(r"^\{([A-Za-z])\}(?=$|\()")
_CHOICE = re.compile(r"\(?([A-E])(?:\)|\.) (?=[\d$]|\\frac|\\sqrt)(.+)")
_POINT = re.compile(r"([A-Z])(\([-\d./]+(?:, ?[-\d./]+)+\))")
_LABEL = re.compile(
    r'(?:"the" )?(?:"final" )?"(?:answer|ans|solution|result)"(?: "is")? ?[:=]? ?', re.IGNORECASE
)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d]|,\d)")
# As in India. Without rupees only round numbers, because 1,20,345 may be a list.
_LAKHS = re.compile(r"(?<![\d.,])[1-9]\d?(?:,\d\d)+,000(?!\d|,\d)")
_RUPEES = re.compile(r"(?<![\d.,])[1-9]\d?(?:,\d\d)+,\d{3}(?!\d|,\d)")
# Arguments such as those of \frac{1,000}{3}, which hold no list.
_BRACES = re.compile(r"(?:(?<=\\frac )|(?<=\\sqrt )|(?<=\\binom )|(?<=[\]}^]))\{[^{}()\[\]]*\}")
_SIGNS = FUNCTIONS | GREEK | ACCENTS | FIGURES
_SIGNS |= vocabulary(
    "cup cap subset subseteq supset supseteq to implies iff Rightarrow Leftrightarrow rightarrow neg "
    "forall exists R Z N Q C begin end overleftarrow "
    "cong sim perp parallel in notin ni mid nmid le ge ne equiv approx pi infty frac sqrt binom cdot "
    "pm mp setminus oplus "
    "otimes circ deg mod propto therefore ldots emptyset land lor top bot"
)
_ARTICLE = re.compile(r"(?:the|an?) ([^\W\d]{2}\S*(?: \S+){0,2})")  # before a name: `an octagon`
_PLAIN = re.compile(r"""[\w\s\u0900-\u0dff\u0e00-\u0e7f"'.,:;!?()&%$£€/#+<>=*-]*""")  # \w has no vowel signs


@lru_cache(maxsize=20_000)
def read(text: str) -> Reading:
    """What a normal form says. Raises Unreadable unless it is mathematics or words, TooLarge as `value`."""
    if r"\begin" in text and (pieces := read_piecewise(text, read)):
        return pieces
    text = plain(text)
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) and _LABEL.sub("", text, count=1) else text
    text = unquantified(text)
    depth = list(accumulate((char in OPENING) - (char in CLOSING) for char in text))
    if depth and (max(depth) > MAX_DEPTH or text.count(r"\approx") > 3):
        raise Unreadable(text)
    if BOLD in text:
        try:
            return _read(text)
        except Unreadable:  # no unit vectors: bold letters are plain letters
            text = text.replace(BOLD, " ")
    try:
        return _read(text)
    except Unreadable:
        if (products := _UNIT_BEHIND.sub(lambda m: m[1] if is_unit(m[1]) else m[0], text)) != text:
            return _or_words(products, text)
        text = ascending(text)
        return _words(text) or _formula(text)


def _or_words(products: str, text: str) -> Reading:
    """`2nm+1` with nm as a product, as no unit stands there; otherwise the text as words."""
    try:
        return _read(products)
    except Unreadable:
        return _words(text) or _formula(text)


def _formula(text: str) -> Words:
    """A formula that no comparison understands: it equals only itself."""
    depth = list(accumulate((char in OPENING) - (char in CLOSING) for char in text))
    commands = set(re.findall(r"\\([A-Za-z]+)", text))
    if not commands <= _SIGNS or min(depth) < 0 or depth[-1] or re.search(r"\{ ?\}", text) or not commands:
        raise Unreadable(text)
    environments = set(re.findall(r"\\(?:begin|end) ?\{([^{}]*)\}", text))
    if "begin" in commands and (environments != {"cases"} or text.count("begin") != text.count(r"\end")):
        raise Unreadable(text)
    for sign in (r"\cup", r"\cap"):
        if re.fullmatch(rf"[A-Z]'?(?: ?\{sign} ?[A-Z]'?)+", text):
            return Words(sign.join(sorted("".join(text.split()).split(sign))))
    return Words("".join(text.split()))


def _words(text: str) -> Words | None:
    said = words_of(text)
    if re.fullmatch(r" ?\([a-z ]+\) ?", said):
        said = said[1:-1].strip()
    letters = sum(c.isalpha() for c in said)
    if re.fullmatch(r"[\d.]+'{1,2}", text):
        return Words(text)
    if not letters or not (_PLAIN.fullmatch(text) or '"' in text or re.fullmatch(r"\\[a-z]+", text)):
        return None
    parts = said.replace(",", " ").split()
    if re.fullmatch(r"[pqr] (?:and|or) [pqr]", said):  # a statement of logic
        return Words(f"{parts[1]} {' '.join(sorted(parts[::2]))}")
    said = in_one_order(said) or said
    return Words(match[1] if (match := _ARTICLE.fullmatch(said)) else said)


def _read(text: str) -> Reading:
    text = text.strip()
    said = words_of(text)
    if not text or len(text) > 2500:
        raise Unreadable(text)
    if group := re.fullmatch(r"\{([^{}]+)\}", text):
        return _read(group[1])
    if r"\begin" in text and (rows := system(text)):
        return _read(rows)
    if "\\\\" in text and r"\begin" not in text and len(lines := split(text, _NEW_LINE)[0]) > 1:
        return _read(", ".join(lines))
    if said in _EMPTY_WORDS or text in (r"\emptyset", r"\{\}", "{}"):
        return EMPTY
    if said in _ALL_WORDS:
        return REALS
    if found := date_alone(text) or formula(text):
        return Words(found)
    if (spoken := _spoken_number(said)) is not None and not text[0].isdigit():
        return Quantity(number(spoken))
    if is_word(text):
        return Words(text.casefold())
    if r"\mod" in text:
        return read_congruence(text)
    if r"\approx" in text:
        return _approximate(text)
    if (match := _CHOICE.fullmatch(text)) and text[0] != "(":  # its bracket has no other one
        return Named(f"({match[1]})", _single(match[2]))
    pieces = read_pieces(text)
    if pieces:
        return pieces
    text = _with_thousands(text)
    parts, separators = split(text)
    if len(parts) > 1:
        return _several(parts, separators, tight=re.fullmatch(r"[^,]*\d,\d[^,]*", text) is not None)
    return _single(text)


def _approximate(text: str) -> Reading:
    """What precedes the sign, or what follows it if only a name or nothing precedes it."""
    before, _, after = text.partition(r"\approx")
    before, after = before.strip(), after.strip()
    if not before or (NAME.fullmatch(before) and before not in (r"\pi", "e")):
        return _read(before + "=" + after if before else after)
    exact = _read(before)
    inner, rounded = exact.what if isinstance(exact, Named) else exact, _read(after)
    if not (isinstance(inner, Quantity) and isinstance(rounded, Quantity)):
        raise Unreadable(text)
    a, b = approximation(inner.node), approximation(rounded.node)
    if a is None or b is None:
        raise Unreadable(text)
    place = digits(rounded.node)
    share = 0.01 if rounded.tail.percent and not inner.tail.percent else 1.0
    step, b = share * (10.0 ** place[1] if place else 1.0), share * b
    is_cut = place is not None and 0 <= abs(a) - abs(b) < step and a * b >= 0
    return exact if is_cut or abs(a - b) <= step * (0.5 + NEAR) else False_()


def _with_thousands(text: str) -> str:
    """Without the commas in numbers, if they cannot be commas of a list: outside brackets and not next to a
    space."""
    lakhs = (
        _RUPEES if "₹" in text or ('"r' in text and re.search('"(?:rs|rupees?|inr)"', text, re.I)) else _LAKHS
    )
    text = lakhs.sub(lambda m: m.group().replace(",", ""), text)
    text = _BRACES.sub(lambda m: _THOUSANDS.sub(lambda n: n.group().replace(",", ""), m.group()), text)
    inside = re.search(r"[(\[{]", text)
    if inside and not re.search(r"\d, +\S", text):
        head, tail = text[: inside.start()], text[inside.start() :]
        return _THOUSANDS.sub(lambda m: m.group().replace(",", ""), head) + _deep_thousands(tail)
    return _THOUSANDS.sub(lambda m: m.group().replace(",", ""), text)


def _deep_thousands(text: str) -> str:
    """The same after brackets, but not in brackets that may hold a list."""
    depth, found, at = 0, "", 0
    while at < len(text):
        depth += (text[at] in OPENING) - (text[at] in CLOSING)
        match = _THOUSANDS.match(text, at) if depth == 0 else None
        found += match.group().replace(",", "") if match else text[at]
        at = match.end() if match else at + 1
    return found


def _several(parts: list[str], separators: list[str], tight: bool) -> Reading:
    words = [found for part in parts if (found := _words_alone(part))]
    items: tuple[Reading, ...] = tuple(words)
    if len(words) < len(parts):
        items = tuple(_single(part) for part in parts)
    if region := combined(items, separators):
        return region
    if ('"or"' in separators and '"and"' in separators) or all(_is_statement(part) for part in parts):
        raise Unreadable("or, and")
    listed = flat(each_named(items))
    join = "or" if '"or"' in separators else "and" if '"and"' in separators else ""
    return Group(",", listed, join, with_comma(items) if tight and separators == [","] else None)


def _words_alone(part: str) -> Words | None:
    """One of several answers in words: `red`, `Bob`."""
    if not re.fullmatch(r'(?:(?:"[^"]+"|[A-Z][a-z]+) ?){1,3}', part) or len(part.replace('"', "")) < 3:
        return None
    said = words_of(part)
    return None if set(said.split()) & NO_UNIT or _spoken_number(said) is not None else Words(said)


def _spoken_number(said: str) -> int | None:
    return number_word(said.replace("-", " ").split())


def _is_statement(part: str) -> bool:
    """A letter of logic: `p and q` is one statement."""
    return part.strip() in ("p", "q", "r")


def _last_step(text: str, steps: list[str]) -> Reading:
    """The result of `2x = 10 \\implies x = 5`, if it is about one name."""
    found = [_single(step) for step in steps]
    names = {step.name for step in found if isinstance(step, Named)}
    if len(names) != 1 or not isinstance(found[-1], Named):
        raise Unreadable(text)
    return found[-1]


def _single(text: str) -> Reading:
    """One answer, without a comma, `and` or `or` at its top level."""
    if len(text) == 3 and text[0] == text[2] == '"':  # a letter in \text{}
        text = text[1]
    if text in (r"\emptyset", r"\{\}"):
        return EMPTY
    if _IMPLIES.search(text):
        return _last_step(text, split(text, _IMPLIES.pattern)[0])
    if date := date_alone(text):
        return Words(date)
    signs = [match.group() for match in top_level(_RELATIONS, text)]
    if signs:
        return _relation(text, signs)
    if top_level(_UNIONS, text):
        return _region(text)
    if text.strip() == r"\R":
        return REALS
    if text.startswith(r"\{") and text.endswith(r"\}") and (r"\pm" in text or r"\mp" not in text):
        return _set(text[2:-2])
    if r"\pm" in text or r"\mp" in text:
        return Group(",", tuple(map(_single, each_sign(text))))
    if match := _POSITIVE.fullmatch(text):
        return Region((Interval(number(0), INFINITY, False, False),))
    if match := _CHOICE.fullmatch(text):
        return Named(f"({match[1]})", _single(match[2]))
    if (match := _POINT.fullmatch(text)) and isinstance(point := _single(match[2]), Group):
        return Named(match[1], point)
    if (columns := read_transpose(text, _single)) is not None:
        return columns
    if _wraps(text):  # (5 dollars), (50%)
        return _single(text[1:-1])
    if text.startswith("[[") and ";" not in text and (rows := _rows(text)):
        return rows
    if text[0] in "([" and text[-1] in ")]":
        parts, _ = bracket_parts(text[1:-1])
        if len(parts) > 1:
            items = tuple(_single(part) for part in parts)
            return Group(text[0] + text[-1], items)
    for reading in (read_vector, read_clock, read_matrix, read_based, read_ratio, read_sum):
        if (found := reading(text)) is not None:
            return found
    return read_quantity(text)


def _rows(text: str) -> Group | None:
    """`[[1, 2], [3, 4]]` as a list of lists, also with one row or one entry per row; None otherwise."""
    parts, _ = bracket_parts(text[1:-1])
    if not all(part[:1] == "[" and part[-1:] == "]" for part in parts):
        return None
    rows = [bracket_parts(part[1:-1])[0] for part in parts]
    if len({len(row) for row in rows}) > 1 or not all(map(all, rows)) or len(rows[0]) == len(rows) == 1:
        return None
    return Group("[]", tuple(Group("[]", tuple(map(_single, row))) for row in rows))


def _wraps(text: str) -> bool:
    """Whether brackets enclose one quantity with its unit."""
    return re.fullmatch(r'\([^(),;]*["%][^(),;]*\)', text) is not None


def _set(inner: str) -> Reading:
    if not inner.strip():
        return EMPTY
    if family := family_in(inner):
        return _read(family)
    if found := read_builder(inner, _read):
        return found
    parts, _ = split(inner, "[,;]")
    words = [said for part in parts if (said := _words_alone(part))]
    if len(words) == len(parts) > 1:
        return Group("{", tuple(words))
    return Group("{", flat([_single(part) for part in parts]))


def _relation(text: str, signs: list[str]) -> Reading:
    sides, _ = split(text, _RELATIONS.pattern)
    if len(sides) != len(signs) + 1:
        raise Unreadable(text)
    if set(signs) == {"="}:
        return _equation(sides)
    if signs == [r"\in"] and NAME.fullmatch(sides[0]):
        found = _single(sides[1])
        if isinstance(found, Group) and found.kind != "{":
            found = as_region(found) or found
        named = called(sides[0], found)
        return replace(found, name=sides[0]) if isinstance(found, Region) else replace(named, name=sides[0])
    if signs == [r"\in"] and sides[0][:1] == "(":
        return members(_single(sides[0]), _single(sides[1]), text)
    if signs == [r"\ne"] and r"\pm" in sides[1] and NAME.fullmatch(sides[0]):
        points = points_in(_single(sides[1])) or ()
        if points and not any(map(has_symbol, points)):
            return Region(REALS.parts, points, sides[0])
    trees = [parse(side) for side in sides]
    found_region = ray(sides, trees, signs)
    if found_region:
        return found_region
    if (
        len(sides) == 2
        and signs[0] in ("<", ">", r"\le", r"\ge")
        and (region := solved(trees[0], trees[1], signs[0]))
    ):
        return region
    if len(sides) == 2 and signs[0] != r"\in":
        left, right = trees if signs[0] in (">", r"\ge", r"\ne") else trees[::-1]
        sign = {"<": "<", ">": "<", r"\le": "<=", r"\ge": "<="}.get(signs[0], "!=")
        return Relation(sign, Node("add", (left, Node("neg", (right,)))))
    raise Unreadable(text)


def _equation(sides: list[str]) -> Reading:
    """A name and its value, a chain whose last part counts, or an equation between two sides."""
    if any("\\\\" in side and r"\begin" not in side for side in sides):
        raise Unreadable("=".join(sides))
    sides = [_BOLD_NAME.sub(r"\1", side) if side[:1] == "{" else side for side in map(str.strip, sides)]
    first, last = sides[0], sides[-1]
    if len(sides) == 2 and NAME.fullmatch(last) and not NAME.fullmatch(first) and not mentions(first, last):
        first, last = last, first
    if len(sides) > 2 and (equal := _equal_names(sides)):
        return equal
    if NAME.fullmatch(first) and not mentions(last, first):
        for side in sides[1:-1]:
            if not holds(side, last):
                return False_()
        return called(first, _single(last))
    if len(sides) == 2 and _NAMES_OF_RATIO.fullmatch(first) and ":" in last:
        return called(first.replace(" ", ""), _single(last))
    group = _single(first) if first[:1] == "(" and "," in first else None
    if isinstance(group, Group):  # (x, y) = (1, 2)
        names = [
            item.node.text for item in group.items if isinstance(item, Quantity) and item.node.kind == "sym"
        ]
        if len(names) == len(group.items):
            return named_parts(names, _single(last), last)
    marks = set(CURRENCY.findall("=".join(sides)))
    mark = marks.pop() if len(marks) == 1 else ""
    if '"' in "".join(sides) and (amount := equal_amounts(sides, mark)):
        return amount
    trees = [parse(without_money(side, mark)) for side in sides]
    values = [value(tree) for tree in trees]
    if None not in values:
        return _single(last) if len(set(values)) == 1 else False_()
    if len(sides) > 2:
        raise Unreadable("=".join(sides))
    return Relation("=", Node("add", (trees[0], Node("neg", (trees[1],)))))


def _equal_names(sides: list[str]) -> Reading | None:
    """`x = y = 1` and `a = b = c`; None for any other chain."""
    return equal_names(sides, None) or (
        equal_names(sides[:-1], _single(sides[-1])) if equal_names(sides[:-1], EMPTY) else None
    )


def _region(text: str) -> Region:
    first, *others = split_at(text, r"\cap")
    if others:
        if top_level(re.compile(r"\\(?:cup|setminus)(?![A-Za-z])"), text):
            raise Unreadable(text)
        return replace(_region_alone(first), within=tuple(map(_region_alone, others)))
    before, *after = split_at(text, r"\setminus")
    parts: list[Interval | Group] = []
    for part in split_at(before, r"\cup"):
        found = _single(part)
        region = found if isinstance(found, Region) else as_region(found)
        if region is None or not region.is_union:
            raise Unreadable(text)
        parts += region.parts
    return Region(tuple(parts), tuple(taken for part in after for taken in _taken(part)))


def _region_alone(text: str) -> Region:
    found = as_region(_single(text))
    if found is None:
        raise Unreadable(text)
    return found


def _taken(text: str) -> tuple[Node | Interval, ...]:
    """The points or the interval after a sign of difference: all of it counts."""
    found = _single(text)
    if isinstance(found, Group) and found.kind == "{" and (points := points_in(found)) is not None:
        return points
    interval = as_region(found) if isinstance(found, Group) and found.kind != "{" else None
    if interval is None:
        raise Unreadable(text)
    return tuple(part for part in interval.parts if isinstance(part, Interval))
