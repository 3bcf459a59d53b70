"""Verdicts, which are cached. Exact rationals decide what they can here; the workers decide the rest."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any

from a2r_train.errors import InputError
from a2r_train.prompts import visible
from a2r_train.records import CORRECT, INCORRECT, TIMEOUT, UNPARSABLE, Bundle, Problem, Verdict, row_of
from a2r_train.verify import own, pool, programs
from a2r_train.verify.equality import Equality, Unasked, Undecided
from a2r_train.verify.exact import TooLarge, value
from a2r_train.verify.expression import Unreadable
from a2r_train.verify.extract import MAX_ANSWER_CHARS, candidates, clean, labelled_boxes, letter
from a2r_train.verify.kinds import False_, Group, Reading, Region, Words, is_sentence, nodes_of
from a2r_train.verify.reading import read
from a2r_train.verify.slips import ESCAPED, doubts, is_escaped, is_slip, one_text
from a2r_train.verify.spelling import spell
from a2r_train.verify.traits import COMPARING, SHIPPED, traits_of

log = logging.getLogger(__name__)
VERIFIERS = COMPARING  # the form of their gold answers is known here
MAX_DIFFERENT_BOXES = 8  # more cannot all be one answer, and would only cost time
CACHE_SIZE = 100_000
MAX_NAMED = 5  # bad gold answers in one message
MOST_MISTAKES = 0.2  # of the golds: if a verifier cannot read more, they are another kind of answer
LEAVE_OUT = "leave_out_bad_golds"  # the key and the option
OR_LEAVE_OUT = f", or leave such problems out with {LEAVE_OUT}: true"

_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox) ?\{((?:[^{}]|\{[^{}]*\})*)\}")
_NOT_MATHEMATICS = re.compile(
    r"[+-]?(?:nan|inf|infinity)|null|(?-i:NA|N/A|#N/A|<NA>|NaT)|b'.*'|b\".*\"|.*\ufffd.*",
    re.IGNORECASE | re.DOTALL,
)
WORKED = re.compile(r"####|\\f?box")  # of a worked solution, not of its answer
_EXACT = Equality(Unasked())

Comparison = tuple[str, str, str]  # answer, gold, verifier
_cache: dict[Comparison, Verdict] = {}


@dataclass(frozen=True)
class Judgement:
    """An extracted answer and its verdict; the answer is "" exactly if the verdict is `unparsable`."""

    answer: str
    verdict: Verdict


def start_workers(verifiers: Iterable[str]) -> None:
    """Start the processes that these verifiers may need in the background, so that the first answers do not
    wait for them.
    """
    if set(verifiers) - {"exact", "multiple_choice", programs.NAME}:
        pool.start()


def judge(text: str, gold: str, verifier: str = "math", row: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict of one text; safe from any thread. Raises InputError as `judge_all`."""
    return judge_all([(text, gold, verifier)], [row or {}])[0].verdict


def judge_all(
    items: Sequence[tuple[str, str, str]], rows: Sequence[Mapping[str, Any]] | None = None
) -> list[Judgement]:
    """Judge many (text, gold, verifier), in order; equal comparisons are made once, in several processes.

    A text whose boxed answers differ is incorrect even if the last one is right. `rows` are the problems
    (`records.row_of`), for verifiers that ask for them, and for the options of `multiple_choice`. Raises
    InputError for an unknown verifier, and for a custom one that cannot be imported or raises.
    """
    apart = {verifier for verifier in {item[2] for item in items} if _is_apart(verifier)}
    rows = rows or [{}] * len(items)
    if apart:
        return _judge_apart(items, rows, apart)
    found = [
        candidates(text, verifier, row.get("problem", ""))
        for (text, _, verifier), row in zip(items, rows, strict=True)
    ]
    verdicts = compare_all(
        [(boxes[-1], gold, verifier) for boxes, (_, gold, verifier) in zip(found, items, strict=True)]
    )
    judgements = [
        Judgement("" if v == UNPARSABLE else b[-1], v) for b, v in zip(found, verdicts, strict=True)
    ]
    several = [i for i, boxes in enumerate(found) if len(boxes) > 1]
    doubtful = [i for i in several if verdicts[i] == CORRECT or _join(items[i][1], items[i][2])]
    return _judge_several(items, found, judgements, doubtful)


def _is_apart(verifier: str) -> bool:
    """Whether a verifier sees more than answer and gold. Raises InputError as `judge_all`."""
    if verifier in VERIFIERS:
        return False
    _key("", "", verifier)
    return bool(traits_of(verifier).asks)


def _judge_apart(
    items: Sequence[tuple[str, str, str]], rows: Sequence[Mapping[str, Any]], apart: Set[str]
) -> list[Judgement]:
    """As `judge_all`, if some verifiers see text or row. A text without visible words is unparsable, and so
    is one without an answer if the answer can only be in one place.
    """
    others = [i for i, item in enumerate(items) if item[2] not in apart]
    judgements = dict(
        zip(others, judge_all([items[i] for i in others], [rows[i] for i in others]), strict=True)
    )
    answers = {i: candidates(text, v)[-1] for i, (text, _, v) in enumerate(items) if v in apart}
    asked = [i for i, answer in answers.items() if answer or _is_read_whole(*items[i][::2])]
    runs = [i for i in asked if items[i][2] == programs.NAME]
    calls = [i for i in asked if items[i][2] != programs.NAME]
    verdicts = programs.judge_programs([answers[i] for i in runs], [rows[i] for i in runs])
    verdicts += own.judge_own(
        [items[i] for i in calls], [answers[i] for i in calls], [rows[i] for i in calls]
    )
    for i, verdict in zip([*runs, *calls], verdicts, strict=True):
        judgements[i] = Judgement(answers[i], verdict)
    return [judgements.get(i, Judgement("", UNPARSABLE)) for i in range(len(items))]


def _is_read_whole(text: str, verifier: str) -> bool:
    """Whether a verifier may find its answer anywhere in the text, even without a box."""
    return traits_of(verifier).answer_in == "box" and bool(visible(text))


def _judge_several(
    items: Sequence[tuple[str, str, str]],
    found: Sequence[list[str]],
    judgements: list[Judgement],
    doubtful: Sequence[int],
) -> list[Judgement]:
    """Texts with several different boxes are correct if each box is, or if together they are the parts of the
    gold answer.
    """
    few = [i for i in doubtful if len(found[i]) <= MAX_DIFFERENT_BOXES]
    asked = [(i, box) for i in few for box in found[i]]
    alone = dict(zip(asked, compare_all([(box, *items[i][1:]) for i, box in asked]), strict=True))
    wrong = {i: [box for box in found[i] if alone[i, box] != CORRECT] for i in few}
    joined = [(i, whole) for i in few if wrong[i] for whole in _wholes(items[i], wrong[i])]
    whole_verdicts = compare_all([(whole, *items[i][1:]) for i, whole in joined])
    wholes = {
        i: whole for (i, whole), verdict in zip(joined, whole_verdicts, strict=True) if verdict == CORRECT
    }
    for i in doubtful:
        if i in wholes:
            judgements[i] = Judgement(wholes[i], CORRECT)
        elif judgements[i].verdict == CORRECT and wrong.get(i, found[i]):
            judgements[i] = Judgement(judgements[i].answer, INCORRECT)
    return judgements


def _join(gold: str, verifier: str) -> str:
    """How the parts of a gold answer are joined: `,` in a list or set, `()` in a pair, `cup` in a union; ""
    if it has none.
    """
    if verifier not in ("math", "math_last_number"):
        return ""
    try:
        reading = read(normal(clean(gold[: MAX_ANSWER_CHARS * 2])))
    except (Unreadable, TooLarge):
        return ""
    if isinstance(reading, Region):
        return r"\cup" if len(reading.parts) > 1 else ""
    if not isinstance(reading, Group) or len(reading.items) < 2:
        return ""
    return {",": ",", "{": ",", "()": "()"}.get(reading.kind, "")


def _wholes(item: tuple[str, str, str], boxes: Sequence[str]) -> list[str]:
    """The boxes of one text joined like the parts of its gold answer, with and without the names in front of
    them.
    """
    text, gold, verifier = item
    join = _join(gold, verifier)
    if join == r"\cup":
        return [join.join(boxes), r"\text{ or }".join(boxes)]
    named = [box for box in labelled_boxes(text) if box.rpartition("=")[2] in boxes]
    wholes = [", ".join(named)] if named and all("=" in box for box in named) else []
    if join == "()":
        return wholes or [f"({', '.join(boxes)})"]
    if wholes and "=" in gold:
        return wholes
    return [*wholes, ", ".join(boxes)] if join else []


def equivalent(answer: str, gold: str, verifier: str = "math") -> Verdict:
    """Compare two extracted answers; `gold` sets the form.

    Raises InputError as `judge_all`.
    """
    return compare_all([(answer, gold, verifier)])[0]


def compare_all(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Compare many (extracted answer, gold, verifier), in order; equal ones are compared once."""
    keys = [_key(*comparison) for comparison in comparisons]
    known: dict[Comparison, Verdict] = {}
    for key in dict.fromkeys(keys):
        verdict = _at_once(*key) or _cache.get(key)
        if verdict is not None:
            known[key] = verdict
    unknown = [key for key in dict.fromkeys(keys) if key not in known]
    answers = dict(zip(unknown, pool.ask_all(unknown), strict=True))
    late = [key for key, verdict in answers.items() if verdict == TIMEOUT]
    answers |= zip(late, pool.ask_all(late), strict=True)  # once more: the machine may have been busy
    if len(_cache) + len(answers) > CACHE_SIZE:
        _cache.clear()
    _cache.update(islice(answers.items(), CACHE_SIZE))
    known |= answers
    return [known[key] for key in keys]


def check_gold(problems: Iterable[Problem | Bundle], place: str, remedy: str = "") -> None:
    """Raise InputError for gold answers that their verifiers cannot parse, and as `check_contradictions`. It
    names `place`, their file, and the first problems.

    For a custom verifier only the path is tried, because its gold may have any form. Programs need tests;
    those that test nothing are named.
    """
    numbered = list(enumerate(problems, 1))
    if bad := unreadable_golds(numbered):
        raise bad_golds(bad, place, remedy)
    warn_doubts(doubts(problem for _, problem in numbered), place)
    check_contradictions(numbered, place)


def warn_doubts(found: Mapping[str, int], place: str) -> None:
    """Warn about what `doubts` counts."""
    for says, count in found.items():
        log.warning("%s: %d %s", place, count, says)


Numbered = tuple[int, Problem | Bundle]


def check_contradictions(problems: Iterable[Numbered], place: str) -> None:
    """Raise InputError for problems with the same text whose golds are different answers: one must be wrong.
    Others with the same text, or one that differs only in case, are counted in a warning.

    Golds are compared only for verifiers that compare an answer with its gold; for others a gold may be
    anything.
    """
    first: dict[tuple[str, str], Numbered] = {}
    in_any_case: dict[tuple[str, str], Numbered] = {}  # the same letters may be another problem then
    pairs: list[tuple[Numbered, Numbered]] = []
    repeated: list[tuple[int, int]] = []
    for row, problem in problems:
        text = problem.problem
        known = first.setdefault((" ".join(text.split()), problem.verifier), (row, problem))
        if problem.verifier in VERIFIERS and known[1].answer != problem.answer:
            pairs.append((known, (row, problem)))
        known = in_any_case.setdefault((one_text(text), problem.verifier), (row, problem))
        if _id_of(known[1]) != _id_of(problem):
            repeated.append((row, known[0]))
    verdicts = compare_all([(there.answer, here.answer, here.verifier) for (_, here), (_, there) in pairs])
    bad = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == INCORRECT]
    if bad:
        (row, here), (other, there) = bad[0]
        more = f" (and {len(bad) - 1} more such pairs)" if len(bad) > 1 else ""
        raise InputError(
            f"{place}: row {row}, problem {here.id!r}, and row {other}, problem {there.id!r}, have the same "
            f"text but the answers {here.answer[:60]!r} and {there.answer[:60]!r}{more}; correct one, or "
            "leave it out"
        )
    if repeated:
        log.warning(
            "%s: %d problems repeat the text of an earlier one, as row %d that of row %d; each counts as a "
            "problem of its own, so leave them out",
            place, len(repeated), *repeated[0],
        )  # fmt: skip


def _id_of(problem: Problem | Bundle) -> str:
    return problem.problem_id if isinstance(problem, Bundle) else problem.id


def unreadable_golds(problems: Iterable[Numbered]) -> list[Numbered]:
    """The numbered problems whose gold answers their verifiers cannot parse."""
    asked: dict[Comparison, list[Numbered]] = {}
    tested: list[dict[str, Any]] = []
    entries: list[tuple[str, dict[str, Any]]] = []
    bad: list[Numbered] = []
    for row, problem in problems:
        if is_slip(problem):
            bad.append((row, problem))
            continue
        key = _key(problem.answer, problem.answer, problem.verifier)
        asked.setdefault(key if problem.verifier in VERIFIERS else ("", "", problem.verifier), []).append(
            (row, problem)
        )
        if problem.verifier == programs.NAME:
            tested.append(row_of(problem))
        elif problem.verifier in own.PATHS:
            entries.append((problem.verifier, row_of(problem)))
    programs.check_tests(tested)
    own.check_entries(entries)
    verdicts = {key: _gold_verdict(key, rows[0][1].answer) for key, rows in asked.items()}
    unknown = [key for key, verdict in verdicts.items() if verdict is None]
    called = [(*key[:2], own.PATHS.get(key[2], key[2])) for key in unknown]
    verdicts.update(zip(unknown, pool.ask_all(called), strict=True))
    bad += [row for key, rows in asked.items() if verdicts[key] in (UNPARSABLE, TIMEOUT) for row in rows]
    return sorted(bad, key=lambda row: row[0])


def warn_failing_golds(problems: Iterable[Problem], place: str) -> None:
    """Warn about programs that fail the tests of their own problems; call it once these are known to be
    valid.
    """
    if rows := [row_of(problem) for problem in problems if problem.verifier == programs.NAME]:
        programs.warn_failing(rows, place)


def _gold_verdict(key: Comparison, gold: str) -> Verdict | None:
    """The verdict on a gold answer if it is known without a worker, else None."""
    answer, _, verifier = key
    if verifier not in VERIFIERS:
        return CORRECT if verifier == programs.NAME else None
    if verifier != "math":
        return _at_once(*key)
    if not answer or len(answer) > MAX_ANSWER_CHARS or _NOT_MATHEMATICS.fullmatch(gold.strip()):
        return UNPARSABLE
    try:
        reading = read(answer)
    except Unreadable:
        return UNPARSABLE
    except TooLarge:
        return None
    if isinstance(reading, False_) or is_sentence(reading):
        return UNPARSABLE
    if isinstance(reading, Words) and WORKED.search(gold):
        return UNPARSABLE
    return CORRECT if _is_plain(reading) else None


def check_verifier(verifier: str) -> None:
    """Raise InputError for an unknown verifier, and for a custom one that cannot be imported."""
    _key("", "", verifier)
    if verifier not in SHIPPED:
        pool.ask_all([("", "", verifier)])


def left_out(problems: Sequence[Problem], place: str) -> list[Problem]:
    """The problems without those whose gold answers their verifiers cannot parse; a warning counts and names
    them. Raises InputError as `check_left_out`.
    """
    bad = unreadable_golds(enumerate(problems, 1))
    check_left_out(len(bad), len(problems), place)
    if bad:
        count = f"{len(bad)} of {len(problems)} problems"
        log.warning("%s: left out %s, whose golds cannot be parsed: %s", place, count, _named(bad))
    ids = {problem.id for _, problem in bad}
    return [problem for problem in problems if problem.id not in ids]


def check_left_out(bad: int, problems: int, place: str) -> None:
    """Raise InputError if so many golds cannot be parsed that they are no mistakes."""
    if bad >= MOST_MISTAKES * problems > 0:
        raise InputError(
            f"{place}: the verifier cannot parse the golds of {bad} of {problems} problems, too many to be "
            f"mistakes; {LEAVE_OUT} is for less than {MOST_MISTAKES:.0%}, so name another verifier"
        )


def bad_golds(rows: Sequence[Numbered], place: str, remedy: str = "") -> InputError:
    """The error that names a file and the first of its numbered problems whose gold answers cannot be parsed;
    `remedy` is one more way out.
    """
    return InputError(
        f"{place}: the verifier cannot parse the gold answer of {len(rows)} "
        f"problem{'s'[: len(rows) > 1]}: {_named(rows)}; "
        f"correct the answer or name another verifier{remedy}"
        f"{ESCAPED if any(is_escaped(problem.answer) for _, problem in rows) else ''}"
    )


def _named(rows: Sequence[Numbered]) -> str:
    named = "; ".join(
        f"row {row}, problem {p.id!r} ({p.verifier}): {p.answer[:60]!r}" for row, p in rows[:MAX_NAMED]
    )
    more = f"; and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return f"{named}{more}"


def _key(answer: str, gold: str, verifier: str) -> Comparison:
    """One spelling for equal comparisons; custom verifiers see their gold as it is in the data."""
    if verifier not in VERIFIERS:
        if verifier not in SHIPPED and not own.NAME.fullmatch(verifier):
            near = get_close_matches(verifier, SHIPPED, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"verifier {verifier!r}: expected {', '.join(SHIPPED)}, or package.module.function{hint}"
            )
        return answer, gold, verifier
    answer, gold = clean(answer[: MAX_ANSWER_CHARS * 2]), clean(gold[: MAX_ANSWER_CHARS * 2])
    if verifier == "multiple_choice":
        return letter(answer), letter(gold), verifier
    if verifier == "exact":
        return _bare(answer).casefold(), _bare(gold).casefold(), verifier
    return normal(answer), normal(gold), "math"


@lru_cache(maxsize=50_000)
def normal(answer: str) -> str:
    """The normal form of a cleaned answer; whole numbers, which most answers are, have it already."""
    return answer if _PLAIN_NUMBER.fullmatch(answer) else spell(answer)


def _at_once(answer: str, gold: str, verifier: str) -> Verdict | None:
    """The verdict if no worker is needed, else None."""
    if not answer:
        return UNPARSABLE
    if verifier not in VERIFIERS and traits_of(verifier).asks:
        # A verifier that sees more than answers cannot tell whether two of them are the same.
        return CORRECT if answer == gold else INCORRECT
    if len(answer) > MAX_ANSWER_CHARS and (verifier in VERIFIERS or traits_of(verifier).answer_in == "box"):
        return UNPARSABLE
    if verifier not in VERIFIERS:
        return None
    if not gold or len(gold) > MAX_ANSWER_CHARS:
        return UNPARSABLE
    if verifier != "math":
        return CORRECT if answer == gold else INCORRECT
    if _PLAIN_NUMBER.fullmatch(answer) and _PLAIN_NUMBER.fullmatch(gold):
        return CORRECT if int(answer) == int(gold) else INCORRECT
    try:
        if is_sentence(read(answer)):
            return UNPARSABLE
        return CORRECT if same_text(answer, gold) or _EXACT.same(read(answer), read(gold)) else INCORRECT
    except (Undecided, TooLarge):
        return None
    except Unreadable:
        return UNPARSABLE


def same_text(answer: str, gold: str) -> bool:
    """Whether two normal forms are the same readable text, whatever it says."""
    if answer.replace('"', "") != gold.replace('"', ""):
        return False
    return not isinstance(read(answer), False_)


def _is_plain(reading: Reading) -> bool:
    """Whether all of a reading has an exact value, or is words."""
    try:
        return isinstance(reading, Words) or all(value(node) is not None for node in nodes_of(reading))
    except TooLarge:
        return False


def _bare(text: str) -> str:
    r"""The text inside an outer `\text{...}`."""
    match = _TEXT.fullmatch(text)
    return match.group(1).strip() if match else text
