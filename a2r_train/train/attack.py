"""The preflight attacks the reward: it submits answers that solve nothing, none of which may earn anything.

GRPO finds a hole in a verifier within a few steps, and then the run is lost.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from a2r_train.markers import THINK_CLOSE
from a2r_train.prompts import Prompter
from a2r_train.records import CORRECT, Bundle, row_of
from a2r_train.verify import VERIFIERS, judge_all, programs, traits_of
from a2r_train.verify.compare import compare_all
from a2r_train.verify.extract import written

ROWS = 40  # sampled per verifier and source
FREQUENT = 5  # most frequent answers of the references that are tried
MOST_PAID = 0.05  # share of the rows with another gold
FEWEST_KINDS = 2  # golds, or problems, for which the same answer is paid
FEWEST_ROWS = 5  # with fewer, it says little that none is paid
CONSTANTS = (
    *("", "0", "1", "-1", "True", "False", "None", "yes", "no", "[]", "{}", "P", "P ∨ Q", "1*2*3*4", "1+1"),
)
RETURNED = (
    *("None", "0", "1", "-1", "True", "False", "''", "[]", "{}", "()", "set()", "0.0", "given[0]", "given"),
)
PROGRAM = "def {name}(*given, **named):\n    return {value}"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Attack:
    """One way to answer without solving: its name, and its answer to a problem, as the verifier reads it."""

    name: str
    answer: Callable[[Bundle], str]
    is_whole_text: bool = False  # submitted as it is, not formatted as an answer


@dataclass(frozen=True)
class Paid:
    """How often an attack was paid on rows with another gold answer.

    kinds: for how many different golds it was paid, or for how many problems if the verifier sees these. A
    single one may be another spelling of that gold, which the verifier is right to pay.
    """

    attack: str
    verifier: str
    source: str
    paid: int
    rows: int
    example: str
    kinds: int

    @property
    def is_hole(self) -> bool:
        return self.kinds >= FEWEST_KINDS and self.paid > MOST_PAID * self.rows

    def __str__(self) -> str:
        where = f"{self.verifier}{f' on {self.source}' if self.source else ''}"
        share = f"{self.paid / self.rows:.0%} of {self.rows} rows with another gold"
        return f"{self.attack} is paid by {where} on {share}, such as problem {self.example!r}"


def attacked(bundles: Sequence[Bundle], prompter: Prompter) -> list[Paid]:
    """What each attack earns on a sample of problems for each verifier and source, the highest paid first."""
    groups: defaultdict[tuple[str, str], dict[str, Bundle]] = defaultdict(dict)
    for bundle in bundles:
        groups[bundle.verifier, _kind(bundle)].setdefault(bundle.problem_id, bundle)
    found = []
    for (verifier, source), by_problem in groups.items():
        problems = list(by_problem.values())
        sample = problems[:: -(-len(problems) // ROWS)]
        answers = [
            r.answer for b in bundles if (b.verifier, _kind(b)) == (verifier, source) for r in b.references
        ]
        found += _earned(sample, [*_attacks(sample, answers)], verifier, source, prompter)
    return sorted(found, key=lambda one: -one.paid / max(1, one.rows))


def _kind(bundle: Bundle) -> str:
    """The source, where it names a task or a set; template ids, as in data/tiny, say less."""
    return bundle.source if bundle.verifier == "reasoning_gym" else ""


def _attacks(sample: Sequence[Bundle], answers: Sequence[str]) -> Iterator[Attack]:
    if sample[0].verifier == programs.NAME:
        for value in RETURNED:
            yield Attack(f"a function that returns {value}", lambda b, v=value: _program(b, v))  # type: ignore[misc]
    else:
        for text in CONSTANTS:
            yield Attack(f"the constant answer {text!r}", lambda _, t=text: t)  # type: ignore[misc]
    for text, _ in Counter(answer for answer in answers if answer).most_common(FREQUENT):
        yield Attack(f"the frequent answer {text[:60]!r}", lambda _, t=text: t)  # type: ignore[misc]
    for mark in (" ", ", ", "+", "*"):
        yield Attack(f"the problem's own numbers, joined by {mark!r},", lambda b, m=mark: _numbers(b, m))  # type: ignore[misc]
    yield Attack("the problem's text as the answer", lambda b: b.problem)
    yield Attack("the problem's text as the completion", lambda b: b.problem, is_whole_text=True)
    following = {
        one.problem_id: other.answer for one, other in zip(sample, [*sample[1:], sample[0]], strict=True)
    }
    yield Attack("the answer of another problem", lambda b: following[b.problem_id])


def _program(bundle: Bundle, value: str) -> str:
    return PROGRAM.format(name=programs.hidden_tests(row_of(bundle)).function, value=value)


def _numbers(bundle: Bundle, mark: str) -> str:
    return mark.join(_NUMBER.findall(bundle.problem))


def _earned(
    sample: Sequence[Bundle], attacks: Sequence[Attack], verifier: str, source: str, prompter: Prompter
) -> list[Paid]:
    close = f"{THINK_CLOSE}\n" if prompter.opens_thinking else ""
    tried = [(attack, bundle, attack.answer(bundle)) for attack in attacks for bundle in sample]
    same = _equal_to_gold([(answer, bundle) for _, bundle, answer in tried])
    asked = [one for one, is_gold in zip(tried, same, strict=True) if one[0].is_whole_text or not is_gold]
    texts = [
        answer if attack.is_whole_text else close + written(answer, verifier) for attack, _, answer in asked
    ]
    texts = [prompter.complete(text) for text in texts]
    judged = judge_all(
        [(text, b.answer, verifier) for text, (_, b, _) in zip(texts, asked, strict=True)],
        [row_of(b) for _, b, _ in asked],
    )
    rows: Counter[str] = Counter(attack.name for attack, _, _ in asked)
    paid: defaultdict[str, list[str]] = defaultdict(list)
    kinds: defaultdict[str, set[object]] = defaultdict(set)
    sees_row = "row" in traits_of(verifier).asks
    for (attack, bundle, _), judgement in zip(asked, judged, strict=True):
        if judgement.verdict == CORRECT:
            paid[attack.name].append(bundle.problem_id)
            kinds[attack.name].add(bundle.problem_id if sees_row else _plain(bundle.answer))
    return [
        Paid(name, verifier, source, len(paid[name]), count, (paid[name] or [""])[0], len(kinds[name]))
        for name, count in rows.items()
    ]


def _equal_to_gold(pairs: Sequence[tuple[str, Bundle]]) -> list[bool]:
    """Whether an answer is the gold one: by the verifier if it compares answers, else as text or as a
    number.
    """
    asked = [(answer, b.answer, b.verifier) for answer, b in pairs if answer and b.verifier in VERIFIERS]
    right = {key for key, verdict in zip(asked, compare_all(asked), strict=True) if verdict == CORRECT}
    return [
        (answer, b.answer, b.verifier) in right or _plain(answer) == _plain(b.answer) for answer, b in pairs
    ]


def _plain(text: str) -> str | Fraction:
    """A number by its value, any other text without case and spaces."""
    text = "".join(text.casefold().split())
    try:
        return Fraction(text.replace(",", "")) if len(text) < 30 else text
    except (ValueError, ZeroDivisionError):
        return text
