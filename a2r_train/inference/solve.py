"""`a2r solve --file`: questions from a file, with or without references, answered a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from a2r_train.data.files import literal
from a2r_train.data.read import Columns, Row, question_of, used_twice
from a2r_train.errors import InputError
from a2r_train.inference.two_stage import TwoStage
from a2r_train.paths import paths_in
from a2r_train.records import Problem, Reference
from a2r_train.verify import check_verifier
from a2r_train.verify.compare import warn_doubts
from a2r_train.verify.slips import doubts

BATCH = 256  # questions; the output lines of a batch are written together


@dataclass(frozen=True)
class Question:
    """A problem, whose answer need not be known, and the references that came with it, if any."""

    problem: Problem
    references: list[str]


def read_questions(path: str, columns: Columns) -> list[Question]:
    """Read rows of `problem` and, if present, `id`, `verifier` and `references`; the id defaults to the row
    number. References are texts, or those of bundles.

    Raises InputError for a missing file or column, a wrong type, an id that is there twice, an unknown
    verifier, or references in only some of the rows.
    """
    questions, places, verifiers = list[Question](), dict[str, str](), set[str]()
    for number, row in enumerate(chain.from_iterable(map(columns.rows, paths_in(path)))):
        question = _question(row, str(number))
        problem = question.problem
        if problem.id in places:
            raise used_twice(row.place, problem.id, places[problem.id])
        places[problem.id] = row.place
        if problem.verifier not in verifiers:
            _check_verifier(problem.verifier, row.place)
            verifiers.add(problem.verifier)
        if questions and bool(question.references) != bool(questions[0].references):
            has = "has references" if question.references else "has no references"
            raise InputError(
                f"{row.place}: {has}, unlike earlier rows; expected them in all rows, or in none"
            )
        questions.append(question)
    columns.check_met()
    if not questions:
        raise InputError(f"{path}: no rows; expected at least one problem")
    whole = (replace(q.problem, problem="\n".join([q.problem.problem, *q.references])) for q in questions)
    warn_doubts(doubts(whole), path)
    return questions


def _check_verifier(verifier: str, place: str) -> None:
    try:
        check_verifier(verifier)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _question(row: Row, number: str) -> Question:
    return Question(question_of(row, number), _references(row))


def _references(row: Row) -> list[str]:
    """The texts, of objects such as a bundle's too."""
    given = row.values.get(row.column("references"))
    given = literal(given) if isinstance(given, str) else given
    if isinstance(given, list) and given and isinstance(given[0], dict):
        found: list[Reference] = row.value("references", "list[Reference]")
        return [reference.text for reference in found]
    return row.value("references", "list[str]") or []


def answers(loop: TwoStage, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """The output rows, in the order of the questions: the id, and the fields of `Answer`."""
    for at in range(0, len(questions), BATCH):
        batch = questions[at : at + BATCH]
        problems = [question.problem for question in batch]
        if batch[0].references:
            made = loop.synthesise_all(problems, [question.references for question in batch])
        else:
            made = loop.solve_all(problems)
        for problem, answer in zip(problems, made, strict=True):
            yield {"id": problem.id, **asdict(answer)}
