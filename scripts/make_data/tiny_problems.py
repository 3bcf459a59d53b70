"""A seeded generator of multi-step arithmetic word problems with worked solutions: the problems of data/tiny.

A story hides one number and tells what happens to it: "Some bags at 12 coins each; the bill then grows by 15
and is 147 coins. How many bags?" A worked solution names the number, follows it through the story, and
compares: `11: 11*12=132; 132+15=147; 147=147; \\boxed{11}`. An answer is thus easier to check than to find,
as in most problems that people ask a model. A solution that starts from a wrong number can be worked out just
as honestly: it ends with an inequality.

There are six kinds of story and three difficulties (2, 3 and 4 steps). A template is the kind plus the
phrases that were drawn. Two problems with the same template and the same numbers are the same problem up to
names, and have the same `Tale.key`. One eighth of the templates, by hash, is held out.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

LARGEST = 399
NAMES = (
    *("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Leo"),
    *("Mia", "Noa", "Oli", "Pia", "Ravi", "Sam", "Tia", "Uma", "Vic", "Wim", "Yara", "Zoe"),
)
ITEMS = (
    "apples",
    "shells",
    "coins",
    "cards",
    "stamps",
    "beads",
    "books",
    "pens",
    "marbles",
    "tickets",
    "eggs",
    "plums",
)
EVENTS = {
    "+": ["{n} gets {b} more.", "{n} finds {b} others.", "{m} gives {n} {b} more."],
    "-": ["{n} loses {b}.", "{n} gives {b} to {m}.", "{m} takes {b} away."],
    "*": ["Then they become {b} times as many.", "{m} multiplies the pile by {b}."],
}
SLIPS = tuple(sign * by for sign in (-1, 1) for by in (1, 1, 2, 2, 3, 4, 6, 8, 10, 10, 12, 20, 30, 50, 100))
STEPS = {1: 2, 2: 3, 3: 4}  # difficulty -> steps

# (left, operator, right). A negative operand stands for a value of the story: -1 is the hidden number, -2 the
# first result, ...
Step = tuple[int, str, int]
Line = tuple[int, str, int, int]  # left operand, operator, right operand, result


@dataclass(frozen=True)
class Tale:
    """A word problem: its text, the hidden number (the answer), the steps, the template, and difficulty 1 to
    3.
    """

    text: str
    answer: int
    steps: tuple[Step, ...]
    template: str
    difficulty: int

    @property
    def key(self) -> tuple[str, int, tuple[Step, ...]]:
        return self.template, self.answer, self.steps

    @property
    def digest(self) -> int:
        """A 64-bit hash of the key."""
        return int.from_bytes(hashlib.sha256(repr(self.key).encode()).digest()[:8], "big")

    @property
    def held_out(self) -> bool:
        return hashlib.sha256(self.template.encode()).digest()[0] % 8 == 0

    @property
    def source(self) -> str:
        """`tiny/<kind>/<difficulty>/<template>`, with a hash of the template, so that sets can be compared by
        template and numbers.
        """
        kind = self.template.partition("|")[0]
        return f"tiny/{kind}/{self.difficulty}/{hashlib.sha256(self.template.encode()).hexdigest()[:8]}"

    def solution(self, guess: int | None = None) -> str:
        """The worked solution that starts from `guess`, by default from the answer."""
        guess = self.answer if guess is None else guess
        return write(guess, work(self.steps, guess), work(self.steps, self.answer)[-1][-1])

    def tries(self, guesses: Sequence[int]) -> str:
        """A worked solution that checks several numbers in turn, and boxes the last one."""
        told = work(self.steps, self.answer)[-1][-1]
        checked = [write(guess, work(self.steps, guess), told) for guess in guesses]
        return "".join(check.partition("\\boxed")[0] for check in checked[:-1]) + checked[-1]

    def slipped(self, guess: int, rng: random.Random, slips: float) -> str:
        """The solution from `guess` by a careless writer. Each result is wrong with probability `slips`; 40 %
        of the solutions with a slip claim the stated result anyway. Without a slip it equals `solution`.
        """
        lines = work(
            self.steps, guess, lambda value: value + rng.choice(SLIPS) if rng.random() < slips else value
        )
        told = work(self.steps, self.answer)[-1][-1]
        if not fits(lines):
            return self.solution(guess)
        if lines != work(self.steps, guess) and rng.random() < 0.4:
            lines[-1] = (*lines[-1][:-1], told)
        return write(guess, lines, told)

    def wrong_guess(self, rng: random.Random) -> int:
        """A wrong number, mostly a near miss; all results of its check lie between 0 and LARGEST."""
        while True:
            near = self.answer + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 2, 3, 4, 5, 7, 10))
            guess = near if rng.random() < 0.85 else rng.randint(2, 60)
            if guess > 0 and guess != self.answer and fits(work(self.steps, guess)):
                return guess


def apply(left: int, op: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[op]


def work(steps: Sequence[Step], hidden: int, slip: Callable[[int], int] = lambda value: value) -> list[Line]:
    """Compute the steps with `hidden` as the hidden number; `slip` maps each result to what is written."""
    values = [hidden]
    lines = []
    for left, op, right in steps:
        a, b = (values[-x - 1] if x < 0 else x for x in (left, right))
        values.append(slip(apply(a, op, b)))
        lines.append((a, op, b, values[-1]))
    return lines


def fits(lines: Sequence[Line]) -> bool:
    return all(0 <= line[-1] <= LARGEST for line in lines)


def write(guess: int, lines: Sequence[Line], told: int) -> str:
    shown = "".join(f"{a}{op}{b}={r}; " for a, op, b, r in lines)
    last = lines[-1][-1]
    return (
        f"{guess}: {shown}{last}{'=' if last == told else '<' if last < told else '>'}{told}; "
        rf"\boxed{{{guess}}}"
    )


class Story:
    """Builds one problem: draws sentences, steps, values and the template."""

    def __init__(self, rng: random.Random, kind: str, count: int) -> None:
        self.rng, self.kind, self.count = rng, kind, count
        self.n, self.m = rng.sample(NAMES, 2)
        self.item = rng.choice(ITEMS)
        self.sentences: list[str] = []
        self.steps: list[Step] = []
        self.values: list[int] = []
        self.drawn: list[str] = [kind]

    def hide(self, least: int, most: int) -> int:
        """Draw the hidden number and return its index."""
        self.values = [self.rng.randint(least, most)]
        return -1

    def say(self, *phrases: str, **numbers: int) -> None:
        phrase = self.rng.choice(phrases)
        self.drawn.append(phrase)
        self.sentences.append(phrase.format(n=self.n, m=self.m, item=self.item, **numbers))

    def step(self, left: int, op: str, right: int) -> int:
        """Add a step and return the index of its result."""
        a, b = (self.values[-x - 1] if x < 0 else x for x in (left, right))
        self.steps.append((left, op, right))
        self.values.append(apply(a, op, b))
        return -len(self.values)

    def events(self, x: int) -> int:
        """Apply events to the quantity `x` until the story has all its steps; returns the stated result."""
        while len(self.steps) < self.count:
            now = self.values[-x - 1]
            op = self.rng.choice(tuple(EVENTS))
            if op == "*" and not 2 <= now <= LARGEST // 2:
                op = "-"
            if op == "-" and now < 8:
                op = "+"
            b = self.rng.randint(2, {"+": 60, "-": min(60, now - 4), "*": min(7, LARGEST // max(1, now))}[op])
            self.say(*EVENTS[op], b=b)
            x = self.step(x, op, b)
        return self.values[-x - 1]


def chain(s: Story) -> None:
    x = s.hide(4, 60)
    s.say(
        "{n} has some {item}.", "At first {n} owns some {item}.", "There are some {item} in the box of {n}."
    )
    t = s.events(x)
    s.say(
        "That makes {t}. How many {item} were there at first?",
        "Now there are {t}. With how many did {n} begin?",
        t=t,
    )


def shopping(s: Story) -> None:
    x, d = s.hide(3, 30), s.rng.randint(3, 19)
    s.say(
        "{n} buys some bags of {item} at {d} coins each.",
        "{n} orders jars of {item} for {d} coins each.",
        d=d,
    )
    s.say("What happens next changes the bill.", "The bill then changes.")
    t = s.events(s.step(x, "*", d))
    s.say("{n} pays {t}. How many did {n} buy?", "The bill is {t} in the end. How many were bought?", t=t)


def savings(s: Story) -> None:
    a, x, d = s.rng.randint(5, 99), s.hide(3, 24), s.rng.randint(3, 15)
    s.item = "coins"
    s.say("{n} has saved {a} coins.", "The purse of {n} holds {a} coins.", a=a)
    s.say("For some weeks {n} adds {d} coins a week.", "{n} earns {d} coins a day for some days.", d=d)
    t = s.events(s.step(s.step(x, "*", d), "+", a))
    s.say("Now {n} has {t}. How long did it take?", "That makes {t}. For how long was it?", t=t)


def sharing(s: Story) -> None:
    x, c, b = s.hide(4, 60), s.rng.randint(2, 6), s.rng.randint(2, 40)
    s.say(
        "{n} has {c} times as many {item} as {m} and {b} more.",
        "{n} owns {b} {item} and {c} times what {m} owns.",
        c=c,
        b=b,
    )
    last = s.step(s.step(x, "*", c), "+", b)
    if s.count == STEPS[1]:
        s.say("{n} has {t}. How many has {m}?", "{n} counts {t}. What does {m} count?", t=s.values[-1])
        return
    s.say("They put all together.", "Both are pooled.")
    t = s.events(s.step(last, "+", x))
    s.say("There are {t} in the end. How many did {m} have?", "That makes {t}. What did {m} bring?", t=t)


def rows(s: Story) -> None:
    x, c, e = s.hide(4, 30), s.rng.randint(2, 9), s.rng.randint(2, 9)
    s.say(
        "{n} plants {c} rows of beans and {e} of peas, all rows equally long.",
        "A hall has {c} rows of red and {e} of blue seats, all rows equally long.",
        c=c,
        e=e,
    )
    t = s.events(s.step(s.step(x, "*", c), "+", s.step(x, "*", e)))
    s.say("Now there are {t}. How long is a row?", "That makes {t}. How many were in a row?", t=t)


def mixture(s: Story) -> None:
    k = s.rng.randint(6, 30)
    x, p = s.hide(2, k - 2), s.rng.randint(2, 12)
    q = p + s.rng.randint(1, 8)
    phrases = (
        "{n} buys {k} {item}, small ones at {p} and large ones at {q}.",
        "{k} {item} cost {p} each, or {q} if large.",
    )
    s.say(*phrases, k=k, p=p, q=q)
    t = s.events(s.step(s.step(s.step(k, "-", x), "*", p), "+", s.step(x, "*", q)))
    s.say("{n} pays {t}. How many are large?", "All cost {t}. How many large ones are there?", t=t)


KINDS: dict[str, Callable[[Story], None]] = {
    f.__name__: f for f in (chain, shopping, savings, sharing, rows, mixture)
}


def draw(
    rng: random.Random, difficulties: Sequence[float] = (), kinds: Mapping[str, float] = MappingProxyType({})
) -> Tale:
    """Draw one problem whose numbers all lie between 0 and LARGEST.

    `difficulties` weights 1 to 3; `kinds` weights kinds, 1 if not named.
    """
    weights = [kinds.get(kind, 1.0) for kind in KINDS]
    while True:
        difficulty = rng.choices(tuple(STEPS), difficulties or None)[0]
        story = Story(rng, rng.choices(tuple(KINDS), weights)[0], STEPS[difficulty])
        KINDS[story.kind](story)
        tale = Tale(
            " ".join(story.sentences), story.values[0], tuple(story.steps), "|".join(story.drawn), difficulty
        )
        in_range = all(0 <= value <= LARGEST for value in story.values)
        near_misses = (fits(work(tale.steps, tale.answer + by)) for by in (-1, 1))
        if len(tale.steps) == story.count and in_range and any(near_misses):
            return tale
