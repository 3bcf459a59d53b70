"""The kinds of answers by their form: quantities, lists, equations, regions of numbers, words and others."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass

from a2r_train.verify.expression import Node
from a2r_train.verify.units import Tail


@dataclass(frozen=True)
class Quantity:
    """An expression and what follows it. `3:4` is a quantity too, as it is also written as a fraction.
    `product` is what `3nm` is if its letters are no unit.
    """

    node: Node
    tail: Tail = field(default_factory=Tail)
    product: Node | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Measure:
    """One quantity in several units: `2 hours 15 minutes`."""

    parts: tuple[Quantity, ...]


@dataclass(frozen=True)
class Group:
    """Several answers. kind: `,` for a list, `{` a set, `:` a ratio of three or more, `=` the named parts of
    a tuple, else a pair of brackets such as `(]`. `join` is the word between the parts of a list. `decimal`
    is what `3,5` is if its comma is that of a decimal. `x = y = 1` has the kind and the join `=`, and
    `01:10:20`, which is no ratio, the join `time`.
    """

    kind: str
    items: tuple[Reading, ...]
    join: str = ""
    decimal: Quantity | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Named:
    """`x = 5`: a name and what it stands for."""

    name: str
    what: Reading
    tree: Node | None = None


@dataclass(frozen=True)
class Relation:
    """An equation or inequality, as the relation of a tree to zero."""

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
    """A union of intervals and sets of points, without some points and intervals, and only as far as it lies
    within all of some other regions; of the variable `name`, if given.
    """

    parts: tuple[Interval | Group, ...]
    without: tuple[Node | Interval, ...] = ()
    name: str = ""
    within: tuple[Region, ...] = ()

    @property
    def is_union(self) -> bool:
        """Whether it is the union of its parts and no less."""
        return not self.without and not self.within


@dataclass(frozen=True)
class Matrix:
    """Entries row by row; the kind of brackets does not matter."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Vector:
    """A sum of unit vectors by its components, each with its unit; `plain` is the sum with plain letters."""

    components: tuple[Quantity, ...]
    plain: Quantity


@dataclass(frozen=True)
class Based:
    """Digits in a number base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Clock:
    """A time of day with a.m. or p.m., in minutes after midnight; `is_hour` if no minutes are written."""

    minutes: int
    is_hour: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Words:
    """A text in lower case; a date has its words in alphabetical order."""

    text: str


@dataclass(frozen=True)
class Piece:
    """The value of a function where a condition holds; without one, wherever those of the others do not."""

    value: Quantity
    when: Reading | None


@dataclass(frozen=True)
class Pieces:
    """A function by its pieces, as `cases` gives it."""

    items: tuple[Piece, ...]


@dataclass(frozen=True)
class False_:
    """A chain of equations that does not hold, such as `5 = 6`; it equals nothing."""


Reading = (
    Quantity
    | Measure
    | Group
    | Named
    | Relation
    | Region
    | Matrix
    | Vector
    | Based
    | Clock
    | Words
    | Pieces
    | False_
)
INFINITY = Node("sym", text=r"\infty")
MINUS_INFINITY = Node("neg", (INFINITY,))
REALS = Region((Interval(MINUS_INFINITY, INFINITY, False, False),))
EMPTY = Group("{", ())


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
    """Whether it is words that are too long for an answer."""
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


def is_set(reading: Reading) -> bool:
    return isinstance(reading, Group) and reading.kind == "{"


def points_in(reading: Reading) -> tuple[Node, ...] | None:
    """The numbers of a list, of a set, or of one answer; None if there is anything else among them."""
    items = reading.items if isinstance(reading, Group) and reading.kind in (",", "{") else (reading,)
    nodes = tuple(item.node for item in items if isinstance(item, Quantity) and item.tail == Tail())
    return nodes if len(nodes) == len(items) else None


def has_symbol(node: Node) -> bool:
    """Whether a tree holds a letter, or what may hold one."""
    if node.kind in ("sym", "call"):
        return node.text not in (r"\pi", "e", r"\infty")
    return node.kind == "opaque" or any(has_symbol(part) for part in node.parts)


def linked(group: Reading, other: Reading) -> Reading | None:
    """The part of `x = y = 1`, or of a set of one, that is compared with a single answer; None otherwise."""
    if not isinstance(group, Group) or not isinstance(other, Named | Quantity):
        return None
    if group.kind == "{" and len(group.items) == 1 and isinstance(other, Quantity):
        item = group.items[0]  # \{x\} may be the fractional part of x
        return item if isinstance(item, Quantity) and not has_symbol(item.node) else None
    if not group.kind == group.join == "=":
        return None
    name = other.name if isinstance(other, Named) else ""
    same = (item for item in group.items if isinstance(item, Named) and item.name == name)
    return next(same, group.items[0])


def as_product(a: Reading, b: Reading) -> Reading:
    """`3nm` as a product if the other is one of letters, such as `3mn`; otherwise as it is."""
    if not isinstance(a, Quantity) or a.product is None:
        return a
    letters = isinstance(b, Quantity) and b.product is None and b.tail == Tail() and has_symbol(b.node)
    return Quantity(a.product) if letters else a


def decimal_comma(a: Reading, b: Reading) -> tuple[Quantity, Quantity] | None:
    """The two as quantities if one of them is, and the other has a comma that may be that of a decimal."""
    one = a.decimal if isinstance(a, Group) else a
    other = b.decimal if isinstance(b, Group) else b
    return (one, other) if isinstance(one, Quantity) and isinstance(other, Quantity) else None
