"""Rollouts with their problems, those of `a2r explore` and those made elsewhere: all judged, and none of
other problems.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from a2r_train.errors import InputError
from a2r_train.records import (
    CHECK_VERDICT,
    CORRECT,
    INCORRECT,
    UNPARSABLE,
    Bundle,
    Problem,
    Rollout,
    column_of,
    judged_by,
    read,
    rows,
    value_of,
)
from a2r_train.verify import VERIFIERS, check_gold, equivalent, judge_all

log = logging.getLogger(__name__)
OPTIONAL = {
    "verifier": "str",
    "source": "str",
    "problem_id": "str",
    "completion_tokens": "int",
    "model": "str",
}


def load_rollouts(
    problems: str,
    rollouts: str,
    columns: dict[str, str] | None = None,
    present: set[str] | None = None,
    verifier: str = "",
) -> tuple[list[Problem], list[Rollout]]:
    """Problems and judged rollouts; rows that hold `problem` and `answer` themselves need no problem file.

    `columns` and `present` are those of `read`, for both files; a `verifier` goes before the rows' own.
    Raises InputError as `read`, and for rollouts of other problems.
    """
    if problems:
        known, found = read(Problem, problems, columns, present), read(Rollout, rollouts, columns, present)
    else:
        known, found = _outside_rollouts(rollouts, columns, present)
    known = judged_by(verifier, known)
    check_gold(known)
    by_id = {p.id: p for p in known}
    for r in found:
        if r.problem_id not in by_id:
            raise InputError(
                f"{rollouts}: problem_id {r.problem_id!r} is not in {problems}; "
                "name the problems it was made from"
            )
    if verifier:
        found = [replace(r, answer="", verdict=CHECK_VERDICT) for r in found]
    check_right(found, by_id, rollouts, problems)
    return known, judged(found, by_id)


def judged(rollouts: Sequence[Rollout], golds: Mapping[str, Problem | Bundle]) -> list[Rollout]:
    """All of them judged anew where the gold of their problem is known: it may have been mended since their
    verdicts.
    """
    found = list(rollouts)
    known = [i for i, r in enumerate(found) if r.problem_id in golds]
    made = judge_all(
        [
            (found[i].text, golds[found[i].problem_id].answer, golds[found[i].problem_id].verifier)
            for i in known
        ]
    )
    for i, judgement in zip(known, made, strict=True):
        found[i] = replace(found[i], answer=judgement.answer, verdict=judgement.verdict)
    return found


def check_right(
    rollouts: Sequence[Rollout], golds: Mapping[str, Problem | Bundle], path: str, problems: str
) -> None:
    """Raise InputError for a right rollout that has not the gold answer of its problem.

    It is of another problem with the same id (where a file has none, ids are the numbers of its lines), or
    was judged by another verifier.
    """
    for r in rollouts:
        problem = golds.get(r.problem_id)
        if problem and r.verdict == CORRECT and _is_not_gold(r.answer, problem):
            raise InputError(
                f"{path}: sample {r.sample} of problem {r.problem_id!r} is said "
                f"to be correct with {r.answer[:40]!r}, and "
                f"{problems} has {problem.answer[:40]!r}; name the problems "
                "it was made from, and their verifier"
            )


def check_references(bundles: Iterable[Bundle], path: str) -> None:
    """Raise InputError for a right reference whose answer is not the gold of its bundle."""
    for b in bundles:
        for answer, verdict in zip(b.reference_answers, b.reference_verdicts, strict=True):
            if verdict == CORRECT and _is_not_gold(answer, b):
                raise InputError(
                    f"{path}: bundle {b.id!r} has a reference that is said to be "
                    f"correct with {answer[:40]!r}, and the answer "
                    f"{b.answer[:40]!r}; make it anew with `a2r bundle`, which judges"
                )


def _is_not_gold(answer: str, problem: Problem | Bundle) -> bool:
    """Whether a right answer is another than the gold; what an own verifier takes for right is its own
    affair.
    """
    known = bool(answer) and problem.verifier in VERIFIERS
    return known and equivalent(answer, problem.answer, problem.verifier) in (INCORRECT, UNPARSABLE)


def _outside_rollouts(
    path: str, columns: dict[str, str] | None, present: set[str] | None
) -> tuple[list[Problem], list[Rollout]]:
    """Rollouts made elsewhere: columns problem, answer (gold) and text, and what there is of `OPTIONAL`."""
    problems: dict[str, Problem] = {}
    first: dict[str, tuple[str, str]] = {}  # by id: the place of its first row, and the problem there
    rollouts = []
    for number, (place, row) in enumerate(rows(path)):
        if present is not None:
            present.update(row)
        text, problem = _outside_row(row, place, columns, present is None, len(problems))
        known = problems.setdefault(problem.problem, problem)
        where, there = first.setdefault(known.id, (place, known.problem))
        if (
            known.answer != problem.answer
            and equivalent(problem.answer, known.answer, known.verifier) != CORRECT
        ):
            raise InputError(
                f"{place}: answer {problem.answer!r}, and {where} has {known.answer!r} for the same problem"
            )
        if known.problem != there:
            raise InputError(f"{place}: problem_id {known.id!r}, which {where} has for another problem")
        given = {
            name: _value(name, row, place, columns, present is None)
            for name in ("completion_tokens", "model")
        }
        rollouts.append(
            Rollout(
                known.id, number, text, **{name: value for name, value in given.items() if value is not None}
            )
        )
    if not rollouts:
        raise InputError(f"{path}: no rows; expected at least one rollout")
    return list(problems.values()), rollouts


def _outside_row(
    row: dict[str, Any], place: str, columns: dict[str, str] | None, strict: bool, number: int
) -> tuple[str, Problem]:
    """The text, and the problem with its own id or the number as one."""
    mend = (
        "expected problem, answer and text"
        if columns is None
        else "name the problem file with `problems:`, or map columns"
    )
    values = []
    for name in ("problem", "answer", "text"):
        value, column = _value(name, row, place, columns, strict), column_of(name, row, columns or {}, strict)
        if value is None:
            raise InputError(f"{place}: no column {column!r}; {mend}")
        if name != "text" and not value.strip():
            raise InputError(f"{place}: field {column!r} is empty; every problem needs one")
        values.append(value)
    more = {name: _value(name, row, place, columns, strict) for name in ("verifier", "source")}
    identity = _value("problem_id", row, place, columns, strict)
    given = {name: value for name, value in more.items() if value}
    return values[2], Problem(str(number) if identity is None else identity, values[0], values[1], **given)


def _value(name: str, row: dict[str, Any], place: str, columns: dict[str, str] | None, strict: bool) -> Any:
    if name in ("source", "model") and isinstance(
        row.get(column_of(name, row, columns or {}, strict)), list | dict | bool
    ):
        return None  # it means something else there
    return value_of(name, OPTIONAL.get(name, "str"), row, place, columns or {}, strict)


def warn_of_others(bundles: Sequence[Bundle], rollouts: Sequence[Rollout], path: str) -> None:
    """Say so where no reference is among the rollouts of its problem: they are of another exploration, or of
    other problems.
    """
    texts: dict[str, set[str]] = {}
    for r in rollouts:
        texts.setdefault(r.problem_id, set()).add(r.text)
    known = [b for b in bundles if b.problem_id in texts]
    if known and not any(texts[b.problem_id].intersection(b.references) for b in known):
        log.warning(
            "%s: no reference of any bundle is among the rollouts of "
            "its problem; are they of these problems?",
            path,
        )
