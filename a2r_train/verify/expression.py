r"""Mathematics of a normal form as a tree: numbers, symbols, arithmetic, powers, roots, functions, matrices.

A text is read as a whole or not at all. Sums, integrals and limits are not parsed here: they become an
`opaque` node, which only the worker's sympy can read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from a2r_train.verify.units import vocabulary

MAX_DEPTH, MAX_HEIGHT = 40, 90  # of nested brackets, and of nested operations
_CIRCULAR, _HYPERBOLIC = vocabulary("sin cos tan cot sec csc"), vocabulary("sinh cosh tanh coth sech csch")
# Each inverse function by its names: `arsinh`, `arcsinh`, `argsinh` and `asinh` are one.
_INVERSES = {f"{prefix}{name}": name for prefix in ("arc", "a") for name in _CIRCULAR}
_INVERSES |= {f"{prefix}{name}": name for prefix in ("arc", "ar", "arg", "a") for name in _HYPERBOLIC}
_INVERSES |= {"arccosec": "csc"}
_OTHER_NAMES = {"cosec": "csc", "cosech": "csch"}
NAMED_FUNCTIONS = {*_INVERSES, *_HYPERBOLIC, *_OTHER_NAMES}  # besides those that plain TeX has
FUNCTIONS = NAMED_FUNCTIONS | vocabulary("sin cos tan cot sec csc cis log ln exp lg det gcd lcm max min")
_OF_SETS = vocabulary("max min gcd lcm")  # of the numbers in braces; elsewhere {x} may be a fractional part
GREEK = vocabulary(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon "
    "phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar aleph nabla partial"
)
ACCENTS = vocabulary(
    "vec hat bar overline tilde dot ddot mathcal mathscr mathfrak overrightarrow overleftrightarrow"
)
FIGURES = vocabulary("angle triangle square odot")  # named by the letters that follow
_CALLED = set("fgFGP")  # letters that are functions before a bracket
_OPAQUE = re.compile(r"\\(?:int|iint|oint|sum|prod|lim|partial)(?![A-Za-z])|\\frac ?\{d\}\{d[a-z]\}")
_DERIVATIVE = re.compile(
    r"\\frac ?\{((?:\\partial ?|d)(?:\^ ?\{?\d\}?)? ?(?:[A-Za-z]|\\[a-z]+ ?))\}"
    r"\{((?:(?:\\partial ?|d)(?:[A-Za-z]|\\[a-z]+ ?)(?:\^ ?\{?\d\}?)? ?){1,3})\}"
    r"|(?<![A-Za-z])(d[a-z])/(d[a-z])(?![A-Za-z])"
)  # of a name; it counts as a name itself
_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+(?![.\d]))?)|(?P<command>\\(?:[A-Za-z]+|[{}|\\]))|"
    r"(?P<letter>[A-Za-z])|(?P<sign>[-+*/^_!'(){}\[\]|,&=%])|(?P<space> )"
)


class Unreadable(Exception):
    """The text cannot be read as mathematics."""


@dataclass(frozen=True)
class Node:
    """An operation with its operands, or, with `text`, a number or a symbol."""

    kind: str
    parts: tuple[Node, ...] = ()
    text: str = ""
    height: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        height = 1 + max((part.height for part in self.parts), default=0)
        if height > MAX_HEIGHT:
            raise Unreadable("too high")
        object.__setattr__(self, "height", height)


def number(value: int) -> Node:
    return Node("num", text=str(value))


@lru_cache(maxsize=20_000)
def parse(text: str) -> Node:
    """The tree of one expression. Raises Unreadable unless the whole text is one."""
    if r"\unit" in text:  # a bold letter may be a unit vector; reading.py then reads it as a letter
        raise Unreadable(text)
    as_it_stands, text = text, _DERIVATIVE.sub(lambda m: rf"\dot {{{m[1] or m[3]},{m[2] or m[4]}}}", text)
    if _OPAQUE.search(re.sub(r"\\dot \{.*?,.*?\}", "", text) if r"\dot {" in text else text):
        if '"' in text or "," in text or "=" in re.sub(r"_ ?\{[^{}]*\}", "", text):
            raise Unreadable(text)
        return Node("opaque", text=as_it_stands)
    reader = _Reader(text)
    node = reader.sum()
    if reader.at < len(reader.tokens):
        raise Unreadable(text)
    return node


def _cross(left: Node, right: Node) -> Node:
    """The product of two vectors or sets; a number in front stays outside."""
    if left.kind == "mul" and left.parts[1].kind != "cross":
        return Node("mul", (left.parts[0], _cross(left.parts[1], right)))
    if left.kind == "neg":
        return Node("neg", (_cross(left.parts[0], right),))
    return Node("cross", (left, right))


def _one_over(node: Node) -> Node:
    return Node("div", (number(1), node))


def _direct(name: str, arguments: tuple[Node, ...]) -> Node:
    if name in ("sech", "csch"):
        return _one_over(Node("fn", arguments, {"sech": "cosh", "csch": "sinh"}[name]))
    return Node("fn", arguments, name)


def _inverse(name: str, arguments: tuple[Node, ...]) -> Node:
    r"""The inverse of a function of one number, by those that the worker knows: `\sec^{-1} x` is
    `\arccos(1/x)`, and inverse hyperbolic functions are logarithms.
    """
    if len(arguments) != 1:
        raise Unreadable(name)
    x, one = arguments[0], number(1)
    if name in ("sec", "csc", "sech", "csch"):
        return _inverse({"sec": "cos", "csc": "sin", "sech": "cosh", "csch": "sinh"}[name], (_one_over(x),))
    if name in ("sinh", "cosh"):
        square = Node("pow", (x, number(2)))
        other = Node("add", (square, one if name == "sinh" else Node("neg", (one,))))
        return Node("fn", (Node("add", (x, Node("root", (other, number(2))))),), "ln")
    if name in ("tanh", "coth"):
        sides = (one, Node("neg", (x,))) if name == "tanh" else (x, Node("neg", (one,)))
        ratio = Node("div", (Node("add", (one, x)), Node("add", sides)))
        return Node("div", (Node("fn", (ratio,), "ln"), number(2)))
    return Node("fn", arguments, "acot" if name == "cot" else "arc" + name)


def _without_sign(node: Node) -> Node | None:
    """The same without its minus sign, as x for `-x` and 2x for `-2x`; None if it has none."""
    if node.kind == "neg":
        return node.parts[0]
    inner = _without_sign(node.parts[0]) if node.kind in ("mul", "div") else None
    return inner and Node(node.kind, (inner, node.parts[1]))


class _Reader:
    """Recursive descent over the tokens; each method reads one kind of thing from position `at`."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.at = self.depth = self.bars = 0
        end = 0
        for match in _TOKEN.finditer(text):
            if match.start() != end:
                break
            end = match.end()
            if match.lastgroup != "space":
                self.tokens.append(match.group())
        if end != len(text) or not self.tokens:
            raise Unreadable(text)

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise Unreadable(f"{expected or 'more'} expected")
        self.at += 1
        return token

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too deep")
        terms = [self.product()]
        while self.peek() in ("+", "-"):
            minus = self.take() == "-"
            term = self.product()
            terms.append(Node("neg", (term,)) if minus else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        node = last = self.signed()
        while True:
            if self.peek() in (r"\cdot", "*"):
                self.take()
                last = self.signed()
                node = Node("mul", (node, last))
            elif self.peek() == r"\cross":
                self.take()
                node = _cross(node, last := self.factor())
            elif self.peek() == "/":
                self.take()
                last = self.factor()
                node = Node("div", (node, last))
            elif self.follows(last):
                last = self.factor()
                node = Node("mul", (node, last))
            else:
                return node

    def follows(self, last: Node) -> bool:
        """Whether a factor stands here without a sign. Digits do only behind a factorial or a power of a
        number, as in `2!3!` and `2^3 3^2`: `2 3` may be anything, and `2^3 1/2` may be a mixed number.
        """
        if not self.starts_factor() or not (self.peek()[0].isdigit() or self.peek()[0] == "."):
            return self.starts_factor()
        while last.kind == "neg":
            last = last.parts[0]
        closed = last.kind in ("fact", "double_fact") or (last.kind == "pow" and last.parts[0].kind == "num")
        return closed and self.peek()[0] != "." and self.peek(1) != "/"

    def signed(self) -> Node:
        minus = False
        while self.peek() in ("+", "-"):
            minus ^= self.take() == "-"
        node = self.factor()
        return Node("neg", (node,)) if minus else node

    def starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return self.bars == 0
        if token.startswith("\\"):
            name = token[1:]
            known = name in FUNCTIONS or name in GREEK or name in ACCENTS or name in FIGURES
            return known or name in ("frac", "sqrt", "pi", "infty", "binom", "begin", "lfloor", "lceil")
        return token[:1].isalnum() or (token[:1] in (".", "(", "{", "[") and token != "")

    def factor(self) -> Node:
        node = self.atom()
        while True:
            token = self.peek()
            if token == "^":
                self.take()
                node = Node("pow", (node, self.exponent()))
            elif token == "!":
                self.take()
                is_double = self.peek() == "!"  # 7!! = 7 * 5 * 3, and (7!)! is another number
                self.at += is_double
                node = Node("double_fact" if is_double else "fact", (node,))
            elif token == "%":
                self.take()
                node = Node("div", (node, number(100)))
            elif token == r"\deg":
                self.take()
                node = Node("mul", (node, Node("div", (Node("sym", text=r"\pi"), number(180)))))
            else:
                return node

    def exponent(self) -> Node:
        if self.peek() in ("-", "+"):
            return self.signed()
        return self.braced() if self.peek() == "{" else self.atom()

    def braced(self) -> Node:
        self.take("{")
        node = self.sum()
        self.take("}")
        return node

    def argument(self) -> Node:
        r"""What a command takes: a group, or one character, as in `\frac12`."""
        token = self.peek()
        if token == "{":
            return self.braced()
        if token.isdigit():
            self.tokens[self.at] = token[1:]
            if not token[1:]:
                self.at += 1
            return Node("num", text=token[0])
        return self.atom()

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too deep")
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            node = Node("num", text=token)
        elif token.isalpha():
            node = self.symbol(token)
        elif token in ("(", "{", "["):
            node = self.sum()
            self.take({"(": ")", "{": "}", "[": "]"}[token])
        elif token == "|":
            self.bars += 1
            node = Node("abs", (self.sum(),))
            self.bars -= 1
            self.take("|")
        elif token.startswith("\\"):
            node = self.command(token[1:])
        else:
            raise Unreadable(token)
        self.depth -= 1
        return node

    def symbol(self, name: str) -> Node:
        if self.peek() == "_":
            self.take()
            name += "_" + self.raw()
        while self.peek() == "'":
            name += self.take()
        if name[0] in _CALLED and self.peek() == "(":
            self.take()
            arguments = [self.sum()]
            while self.peek() == ",":
                self.take()
                arguments.append(self.sum())
            self.take(")")
            return Node("call", tuple(arguments), name)
        return Node("sym", text=name)

    def raw(self) -> str:
        """A subscript or a name as it stands, without its braces."""
        if self.peek() != "{":
            return self.take()
        self.take()
        found, open_braces = "", 1
        while True:
            token = self.take()
            open_braces += (token == "{") - (token == "}")
            if not open_braces:
                return found
            found += token

    def command(self, name: str) -> Node:
        if name in GREEK:
            return self.symbol("\\" + name)
        if name in ("pi", "infty"):
            return self.symbol("\\" + name)
        if name == "frac":
            return Node("div", (self.argument(), self.argument()))
        if name == "binom":
            return Node("binom", (self.argument(), self.argument()))
        if name == "sqrt":
            return self.root()
        if name == "det" and self.peek() == r"\begin":
            self.take()
            return Node("det", self.matrix().parts)
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("lfloor", "lceil"):
            node = Node(name[1:], (self.sum(),))
            self.take(name.replace("l", r"\r", 1))
            return node
        if name in ACCENTS:
            letters = self.raw()
            if (
                name in ("overline", "overleftrightarrow") and len(letters) == 2 and letters.isupper()
            ):  # a segment
                letters = min(letters, letters[::-1])
            return self.symbol(f"\\{name} {letters}")
        if name in FIGURES:
            return self.figure(name)
        if name == "begin":
            return self.matrix()
        raise Unreadable(name)

    def root(self) -> Node:
        index = number(2)
        if self.peek() == "[":
            self.take()
            index = self.sum()
            self.take("]")
        under = self.argument()
        is_odd = index.text.isdigit() and int(index.text[-1]) % 2
        if is_odd and (bare := _without_sign(under)):  # the cube root of -x is minus that of x
            return Node("neg", (Node("root", (bare, index)),))
        return Node("root", (under, index))

    def figure(self, name: str) -> Node:
        letters = ""
        if self.peek() == "{":
            letters = self.raw()
        while self.peek().isalpha() or (letters and self.peek() == "'"):
            letters += self.take()
        if not letters and self.peek().isdigit():
            letters = self.take()
        if not letters:
            raise Unreadable(name)
        if name == "angle":
            letters = min(letters, letters[::-1])
        elif name == "triangle" and letters.isalpha():
            letters = "".join(sorted(letters))
        return Node("sym", text=f"\\{name} {letters}")

    def function(self, name: str) -> Node:
        base, power = None, None
        for _ in range(2):
            if self.peek() == "_":
                self.take()
                base = self.argument()
            elif self.peek() == "^":
                self.take()
                power = self.exponent()
        name = _OTHER_NAMES.get(name, name)
        inverted = _INVERSES.get(name)
        if power == Node("neg", (number(1),)) and name in _CIRCULAR | _HYPERBOLIC:
            inverted, power = name, None
        arguments = self.function_arguments(base, name in _OF_SETS)
        node = _inverse(inverted, arguments) if inverted else _direct(name, arguments)
        return node if power is None else Node("pow", (node, power))

    def function_arguments(self, base: Node | None, of_set: bool) -> tuple[Node, ...]:
        if self.peek() in ("(", "{") or (of_set and self.peek() == r"\{"):
            close = {"(": ")", "{": "}", r"\{": r"\}"}[self.take()]
            arguments = [self.sum()]
            while self.peek() == ",":
                self.take()
                arguments.append(self.sum())
            self.take(close)
        else:
            sign = self.peek() == "-" and self.take() == "-"
            node = self.factor()
            while self.starts_factor() and self.peek() not in ("(", "[") and self.peek()[1:] not in FUNCTIONS:
                node = Node("mul", (node, self.factor()))
            arguments = [Node("neg", (node,)) if sign else node]
        return (*arguments, base) if base else tuple(arguments)

    def matrix(self) -> Node:
        kind = self.raw()
        if kind == "array":
            self.raw()
        if kind not in ("pmatrix", "bmatrix", "vmatrix", "matrix", "Bmatrix", "array", "smallmatrix"):
            raise Unreadable(kind)
        rows = [[self.sum()]]
        while self.peek() != r"\end":
            token = self.take()
            if token == "&":
                rows[-1].append(self.sum())
            elif token == "\\\\" and self.peek() != r"\end":
                rows.append([self.sum()])
            elif token != "\\\\":
                raise Unreadable(token)
        self.take()
        if self.raw() != kind or len({len(row) for row in rows}) != 1:
            raise Unreadable(kind)
        nodes = tuple(Node("row", tuple(row)) for row in rows)
        return Node("det" if kind == "vmatrix" else "matrix", nodes)
