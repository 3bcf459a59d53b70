"""Verdicts: what can be decided at once is decided here, the rest is asked of the workers, and every answer is kept.

The short cut for numbers agrees with math_verify, which rounds to 6 decimals as soon as one side is a decimal: where two
decimals differ by so little that rounding decides, math_verify is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from a2r_train.errors import InputError
from a2r_train.records import CORRECT, INCORRECT, TIMEOUT, UNPARSABLE, Bundle, Problem, Verdict
from a2r_train.verify import pool
from a2r_train.verify.extract import MAX_ANSWER_CHARS, candidates, clean, letter

VERIFIERS = ("math", "math_last_number", "exact", "multiple_choice")
MAX_DIFFERENT_BOXES = 8  # more than these cannot all be one answer, and would only cost time
CACHE_SIZE = 100_000

_DOTTED = re.compile(r"[^\W\d]\w*(\.\w+)*[.:]\w+")
# Words that make another number of the one before them, or another answer beside it, are no unit.
_NO_UNIT = (
    r"(?!(?:or|and|but|nor|not|cannot|versus|maybe|over|under|point|plus|minus|squared|cubed|divided|multiplied|than|"
    r"hal(?:f|ves)|thirds?|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty|dozens?|percent|(?:hundred|thousand|(?:m|b|tr)illion)s?)\b)"
)
_PLAIN_NUMBER = re.compile(
    r"(?:\\?\$ ?)?(?P<sign>-?)(?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)?(?P<decimals>\.[0-9]*)?"
    rf"(?: {_NO_UNIT}[a-z]{{4,}}(?: {_NO_UNIT}(?:a|[a-z]{{2,}})){{0,3}})?",
    re.IGNORECASE,
)
_MAX_INTEGER_DIGITS, _MAX_DECIMAL_DIGITS = 30, 15
_ROUNDING_DECIDES = Fraction(1, 100_000)
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox) ?\{((?:[^{}]|\{[^{}]*\})*)\}")
_WORDS = re.compile(r"(?=.*[A-Za-z]{4})[A-Za-z][A-Za-z' -]*")

Comparison = tuple[str, str, str]  # answer, gold, verifier
_cache: dict[Comparison, Verdict] = {}


@dataclass(frozen=True)
class Judgement:
    """An extracted answer and its verdict; the answer is "" exactly where the verdict is `unparsable`."""

    answer: str
    verdict: Verdict


def judge(text: str, gold: str, verifier: str = "math") -> Verdict:
    """The verdict of one text; safe from any thread. Raises InputError as `judge_all`."""
    return judge_all([(text, gold, verifier)])[0].verdict


def judge_all(items: Sequence[tuple[str, str, str]]) -> list[Judgement]:
    """Judge many (text, gold, verifier), in order; equal comparisons are made once, on several processes.

    A text whose boxed answers differ is incorrect even if the last one is right. Raises InputError for an unknown
    verifier, and for an own one that cannot be imported or raises.
    """
    found = [candidates(text, verifier) for text, _, verifier in items]
    verdicts = compare_all([(boxes[-1], gold, verifier) for boxes, (_, gold, verifier) in zip(found, items, strict=True)])
    right = [i for i, verdict in enumerate(verdicts) if verdict == CORRECT]
    earlier = [(i, box) for i in right for box in (found[i][:-1] if len(found[i]) <= MAX_DIFFERENT_BOXES else [""])]
    for (i, _), verdict in zip(earlier, compare_all([(box, *items[i][1:]) for i, box in earlier]), strict=True):
        if verdict != CORRECT:
            verdicts[i] = INCORRECT
    return [Judgement("" if v == UNPARSABLE else boxes[-1], v) for boxes, v in zip(found, verdicts, strict=True)]


def equivalent(answer: str, gold: str, verifier: str = "math") -> Verdict:
    """Compare two extracted answers; `gold` is the one that sets the form. Raises InputError as `judge_all`."""
    return compare_all([(answer, gold, verifier)])[0]


def compare_all(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Compare many (extracted answer, gold, verifier), in order, each different one once."""
    keys = [_key(*comparison) for comparison in comparisons]
    known: dict[Comparison, Verdict] = {}
    for key in dict.fromkeys(keys):
        verdict = _at_once(*key) or _cache.get(key)
        if verdict is not None:
            known[key] = verdict
    unknown = [key for key in dict.fromkeys(keys) if key not in known]
    answers = dict(zip(unknown, pool.ask_all(unknown), strict=True))
    if len(_cache) + len(answers) > CACHE_SIZE:
        _cache.clear()
    _cache.update(islice(answers.items(), CACHE_SIZE))
    known |= answers
    return [known[key] for key in keys]


def check_gold(problems: Iterable[Problem | Bundle]) -> None:
    """Raise InputError, naming the problem, for a gold answer that its verifier cannot parse.

    For an own verifier only the path is tried: what its gold may look like is its own affair.
    """
    asked: dict[Comparison, Problem | Bundle] = {}
    for problem in problems:
        answer, gold, verifier = _key(problem.answer, problem.answer, problem.verifier)
        if verifier not in VERIFIERS:
            asked.setdefault(("", "", verifier), problem)
        elif _at_once(answer, gold, verifier) == UNPARSABLE:
            raise _bad_gold(problem)
        elif verifier == "math" and _number(gold) is None and _words(gold) is None:
            asked.setdefault((answer, gold, verifier), problem)
    for problem, verdict in zip(asked.values(), pool.ask_all(list(asked)), strict=True):
        if verdict in (UNPARSABLE, TIMEOUT):
            raise _bad_gold(problem)


def check_verifier(verifier: str) -> None:
    """Raise InputError for an unknown verifier, and for an own one that cannot be imported."""
    _key("", "", verifier)
    if verifier not in VERIFIERS:
        pool.ask_all([("", "", verifier)])


def _bad_gold(problem: Problem | Bundle) -> InputError:
    return InputError(
        f"problem {problem.id!r}: verifier {problem.verifier!r} cannot parse the gold answer {problem.answer[:60]!r}; "
        "mend the answer or name another verifier"
    )


def _key(answer: str, gold: str, verifier: str) -> Comparison:
    """One spelling for what is one comparison; own verifiers see their gold as it is in the data."""
    if verifier not in VERIFIERS:
        if not _DOTTED.fullmatch(verifier):
            raise InputError(f"verifier {verifier!r}: expected {', '.join(VERIFIERS)}, or package.module.function")
        return answer, gold, verifier
    answer, gold = clean(answer[: MAX_ANSWER_CHARS * 2]), clean(gold[: MAX_ANSWER_CHARS * 2])
    if verifier == "multiple_choice":
        return letter(answer), letter(gold), verifier
    if verifier == "exact":
        return _bare(answer).casefold(), _bare(gold).casefold(), verifier
    return _value(answer), _value(gold), "math"


def _at_once(answer: str, gold: str, verifier: str) -> Verdict | None:
    """The verdict where no worker is needed, else None."""
    if not answer or len(answer) > MAX_ANSWER_CHARS:
        return UNPARSABLE
    if verifier not in VERIFIERS:
        return None
    if not gold or len(gold) > MAX_ANSWER_CHARS:
        return UNPARSABLE
    if answer == gold:
        return CORRECT
    if verifier != "math":
        return INCORRECT
    number, gold_number = _number(answer), _number(gold)
    if number is not None and gold_number is not None:
        return _compare_numbers(number, gold_number)
    words, gold_words = _words(answer), _words(gold)
    if words is None or gold_words is None:
        return None
    return CORRECT if words == gold_words else INCORRECT


def _compare_numbers(number: Fraction, gold: Fraction) -> Verdict | None:
    if number == gold:
        return CORRECT
    whole = number.denominator == gold.denominator == 1
    return INCORRECT if whole or abs(number - gold) > _ROUNDING_DECIDES else None


def _number(text: str) -> Fraction | None:
    """The value of a plain integer or decimal, with a currency sign, thousands separators or a unit in plain words."""
    match = _PLAIN_NUMBER.fullmatch(text)
    if not match:
        return None
    whole, decimals = (match["whole"] or "").replace(",", ""), (match["decimals"] or "").strip(".")
    limit = _MAX_DECIMAL_DIGITS if decimals else _MAX_INTEGER_DIGITS
    if not 0 < len(whole + decimals) <= limit:
        return None
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    return -value if match["sign"] == "-" else value


def _bare(text: str) -> str:
    r"""The text inside an outer `\text{...}`."""
    match = _TEXT.fullmatch(text)
    return match.group(1).strip() if match else text


def _value(text: str) -> str:
    r"""Without a leading plus, and outside of `\text{...}` if it is no mere text."""
    bare = _bare(text)
    return (bare if any(map(str.isdigit, bare)) else text).removeprefix("+")


def _words(text: str) -> str | None:
    """The text in lower case if it is plain words. math_verify reads these as products, in which anagrams are equal."""
    bare = _bare(text)
    return bare.casefold() if _WORDS.fullmatch(bare) else None
